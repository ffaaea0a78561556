"""Nothing that the running network pinned or sent shows an input, an activation or a weight in clear text."""

from __future__ import annotations

import onnx
import pytest
from onnx import numpy_helper

from offchain.models.loading import fetch_manifest, find_identity, load_circuits
from offchain.protocol.field import dequantise, quantise
from offchain.protocol.types import ModelId
from offchain.storage.cid import digest_to_cid
from offchain.storage.ipfs import IpfsStore
from offchain.storage.sealing import Identity
from tests.attacks.clear_text import element_patterns, find, float_patterns
from tests.harness import test_prover
from tests.live_network import MODEL, LiveNetwork, hexadecimal

pytestmark = pytest.mark.e2e

VALUES = (-0.73, 1.21, 0.29, -1.87, 1.43, 0.91)
Patterns = dict[bytes, str]


@pytest.fixture(scope="module")
def store(live: LiveNetwork) -> IpfsStore:
    """The node that all the programs use."""
    return IpfsStore(live.network.ipfs_url, 20.0)


@pytest.fixture(scope="module")
def passed(live: LiveNetwork, store: IpfsStore) -> list[tuple[tuple[int, ...], int]]:
    """What goes into each segment of a job, as only its workers know it, and the last output; each with its scale."""
    contracts, model = live.contracts, ModelId(hexadecimal(live.model))
    manifest = fetch_manifest(contracts, store, model)
    holder = Identity.load(live.network.options.directory / "worker-0" / "identity.age")
    identity = find_identity(contracts, store, model, manifest, holder)
    assert identity is not None
    circuits = load_circuits(manifest, store, test_prover(), identity)
    given = quantise(VALUES, circuits[0].input_scale)
    (outputs,) = test_prover().activations(circuits, [given])
    scales = [circuits[0].input_scale, *(circuit.output_scale for circuit in circuits)]
    return [(tuple(elements), scale) for elements, scale in zip((given, *outputs), scales, strict=True)]


@pytest.fixture(scope="module")
def activations(passed: list[tuple[tuple[int, ...], int]]) -> Patterns:
    """Everything but the last output."""
    patterns = float_patterns(VALUES)
    for elements, scale in passed[:-1]:
        patterns |= element_patterns(elements, scale) | float_patterns(dequantise(elements, scale))
    return patterns


@pytest.fixture(scope="module")
def weights() -> Patterns:
    """Rows and columns of every initializer."""
    patterns: Patterns = {}
    for tensor in onnx.load_from_string(MODEL).graph.initializer:
        array = numpy_helper.to_array(tensor)
        matrix = array.reshape(-1, array.shape[-1])
        for row in (*matrix, *matrix.T):
            patterns |= float_patterns(row.tolist())
    return patterns


@pytest.fixture(scope="module")
def public(live: LiveNetwork, store: IpfsStore, passed: object) -> dict[str, bytes]:
    """All that anyone can read: every pinned content, every transaction's calldata, every event."""
    live.ended(live.submit(VALUES))
    found = {cid: store.get(cid, max_bytes=1 << 26) for cid in store.pinned()}
    web3 = live.network.connection.web3
    for number in range(web3.eth.block_number + 1):
        for transaction in web3.eth.get_block(number, full_transactions=True)["transactions"]:
            found["0x" + transaction["hash"].hex()] = bytes(transaction["input"])
    for log in web3.eth.get_logs({"fromBlock": 0, "toBlock": "latest"}):
        found[f"log {log['blockNumber']}.{log['logIndex']}"] = bytes(log["data"])
    return found


def test_network__everything_public__shows_neither_activations_nor_weights(
    public: dict[str, bytes], activations: Patterns, weights: Patterns
) -> None:
    assert len(public) > 100
    assert find(public, activations) == set()
    assert find(public, weights) == set()


def test_network__last_output__is_public_and_found(
    public: dict[str, bytes], passed: list[tuple[tuple[int, ...], int]]
) -> None:
    """The same detector finds what is public by design: in the last proof on IPFS, and in the transaction with it."""
    found = {place for place, _ in find(public, element_patterns(*passed[-1]))}
    assert {place.startswith("Qm") for place in found} == {True, False}


def test_network__input_of_the_job__is_pinned_sealed(live: LiveNetwork, public: dict[str, bytes]) -> None:
    sealed = [event for event in _inputs_provided(live) if event]
    assert sealed
    for digest in sealed:
        assert public[digest_to_cid(digest)].startswith(b"age-encryption.org/v1\n")


def _inputs_provided(live: LiveNetwork) -> list[bytes]:
    contract = live.contracts.jobs.contract
    logs = contract.events.InputProvided().get_logs(from_block=0)
    return [bytes(log["args"]["inputCid"]) for log in logs]

"""Nothing that was pinned on IPFS or sent to the chain for a whole job shows an input, an activation or a weight."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from offchain.chain.contracts import Contracts
from offchain.protocol.field import dequantise, encode_elements, quantise
from offchain.proving.ezkl_prover import EzklProver
from offchain.storage.cid import digest_to_cid
from offchain.storage.ipfs import IpfsStore
from offchain.storage.sealing import Identity, NotARecipient, unseal
from tests.attacks.clear_text import element_patterns, find, float_patterns
from tests.harness import Play, ReadyModel, Worker, enroll, execute, ready_model, running_store
from tests.local_chain import LocalChain
from tests.models import mlp

pytestmark = pytest.mark.integration

VALUES = (0.7, -1.2, 0.3, 1.9, 0.45, -0.83)
Patterns = dict[bytes, str]


@pytest.fixture(scope="module")
def first_block(chain: LocalChain, contracts: Contracts) -> int:
    """Where the story begins: before the model is published."""
    return chain.connection.block_number() + 1


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A node on which nothing but this job is pinned."""
    with running_store(tmp_path_factory.mktemp("private-ipfs")) as store:
        yield store


@pytest.fixture(scope="module")
def play(first_block: int, own_store: IpfsStore, chain: LocalChain, contracts: Contracts, prover: EzklProver) -> Play:
    """A whole job, from publishing the model to finalising, every segment proved."""
    onnx_bytes, owner = mlp((6, 12, 10, 3), seed=3), chain.instant("private owner")
    model = ready_model(onnx_bytes, "private", prover, own_store, contracts, owner, width=6)
    workers = enroll(chain, contracts, model, 9, "private worker")
    requester = Worker(chain.instant("private requester"), Identity.generate())
    return Play(contracts, own_store, prover, model, workers, requester, VALUES).run()


@pytest.fixture(scope="module")
def pinned(play: Play, own_store: IpfsStore) -> dict[str, bytes]:
    """Everything on IPFS."""
    return {cid: own_store.get(cid, max_bytes=1 << 24) for cid in own_store.pinned()}


@pytest.fixture(scope="module")
def sent(play: Play, first_block: int, contracts: Contracts) -> dict[str, bytes]:
    """Every transaction's calldata, and every event."""
    web3 = contracts.connection.web3
    found = {}
    for number in range(first_block, web3.eth.block_number + 1):
        for transaction in web3.eth.get_block(number, full_transactions=True)["transactions"]:
            found["0x" + transaction["hash"].hex()] = bytes(transaction["input"])
    for log in web3.eth.get_logs({"fromBlock": first_block, "toBlock": "latest"}):
        found[f"log {log['blockNumber']}.{log['logIndex']}"] = bytes(log["data"])
    return found


@pytest.fixture(scope="module")
def activations(play: Play) -> Patterns:
    """The input and what passes between segments, as elements, and as floating point would have it."""
    scale = play.model.manifest.segments[0].output_scale
    patterns = float_patterns(VALUES)
    for elements in play.inputs[:3]:
        patterns |= element_patterns(elements, scale) | float_patterns(dequantise(elements, scale))
    return patterns


@pytest.fixture(scope="module")
def weights(play: Play) -> Patterns:
    """Rows of every initializer, as they are and quantised at the scales that circuits use."""
    patterns: Patterns = {}
    for row in rows_of(play.model.onnx):
        patterns |= float_patterns(row)
        for scale in (play.model.manifest.segments[0].input_scale, 2 * play.model.manifest.segments[0].input_scale):
            patterns |= element_patterns(quantise(row, scale), scale)
    return patterns


@pytest.fixture(scope="module")
def output(play: Play) -> Patterns:
    """The last output, which is public by design."""
    return element_patterns(play.inputs[3], play.model.manifest.segments[-1].output_scale)


def rows_of(model: bytes) -> list[list[float]]:
    arrays = [numpy_helper.to_array(tensor) for tensor in onnx.load_from_string(model).graph.initializer]
    matrices = [array.reshape(-1, array.shape[-1]) for array in arrays]
    return [row.tolist() for matrix in matrices for row in (*matrix, *matrix.T) if len(row) >= 4]


def test_whole_job__pinned_contents__show_neither_activations_nor_weights(
    play: Play, pinned: dict[str, bytes], activations: Patterns, weights: Patterns
) -> None:
    # The model's twelve or so, the grant, the input, nine activations and three proofs.
    assert len(pinned) >= 20
    assert find(pinned, activations) == set()
    assert find(pinned, weights) == set()


def test_whole_job__transactions_and_events__show_neither_activations_nor_weights(
    play: Play, sent: dict[str, bytes], activations: Patterns, weights: Patterns
) -> None:
    assert len(sent) >= 60
    assert find(sent, activations) == set()
    assert find(sent, weights) == set()


def test_whole_job__last_output__is_what_both_show(
    pinned: dict[str, bytes], sent: dict[str, bytes], output: Patterns
) -> None:
    assert len({place for place, _ in find(sent, output)}) == 1
    assert len({place for place, _ in find(pinned, output)}) == 1


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_detector__clear_copies_of_activations__are_found(play: Play, activations: Patterns, segment: int) -> None:
    elements, scale = play.inputs[segment], play.model.manifest.segments[0].output_scale
    reals = dequantise(elements, scale)
    copies = {
        "encoded": encode_elements(elements),
        "little": b"".join(element.to_bytes(32, "little") for element in elements),
        "hexadecimal": encode_elements(elements).hex().encode(),
        "decimal": json.dumps([str(element) for element in elements]).encode(),
        "numbers": json.dumps(elements).encode(),
        "floats": json.dumps(reals).encode(),
        "float32": np.array(reals, np.float32).tobytes(),
        "float64": np.array(reals, np.float64).tobytes(),
        "calldata": b"\1\2\3\4" + bytes(31) + b"\x20" + encode_elements(elements) + b"\5",
        # What the prover writes and must never leave the worker.
        "witness": execute(play.prover, play.model.circuits[segment], elements).document,
    }
    assert {name for name, _ in find(copies, activations)} == set(copies)


def test_detector__unsealed_activation_on_ipfs__is_found(
    play: Play, own_store: IpfsStore, pinned: dict[str, bytes], activations: Patterns
) -> None:
    cid = own_store.put(encode_elements(play.inputs[1]))
    leaked = pinned | {cid: own_store.get(cid, max_bytes=1 << 20)}
    own_store.unpin(cid)
    assert {name for name, _ in find(leaked, activations)} == {cid}


def test_detector__clear_copies_of_weights__are_found(play: Play, weights: Patterns) -> None:
    copies = {f"segment {index}": circuit.onnx.read_bytes() for index, circuit in enumerate(play.model.circuits)}
    copies["whole"] = play.model.onnx
    copies["text"] = json.dumps(rows_of(play.model.onnx)).encode()
    copies["quantised"] = encode_elements(quantise(rows_of(play.model.onnx)[0], 7))
    assert {name for name, _ in find(copies, weights)} == set(copies)


def test_sealed_contents__strangers_and_workers_of_other_segments__open_nothing(
    play: Play, own_store: IpfsStore, pinned: dict[str, bytes]
) -> None:
    rounds = play.view().rounds
    cids = [play.view().job.input_cid, *(member.activation_cid for round_ in rounds for member in round_.members)]
    assert all(pinned[digest_to_cid(cid)].startswith(b"age-encryption.org/v1\n") for cid in cids)
    readers = [tuple(play.workers[member.operator].identity for member in round_.members) for round_ in rounds]
    readers.append((play.requester.identity,))
    everybody = {identity for committee in readers for identity in committee} | {Identity.generate()}
    for place, cid in enumerate(cids):
        recipients = readers[0] if place == 0 else readers[1 + (place - 1) // 3]
        for identity in recipients:
            assert unseal(pinned[digest_to_cid(cid)], identity)
        for identity in everybody - set(recipients):
            with pytest.raises(NotARecipient):
                unseal(pinned[digest_to_cid(cid)], identity)


def test_ready_model__prepared_contents__are_all_pinned(play: Play, pinned: dict[str, bytes]) -> None:
    model: ReadyModel = play.model
    assert set(model.prepared.contents) <= set(pinned)

"""The fixed vectors, held against Python and the contracts. Those of real jobs are tested in ``tests/contracts``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from offchain.chain.contracts import Contracts
from offchain.protocol import hashing, links
from offchain.protocol.types import (
    ZERO_ADDRESS,
    Address,
    Job,
    JobId,
    Label,
    Link,
    ModelId,
    Phase,
    Policy,
    Round,
)
from tests.local_chain import LocalChain

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "hashing.json").read_text())
CHAIN_ID: int = VECTORS["chain_id"]
JOBS = Address(VECTORS["jobs"])
WORDS = st.binary(min_size=32, max_size=32)
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: Address("0x" + raw.hex()))


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def spec(fields: list[Any]) -> tuple[object, ...]:
    return (raw(fields[0]), raw(fields[1]), *fields[2:])


def round_of(vector: dict[str, str]) -> Round:
    return Round(
        total_weight=int(vector["total_weight"]),
        settled_link=Link(raw(vector["settled_link"])),
        settled_weight=int(vector["settled_weight"]),
        prover=ZERO_ADDRESS,
        proved_by=ZERO_ADDRESS,
        proof_hash=raw(vector["proof_hash"]),
        proof_cid=raw(vector["proof_cid"]),
        members=(),
    )


def job_of(vector: dict[str, Any]) -> Job:
    policy = Policy(1, 6000, 0, 2, 2, 2, 2)
    ids = JobId(raw(vector["job"])), ModelId(raw(vector["model_id"])), Link(raw(vector["input_link"]))
    segments = len(vector["rounds"])
    return Job(ids[0], JOBS, Phase.FINALISED, 0, segments, 0, 0, 0, 0, ids[1], ids[2], b"", b"", 0, policy, b"")


def computed(name: str) -> bytes:
    """What our function of this name makes of its vector."""
    vector = VECTORS[name]
    match name:
        case "model_id":
            specs = [spec(fields) for fields in vector["specs"]]
            return hashing.model_id(raw(vector["manifest_hash"]), raw(vector["manifest_cid"]), specs)
        case "job_id":
            return hashing.job_id(CHAIN_ID, JOBS, Address(vector["requester"]), raw(vector["salt"]))
        case "commitment":
            return hashing.commitment(
                CHAIN_ID,
                JOBS,
                JobId(raw(vector["job"])),
                vector["segment"],
                Address(vector["operator"]),
                Link(raw(vector["link"])),
                raw(vector["salt"]),
            )
        case "committee_seed" | "sample_seed":
            seed = getattr(hashing, name)
            return seed(CHAIN_ID, JOBS, JobId(raw(vector["job"])), vector["segment"], raw(vector["entropy"]))
        case "proof_hash":
            return hashing.proof_hash(raw(vector["proof"]), [int(instance) for instance in vector["instances"]])
        case "evidence_root":
            rounds = [round_of(round_) for round_ in vector["rounds"]]
            return hashing.evidence_root(CHAIN_ID, JOBS, job_of(vector), rounds)
        case "link_of_commitment":
            return links.link_of_commitment(raw(vector["commitment"]))
        case "link_of_values":
            return links.link_of_values([int(value) for value in vector["values"]])
    raise KeyError(name)


FUNCTIONS = [name for name, vector in VECTORS.items() if isinstance(vector, dict) and "output" in vector]


@pytest.mark.unit
@pytest.mark.parametrize("name", FUNCTIONS)
def test_hashing__vectors__are_what_python_computes(name: str) -> None:
    assert computed(name) == raw(VECTORS[name]["output"])


@pytest.mark.unit
def test_hashing__tags__are_hashes_of_their_names() -> None:
    for name, tag in VECTORS["tags"].items():
        assert getattr(hashing, f"{name}_TAG") == raw(tag) == keccak(f"interlock.{name.lower()}.v1".encode())
    assert len(set(VECTORS["tags"].values())) == len(VECTORS["tags"]) == 8


@pytest.mark.integration
@pytest.mark.usefixtures("isolation")
def test_hashing__vectors__are_what_the_contracts_compute(chain: LocalChain, contracts: Contracts) -> None:
    # The vectors are of a chain and an address of their own: the deployed code is put there.
    assert chain.connection.chain_id == CHAIN_ID
    code = chain.connection.web3.eth.get_code(contracts.jobs.address)  # type: ignore[arg-type]
    chain.rpc("anvil_setCode", JOBS, "0x" + bytes(code).hex())
    jobs = chain.connection.contract("Jobs", JOBS).functions
    vector = VECTORS["job_id"]
    assert bytes(jobs.jobIdOf(vector["requester"], raw(vector["salt"])).call()) == raw(vector["output"])
    vector = VECTORS["commitment"]
    committed = jobs.commitmentOf(
        raw(vector["job"]), vector["segment"], vector["operator"], raw(vector["link"]), raw(vector["salt"])
    )
    assert bytes(committed.call()) == raw(vector["output"])
    vector = VECTORS["model_id"]
    model = contracts.registry.contract.functions.modelIdOf(
        raw(vector["manifest_hash"]), raw(vector["manifest_cid"]), [spec(fields) for fields in vector["specs"]]
    )
    assert bytes(model.call()) == raw(vector["output"])


@pytest.mark.unit
@given(
    words=st.lists(WORDS, min_size=3, max_size=3, unique=True),
    addresses=st.lists(ADDRESSES, min_size=2, max_size=2, unique=True),
    segment=st.integers(0, 15),
    chain_id=st.integers(1, 2**64),
)
def test_commitment__any_change__changes_it(
    words: list[bytes], addresses: list[Address], segment: int, chain_id: int
) -> None:
    job, link, salt = JobId(words[0]), Link(words[1]), words[2]
    jobs, operator = addresses
    whole = (chain_id, jobs, job, segment, operator, link, salt)
    base = hashing.commitment(*whole)
    for index, other in enumerate((chain_id + 1, operator, JobId(salt), segment + 1, jobs, Link(job), link)):
        assert hashing.commitment(*whole[:index], other, *whole[index + 1 :]) != base  # type: ignore[arg-type]


@pytest.mark.unit
@given(proof=st.binary(max_size=100), instances=st.lists(st.integers(0, 2**256 - 1), max_size=4))
def test_proof_hash__encoding__is_injective(proof: bytes, instances: list[int]) -> None:
    assert hashing.proof_hash(proof, instances) == keccak(encode(["bytes", "uint256[]"], [proof, instances]))
    assert hashing.proof_hash(proof + bytes(32), instances) != hashing.proof_hash(proof, instances)
    assert hashing.proof_hash(proof, [*instances, 0]) != hashing.proof_hash(proof, instances)


@pytest.mark.unit
def test_evidence_root__any_field_of_any_round__changes_it() -> None:
    vector = VECTORS["evidence_root"]
    for index in range(len(vector["rounds"])):
        for field, value in vector["rounds"][index].items():
            changed = [dict(round_) for round_ in vector["rounds"]]
            other = "0x" + "01" * 32 if value.startswith("0x") else str(int(value) + 1)
            changed[index][field] = other
            root = hashing.evidence_root(CHAIN_ID, JOBS, job_of(vector), [round_of(round_) for round_ in changed])
            assert root != raw(vector["output"]), (index, field)
    assert round_of(vector["rounds"][0]).label is Label.PROVED
    assert round_of(vector["rounds"][1]).label is Label.AGREED


@pytest.mark.unit
@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_link_of_commitment__other_length__is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        links.link_of_commitment(bytes(length))

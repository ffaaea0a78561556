"""The fixed vectors, held against Python and the contracts. Those of real jobs are tested in ``tests/contracts``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_account.messages import encode_typed_data
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
    Member,
    ModelId,
    Phase,
    Policy,
    Round,
)
from tests.local_chain import LocalChain

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "hashing.json").read_text())
CHAIN_ID: int = VECTORS["chain_id"]
JOBS = Address(VECTORS["jobs"])
STAKING = Address(VECTORS["staking"])
WORDS = st.binary(min_size=32, max_size=32)
ADDRESSES = st.binary(min_size=20, max_size=20).map(lambda raw: Address("0x" + raw.hex()))


def raw(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def spec(fields: list[Any]) -> tuple[object, ...]:
    return (raw(fields[0]), raw(fields[1]), *fields[2:])


def round_of(vector: dict[str, Any]) -> Round:
    link = Link(raw(vector["settled_link"]))
    supporters = tuple(Member(JOBS, 1, b"", link, b"") for _ in range(vector["supporters"]))
    return Round(
        total_weight=int(vector["total_weight"]),
        settled_link=link,
        settled_weight=int(vector["settled_weight"]),
        prover=ZERO_ADDRESS,
        proved_by=ZERO_ADDRESS,
        overturned=False,
        proof_hash=raw(vector["proof_hash"]),
        proof_cid=raw(vector["proof_cid"]),
        members=supporters,
    )


def job_of(vector: dict[str, Any]) -> Job:
    return Job(
        id=JobId(raw(vector["job"])),
        requester=JOBS,
        phase=Phase.FINALISED,
        segment=0,
        segments=len(vector["rounds"]),
        proofs_due=0,
        redraws=0,
        frozen_block=0,
        seed_block=0,
        deadline=0,
        ends_at=0,
        closed_at=0,
        model_id=ModelId(raw(vector["model_id"])),
        input_link=Link(raw(vector["input_link"])),
        input_cid=b"",
        result_key=b"",
        route_cid=b"",
        fee_wei=0,
        policy=Policy(1, 6000, 0, 2, 2, 2, 2, 2),
        attempts=(0,) * len(vector["rounds"]),
        evidence_root=b"",
    )


def words(vector: dict[str, Any], *names: str) -> list[Any]:
    """Fields of hexadecimal text, or of lists of it, as bytes."""
    fields = (vector[name] for name in names)
    return [raw(field) if isinstance(field, str) else [raw(item) for item in field] for field in fields]


def computed(name: str) -> bytes:
    """What our function of this name makes of its vector."""
    vector = VECTORS[name]
    match name:
        case "model_id":
            specs = [spec(fields) for fields in vector["specs"]]
            return hashing.model_id(*words(vector, "manifest_hash", "manifest_cid"), specs, words(vector, "trials")[0])
        case "job_id":
            return hashing.job_id(CHAIN_ID, JOBS, Address(vector["requester"]), raw(vector["salt"]))
        case "commitment":
            job, link, salt = words(vector, "job", "link", "salt")
            place = (JobId(job), vector["segment"], vector["attempt"], Address(vector["operator"]))
            return hashing.commitment(CHAIN_ID, JOBS, *place, Link(link), salt)
        case "announcement":
            place = (JobId(raw(vector["job"])), vector["segment"], vector["attempt"], Address(vector["operator"]))
            return hashing.announcement(CHAIN_ID, JOBS, *place, raw(vector["proof_hash"]))
        case "answer_hash":
            return hashing.answer_hash(raw(vector["answer"]))
        case "trial_answer":
            return hashing.trial_answer(words(vector, "links")[0])
        case "trial_commitment":
            model, answer, salt = words(vector, "model_id", "answer", "salt")
            operator = Address(vector["operator"])
            return hashing.trial_commitment(CHAIN_ID, STAKING, model, vector["trial"], operator, answer, salt)
        case "result_digest":
            job, link = words(vector, "job", "link")
            return hashing.result_digest(
                CHAIN_ID, STAKING, JobId(job), vector["segment"], vector["attempt"], Link(link)
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
    second = {"MODEL", "COMMIT"}  # their preimages changed, and with them their names
    for name, tag in VECTORS["tags"].items():
        version = 2 if name in second else 1
        assert getattr(hashing, f"{name}_TAG") == raw(tag) == keccak(f"interlock.{name.lower()}.v{version}".encode())
    tags = {name for name in vars(hashing) if name.endswith("_TAG")}
    assert {f"{name}_TAG" for name in VECTORS["tags"]} == tags
    assert len(set(VECTORS["tags"].values())) == len(tags)
    assert tuple(map(raw, VECTORS["typehashes"].values())) == (hashing.DOMAIN_TYPEHASH, hashing.RESULT_TYPEHASH)


@pytest.mark.unit
def test_result_digest__vector__is_what_eth_account_makes_of_the_typed_message() -> None:
    vector = VECTORS["result_digest"]
    domain = {"name": "Interlock", "version": "1", "chainId": CHAIN_ID, "verifyingContract": STAKING}
    types = {
        "Result": [
            {"name": "jobId", "type": "bytes32"},
            {"name": "segment", "type": "uint256"},
            {"name": "attempt", "type": "uint256"},
            {"name": "link", "type": "bytes32"},
        ]
    }
    job, link = words(vector, "job", "link")
    message = {"jobId": job, "segment": vector["segment"], "attempt": vector["attempt"], "link": link}
    signable = encode_typed_data(domain, types, message)
    assert keccak(b"\x19" + signable.version + signable.header + signable.body) == raw(vector["output"])


@pytest.mark.integration
@pytest.mark.usefixtures("isolation")
def test_hashing__vectors__are_what_the_contracts_compute(chain: LocalChain, contracts: Contracts) -> None:
    # The vectors are of a chain and addresses of their own: the deployed code is put there.
    assert chain.connection.chain_id == CHAIN_ID
    places = {"Jobs": (JOBS, contracts.jobs.address), "Staking": (STAKING, contracts.staking.address)}
    for place, deployed in places.values():
        code = chain.connection.web3.eth.get_code(deployed)  # type: ignore[arg-type]
        chain.rpc("anvil_setCode", place, "0x" + bytes(code).hex())
    functions = {name: chain.connection.contract(name, place).functions for name, (place, _) in places.items()}
    jobs, staking = functions["Jobs"], functions["Staking"]
    registry = contracts.registry.contract.functions
    call = {name: VECTORS[name] for name in FUNCTIONS}
    model = call["model_id"]
    specs = [spec(fields) for fields in model["specs"]]
    calls = {
        "job_id": jobs.jobIdOf(call["job_id"]["requester"], raw(call["job_id"]["salt"])),
        "commitment": jobs.commitmentOf(*place_of(call["commitment"]), *words(call["commitment"], "link", "salt")),
        "announcement": jobs.announcementOf(*place_of(call["announcement"]), raw(call["announcement"]["proof_hash"])),
        "model_id": registry.modelIdOf(
            *words(model, "manifest_hash", "manifest_cid"), specs, words(model, "trials")[0]
        ),
        "trial_commitment": staking.trialCommitmentOf(
            raw(call["trial_commitment"]["model_id"]),
            call["trial_commitment"]["trial"],
            call["trial_commitment"]["operator"],
            *words(call["trial_commitment"], "answer", "salt"),
        ),
        "result_digest": staking.resultDigestOf(*place_of(call["result_digest"]), raw(call["result_digest"]["link"])),
    }
    assert {name: bytes(function.call()) for name, function in calls.items()} == {
        name: raw(VECTORS[name]["output"]) for name in calls
    }
    assert bytes(staking.RESULT_TYPEHASH().call()) == raw(VECTORS["typehashes"]["RESULT"])


def place_of(vector: dict[str, Any]) -> tuple[Any, ...]:
    """Job, segment, attempt and, where there is one, operator, as the contracts take them."""
    place = (raw(vector["job"]), vector["segment"], vector["attempt"])
    return (*place, vector["operator"]) if "operator" in vector else place


@pytest.mark.unit
@given(
    numbers=st.lists(WORDS, min_size=3, max_size=3, unique=True),
    addresses=st.lists(ADDRESSES, min_size=2, max_size=2, unique=True),
    segment=st.integers(0, 15),
    attempt=st.integers(0, 2**16 - 2),
    chain_id=st.integers(1, 2**64),
)
def test_commitment__any_change__changes_it(
    numbers: list[bytes], addresses: list[Address], segment: int, attempt: int, chain_id: int
) -> None:
    job, link, salt = JobId(numbers[0]), Link(numbers[1]), numbers[2]
    jobs, operator = addresses
    whole = (chain_id, jobs, job, segment, attempt, operator, link, salt)
    others = (chain_id + 1, operator, JobId(salt), segment + 1, attempt + 1, jobs, Link(job), link)
    base = hashing.commitment(*whole)
    for index, other in enumerate(others):
        assert hashing.commitment(*whole[:index], other, *whole[index + 1 :]) != base  # type: ignore[arg-type]
    announced = hashing.announcement(*whole[:-1])
    for index, other in enumerate(others[:-1]):
        assert hashing.announcement(*whole[:index], other, *whole[index + 1 : -1]) != announced  # type: ignore[arg-type]
    tried = (chain_id, jobs, job, segment, operator, link, salt)
    trial = hashing.trial_commitment(*tried)
    for index, other in enumerate((chain_id + 1, operator, JobId(salt), segment + 1, jobs, Link(job), link)):
        assert hashing.trial_commitment(*tried[:index], other, *tried[index + 1 :]) != trial  # type: ignore[arg-type]
    signed = (chain_id, jobs, job, segment, attempt, link)
    digest = hashing.result_digest(*signed)
    for index, other in enumerate((chain_id + 1, operator, JobId(salt), segment + 1, attempt + 1, Link(salt))):
        assert hashing.result_digest(*signed[:index], other, *signed[index + 1 :]) != digest  # type: ignore[arg-type]


@pytest.mark.unit
@given(links_=st.lists(WORDS, min_size=1, max_size=5))
def test_trial_answer__any_link_changed_or_moved__changes_it(links_: list[bytes]) -> None:
    base = hashing.trial_answer([Link(link) for link in links_])
    assert hashing.trial_answer([Link(link) for link in (*links_, links_[0])]) != base
    for index, link in enumerate(links_):
        other = [*links_[:index], keccak(link), *links_[index + 1 :]]
        assert hashing.trial_answer([Link(word) for word in other]) != base
    assert hashing.answer_hash(base) != base


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
            other = "0x" + "01" * 32 if str(value).startswith("0x") else type(value)(int(value) + 1)
            if field == "supporters" and value > 1:
                continue  # how many they are beyond the second is no evidence
            changed[index][field] = other
            root = hashing.evidence_root(CHAIN_ID, JOBS, job_of(vector), [round_of(round_) for round_ in changed])
            assert root != raw(vector["output"]), (index, field)
    assert round_of(vector["rounds"][0]).label is Label.PROVED
    assert round_of(vector["rounds"][1]).label is Label.AGREED
    assert round_of(vector["rounds"][2]).label is Label.UNPROVED


@pytest.mark.unit
@pytest.mark.parametrize("length", [0, 63, 65, 128])
def test_link_of_commitment__other_length__is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        links.link_of_commitment(bytes(length))

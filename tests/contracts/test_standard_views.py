from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak
from eth_utils.abi import function_abi_to_4byte_selector
from web3.contract import Contract

from migrations import m03_views
from migrations.ledger import Ledger, parameters
from migrations.steps import migrate_all
from offchain.chain import connection as decoding
from offchain.chain.connection import artefact
from offchain.chain.deployment import Deployment
from offchain.chain.sender import Receipt
from offchain.errors import UnrecoverableError
from offchain.protocol.field import encode_elements
from offchain.protocol.links import LinkKind
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Job, JobId, Label, Link, ModelId, Phase, Policy
from tests.contracts.stage import OUTPUT, POLICY, STAKES, Play, Stage, commitment_link, refused, spec, with_policy

pytestmark = pytest.mark.integration

NAMES = ("VerifiedInference", "ValidationRegistry")
UNKNOWN = JobId(keccak(b"unknown"))
RESULT = encode_elements(OUTPUT)
LIE = commitment_link(b"a lie")
OTHER_LIE = commitment_link(b"another lie")
UNPROVED = with_policy(proof_permille=0)
ALONE = with_policy(proof_permille=0, committee_size=1)


@dataclass(frozen=True)
class Views:
    """The views of a stage's record, and the usual questions to them."""

    stage: Stage
    inference: Contract
    validations: Contract

    def ask(self, contract: Contract, function: str, *arguments: Any) -> Any:
        """A free call from the owner's account."""
        with self.stage.chain.connection.translated(function):
            return contract.functions[function](*arguments).call({"from": self.stage.owner.address})

    def verify(self, job: Job, **changes: Any) -> Receipt:
        """Have a job's inference verified, as it is recorded but for the changes."""
        return self.stage.owner.send(self.verification(job, **changes))

    def verification(self, job: Job, **changes: Any) -> Any:
        """The call that :meth:`verify` sends."""
        fields = {
            "model_id": number(job.model_id),
            "input_commitment": self.input_commitment(job),
            "output": RESULT,
            "proof": job.id,
        }
        assert changes.keys() <= fields.keys()
        return self.inference.functions.verifyInference(*(fields | changes).values())

    def input_commitment(self, job: Job) -> bytes:
        """What ``inputCommitmentOf`` is to say."""
        chain_id, jobs = self.stage.contracts.connection.chain_id, self.stage.contracts.jobs.address
        types = ["bytes32", "uint256", "address", "bytes32", "bytes32"]
        return keccak(encode(types, [keccak(b"interlock.erc7992.input.v1"), chain_id, jobs, job.id, job.input_link]))

    def status(self, job: Job) -> dict[str, Any]:
        """What ``getValidationStatus`` says of a job, but for what is the same for all."""
        validator, agent, response, evidence, tag, updated = self.ask(self.validations, "getValidationStatus", job.id)
        assert (validator, agent) == (self.stage.contracts.jobs.address, number(job.model_id))
        return {"response": response, "tag": tag, "evidence": bytes(evidence), "updated": updated}


@pytest.fixture(autouse=True)
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Off chain nothing calls the views, so that their errors are not among those that a connection can name."""
    monkeypatch.setattr(decoding, "CONTRACTS", (*decoding.CONTRACTS, *NAMES))
    decoding._custom_errors.cache_clear()
    yield
    decoding._custom_errors.cache_clear()


@pytest.fixture
def views(stage: Stage) -> Views:
    """The views that the migrations deployed."""
    deployment = stage.contracts.deployment
    assert deployment.verified_inference is not None
    assert deployment.validation_registry is not None
    bind = stage.chain.connection.contract
    inference, validations = deployment.verified_inference, deployment.validation_registry
    return Views(stage, bind(NAMES[0], inference), bind(NAMES[1], validations))


def number(model: ModelId) -> int:
    """A model's id as the drafts write it."""
    return int.from_bytes(model, "big")


def finish(
    stage: Stage,
    policy: Policy = POLICY,
    votes: Mapping[int, Mapping[str, Link]] | None = None,
    overturned: Collection[int] = (),
) -> Play:
    """Play a job to its end.

    Args:
        votes: by segment and worker, what is not the truth.
        overturned: segments where all but the first worker lie, and it proves so.
    """
    honest, *liars = stage.workers
    play = stage.request(policy).to_committing()
    segments = play.record.segments
    for segment in range(segments):
        lies = {liar.address: LIE for liar in liars} if segment in overturned else {}
        play.play_round({**lies, **(votes or {}).get(segment, {})})
        if segment in overturned:
            play.challenge(segment, honest)
    if play.phase is Phase.SAMPLING:
        play.draw()
        for segment in range(segments):
            play.prove(segment)
    if play.phase is Phase.CHALLENGEABLE:
        play.lapse()
    play.finalise()
    return play


# --- ERC-7992 ---------------------------------------------------------------------------------------------------------


def test_verify_inference__every_segment_proved__passes_and_is_announced(stage: Stage, views: Views) -> None:
    job = finish(stage).record
    account = stage.chain.deploy(stage.owner, "AccountMock")
    execute = stage.chain.connection.contract("AccountMock", account).functions.execute
    through_a_contract = execute(views.inference.address, views.verification(job)._encode_transaction_data())
    # Anyone may, and any number of times.
    for caller, call in ((stage.owner.address, views.verification(job)), (account, through_a_contract)):
        receipt = stage.owner.send(call)
        mined = stage.chain.rpc("eth_getTransactionReceipt", receipt.transaction_hash)
        (event,) = views.inference.events.InferenceVerified().get_logs(from_block=receipt.block_number)
        assert len(mined["logs"]) == 1
        assert dict(event["args"]) == {
            "modelId": number(stage.model),
            "inputCommitment": views.input_commitment(job),
            "output": RESULT,
            "caller": caller,
        }


def test_verify_inference__segments_overturned_by_proofs__passes(stage: Stage, views: Views) -> None:
    play = finish(stage, UNPROVED, overturned=(0, 1, 2))
    assert all(play.round(segment).overturned for segment in range(3))
    views.verify(play.record)


@pytest.mark.parametrize(("overturned", "first_agreed"), [((), 0), ((0,), 1), ((1, 2), 0), ((0, 2), 1), ((0, 1), 2)])
def test_verify_inference__one_segment_merely_agreed__is_refused_by_its_index(
    stage: Stage, views: Views, overturned: tuple[int, ...], first_agreed: int
) -> None:
    job = finish(stage, UNPROVED, overturned=overturned).record
    with refused("SegmentNotProved", jobId=job.id, segment=first_agreed, actual=Label.AGREED):
        views.verify(job)


def test_verify_inference__one_members_word__is_refused(stage: Stage, views: Views) -> None:
    job = finish(stage, ALONE).record
    with refused("SegmentNotProved", jobId=job.id, segment=0, actual=Label.UNPROVED):
        views.verify(job)


@pytest.mark.parametrize(
    "output",
    [b"", RESULT[:-1], RESULT + b"\0", RESULT[32:], RESULT[:-1] + b"\x08", b"\1" + RESULT[1:]],
    ids=["none", "short", "long", "without the first element", "last byte", "first byte"],
)
def test_verify_inference__altered_output__is_refused(stage: Stage, views: Views, output: bytes) -> None:
    job = finish(stage).record
    with refused("OutputMismatch"):
        views.verify(job, output=output)


def test_verify_inference__output_of_an_earlier_segment__is_refused(stage: Stage, views: Views) -> None:
    job = finish(stage).record
    with refused("OutputMismatch"):
        views.verify(job, output=stage._boundary(2))


def test_verify_inference__other_input__is_refused(stage: Stage, views: Views) -> None:
    first, second = finish(stage).record, finish(stage).record
    assert first.input_link == second.input_link
    for wrong in (views.input_commitment(second), first.input_link, ZERO_HASH):
        with refused("InputCommitmentMismatch"):
            views.verify(first, input_commitment=wrong)


def test_verify_inference__other_model__is_refused(stage: Stage, views: Views) -> None:
    job, other = finish(stage).record, stage.register_segments(3, "other")
    with refused("ModelMismatch"):
        views.verify(job, model_id=number(other))
    unknown = number(ModelId(UNKNOWN))
    with refused("ModelNotFound", modelId=unknown):
        views.verify(job, model_id=unknown)


def test_verify_inference__proof_that_is_no_job__is_refused(stage: Stage, views: Views) -> None:
    job = finish(stage).record
    for proof in (b"", job.id[:-1], job.id + b"\0"):
        with refused("InvalidProof"):
            views.verify(job, proof=proof)
    for proof in (UNKNOWN, ZERO_HASH):
        with refused("UnknownJob", jobId=proof):
            views.verify(job, proof=proof)


def test_verify_inference__job_that_is_not_finalised__is_refused_with_its_phase(stage: Stage, views: Views) -> None:
    play = stage.request()
    with refused("JobNotFinalised", jobId=play.job, actual=Phase.REQUESTED):
        views.verify(play.record)
    play.to_committing().play_round().play_round().play_round().draw()
    for segment in range(3):
        play.prove(segment)
    with refused("JobNotFinalised", jobId=play.job, actual=Phase.FINALISABLE):
        views.verify(play.record)
    late = stage.request()
    late.lapse()
    with refused("JobNotFinalised", jobId=late.job, actual=Phase.EXPIRED):
        views.verify(late.record)
    late.expire()
    with refused("JobNotFinalised", jobId=late.job, actual=Phase.FAILED):
        views.verify(late.record)


def test_input_commitment_of__job__binds_it_in_a_domain_of_its_own(stage: Stage, views: Views) -> None:
    first, second = stage.request().record, stage.request().record
    on_chain = [bytes(views.ask(views.inference, "inputCommitmentOf", job.id)) for job in (first, second)]
    assert on_chain == [views.input_commitment(first), views.input_commitment(second)]
    assert on_chain[0] != on_chain[1]
    with refused("UnknownJob", jobId=UNKNOWN):
        views.ask(views.inference, "inputCommitmentOf", UNKNOWN)


def test_get_model__registered__is_the_registrys(stage: Stage, views: Views) -> None:
    mocks = [stage.mock(circuit=circuit) for circuit in range(2)]
    keys = [keccak(b"first key"), keccak(b"second key")]
    specs = [spec(code, verification_key_digest=key) for (_, code), key in zip(mocks, keys, strict=True)]
    specs[1]["output_kind"] = LinkKind.PUBLIC
    model = stage.register(specs, [address for address, _ in mocks], "keys")
    commitment, deprecated, owner = views.ask(views.inference, "getModel", number(model))
    manifest_hash, manifest_cid = stage.contracts.registry.manifest_of(model)
    model_hash, circuit_hash, key_hash, system, uri = commitment
    assert bytes(model_hash) == manifest_hash
    assert bytes(circuit_hash) == keccak(b"".join(code for _, code in mocks))
    assert bytes(key_hash) == keccak(b"".join(keys))
    assert bytes(system) == keccak(b"halo2-kzg-bn254-v1")[:4]
    # Source: CIDv1, multibase f (base 16): version 1, dag-pb 0x70, sha2-256 0x12, its length.
    assert uri.startswith("ipfs://f")
    assert bytes.fromhex(uri.removeprefix("ipfs://f")) == bytes((1, 0x70, 0x12, 32)) + manifest_cid
    assert (deprecated, owner) == (False, ZERO_ADDRESS)
    assert bytes(views.ask(views.inference, "proofSystemOf", number(model))) == bytes(system)


@pytest.mark.parametrize("function", ["getModel", "proofSystemOf"])
def test_models__unknown__are_refused(views: Views, function: str) -> None:
    unknown = number(ModelId(UNKNOWN))
    with refused("ModelNotFound", modelId=unknown):
        views.ask(views.inference, function, unknown)


def test_models__changes__are_refused(stage: Stage, views: Views) -> None:
    model, nothing = number(stage.model), (ZERO_HASH, ZERO_HASH, ZERO_HASH, bytes(4), "")
    with refused("ModelsRegisteredElsewhere", registry=stage.contracts.registry.address):
        views.ask(views.inference, "registerModel", nothing)
    with refused("NotModelOwner", modelId=model, caller=stage.owner.address):
        views.ask(views.inference, "updateModel", model, nothing)
    with refused("NotModelOwner", modelId=model, caller=stage.owner.address):
        views.ask(views.inference, "deprecateModel", model)


@pytest.mark.parametrize(
    ("interface", "is_supported"),
    [
        ("01ffc9a7", True),  # ERC-165
        ("d28519b1", True),  # registry
        ("5df65472", True),  # verifier, with its optional functions
        ("80b171ef", False),  # verifier without them
        ("29c6ba89", False),  # storage extension
        ("ffffffff", False),  # no interface at all
    ],
)
def test_supports_interface__ids__are_those_of_the_draft(views: Views, interface: str, is_supported: bool) -> None:
    # Source: ERC-165, the exclusive or of the selectors; the draft prints none.
    assert views.ask(views.inference, "supportsInterface", bytes.fromhex(interface)) is is_supported


def test_addresses__views__are_of_one_deployment(stage: Stage, views: Views) -> None:
    contracts = stage.contracts
    assert views.ask(views.inference, "registry") == views.inference.address
    assert views.ask(views.inference, "jobs") == contracts.jobs.address
    assert views.ask(views.inference, "models") == contracts.registry.address
    assert views.ask(views.validations, "jobs") == contracts.jobs.address


# --- ERC-8004 ---------------------------------------------------------------------------------------------------------


def test_get_validation_status__every_segment_proved__is_a_hundred(stage: Stage, views: Views) -> None:
    job = finish(stage).record
    assert job.evidence_root != ZERO_HASH
    assert views.status(job) == {
        "response": 100,
        "tag": "proved",
        "evidence": job.evidence_root,
        "updated": stage.chain.head()[1],
    }


def test_get_validation_status__unanimous__is_no_proof(stage: Stage, views: Views) -> None:
    job = finish(stage, UNPROVED).record
    assert views.status(job) == {
        "response": 99,
        "tag": "agreed",
        "evidence": job.evidence_root,
        "updated": job.closed_at,
    }


@pytest.mark.parametrize("overturned", [(0, 1), (1, 2), (0, 2)])
def test_get_validation_status__one_segment_agreed__is_agreed(
    stage: Stage, views: Views, overturned: tuple[int, ...]
) -> None:
    status = views.status(finish(stage, UNPROVED, overturned=overturned).record)
    assert (status["response"], status["tag"]) == (99, "agreed")


@pytest.mark.parametrize("segments", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_get_validation_status__dissent__is_the_least_share(
    stage: Stage, views: Views, segments: tuple[int, ...]
) -> None:
    dissenters = ((stage.workers[0], STAKES[0]), (stage.workers[2], STAKES[2]))
    votes, against = {}, 0
    for segment, (dissenter, stake_wei) in zip(segments, dissenters, strict=False):
        votes[segment] = {dissenter.address: OTHER_LIE}
        against = stake_wei  # the second costs the agreement more
    play = finish(stage, UNPROVED, votes)
    share = 99 * (sum(STAKES) - against) // sum(STAKES)
    status = views.status(play.record)
    assert (status["response"], status["tag"]) == (share, "agreed")


def test_get_validation_status__one_members_word__is_zero(stage: Stage, views: Views) -> None:
    job = finish(stage, ALONE).record
    assert views.status(job) == {
        "response": 0,
        "tag": "unproved",
        "evidence": job.evidence_root,
        "updated": job.closed_at,
    }


def test_get_validation_status__overturned__follows_the_new_attempt(stage: Stage, views: Views) -> None:
    play = stage.request(UNPROVED).to_committing()
    honest, *liars = stage.workers
    play.play_round({liar.address: LIE for liar in liars}).play_round({honest.address: LIE}).play_round()
    assert play.phase is Phase.CHALLENGEABLE
    play.challenge(0, honest)
    for _ in range(2):
        if play.phase is Phase.DRAWING:
            play.draw()
        play.play_round()
    play.lapse()
    play.finalise()
    assert play.record.attempts == (0, 1, 1)
    status = views.status(play.record)
    # In the first attempt at segment 1 the first worker's stake stood against its output.
    assert (status["response"], status["tag"]) == (99, "agreed")
    assert status["evidence"] == play.record.evidence_root


def test_get_validation_status__not_finalised__is_zero_and_says_why(stage: Stage, views: Views) -> None:
    def nothing(tag: str, updated: int = 0) -> dict[str, Any]:
        return {"response": 0, "tag": tag, "evidence": ZERO_HASH, "updated": updated}

    play = stage.request(UNPROVED)
    assert views.status(play.record) == nothing("pending")
    play.to_committing()
    for _ in range(3):
        play.play_round()
        assert views.status(play.record) == nothing("pending")
    play.lapse()
    assert play.phase is Phase.FINALISABLE
    assert views.status(play.record) == nothing("pending")

    late = stage.request()
    late.lapse()
    assert views.status(late.record) == nothing("expired")
    late.expire()
    assert views.status(late.record) == nothing("failed", stage.chain.head()[1])


def test_get_validation_status__unknown_request__is_refused(views: Views) -> None:
    with refused("UnknownJob", jobId=UNKNOWN):
        views.ask(views.validations, "getValidationStatus", UNKNOWN)


def test_validations__writes_and_lists__are_refused(stage: Stage, views: Views) -> None:
    job, model, jobs = stage.request().job, number(stage.model), stage.contracts.jobs.address
    with refused("RequestThroughJobs", jobs=jobs):
        views.ask(views.validations, "validationRequest", jobs, model, "", job)
    with refused("ResponseIsDerived", requestHash=job):
        views.ask(views.validations, "validationResponse", job, 100, "", ZERO_HASH, "")
    for function, arguments in (
        ("getSummary", (model, [], "")),
        ("getAgentValidations", (model,)),
        ("getValidatorRequests", (jobs,)),
    ):
        with refused("NotEnumerable"):
            views.ask(views.validations, function, *arguments)
    assert views.ask(views.validations, "getIdentityRegistry") == ZERO_ADDRESS


@pytest.mark.parametrize(
    ("function", "selector"),
    [
        ("validationRequest", "aaf400c4"),
        ("validationResponse", "3d659a96"),
        ("getValidationStatus", "ff2febfc"),
        ("getSummary", "1b7cabd6"),
        ("getAgentValidations", "8d5d0c2d"),
        ("getValidatorRequests", "4bf3158c"),
        ("getIdentityRegistry", "bc4d861b"),
    ],
)
def test_validation_registry__selectors__are_those_of_the_draft(views: Views, function: str, selector: str) -> None:
    # Source: the draft's reference implementation, erc-8004/erc-8004-contracts at 27caef9.
    abi = views.validations.get_function_by_name(function).abi
    assert bytes(function_abi_to_4byte_selector(abi)).hex() == selector


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_views__code__can_neither_store_nor_call_for_a_change(name: str) -> None:
    # SLOAD, SSTORE, CREATE, CALL, CALLCODE, DELEGATECALL, CREATE2, SELFDESTRUCT
    forbidden = {0x54, 0x55, 0xF0, 0xF1, 0xF2, 0xF4, 0xF5, 0xFF}
    assert instructions(name) & (forbidden | {0xFA}) == {0xFA}  # STATICCALL
    assert instructions("Registry") & forbidden  # so they would be found


def instructions(name: str) -> set[int]:
    """The opcodes of a compiled contract, without what it pushes and without the compiler's note at its end."""
    code = bytes.fromhex(artefact(name)["deployedBytecode"])
    end = len(code) - 2 - int.from_bytes(code[-2:], "big")
    seen, position = set(), 0
    while position < end:
        seen.add(code[position])
        position += code[position] - 0x5E if 0x60 <= code[position] <= 0x7F else 1
    return seen


@pytest.fixture
def deploy(stage: Stage, tmp_path: Path) -> Callable[[], tuple[Path, Deployment]]:
    """Run every migration on a record of its own."""
    path = tmp_path / "record.json"
    return lambda: (path, migrate_all(stage.chain.sender("deployer"), path))


def test_migrate__again__leaves_the_views_alone(deploy: Callable[[], tuple[Path, Deployment]]) -> None:
    path, first = deploy()
    record = json.loads(path.read_text())
    assert (record["verified_inference"], record["validation_registry"]) == (
        first.verified_inference,
        first.validation_registry,
    )
    assert deploy()[1] == first


def test_migrate__one_view_missing__deploys_that_one(deploy: Callable[[], tuple[Path, Deployment]]) -> None:
    path, first = deploy()
    record = json.loads(path.read_text())
    del record["validation_registry"]
    path.write_text(json.dumps(record))
    assert Deployment.load(path).validation_registry is None  # a record from before there were views
    second = deploy()[1]
    assert second.verified_inference == first.verified_inference
    assert second.validation_registry not in (None, first.validation_registry)


def test_migrate__no_jobs__names_the_step_before(stage: Stage, tmp_path: Path) -> None:
    ledger = Ledger(stage.chain.sender("deployer"), tmp_path / "record.json", parameters())
    with pytest.raises(UnrecoverableError, match="run m02_jobs first"):
        m03_views.migrate(ledger)

"""ERC-7992: a job whose every segment was proved, as a verified inference."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.protocol.links import LinkKind
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Label, ModelId, Phase
from tests.contracts.stage import Stage, refused, spec
from tests.contracts.views import ALONE, RESULT, UNKNOWN, UNPROVED, Views, finish, number

pytestmark = pytest.mark.integration


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

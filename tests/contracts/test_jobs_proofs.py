from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.chain.events import job_events
from offchain.protocol import hashing, sortition
from offchain.protocol.field import FIELD_MODULUS
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Label, Link, Phase, Reason
from tests.contracts.stage import FEE, OUTPUT, POLICY, PROOF_BYTES, STAKES, Play, Stage, refused, with_policy
from tests.contracts.test_jobs_rounds import WRONG, penalties_of
from tests.contracts.test_jobs_timeouts import miss
from tests.local_chain import InstantSender

pytestmark = pytest.mark.integration

CONTRADICTION_BPS = 5000


def entropy_of_samples(play: Play) -> bytes:
    """The hash of the block that seeded the draw of the proofs."""
    stage = play.stage
    head = stage.contracts.connection.block_number()
    events = job_events(stage.contracts, play.job, stage.contracts.deployment.block, head)
    last = [event for event in events if event.name == "SeedBlockSet"][-1]
    return stage.contracts.connection.block_hash(last.arguments["seedBlock"])


@pytest.mark.parametrize("permille", [1, 300, 500, 999, 1000])
def test_draw__proofs__are_what_anybody_can_recompute(stage: Stage, permille: int) -> None:
    connection = stage.contracts.connection
    for _ in range(1 if permille == 1000 else 3):
        play = stage.request(with_policy(proof_permille=permille)).to_sampling()
        assert [play.round(segment).prover for segment in range(3)] == [ZERO_ADDRESS] * 3
        play.draw()
        entropy, due = entropy_of_samples(play), 0
        for segment in range(3):
            sample = hashing.sample_seed(connection.chain_id, play.jobs.address, play.job, segment, entropy)
            round_ = play.round(segment)
            if sortition.is_sampled(sample, permille):
                due += 1
                assert round_.prover == sortition.draw_prover(round_.members, round_.settled_link, sample)
            else:
                assert round_.prover == ZERO_ADDRESS
        assert play.record.proofs_due == due
        assert play.phase is (Phase.PROVING if due else Phase.CHALLENGEABLE)


def test_prove__every_segment__labels_it_and_keeps_what_was_verified(stage: Stage) -> None:
    play = stage.request().to_proving()
    for segment in (2, 0, 1):  # in any order
        assert play.round(segment).label is Label.AGREED
        play.prove(segment)
        round_ = play.round(segment)
        assert (round_.label, play.jobs._read("labelOf", play.job, segment)) == (Label.PROVED, Label.PROVED)
        assert round_.proof_hash == hashing.proof_hash(*play.proof(segment))
        assert (round_.proof_cid, round_.proved_by) == (keccak(b"proof"), round_.prover)
    assert play.phase is Phase.FINALISABLE
    assert penalties_of(play) == []


def test_prove__twice_or_where_none_is_due__is_refused(stage: Stage) -> None:
    play = stage.request().to_proving()
    play.prove(0)
    with refused("AlreadyProved", jobId=play.job, segment=0):
        play.prove(0)
    with refused("ProofNotDue", jobId=play.job, segment=3):
        play.jobs.prove(stage.workers[0], play.job, 3, b"", (), keccak(b"proof"))
    with refused("ValueIsZero", field="proofCid"):
        play.prove(1, proof_cid=ZERO_HASH)


def test_prove__segment_that_was_not_sampled__is_refused(stage: Stage) -> None:
    play = stage.request(with_policy(proof_permille=500)).to_proving()
    while {play.round(segment).prover == ZERO_ADDRESS for segment in range(3)} != {True, False}:
        play = stage.request(with_policy(proof_permille=500)).to_proving()
    (unsampled, *_) = [segment for segment in range(3) if play.round(segment).prover == ZERO_ADDRESS]
    with refused("ProofNotDue", jobId=play.job, segment=unsampled):
        play.prove(unsampled, stage.workers[0])


def test_prove__opening_that_is_not_the_predecessors_closing__is_refused(stage: Stage) -> None:
    play = stage.request().to_proving()
    other = keccak(b"other") * 2
    for segment in range(3):
        proof, instances = play.proof(segment)
        spliced = other + proof[64:]
        expected = play.record.input_link if segment == 0 else play.round(segment - 1).settled_link
        with refused("OpeningLinkMismatch", segment=segment, expected=expected, actual=keccak(other)):
            play.prove(segment, proof=spliced, instances=instances)


def test_prove__closing_that_is_not_what_settled__is_refused(stage: Stage) -> None:
    play = stage.request().to_proving()
    proof, _ = play.proof(0)
    other = keccak(b"other") * 2
    with refused("ClosingLinkMismatch", segment=0, expected=play.truth(0), actual=keccak(other)):
        play.prove(0, proof=proof[:64] + other + proof[128:])
    wrong = (OUTPUT[0], OUTPUT[1], OUTPUT[2] + 1)
    actual = keccak(b"".join(element.to_bytes(32, "big") for element in wrong))
    with refused("ClosingLinkMismatch", segment=2, expected=play.truth(2), actual=actual):
        play.prove(2, instances=wrong)


def test_prove__malformed_proofs__are_refused_by_the_adapter(stage: Stage) -> None:
    play = stage.request().to_proving()
    proof, instances = play.proof(2)
    with refused("ProofLengthMismatch", segment=2, expected=PROOF_BYTES, actual=PROOF_BYTES + 32):
        play.prove(2, proof=proof + bytes(32))
    with refused("InstanceCountMismatch", segment=2, expected=3, actual=2):
        play.prove(2, instances=instances[:2])
    value = instances[1] + FIELD_MODULUS
    with refused("InstanceNotInField", segment=2, index=1, value=value):
        play.prove(2, instances=(instances[0], value, instances[2]))


def test_prove__verifier_that_says_no__leaves_the_proof_due(stage: Stage) -> None:
    model = stage.register_segments(1, "strict", answer=1)
    stage.contracts.staking.serve(stage.workers[0], model)
    play = stage.request(with_policy(committee_size=1), model_id=model).to_proving()
    with refused("ProofRejected", modelId=model, segment=0):
        play.prove(0)
    assert play.record.proofs_due == 1
    play.lapse()
    play.expire()
    assert penalties_of(play) == [(stage.workers[0].address, Reason.MISSED_PROOF, miss(STAKES[0]))]


def other_supporters(play: Play, segment: int) -> list[InstantSender]:
    prover = play.round(segment).prover
    return [worker for worker in play.members(segment) if worker.address != prover]


def test_prove__anybody_else_before_half_time__is_refused(stage: Stage) -> None:
    play = stage.request().to_proving()
    half_time = play.record.deadline - POLICY.prove_seconds
    other, _ = other_supporters(play, 0)
    other.at = half_time - 1
    with refused("NotProver", jobId=play.job, segment=0, caller=other.address):
        play.prove(0, other)
    stage.owner.at = half_time
    with refused("NotMember", jobId=play.job, segment=0, caller=stage.owner.address):
        play.prove(0, stage.owner)


def test_prove__by_another_at_half_time__costs_the_late_prover_and_gains_no_penalty(stage: Stage) -> None:
    play = stage.request().to_proving()
    prover = play.round(0).prover
    other, _ = other_supporters(play, 0)
    play.announce(0, other)
    other.at = play.record.deadline - POLICY.prove_seconds
    play.prove(0, other)
    penalty = miss(dict(zip([w.address for w in stage.workers], STAKES, strict=True))[prover])
    assert penalties_of(play) == [(prover, Reason.MISSED_PROOF, penalty)]
    assert set(stage.credits().values()) == {0}, "it is burnt"
    assert play.round(0).proved_by == other.address


def test_prove__late_prover_itself__is_not_penalised(stage: Stage) -> None:
    play = stage.request().to_proving()
    play.lapse(spare_seconds=20)
    for segment in range(2):
        prover = stage.by_address(play.round(segment).prover)
        # By now it could copy, like anybody else.
        proof, instances = play.proof(segment)
        expected = play.announcement(segment, prover, hashing.proof_hash(proof, instances))
        with refused("ProofNotAnnounced", jobId=play.job, segment=segment, caller=prover.address, expected=expected):
            play.prove(segment)
        play.announce(segment, prover)
        play.prove(segment)
    assert penalties_of(play) == []


def test_prove__member_that_revealed_another_output__may_not_prove_and_pays_for_it(stage: Stage) -> None:
    play = stage.request().to_committing()
    liar = stage.workers[1]
    play.play_round({liar.address: WRONG}).play_round().play_round().draw()
    liar.at = play.record.deadline - POLICY.prove_seconds
    with refused("NotProver", jobId=play.job, segment=0, caller=liar.address):
        play.prove(0, liar)
    assert play.round(0).prover != liar.address
    play.prove(0)
    slashed = STAKES[1] * CONTRADICTION_BPS // 10_000
    assert penalties_of(play) == [(liar.address, Reason.CONTRADICTED_PROOF, slashed)]
    assert stage.contracts.staking.active_of(liar.address) == STAKES[1] - slashed
    assert stage.credits()[stage.requester.address] == 0
    play.prove(1)
    play.prove(2)
    play.finalise()
    head = stage.contracts.connection.block_number()
    (finalised,) = [
        event for event in job_events(stage.contracts, play.job, head, head) if event.name == "JobFinalised"
    ]
    assert finalised.arguments["resultLink"] == play.truth(2)


def test_prove__wrong_majority__can_never_be_proved_and_the_requester_is_refunded(stage: Stage) -> None:
    play = stage.request().to_committing()
    liars = stage.workers[1:]
    play.play_round({liar.address: WRONG for liar in liars})
    assert play.round(0).settled_link == WRONG
    play.play_round().play_round().draw()
    assert play.round(0).prover in {liar.address for liar in liars}
    with refused("ClosingLinkMismatch", segment=0, expected=WRONG, actual=play.truth(0)):
        play.prove(0)
    with refused("OpeningLinkMismatch", segment=1, expected=WRONG, actual=play.truth(0)):
        play.prove(1)
    play.prove(2)
    late = {play.round(segment).prover for segment in (0, 1)}
    play.lapse()
    play.expire()
    assert play.phase is Phase.FAILED
    assert stage.credits() == dict.fromkeys(stage.credits(), 0) | {stage.requester.address: FEE}
    # Neither could be proved. That the honest one of segment 1 pays as well is what a challenge would have spared it.
    assert {(operator, reason) for operator, reason, _ in penalties_of(play)} == {
        (operator, Reason.MISSED_PROOF) for operator in late
    }


def test_prove__slashed_more_than_there_is__takes_what_there_is(stage: Stage) -> None:
    # The same stake stands for several jobs at once; together they cannot take more than all of it.
    liar = stage.workers[0]
    plays = [stage.request() for _ in range(3)]
    for play in plays:
        play.to_committing().play_round({liar.address: WRONG}).play_round().play_round().draw()
        play.prove(0)
    taken = [
        amount for play in plays for _, reason, amount in penalties_of(play) if reason is Reason.CONTRADICTED_PROOF
    ]
    half = STAKES[0] * CONTRADICTION_BPS // 10_000
    assert taken == [half, half, STAKES[0] - 2 * half]
    assert stage.contracts.staking.active_of(liar.address) == 0
    assert set(stage.credits().values()) == {0}


def test_reveal__zero_as_an_output__cannot_be_opened(stage: Stage) -> None:
    play = stage.request().to_committing()
    voter = stage.workers[0]
    play.to_revealing({voter.address: Link(ZERO_HASH)})
    with refused("ValueIsZero", field="link"):
        play.reveal(voter)

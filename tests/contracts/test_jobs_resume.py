"""How a job goes on behind an overturned segment: new attempts, the same committee right behind it, and its own end."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.protocol import hashing
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Label, Phase, Reason
from tests.contracts.record import events_of, failure, newest_events, penalties, stake_of
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, refused, with_policy
from tests.contracts.test_jobs_challenge import OTHER, REACH, THIRD, begin, lies
from tests.local_chain import ETHER

pytestmark = pytest.mark.integration


def test_challenge__votes_of_the_attempts_before__stay_readable(stage: Stage) -> None:
    play, challenger = begin(stage), stage.workers[0]
    play.play_round().play_round().draw()
    play.prove(2)
    old = {segment: play.round(segment) for segment in (1, 2)}
    play.challenge(0, challenger)
    jobs = play.jobs
    for segment, round_ in old.items():
        assert jobs.round_at(play.job, segment, 0) == round_
        assert {member.link for member in round_.members} == {play.truth(segment)}
        assert jobs.round_at(play.job, segment, 1) == jobs.round_of(play.job, segment) != round_
        assert jobs.round_at(play.job, segment, 2).members == ()
    assert old[2].proof_hash != ZERO_HASH
    reopened = [event.arguments for event in events_of(play, "SegmentReopened")]
    assert reopened == [
        {"jobId": play.job, "segment": 1, "attempt": 1, "sameCommittee": True},
        {"jobId": play.job, "segment": 2, "attempt": 1, "sameCommittee": False},
    ]
    names = [name for name, _ in newest_events(stage)]
    assert names.index("SegmentProved") < names.index("SegmentOverturned") < names.index("SegmentReopened")


def test_commit__commitment_of_the_attempt_before__cannot_be_opened_in_the_next(stage: Stage) -> None:
    play, challenger = begin(stage), stage.workers[0]
    play.commit_all()
    copied = play.round(1).member(challenger.address).commitment  # type: ignore[union-attr]
    play.challenge(0, challenger)
    for worker in play.members():
        if worker == challenger:
            play.jobs.commit(worker, play.job, *play.under_way, copied)
        else:
            play.commit(worker)
    play.draw()
    link, salt = play.secrets[1, 0, challenger.address]
    actual = play.commitment(challenger, 1, link, salt)
    with refused("CommitmentMismatch", expected=copied, actual=actual):
        play.jobs.reveal(challenger, play.job, link, salt, keccak(b"cid"))


def test_challenge__activation_of_the_challenger__counts_as_sealed_to_the_same_committee(stage: Stage) -> None:
    play, challenger = begin(stage), stage.workers[0]
    assert play.round(0).member(challenger.address).sealed_for == 0  # type: ignore[union-attr]
    play.challenge(0, challenger)
    assert play.round(0).member(challenger.address).sealed_for == 1  # type: ignore[union-attr]
    with refused("AlreadySealed", jobId=play.job, segment=0, operator=challenger.address):
        play.reseal(challenger)
    with refused("NotSupporter", jobId=play.job, segment=0, caller=stage.workers[1].address):
        play.reseal(stage.workers[1])


def test_challenge__activation_that_the_challenger_did_not_reseal__is_still_to_be_resealed(stage: Stage) -> None:
    play, challenger = begin(stage), stage.workers[0]
    play.lapse()
    play.draw()  # nobody committed: another committee
    play.draw()
    with refused("NotSupporter", jobId=play.job, segment=0, caller=challenger.address):
        play.reseal(challenger)
    play.reseal(stage.workers[1])
    play.challenge(0, challenger)
    assert play.record.attempts == (0, 2, 0)
    sealed = {member.operator: member.sealed_for for member in play.round(0).members}
    assert (sealed[challenger.address], sealed[stage.workers[1].address]) == (0, 2)
    play.lapse(POLICY.commit_seconds)  # it has the time that a requester has, before the committee has its own
    play.reseal(challenger)
    member = play.round(0).member(challenger.address)
    assert member is not None
    assert (member.sealed_for, member.activation_cid) == (2, keccak(b"resealed" + challenger.address.encode()))


def test_challenge__segment_that_was_sampled_before__stays_sampled_with_its_prover(stage: Stage) -> None:
    """Whoever could overturn a segment could otherwise draw the proofs of those before it again, until they are out."""
    liars = stage.workers[1:]
    policy = with_policy(proof_permille=300)
    for _ in range(40):
        for liar in liars:  # each overturn takes half of what they weigh
            stage.contracts.staking.bond(liar, 2 * ETHER)
        play = stage.request(policy).to_committing().play_round().play_round(lies(liars)).play_round()
        play.draw()
        prover = play.round(0).prover
        if prover == ZERO_ADDRESS:
            continue
        play.challenge(1, stage.workers[0])
        play.play_round()
        assert play.phase is Phase.SAMPLING
        assert play.round(0).prover == prover
        play.draw()
        assert play.round(0).prover == prover
        assert play.round(1).prover == ZERO_ADDRESS or play.round(1).proof_hash != ZERO_HASH
        again = [e.arguments["prover"] for e in events_of(play, "ProverDrawn") if e.arguments["segment"] == 0]
        assert again == [prover, prover]
        seed = events_of(play, "SeedBlockSet")[-1].arguments["seedBlock"]
        entropy = stage.chain.connection.block_hash(seed)
        sample = hashing.sample_seed(stage.chain.connection.chain_id, play.jobs.address, play.job, 0, entropy)
        due = [play.round(s).prover != ZERO_ADDRESS and play.round(s).proof_hash == ZERO_HASH for s in range(3)]
        assert play.record.proofs_due == sum(due) >= 1
        if int.from_bytes(sample, "big") % 1000 >= 300:  # this draw alone would have left it out
            return
    raise AssertionError("never sampled first and left out then")


def last_wrong(stage: Stage, permille: int) -> Play:
    """A job whose last segment alone two of three settled wrongly."""
    play = stage.request(with_policy(proof_permille=permille)).to_committing().play_round().play_round()
    return play.play_round(lies(stage.workers[1:]))


def test_challenge__last_segment_before_the_samples_are_drawn__keeps_the_seed(stage: Stage) -> None:
    play = last_wrong(stage, 1000)
    before = play.record
    assert before.phase is Phase.SAMPLING
    play.challenge(2, stage.workers[0])
    after = play.record
    assert (after.phase, after.seed_block, after.deadline) == (Phase.SAMPLING, before.seed_block, before.deadline)
    assert (after.segment, after.attempts) == (2, (0, 0, 0))
    play.draw()
    assert play.round(2).prover == ZERO_ADDRESS, "it is proved"
    assert play.record.proofs_due == 2
    play.play_on()
    assert play.phase is Phase.FINALISED


def test_challenge__last_segment_while_proofs_are_due__leaves_the_others_due_and_their_time_begins_anew(
    stage: Stage,
) -> None:
    play = last_wrong(stage, 1000)
    play.draw()
    play.prove(0)
    assert play.record.proofs_due == 2
    play.challenge(2, stage.workers[0])
    assert (play.phase, play.record.proofs_due) == (Phase.PROVING, 1)
    assert play.record.deadline == stage.chain.connection.timestamp() + 2 * POLICY.prove_seconds
    with refused("AlreadyProved", jobId=play.job, segment=2):
        play.prove(2)
    play.prove(1)
    assert play.phase is Phase.FINALISABLE


def test_challenge__last_proof_that_was_due__makes_the_job_finalisable(stage: Stage) -> None:
    play = last_wrong(stage, 1000)
    play.draw()
    play.prove(0)
    play.prove(1)
    play.challenge(2, stage.workers[0])
    assert (play.phase, play.record.proofs_due) == (Phase.FINALISABLE, 0)
    play.finalise()
    (finalised,) = events_of(play, "JobFinalised")
    assert finalised.arguments["resultLink"] == play.truth(2)


def test_challenge__last_segment_in_the_time_for_challenges__begins_that_time_anew(stage: Stage) -> None:
    play = last_wrong(stage, 0)
    play.lapse(spare_seconds=5)
    play.challenge(2, stage.workers[0])
    assert play.phase is Phase.CHALLENGEABLE
    assert play.record.deadline == stage.chain.connection.timestamp() + POLICY.challenge_seconds
    play.pass_challenges().finalise()
    assert [play.round(segment).label for segment in range(3)] == [Label.AGREED, Label.AGREED, Label.PROVED]


def test_challenge__earlier_segment_after_a_later_one__undoes_the_later_proof(stage: Stage) -> None:
    play, challenger = begin(stage, permille=0), stage.workers[0]
    play.play_round(lies(stage.workers[1:], THIRD)).play_round()
    # A proof between what segment 0 settled on, wrong as it is, and what the challenger revealed.
    proof, instances = play.proof(1, opening=OTHER)
    play.challenge(1, challenger, proof=proof, instances=instances)
    assert (play.record.segment, play.record.attempts, play.round(1).overturned) == (2, (0, 0, 1), True)
    play.challenge(0, challenger)
    assert (play.record.segment, play.record.attempts) == (1, (0, 1, 2))
    again = play.round(1)
    assert (again.overturned, again.proof_hash, again.settled_link) == (False, ZERO_HASH, ZERO_HASH)
    assert play.jobs.round_at(play.job, 1, 0).proof_hash == hashing.proof_hash(proof, instances)
    assert [segment for segment, *_ in penalties(play)] == [1, 1, 0, 0]
    play.play_on()
    assert play.phase is Phase.FINALISED
    assert [play.round(segment).label for segment in range(3)] == [Label.PROVED, Label.AGREED, Label.AGREED]


def end_at(play: Play, timestamp: int) -> None:
    """As if the job had started so much earlier.

    Source: layout of ``Job`` in storage: its second word is seedBlock, deadline, endsAt, closedAt, six bytes each.
    """
    rpc, address, record = play.stage.chain.rpc, play.jobs.address, play.record
    for slot in range(8):
        place = hex(int.from_bytes(keccak(encode(["bytes32", "uint256"], [play.job, slot])), "big") + 1)
        word = int(rpc("eth_getStorageAt", address, place, "latest"), 16)
        if (word >> 48) & (2**48 - 1) == record.deadline and (word >> 96) & (2**48 - 1) == record.ends_at:
            changed = word - (record.ends_at << 96) + (timestamp << 96)
            rpc("anvil_setStorageAt", address, place, f"0x{changed:064x}")
            assert play.record.ends_at == timestamp
            return
    raise AssertionError("the jobs are in none of the first slots")


def test_challenge__job_that_reached_its_end__expires_and_refunds(stage: Stage) -> None:
    play, challenger = begin(stage, permille=0), stage.workers[0]
    play.play_round().play_round()
    end = stage.chain.connection.timestamp() + 100
    end_at(play, end)
    play.challenge(0, challenger)
    assert play.record.ends_at == end, "a challenge buys no time"
    stage.chain.move_to(end - 1)
    assert play.phase is Phase.COMMITTING
    stage.chain.move_to(end)
    assert play.phase is Phase.EXPIRED
    credited = stage.credits()
    play.expire()
    assert failure(play) == (Reason.TIMED_OUT, FEE)
    assert stage.credits()[stage.requester.address] == credited[stage.requester.address] + FEE


@pytest.mark.parametrize(("spare", "phase"), [(0, Phase.FINALISABLE), (-1, Phase.EXPIRED)])
def test_phase_of__time_for_challenges_at_the_jobs_end__counts_only_in_full(
    stage: Stage, spare: int, phase: Phase
) -> None:
    play = begin(stage, permille=0).play_round().play_round()
    end_at(play, play.record.deadline + spare)
    stage.chain.move_to(play.record.deadline)
    assert play.phase is phase


@pytest.mark.parametrize("reach", ["sampling", "proving", "contested", "revealing", "last settling"])
def test_phase_of__at_the_jobs_end__every_open_phase_is_expired(stage: Stage, reach: str) -> None:
    go, phase, _ = REACH[reach]
    play = begin(stage)
    go(play)
    end_at(play, stage.chain.connection.timestamp() + 10)
    assert play.phase is phase
    stage.chain.move_to(play.record.ends_at)
    assert play.phase is Phase.EXPIRED
    play.expire()
    assert (play.phase, penalties(play)) == (Phase.FAILED, []), "nobody had the time that the policy gave"


def test_finalise__overturned_segment__pays_its_prover_and_its_supporters(stage: Stage) -> None:
    play, challenger = begin(stage, permille=0), stage.workers[0]
    play.challenge(0, challenger)
    before = stage.credits()
    play.play_on()
    part = FEE // 3
    of_others = [part * stake_of(stage, worker) // sum(STAKES) for worker in stage.workers]
    gained = [stage.credits()[worker.address] - before[worker.address] for worker in stage.workers]
    assert gained == [part + 2 * of_others[0], 2 * of_others[1], 2 * of_others[2]]

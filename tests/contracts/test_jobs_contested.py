"""Segments without a quorum: the first valid proof decides, and nobody's within the time means failure."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_ADDRESS, ZERO_HASH, Label, Link, Phase, Reason
from tests.contracts.record import (
    CHALLENGER_SHARE_BPS,
    CONTRADICTION_BPS,
    MISS_BPS,
    REQUESTER_SHARE_BPS,
    compensations,
    events_of,
    failure,
    newest_events,
    penalties,
    release_all,
    share,
    stake_of,
    stakes_of,
)
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, refused, with_policy

pytestmark = pytest.mark.integration


def own(*addresses: str) -> dict[str, Link]:
    """An output of its own for each."""
    return {address: Link(keccak(address.encode())) for address in addresses}


def contested(stage: Stage, segment: int = 0, **changes: int) -> Play:
    """A job whose segment has three outputs; that of `stage.workers[0]` is the true one."""
    play = stage.request(with_policy(**changes)).to_committing()
    for _ in range(segment):
        play.play_round()
    play.play_round(own(*(worker.address for worker in stage.workers[1:])))
    assert play.phase is Phase.CONTESTED
    return play


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_challenge__contested_segment__is_settled_by_the_proof_and_the_others_pay(stage: Stage, segment: int) -> None:
    play, prover = contested(stage, segment), stage.workers[0]
    (event,) = events_of(play, "SegmentContested")
    assert event.arguments == {"jobId": play.job, "segment": segment, "deadline": play.record.deadline}
    assert play.record.deadline == stage.chain.connection.timestamp() + 2 * POLICY.prove_seconds
    assert (play.round(segment).settled_link, play.round(segment).label) == (ZERO_HASH, Label.NONE)
    before = stakes_of(stage)
    play.challenge(segment, prover)
    settled = play.round(segment)
    assert (settled.settled_link, settled.settled_weight) == (play.truth(segment), STAKES[0])
    assert (settled.label, settled.overturned, settled.proved_by) == (Label.PROVED, False, prover.address)
    settled_event = next(arguments for name, arguments in newest_events(stage) if name == "SegmentSettled")
    assert settled_event == {
        "jobId": play.job,
        "segment": segment,
        "link": play.truth(segment),
        "stakeFor": STAKES[0],
        "stakeTotal": sum(STAKES),
    }
    taken = [share(stake_of(stage, worker), CONTRADICTION_BPS) for worker in stage.workers[1:]]
    assert sorted(penalties(play)) == sorted(
        (segment, worker.address, Reason.CONTRADICTED_PROOF, amount)
        for worker, amount in zip(stage.workers[1:], taken, strict=True)
    )
    assert before - stakes_of(stage) == sum(taken)
    assert (set(stage.credits().values()), compensations(stage)) == ({0}, {})
    if segment == 2:
        assert (play.phase, play.record.segment) == (Phase.SAMPLING, 2)
    else:
        assert (play.phase, play.record.segment) == (Phase.COMMITTING, segment + 1)
        assert play.record.deadline == stage.chain.connection.timestamp() + POLICY.commit_seconds
    assert play.record.attempts == (0, 0, 0)
    play.play_on()
    assert play.phase is Phase.FINALISED
    assert sum(stage.credits().values()) == FEE
    release_all(play)
    assert compensations(stage) == {
        prover.address: sum(share(amount, CHALLENGER_SHARE_BPS) for amount in taken),
        stage.requester.address: sum(share(amount, REQUESTER_SHARE_BPS) for amount in taken),
    }


def test_challenge__last_contested_segment_of_a_job_without_proofs__leaves_time_for_challenges(stage: Stage) -> None:
    play = contested(stage, 2, proof_permille=0)
    play.challenge(2, stage.workers[0])
    assert play.phase is Phase.CHALLENGEABLE
    assert play.record.deadline == stage.chain.connection.timestamp() + POLICY.challenge_seconds


def test_challenge__all_segments_proved__waits_for_nothing(stage: Stage) -> None:
    model = stage.register_segments(1, "one")
    for worker in stage.workers:
        stage.contracts.staking.serve(worker, model)
    play = stage.request(with_policy(proof_permille=0), model_id=model).to_committing()
    play.play_round(own(*(worker.address for worker in stage.workers[1:])))
    play.challenge(0, stage.workers[0])
    assert play.phase is Phase.FINALISABLE


@pytest.mark.parametrize("late", [False, True])
def test_challenge__contested_segment__has_twice_the_time_to_prove(stage: Stage, late: bool) -> None:
    play, prover = contested(stage), stage.workers[0]
    play.announce(0, prover)
    prover.at = play.record.deadline - (not late)
    if late:
        with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
            play.challenge(0, prover, announced=True)
    else:
        play.challenge(0, prover, announced=True)
        assert play.phase is Phase.COMMITTING


def test_expire__contested_segment_that_nobody_proved__refunds_and_costs_nobody(stage: Stage) -> None:
    play = contested(stage, 1)
    with refused("WrongPhase", jobId=play.job, actual=Phase.CONTESTED):
        play.expire()
    play.lapse()
    play.expire()
    assert failure(play) == (Reason.NO_QUORUM, FEE)
    assert stage.credits() == dict.fromkeys(stage.credits(), 0) | {stage.requester.address: FEE}
    assert penalties(play) == []


def test_challenge__contested__only_with_what_the_caller_itself_revealed(stage: Stage) -> None:
    play = contested(stage)
    liar = stage.workers[1]
    with refused("ClosingLinkMismatch", segment=0, expected=Link(keccak(liar.address.encode())), actual=play.truth(0)):
        play.challenge(0, liar)
    with refused("NotMember", jobId=play.job, segment=0, caller=stage.owner.address):
        play.challenge(0, stage.owner, announced=True)


@pytest.mark.parametrize("vote", [UNAVAILABLE, BAD_INPUT, None], ids=["unavailable", "bad input", "silent"])
def test_challenge__contested__by_a_member_without_an_output__is_refused(stage: Stage, vote: Link | None) -> None:
    play = stage.request(with_policy(quorum_bps=9000)).to_committing()
    without, *others = stage.workers
    for worker in others:
        play.commit(worker)
    if vote is None:  # commits, and does not reveal
        play.commit(without)
    else:
        play.commit(without, vote)
        play.draw()
        play.reveal(without)
    if vote is None:
        play.draw()
    for worker in others:
        play.reveal(worker)
    if vote is None:
        play.lapse()
        play.settle()
    assert play.phase is Phase.CONTESTED
    with refused("NothingToChallenge", jobId=play.job, segment=0, caller=without.address):
        play.challenge(0, without)
    # A vote contradicts nothing: what others prove costs it nothing. Silence does, where there is an output.
    play.challenge(0, others[0])
    silence = [(0, without.address, Reason.MISSED_REVEAL, share(STAKES[0], MISS_BPS))]
    assert penalties(play) == ([] if vote is not None else silence)
    assert set(stage.credits().values()) == {0}
    assert play.round(0).settled_weight == sum(STAKES[1:])


def test_challenge__decided_segment__cannot_be_decided_again(stage: Stage) -> None:
    play = contested(stage)
    play.challenge(0, stage.workers[0])
    with refused("AlreadyProved", jobId=play.job, segment=0):
        play.challenge(0, stage.workers[1])


def test_challenge__two_that_revealed_the_same_minority_output__either_may_prove_it(stage: Stage) -> None:
    play = stage.request(with_policy(quorum_bps=9000)).to_committing()
    liar = stage.workers[2]
    play.play_round(own(liar.address))
    assert play.phase is Phase.CONTESTED
    play.challenge(0, stage.workers[1])
    assert play.round(0).settled_weight == STAKES[0] + STAKES[1]
    assert [operator for _, operator, *_ in penalties(play)] == [liar.address]


def test_moves__contested__only_a_challenge_is_left(stage: Stage) -> None:
    play, word = contested(stage), keccak(b"word")
    refusal = {"jobId": play.job, "actual": Phase.CONTESTED}
    with refused("WrongPhase", **refusal):
        play.prove(0, stage.workers[0])
    for move in (play.draw, play.settle, play.finalise, play.expire):
        with refused("WrongPhase", **refusal):
            move()
    with refused("WrongPhase", **refusal):
        play.jobs.commit(stage.workers[0], play.job, *play.under_way, word)
    with refused("WrongPhase", **refusal):
        play.jobs.reveal(stage.workers[0], play.job, Link(word), word, word)
    with refused("WrongPhase", **refusal):
        play.reseal(stage.workers[0])


def test_draw__proved_by_a_challenge_before_the_samples__owes_no_proof(stage: Stage) -> None:
    play = contested(stage)
    play.challenge(0, stage.workers[0])
    play.play_round().play_round().draw()
    assert play.round(0).prover == ZERO_ADDRESS
    assert play.record.proofs_due == 2

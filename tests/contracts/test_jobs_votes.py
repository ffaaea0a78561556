"""Votes in place of outputs: the honest always have a way out that costs nothing, and whoever is at fault pays."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_HASH, Label, Link, Phase, Reason
from tests.contracts.record import (
    FAULT_SHARE_BPS,
    MISS_BPS,
    events_of,
    failure,
    penalties,
    share,
    stake_of,
    stakes_of,
)
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, refused, with_policy

pytestmark = pytest.mark.integration

WRONG = Link(keccak(b"wrong"))
VOTES = pytest.mark.parametrize("vote", [UNAVAILABLE, BAD_INPUT], ids=["unavailable", "bad input"])
REASONS = {UNAVAILABLE: Reason.INPUT_UNAVAILABLE, BAD_INPUT: Reason.BAD_INPUT}


def at_segment(stage: Stage, segment: int, **changes: int) -> Play:
    play = stage.request(with_policy(**changes)).to_committing()
    for _ in range(segment):
        play.play_round()
    return play


def decided_by_votes(play: Play) -> Play:
    """Let the time go by in which the segment before can still be overturned, where there is one."""
    segment = play.record.segment
    if segment:
        assert (play.phase, play.round().settled_link) == (Phase.CONTESTED, ZERO_HASH)
        assert play.record.deadline == play.stage.chain.connection.timestamp() + 2 * POLICY.prove_seconds
        assert events_of(play, "JobFailed") == []
        play.lapse()
        play.expire()
    return play


def everybody(stage: Stage, vote: Link) -> dict[str, Link]:
    return {worker.address: vote for worker in stage.workers}


def parts(stage: Stage, among: tuple[int, ...] = (0, 1, 2)) -> dict[str, int]:
    """What one segment's share of the requester's charge brings those workers, by stake and rounded down."""
    part = share(FEE, FAULT_SHARE_BPS) // 3
    weight = sum(STAKES[index] for index in among)
    return {stage.workers[index].address: part * STAKES[index] // weight for index in among}


def assert_charged(stage: Stage, play: Play, reason: Reason, owed: list[dict[str, int]]) -> None:
    """The job failed, those are paid, and the requester has the rest."""
    credits = dict.fromkeys(stage.credits(), 0)
    for shares in owed:
        for address, amount in shares.items():
            credits[address] += amount
    refund = FEE - sum(credits.values())
    assert play.phase is Phase.FAILED
    assert failure(play) == (reason, refund)
    assert stage.credits() == credits | {stage.requester.address: refund}


@VOTES
def test_reveal__everybody_votes_at_the_first_segment__charges_the_requester(stage: Stage, vote: Link) -> None:
    play = at_segment(stage, 0).play_round(everybody(stage, vote))
    assert_charged(stage, play, REASONS[vote], [parts(stage)])
    assert penalties(play) == []
    assert stakes_of(stage) == sum(STAKES)
    assert [event.arguments["link"] for event in events_of(play, "Revealed")] == [vote] * 3
    assert {event.arguments["activationCid"] for event in events_of(play, "Revealed")} == {ZERO_HASH}
    assert play.round(0).label is Label.NONE


@VOTES
def test_reveal__exactly_a_quorum_votes__is_enough_and_the_rest_is_paid_nothing(stage: Stage, vote: Link) -> None:
    other = BAD_INPUT if vote == UNAVAILABLE else UNAVAILABLE
    against = stage.workers[0]
    play = at_segment(stage, 0, quorum_bps=7499)  # two of three hold just 75 %
    play.play_round(everybody(stage, vote) | {against.address: other})
    assert_charged(stage, play, REASONS[vote], [parts(stage, (1, 2))])
    assert penalties(play) == []


@pytest.mark.parametrize("segment", [1, 2])
def test_reveal__bad_input_at_a_later_segment__charges_the_requester_for_that_round_alone(
    stage: Stage, segment: int
) -> None:
    # Those before it get nothing: what they settled on may be why this input is bad.
    play = decided_by_votes(at_segment(stage, segment).play_round(everybody(stage, BAD_INPUT)))
    assert_charged(stage, play, Reason.BAD_INPUT, [parts(stage)])
    assert penalties(play) == []


@pytest.mark.parametrize("segment", [1, 2])
def test_reveal__unavailable_at_a_later_segment__costs_those_who_withheld(stage: Stage, segment: int) -> None:
    play = at_segment(stage, segment - 1)
    innocent = stage.workers[0]  # outvoted: what it said is not what is missing
    play.play_round({innocent.address: WRONG}).play_round(everybody(stage, UNAVAILABLE))
    assert penalties(play) == []
    decided_by_votes(play)
    assert failure(play) == (Reason.INPUT_UNAVAILABLE, FEE)
    assert sorted(penalties(play)) == sorted(
        (segment - 1, worker.address, Reason.WITHHELD_ACTIVATION, share(stake_of(stage, worker), MISS_BPS))
        for worker in stage.workers[1:]
    )
    assert stage.credits() == dict.fromkeys(stage.credits(), 0) | {stage.requester.address: FEE}, "stakes are burnt"
    assert stakes_of(stage) == sum(STAKES) - sum(share(stake, MISS_BPS) for stake in STAKES[1:])


def test_reveal__unavailable_behind_an_overturned_segment__costs_the_challenger_alone(stage: Stage) -> None:
    play, challenger = at_segment(stage, 0), stage.workers[0]
    play.play_round({worker.address: WRONG for worker in stage.workers[1:]})
    play.challenge(0, challenger)
    taken = len(penalties(play))
    decided_by_votes(play.play_round(everybody(stage, UNAVAILABLE)))
    assert [(operator, reason) for _, operator, reason, _ in penalties(play)[taken:]] == [
        (challenger.address, Reason.WITHHELD_ACTIVATION)
    ]


@pytest.mark.parametrize("segment", [0, 1])
def test_reveal__votes_without_a_quorum__fail_the_job_and_cost_nobody(stage: Stage, segment: int) -> None:
    play = at_segment(stage, segment, quorum_bps=9000)
    votes = everybody(stage, UNAVAILABLE) | {stage.workers[0].address: BAD_INPUT}
    decided_by_votes(play.play_round(votes))
    assert failure(play) == (Reason.NO_QUORUM, FEE)
    assert penalties(play) == []
    assert stage.credits() == dict.fromkeys(stage.credits(), 0) | {stage.requester.address: FEE}


@VOTES
@pytest.mark.parametrize("segment", [0, 1])
def test_reveal__quorum_of_votes_against_one_output__is_for_a_proof_to_decide(
    stage: Stage, vote: Link, segment: int
) -> None:
    play = at_segment(stage, segment)
    worker = stage.workers[0]
    play.play_round(everybody(stage, vote) | {worker.address: play.truth(segment)})
    assert (play.phase, penalties(play)) == (Phase.CONTESTED, [])
    play.challenge(segment, worker)
    assert (play.phase, play.record.segment, penalties(play)) == (Phase.COMMITTING, segment + 1, [])
    assert play.round(segment).settled_weight == STAKES[0]
    assert set(stage.credits().values()) == {0}


@VOTES
@pytest.mark.parametrize("segment", [0, 1])
def test_expire__quorum_of_votes_against_an_output_that_nobody_proved__counts(
    stage: Stage, vote: Link, segment: int
) -> None:
    play = at_segment(stage, segment)
    play.play_round(everybody(stage, vote) | {stage.workers[0].address: WRONG})
    play.lapse()
    play.expire()
    if vote == BAD_INPUT or segment == 0:
        assert_charged(stage, play, REASONS[vote], [parts(stage, (1, 2))])
        assert penalties(play) == []
    else:
        assert failure(play) == (Reason.INPUT_UNAVAILABLE, FEE)
        assert {(operator, reason) for _, operator, reason, _ in penalties(play)} == {
            (worker.address, Reason.WITHHELD_ACTIVATION) for worker in stage.workers
        }


@VOTES
def test_reveal__minority_of_votes_beside_a_quorum__is_neither_paid_nor_penalised(stage: Stage, vote: Link) -> None:
    play, voter = at_segment(stage, 0), stage.workers[0]
    play.play_round({voter.address: vote})
    assert play.record.segment == 1
    assert play.round(0).settled_weight == sum(STAKES[1:])
    play.play_on({voter.address: vote})
    assert play.phase is Phase.FINALISED
    assert penalties(play) == []
    assert stage.credits()[voter.address] == 0
    assert stage.contracts.staking.active_of(voter.address) == STAKES[0]
    assert sum(stage.credits().values()) == FEE


@VOTES
def test_settle__vote_of_one_while_the_others_are_silent__costs_nobody(stage: Stage, vote: Link) -> None:
    # A vote shows nothing that could have been done.
    play = at_segment(stage, 0)
    voter, *silent = play.members()
    for worker in (voter, *silent):
        play.commit(worker, vote)
    play.draw()
    play.reveal(voter)
    play.lapse()
    play.settle()
    assert failure(play) == (Reason.NO_QUORUM, FEE)
    assert penalties(play) == []


@VOTES
def test_settle__vote_beside_an_output__leaves_silence_a_fault(stage: Stage, vote: Link) -> None:
    play = at_segment(stage, 0)
    voter, honest, silent = stage.workers
    play.to_revealing({voter.address: vote})
    play.reveal(voter)
    play.reveal(honest)
    play.lapse()
    play.settle()
    assert play.phase is Phase.CONTESTED
    assert penalties(play) == [(0, silent.address, Reason.MISSED_REVEAL, share(STAKES[2], MISS_BPS))]


@VOTES
def test_reveal__vote_with_an_activation__is_refused(stage: Stage, vote: Link) -> None:
    play, voter = at_segment(stage, 0), stage.workers[0]
    play.to_revealing({voter.address: vote})
    link, salt = play.secrets[0, 0, voter.address]
    with refused("ValueNotZero", field="activationCid"):
        play.jobs.reveal(voter, play.job, link, salt, keccak(b"cid"))
    play.jobs.reveal(voter, play.job, link, salt, ZERO_HASH)


def test_reveal__first_number_that_is_no_vote__is_an_output(stage: Stage) -> None:
    play, worker = at_segment(stage, 0), stage.workers[0]
    three = Link((3).to_bytes(32, "big"))
    play.to_revealing({worker.address: three})
    link, salt = play.secrets[0, 0, worker.address]
    with refused("ValueIsZero", field="activationCid"):
        play.jobs.reveal(worker, play.job, link, salt, ZERO_HASH)
    play.jobs.reveal(worker, play.job, link, salt, keccak(b"cid"))


@VOTES
def test_commit__vote__looks_like_any_other_commitment(stage: Stage, vote: Link) -> None:
    play, voter = at_segment(stage, 0), stage.workers[0]
    play.commit(voter, vote)
    member = play.round(0).member(voter.address)
    assert member is not None
    assert member.commitment == play.commitment(voter, 0, vote, play.secrets[0, 0, voter.address][1])
    assert member.link == ZERO_HASH


@VOTES
def test_challenge__segment_before_votes_alone__is_overturned_and_the_job_goes_on(stage: Stage, vote: Link) -> None:
    # Whoever settled a lie could otherwise have the next committee's votes end the job before anybody proves it.
    play, honest = at_segment(stage, 0), stage.workers[0]
    play.play_round({worker.address: WRONG for worker in stage.workers[1:]}).play_round(everybody(stage, vote))
    assert (play.phase, play.record.segment) == (Phase.CONTESTED, 1)
    play.announce(0, honest)
    honest.at = play.record.deadline - 1
    play.challenge(0, honest, announced=True)
    assert (play.phase, play.record.segment, play.attempt(1)) == (Phase.COMMITTING, 1, 1)
    assert {reason for *_, reason, _ in penalties(play)} == {Reason.CONTRADICTED_PROOF}
    play.play_on()
    assert play.phase is Phase.FINALISED


@VOTES
def test_challenge__votes_alone__leave_the_segment_itself_nothing_to_prove(stage: Stage, vote: Link) -> None:
    play = at_segment(stage, 1).play_round(everybody(stage, vote))
    for worker in stage.workers:
        with refused("NothingToChallenge", jobId=play.job, segment=1, caller=worker.address):
            play.challenge(1, worker)
    with refused("WrongPhase", jobId=play.job, actual=Phase.CONTESTED):
        play.expire()
    play.lapse()
    with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
        play.announce(0, stage.workers[0])


def test_settle__one_vote_and_silence_behind_the_first_segment__costs_nobody(stage: Stage) -> None:
    play = at_segment(stage, 1)
    voter = stage.workers[0]
    play.to_revealing({voter.address: BAD_INPUT})
    play.reveal(voter)
    play.lapse()
    play.settle()
    decided_by_votes(play)
    assert (failure(play), penalties(play)) == ((Reason.NO_QUORUM, FEE), [])


def test_prove__member_that_voted__is_not_contradicted(stage: Stage) -> None:
    play, voter = at_segment(stage, 0), stage.workers[0]
    play.play_round({voter.address: UNAVAILABLE}).play_round().play_round().draw()
    play.prove(0)
    assert penalties(play) == []

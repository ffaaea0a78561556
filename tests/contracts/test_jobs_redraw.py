"""Committees of which too few commit are replaced, at the silent ones' cost, and not for ever."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.protocol import hashing, sortition
from offchain.protocol.types import ZERO_HASH, Link, Phase, Reason
from tests.contracts.record import (
    FAULT_SHARE_BPS,
    MISS_BPS,
    events_of,
    failure,
    newest_events,
    penalties,
    share,
    stake_of,
    stakes_of,
)
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, refused, with_policy
from tests.local_chain import ETHER

pytestmark = pytest.mark.integration

MAX_REDRAWS = 4


def at_segment(stage: Stage, segment: int, **changes: int) -> Play:
    play = stage.request(with_policy(**changes)).to_committing()
    for _ in range(segment):
        play.play_round()
    return play


def redraw(play: Play) -> None:
    """The commit phase lapses; the first call after it gives the committee up, the second draws another."""
    play.lapse()
    play.draw()
    play.draw()


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_draw__too_few_committed__replaces_the_committee_and_the_silent_pay(stage: Stage, segment: int) -> None:
    play = at_segment(stage, segment)
    committed, *silent = play.members()
    play.commit(committed)
    before = play.round(segment)
    play.lapse()
    assert (play.phase, play.record.phase) == (Phase.DRAWING, Phase.COMMITTING)
    play.draw()
    attempts = tuple(int(index == segment) for index in range(3))
    record = play.record
    assert (record.phase, record.redraws, record.attempts, record.segment) == (Phase.DRAWING, 1, attempts, segment)
    assert record.seed_block == stage.chain.connection.block_number()
    assert record.deadline == stage.chain.connection.timestamp() + POLICY.reveal_seconds
    assert [name for name, _ in newest_events(stage) if name in ("SegmentReopened", "SeedBlockSet")] == [
        "SegmentReopened",
        "SeedBlockSet",
    ]
    reopened = events_of(play, "SegmentReopened")[-1].arguments
    assert reopened == {"jobId": play.job, "segment": segment, "attempt": 1, "sameCommittee": False}
    assert sorted(penalties(play)) == sorted(
        (segment, worker.address, Reason.MISSED_COMMIT, share(stake_of(stage, worker), MISS_BPS)) for worker in silent
    )
    assert set(stage.credits().values()) == {0}, "it is burnt"
    assert play.round(segment).members == ()
    assert play.jobs.round_at(play.job, segment, 0) == before

    play.draw()
    again = play.round(segment)
    drawn = events_of(play, "CommitteeDrawn")[-1].arguments
    assert (drawn["segment"], drawn["attempt"]) == (segment, 1)
    entropy = stage.chain.connection.block_hash(record.seed_block)
    chain_id = stage.chain.connection.chain_id
    assert drawn["seed"] == hashing.committee_seed(chain_id, play.jobs.address, play.job, segment, entropy)
    assert len(again.members) == 3
    assert {member.commitment for member in again.members} == {ZERO_HASH}
    if segment == 0:
        assert play.phase is Phase.AWAITING_INPUT, "the input is sealed to the others"
        assert play.record.deadline == stage.chain.connection.timestamp() + POLICY.input_seconds
        play.provide_input()
    else:
        # Time for those before it to seal their outputs anew, and then the usual time.
        windows = POLICY.input_seconds + POLICY.commit_seconds
        assert play.record.deadline == stage.chain.connection.timestamp() + windows
    assert play.phase is Phase.COMMITTING
    play.play_on()
    assert play.phase is Phase.FINALISED


def test_draw__nobody_committed__replaces_the_committee_and_nobody_pays(stage: Stage) -> None:
    # That it could have been done, nobody showed.
    play = at_segment(stage, 1)
    redraw(play)
    assert (play.phase, play.record.redraws, penalties(play)) == (Phase.COMMITTING, 1, [])
    assert stakes_of(stage) == sum(STAKES)


def test_draw__exactly_the_quorum_committed__goes_on_with_the_committee(stage: Stage) -> None:
    model = stage.register_segments(2, "exact")
    workers = tuple(stage.chain.instant(f"equal {index}") for index in range(4))
    for worker in workers:
        stage.join(worker, ETHER, model)
    stage.workers = workers
    for quorum_bps, redraws in ((7500, 0), (7501, 1)):
        policy = with_policy(committee_size=4, quorum_bps=quorum_bps)
        play = stage.request(policy, model_id=model).to_committing()
        for worker in play.members()[:3]:
            play.commit(worker)
        play.lapse()
        play.draw()
        assert play.record.redraws == redraws
        assert len(play.round(0).members) == (0 if redraws else 4)


def test_draw__another_committee__is_apart_from_the_one_before_where_there_are_workers_enough(stage: Stage) -> None:
    more = tuple(stage.chain.instant(f"more {index}") for index in range(9))
    for worker in more:
        stage.join(worker, ETHER)
    stage.workers += more
    play = at_segment(stage, 1)
    earlier = [member.operator for segment in (0, 1) for member in play.round(segment).members]
    frozen = play.record.frozen_block
    play.lapse()
    play.draw()
    seed_block = play.record.seed_block
    play.draw()
    drawn = [member.operator for member in play.round(1).members]
    assert not set(drawn) & set(earlier)
    assert len(set(earlier)) == 6
    connection = stage.chain.connection
    seed = hashing.committee_seed(
        connection.chain_id, play.jobs.address, play.job, 1, connection.block_hash(seed_block)
    )
    assert [operator for operator, _ in stage.contracts.staking.draw(stage.model, frozen, seed, 3, earlier)] == drawn
    weights = [*zip((w.address for w in stage.workers), (*STAKES, *[ETHER] * 9), strict=True)]
    assert [operator for operator, _ in sortition.draw_committee(weights, seed, 3, earlier)] == drawn  # type: ignore[arg-type]


def test_draw__more_redraws_than_may_be__fails_the_job(stage: Stage) -> None:
    play = at_segment(stage, 1)
    for redraws in range(1, MAX_REDRAWS + 1):
        redraw(play)
        assert (play.phase, play.record.redraws, play.record.attempts) == (Phase.COMMITTING, redraws, (0, redraws, 0))
    committed, *silent = play.members()
    play.commit(committed)
    play.lapse()
    play.draw()
    assert (play.phase, failure(play)) == (Phase.FAILED, (Reason.TOO_FEW_ACTED, FEE))
    assert {(operator, reason) for _, operator, reason, _ in penalties(play)} == {
        (worker.address, Reason.MISSED_COMMIT) for worker in silent
    }
    assert stage.credits() == dict.fromkeys(stage.credits(), 0) | {stage.requester.address: FEE}


def test_draw__redraws__are_counted_over_all_segments(stage: Stage) -> None:
    play = stage.request().to_committing()
    for _ in range(2):
        redraw(play)
        play.provide_input()
    play.play_round()
    for _ in range(2):
        redraw(play)
    assert (play.record.redraws, play.record.attempts) == (MAX_REDRAWS, (2, 2, 0))
    play.play_round()
    play.lapse()
    play.draw()
    assert failure(play) == (Reason.TOO_FEW_ACTED, FEE)


def test_draw__first_segment_again_without_its_input__costs_the_requester(stage: Stage) -> None:
    play = stage.request().to_committing()
    redraw(play)
    with refused("WrongPhase", jobId=play.job, actual=Phase.AWAITING_INPUT):
        play.commit(play.members()[0])
    play.lapse()
    play.expire()
    part = share(FEE, FAULT_SHARE_BPS) // 3
    paid = sum(part * stake // sum(STAKES) for stake in STAKES)
    assert failure(play) == (Reason.INPUT_UNAVAILABLE, FEE - paid)


def test_draw__nobody_draws_another_committee_in_time__expires(stage: Stage) -> None:
    play = at_segment(stage, 1)
    play.lapse()
    play.draw()
    play.lapse()
    with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
        play.draw()
    play.expire()
    assert (failure(play), penalties(play)) == ((Reason.TIMED_OUT, FEE), [])


def test_reseal__supporters_of_the_segment_before__each_once_per_attempt(stage: Stage) -> None:
    play = at_segment(stage, 1)
    supporter, other, _ = play.members(0)
    with refused("AlreadySealed", jobId=play.job, segment=0, operator=supporter.address):
        play.reseal(supporter)
    for attempt in (1, 2):
        redraw(play)
        play.reseal(supporter)
        member = play.round(0).member(supporter.address)
        assert member is not None
        assert (member.sealed_for, member.activation_cid) == (
            attempt,
            keccak(b"resealed" + supporter.address.encode()),
        )
        (event,) = newest_events(stage)
        assert event == (
            "Resealed",
            {
                "jobId": play.job,
                "segment": 0,
                "operator": supporter.address,
                "activationCid": keccak(b"resealed" + supporter.address.encode()),
            },
        )
        with refused("AlreadySealed", jobId=play.job, segment=0, operator=supporter.address):
            play.reseal(supporter)
    assert play.round(0).member(other.address).sealed_for == 0  # type: ignore[union-attr]
    play.reseal(other)


def test_reseal__nothing_or_by_others__is_refused(stage: Stage) -> None:
    play = stage.request().to_committing()
    liar, supporter, _ = stage.workers
    with refused("NotSupporter", jobId=play.job, segment=0, caller=supporter.address):
        play.reseal(supporter)  # there is no segment before the first
    play.play_round({liar.address: Link(keccak(b"wrong"))})
    redraw(play)
    with refused("NotMember", jobId=play.job, segment=0, caller=stage.owner.address):
        play.reseal(stage.owner)
    with refused("NotSupporter", jobId=play.job, segment=0, caller=liar.address):
        play.reseal(liar)
    with refused("ValueIsZero", field="activationCid"):
        play.jobs.reseal(supporter, play.job, ZERO_HASH)
    play.reseal(supporter)
    play.to_revealing()
    with refused("WrongPhase", jobId=play.job, actual=Phase.REVEALING):
        play.reseal(supporter)


def test_reveal__sealed_for__names_the_attempt_that_is_to_read_it(stage: Stage) -> None:
    play = at_segment(stage, 1)
    redraw(play)
    play.play_round()
    assert {member.sealed_for for member in play.round(1).members} == {0}
    redraw(play)
    play.play_round()
    assert play.record.attempts == (0, 1, 1)
    assert {member.sealed_for for member in play.round(2).members} == {0}, "the last one is sealed to the requester"

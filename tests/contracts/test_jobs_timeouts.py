"""What time alone brings about: every deadline, to the second, and what silence costs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eth_hash.auto import keccak

from offchain.chain.events import job_events
from offchain.protocol.types import Link, Phase, Reason
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, refused, with_policy
from tests.contracts.test_jobs_request import LONGEST_JOB_SECONDS
from tests.contracts.test_jobs_rounds import MISS_BPS, penalties_of
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

HOUR = 3600
FAULT_SHARE_BPS = 2000


def miss(stake_wei: int) -> int:
    return stake_wei * MISS_BPS // 10_000


def stake_of(stage: Stage, worker: InstantSender) -> int:
    """What a worker of the stage was drawn with."""
    return STAKES[stage.workers.index(worker)]


def stakes_of(stage: Stage) -> int:
    """What all workers together still have bonded."""
    return sum(stage.contracts.staking.active_of(worker.address) for worker in stage.workers)


def wealth_of(stage: Stage, worker: InstantSender) -> int:
    """What a worker has in the contracts."""
    return stage.contracts.jobs.credit_of(worker.address) + stage.contracts.staking.active_of(worker.address)


def assert_only_the_fee_came_back(stage: Stage) -> None:
    """Nobody lost stake, and nobody is credited anything but the requester its fee."""
    assert stage.credits() == dict.fromkeys(stage.credits(), 0) | {stage.requester.address: FEE}
    assert stakes_of(stage) == sum(STAKES)


def commit_enough(play: Play) -> None:
    """All but one commit: a quorum can still be had."""
    for worker in play.members()[1:]:
        play.commit(worker)


def contest(play: Play) -> Play:
    """Everybody reveals another output."""
    return play.play_round({worker.address: Link(keccak(worker.address.encode())) for worker in play.members()})


def test_phase_of__challengeable__is_finalisable_from_the_deadline_on(stage: Stage) -> None:
    play = stage.request(with_policy(proof_permille=0)).to_challengeable()
    deadline = play.record.deadline
    assert phase_at(play, deadline - 1) is Phase.CHALLENGEABLE
    assert phase_at(play, deadline) is Phase.FINALISABLE
    # What was decided in time stays decided.
    assert phase_at(play, play.record.ends_at + 10 * 365 * 24 * HOUR) is Phase.FINALISABLE


def phase_at(play: Play, timestamp: int) -> Phase:
    """The phase as a block at this time would see it."""
    stage = play.stage
    data = play.jobs.contract.functions.phaseOf(play.job)._encode_transaction_data()
    answer = stage.chain.rpc(
        "eth_call", {"to": play.jobs.address, "data": data}, "latest", {}, {"time": hex(timestamp)}
    )
    return Phase(int(answer, 16))


@pytest.mark.parametrize(
    ("reach", "stored", "derived"),
    [
        (lambda play: None, Phase.REQUESTED, Phase.EXPIRED),
        (lambda play: play.draw(), Phase.AWAITING_INPUT, Phase.EXPIRED),
        (lambda play: play.to_committing(), Phase.COMMITTING, Phase.DRAWING),
        (lambda play: play.to_committing().commit_all(), Phase.DRAWING, Phase.EXPIRED),
        (lambda play: play.to_committing().to_revealing(), Phase.REVEALING, Phase.SETTLING),
        (lambda play: play.to_committing().play_round().play_round(), Phase.COMMITTING, Phase.DRAWING),
        (lambda play: commit_enough(play.to_committing().play_round().play_round()), Phase.COMMITTING, Phase.REVEALING),
        (lambda play: contest(play.to_committing()), Phase.CONTESTED, Phase.EXPIRED),
        (lambda play: play.to_sampling(), Phase.SAMPLING, Phase.EXPIRED),
        (lambda play: play.to_proving(), Phase.PROVING, Phase.EXPIRED),
    ],
    ids=[
        "requested",
        "awaiting input",
        "committing",
        "drawing",
        "revealing",
        "last committing, short",
        "last committing",
        "contested",
        "sampling",
        "proving",
    ],
)
def test_phase_of__deadline__is_the_first_second_that_is_too_late(
    stage: Stage, reach: Callable[[Play], object], stored: Phase, derived: Phase
) -> None:
    play = stage.request()
    reach(play)
    assert play.phase is stored
    deadline = play.record.deadline
    assert deadline > stage.chain.connection.timestamp()
    assert phase_at(play, deadline - 1) is stored
    assert phase_at(play, deadline) is derived
    play.lapse()
    assert play.phase is derived
    assert play.record.phase is stored, "a phase that time brought about is never stored"


@pytest.mark.parametrize("reach", [lambda play: play.to_finalisable(), lambda play: play.to_finalisable().finalise()])
def test_phase_of__finalisable_and_finalised__never_lapse(stage: Stage, reach: Callable[[Play], object]) -> None:
    play = stage.request()
    reach(play)
    before = play.phase
    stage.chain.advance(10 * 365 * 24 * HOUR)
    assert play.phase is before
    assert play.record.deadline == 0


@pytest.mark.parametrize(
    "reach",
    [
        lambda play: None,
        lambda play: play.to_committing().commit_all(),
        lambda play: play.to_sampling(),
    ],
    ids=["requested", "drawing", "sampling"],
)
def test_expire__nobody_to_blame__refunds_and_penalises_nobody(stage: Stage, reach: Callable[[Play], object]) -> None:
    play = stage.request()
    reach(play)
    with refused("WrongPhase", jobId=play.job, actual=play.phase):
        play.expire()
    play.lapse()
    play.expire()
    assert play.phase is Phase.FAILED
    assert stage.credits() == dict.fromkeys(stage.credits(), 0) | {stage.requester.address: FEE}
    assert penalties_of(play) == []


def last_failure(play: Play) -> tuple[Reason, int]:
    """Why the job failed in the newest block, and what was refunded."""
    head = play.stage.contracts.connection.block_number()
    (failed,) = [event for event in job_events(play.stage.contracts, play.job, head, head) if event.name == "JobFailed"]
    return Reason(failed.arguments["reason"]), failed.arguments["refund"]


def test_commit__at_the_deadline__is_too_late_and_one_second_before_is_not(stage: Stage) -> None:
    play = stage.request().to_committing()
    first, second, _ = play.members()
    deadline = play.record.deadline
    first.at = deadline - 1
    play.commit(first)
    second.at = deadline
    with refused("WrongPhase", jobId=play.job, actual=Phase.DRAWING):
        play.commit(second)


def test_draw__lapsed_commit_phase__first_fixes_a_seed_block_then_draws(stage: Stage) -> None:
    play = stage.request().to_committing()
    silent, *others = play.members()
    for worker in others:
        play.commit(worker)
    play.lapse()
    assert play.phase is Phase.DRAWING
    play.draw()
    now = stage.chain.connection.timestamp()
    record = play.record
    assert (record.phase, record.seed_block) == (Phase.DRAWING, stage.chain.connection.block_number())
    assert record.deadline == now + POLICY.reveal_seconds
    play.draw()
    assert play.phase is Phase.REVEALING
    assert len(play.round(1).members) == 3
    # The silent member has nothing to reveal; those that committed settle without it, and it pays.
    for worker in others:
        play.reveal(worker)
    stake = STAKES[stage.workers.index(silent)]
    assert (play.phase, play.record.segment) == (Phase.COMMITTING, 1)
    assert penalties_of(play) == [(silent.address, Reason.MISSED_COMMIT, miss(stake))]
    assert set(stage.credits().values()) == {0}, "it is burnt"
    assert stage.contracts.staking.active_of(silent.address) == stake - miss(stake)


def test_draw__lapsed_commit_phase_that_nobody_drew_after__expires(stage: Stage) -> None:
    play = stage.request().to_committing()
    end = play.record.deadline + POLICY.reveal_seconds
    assert phase_at(play, end - 1) is Phase.DRAWING
    assert phase_at(play, end) is Phase.EXPIRED
    stage.chain.move_to(end)
    play.expire()
    assert play.phase is Phase.FAILED


def test_reveal__lapsed_last_commit_phase__has_one_reveal_window_and_no_more(stage: Stage) -> None:
    play = stage.request().to_committing().play_round().play_round()
    silent, *others = play.members()
    for worker in others:
        play.commit(worker)
    deadline = play.record.deadline
    assert phase_at(play, deadline) is Phase.REVEALING
    assert phase_at(play, deadline + POLICY.reveal_seconds - 1) is Phase.REVEALING
    assert phase_at(play, deadline + POLICY.reveal_seconds) is Phase.SETTLING
    assert phase_at(play, deadline + 2 * POLICY.reveal_seconds - 1) is Phase.SETTLING
    assert phase_at(play, deadline + 2 * POLICY.reveal_seconds) is Phase.EXPIRED
    stage.chain.move_to(deadline + POLICY.reveal_seconds - 10)
    play.reveal(others[0])
    # A late first reveal stores the phase, and buys nobody any time.
    assert play.record.phase is Phase.REVEALING
    assert play.record.deadline == deadline + POLICY.reveal_seconds
    assert phase_at(play, deadline + 2 * POLICY.reveal_seconds - 1) is Phase.SETTLING
    assert phase_at(play, deadline + 2 * POLICY.reveal_seconds) is Phase.EXPIRED
    others[1].at = deadline + POLICY.reveal_seconds - 1
    play.reveal(others[1])
    assert play.phase is Phase.SAMPLING
    assert [(operator, reason) for operator, reason, _ in penalties_of(play)] == [
        (silent.address, Reason.MISSED_COMMIT)
    ]


def test_settle__last_segment_where_nobody_committed__waits_for_a_draw_and_nobody_pays(stage: Stage) -> None:
    play = stage.request().to_committing().play_round().play_round()
    deadline = play.record.deadline
    assert phase_at(play, deadline + POLICY.reveal_seconds - 1) is Phase.DRAWING
    stage.chain.move_to(deadline + POLICY.reveal_seconds)
    with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
        play.settle()
    play.expire()
    assert play.phase is Phase.FAILED
    assert penalties_of(play) == []
    assert_only_the_fee_came_back(stage)


def test_settle__last_segment_where_nobody_revealed__leaves_time_to_challenge_and_nobody_pays(stage: Stage) -> None:
    play = stage.request().to_committing().play_round().play_round()
    commit_enough(play)
    stage.chain.move_to(play.record.deadline + POLICY.reveal_seconds)
    assert (play.phase, play.record.phase) == (Phase.SETTLING, Phase.COMMITTING)
    play.settle()
    assert play.phase is Phase.CONTESTED
    play.lapse()
    play.expire()
    # Two committed to something; that an output could be had, nobody showed.
    assert play.phase is Phase.FAILED
    assert penalties_of(play) == []
    assert_only_the_fee_came_back(stage)
    assert last_failure(play) == (Reason.NO_QUORUM, FEE)


@pytest.mark.parametrize("last", [False, True])
def test_settle__within_one_more_time_to_reveal__and_not_a_second_later(stage: Stage, last: bool) -> None:
    play = stage.request().to_committing()
    if last:
        play.play_round().play_round()
    play.to_revealing()
    silent, *others = play.members()
    for worker in others:
        play.reveal(worker)
    end = play.record.deadline + POLICY.reveal_seconds
    assert phase_at(play, end - 1) is Phase.SETTLING
    assert phase_at(play, end) is Phase.EXPIRED
    with stage.chain.isolated():
        stage.owner.at = end - 1
        play.settle()
        assert play.phase is (Phase.SAMPLING if last else Phase.COMMITTING)
        assert len(penalties_of(play)) == 1
    stage.owner.at = end
    with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
        play.settle()
    stage.owner.at = end
    play.expire()
    assert (play.phase, penalties_of(play)) == (Phase.FAILED, [])
    assert_only_the_fee_came_back(stage)


def test_settle__lapsed_last_commit_phase__lapses_after_two_times_to_reveal(stage: Stage) -> None:
    play = stage.request().to_committing().play_round().play_round()
    commit_enough(play)
    end = play.record.deadline + 2 * POLICY.reveal_seconds
    with stage.chain.isolated():
        stage.owner.at = end - 1
        play.settle()
        assert play.phase is Phase.CONTESTED
        assert penalties_of(play) == []
    stage.owner.at = end
    with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
        play.settle()
    stage.owner.at = end
    play.expire()
    assert penalties_of(play) == []


def test_job__every_window_used_to_the_end__is_over_before_unbonding_could_be(stage: Stage) -> None:
    # INVARIANT: stake that starts to leave in the block of the request can be slashed for all that the job may bring.
    model = stage.register_segments(16, "long")
    for worker in stage.workers:
        stage.contracts.staking.serve(worker, model)
    # Holds a quorum alone, so that a round may lapse both ways and still settle.
    quick = stage.chain.instant("quick")
    stage.join(quick, 30 * ETHER, model)
    stage.workers += (quick,)
    hours = {f"{window}_seconds": HOUR for window in ("input", "commit", "reveal", "prove", "challenge")}
    play = stage.request(with_policy(committee_size=4, **hours), model_id=model)
    start = stage.chain.connection.timestamp()
    play.lapse(spare_seconds=10)
    stage.chain.mine()
    play.draw()
    play.lapse(spare_seconds=10)
    play.provide_input()
    for segment in range(16):
        play.commit(quick)
        play.commit(stage.workers[0])
        play.lapse()
        if segment < 15:
            stage.chain.advance(HOUR - 10)
            play.draw()
            play.lapse(spare_seconds=10)
            play.draw()
        play.reveal(quick)
        play.lapse()
        stage.chain.advance(HOUR - 10)
        play.settle()
    assert play.phase is Phase.SAMPLING
    play.lapse(spare_seconds=10)
    play.draw()
    play.lapse()
    play.expire()
    lasted = stage.chain.connection.timestamp() - start
    # With the time for challenges half of what there is; the rest is for redraws, contested segments and challenges.
    longest = 84 * HOUR
    assert 0.98 * longest < lasted + HOUR <= longest == LONGEST_JOB_SECONDS // 2
    assert stage.contracts.staking._read("unbondingSeconds") >= LONGEST_JOB_SECONDS

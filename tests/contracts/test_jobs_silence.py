"""What silence costs, and whom: never more than was shown that it could be done, and to nobody's gain."""

from __future__ import annotations

import pytest

from offchain.protocol.types import ZERO_ADDRESS, Phase, Reason
from tests.contracts.stage import FEE, POLICY, STAKES, Stage, refused
from tests.contracts.test_jobs_rounds import penalties_of
from tests.contracts.test_jobs_timeouts import (
    FAULT_SHARE_BPS,
    assert_only_the_fee_came_back,
    last_failure,
    miss,
    stake_of,
    stakes_of,
    wealth_of,
)

pytestmark = pytest.mark.integration


def test_settle__silent_at_the_reveal__pays_and_the_rest_settles(stage: Stage) -> None:
    play = stage.request().to_committing().to_revealing()
    silent, *others = play.members()
    for worker in others:
        play.reveal(worker)
    with refused("WrongPhase", jobId=play.job, actual=Phase.REVEALING):
        play.settle()
    play.lapse()
    with refused("WrongPhase", jobId=play.job, actual=Phase.SETTLING):
        play.reveal(silent)
    play.settle()
    stake = stake_of(stage, silent)
    assert play.record.segment == 1
    assert play.round(0).settled_weight == sum(STAKES) - stake
    assert penalties_of(play) == [(silent.address, Reason.MISSED_REVEAL, miss(stake))]


def test_settle__nobody_revealed__fails_and_nobody_pays(stage: Stage) -> None:
    play = stage.request().to_committing().to_revealing()
    play.lapse()
    play.settle()
    assert play.phase is Phase.FAILED
    assert penalties_of(play) == []
    assert_only_the_fee_came_back(stage)


def test_settle__garbage_input__costs_nobody_anything(stage: Stage) -> None:
    # The requester names what nobody can open. Nobody commits, and it gains nothing by it.
    play = stage.request().to_committing()
    play.lapse()
    assert play.phase is Phase.DRAWING
    stage.chain.advance(POLICY.reveal_seconds)
    play.expire()
    assert penalties_of(play) == []
    assert_only_the_fee_came_back(stage)


def test_settle__worker_that_colludes_with_the_requester__gains_nothing_and_neither_does_the_requester(
    stage: Stage,
) -> None:
    # The requester tells one worker alone what the input is. The others do lose a little: to nobody.
    play = stage.request().to_committing()
    colluder, *honest = play.members()
    wealth = wealth_of(stage, colluder)
    play.commit(colluder)
    play.lapse()
    play.draw()
    assert (play.phase, play.record.redraws) == (Phase.DRAWING, 1)
    lost = sum(miss(stake_of(stage, worker)) for worker in honest)
    assert {(operator, reason) for operator, reason, _ in penalties_of(play)} == {
        (worker.address, Reason.MISSED_COMMIT) for worker in honest
    }
    # To go on, it would have to seal the input anew, to others; it does not.
    play.draw()
    play.lapse()
    play.expire()
    paid = sum(stage.credits()[worker.address] for worker in stage.workers)
    assert stage.credits()[stage.requester.address] == FEE - paid < FEE
    assert wealth_of(stage, colluder) - wealth < paid
    assert sum(STAKES) - stakes_of(stage) == lost > 0


def test_settle__penalty__leaves_the_stakes_and_arrives_at_nobodys_address(stage: Stage) -> None:
    connection, staking, jobs = stage.chain.connection, stage.contracts.staking, stage.contracts.jobs
    play = stage.request().to_committing()
    silent, *others = play.members()
    for worker in others:
        play.commit(worker)
    play.lapse()
    play.draw()
    play.draw()
    play.reveal(others[0])
    before = {address: connection.balance(address) for address in (staking.address, jobs.address, ZERO_ADDRESS)}
    play.reveal(others[1])
    burnt = miss(stake_of(stage, silent))
    assert penalties_of(play) == [(silent.address, Reason.MISSED_COMMIT, burnt)]
    assert {address: connection.balance(address) - held for address, held in before.items()} == {
        staking.address: -burnt,
        jobs.address: 0,
        ZERO_ADDRESS: burnt,
    }


def test_settle__stake_that_is_unbonding__still_pays(stage: Stage) -> None:
    play = stage.request().to_committing().to_revealing()
    worker, staking = stage.workers[0], stage.contracts.staking
    staking.start_unbonding(worker, STAKES[0])
    play.reveal(stage.workers[1])
    play.lapse()
    play.settle()
    assert staking.active_of(worker.address) == 0
    assert staking.unbonding_of(worker.address)[0] == STAKES[0] - miss(STAKES[0])


def test_expire__proofs_that_nobody_made__cost_the_drawn_provers(stage: Stage) -> None:
    # If one cannot be made, its prover voted for what no proof shows.
    play = stage.request().to_proving()
    play.prove(1)
    play.lapse()
    with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
        play.prove(0)
    late = [stage.by_address(play.round(segment).prover) for segment in (0, 2)]
    play.expire()
    assert [(operator, reason) for operator, reason, _ in penalties_of(play)] == [
        (worker.address, Reason.MISSED_PROOF) for worker in late
    ]
    assert penalties_of(play)[0][2] == miss(stake_of(stage, late[0]))
    assert stakes_of(stage) == sum(STAKES) - sum(miss(stake_of(stage, worker)) for worker in late)
    assert stage.credits() == dict.fromkeys(stage.credits(), 0) | {stage.requester.address: FEE}
    assert last_failure(play) == (Reason.TIMED_OUT, FEE)


def test_expire__input_that_was_never_provided__costs_the_requester_a_share(stage: Stage) -> None:
    play = stage.request()
    play.draw()
    play.lapse()
    play.expire()
    assert (play.phase, penalties_of(play)) == (Phase.FAILED, [])
    # A third of a fifth of the fee: one segment of three; rounded down for each.
    share = FEE * FAULT_SHARE_BPS // 10_000 // 3
    paid = {worker.address: share * stake_of(stage, worker) // sum(STAKES) for worker in stage.workers}
    refund = FEE - sum(paid.values())
    assert stage.credits() == {stage.owner.address: 0, stage.requester.address: refund, **paid}
    assert last_failure(play) == (Reason.INPUT_UNAVAILABLE, refund)

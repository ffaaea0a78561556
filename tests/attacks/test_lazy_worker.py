"""A worker that does not compute, on the executable specification (THREATS 43); see ``benchmarks/lazy_worker.py``."""

from __future__ import annotations

import random

import pytest

from benchmarks.lazy_worker import Outcome, Play, measure, predicted
from offchain.protocol.economics import Deterrence, RateTooLow, require_deterrence

pytestmark = pytest.mark.unit

JOBS = 30


def outcomes(permille: int, scenario: str, seed: str) -> list[Outcome]:
    """What so many jobs come to for the lazy worker."""
    dice = random.Random(seed)
    return [Play(permille, scenario, dice).run() for _ in range(JOBS)]


def test_lazy_worker__no_proofs_and_a_bought_committee__is_paid_for_nothing() -> None:
    """The harm: without proofs nothing stands between noise and the fee where nobody dissents."""
    done = outcomes(0, "bought", "harm")
    assert not any(outcome.is_caught for outcome in done)
    assert max(outcome.earned_wei for outcome in done) > 0
    assert min(outcome.earned_wei for outcome in done) == 0, "nobody is punished either"


def test_lazy_worker__every_segment_proved__always_loses_half_its_stake() -> None:
    done = outcomes(1000, "alone", "all")
    assert all(outcome.is_caught for outcome in done)
    assert {outcome.earned_wei for outcome in done} == {-5 * 10**18}


def test_lazy_worker__one_honest_member_against_two__is_always_caught_without_any_sample() -> None:
    assert all(outcome.is_caught for outcome in outcomes(0, "majority", "honest"))


@pytest.mark.parametrize("scenario", ["alone", "bought"])
def test_lazy_worker__sampled_proofs__is_caught_at_the_predicted_rate(scenario: str) -> None:
    jobs = 150
    dice = random.Random(scenario)
    caught = sum(Play(500, scenario, dice).run().is_caught for _ in range(jobs)) / jobs
    expected = predicted(scenario, 500)
    assert abs(caught - expected) < 5 * (expected * (1 - expected) / jobs) ** 0.5


def test_lazy_worker__rate_at_which_it_pays__is_refused_by_the_router() -> None:
    """p (1 - r) (R + S) > C: with little to lose and much to save, a tenth of a per cent is too rare."""
    with pytest.raises(RateTooLow):
        require_deterrence(Deterrence(permille=1, collusion_bps=3000, reward_wei=10, slashed_wei=1000, cost_wei=1))
    require_deterrence(Deterrence(permille=2, collusion_bps=3000, reward_wei=10, slashed_wei=1000, cost_wei=1))


def test_measure__any_seed__covers_every_rate_and_scenario() -> None:
    assert len(measure(1, 7)) == 33

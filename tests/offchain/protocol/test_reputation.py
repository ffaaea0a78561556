from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.protocol.reputation import (
    MAX_REPUTATION,
    Conduct,
    after,
    after_contradiction,
    after_miss,
    after_success,
)

pytestmark = pytest.mark.unit

FAULTS = (Conduct.MISSED, Conduct.CONTRADICTED)
RATES = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.1, 0.2, 0.5, 0.9)


def replay(conducts: Iterable[Conduct], start: int = 0) -> int:
    reputation = start
    for conduct in conducts:
        reputation = after(reputation, conduct)
    return reputation


def companion(conducts: Iterable[Conduct]) -> float:
    """R' = R * 0.8^misses * 1.01^hits within [0.1, 10], from 1: our reading of the companion documents' constants."""
    reputation = 1.0
    for conduct in conducts:
        reputation = min(max(reputation * (1.01 if conduct is Conduct.SUPPORTED else 0.8), 0.1), 10.0)
    return reputation


def stationary_mean(error: float, fault: Conduct) -> float:
    """The mean of the rule's own stationary distribution, by running its transition over all states until it rests."""
    states = range(MAX_REPUTATION + 1)
    up = np.array([after_success(state) for state in states])
    down = np.array([after(state, fault) for state in states])
    # Start at the cap, where no mass should stay, so that a run that stops too early is seen as too high.
    mass = np.zeros(MAX_REPUTATION + 1)
    mass[MAX_REPUTATION] = 1.0
    for _ in range(math.ceil(40 / error)):
        mass = np.bincount(up, (1 - error) * mass, MAX_REPUTATION + 1) + np.bincount(
            down, error * mass, MAX_REPUTATION + 1
        )
    return float(mass @ np.arange(MAX_REPUTATION + 1))


def test_after_success__at_the_cap__stays() -> None:
    assert after_success(41) == 42
    assert after_success(MAX_REPUTATION) == MAX_REPUTATION


def test_after_miss__odd__half_rounded_down() -> None:
    assert [after_miss(reputation) for reputation in (0, 1, 7, MAX_REPUTATION)] == [0, 0, 3, MAX_REPUTATION // 2]


def test_after_contradiction__at_the_cap__nothing_is_left() -> None:
    assert after_contradiction(MAX_REPUTATION) == 0


@given(
    conducts=st.lists(st.sampled_from(list(Conduct)), min_size=1, max_size=200),
    place=st.integers(0, 199),
    start=st.integers(0, MAX_REPUTATION),
)
def test_after__an_error_replaced_by_a_success__never_lower(conducts: list[Conduct], place: int, start: int) -> None:
    better = list(conducts)
    better[place % len(conducts)] = Conduct.SUPPORTED
    assert replay(better, start) >= replay(conducts, start)


def test_after__any_two_reputations__order_is_kept() -> None:
    # With the pointwise order of the rules below, this is why the property above holds for sequences of any length.
    for conduct in Conduct:
        values = [after(reputation, conduct) for reputation in range(MAX_REPUTATION + 1)]
        assert values == sorted(values)
        assert values[0] >= 0
        assert values[-1] <= MAX_REPUTATION
    for reputation in range(MAX_REPUTATION + 1):
        success, miss, contradiction = (after(reputation, conduct) for conduct in Conduct)
        assert success >= miss >= contradiction


@pytest.mark.parametrize("fault", FAULTS)
def test_after__four_percent_errors__companion_rule_ends_at_its_cap_and_ours_near_nothing(fault: Conduct) -> None:
    conducts = [fault if step % 25 == 24 else Conduct.SUPPORTED for step in range(5_000)]
    conducts += [Conduct.SUPPORTED] * 24  # seen at its best moment, before the next error
    assert conducts.count(fault) / len(conducts) == pytest.approx(0.04, abs=0.0005)
    assert companion(conducts) == 10.0
    assert replay(conducts) <= 48
    assert replay(conducts) * 100 < MAX_REPUTATION


def test_companion__growth_per_step__changes_sign_between_four_and_five_percent() -> None:
    def growth(error: float) -> float:
        return (1 - error) * math.log(1.01) + error * math.log(0.8)

    assert growth(0.04) > 0 > growth(0.05)
    assert math.log(1.01) / math.log(1.01 / 0.8) == pytest.approx(0.0427, abs=0.00005)


@pytest.mark.parametrize("fault", FAULTS)
def test_after__any_error_rate__stationary_mean_falls_strictly(fault: Conduct) -> None:
    means = [stationary_mean(error, fault) for error in RATES]
    assert all(before > behind for before, behind in zip(means, means[1:], strict=False))
    assert means[RATES.index(0.04)] < MAX_REPUTATION / 100


def test_after__contradictions__stationary_mean_is_that_of_a_streak() -> None:
    # P(R >= j) = (1 - e)^j up to the cap, so E[R] = q (1 - q^cap) / e with q = 1 - e: exactly 24 at 4 % but for q^cap.
    for error in (Fraction(1, 100), Fraction(4, 100)):
        q = 1 - error
        exact = q * (1 - q**MAX_REPUTATION) / error
        assert stationary_mean(float(error), Conduct.CONTRADICTED) == pytest.approx(float(exact), rel=1e-9)
    assert float(q / error) == 24.0


@pytest.mark.parametrize("error", RATES)
def test_after__misses__stationary_mean_is_within_its_bound(error: float) -> None:
    # E <= (1 - e)(E + 1) + e E / 2, hence E <= 2 (1 - e) / e: 48 at 4 %.
    assert stationary_mean(error, Conduct.MISSED) <= 2 * (1 - error) / error

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from offchain.protocol.economics import (
    BPS,
    PERMILLE,
    Deterrence,
    RateTooLow,
    least_fee_wei,
    least_proof_permille,
    member_reward_wei,
    require_deterrence,
    slashed_wei,
)

pytestmark = pytest.mark.unit

WEI = st.integers(0, 2**100)
SMALL = st.integers(0, 2_000)
SHARE = st.integers(0, BPS)


def test_least_proof_permille__numbers_by_hand__one_step_over_equality() -> None:
    # p * 0.8 * (100 + 900) > 40 from p > 0.05 on: at 50 permille both sides are 40, and that does not deter.
    assert least_proof_permille(2_000, 100, 900, 40) == 51
    assert Deterrence(50, 2_000, 100, 900, 40).expected_loss_wei == 40
    assert not Deterrence(50, 2_000, 100, 900, 40).deters
    assert Deterrence(51, 2_000, 100, 900, 40).deters


@given(collusion_bps=SHARE, reward=SMALL, slashed=SMALL, cost=SMALL)
@example(collusion_bps=BPS, reward=1, slashed=1, cost=0)
@example(collusion_bps=0, reward=0, slashed=0, cost=0)
@example(collusion_bps=0, reward=500, slashed=500, cost=1_000)
@example(collusion_bps=0, reward=501, slashed=500, cost=1_000)
def test_least_proof_permille__any_numbers__first_rate_of_all_that_deters(
    collusion_bps: int, reward: int, slashed: int, cost: int
) -> None:
    rates = (
        permille
        for permille in range(PERMILLE + 1)
        if Fraction(permille, 1000) * (1 - Fraction(collusion_bps, 10_000)) * (reward + slashed) > cost
    )
    assert least_proof_permille(collusion_bps, reward, slashed, cost) == next(rates, None)


@given(permille=st.integers(0, PERMILLE), collusion_bps=SHARE, reward=WEI, slashed=WEI, cost=WEI)
def test_require_deterrence__any_numbers__passes_only_from_the_least_rate_on(
    permille: int, collusion_bps: int, reward: int, slashed: int, cost: int
) -> None:
    least = least_proof_permille(collusion_bps, reward, slashed, cost)
    deterrence = Deterrence(permille, collusion_bps, reward, slashed, cost)
    if least is not None and permille >= least:
        require_deterrence(deterrence)
        return
    with pytest.raises(RateTooLow) as refused:
        require_deterrence(deterrence)
    assert refused.value.field == "proof_permille"
    assert refused.value.deterrence == deterrence
    assert refused.value.least_permille == least
    if least is not None:
        require_deterrence(Deterrence(least, collusion_bps, reward, slashed, cost))


def test_require_deterrence__too_low__error_says_the_numbers_and_the_rate() -> None:
    with pytest.raises(RateTooLow) as refused:
        require_deterrence(Deterrence(50, 2_000, 100, 900, 41))
    assert "50/1000 * 8000/10000 * (100 + 900) = 40 wei <= C = 41 wei" in refused.value.problem
    assert refused.value.mend == "ask for at least 52 permille"


def test_require_deterrence__no_rate_deters__error_names_other_mends() -> None:
    with pytest.raises(RateTooLow) as refused:
        require_deterrence(Deterrence(1000, 0, 1, 1, 2))
    assert refused.value.least_permille is None
    assert "no rate deters" in refused.value.mend


@given(
    fee=WEI,
    segments=st.integers(1, 16),
    share=SHARE,
    weights=st.lists(st.integers(10, 10**6), min_size=1, max_size=7),
    agreeing=st.integers(1, 7),
)
def test_member_reward_wei__any_committee__never_more_than_the_contract_pays(
    fee: int, segments: int, share: int, weights: list[int], agreeing: int
) -> None:
    bound = member_reward_wei(fee, segments, len(weights), share, 10, 10**6)
    segment_fee = fee // segments  # what follows is Jobs._pay
    for_voters = segment_fee - segment_fee * share // BPS
    supporters = weights[:agreeing]
    assert all(bound <= for_voters * weight // sum(supporters) for weight in supporters)


def test_member_reward_wei__equal_weights__an_equal_share() -> None:
    assert member_reward_wei(6_000, 2, 3, 5_000, 7, 7) == 500  # half of 3,000, among three


def test_slashed_wei__odd_weight__rounded_down() -> None:
    assert slashed_wei(3, 5_000) == 1


@given(
    segments=st.integers(1, 16),
    size=st.integers(1, 21),
    share=SHARE,
    cost=st.integers(0, 10**6),
    proof_cost=st.none() | st.integers(0, 10**6),
)
def test_least_fee_wei__any_costs__covers_them_and_one_less_does_not(
    segments: int, size: int, share: int, cost: int, proof_cost: int | None
) -> None:
    def covers(fee: int) -> bool:
        segment_fee = fee // segments
        for_prover = 0 if proof_cost is None else segment_fee * share // BPS
        return for_prover >= (proof_cost or 0) and segment_fee - for_prover >= size * cost

    fee = least_fee_wei(segments, size, share, cost, proof_cost)
    if fee is None:
        assert not covers(10**40)
        return
    assert covers(fee)
    assert fee == 0 or not covers(fee - 1)

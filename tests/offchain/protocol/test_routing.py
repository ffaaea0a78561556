from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from offchain.errors import InterlockError, InvalidInputError
from offchain.protocol import routing
from offchain.protocol.economics import RateTooLow, Unroutable
from offchain.protocol.route_terms import (
    Conditions,
    Criticality,
    Demand,
    Deployment,
    Evidence,
    ModelSize,
    Privacy,
    Windows,
)
from offchain.protocol.routing import COMMITTEE_SIZE, MAX_WINDOW_SECONDS, QUORUM_BPS, route
from offchain.protocol.tally import is_quorum
from offchain.requester.policy import read_policy
from tests.offchain.protocol.test_manifest import MANIFEST

pytestmark = pytest.mark.unit

ETHER = 10**18
DEPLOYMENT = Deployment(
    minimum_window_seconds=5,
    minimum_fee_wei=10**9,
    minimum_stake_wei=ETHER,
    contradiction_penalty_bps=5_000,
    prover_share_bps=5_000,
)
CONDITIONS = Conditions(
    deployment=DEPLOYMENT,
    workers=9,
    largest_weight_wei=ETHER,
    max_log_rows=17,
    turn_seconds=5,
    proving_seconds=(1, 2, 4),
    proof_costs_wei=(10**13, 10**13, 2 * 10**13),
    cost_wei=10**12,
    collusion_bps=1_000,
    fee_wei=10**15,
)
DEMAND = Demand(
    criticality=Criticality.CRITICAL,
    privacy=Privacy.OPEN,
    model=ModelSize((11, 11, 12), (True, True, True)),
    latency_seconds=10_000,
    budget_wei=10**16,
)
STANDARD = replace(DEMAND, criticality=Criticality.STANDARD)
LOW = replace(DEMAND, criticality=Criticality.LOW)


def rarely(usual: st.SearchStrategy[int], seldom: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    return st.integers(0, 9).flatmap(lambda die: seldom if die == 9 else usual)


@st.composite
def inputs(draw: st.DrawFn) -> tuple[Demand, Conditions]:
    """Demands and conditions of which about half have a route."""
    segments = draw(st.integers(1, 4))

    def each(of: st.SearchStrategy[int]) -> tuple[int, ...]:
        return tuple(draw(of) for _ in range(segments))

    demand = Demand(
        criticality=draw(st.sampled_from(Criticality)),
        privacy=draw(st.sampled_from([*[Privacy.OPEN] * 4, *Privacy])),
        model=ModelSize(
            each(rarely(st.integers(8, 16), st.integers(17, 20))),
            tuple(die < 29 for die in each(st.integers(0, 29))),
        ),
        latency_seconds=draw(st.integers(200, 10_000)),
        budget_wei=draw(rarely(st.integers(10**15, 10**16), st.integers(0, 10**15))),
        proof_permille=draw(rarely(st.none(), st.integers(0, 1000))),  # type: ignore[arg-type]
    )
    conditions = Conditions(
        deployment=Deployment(
            minimum_window_seconds=draw(st.integers(1, 20)),
            minimum_fee_wei=draw(st.integers(0, 10**10)),
            minimum_stake_wei=draw(rarely(st.integers(10**14, 10**15), st.integers(1, 10**14))),
            contradiction_penalty_bps=draw(st.integers(0, 10_000)),
            prover_share_bps=draw(rarely(st.integers(1_000, 9_000), st.integers(0, 10_000))),
        ),
        workers=draw(rarely(st.integers(3, 15), st.integers(0, 3))),
        largest_weight_wei=draw(st.integers(10**15, 10**18)),
        max_log_rows=draw(st.integers(16, 20)),
        turn_seconds=draw(st.integers(1, 30)),
        proving_seconds=each(st.integers(0, 100)),
        proof_costs_wei=each(st.integers(0, 10**12)),
        cost_wei=draw(st.integers(0, 10**12)),
        collusion_bps=draw(rarely(st.integers(0, 9_000), st.integers(0, 10_000))),
        fee_wei=draw(st.integers(0, 10**15)),
    )
    return demand, conditions


def refusal(demand: Demand, conditions: Conditions = CONDITIONS) -> Unroutable:
    with pytest.raises(Unroutable) as refused:
        route(demand, conditions)
    assert isinstance(refused.value, InvalidInputError)
    assert isinstance(refused.value, InterlockError)
    return refused.value


def test_model_size_of__manifest__what_matters_of_it() -> None:
    assert ModelSize.of(MANIFEST) == ModelSize((11, 11, 11), (True, True, True))


# --- criticality ----------------------------------------------------------------------------------------------------


def test_route__critical__every_segment_proved() -> None:
    chosen = route(DEMAND, CONDITIONS)
    assert chosen.policy.proof_permille == 1000
    assert chosen.evidence == (Evidence.PROOF,) * 3
    assert chosen.policy.committee_size == 3
    assert chosen.policy.quorum_bps == 6000


def test_route__standard__the_least_rate_that_deters() -> None:
    conditions = replace(CONDITIONS, cost_wei=10**16, proof_costs_wei=(0, 0, 0))
    chosen = route(replace(STANDARD, budget_wei=10**18), conditions)
    # The fee must feed 3 * 1e16 a segment out of half of it: R = 1e16. S = 5e17, r = 0.1: p > 1e16 / (0.9 * 5.1e17).
    assert chosen.deterrence.reward_wei == 10**16
    assert chosen.deterrence.slashed_wei == 5 * 10**17
    assert chosen.policy.proof_permille == chosen.deterrence.permille == 22
    assert chosen.evidence == (Evidence.AGREEMENT,) * 3


def test_route__low__no_proofs_and_says_what_that_rests_on() -> None:
    chosen = route(LOW, CONDITIONS)
    assert chosen.policy.proof_permille == 0
    assert chosen.evidence == (Evidence.AGREEMENT,) * 3
    assert any("assumption that most of the stake drawn is honest" in reason for reason in chosen.reasons)


@pytest.mark.parametrize("criticality", [Criticality.CRITICAL, Criticality.STANDARD])
@pytest.mark.parametrize(
    "model", [ModelSize((11, 11, 12), (True, False, True)), ModelSize((11, 18, 12), (True, True, True))]
)
def test_route__proofs_of_a_segment_that_cannot_be_proved__refused(criticality: Criticality, model: ModelSize) -> None:
    refused = refusal(replace(DEMAND, criticality=criticality, model=model))
    assert refused.field == "model.segments[1]"
    assert criticality.value in refused.problem


def test_route__low_but_a_rate_is_asked_for_an_unprovable_segment__refused() -> None:
    model = ModelSize((11, 11, 12), (True, False, True))
    assert route(replace(LOW, model=model), CONDITIONS).policy.proof_permille == 0
    assert refusal(replace(LOW, model=model, proof_permille=500)).field == "model.segments[1]"


@pytest.mark.parametrize("asked", [0, 999])
def test_route__critical_with_a_lower_rate__refused(asked: int) -> None:
    assert refusal(replace(DEMAND, proof_permille=asked)).field == "proof_permille"


@pytest.mark.parametrize("criticality", [Criticality.STANDARD, Criticality.LOW])
def test_route__rate_asked_for_is_one_step_too_low__refused_with_the_numbers(criticality: Criticality) -> None:
    demand = replace(DEMAND, criticality=criticality, budget_wei=10**18)
    conditions = replace(CONDITIONS, cost_wei=10**16, proof_costs_wei=(0, 0, 0))
    assert route(replace(demand, proof_permille=22), conditions).policy.proof_permille == 22
    assert route(replace(demand, proof_permille=400), conditions).policy.proof_permille == 400
    refused = refusal(replace(demand, proof_permille=21), conditions)
    assert isinstance(refused, RateTooLow)
    assert refused.least_permille == 22
    for number in ("21/1000", "9000/10000", str(10**16), str(5 * 10**17), "9639000000000000"):
        assert number in refused.problem


def test_route__standard_with_no_proofs_asked_for__refused() -> None:
    assert isinstance(refusal(replace(STANDARD, proof_permille=0)), RateTooLow)


def test_route__no_rate_deters__refused_not_downgraded() -> None:
    refused = refusal(STANDARD, replace(CONDITIONS, collusion_bps=10_000))
    assert isinstance(refused, RateTooLow)
    assert refused.least_permille is None
    assert refused.deterrence.permille == 1000


def test_route__critical_where_no_rate_deters__proved_all_the_same_and_said() -> None:
    chosen = route(DEMAND, replace(CONDITIONS, collusion_bps=10_000))
    assert chosen.evidence == (Evidence.PROOF,) * 3
    assert any("not computing would not lose, but cannot pass" in reason for reason in chosen.reasons)


# --- privacy and workers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("privacy", [Privacy.CLIENT_HEAD, Privacy.ATTESTED])
@pytest.mark.parametrize("criticality", list(Criticality))
def test_route__privacy_that_cannot_be_had__refused(privacy: Privacy, criticality: Criticality) -> None:
    refused = refusal(replace(DEMAND, privacy=privacy, criticality=criticality))
    assert refused.field == "privacy"
    assert privacy.value in refused.problem


def test_route__split__committees_must_be_able_to_share_nobody() -> None:
    split = replace(DEMAND, privacy=Privacy.SPLIT)
    assert any("no worker sees two segments" in reason for reason in route(split, CONDITIONS).reasons)
    refused = refusal(split, replace(CONDITIONS, workers=8))
    assert refused.field == "conditions.workers"
    assert "3 * 3 = 9" in refused.problem
    assert "1 more" in refused.mend


def test_route__split_of_a_single_segment__refused() -> None:
    model = ModelSize((11,), (True,))
    conditions = replace(CONDITIONS, proving_seconds=(1,), proof_costs_wei=(1,))
    assert refusal(replace(DEMAND, privacy=Privacy.SPLIT, model=model), conditions).field == "privacy"


def test_route__fewer_workers_than_a_committee__refused() -> None:
    assert route(LOW, replace(CONDITIONS, workers=3)).policy.committee_size == 3
    assert refusal(LOW, replace(CONDITIONS, workers=2)).field == "conditions.workers"


@given(least=st.integers(1, 10**6), factor=st.integers(1, 10**6), others=st.lists(st.integers(0, 10**6), max_size=2))
def test_route__agreement__no_single_member_can_hold_the_quorum(least: int, factor: int, others: list[int]) -> None:
    largest = least * factor
    deployment = replace(DEPLOYMENT, minimum_stake_wei=least)
    chosen = route(LOW, replace(CONDITIONS, deployment=deployment, largest_weight_wei=largest))
    rest = [min(least + other, largest) for other in (*others, 0, 0)][: COMMITTEE_SIZE - 1]
    assert not is_quorum(largest, largest + sum(rest), chosen.policy.quorum_bps)
    assert QUORUM_BPS <= chosen.policy.quorum_bps <= 10_000


# --- fee ------------------------------------------------------------------------------------------------------------


def test_route__fee__the_most_of_what_is_going_least_and_needed() -> None:
    assert route(DEMAND, CONDITIONS).fee_wei == 10**15
    assert route(DEMAND, replace(CONDITIONS, fee_wei=0)).fee_wei == 3 * 4 * 10**13  # the prover gets half a segment's
    assert route(LOW, replace(CONDITIONS, fee_wei=0)).fee_wei == 3 * 3 * 10**12
    assert route(LOW, replace(CONDITIONS, fee_wei=0, cost_wei=0)).fee_wei == 10**9


def test_route__budget_one_wei_short__refused_with_the_fee() -> None:
    exact = replace(DEMAND, budget_wei=12 * 10**13)
    conditions = replace(CONDITIONS, fee_wei=0)
    assert route(exact, conditions).fee_wei == exact.budget_wei
    refused = refusal(replace(exact, budget_wei=exact.budget_wei - 1), conditions)
    assert refused.field == "budget_wei"
    assert refused.mend == f"allow {exact.budget_wei} wei"


def test_route__provers_get_no_share__refused() -> None:
    conditions = replace(CONDITIONS, deployment=replace(DEPLOYMENT, prover_share_bps=0))
    assert refusal(DEMAND, conditions).field == "conditions.deployment.prover_share_bps"
    assert route(LOW, conditions).policy.proof_permille == 0


# --- latency --------------------------------------------------------------------------------------------------------


def test_scheduled_seconds__by_rate__counts_what_happens() -> None:
    windows = Windows(input=1, commit=10, reveal=100, prove=1_000, challenge=50_000)
    assert windows.scheduled_seconds(3, 0) == 2 + 330 + 50_000
    assert windows.scheduled_seconds(3, 500) == 2 + 330 + 1 + 2_000 + 50_000
    assert windows.scheduled_seconds(3, 1000) == 2 + 330 + 1 + 2_000


def test_route__time_enough__usual_windows() -> None:
    policy = route(DEMAND, CONDITIONS).policy
    assert (policy.input_seconds, policy.commit_seconds, policy.reveal_seconds) == (120, 120, 120)
    assert policy.prove_seconds == 300


def test_route__latency_one_second_short__refused_with_what_it_takes() -> None:
    # Turns of 5 s, 13 s to prove: 2 * 5 + 3 * 10 + 5 + 2 * 13.
    chosen = route(replace(DEMAND, latency_seconds=71), CONDITIONS)
    assert chosen.scheduled_seconds == 71
    assert chosen.policy.prove_seconds == 13
    refused = refusal(replace(DEMAND, latency_seconds=70), CONDITIONS)
    assert refused.field == "latency_seconds"
    assert refused.mend == "allow 71 s"


def test_route__committees_that_may_share_members__time_for_all_proofs_of_one() -> None:
    conditions = replace(CONDITIONS, workers=8)
    demand = replace(DEMAND, latency_seconds=71 + 2 * 6)
    assert route(demand, conditions).policy.prove_seconds == 5 + 2 * (1 + 2 + 4)


def test_route__a_window_longer_than_contracts_allow__refused() -> None:
    refused = refusal(replace(DEMAND, latency_seconds=10**6), replace(CONDITIONS, proving_seconds=(1, 1, 1_800)))
    assert refused.field == "conditions.proving_seconds"
    assert "3610 s" in refused.problem


# --- numbers that mean nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "demand"),
    [
        ("model.segments", replace(DEMAND, model=ModelSize((), ()))),
        ("model.segments", replace(DEMAND, model=ModelSize((11,) * 17, (True,) * 17))),
        ("model.provable", replace(DEMAND, model=ModelSize((11, 11), (True,)))),
        ("model.provable[0]", replace(DEMAND, model=ModelSize((11,), (1,)))),  # type: ignore[arg-type]
        ("model.log_rows", replace(DEMAND, model=ModelSize((-1,), (True,)))),
        ("latency_seconds", replace(DEMAND, latency_seconds=True)),
        ("budget_wei", replace(DEMAND, budget_wei=1.0)),  # type: ignore[arg-type]
        ("proof_permille", replace(DEMAND, proof_permille=1001)),
    ],
)
def test_route__senseless_demand__refused_by_name(field: str, demand: Demand) -> None:
    assert refusal(demand).field == field


@pytest.mark.parametrize(
    ("field", "conditions"),
    [
        ("conditions.workers", replace(CONDITIONS, workers=-1)),
        ("conditions.turn_seconds", replace(CONDITIONS, turn_seconds=0)),
        ("conditions.collusion_bps", replace(CONDITIONS, collusion_bps=10_001)),
        ("conditions.largest_weight_wei", replace(CONDITIONS, largest_weight_wei=ETHER - 1)),
        ("conditions.proving_seconds", replace(CONDITIONS, proving_seconds=(1, 1))),
        ("conditions.proof_costs_wei", replace(CONDITIONS, proof_costs_wei=(1, 1, -1))),
        ("conditions.cost_wei", replace(CONDITIONS, cost_wei=-1)),
        (
            "conditions.deployment.minimum_stake_wei",
            replace(CONDITIONS, deployment=replace(DEPLOYMENT, minimum_stake_wei=0)),
        ),
        (
            "conditions.deployment.prover_share_bps",
            replace(CONDITIONS, deployment=replace(DEPLOYMENT, prover_share_bps=10_001)),
        ),
    ],
)
def test_route__senseless_conditions__refused_by_name(field: str, conditions: Conditions) -> None:
    assert refusal(DEMAND, conditions).field == field


# --- any inputs -----------------------------------------------------------------------------------------------------


@given(given_=inputs())
def test_route__any_inputs__keeps_what_was_demanded_or_refuses(given_: tuple[Demand, Conditions]) -> None:
    demand, conditions = given_
    try:
        chosen = route(demand, conditions)
    except Unroutable:
        assume(False)
        raise
    policy, model = chosen.policy, demand.model
    assert route(demand, conditions) == chosen
    assert demand.privacy in (Privacy.OPEN, Privacy.SPLIT)
    assert conditions.workers >= policy.committee_size * (model.segments if demand.privacy is Privacy.SPLIT else 1)
    assert chosen.scheduled_seconds <= demand.latency_seconds
    assert chosen.fee_wei <= demand.budget_wei
    if policy.proof_permille > 0:
        assert all(model.provable)
        assert max(model.log_rows) <= conditions.max_log_rows
    if demand.criticality is Criticality.CRITICAL:
        assert policy.proof_permille == 1000
    elif demand.criticality is Criticality.STANDARD or policy.proof_permille > 0:
        assert chosen.deterrence.deters
    assert demand.proof_permille in (None, policy.proof_permille)
    assert (Evidence.PROOF in chosen.evidence) == (policy.proof_permille == 1000)
    for name, value in vars(policy).items():
        if name.endswith("_seconds"):
            assert conditions.deployment.minimum_window_seconds <= value <= MAX_WINDOW_SECONDS
    read_policy(dict(vars(policy)))


def test_build_policy__today__has_every_field_of_a_policy() -> None:
    windows = Windows(1, 2, 3, 4, 5)
    policy = routing._build_policy(3, 6000, 10, windows)
    values = vars(policy)
    assert values.pop("challenge_seconds", 5) == 5
    assert list(values.values()) == [3, 6000, 10, 1, 2, 3, 4]

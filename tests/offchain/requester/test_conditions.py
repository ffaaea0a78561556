"""What demands are routed under: read from real contracts, but for what a gateway's operator declares."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from offchain.chain.contracts import Contracts
from offchain.errors import InvalidInputError
from offchain.protocol.economics import RateTooLow
from offchain.protocol.route_terms import Deployment
from offchain.requester import requester as module
from offchain.requester.conditions import ConditionsReader, Declared
from offchain.requester.policy import DEFAULT_POLICY
from offchain.requester.requester import Requester, Standing
from offchain.storage.sealing import Identity
from tests.contracts.stage import Stage
from tests.local_chain import ETHER, LocalChain
from tests.offchain.protocol.test_manifest import MANIFEST

STAKES = (2 * ETHER, 5 * ETHER, 3 * ETHER)
SEGMENTS = len(MANIFEST.segments)


@pytest.fixture(scope="module")
def base(chain: LocalChain, contracts: Contracts) -> Stage:
    stage = Stage(chain, contracts, chain.instant("conditions requester"), chain.instant("conditions owner"))
    stage.model = stage.register_segments(SEGMENTS, name="conditions")
    for index, stake_wei in enumerate(STAKES):
        stage.join(chain.instant(f"conditions worker {index}"), stake_wei)
    return stage


@pytest.fixture
def requester(base: Stage) -> Iterator[Requester]:
    with base.chain.isolated():
        made = Requester(base.contracts, None, None, base.requester, Identity.generate())  # type: ignore[arg-type]
        made._manifests[base.model] = MANIFEST
        yield made


def reader(base: Stage, requester: Requester, **declared: int) -> ConditionsReader:
    return ConditionsReader(base.contracts, requester, Declared(**declared))  # type: ignore[arg-type]


@pytest.mark.integration
def test_read__deployed_contracts_and_workers__are_what_they_are(base: Stage, requester: Requester) -> None:
    conditions = reader(base, requester, turn_seconds=9, going_fee_wei=7).read(base.model)
    assert conditions.deployment == Deployment(
        minimum_window_seconds=5,
        minimum_fee_wei=10**9,
        minimum_stake_wei=ETHER,
        contradiction_penalty_bps=5000,
        prover_share_bps=5000,
    )
    assert (conditions.workers, conditions.largest_weight_wei) == (3, 5 * ETHER)
    assert (conditions.turn_seconds, conditions.fee_wei) == (9, 7)
    declared = Declared()
    predicted = tuple(declared.predict_seconds(segment.log_rows) for segment in MANIFEST.segments)
    assert conditions.proving_seconds == predicted
    assert conditions.proof_costs_wei == (declared.proof_cost_wei,) * SEGMENTS


@pytest.mark.integration
def test_read__nobody_serves__has_no_workers_and_the_least_weight(base: Stage, requester: Requester) -> None:
    empty = base.register_segments(SEGMENTS, name="nobody serves this")
    requester._manifests[empty] = MANIFEST
    conditions = reader(base, requester).read(empty)
    assert (conditions.workers, conditions.largest_weight_wei) == (0, ETHER)


@pytest.mark.integration
def test_standing__more_than_are_looked_at__bounds_the_heaviest(
    base: Stage, requester: Requester, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.chain.mine()
    monkeypatch.setattr(module, "MAX_COUNTED", 2)
    standing = requester.standing(base.model)
    assert standing.workers == 2
    # Whoever was not looked at may hold all the rest; it is never less than the truth.
    assert standing.largest_weight_wei == 5 * ETHER
    monkeypatch.setattr(module, "MAX_COUNTED", 1)
    heaviest = requester.standing(base.model)
    assert heaviest.workers == 1
    assert heaviest.largest_weight_wei in (5 * ETHER, 7 * ETHER, 8 * ETHER)
    monkeypatch.setattr(module, "MAX_COUNTED", 4)
    assert requester.standing(base.model) == Standing(3, 5 * ETHER)


@pytest.mark.integration
def test_require_deterrence__rates__are_weighed_by_the_numbers(base: Stage, requester: Requester) -> None:
    fee_wei, cost_wei = SEGMENTS * 10**16, 10**17
    conditions = reader(base, requester, cost_wei=cost_wei)
    # R: of 10^16 a segment, voters get half; the lightest of three gets 1 of 1 + 5 + 5 of that. S: half of one ether.
    reward_wei = 5 * 10**15 * ETHER // (11 * ETHER)
    least = cost_wei * 1000 * 10_000 // (9_000 * (reward_wei + ETHER // 2)) + 1
    for permille in (0, least, 1000):
        conditions.require_deterrence(base.model, replace(DEFAULT_POLICY, proof_permille=permille), fee_wei)
    with pytest.raises(RateTooLow) as raised:
        conditions.require_deterrence(base.model, replace(DEFAULT_POLICY, proof_permille=least - 1), fee_wei)
    deterrence = raised.value.deterrence
    assert (deterrence.permille, deterrence.reward_wei, deterrence.slashed_wei) == (least - 1, reward_wei, ETHER // 2)
    assert raised.value.least_permille == least
    # Where nothing deters, relying on agreement, or proving everything, is still what it says.
    hopeless = reader(base, requester, cost_wei=10**30)
    for permille in (0, 1000):
        hopeless.require_deterrence(base.model, replace(DEFAULT_POLICY, proof_permille=permille), fee_wei)
    with pytest.raises(RateTooLow) as raised:
        hopeless.require_deterrence(base.model, replace(DEFAULT_POLICY, proof_permille=999), fee_wei)
    assert raised.value.least_permille is None


@pytest.mark.unit
def test_predict_seconds__beyond_the_table__doubles() -> None:
    declared = Declared(proving_seconds=(1, 1, 3))
    assert [declared.predict_seconds(log_rows) for log_rows in range(6)] == [1, 1, 3, 6, 12, 24]
    usual = [Declared().predict_seconds(log_rows) for log_rows in (1, 11, 14, 16, 18, 19)]
    assert usual == [2, 2, 12, 47, 185, 370]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"turn_seconds": 0}, "turn_seconds"),
        ({"proving_seconds": ()}, "proving_seconds"),
        ({"collusion_bps": -1}, "collusion_bps"),
        ({"proof_cost_wei": -1}, "proof_cost_wei"),
        ({"going_fee_wei": -1}, "going_fee_wei"),
    ],
)
def test_declared__number_that_means_nothing__is_refused(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        Declared(**changes)  # type: ignore[arg-type]
    assert raised.value.field == field

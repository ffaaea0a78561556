"""The planner against every plan that there is, and the constraints that it has to respect."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning_machines import ROOMY, PricedMachine

from offchain.errors import InvalidInputError
from offchain.planning.costs import TypicalMachine
from offchain.planning.estimates import Estimator
from offchain.planning.layouts import Layouts
from offchain.planning.planner import (
    Constraints,
    check_route,
    choose,
    enumerate_routes,
    find_route,
    prove_makespan,
    refusals,
)
from offchain.planning.workers import WorkerClass
from offchain.protocol.links import LinkKind

pytestmark = pytest.mark.integration

KINDS = {
    "kzg": (LinkKind.KZG,),
    "kzg and poseidon": (LinkKind.KZG, LinkKind.POSEIDON),
    "all": (LinkKind.KZG, LinkKind.POSEIDON, LinkKind.PUBLIC),
}


def _estimator(layouts: Layouts, machine: TypicalMachine | PricedMachine | None = None) -> Estimator:
    return Estimator(layouts, machine or TypicalMachine(), max_log_rows=11)


@pytest.mark.parametrize("kinds", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("slack", [0.0, 0.05])
def test_find_route__small_model__is_the_best_of_all(
    layouts: Layouts, kinds: tuple[LinkKind, ...], slack: float
) -> None:
    estimator, count = _estimator(layouts), len(layouts.stretch.pieces)
    constraints = Constraints(ROOMY, kinds=kinds, slack=slack, max_segments=3)
    routes = enumerate_routes(estimator, constraints, 0, count)
    best = choose(routes, constraints, 2, (0, count))
    found = find_route(estimator, constraints, 0, count)
    assert len(routes) > 20
    assert (found.longest_seconds, found.gas) == (best.longest_seconds, best.gas)
    for route in routes:
        check_route(route)


def test_find_route__fewer_workers_than_segments__within_a_tenth_of_the_best(layouts: Layouts) -> None:
    estimator, count = _estimator(layouts), len(layouts.stretch.pieces)
    two = (WorkerClass(2, 12 << 30, 1), WorkerClass(4, 12 << 30, 1))
    constraints = Constraints(two, slack=0.0, max_segments=3)
    best = min(prove_makespan(route, two, 2) or 1e9 for route in enumerate_routes(estimator, constraints, 0, count))
    found = prove_makespan(find_route(estimator, constraints, 0, count), two, 2)
    assert found is not None
    assert best <= found <= 1.1 * best


def test_find_route__kzg_links_only__ties_log_rows(layouts: Layouts) -> None:
    constraints = Constraints(ROOMY, kinds=(LinkKind.KZG,), slack=0.0)
    route = find_route(_estimator(layouts), constraints, 0, len(layouts.stretch.pieces))
    assert len(route.segments) > 1
    assert len({segment.circuit.log_rows for segment in route.segments}) == 1


@pytest.mark.parametrize(("factor", "hashes"), [(0.1, True), (50.0, False)])
def test_find_route__sizes_differ__weighs_a_poseidon_link_by_its_price(
    layouts: Layouts, factor: float, hashes: bool
) -> None:
    constraints = Constraints(ROOMY, kinds=KINDS["kzg and poseidon"], slack=0.0)
    estimator = _estimator(layouts, PricedMachine(hashed_factor=factor))
    route = find_route(estimator, constraints, 0, len(layouts.stretch.pieces))
    assert (LinkKind.POSEIDON in [segment.circuit.output_kind for segment in route.segments]) is hashes


def test_find_route__little_memory__keeps_every_proof_below_it(layouts: Layouts) -> None:
    estimator, count = _estimator(layouts), len(layouts.stretch.pieces)
    whole = find_route(estimator, Constraints(ROOMY, max_segments=1), 0, count)
    limit = whole.segments[0].prove_bytes - 1
    constraints = Constraints((WorkerClass(2, limit, 9),))
    route = find_route(estimator, constraints, 0, count)
    assert len(route.segments) > 1
    assert max(segment.prove_bytes for segment in route.segments) <= limit
    with pytest.raises(InvalidInputError) as caught:
        find_route(estimator, replace(constraints, max_segments=1), 0, count)
    assert caught.value.field == f"pieces[0:{count}]"


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"max_gas": 1_000}, "gas to prove on chain"),
        ({"max_boundary_elements": 3}, "elements"),
        ({"workers": (WorkerClass(2, 1 << 20, 9),)}, "MiB to prove"),
    ],
)
def test_refusals__no_piece_fits__says_what_forbids_it(layouts: Layouts, limit: dict[str, object], said: str) -> None:
    constraints = replace(Constraints(ROOMY), **limit)  # type: ignore[arg-type]
    found = refusals(_estimator(layouts), constraints)
    assert len(found) == len(layouts.stretch.pieces)
    assert all(said in reason for reason in found.values())


def test_rows__longer_run__is_what_its_settings_say(layouts: Layouts) -> None:
    estimator, count = _estimator(layouts), len(layouts.stretch.pieces)
    whole = find_route(estimator, Constraints(ROOMY, max_segments=1), 0, count)
    _, agreed = estimator.settle(whole.segments)
    settled = find_route(estimator, Constraints(ROOMY, max_segments=1), 0, count)
    assert agreed or abs(settled.segments[0].rows - whole.segments[0].rows) <= 0.1 * whole.segments[0].rows


def test_settle__public_links__learns_the_rows_that_were_not_probed(layouts: Layouts) -> None:
    estimator, count = _estimator(layouts), len(layouts.stretch.pieces)
    constraints = Constraints(ROOMY, kinds=(LinkKind.PUBLIC,), slack=0.0)
    found = [estimator.settle(find_route(estimator, constraints, 0, count).segments)[1] for _ in range(8)]
    assert not found[0]
    assert found[-1]

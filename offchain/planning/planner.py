"""Chooses where to cut a line of pieces, and how to link the segments, so that the given workers are done soonest.

Dynamic programming over the line. A state is all that the rest of the line can notice of what lies before it: the
boundary reached, the scale there, how it is linked, and the log-rows where that link is a KZG commitment, which opens
for both neighbours only if they are of one size. Of the ways into a state those are kept that no other way beats in
every respect: longest proof, sum of proofs, gas, number of segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from offchain.errors import InvalidInputError
from offchain.planning.costs import MAX_VERIFIER_BYTES
from offchain.planning.estimates import Estimator, SegmentEstimate
from offchain.planning.workers import Load, WorkerClass, schedule
from offchain.protocol.links import LinkKind

MAX_SEGMENTS = 16
SLACK = 0.05
EXECUTE_SECONDS_PER_ROW = 2.5e-6
EXECUTE_SECONDS = 0.02


@dataclass(frozen=True)
class Constraints:
    """What a plan has to respect.

    Attributes:
        workers: who proves.
        kinds: the links that may be used between segments.
        end_kinds: how the model's input and output are exposed.
        max_gas: of the transaction that proves one segment; ``Verifier`` forwards 4,000,000 to a verifier contract.
        max_boundary_elements: between segments.
        max_segments: of the plan.
        slack: a plan may be later by this share of the soonest, if it takes fewer segments or less gas.
        must_deploy: whether each verifier has to fit into a contract of its own.
    """

    workers: tuple[WorkerClass, ...]
    kinds: tuple[LinkKind, ...] = (LinkKind.KZG, LinkKind.POSEIDON, LinkKind.PUBLIC)
    end_kinds: tuple[LinkKind, LinkKind] = (LinkKind.KZG, LinkKind.PUBLIC)
    max_gas: int = 4_000_000
    max_boundary_elements: int = 65_536
    max_segments: int = MAX_SEGMENTS
    slack: float = SLACK
    must_deploy: bool = True

    @property
    def memory_bytes(self) -> int:
        """What the largest worker has."""
        return max(group.memory_bytes for group in self.workers)


@dataclass(frozen=True)
class Route:
    """A chain of segments over a whole range, and its figures.

    Attributes:
        segments: in order.
        longest_seconds, total_seconds: of its proofs.
        gas: of all its proofs.
    """

    segments: tuple[SegmentEstimate, ...] = ()
    longest_seconds: float = 0.0
    total_seconds: float = 0.0
    gas: int = 0

    def extended(self, segment: SegmentEstimate) -> Route:
        """The same with one more segment."""
        return Route(
            (*self.segments, segment),
            max(self.longest_seconds, segment.prove_seconds),
            self.total_seconds + segment.prove_seconds,
            self.gas + segment.gas,
        )

    @property
    def execute_seconds(self) -> float:
        """How long executing all segments one after another takes."""
        return sum(EXECUTE_SECONDS + EXECUTE_SECONDS_PER_ROW * segment.rows for segment in self.segments)


def prove_makespan(route: Route, workers: Sequence[WorkerClass], measured_cores: int) -> float | None:
    """When the last proof is done if all begin at once; None if one fits no worker."""
    loads = [Load(segment.prove_seconds, segment.prove_bytes) for segment in route.segments]
    return schedule(loads, workers, measured_cores)


@dataclass(frozen=True)
class _State:
    at: int
    scale: int
    kind: LinkKind
    log_rows: int


def refusals(estimator: Estimator, constraints: Constraints) -> dict[int, str]:
    """Say of each piece that cannot be proved even as a segment of its own what forbids it."""
    found = {}
    for at in range(len(estimator.layouts.stretch.pieces)):
        options = list(_segments(estimator, constraints, at, at + 1, None, (0, len(estimator.layouts.stretch.pieces))))
        if not any(not _problem(segment, constraints) for segment in options):
            problems = [_problem(segment, constraints) for segment in options]
            found[at] = problems[0] if problems else estimator.refusal(at, at + 1)
    return found


def find_route(estimator: Estimator, constraints: Constraints, start: int, stop: int) -> Route:
    """Find the best chain of segments over ``pieces[start:stop]``.

    Raises:
        InvalidInputError: there is none under these constraints.
    """
    routes = _extend_all(estimator, constraints, start, stop, prune=True)
    return choose(routes, constraints, estimator.machine.cores, (start, stop))


def enumerate_routes(estimator: Estimator, constraints: Constraints, start: int, stop: int) -> list[Route]:
    """List every chain of segments over ``pieces[start:stop]``. For small models: there are exponentially many."""
    return _extend_all(estimator, constraints, start, stop, prune=False)


def choose(routes: Sequence[Route], constraints: Constraints, cores: int, span: tuple[int, int]) -> Route:
    """Take the soonest of several routes, or one that is nearly as soon and takes fewer segments or less gas.

    Raises:
        InvalidInputError: there is none.
    """
    timed = []
    for route in routes:
        makespan = prove_makespan(route, constraints.workers, cores)
        if makespan is not None:
            timed.append((makespan, route))
    if not timed:
        mend = "allow more memory, log-rows, gas or boundary elements, or another kind of link"
        raise InvalidInputError(f"pieces[{span[0]}:{span[1]}]", "no chain of segments meets the constraints", mend)
    least = min(makespan for makespan, _ in timed)
    near = [(makespan, route) for makespan, route in timed if makespan <= least * (1.0 + constraints.slack)]
    return min(near, key=lambda entry: (entry[1].gas, entry[0], entry[1].total_seconds))[1]


def _extend_all(estimator: Estimator, constraints: Constraints, start: int, stop: int, *, prune: bool) -> list[Route]:
    scale = estimator.first_scale
    reached: list[dict[_State, list[Route]]] = [{} for _ in range(stop + 1)]
    reached[start][_State(start, scale, constraints.end_kinds[0], 0)] = [Route()]
    for at in range(start, stop):
        for state, routes in reached[at].items():
            for end in range(at + 1, stop + 1):
                for segment in _segments(estimator, constraints, at, end, state, (start, stop)):
                    if _problem(segment, constraints):
                        continue
                    target = reached[end].setdefault(_state_behind(segment), [])
                    for route in routes:
                        if len(route.segments) < constraints.max_segments:
                            _add(target, route.extended(segment), prune)
    return [route for routes in reached[stop].values() for route in routes]


def _state_behind(segment: SegmentEstimate) -> _State:
    circuit = segment.circuit
    tied = circuit.log_rows if circuit.output_kind is LinkKind.KZG else 0
    return _State(circuit.stop, circuit.output_scale, circuit.output_kind, tied)


def _segments(
    estimator: Estimator, constraints: Constraints, start: int, stop: int, state: _State | None, span: tuple[int, int]
) -> Iterator[SegmentEstimate]:
    last = stop == span[1]
    outputs = (constraints.end_kinds[1],) if last else constraints.kinds
    if state is not None:
        inputs: tuple[LinkKind, ...] = (state.kind,)
    else:
        inputs = (constraints.end_kinds[0],) if start == span[0] else constraints.kinds
    scale = estimator.first_scale if state is None else state.scale
    for input_kind in inputs:
        for output_kind in outputs:
            for segment in estimator.circuits(start, stop, scale, (input_kind, output_kind)):
                tied = state is not None and state.log_rows
                if tied and segment.circuit.log_rows != tied:
                    continue
                yield segment


def _problem(segment: SegmentEstimate, constraints: Constraints) -> str:
    """Say which constraint a segment breaks."""
    if segment.prove_bytes > constraints.memory_bytes:
        return f"needs {segment.prove_bytes / 2**20:,.0f} MiB to prove"
    if segment.gas > constraints.max_gas:
        return f"needs {segment.gas:,} gas to prove on chain"
    if constraints.must_deploy and segment.verifier_bytes > MAX_VERIFIER_BYTES:
        return f"its verifier has about {segment.verifier_bytes:,} bytes, and a contract {MAX_VERIFIER_BYTES:,} at most"
    if max(segment.input_elements, segment.boundary_elements) > constraints.max_boundary_elements:
        return f"a boundary of {max(segment.input_elements, segment.boundary_elements):,} elements"
    return ""


def _add(routes: list[Route], candidate: Route, prune: bool) -> None:
    if prune:
        if any(_beats(route, candidate) for route in routes):
            return
        routes[:] = [route for route in routes if not _beats(candidate, route)]
    routes.append(candidate)


def _beats(left: Route, right: Route) -> bool:
    return (
        left.longest_seconds <= right.longest_seconds
        and left.total_seconds <= right.total_seconds
        and left.gas <= right.gas
        and len(left.segments) <= len(right.segments)
    )


def check_route(route: Route) -> None:
    """Assert what every route must satisfy: neighbours agree on scale and link, and KZG links on log-rows."""
    for left, right in pairwise(route.segments):
        first, second = left.circuit, right.circuit
        assert first.stop == second.start
        assert first.output_scale == second.input_scale
        assert first.output_kind is second.input_kind
        assert first.output_kind is not LinkKind.KZG or first.log_rows == second.log_rows

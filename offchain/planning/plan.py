"""Plans a whole model: what of it can be proved, cut where, at what cost; and what it cost once it was run."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.planning.accuracy import Accuracy, check_range, measure_accuracy
from offchain.planning.costs import CostModel
from offchain.planning.estimates import Estimator, SegmentEstimate
from offchain.planning.layouts import Layouts
from offchain.planning.pieces import Stretch, Unprovable, survey_model
from offchain.planning.planner import Constraints, Route, check_route, find_route, prove_makespan, refusals
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import FixedPoint
from offchain.tuning.layout import HEADROOM_BITS

MAX_ROUNDS = 12
HEADROOM_STEPS = (HEADROOM_BITS, 15, 18, 22)
FIXED_POINTS = (FixedPoint(7, 7, False), FixedPoint(7, 8, False), FixedPoint(7, 10, False))

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Alternative:
    """The best plan of at most so many segments.

    Attributes:
        segments: how many it has.
        prove_seconds: until its last proof is done; None if there is none.
        gas: of all its proofs.
    """

    segments: int
    prove_seconds: float | None
    gas: int


@dataclass(frozen=True)
class Measured:
    """What proving one segment took."""

    prove_seconds: float
    prove_bytes: int


@dataclass(frozen=True)
class Compared:
    """A segment's predicted and measured figures.

    Attributes:
        seconds_ratio, bytes_ratio: measured over predicted.
    """

    predicted: SegmentEstimate
    measured: Measured

    @property
    def seconds_ratio(self) -> float:
        """Measured time over predicted time."""
        return self.measured.prove_seconds / self.predicted.prove_seconds

    @property
    def bytes_ratio(self) -> float:
        """Measured memory over predicted memory."""
        return self.measured.prove_bytes / self.predicted.prove_bytes

    def within(self, share: float) -> bool:
        """Whether both are off by no more than a share of the prediction."""
        return max(abs(self.seconds_ratio - 1.0), abs(self.bytes_ratio - 1.0)) <= share


@dataclass(frozen=True)
class Plan:
    """How one stretch is to be proved.

    Attributes:
        stretch: of which model.
        start, stop: which of its pieces the plan covers.
        route: the segments, with their predicted figures.
        segments, settings: an ONNX file and a settings file for each.
        prove_seconds: until the last proof is done, all begun at once.
        fixed_point: how numbers are held.
        alternatives: the best plans of fewer segments.
        accuracy: None where no samples were given, or the plan is not of the whole model.
    """

    stretch: Stretch
    start: int
    stop: int
    route: Route
    segments: tuple[bytes, ...]
    settings: tuple[bytes, ...]
    prove_seconds: float
    fixed_point: FixedPoint
    alternatives: tuple[Alternative, ...]
    accuracy: Accuracy | None = None

    @property
    def is_whole(self) -> bool:
        """Whether it covers the whole model."""
        return self.stretch.whole and (self.start, self.stop) == (0, len(self.stretch.pieces))

    @property
    def critical_seconds(self) -> float:
        """From the input to the last proof."""
        return self.route.execute_seconds + self.prove_seconds

    @property
    def peak_bytes(self) -> int:
        """Of the largest proof."""
        return max(segment.prove_bytes for segment in self.route.segments)

    @property
    def cuts(self) -> tuple[str, ...]:
        """The tensors at which the model is cut."""
        return tuple(self.stretch.boundaries[segment.circuit.stop].name for segment in self.route.segments[:-1])

    def compare(self, measured: Sequence[Measured]) -> tuple[Compared, ...]:
        """Put what proving took beside what was predicted, segment by segment."""
        return tuple(Compared(*pair) for pair in zip(self.route.segments, measured, strict=True))


@dataclass(frozen=True)
class ModelPlan:
    """What can be proved of a model and how, and what cannot.

    Attributes:
        plans: one per stretch, in order.
        unprovable: by name, with the reason.
        digest: SHA-256 of the ONNX file, hex.
    """

    plans: tuple[Plan, ...]
    unprovable: tuple[Unprovable, ...]
    constraints: Constraints
    digest: str


@dataclass(frozen=True)
class Bound:
    """How far a plan may be off the model in floating point, on held-out samples.

    Attributes:
        max_drift: relative to the largest output.
        max_disagreement: share of samples that fall into another class.
    """

    max_drift: float = 0.05
    max_disagreement: float = 0.02


@dataclass(frozen=True)
class _Task:
    prover: EzklProver
    machine: CostModel
    constraints: Constraints
    max_log_rows: int
    scratch: Path
    report: Progress


def plan_model(
    content: bytes,
    prover: EzklProver,
    machine: CostModel,
    constraints: Constraints,
    *,
    calibration: Samples | None = None,
    heldout: Samples | None = None,
    bound: Bound | None = None,
    max_log_rows: int = 18,
    report: Progress = lambda step: None,
) -> ModelPlan:
    """Plan how a model is to be proved. Nothing is proved meanwhile; with samples, circuits are executed.

    Args:
        content: an ONNX file; parsed only in a killable child process.
        calibration: inputs whose values every circuit has to hold.
        heldout: inputs on which accuracy is bounded; without them it is not looked at.

    Raises:
        InvalidInputError: nothing of the model can be proved under the constraints, or not so accurately.
    """
    survey = survey_model(content)
    plans: list[Plan] = []
    unprovable = list(survey.unprovable)
    with tempfile.TemporaryDirectory() as directory:
        for number, stretch in enumerate((*survey.stretches, *survey.wider)):
            scratch = Path(directory) / str(number)
            scratch.mkdir()
            task = _Task(prover, machine, constraints, max_log_rows, scratch, report)
            if not stretch.groups:
                found, refused = _plan_stretch(task, stretch, calibration, heldout, bound or Bound())
                plans += found
                unprovable += refused
                continue
            try:
                [wider], refused = _plan_stretch(task, stretch, calibration, heldout, bound or Bound())
            except (InvalidInputError, ValueError):  # it is none, or of several parts
                continue
            if not refused and wider.is_whole and _pays(wider, plans, constraints.slack):
                plans, unprovable = [wider], []
    if not plans:
        reasons = "; ".join(f"{entry.name}: {entry.reason}" for entry in unprovable[:4])
        raise InvalidInputError("model", f"no part of it can be proved ({reasons})", "allow more memory or log-rows")
    return ModelPlan(tuple(plans), tuple(unprovable), constraints, hashlib.sha256(content).hexdigest())


def _pays(wider: Plan, plans: Sequence[Plan], slack: float) -> bool:
    """Whether cutting layers by channels proves the whole, where else it cannot be, or proves it sooner."""
    if len(plans) != 1 or not plans[0].is_whole:
        return True
    return wider.prove_seconds < plans[0].prove_seconds * (1.0 - slack)


def _plan_stretch(
    task: _Task, stretch: Stretch, calibration: Samples | None, heldout: Samples | None, bound: Bound
) -> tuple[list[Plan], list[Unprovable]]:
    problem = ""
    for fixed_point in FIXED_POINTS:
        task.report(f"laying out at scales {fixed_point.input_scale}/{fixed_point.param_scale}")
        layouts = Layouts(task.prover, stretch, fixed_point, task.constraints.end_kinds, task.scratch)
        layouts.survey()
        for headroom in HEADROOM_STEPS:
            estimator = Estimator(layouts, task.machine, max_log_rows=task.max_log_rows, headroom_bits=headroom)
            refused = refusals(estimator, task.constraints)
            unprovable = [_name(stretch, at, reason) for at, reason in refused.items()]
            spans = _spans(len(stretch.pieces), refused)
            plans = [_plan_span(task, estimator, fixed_point, *span) for span in spans]
            if not (plans and plans[0].is_whole) or (calibration is None and heldout is None):
                return plans, unprovable
            task.report("executing in fixed point")
            if calibration is not None and not check_range(task.prover, plans[0], calibration.inputs, task.scratch):
                continue
            if heldout is None:
                return plans, unprovable
            accuracy = measure_accuracy(task.prover, plans[0], heldout, task.scratch)
            if accuracy is None:
                continue
            if accuracy.drift <= bound.max_drift and accuracy.agreement >= 1.0 - bound.max_disagreement:
                return [replace(plans[0], accuracy=accuracy)], unprovable
            problem = f"drift {accuracy.drift:.3g}, agreement {accuracy.agreement:.3f} at {fixed_point}"
            break
    raise InvalidInputError("heldout", problem or "values leave every range tried", "allow more drift or log-rows")


def _plan_span(task: _Task, estimator: Estimator, fixed_point: FixedPoint, start: int, stop: int) -> Plan:
    """Find a route whose predictions its settings documents bear out: each round learns from the last."""
    task.report(f"planning pieces {start} to {stop}")
    for _ in range(MAX_ROUNDS):
        route = find_route(estimator, task.constraints, start, stop)
        settings, agreed = estimator.settle(route.segments)
        if agreed:
            break
    else:
        problem = f"after {MAX_ROUNDS} rounds the settings still differ from what was predicted"
        raise InvalidInputError("model", problem, "plan with fewer kinds of links")
    check_route(route)
    makespan = prove_makespan(route, task.constraints.workers, task.machine.cores)
    assert makespan is not None
    return Plan(
        stretch=estimator.layouts.stretch,
        start=start,
        stop=stop,
        route=route,
        segments=tuple(estimator.layouts.segment(at.circuit.start, at.circuit.stop) for at in route.segments),
        settings=settings,
        prove_seconds=makespan,
        fixed_point=fixed_point,
        alternatives=_alternatives(task, estimator, start, stop, len(route.segments)),
    )


def _alternatives(task: _Task, estimator: Estimator, start: int, stop: int, most: int) -> tuple[Alternative, ...]:
    found = []
    for count in range(1, most):
        fewer = replace(task.constraints, max_segments=count, slack=0.0)
        try:
            route = find_route(estimator, fewer, start, stop)
        except InvalidInputError:
            found.append(Alternative(count, None, 0))
            continue
        makespan = prove_makespan(route, fewer.workers, task.machine.cores)
        if len(route.segments) == count:
            found.append(Alternative(count, makespan, route.gas))
    return tuple(found)


def _spans(count: int, refused: dict[int, str]) -> list[tuple[int, int]]:
    spans, start = [], 0
    for at in range(count + 1):
        if at == count or at in refused:
            if at > start:
                spans.append((start, at))
            start = at + 1
    return spans


def _name(stretch: Stretch, at: int, reason: str) -> Unprovable:
    before, behind = stretch.boundaries[at : at + 2]
    return Unprovable(f"{before.name} to {behind.name}", "-".join(stretch.pieces[at].operators), reason)

"""The thorough choice: the least predicted proving time that keeps accuracy within a bound on held-out data.

Options are taken in order of what they are predicted to cost. Settings are cheap to generate, witnesses are dearer,
and no proof is made. The range of values comes from the calibration set, and accuracy from the held-out set only.
"""

from __future__ import annotations

import heapq
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.planning.costs import MAX_VERIFIER_BYTES, verifier_bytes
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import CircuitRefused, Drift, FixedPoint
from offchain.tuning.bound import AccuracyBound, Measured, compare
from offchain.tuning.chain import Chain, Layout, Plan, Reals, flatten_samples, input_bound, wide_samples
from offchain.tuning.exactness import ambiguities_of
from offchain.tuning.layout import Survey, lay_out
from offchain.tuning.machine import MachineModel
from offchain.tuning.report import Option, Price, TuningReport
from offchain.tuning.tune import describe_tuning, find_plan

MAX_HELDOUT_SAMPLES = 256
FIRST = FixedPoint(7, 7, rescales=False)
FIXED_POINTS = (
    FIRST,
    *(FixedPoint(scale, width, rescales=False) for width in (7, 6, 5, 4, 8, 10) for scale in (7, 5)),
    *(FixedPoint(scale, scale, rescales=True) for scale in (7, 6, 5, 8, 10)),
)
WIDTHS = ((2, 1), (2, 2), (2, 4), (4, 1), (1, 1))
"""Pairs of inner columns and column blocks."""
CHECKED_WIDTH = (1, 1)
"""Of circuits that check products: wider ones need a verifier that is larger than a chain takes."""


@dataclass(frozen=True)
class _Trial:
    """An option that may still be taken; with a plan once its range was seen to hold the wide inputs."""

    option: Option
    plan: Plan | None = None

    @property
    def cost(self) -> float:
        return self.option.prove_seconds or 0.0


class _Rejected(Exception):
    """An option that will not be taken."""

    def __init__(self, option: Option, reason: str) -> None:
        super().__init__(reason)
        self.option = replace(option, reason=reason)


@dataclass
class _Search:
    """The state of one call of :func:`autotune`."""

    chain: Chain
    machine: MachineModel
    bound: AccuracyBound
    wide: Reals
    heldout: Reals
    within: NDArray[np.bool_]
    labels: NDArray[np.int64] | None
    reference: Reals
    max_log_rows: int
    max_bytes: int | None
    max_verifier_bytes: int | None
    deadline: float
    needs_exact: bool
    rejected: list[Option] = field(default_factory=list)
    surveys: dict[tuple[FixedPoint, int, bool], Survey | str] = field(default_factory=dict)
    measured: dict[FixedPoint, Measured] = field(default_factory=dict)
    ambiguities: dict[FixedPoint, tuple[tuple[str, ...], ...]] = field(default_factory=dict)

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.deadline


def autotune(
    prover: EzklProver,
    segments: Sequence[bytes],
    calibration: NDArray[np.float32],
    heldout: Samples,
    *,
    bound: AccuracyBound,
    machine: MachineModel,
    kinds: Sequence[LinkKind] | None = None,
    seconds: float = 120.0,
    max_bytes: int | None = None,
    max_verifier_bytes: int | None = MAX_VERIFIER_BYTES,
    max_log_rows: int = 17,
    exact: bool = True,
    fixed_points: Sequence[FixedPoint] = FIXED_POINTS,
    widths: Sequence[tuple[int, int]] = WIDTHS,
) -> TuningReport:
    """Choose settings for a chain of segments.

    Args:
        segments: ONNX files in order of execution.
        calibration: (n, \\*shape) float32, typical inputs: they decide the range of values, and nothing else.
        heldout: other inputs, on which ``bound`` must hold.
        machine: what proving costs.
        kinds: link kind of each boundary; KZG everywhere and a public output if None.
        seconds: how long to search. The step under way is ended, so it may take a little longer.
        max_bytes: refuse what is predicted to take more memory to prove one segment.
        max_verifier_bytes: refuse what is predicted to need a larger verifier contract; None where nothing is
            verified on chain.
        exact: whether every segment must have one output that proves.
        fixed_points, widths: what to try; the first of each first.

    Raises:
        InvalidInputError: nothing was found within the bound, or the samples do not fit.
        CircuitRefused: a segment is no model that the project takes.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        chain = Chain(prover, segments, Path(scratch), tuple(kinds or ()))
        samples = flatten_samples(calibration, chain.shapes[0][0])
        kept = flatten_samples(heldout.inputs[:MAX_HELDOUT_SAMPLES], chain.shapes[0][0], "heldout")
        largest = input_bound(samples)
        search = _Search(
            chain=chain,
            machine=machine,
            bound=bound,
            wide=wide_samples(samples, largest),
            heldout=kept,
            within=np.abs(kept).max(axis=1) <= largest,
            labels=None if heldout.labels is None else heldout.labels[:MAX_HELDOUT_SAMPLES],
            reference=chain.float_outputs(kept),
            max_log_rows=max_log_rows,
            max_bytes=max_bytes,
            max_verifier_bytes=max_verifier_bytes,
            deadline=started + seconds,
            needs_exact=exact,
        )
        chosen = _best(search, fixed_points, widths)
        measured, plan = chosen.option.measured, chosen.plan
        assert measured is not None
        assert plan is not None
        size = max(float(np.abs(search.reference).max()), 1e-9)
        drift = Drift(measured.drift * size, measured.drift, 1 - measured.disagreement)
        tuning = describe_tuning(chain, plan, search.ambiguities[plan.fixed_point], largest, drift, ())
        shapes = _survey(search, chosen.option).shapes(plan.layouts)
        return TuningReport(
            tuning=tuning,
            bound=bound,
            prices=tuple(
                Price(
                    shape,
                    machine.prove_seconds(shape),
                    machine.prove_bytes(shape),
                    machine.setup_seconds(shape),
                    machine.key_bytes(shape),
                )
                for shape in shapes
            ),
            chosen=chosen.option,
            rejected=tuple(search.rejected),
            machine=machine.describe(),
            seconds=time.monotonic() - started,
            is_complete=not search.is_over,
        )


def _best(search: _Search, fixed_points: Sequence[FixedPoint], widths: Sequence[tuple[int, int]]) -> _Trial:
    """Return the cheapest option within the bound; when time is up, the cheapest of those that were tried."""
    options = _options(search, fixed_points, widths)
    # The first one is followed to its end, so that there is something to return; the others in order of cost.
    best = _follow(search, next(options, None))
    numbers = itertools.count()
    queue = [(trial.cost, next(numbers), trial) for trial in options]
    heapq.heapify(queue)
    while queue:
        cost, _, trial = heapq.heappop(queue)
        if best is not None and cost >= best.cost:
            _reject(search, trial.option, "predicted to be no cheaper")
        elif search.is_over:
            _reject(search, trial.option, "not tried: time was up")
        else:
            found = _advance(search, trial)
            if found is not None and found.option.measured is None:
                heapq.heappush(queue, (found.cost, next(numbers), found))
            elif found is not None:
                if best is not None:
                    _reject(search, best.option, "a cheaper one keeps the bound too")
                best = found
    if best is None:
        raise InvalidInputError("bound", _tell(search), "allow more, cut the model elsewhere, or search longer")
    return best


def _follow(search: _Search, trial: _Trial | None) -> _Trial | None:
    while trial is not None and trial.option.measured is None:
        trial = _advance(search, trial)
    return trial


def _advance(search: _Search, trial: _Trial) -> _Trial | None:
    """Take an option one step further: to a plan in range, or from there to its accuracy. None where it fails."""
    try:
        return _measure(search, trial) if trial.plan is not None else _in_range(search, trial.option)
    except _Rejected as error:
        search.rejected.append(error.option)
    except CircuitRefused as error:
        _reject(search, trial.option, str(error))
    return None


def _options(
    search: _Search, fixed_points: Sequence[FixedPoint], widths: Sequence[tuple[int, int]]
) -> Iterator[_Trial]:
    ways = [(*width, False) for width in widths] + [(*CHECKED_WIDTH, True)]
    for (inner_columns, column_blocks, checks), fixed_point in itertools.product(ways, dict.fromkeys(fixed_points)):
        option = Option(fixed_point, inner_columns, column_blocks, checks, (), None, None, None, "")
        if search.is_over:
            _reject(search, option, "not tried: time was up")
            continue
        try:
            survey = _survey(search, option)
            if checks and not survey.has_products:
                continue
            layouts = lay_out(survey, survey.floors(), search.max_log_rows, column_blocks)
        except CircuitRefused as error:
            _reject(search, option, str(error))
            continue
        if column_blocks > 1 and all(shape.column_blocks == 1 for shape in survey.shapes(layouts)):
            continue  # the same as without folding
        option = _priced(search, option, survey, layouts)
        problem = _too_large(search, option, survey)
        if problem:
            _reject(search, option, problem)
        else:
            yield _Trial(option)


def _too_large(search: _Search, option: Option, survey: Survey) -> str:
    if search.max_bytes is not None and (option.prove_bytes or 0) > search.max_bytes:
        return f"predicted to take more than {search.max_bytes / 1e6:.0f} MB"
    if search.max_verifier_bytes is not None:
        largest = max(map(verifier_bytes, survey.shapes(option.layouts)))
        if largest > search.max_verifier_bytes:
            return f"verifier of about {largest} bytes, over {search.max_verifier_bytes}"
    return ""


def _priced(search: _Search, option: Option, survey: Survey, layouts: tuple[Layout, ...]) -> Option:
    shapes = survey.shapes(layouts)
    return replace(
        option,
        layouts=layouts,
        prove_seconds=sum(map(search.machine.prove_seconds, shapes)),
        prove_bytes=max(map(search.machine.prove_bytes, shapes)),
    )


def _survey(search: _Search, option: Option) -> Survey:
    key = (option.fixed_point, option.inner_columns, option.checks_products)
    if key not in search.surveys:
        try:
            search.surveys[key] = Survey(search.chain, *key)
        except CircuitRefused as error:
            search.surveys[key] = str(error)
    found = search.surveys[key]
    if isinstance(found, str):
        raise CircuitRefused("settings", found, "try other scales")
    return found


def _in_range(search: _Search, option: Option) -> _Trial:
    """Find the layout under which the wide inputs are in range, and price it anew."""
    _check_accuracy(search, option)
    survey = _survey(search, option)
    plan = find_plan(survey, search.wide, search.max_log_rows, option.column_blocks, [])
    option = _priced(search, option, survey, plan.layouts)
    problem = _too_large(search, option, survey)
    if problem:
        raise _Rejected(option, problem)
    return _Trial(option, plan)


def _measure(search: _Search, trial: _Trial) -> _Trial:
    """Find an option's ambiguities and its accuracy. Both depend on the fixed point only, not on the layout."""
    option, plan, chain = trial.option, trial.plan, search.chain
    assert plan is not None
    if option.fixed_point not in search.ambiguities:
        search.ambiguities[option.fixed_point] = ambiguities_of(chain.prover, chain.segments, plan.settings)
    doubts = [doubt for segment in search.ambiguities[option.fixed_point] for doubt in segment]
    if search.needs_exact and doubts:
        raise _Rejected(option, f"ambiguous: {doubts[0]}")
    if option.fixed_point not in search.measured:
        inputs = search.heldout[search.within]
        outputs = chain.fixed_outputs(plan, inputs) if len(inputs) else search.reference[:0]
        search.measured[option.fixed_point] = compare(outputs, search.reference, search.within, search.labels)
    return replace(trial, option=_check_accuracy(search, option))


def _check_accuracy(search: _Search, option: Option) -> Option:
    measured = search.measured.get(option.fixed_point)
    if measured is None:
        return option
    option = replace(option, measured=measured)
    problem = search.bound.check(measured)
    if problem:
        raise _Rejected(option, problem)
    return option


def _reject(search: _Search, option: Option, reason: str) -> None:
    search.rejected.append(replace(option, reason=reason))


def _tell(search: _Search) -> str:
    reasons = dict.fromkeys(f"{option.fixed_point}: {option.reason}" for option in search.rejected)
    return "nothing keeps it: " + "; ".join(itertools.islice(reasons, 6))

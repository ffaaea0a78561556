"""Chooses settings for a chain of segments.

Time and memory of a proof go with ``2 ** log_rows``, and by default the decomposition table alone forces log-rows 15.
So the search goes upwards from small circuits. For each log-rows the table may hold half the rows, and each leg of a
decomposition adds that many bits of range: the fewest legs that hold the calibration inputs, doubled, are taken.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offchain.errors import InvalidInputError
from offchain.protocol.field import dequantise, quantise
from offchain.protocol.links import LinkKind
from offchain.proving.boundary import check_ends
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Candidate, CircuitRefused, Drift, TunedSegment, Tuning
from offchain.proving.settings import RunParameters, SettingsSummary, read_settings

MIN_LOG_ROWS = 8
RESERVED_ROWS = 8
"""Rows of a column that hold no values: blinding factors and what the tool sets aside beside them."""
MIN_RANGE_BITS = 26
"""Least range of a decomposition. A product of two numbers at scale 7 has scale 14, which leaves ±2^12 to values."""
MAX_RANGE_BITS = 62
LEGS = (2, 3, 4, 5, 6, 7)
WIDE_FACTOR = 2.0
MAX_WIDE_SAMPLES = 8
MAX_DRIFT_SAMPLES = 64


@dataclass(frozen=True)
class Ends:
    """Both ends of a segment before it is built; see :class:`offchain.proving.boundary.SegmentEnds`."""

    input_kind: LinkKind
    output_kind: LinkKind
    input_scale: int
    output_scale: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


@dataclass
class _Search:
    """The state of one call of :func:`tune`."""

    prover: EzklProver
    directory: Path
    onnx: list[Path]
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]]
    kinds: tuple[LinkKind, ...]
    max_log_rows: int
    column_blocks: int
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        return [f"segment[{index}]" for index in range(len(self.onnx))]


@dataclass(frozen=True)
class _Floor:
    """What a segment is known to need at least."""

    log_rows: int
    bits: int


@dataclass(frozen=True)
class _Plan:
    """Settings of several segments."""

    settings: tuple[bytes, ...]
    summaries: tuple[SettingsSummary, ...]

    @property
    def log_rows(self) -> tuple[int, ...]:
        return tuple(summary.log_rows for summary in self.summaries)

    @property
    def legs(self) -> tuple[int, ...]:
        return tuple(summary.decomposition_legs for summary in self.summaries)


def tune(
    prover: EzklProver,
    segments: Sequence[bytes],
    calibration: NDArray[np.float32],
    *,
    kinds: Sequence[LinkKind] | None = None,
    max_log_rows: int = 17,
    max_drift: float = 0.05,
    scales: Sequence[int] = (7, 8, 10),
    column_blocks: int = 1,
) -> Tuning:
    """Choose the cheapest settings that stay in range and accurate; see :meth:`Prover.tune`."""
    kinds = _check_kinds(len(segments), kinds)
    with tempfile.TemporaryDirectory() as scratch:
        search = _open_search(prover, Path(scratch), segments, kinds, max_log_rows, column_blocks)
        samples = _check_calibration(calibration, search.shapes[0][0])
        input_bound = WIDE_FACTOR * float(np.abs(samples).max())
        if input_bound == 0.0:
            raise InvalidInputError("calibration", "every value is zero", "give typical inputs")
        wide = _wide_samples(samples, input_bound)
        reference = _float_outputs(search, samples[:MAX_DRIFT_SAMPLES])
        for scale in scales:
            plan = _find_plan(search, scale, wide)
            drift = _measure_drift(search, plan, scale, samples[:MAX_DRIFT_SAMPLES], reference)
            too_far = drift.relative > max_drift
            refusal = f"drift {drift.relative:.4g} over {max_drift:g}" if too_far else ""
            search.candidates.append(Candidate(scale, plan.log_rows, plan.legs, refusal))
            if not too_far:
                return Tuning(
                    segments=tuple(map(_describe_choice, plan.settings, plan.summaries)),
                    kinds=kinds,
                    scale=scale,
                    input_bound=input_bound,
                    drift=drift,
                    candidates=tuple(search.candidates),
                )
    tried = ", ".join(f"scale {tried.scale}: {tried.refusal}" for tried in search.candidates if tried.refusal)
    raise InvalidInputError("max_drift", f"not met ({tried})", "allow more drift, or give larger scales")


def usable_rows(log_rows: int) -> int:
    """Return how many rows of a column can hold values."""
    return (1 << log_rows) - RESERVED_ROWS


def _check_kinds(count: int, kinds: Sequence[LinkKind] | None) -> tuple[LinkKind, ...]:
    if count == 0:
        raise InvalidInputError("segments", "there are none", "give at least one")
    chosen = tuple(kinds) if kinds is not None else (*[LinkKind.KZG] * count, LinkKind.PUBLIC)
    if len(chosen) != count + 1:
        raise InvalidInputError("kinds", f"{len(chosen)} for {count + 1} boundaries", "give one per boundary")
    if LinkKind.NONE in chosen:
        raise InvalidInputError(f"kinds[{chosen.index(LinkKind.NONE)}]", "not a link", "choose KZG, POSEIDON or PUBLIC")
    return chosen


def _open_search(
    prover: EzklProver,
    directory: Path,
    segments: Sequence[bytes],
    kinds: tuple[LinkKind, ...],
    max_log_rows: int,
    column_blocks: int,
) -> _Search:
    paths = []
    for index, content in enumerate(segments):
        paths.append(directory / f"{index}.onnx")
        paths[-1].write_bytes(content)
    search = _Search(prover, directory, paths, [], kinds, max_log_rows, column_blocks)
    payload = {"onnx": [str(path) for path in paths], "names": search.names}
    answer = prover.call("describe", payload, prover.limits.settings_seconds, "model")
    search.shapes += [(tuple(shape["input_shape"]), tuple(shape["output_shape"])) for shape in answer["shapes"]]
    return search


def _check_calibration(calibration: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float64]:
    size = math.prod(shape)
    mend = f"give an array of shape (n, {', '.join(map(str, shape[1:]))})"
    if calibration.ndim < 1 or len(calibration) == 0 or calibration.size != len(calibration) * size:
        raise InvalidInputError("calibration", f"has shape {calibration.shape}", mend)
    samples = np.asarray(calibration, dtype=np.float64).reshape(len(calibration), size)
    if not np.isfinite(samples).all():
        raise InvalidInputError("calibration", "holds a value that is not finite", "remove it")
    return samples


def _wide_samples(samples: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """Return inputs at the edge: the largest ones doubled, and corners of the accepted cube."""
    size = samples.shape[1]
    order = np.argsort(-np.linalg.norm(samples, axis=1))[:MAX_WIDE_SAMPLES]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(4, size))
    corners = np.vstack([np.ones((1, size)), -np.ones((1, size)), np.zeros((1, size)), signs]) * bound
    return np.vstack([samples[order] * WIDE_FACTOR, corners])


def _groups(kinds: tuple[LinkKind, ...]) -> list[list[int]]:
    """Return the runs of segments that KZG links tie to one log-rows."""
    groups: list[list[int]] = [[0]]
    for index in range(1, len(kinds) - 1):
        if kinds[index] is LinkKind.KZG:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _find_plan(search: _Search, scale: int, wide: NDArray[np.float64]) -> _Plan:
    """Return the cheapest plan under which all wide inputs are in range."""
    rows = _rows_by_legs(search, scale)
    floors = [_Floor(MIN_LOG_ROWS, MIN_RANGE_BITS)] * len(search.onnx)
    batch = [quantise(sample, scale) for sample in wide]
    refusal = ""
    while True:
        layout: dict[int, tuple[int, int]] = {}
        for group in _groups(search.kinds):
            layout |= _lay_out(search, group, rows, floors, refusal)
        plan = _generate(search, [(at, _parameters(search, at, scale, *layout[at])) for at in sorted(layout)])
        check_ends(_ends(search, plan))
        failed = _run(search, plan, batch).get("failed")
        if failed is None:
            return plan
        at = failed["segment"]
        refusal = f"a wide input leaves the range ({failed['message']})"
        search.candidates.append(Candidate(scale, plan.log_rows, plan.legs, f"segment[{at}]: {refusal}"))
        floors[at] = _raise_floor(plan.summaries[at])


def _raise_floor(summary: SettingsSummary) -> _Floor:
    bits = _range_bits(summary.log_rows, summary.decomposition_legs)
    if summary.needs_lookups:
        # A lookup's range goes with log-rows, and the failure does not say which range it was.
        return _Floor(summary.log_rows + 1, bits)
    return _Floor(MIN_LOG_ROWS, bits + 1)


def _range_bits(log_rows: int, legs: int) -> int:
    return legs * (log_rows - 1)


def _lay_out(
    search: _Search, group: list[int], rows: dict[tuple[int, int], int], floors: Sequence[_Floor], refusal: str
) -> dict[int, tuple[int, int]]:
    """Return the least common log-rows of a group, and for each segment the fewest legs that fit there."""
    lowest = max(floors[index].log_rows for index in group)
    blame, problem = group[0], refusal
    for log_rows in range(lowest, search.max_log_rows + 1):
        room = usable_rows(log_rows) * search.column_blocks
        chosen = {}
        for index in group:
            ranges = [legs for legs in LEGS if floors[index].bits <= _range_bits(log_rows, legs) <= MAX_RANGE_BITS]
            fitting = [legs for legs in ranges if rows[index, legs] <= room]
            if not fitting:
                blame = index
                if ranges:
                    problem = f"needs {rows[index, ranges[0]]} rows, and log-rows {log_rows} has {room}"
                break
            chosen[index] = (log_rows, fitting[0])
        if len(chosen) == len(group):
            return chosen
    mend = "cut the model into smaller segments, allow more log-rows, or give smaller calibration inputs"
    raise CircuitRefused(f"segment[{blame}]", problem or f"no range fits log-rows {search.max_log_rows}", mend)


def _parameters(search: _Search, index: int, scale: int, log_rows: int, legs: int) -> RunParameters:
    return RunParameters(
        input_kind=search.kinds[index],
        output_kind=search.kinds[index + 1],
        scale=scale,
        log_rows=log_rows,
        decomposition_base=1 << (log_rows - 1),
        decomposition_legs=legs,
        lookup_half_range=(1 << (log_rows - 1)) - RESERVED_ROWS,
    )


def _rows_by_legs(search: _Search, scale: int) -> dict[tuple[int, int], int]:
    """Return the rows of each segment for each number of legs. They do not depend on the base."""
    keys = [(index, legs) for index in range(len(search.onnx)) for legs in LEGS]
    plan = _generate(search, [(index, _parameters(search, index, scale, MIN_LOG_ROWS, legs)) for index, legs in keys])
    return {key: summary.rows for key, summary in zip(keys, plan.summaries, strict=True)}


def _generate(search: _Search, choices: Sequence[tuple[int, RunParameters]]) -> _Plan:
    names = [search.names[index] for index, _ in choices]
    jobs = [
        {"onnx": str(search.onnx[index]), "run_args": parameters.to_run_args(), "name": search.names[index]}
        for index, parameters in choices
    ]
    limit = search.prover.limits.settings_seconds
    answer = search.prover.call("generate_settings", {"jobs": jobs}, limit, "model")
    settings = tuple(text.encode() for text in answer["settings"])
    return _Plan(settings, tuple(read_settings(text, name) for text, name in zip(settings, names, strict=True)))


def _ends(search: _Search, plan: _Plan) -> list[Ends]:
    return [
        Ends(summary.input_kind, summary.output_kind, summary.input_scale, summary.output_scale, *shapes)
        for summary, shapes in zip(plan.summaries, search.shapes, strict=True)
    ]


def _run(search: _Search, plan: _Plan, batch: Sequence[Sequence[int]]) -> dict[str, Any]:
    payload = {
        "onnx": [str(path) for path in search.onnx],
        "settings": [settings.decode() for settings in plan.settings],
        "names": search.names,
        "batch": [list(elements) for elements in batch],
    }
    limits = search.prover.limits
    return search.prover.call("try_chain", payload, limits.build_seconds + limits.witness_seconds, "model")


def _float_outputs(search: _Search, samples: NDArray[np.float64]) -> NDArray[np.float64]:
    payload = {
        "onnx": [str(path) for path in search.onnx],
        "input_shapes": [list(entry) for entry, _ in search.shapes],
        "batch": samples.tolist(),
    }
    answer = search.prover.call("float_outputs", payload, search.prover.limits.witness_seconds, "model")
    return np.asarray(answer["outputs"], dtype=np.float64)


def _measure_drift(
    search: _Search, plan: _Plan, scale: int, samples: NDArray[np.float64], reference: NDArray[np.float64]
) -> Drift:
    answer = _run(search, plan, [quantise(sample, scale) for sample in samples])
    if "failed" in answer:
        failed = answer["failed"]
        raise CircuitRefused(f"segment[{failed['segment']}]", failed["message"], "check the calibration inputs")
    fixed = np.asarray([dequantise(outputs[-1], plan.summaries[-1].output_scale) for outputs in answer["activations"]])
    largest = float(np.abs(fixed - reference).max())
    agreement = float((fixed.argmax(axis=1) == reference.argmax(axis=1)).mean())
    return Drift(largest, largest / max(float(np.abs(reference).max()), 1e-9), agreement)


def _describe_choice(settings: bytes, summary: SettingsSummary) -> TunedSegment:
    return TunedSegment(
        settings=settings,
        log_rows=summary.log_rows,
        rows=summary.rows,
        decomposition_base=summary.decomposition_base,
        decomposition_legs=summary.decomposition_legs,
        column_blocks=math.ceil(summary.rows / usable_rows(summary.log_rows)),
    )

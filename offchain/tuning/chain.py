"""A chain of segments that settings are chosen for: what the tool says of it, cheaply, and what it puts out."""

from __future__ import annotations

import math
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
from offchain.proving.port import CircuitRefused, FixedPoint
from offchain.proving.settings import RunParameters, SettingsSummary, read_settings

RESERVED_ROWS = 8
"""Rows of a column that hold no values: blinding factors and what the tool sets aside beside them."""
WIDE_FACTOR = 2.0
MAX_WIDE_SAMPLES = 8

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Ends:
    """Both ends of a segment before it is built; see :class:`offchain.proving.boundary.SegmentEnds`."""

    input_kind: LinkKind
    output_kind: LinkKind
    input_scale: int
    output_scale: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How one segment is laid out.

    Attributes:
        log_rows: base-2 logarithm of the rows per column.
        legs: digits of a decomposition. Their table fills one column, which is there whatever it holds.
        inner_columns: columns that a dot product is laid out over.
        checks_products: whether products of matrices are claimed, and checked in columns of their own.
    """

    log_rows: int
    legs: int
    inner_columns: int = 2
    checks_products: bool = False

    @property
    def base(self) -> int:
        """How many values a digit has."""
        return decomposition_base(self.log_rows)

    @property
    def range_bits(self) -> int:
        """Bits of the values that a decomposition covers, rounded down."""
        return math.floor(self.legs * math.log2(self.base))


@dataclass(frozen=True)
class Plan:
    """Settings of a whole chain."""

    fixed_point: FixedPoint
    layouts: tuple[Layout, ...]
    settings: tuple[bytes, ...]
    summaries: tuple[SettingsSummary, ...]

    @property
    def log_rows(self) -> tuple[int, ...]:
        """Per segment."""
        return tuple(layout.log_rows for layout in self.layouts)

    @property
    def legs(self) -> tuple[int, ...]:
        """Per segment."""
        return tuple(layout.legs for layout in self.layouts)


@dataclass
class Chain:
    """The segments as files, with their shapes and links.

    Args:
        segments: ONNX files in order of execution.
        directory: where they are written; it must outlive this object.
        kinds: link kind of each boundary, one more than segments; KZG everywhere and a public output if None.

    Raises:
        CircuitRefused: a segment is no model that the project takes.
        InvalidInputError: there are no segments, or not one kind per boundary.
    """

    prover: EzklProver
    segments: Sequence[bytes]
    directory: Path
    kinds: tuple[LinkKind, ...] = ()
    onnx: list[Path] = field(init=False)
    shapes: list[tuple[tuple[int, ...], tuple[int, ...]]] = field(init=False)

    def __post_init__(self) -> None:
        self.kinds = check_kinds(len(self.segments), self.kinds or None)
        self.onnx = [self.directory / f"{index}.onnx" for index in range(len(self.segments))]
        for path, content in zip(self.onnx, self.segments, strict=True):
            path.write_bytes(content)
        payload = {"onnx": [str(path) for path in self.onnx], "names": self.names}
        answer = self.prover.call("describe", payload, self.prover.limits.settings_seconds, "model")
        self.shapes = [(tuple(shape["input_shape"]), tuple(shape["output_shape"])) for shape in answer["shapes"]]

    def __len__(self) -> int:
        return len(self.segments)

    @property
    def batch(self) -> int:
        """How many inputs the chain takes at once. Samples are single inputs all the same."""
        return self.shapes[0][0][0]

    @property
    def names(self) -> list[str]:
        """What errors call the segments."""
        return [f"segment[{index}]" for index in range(len(self.segments))]

    def parameters(self, index: int, fixed_point: FixedPoint, input_scale: int, layout: Layout) -> RunParameters:
        """Return what the settings of one segment are generated from."""
        half = 1 << (layout.log_rows - 1)
        return RunParameters(
            input_kind=self.kinds[index],
            output_kind=self.kinds[index + 1],
            input_scale=input_scale,
            param_scale=fixed_point.param_scale,
            rebase_multiplier=fixed_point.rebase_multiplier,
            log_rows=layout.log_rows,
            decomposition_base=layout.base,
            decomposition_legs=layout.legs,
            lookup_half_range=half - RESERVED_ROWS,
            inner_columns=layout.inner_columns,
            checks_products=layout.checks_products,
        )

    def generate(self, choices: Sequence[tuple[int, RunParameters]], *, chained: bool = False) -> list[bytes]:
        """Generate settings of several segments.

        Args:
            chained: whether each takes its input at the scale at which the one before puts out.

        Raises:
            CircuitRefused: the tool cannot lay a segment out so.
        """
        jobs = [
            {
                "onnx": str(self.onnx[index]),
                "run_args": parameters.to_run_args(),
                "name": self.names[index],
                "follows": chained and place > 0,
            }
            for place, (index, parameters) in enumerate(choices)
        ]
        answer = self.prover.call("generate_settings", {"jobs": jobs}, self.prover.limits.settings_seconds, "model")
        return [text.encode() for text in answer["settings"]]

    def plan(self, fixed_point: FixedPoint, layouts: Sequence[Layout]) -> Plan:
        """Generate the settings of all segments, each at the scale at which the one before puts out.

        Raises:
            CircuitRefused: the tool cannot lay a segment out so.
            BoundaryMismatch: neighbouring segments disagree in shape.
        """
        scale = fixed_point.input_scale
        choices = [(index, self.parameters(index, fixed_point, scale, at)) for index, at in enumerate(layouts)]
        settings = tuple(self.generate(choices, chained=True))
        summaries = tuple(map(read_settings, settings, self.names))
        check_ends(
            [
                Ends(each.input_kind, each.output_kind, each.input_scale, each.output_scale, *shapes)
                for each, shapes in zip(summaries, self.shapes, strict=True)
            ]
        )
        return Plan(fixed_point, tuple(layouts), settings, summaries)

    def run(self, plan: Plan, inputs: Reals) -> dict[str, Any]:
        """Compile a plan and execute it on real inputs; see :func:`offchain.proving.native.try_chain`.

        A chain that takes several inputs at once is given so many, see :func:`group_rows`.
        """
        payload = {
            "onnx": [str(path) for path in self.onnx],
            "settings": [settings.decode() for settings in plan.settings],
            "names": self.names,
            "batch": [
                list(quantise(sample, plan.summaries[0].input_scale)) for sample in group_rows(inputs, self.batch)
            ],
        }
        limits = self.prover.limits
        return self.prover.call("try_chain", payload, limits.build_seconds + limits.witness_seconds, "model")

    def fixed_outputs(self, plan: Plan, inputs: Reals) -> Reals:
        """Execute a plan on real inputs and turn what comes out into real numbers, a row per input.

        Raises:
            CircuitRefused: an input leaves the range of a segment.
        """
        answer = self.run(plan, inputs)
        if "failed" in answer:
            failed = answer["failed"]
            raise CircuitRefused(self.names[failed["segment"]], failed["message"], "give inputs within the range")
        scale = plan.summaries[-1].output_scale
        rows = np.asarray([dequantise(outputs[-1], scale) for outputs in answer["activations"]])
        return ungroup_rows(rows, self.batch, len(inputs))

    def float_outputs(self, inputs: Reals) -> Reals:
        """Execute the segments in floating point, a row per input."""
        payload = {
            "onnx": [str(path) for path in self.onnx],
            "input_shapes": [list(entry) for entry, _ in self.shapes],
            "batch": group_rows(inputs, self.batch).tolist(),
        }
        answer = self.prover.call("float_outputs", payload, self.prover.limits.witness_seconds, "model")
        return ungroup_rows(np.asarray(answer["outputs"], dtype=np.float64), self.batch, len(inputs))


def check_kinds(count: int, kinds: Sequence[LinkKind] | None) -> tuple[LinkKind, ...]:
    """Return one link kind per boundary.

    Raises:
        InvalidInputError: there are no segments, another number of kinds, or a kind that is no link.
    """
    if count == 0:
        raise InvalidInputError("segments", "there are none", "give at least one")
    chosen = tuple(kinds) if kinds is not None else (*[LinkKind.KZG] * count, LinkKind.PUBLIC)
    if len(chosen) != count + 1:
        raise InvalidInputError("kinds", f"{len(chosen)} for {count + 1} boundaries", "give one per boundary")
    if LinkKind.NONE in chosen:
        raise InvalidInputError(f"kinds[{chosen.index(LinkKind.NONE)}]", "not a link", "choose KZG, POSEIDON or PUBLIC")
    return chosen


def flatten_samples(samples: NDArray[np.float32], shape: tuple[int, ...], name: str = "calibration") -> Reals:
    """Return samples as one row each, whatever the size of the batch that ``shape`` begins with.

    Raises:
        InvalidInputError: there are none, they have another shape, or a value is not finite.
    """
    size = math.prod(shape[1:])
    mend = f"give an array of shape (n, {', '.join(map(str, shape[1:]))})"
    if samples.ndim < 1 or len(samples) == 0 or samples.size != len(samples) * size:
        raise InvalidInputError(name, f"has shape {samples.shape}", mend)
    rows = np.asarray(samples, dtype=np.float64).reshape(len(samples), size)
    if not np.isfinite(rows).all():
        raise InvalidInputError(name, "holds a value that is not finite", "remove it")
    return rows


def group_rows(rows: NDArray[Any], batch: int) -> NDArray[Any]:
    """Put every ``batch`` rows into one; the last group is filled up by repeating the last row.

    Args:
        rows: (n, size), n at least 1.

    Returns:
        (n / batch rounded up, batch x size).
    """
    filled = np.concatenate([rows, np.repeat(rows[-1:], -len(rows) % batch, axis=0)])
    return filled.reshape(len(filled) // batch, -1)


def ungroup_rows(groups: NDArray[Any], batch: int, count: int) -> NDArray[Any]:
    """Take rows of :func:`group_rows` apart again, and drop what the last group was filled up with."""
    return groups.reshape(len(groups) * batch, -1)[:count]


def input_bound(samples: Reals) -> float:
    """Return the largest absolute input to be accepted: what the calibration reaches, doubled.

    Raises:
        InvalidInputError: every value is zero.
    """
    bound = WIDE_FACTOR * float(np.abs(samples).max())
    if bound == 0.0:
        raise InvalidInputError("calibration", "every value is zero", "give typical inputs")
    return bound


def wide_samples(samples: Reals, bound: float) -> Reals:
    """Return inputs at the edge: the largest ones doubled, and corners of the accepted cube."""
    size = samples.shape[1]
    order = np.argsort(-np.linalg.norm(samples, axis=1))[:MAX_WIDE_SAMPLES]
    signs = np.random.default_rng(0).choice([-1.0, 1.0], size=(4, size))
    corners = np.vstack([np.ones((1, size)), -np.ones((1, size)), np.zeros((1, size)), signs]) * bound
    return np.vstack([samples[order] * WIDE_FACTOR, corners])


def usable_rows(log_rows: int) -> int:
    """Return how many rows of a column can hold values."""
    return (1 << log_rows) - RESERVED_ROWS


def decomposition_base(log_rows: int) -> int:
    """Return how many values a digit may have without its table needing a second column."""
    return usable_rows(log_rows) - RESERVED_ROWS

"""Turning what a person sends into the field elements that a model takes, or into an error that says what to mend."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from offchain.errors import InvalidInputError
from offchain.protocol.field import quantise
from offchain.protocol.manifest import Manifest


@dataclass(frozen=True)
class Batch:
    """Inputs of one job.

    Attributes:
        elements: of all of them and of the padding, in row-major order.
        given: how many were sent; what follows repeats the last one.
    """

    elements: tuple[int, ...]
    given: int


def read_inputs(raw: object, manifest: Manifest, field: str = "inputs") -> Batch:
    """Validate several inputs of one job, and fill the batch up with the last one.

    Args:
        raw: a list of 1 to ``manifest.batch`` inputs, each in nested lists as :func:`read_input` takes one.

    Raises:
        InvalidInputError: there are none or too many, or one of them is wrong; the element is named.
    """
    size = manifest.batch
    if not isinstance(raw, list) or not 1 <= len(raw) <= size:
        found = f"it holds {len(raw)} inputs" if isinstance(raw, list) else "it is no list"
        raise InvalidInputError(field, found, f"send a list of 1 to {size} inputs; a job of this model takes so many")
    # One by one, so that errors name the input that was sent.
    rows = [_read(entry, manifest, f"{field}[{index}]") for index, entry in enumerate(raw)]
    elements = [element for row in [*rows, *[rows[-1]] * (size - len(rows))] for element in row]
    return Batch(tuple(elements), len(rows))


def _read(raw: object, manifest: Manifest, field: str) -> tuple[int, ...]:
    shape = manifest.segments[0].input_shape[1:]
    if _depth(raw) == len(shape) + 1 and isinstance(raw, list) and len(raw) == 1:
        raw, field = raw[0], f"{field}[0]"
    return _quantised(raw, shape, shape, manifest, field)


def read_input(raw: object, manifest: Manifest, field: str = "input") -> tuple[int, ...]:
    """Validate a nested list of numbers against a model's input and quantise it.

    Args:
        raw: nested lists in the model's input shape; the leading batch dimension of 1 may be left out.
        manifest: the model.
        field: what errors call it.

    Returns:
        Field elements in row-major order, at the first segment's input scale.

    Raises:
        InvalidInputError: naming the element that is missing, not a finite number, or out of range.
    """
    shape = manifest.segments[0].input_shape
    expected = shape
    if _depth(raw) == len(shape) - 1 and shape[0] == 1:
        expected = shape[1:]
    return _quantised(raw, expected, shape, manifest, field)


def _quantised(
    raw: object, expected: tuple[int, ...], shape: tuple[int, ...], manifest: Manifest, field: str
) -> tuple[int, ...]:
    values = []
    step = 1 << manifest.segments[0].input_scale
    for place, value in _walk(raw, expected, field, shape):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InvalidInputError(place, f"{_show(value)} is not a number", "send numbers only")
        # Whole numbers of any length may come; those that no float can hold would raise in isfinite.
        if isinstance(value, float) and not math.isfinite(value):
            raise InvalidInputError(place, f"{value} is not finite", "replace NaN and infinities before sending")
        # The circuits are given the quantised value, which may lie up to half a step further out.
        if abs(value) > manifest.input_bound or math.floor(abs(value) * step + 0.5) > manifest.input_bound * step:
            raise InvalidInputError(
                place,
                f"{_show(value)} is beyond ±{manifest.input_bound:g}, the range that the model was compiled for",
                "scale inputs as the model's data was, or clip them",
            )
        values.append(float(value))
    return quantise(values, manifest.segments[0].input_scale)


def _walk(raw: object, shape: tuple[int, ...], place: str, whole: tuple[int, ...]) -> Iterator[tuple[str, object]]:
    if not shape:
        yield place, raw
        return
    if not isinstance(raw, list):
        raise InvalidInputError(
            place, f"a list of {shape[0]} is expected, not {_show(raw)}", f"send nested lists of shape {list(whole)}"
        )
    if len(raw) != shape[0]:
        raise InvalidInputError(
            place, f"it has {len(raw)} entries instead of {shape[0]}", f"send nested lists of shape {list(whole)}"
        )
    for index, entry in enumerate(raw):
        yield from _walk(entry, shape[1:], f"{place}[{index}]", whole)


def _depth(raw: object) -> int:
    depth = 0
    while isinstance(raw, list):
        depth += 1
        raw = raw[0] if raw else None
    return depth


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

"""Finds activations and weights in bytes, in every plain encoding that software of this kind writes."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence

from offchain.protocol.field import signed

TEXT_JOINS = (",", ", ", " ", '","', '", "', '","0x', "\n")
ELEMENT_WINDOW, FLOAT_WINDOW = 3, 4
"""How many consecutive values have to match: fewer would be found by chance among lengths, offsets and amounts."""


def windows(values: Sequence[float], size: int) -> Iterator[tuple[float, ...]]:
    """Every run of values that says something: at least two different ones that are not zero."""
    for start in range(len(values) - size + 1):
        run = tuple(values[start : start + size])
        if len({value for value in run if value}) >= 2:
            yield run


def element_patterns(elements: Sequence[int], scale: int) -> dict[bytes, str]:
    """How runs of field elements may be written: as elements, as integers, and as the real numbers that they mean."""
    patterns: dict[bytes, str] = {}
    for run in windows(elements, ELEMENT_WINDOW):
        whole = [int(element) for element in run]
        integers = [signed(element) for element in whole]
        for order in ("big", "little"):
            words = [element.to_bytes(32, order) for element in whole]  # type: ignore[arg-type]
            patterns[b"".join(words)] = f"32-byte words, {order}"
            patterns |= _texts([word.hex() for word in words], f"hexadecimal, {order}", ("", *TEXT_JOINS))
        patterns |= _texts([str(element) for element in whole], "decimal elements")
        patterns |= _texts([str(integer) for integer in integers], "decimal integers", TEXT_JOINS[:2])
        if all(abs(integer) < 1 << 31 for integer in integers):
            patterns[struct.pack(f"<{len(run)}q", *integers)] = "int64"
            patterns[struct.pack(f"<{len(run)}i", *integers)] = "int32"
        patterns |= _float_run([integer / (1 << scale) for integer in integers])
    return patterns


def float_patterns(values: Sequence[float]) -> dict[bytes, str]:
    """How runs of real numbers may be written."""
    patterns: dict[bytes, str] = {}
    for run in windows(values, FLOAT_WINDOW):
        patterns |= _float_run(run)
    return patterns


def find(contents: Mapping[str, bytes], patterns: Mapping[bytes, str]) -> set[tuple[str, str]]:
    """Where patterns occur: pairs of the content's name and the encoding."""
    return {
        (name, encoding)
        for name, content in contents.items()
        for pattern, encoding in patterns.items()
        if pattern in content
    }


def _float_run(run: Sequence[float]) -> dict[bytes, str]:
    patterns = {
        struct.pack(f"<{len(run)}f", *run): "float32, little",
        struct.pack(f">{len(run)}f", *run): "float32, big",
        struct.pack(f"<{len(run)}d", *run): "float64",
    }
    patterns |= _texts([repr(float(value)) for value in run], "decimal floats", TEXT_JOINS[:3])
    return patterns | _texts([f"{value:g}" for value in run], "decimal floats", TEXT_JOINS[:3])


def _texts(words: Sequence[str], encoding: str, joins: Sequence[str] = TEXT_JOINS) -> dict[bytes, str]:
    return {join.join(words).encode(): encoding for join in joins}

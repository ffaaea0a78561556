"""Field elements and their fixed-point meaning.

Every activation that crosses a segment boundary is a flat sequence of elements of the scalar field of BN254. A link
compares the elements; the fixed-point scale that gives them a meaning is part of the manifest.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

FIELD_MODULUS = 21888242871839275222246405745257275088548364400416034343698204186575808495617
"""Order of BN254's scalar field. Source: EIP-196 (the group order ``q``)."""

ELEMENT_BYTES = 32


def quantise(values: Iterable[float], scale: int) -> tuple[int, ...]:
    """Turn real numbers into field elements: ``round(value * 2**scale) mod FIELD_MODULUS``, halves away from zero.

    Args:
        values: finite numbers.
        scale: fixed-point fractional bits, 0 to 30.

    Raises:
        ValueError: a value is not finite.
    """
    factor = 1 << scale
    elements = []
    for value in values:
        if not math.isfinite(value):
            raise ValueError(f"{value} is not a finite number")
        magnitude = math.floor(abs(value) * factor + 0.5)
        elements.append((magnitude if value >= 0 else -magnitude) % FIELD_MODULUS)
    return tuple(elements)


def signed(element: int) -> int:
    """Read a field element as a signed integer: elements above half the modulus are negative."""
    return element - FIELD_MODULUS if element > FIELD_MODULUS // 2 else element


def dequantise(elements: Sequence[int], scale: int) -> tuple[float, ...]:
    """Turn field elements back into real numbers: ``signed(element) / 2**scale``."""
    return tuple(signed(element) / (1 << scale) for element in elements)


def encode_elements(elements: Sequence[int]) -> bytes:
    """Encode elements as consecutive 32-byte big-endian words, the layout of ``abi.encodePacked(uint256[])``.

    Raises:
        ValueError: an element is negative or not below the field modulus.
    """
    for index, element in enumerate(elements):
        if not 0 <= element < FIELD_MODULUS:
            raise ValueError(f"element {index} is outside the field")
    return b"".join(element.to_bytes(ELEMENT_BYTES, "big") for element in elements)


def decode_elements(encoded: bytes) -> tuple[int, ...]:
    """Invert :func:`encode_elements`.

    Raises:
        ValueError: the length is not a multiple of 32, or a word is not below the field modulus.
    """
    if len(encoded) % ELEMENT_BYTES:
        raise ValueError(f"{len(encoded)} bytes are not a whole number of {ELEMENT_BYTES}-byte elements")
    elements = tuple(
        int.from_bytes(encoded[offset : offset + ELEMENT_BYTES], "big")
        for offset in range(0, len(encoded), ELEMENT_BYTES)
    )
    for index, element in enumerate(elements):
        if element >= FIELD_MODULUS:
            raise ValueError(f"element {index} is outside the field")
    return elements

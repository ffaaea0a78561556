"""Decompression of commitments."""

from __future__ import annotations

import pytest

from offchain.proving.points import BASE_MODULUS, decompress

pytestmark = pytest.mark.unit


def words(x: int, y: int) -> bytes:
    return x.to_bytes(32, "big") + y.to_bytes(32, "big")


@pytest.mark.parametrize(("flags", "y"), [(0, 2), (1 << 255, BASE_MODULUS - 2)])
def test_decompress__generator_and_its_negative__have_the_marked_parity(flags: int, y: int) -> None:
    assert decompress((1 | flags).to_bytes(32, "little")) == words(1, y)


def test_decompress__known_proof_commitment__equals_the_proofs_bytes() -> None:
    compressed = bytes.fromhex("3cdeccc547896fdbc6a2376087b2f90355a582994d5f4b3fa1c23b84cde887a7")
    assert decompress(compressed) == bytes.fromhex(
        "2787e8cd843bc2a13f4b5f4d9982a55503f9b2876037a2c6db6f8947c5ccde3c"
        "12706d0b11c1fafa0fdfd3bfec4669f167260a8fff6d165bb221a9731096a2d3"
    )


@pytest.mark.parametrize(
    ("compressed", "problem"),
    [
        (bytes(31), "32 bytes"),
        (bytes(31) + b"\x40", "identity"),
        ((4).to_bytes(32, "little"), "curve"),
        ((BASE_MODULUS + 1).to_bytes(32, "little"), "curve"),
    ],
)
def test_decompress__no_point__raises(compressed: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        decompress(compressed)

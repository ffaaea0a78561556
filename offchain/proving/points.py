"""Points of BN254's first group, as the prover and the chain write them."""

from __future__ import annotations

BASE_MODULUS = 21888242871839275222246405745257275088696311157297823662689037894645226208583
"""Order of the field that coordinates live in. Source: EIP-196 (``p``)."""

_SIGN_BIT = 1 << 255
_IDENTITY_BIT = 1 << 254


def decompress(compressed: bytes) -> bytes:
    """Turn a 32-byte compressed point into the 64 bytes ``x || y``, big-endian, that a proof carries.

    The compressed form is little-endian ``x`` with the parity of ``y`` in bit 255 and the identity marked in bit 254.

    Args:
        compressed: 32 bytes.

    Raises:
        ValueError: it is not the canonical form of a point of the curve y² = x³ + 3 other than the identity. No
            activation commits to the identity: the rows behind it hold ones.
    """
    if len(compressed) != 32:
        raise ValueError(f"a compressed point has 32 bytes, not {len(compressed)}")
    word = int.from_bytes(compressed, "little")
    if word & _IDENTITY_BIT:
        raise ValueError("the identity is not a commitment")
    x = word & (_IDENTITY_BIT - 1)
    square = (pow(x, 3, BASE_MODULUS) + 3) % BASE_MODULUS
    y = pow(square, (BASE_MODULUS + 1) // 4, BASE_MODULUS)  # the modulus is 3 mod 4
    if x >= BASE_MODULUS or y * y % BASE_MODULUS != square:
        raise ValueError("not a point of the curve")
    if y & 1 != bool(word & _SIGN_BIT):
        y = BASE_MODULUS - y
    return x.to_bytes(32, "big") + y.to_bytes(32, "big")

"""Links: the commitments by which the proofs of neighbouring segments interlock."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from eth_hash.auto import keccak

from offchain.protocol.field import encode_elements

COMMITMENT_BYTES = 64


class LinkKind(IntEnum):
    """How a segment's proof exposes a boundary. The numbers are those of ``LinkKind`` in ``IRegistry.sol``."""

    NONE = 0
    KZG = 1
    POSEIDON = 2
    PUBLIC = 3


def link_of_commitment(commitment: bytes) -> bytes:
    """Hash a KZG commitment (64 bytes, x ‖ y big-endian) into the 32-byte link that the chain stores.

    Raises:
        ValueError: the commitment is not 64 bytes long.
    """
    if len(commitment) != COMMITMENT_BYTES:
        raise ValueError(f"a KZG commitment is {COMMITMENT_BYTES} bytes long, not {len(commitment)}")
    return keccak(commitment)


def link_of_values(instances: Sequence[int]) -> bytes:
    """Hash public instances, each a 32-byte big-endian word, into the 32-byte link that the chain stores."""
    return keccak(encode_elements(instances))


def instance_count(kind: LinkKind, elements: int) -> int:
    """How many public instances a boundary of this kind adds to a proof."""
    if kind is LinkKind.PUBLIC:
        return elements
    return 1 if kind is LinkKind.POSEIDON else 0


def links_of_proof(
    proof: bytes, instances: Sequence[int], input_kind: LinkKind, output_kind: LinkKind, input_elements: int
) -> tuple[bytes, bytes]:
    """Read the opening and the closing link out of a proof, as ``Verifier.verifySegment`` does.

    Commitments lead the proof, instances stand in their own list; both in the order input, output.
    """
    inputs = instance_count(input_kind, input_elements)
    offset = COMMITMENT_BYTES if input_kind is LinkKind.KZG else 0
    if input_kind is LinkKind.KZG:
        opening = link_of_commitment(proof[:COMMITMENT_BYTES])
    else:
        opening = link_of_values(instances[:inputs])
    if output_kind is LinkKind.KZG:
        closing = link_of_commitment(proof[offset : offset + COMMITMENT_BYTES])
    else:
        closing = link_of_values(instances[inputs:])
    return opening, closing

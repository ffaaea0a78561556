"""The links of a segment's ends, as a proof of the segment would show them."""

from __future__ import annotations

from collections.abc import Sequence

from offchain.protocol.links import LinkKind, link_of_commitment, link_of_values
from offchain.protocol.types import Link
from offchain.proving.port import SegmentCircuit, Witness


def input_link(circuit: SegmentCircuit, witness: Witness, elements: Sequence[int]) -> Link:
    """The link of a segment's input.

    Args:
        elements: what the witness was made from.
    """
    return link_of(circuit.input_kind, witness.input_commitment, elements)


def output_link(circuit: SegmentCircuit, witness: Witness) -> Link:
    """The link of a segment's output."""
    return link_of(circuit.output_kind, witness.output_commitment, witness.outputs)


def link_of(kind: LinkKind, commitment: bytes | None, elements: Sequence[int]) -> Link:
    """The link of elements at a boundary.

    Args:
        commitment: 64 bytes for a KZG link, the 32-byte hash for a Poseidon link; not looked at for a public one.
    """
    if kind is LinkKind.PUBLIC:
        return Link(link_of_values(elements))
    assert commitment is not None
    if kind is LinkKind.POSEIDON:
        return Link(link_of_values([int.from_bytes(commitment, "big")]))
    return Link(link_of_commitment(commitment))

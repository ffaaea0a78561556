"""Whether neighbouring segments mean the same thing by what passes between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from offchain.protocol.links import LinkKind
from offchain.proving.port import BoundaryMismatch, SegmentCircuit


class SegmentEnds(Protocol):
    """The two ends of a segment."""

    @property
    def input_kind(self) -> LinkKind: ...
    @property
    def output_kind(self) -> LinkKind: ...
    @property
    def input_scale(self) -> int: ...
    @property
    def output_scale(self) -> int: ...
    @property
    def input_shape(self) -> tuple[int, ...]: ...
    @property
    def output_shape(self) -> tuple[int, ...]: ...


def check_ends(segments: Sequence[SegmentEnds]) -> None:
    """Refuse a chain whose boundaries disagree in shape, scale or link kind.

    A link compares field elements and not what they mean: with unequal scales both proofs verify, the link holds, and
    the composed result is wrong.

    Raises:
        BoundaryMismatch: names the boundary, and gives both values.
    """
    for index in range(len(segments) - 1):
        for quality, ours, theirs, mend in (
            ("shape", segments[index].output_shape, segments[index + 1].input_shape, "cut the model elsewhere"),
            ("scale", segments[index].output_scale, segments[index + 1].input_scale, "give all segments one scale"),
            ("link kind", segments[index].output_kind, segments[index + 1].input_kind, "give both ends one kind"),
        ):
            if ours != theirs:
                problem = f"puts out {quality} {_show(ours)} but segment[{index + 1}] takes {_show(theirs)}"
                raise BoundaryMismatch(f"segment[{index}]", problem, mend)


def check_boundaries(circuits: Sequence[SegmentCircuit]) -> None:
    """Do what :func:`check_ends` does, and refuse KZG links between circuits that commit differently.

    Equal elements give equal commitments only under the same SRS, log-rows and number of blinding rows.

    Raises:
        BoundaryMismatch: names the boundary, and gives both values.
    """
    check_ends(circuits)
    for index in range(len(circuits) - 1):
        ours, theirs = circuits[index], circuits[index + 1]
        if ours.output_kind is not LinkKind.KZG or ours.commitment_probe == theirs.commitment_probe:
            continue
        if ours.log_rows != theirs.log_rows:
            problem = f"has log-rows {ours.log_rows} but segment[{index + 1}] has {theirs.log_rows}"
        elif ours.srs.digest != theirs.srs.digest:
            problem = f"was set up with another SRS than segment[{index + 1}]"
        else:
            problem = f"blinds another number of rows than segment[{index + 1}]"
        raise BoundaryMismatch(f"segment[{index}]", problem, "rebuild both alike, or link them by Poseidon hash")


def _show(value: object) -> str:
    return value.name.lower() if isinstance(value, LinkKind) else str(value)

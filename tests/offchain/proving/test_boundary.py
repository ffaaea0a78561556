"""Refusal of chains whose boundaries disagree."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from offchain.protocol.links import LinkKind
from offchain.proving.boundary import check_ends
from offchain.proving.port import BoundaryMismatch
from offchain.tuning.chain import Ends

pytestmark = pytest.mark.unit
FIRST = Ends(LinkKind.KZG, LinkKind.KZG, 7, 7, (1, 4), (1, 6))
SECOND = Ends(LinkKind.KZG, LinkKind.PUBLIC, 7, 7, (1, 6), (1, 3))


def test_check_ends__agreeing_chain__passes() -> None:
    check_ends([FIRST, SECOND])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_scale": 8}, r"segment\[0\]: puts out scale 7 but segment\[1\] takes 8"),
        ({"input_shape": (6, 1)}, r"segment\[0\]: puts out shape \(1, 6\) but segment\[1\] takes \(6, 1\)"),
        ({"input_kind": LinkKind.POSEIDON}, "puts out link kind kzg .* takes poseidon"),
    ],
)
def test_check_ends__disagreement__names_the_boundary(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BoundaryMismatch, match=message):
        check_ends([FIRST, replace(SECOND, **change)])

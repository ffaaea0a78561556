"""Which circuits admit one output only, by the tool's own list of operations."""

from __future__ import annotations

from pathlib import Path

import pytest
from tuning_models import pooled

from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import CircuitRefused, FixedPoint
from offchain.tuning.chain import Chain, Layout
from offchain.tuning.exactness import Node, ambiguities_of, find_ambiguities, read_table

INPUT = Node(0, "Input", 7, ())
WEIGHT = Node(1, "CONST (scale=7)", 7, ())
PRODUCT = Node(2, "EINSUM mk,nk->mn", 14, (0, 1))
TABLE = """
┌─────┬────────┐
│ idx │ opkind               │ out_scale │ inputs           │ out_dims │
├─────┼────────┤
│ 0   │ Input                │ 7         │                  │ [1, 4]   │
│ 1   │ CONST (scale=7)      │ 7         │                  │ [4, 4]   │
│ 2   │ EINSUM mk,nk->mn     │ 14        │ [(0, 0), (1, 0)] │ [1, 4]   │
│ 3   │ RESCALED INPUT (ADD) │ 14        │ [(0, 0), (2, 0)] │ [1, 4]   │
└─────┴────────┘
"""


@pytest.mark.unit
def test_read_table__operations__with_their_scales_and_sources() -> None:
    assert read_table(TABLE) == (INPUT, WEIGHT, PRODUCT, Node(3, "ADD", 14, (0, 2), aligns=True))


@pytest.mark.unit
@pytest.mark.parametrize("table", ["", "no table", TABLE.replace("│ 14 ", "│ x  ")])
def test_read_table__anything_else__is_refused(table: str) -> None:
    with pytest.raises(CircuitRefused, match=r"segment\[1\]: its table of operations"):
        read_table(table, "segment[1]")


@pytest.mark.unit
@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (Node(3, "LEAKYRELU (slope=0)", 14, (2,)), ""),
        (Node(3, "MaxPool (padding=[(0, 0)])", 14, (2,)), ""),
        (Node(3, "SUMPOOL (normalized=false)", 14, (2,)), ""),
        (Node(3, "GATHER (dim=1)", 14, (2,)), ""),
        (Node(3, "GATHER (dim=1)", 14, (2, 1)), "gather: its indices are computed"),
        (Node(3, "DOWNSAMPLE", 14, (2,)), ""),
        (Node(3, "DOWNSAMPLE", 7, (2,)), "downsample: its scale is 7 and not 14"),
        (Node(3, "REBASED (div=128.0, rebasing_op=DIV (denom=128)) (EINSUM mk,nk->mn)", 7, (0, 1)), "rescale: "),
        (Node(3, "SUMPOOL (padding=[(0, 0)], normalized=true)", 14, (2,)), "average pool: "),
        (Node(3, "MEANOFSQUARES (axes=[1])", 14, (2,)), "meanofsquares: not known"),
        (Node(3, "REDUCEARGMAX (dim=1)", 0, (2,)), "argmax: "),
        (Node(3, "RSQRT (input_scale=1)", 14, (2,)), "rsqrt: not known"),
        (Node(3, "MULT", 20, (2, 0)), "mult: its scale is 20 and not 21"),
        (Node(3, "ADD", 7, (2, 2)), "add: its scale is 7 and not 14"),
        (Node(3, "CONV (stride=[1, 1])", 14, (2, 1)), "conv: its scale is 14 and not 21"),
    ],
)
def test_find_ambiguities__one_operation__is_known_or_named(node: Node, reason: str) -> None:
    found = find_ambiguities([INPUT, WEIGHT, PRODUCT, node], 7, node.scale)
    assert len(found) == bool(reason)
    assert "".join(found).startswith(reason)


@pytest.mark.unit
@pytest.mark.parametrize("scales", [(8, 14), (7, 7)])
def test_find_ambiguities__settings_of_another_circuit__are_noticed(scales: tuple[int, int]) -> None:
    assert find_ambiguities([INPUT, WEIGHT, PRODUCT], *scales) == ["its settings give other scales than its operations"]


@pytest.mark.unit
def test_find_ambiguities__branches_63_bits_apart__pass_and_64_are_refused() -> None:
    deep = Node(3, "LEAKYRELU (slope=0)", 70, ())
    assert not find_ambiguities([INPUT, deep, Node(4, "ADD", 70, (0, 3), aligns=True)], 7, 70)
    deeper = Node(3, "LEAKYRELU (slope=0)", 71, ())
    with pytest.raises(CircuitRefused, match=r"segment\[2\]: two branches meet at scales 7 and 71"):
        find_ambiguities([INPUT, deeper, Node(4, "ADD", 71, (0, 3), aligns=True)], 7, 71, "segment[2]")


@pytest.mark.integration
@pytest.mark.parametrize(
    ("kind", "rescales", "reasons"),
    [
        ("MaxPool", False, ()),
        ("MaxPool", True, ("rescale: the prover may round either way",)),
        ("AveragePool", False, ("average pool: the prover may round either way",)),
    ],
)
def test_ambiguities_of__real_circuits__from_model_and_settings_alone(
    prover: EzklProver, tmp_path: Path, kind: str, rescales: bool, reasons: tuple[str, ...]
) -> None:
    model = pooled(kind)
    plan = Chain(prover, [model], tmp_path).plan(FixedPoint(7, 7, rescales), [Layout(10, 3)])
    assert ambiguities_of(prover, [model], plan.settings) == (reasons,)

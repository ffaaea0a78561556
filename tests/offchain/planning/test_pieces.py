"""Lines of pieces, and what is said of models that are only provable in part."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from planning_machines import perceptron

from offchain.errors import InvalidInputError
from offchain.inference.onnx_model import input_shape, load_model, output_shape
from offchain.planning.pieces import survey_model, write_runs

pytestmark = pytest.mark.integration


def _interrupted(operator: str) -> bytes:
    """A layer, an operator, and two layers."""
    weight = numpy_helper.from_array(np.eye(4, dtype=np.float32), "weight")
    nodes = [
        helper.make_node("MatMul", ["x", "weight"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node(operator, ["b"], ["c"], name="the odd one"),
        helper.make_node("MatMul", ["c", "weight"], ["d"]),
        helper.make_node("MatMul", ["d", "weight"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 4]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "interrupted", ends[:1], ends[1:], [weight])
    content: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return content


def test_survey_model__plain_network__is_one_whole_stretch() -> None:
    survey = survey_model(perceptron(8, 24, 4))
    [stretch] = survey.stretches
    assert stretch.whole
    assert survey.unprovable == ()
    assert [piece.operators for piece in stretch.pieces] == [("Gemm",), ("Relu",), ("Gemm",)]
    assert [boundary.elements for boundary in stretch.boundaries] == [8, 24, 24, 4]


def test_survey_model__odd_operator_within__names_the_node_and_keeps_both_sides() -> None:
    survey = survey_model(_interrupted("Sin"))
    assert [(entry.name, entry.operator, entry.reason) for entry in survey.unprovable] == [
        ("the odd one", "Sin", "is not a supported operator")
    ]
    assert [(part.boundaries[0].name, part.boundaries[-1].name) for part in survey.stretches] == [
        ("x", "b"),
        ("c", "y"),
    ]
    assert not any(part.whole for part in survey.stretches)


@pytest.mark.parametrize("content", [b"", b"no model"], ids=["empty", "text"])
def test_survey_model__no_model__is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        survey_model(content)
    assert caught.value.field.startswith("model")


def test_survey_model__nothing_but_odd_operators__is_refused() -> None:
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Sin", ["x"], ["y"])], "odd", ends[:1], ends[1:])
    content = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    with pytest.raises(InvalidInputError, match="no part beside it"):
        survey_model(content)


def test_survey_model__more_pieces_than_asked_for__joins_neighbours() -> None:
    [stretch] = survey_model(perceptron(8, 24, 24, 4), max_pieces=2).stretches
    assert len(stretch.pieces) == 2
    assert stretch.operators(0, 2) == ("Gemm", "Relu", "Gemm", "Relu", "Gemm")


def test_write_runs__runs_at_ends_and_within__have_the_boundaries_shapes(tmp_path: Path) -> None:
    [stretch] = survey_model(perceptron(8, 24, 20, 4)).stretches
    paths = write_runs(stretch, [(0, 1), (1, 3), (2, 5), (0, 5)], tmp_path)
    for (start, stop), path in paths.items():
        model = load_model(path.read_bytes())
        assert input_shape(model) == (1, stretch.boundaries[start].elements)
        assert output_shape(model) == (1, stretch.boundaries[stop].elements)
        onnx.checker.check_model(model)

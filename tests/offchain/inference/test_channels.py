"""A layer that is cut by channels puts out what it did, wherever the model is cut then."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from offchain.errors import InvalidInputError
from offchain.inference.channels import cut_channels, wide_layers
from offchain.inference.execution import run_float
from offchain.inference.onnx_model import input_shape, load_model
from offchain.inference.splitting import find_cuts, split
from tests.models import Floats, cnn, mlp, residual

pytestmark = pytest.mark.unit


def pooled(seed: int, channels: int = 5, batch: int = 1) -> bytes:
    """A convolution, a ReLU, two pools and a linear layer whose weights are not transposed."""
    chance = np.random.default_rng(seed)
    weights = {
        "kernel": chance.standard_normal((channels, 2, 3, 3)),
        "bias": chance.standard_normal(channels),
        "matrix": chance.standard_normal((channels * 4, 6)),
        "row": chance.standard_normal((1, 6)),
    }
    nodes = [
        helper.make_node("Conv", ["x", "kernel", "bias"], ["conv"], pads=[1] * 4),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("MaxPool", ["relu"], ["most"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("AveragePool", ["most"], ["mean"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("Gemm", ["flat", "matrix", "row"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 6])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


def samples_for(content: bytes, seed: int = 0) -> Floats:
    shape = input_shape(load_model(content))
    return np.random.default_rng(seed).standard_normal((4 * shape[0], *shape[1:])).astype(np.float32)


def refusal(content: bytes, groups: dict[str, int]) -> InvalidInputError:
    with pytest.raises(InvalidInputError) as caught:
        cut_channels(content, groups)
    return caught.value


@settings(max_examples=60, deadline=None)
@given(data=st.data(), seed=st.integers(0, 999))
def test_cut_channels__any_layers__same_function_and_wherever_it_is_cut(data: Any, seed: int) -> None:
    content = data.draw(
        st.sampled_from(
            [pooled(seed), pooled(seed, 4, 3), cnn([1, 3, 4], 7, 5, seed), mlp([4, 9, 6, 3], seed), residual(6, seed)]
        )
    )
    layers = [layer for layer in wide_layers(load_model(content)) if layer.channels > 1]
    groups: dict[str, int] = {}
    taken: set[str] = set()
    for layer in data.draw(st.permutations(layers)):
        names = {node.output[0] for node in layer.nodes}
        if not names & taken and data.draw(st.booleans()):
            groups[layer.name] = data.draw(st.integers(2, layer.channels))
            taken |= names
    cut = cut_channels(content, groups)
    inputs = samples_for(content)
    expected = run_float(content, inputs)
    np.testing.assert_allclose(run_float(cut, inputs), expected, rtol=0, atol=1e-4)
    model = load_model(cut)
    order = [each.name for each in find_cuts(model)]
    chosen = data.draw(st.sets(st.sampled_from(order)))
    values = inputs
    for segment in split(model, sorted(chosen, key=order.index)):
        values = run_float(segment, values)
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-4)


def test_cut_channels__layer__can_be_cut_behind_each_part_that_carries_the_input() -> None:
    cut = load_model(cut_channels(pooled(0), {"conv": 3}))
    found = {each.name: each.elements for each in find_cuts(cut)}
    assert found["conv:part1"] == 2 * 4 + 2 * 8 * 8
    assert found["conv:part2"] == 3 * 4 + 2 * 8 * 8
    assert "conv" not in {node.output[0] for node in cut.graph.node}


def test_cut_channels__activation__carries_what_is_not_done() -> None:
    cut = load_model(cut_channels(pooled(0), {"relu": 2}))
    found = {each.name: each.elements for each in find_cuts(cut)}
    assert found["relu:part1"] == 2 * 4 + 3 * 8 * 8
    assert [node.op_type for node in cut.graph.node].count("Conv") == 1


def test_cut_channels__nothing_to_cut__same_bytes() -> None:
    content = pooled(0)
    assert cut_channels(content, {}) is content


def test_cut_channels__twice__same_bytes() -> None:
    assert cut_channels(pooled(0), {"conv": 2}) == cut_channels(pooled(0), {"conv": 2})


@pytest.mark.parametrize(
    ("groups", "problem"),
    [
        ({"flat": 2}, "'flat' is no layer that can be cut"),
        ({"nothing": 2}, "'nothing' is no layer that can be cut"),
        ({"conv": 6}, "'conv' cannot be cut into 6 parts"),
        ({"conv": 1}, "'conv' cannot be cut into 1 parts"),
        ({"conv": 2, "relu": 2}, "'relu' is cut already"),
        ({"relu": 2, "conv": 2}, "'conv' is cut already"),
    ],
)
def test_cut_channels__impossible__names_the_layer(groups: dict[str, int], problem: str) -> None:
    error = refusal(pooled(0), groups)
    assert error.field == "groups"
    assert problem in error.problem


def test_wide_layers__grouped_convolution__is_none() -> None:
    chance = np.random.default_rng(0)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=2)],
        "grouped",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2, 5, 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4, 3, 3])],
        [numpy_helper.from_array(chance.standard_normal((4, 1, 3, 3)).astype(np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    assert wide_layers(load_model(model.SerializeToString())) == ()


def test_wide_layers__fork__ends_the_chain() -> None:
    layers = wide_layers(load_model(residual(6, 0)))
    outputs = [[node.op_type for node in layer.nodes] for layer in layers]
    assert all(isinstance(layer.nodes[0], onnx.NodeProto) for layer in layers)
    assert all("Add" not in operators for operators in outputs)

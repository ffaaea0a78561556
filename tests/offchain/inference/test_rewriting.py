"""Rewriting changes operators, and nothing that a model puts out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from offchain.errors import InvalidInputError
from offchain.inference import rewriting
from offchain.inference.execution import run_float
from offchain.inference.onnx_model import load_model
from offchain.inference.rewriting import rewrite, rewrite_for_proving
from tests.models import Floats, tiny_mlp

pytestmark = pytest.mark.unit


def model_with(operator: str, shape: tuple[int, ...], weights: dict[str, Floats], **attributes: Any) -> onnx.ModelProto:
    node = helper.make_node(operator, ["x", *weights], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def outputs(model: onnx.ModelProto, inputs: Floats) -> Floats:
    from onnx.reference import ReferenceEvaluator

    [found] = ReferenceEvaluator(model).run(None, {"x": inputs})
    return np.asarray(found)


def convolution(seed: int, shape: tuple[int, ...], channels: int, size: int, bias: bool, **attributes: Any) -> Any:
    chance = np.random.default_rng(seed)
    weights = {"w": chance.standard_normal((channels, shape[1], *[size] * (len(shape) - 2))).astype(np.float32)}
    if bias:
        weights["b"] = chance.standard_normal(channels).astype(np.float32)
    return model_with("Conv", shape, weights, **attributes), chance.standard_normal(shape).astype(np.float32)


@pytest.fixture
def any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewriting, "MIN_SAVED_CELLS", -(10**9))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 999),
    batch=st.integers(1, 3),
    taken=st.integers(1, 3),
    given_=st.integers(2, 4),
    side=st.integers(5, 8),
    size=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    bias=st.booleans(),
)
def test_rewrite__convolution__same_function(
    seed: int,
    batch: int,
    taken: int,
    given_: int,
    side: int,
    size: int,
    stride: int,
    dilation: int,
    pads: tuple[int, ...],
    bias: bool,
) -> None:
    shape = (batch, taken, side, side + 1)
    attributes = {"strides": [stride, 1], "dilations": [1, dilation], "pads": list(pads)}
    model, inputs = convolution(seed, shape, given_, size, bias, **attributes)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rewriting, "MIN_SAVED_CELLS", -(10**9))
        rewritten = rewrite(model, products=True)
    assume(np.prod(outputs(model, inputs).shape[2:]) * batch > 1)
    assert "Conv" not in operators(rewritten)
    assert "MatMul" in operators(rewritten)
    np.testing.assert_allclose(outputs(rewritten, inputs), outputs(model, inputs), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("any_size")
def test_rewrite__convolution_of_a_line__same_function() -> None:
    model, inputs = convolution(3, (2, 3, 11), 4, 3, True, pads=[2, 0], strides=[2])
    rewritten = rewrite(model, products=True)
    assert "MatMul" in operators(rewritten)
    np.testing.assert_allclose(outputs(rewritten, inputs), outputs(model, inputs), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("any_size")
@pytest.mark.parametrize("attributes", [{"group": 2}, {"auto_pad": "SAME_UPPER"}], ids=["groups", "automatic padding"])
def test_rewrite__convolution_of_another_kind__left_alone(attributes: dict[str, Any]) -> None:
    chance = np.random.default_rng(0)
    weights = {"w": chance.standard_normal((4, 2 // attributes.get("group", 1), 3, 3)).astype(np.float32)}
    model = model_with("Conv", (1, 2, 6, 6), weights, **attributes)
    assert operators(rewrite(model, products=True)) == ["Conv"]


@pytest.mark.usefixtures("any_size")
def test_rewrite__convolution_where_products_are_not_checked__left_alone() -> None:
    model, _ = convolution(0, (1, 1, 8, 8), 4, 3, True)
    assert operators(rewrite(model)) == ["Conv"]


def test_rewrite__small_convolution__left_alone() -> None:
    model, _ = convolution(0, (1, 1, 8, 8), 4, 3, True)
    assert operators(rewrite(model, products=True)) == ["Conv"]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 999),
    kernel=st.sampled_from([(2, 2), (1, 2), (4, 2)]),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    height=st.integers(4, 9),
    batch=st.integers(1, 2),
)
def test_rewrite__average_of_a_power_of_two__same_function(
    seed: int, kernel: tuple[int, int], strides: tuple[int, int], height: int, batch: int
) -> None:
    model = model_with("AveragePool", (batch, 2, height, 7), {}, kernel_shape=kernel, strides=strides)
    rewritten = rewrite(model, products=True)
    assert "AveragePool" not in operators(rewritten)
    inputs = np.random.default_rng(seed).standard_normal((batch, 2, height, 7)).astype(np.float32)
    np.testing.assert_allclose(outputs(rewritten, inputs), outputs(model, inputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "attributes",
    [
        {"kernel_shape": [3, 3]},
        {"kernel_shape": [2, 2], "pads": [1, 1, 1, 1]},
        {"kernel_shape": [2, 2], "strides": [3, 3], "ceil_mode": 1},
        {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"},
        {"kernel_shape": [1, 1]},
    ],
    ids=["nine elements", "padding", "rounded up", "automatic padding", "one element"],
)
def test_rewrite__other_averages__left_alone(attributes: dict[str, Any]) -> None:
    assert operators(rewrite(model_with("AveragePool", (1, 2, 8, 8), {}, **attributes))) == ["AveragePool"]


@pytest.mark.usefixtures("any_size")
def test_rewrite_for_proving__weights_that_nothing_uses__dropped() -> None:
    model, _ = convolution(1, (1, 1, 6, 6), 2, 3, True)
    rewritten = rewrite(model, products=True)
    used = {name for node in rewritten.graph.node for name in node.input}
    assert {weight.name for weight in rewritten.graph.initializer} <= used


@pytest.mark.usefixtures("any_size")
def test_rewrite_for_proving__the_same_twice__same_bytes_that_load() -> None:
    model, inputs = convolution(1, (1, 2, 6, 6), 3, 3, True, pads=[1] * 4)
    content = model.SerializeToString()
    rewritten = rewrite_for_proving(content, products=True)
    assert rewritten == rewrite_for_proving(content, products=True)
    assert rewrite_for_proving(rewritten, products=True) == rewritten
    load_model(rewritten)
    np.testing.assert_allclose(run_float(rewritten, inputs), run_float(content, inputs), rtol=0, atol=1e-5)


def test_rewrite_for_proving__nothing_to_mend__same_bytes() -> None:
    content = tiny_mlp(0)
    assert rewrite_for_proving(content, products=True) is content


def test_rewrite_for_proving__junk__refused() -> None:
    with pytest.raises(InvalidInputError):
        rewrite_for_proving(b"junk")

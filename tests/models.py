"""Small models for tests, made on the fly; none of them is known to the project itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Floats = NDArray[np.float32]


def model_of(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, NDArray],
    input_shape: Sequence[int | str],
    output_shape: Sequence[int | str] | None,
    *,
    opset: int = 17,
) -> onnx.ModelProto:
    """Assemble a model that takes ``x`` and returns ``y``."""
    graph = helper.make_graph(
        list(nodes),
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, input_shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def mlp(widths: Sequence[int], seed: int) -> bytes:
    """Build a network of linear layers with a ReLU between each two."""
    chance = np.random.default_rng(seed)
    nodes, weights, current = [], {}, "x"
    for index, (wide, narrow) in enumerate(zip(widths, widths[1:], strict=False)):
        is_last = index == len(widths) - 2
        weights[f"weight{index}"] = (chance.standard_normal((narrow, wide)) / np.sqrt(wide)).astype(np.float32)
        weights[f"bias{index}"] = (chance.standard_normal(narrow) / 4).astype(np.float32)
        linear = "y" if is_last else f"linear{index}"
        nodes.append(helper.make_node("Gemm", [current, f"weight{index}", f"bias{index}"], [linear], transB=1))
        if not is_last:
            nodes.append(helper.make_node("Relu", [linear], [f"relu{index}"]))
            current = f"relu{index}"
    return model_of(nodes, weights, [1, widths[0]], [1, widths[-1]]).SerializeToString()


def tiny_mlp(seed: int) -> bytes:
    """Build a 4-6-3 network, of the size of the iris data."""
    return mlp((4, 6, 3), seed)


def cnn(channels: Sequence[int], side: int, classes: int, seed: int) -> bytes:
    """Build padded 3×3 convolutions in strides of 2 with ReLUs, and a linear layer behind them."""
    chance = np.random.default_rng(seed)
    nodes, weights, current, reduced = [], {}, "x", side
    for index, (taken, given) in enumerate(zip(channels, channels[1:], strict=False)):
        weights[f"kernel{index}"] = (chance.standard_normal((given, taken, 3, 3)) / 4).astype(np.float32)
        nodes += [
            helper.make_node("Conv", [current, f"kernel{index}"], [f"conv{index}"], strides=[2, 2], pads=[1] * 4),
            helper.make_node("Relu", [f"conv{index}"], [f"relu{index}"]),
        ]
        current, reduced = f"relu{index}", (reduced + 1) // 2
    features = channels[-1] * reduced * reduced
    weights["head"] = (chance.standard_normal((features, classes)) / np.sqrt(features)).astype(np.float32)
    nodes += [helper.make_node("Flatten", [current], ["flat"]), helper.make_node("MatMul", ["flat", "head"], ["y"])]
    return model_of(nodes, weights, [1, channels[0], side, side], [1, classes]).SerializeToString()


def residual(width: int, seed: int) -> bytes:
    """Build ``y = W3 (h + relu(W2 h))`` with ``h = relu(W1 x)``: the connection of ``h`` bypasses ``inner``."""
    chance = np.random.default_rng(seed)
    weights = {f"w{i}": (chance.standard_normal((width, width)) / np.sqrt(width)).astype(np.float32) for i in (1, 2, 3)}
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["first"]),
        helper.make_node("Relu", ["first"], ["h"]),
        helper.make_node("MatMul", ["h", "w2"], ["second"]),
        helper.make_node("Relu", ["second"], ["inner"]),
        helper.make_node("Add", ["h", "inner"], ["sum"]),
        helper.make_node("MatMul", ["sum", "w3"], ["y"]),
    ]
    return model_of(nodes, weights, [1, width], [1, width]).SerializeToString()

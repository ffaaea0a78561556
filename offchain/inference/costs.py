"""Estimates what an operator costs, in multiply-accumulates, before anything is compiled.

The unit is one multiply-accumulate of a circuit. The surcharges were fitted to the rows of small ezkl circuits
(decomposition base 256, 4 legs, 2 inner columns): each output of a layer is brought back to the boundary's scale, and
each activation is decomposed; either costs far more than one multiplication. They steer where to cut, nothing else.
"""

from __future__ import annotations

import math

import onnx

from offchain.inference.onnx_model import (
    ACTIVATION_OPERATORS,
    LAYER_OPERATORS,
    POOLING_OPERATORS,
    SHAPE_OPERATORS,
)

RESCALE_COST = 32
NONLINEAR_COST = 12
LOOKUP_COST = 24

_PIECEWISE_LINEAR = frozenset({"Relu", "LeakyRelu", "Clip", "Abs", "Max", "Min"})


def node_cost(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Estimate the cost of one operator.

    Args:
        node: an allowed operator.
        shapes: the static shape of every tensor by name.
    """
    out = math.prod(shapes[node.output[0]])
    if node.op_type in LAYER_OPERATORS:
        return out * (_inner_products(node, shapes) + RESCALE_COST)
    if node.op_type in POOLING_OPERATORS:
        return math.prod(shapes[node.input[0]]) + out * NONLINEAR_COST
    if node.op_type in _PIECEWISE_LINEAR:
        return out * NONLINEAR_COST
    if node.op_type in ACTIVATION_OPERATORS or node.op_type == "Div":
        return out * LOOKUP_COST
    return 0 if node.op_type in SHAPE_OPERATORS else out


def _inner_products(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    """Count the multiplications behind one output element of a layer."""
    weight = shapes[node.input[1]]
    if node.op_type == "Conv":
        return math.prod(weight[1:])
    first = shapes[node.input[0]]
    if node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute):
        return first[0]
    return first[-1]

"""Writes a segment in operators that a circuit is small in; what it computes stays the same.

A convolution is laid out as one dot product per output element. A product of two matrices may be checked with random
challenges instead (Freivalds 1977): m·k + k·n + m·n cells in place of m·k·n. So a large convolution becomes a selection
of its patches (which costs nothing: the indices are constants) and a matrix product, where the circuit checks products
so.

An average over a power of two of elements becomes a sum and a product with a constant that fixed point holds exactly.
The proving tool would divide, which takes more rows and lets the prover round either way.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from offchain.inference.onnx_model import load_model, tensor_shapes

MIN_SAVED_CELLS = 16_384
"""A checked product needs columns of its own: a small convolution is not worth them."""
MAX_AVERAGED = 64
"""The constant is a fraction of so many bits; the coarsest scale in use holds it."""


def rewrite_for_proving(content: bytes, *, products: bool = False) -> bytes:
    """Write a segment anew, in operators that a circuit is small in; the same bytes where there is nothing to mend.

    Args:
        content: a segment, from :func:`offchain.inference.splitting.split`.
        products: whether large convolutions become products of matrices. It pays only in a circuit that checks
            products; see :class:`offchain.proving.settings.RunParameters`.

    Returns:
        An ONNX file of the same function, with the same input and output.

    Raises:
        InvalidInputError: it is no model that Interlock supports.
    """
    model = load_model(content)
    rewritten = rewrite(model, products=products)
    if [node.op_type for node in rewritten.graph.node] == [node.op_type for node in model.graph.node]:
        return content
    return rewritten.SerializeToString(deterministic=True)


def rewrite(model: onnx.ModelProto, *, products: bool = False) -> onnx.ModelProto:
    """Return a copy of a loaded model with other nodes and weights; see :func:`rewrite_for_proving`.

    The tensors that there were keep their names. No shapes are inferred: load it again for them.
    """
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model)
    graph = rewritten.graph
    weights = {weight.name: weight for weight in graph.initializer}
    shapes = tensor_shapes(model)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        replace = _REPLACEMENTS.get(node.op_type) if products or node.op_type != "Conv" else None
        replaced = None if replace is None else replace(node, shapes, weights)
        nodes += [node] if replaced is None else replaced.nodes
        graph.initializer.extend(() if replaced is None else replaced.weights)
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    _drop_unused(graph)
    return rewritten


@dataclass
class _Replacement:
    """Nodes in place of one. What is new is named after the tensor that they make."""

    name: str
    nodes: list[onnx.NodeProto]
    weights: list[onnx.TensorProto]

    def weight(self, values: NDArray[np.generic], label: str) -> str:
        name = f"{self.name}:{label}"
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def add(self, operator: str, inputs: Sequence[str], label: str = "", **attributes: Any) -> str:
        """Add a node. The one without a label makes the tensor that is replaced."""
        name = f"{self.name}:{label}" if label else self.name
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def reshape(self, tensor: str, shape: Sequence[int], label: str = "") -> str:
        return self.add("Reshape", [tensor, self.weight(np.array(shape, dtype=np.int64), f"shape{label}")], label)


def _product_of_patches(
    node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], weights: dict[str, onnx.TensorProto]
) -> _Replacement | None:
    """Replace a convolution by a matrix product, where that saves cells."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    kernel = shapes[node.input[1]]
    source, sink = shapes[node.input[0]], shapes[node.output[0]]
    patch, positions = math.prod(kernel[1:]), math.prod(sink) // kernel[0]
    saved = patch * kernel[0] * positions - patch * kernel[0] - (patch + kernel[0]) * positions
    is_plain = attributes.get("group", 1) == 1 and attributes.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID")
    constant = all(name in weights for name in node.input[1:] if name)
    if not (is_plain and constant and saved >= MIN_SAVED_CELLS and positions > 1 and kernel[0] > 1):
        return None
    made = _Replacement(node.output[0], [], [])
    picks = patches(source, kernel, sink, attributes)
    values = made.reshape(node.input[0], [1, math.prod(source)], "flat")
    if picks.max() >= math.prod(source):
        values = made.add("Concat", [values, made.weight(np.zeros((1, 1), np.float32), "zero")], "padded", axis=1)
    values = made.add("Gather", [values, made.weight(picks.reshape(-1), "picks")], "picked", axis=1)
    values = made.reshape(values, [patch, positions], "patches")
    matrix = numpy_helper.to_array(weights[node.input[1]]).reshape(kernel[0], patch)
    values = made.add("MatMul", [made.weight(matrix, "matrix"), values], "product")
    if len(node.input) > 2 and node.input[2]:
        bias = numpy_helper.to_array(weights[node.input[2]]).reshape(kernel[0], 1)
        values = made.add("Add", [values, made.weight(bias, "bias")], "sum")
    if source[0] == 1:
        made.reshape(values, sink)
    else:  # the product has channels first
        swapped = (kernel[0], source[0], *sink[2:])
        values = made.reshape(values, swapped, "channels")
        made.nodes.append(
            helper.make_node("Transpose", [values], [made.name], name=made.name, perm=[1, 0, *range(2, len(sink))])
        )
    return made


def patches(
    source: Sequence[int], kernel: Sequence[int], sink: Sequence[int], attributes: dict[str, Sequence[int]]
) -> NDArray[np.int64]:
    """Say which input element each weight of a convolution meets at each output position.

    Args:
        source, kernel, sink: shapes of input, weights and output.
        attributes: of the convolution: pads, strides, dilations.

    Returns:
        (weights per output channel, batch x positions); where a weight meets padding, the number of input elements.
    """
    rank = len(source) - 2
    pads = attributes.get("pads") or [0] * (2 * rank)
    strides, dilations = (attributes.get(name) or [1] * rank for name in ("strides", "dilations"))
    numbers = np.arange(math.prod(source), dtype=np.int64).reshape(source)
    around = [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)]
    padded = np.pad(numbers, around, constant_values=math.prod(source))
    met = []
    for offset in np.ndindex(*kernel[2:]):
        starts = [at * dilation for at, dilation in zip(offset, dilations, strict=True)]
        window = tuple(
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(starts, sink[2:], strides, strict=True)
        )
        met.append(padded[(slice(None), slice(None), *window)])  # (batch, channels, *positions)
    stacked = np.stack(met, axis=2)  # (batch, channels, weights, *positions)
    return np.moveaxis(stacked, 0, 2).reshape(math.prod(kernel[1:]), -1)


def _sum_of_slices(
    node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]], weights: dict[str, onnx.TensorProto]
) -> _Replacement | None:
    """Replace an average over a power of two of elements by a sum and a product."""
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    kernel = attributes["kernel_shape"]
    count = math.prod(kernel)
    has_gaps = any(attributes.get("pads", ())) or any(step > 1 for step in attributes.get("dilations", ()))
    is_plain = not has_gaps and not attributes.get("ceil_mode") and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
    if not is_plain or count.bit_count() != 1 or not 1 < count <= MAX_AVERAGED:
        return None
    made = _Replacement(node.output[0], [], [])
    size = shapes[node.output[0]][2:]
    strides = attributes.get("strides") or [1] * len(kernel)
    axes = made.weight(np.arange(2, 2 + len(kernel), dtype=np.int64), "axes")
    steps = made.weight(np.array(strides, dtype=np.int64), "steps")
    total = ""
    for number, offset in enumerate(np.ndindex(*kernel)):
        begin = np.array(offset, dtype=np.int64)
        end = begin + (np.array(size) - 1) * np.array(strides) + 1
        bounds = [made.weight(begin, f"begin{number}"), made.weight(end.astype(np.int64), f"end{number}")]
        part = made.add("Slice", [node.input[0], *bounds, axes, steps], f"part{number}")
        total = made.add("Add", [total, part], f"sum{number}") if total else part
    made.add("Mul", [total, made.weight(np.array([1 / count], dtype=np.float32), "share")])
    return made


_Replace = Callable[[onnx.NodeProto, dict[str, tuple[int, ...]], dict[str, onnx.TensorProto]], _Replacement | None]
_REPLACEMENTS: dict[str, _Replace] = {"Conv": _product_of_patches, "AveragePool": _sum_of_slices}


def _drop_unused(graph: onnx.GraphProto) -> None:
    used = {name for node in graph.node for name in node.input}
    kept = [weight for weight in graph.initializer if weight.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)

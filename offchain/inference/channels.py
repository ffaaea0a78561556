"""Cuts a wide layer by output channels, so that a segment may end in the midst of it.

A chain of segments has one tensor between neighbours. So a part of a layer puts out, beside its own channels, whatever
the parts behind it still need: the channels that are done, and the layer's input, or, where the layer is one that takes
each channel by itself, the channels that are not done. All parts are proved at once, since values are known when the
proofs begin. Where no segment ends in the midst, what is carried costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from offchain.errors import InvalidInputError
from offchain.inference.onnx_model import load_model, tensor_shapes

MAX_GROUPS = 16
CHANNELWISE = frozenset({"Relu", "LeakyRelu", "AveragePool", "MaxPool"})
"""Operators whose output channels depend on the input's channel of the same number only."""


@dataclass(frozen=True)
class WideLayer:
    """Neighbouring operators that can be cut together.

    Attributes:
        name: of the tensor that the first of them makes.
        nodes: a convolution or a linear layer, if ``is_layer``, and the operators behind it that are channelwise.
        channels: that its outputs have.
        products: multiply-accumulates of the layer.
        activations: values that pass a ReLU.
    """

    name: str
    nodes: tuple[onnx.NodeProto, ...]
    is_layer: bool
    channels: int
    products: int
    activations: int


def wide_layers(model: onnx.ModelProto) -> tuple[WideLayer, ...]:
    """List what can be cut by channels in a loaded model: each layer, and what is channelwise behind it, by itself."""
    shapes = tensor_shapes(model)
    weights = {weight.name for weight in model.graph.initializer}
    users: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    found = []
    for node in model.graph.node:
        is_layer = _is_layer(node, weights)
        if not is_layer and node.op_type not in CHANNELWISE:
            continue
        chain = [node]
        while len(following := users.get(chain[-1].output[0], [])) == 1 and following[0].op_type in CHANNELWISE:
            chain.append(following[0])
        elements = [math.prod(shapes[each.output[0]]) for each in chain]
        inner = math.prod(shapes[node.input[1]]) // shapes[node.output[0]][1] if is_layer else 0
        active = sum(size for each, size in zip(chain, elements, strict=True) if "Relu" in each.op_type)
        channels = shapes[node.output[0]][1]
        found.append(WideLayer(node.output[0], tuple(chain), is_layer, channels, inner * elements[0], active))
    return tuple(found)


def cut_channels(content: bytes, groups: Mapping[str, int]) -> bytes:
    """Cut layers of a model by output channels.

    Args:
        content: an ONNX file.
        groups: into how many parts to cut a layer, by the name of the tensor that it makes.

    Returns:
        An ONNX file of the same function. It can be cut at the tensors ``NAME:part1``, ``NAME:part2`` and so on,
        as far as the model could be cut before and behind the layer.

    Raises:
        InvalidInputError: there is no such layer, or it has too few channels.
    """
    if not groups:
        return content
    model = load_model(content)
    shapes = tensor_shapes(model)
    layers = {layer.name: layer for layer in wide_layers(model)}
    replaced: dict[str, list[onnx.NodeProto]] = {}
    gone: set[str] = set()
    for name, count in groups.items():
        layer = layers.get(name)
        if layer is None:
            raise InvalidInputError("groups", f"{name!r} is no layer that can be cut", f"name one of {_some(layers)}")
        if not 2 <= count <= min(layer.channels, MAX_GROUPS):
            most = min(layer.channels, MAX_GROUPS)
            raise InvalidInputError("groups", f"{name!r} cannot be cut into {count} parts", f"ask for 2 to {most}")
        if gone & {node.output[0] for node in layer.nodes}:
            raise InvalidInputError("groups", f"{name!r} is cut already, with what is before it", "name one of the two")
        cut = _Cut(layer, shapes, {weight.name: weight for weight in model.graph.initializer})
        gone |= {node.output[0] for node in layer.nodes}
        replaced[name] = cut.nodes(count)
        model.graph.initializer.extend(cut.weights)
    nodes = []
    for node in model.graph.node:
        nodes += replaced.get(node.output[0], [] if node.output[0] in gone else [node])
    del model.graph.node[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString(deterministic=True)


class _Cut:
    """Writes the parts of one layer. What is carried lies flat: what is done, then what is still needed."""

    def __init__(
        self, layer: WideLayer, shapes: Mapping[str, tuple[int, ...]], weights: Mapping[str, onnx.TensorProto]
    ) -> None:
        self.weights: list[onnx.TensorProto] = []
        self._layer, self._shapes, self._given = layer, shapes, weights
        self._made: list[onnx.NodeProto] = []
        self._source = shapes[layer.nodes[0].input[0]]
        self._sink = shapes[layer.nodes[-1].output[0]]

    def nodes(self, count: int) -> list[onnx.NodeProto]:
        batch, channels = self._sink[:2]
        per_channel = math.prod(self._sink[2:])
        source_size = math.prod(self._source[1:])
        edges = [round(channels * at / count) for at in range(count + 1)]
        carried = self._reshape(self._layer.nodes[0].input[0], (batch, source_size), "flat")
        done, dropped = 0, 0
        for number, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True), 1):
            rest = source_size - dropped
            parts = [self._slice(carried, 0, done, f"done{number}")] if done else []
            taken = source_size if self._layer.is_layer else source_size * (stop - start) // channels
            values = self._slice(carried, done, done + taken, f"taken{number}") if done or taken < rest else carried
            shape = (batch, *self._source[1:]) if self._layer.is_layer else (batch, stop - start, *self._source[2:])
            values = self._reshape(values, shape, f"shaped{number}")
            for node in self._layer.nodes:
                values = self._apply(node, values, start, stop, number)
            parts.append(self._reshape(values, (batch, (stop - start) * per_channel), f"made{number}"))
            used_up = 0 if self._layer.is_layer else taken
            if number < count:
                parts.append(self._slice(carried, done + used_up, done + rest, f"rest{number}"))
            carried = self._add("Concat", parts, f"part{number}" if number < count else "whole", axis=1)
            done, dropped = done + (stop - start) * per_channel, dropped + used_up
        self._reshape(carried, self._sink, "")
        return self._made

    def _apply(self, node: onnx.NodeProto, values: str, start: int, stop: int, number: int) -> str:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.name = f"{node.output[0]}:of{number}"
        copied.output[0] = copied.name
        copied.input[0] = values
        if self._layer.is_layer and node is self._layer.nodes[0]:
            axis = _output_axis(node)
            copied.input[1] = self._weight(self._part(node.input[1], start, stop, axis), f"weight{number}")
            if len(node.input) > 2 and node.input[2]:
                copied.input[2] = self._weight(self._part(node.input[2], start, stop, -1), f"bias{number}")
        self._made.append(copied)
        return copied.output[0]

    def _part(self, name: str, start: int, stop: int, axis: int) -> NDArray[np.generic]:
        values = numpy_helper.to_array(self._given[name])
        if values.shape[axis] == 1:
            return values  # the same for every channel
        return np.take(values, range(start, stop), axis=axis)

    def _name(self, label: str) -> str:
        return f"{self._layer.name}:{label}" if label else self._layer.nodes[-1].output[0]

    def _weight(self, values: NDArray[np.generic], label: str) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), self._name(label)))
        return self._name(label)

    def _add(self, operator: str, inputs: Sequence[str], label: str, **attributes: Any) -> str:
        name = self._name(label)
        self._made.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def _reshape(self, tensor: str, shape: Sequence[int], label: str) -> str:
        values = self._weight(np.array(shape, dtype=np.int64), f"{label or 'last'}-shape")
        return self._add("Reshape", [tensor, values], label)

    def _slice(self, tensor: str, start: int, stop: int, label: str) -> str:
        bounds = [
            self._weight(np.array([at], dtype=np.int64), f"{label}-{end}")
            for at, end in ((start, "from"), (stop, "to"))
        ]
        return self._add(
            "Slice", [tensor, *bounds, self._weight(np.array([1], dtype=np.int64), f"{label}-axis")], label
        )


def _is_layer(node: onnx.NodeProto, weights: set[str]) -> bool:
    if node.op_type not in ("Conv", "Gemm") or not all(name in weights for name in node.input[1:] if name):
        return False
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return attributes.get("group", 1) == 1 and not attributes.get("transA", 0)


def _output_axis(node: onnx.NodeProto) -> int:
    is_transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or is_transposed else 1


def _some(names: Mapping[str, object]) -> str:
    return ", ".join(list(names)[:8]) or "(there is none)"

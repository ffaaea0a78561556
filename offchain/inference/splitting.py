"""Cuts a model into segments at tensors through which the whole graph passes.

A boundary is one tensor, because a link commits to one activation. A tensor qualifies when every path from the
model's input to its output runs through it: then each operator lies either before or behind it, and nothing else
crosses.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import onnx
from onnx import helper, numpy_helper

from offchain.errors import InvalidInputError
from offchain.inference.costs import node_cost
from offchain.inference.onnx_model import LAYER_OPERATORS, tensor_shapes

INPUT_NAME = "input"
OUTPUT_NAME = "output"
# IR 8 belongs to opset 17; every runtime in use reads it.
_SEGMENT_IR_VERSION = 8
_NAMED_CUTS = 12  # how many possible cuts an error lists
_IMBALANCE_FOR_SMALLER_BOUNDARIES = 1.1


@dataclass(frozen=True)
class Cut:
    """A tensor at which a model can be cut.

    Attributes:
        name: of the tensor in the ONNX graph.
        shape: with the batch dimension 1.
        elements: how many field elements would cross the boundary.
        cost_before: estimated cost of everything before it, in multiply-accumulates.
        ends_layer: whether a layer begins behind it, so that activations stay with the layer that they follow.
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    cost_before: int
    ends_layer: bool


@dataclass(frozen=True)
class _Flow:
    """The part of a graph that turns the input into the output, and the constants apart from it."""

    nodes: tuple[onnx.NodeProto, ...]
    folded: tuple[onnx.NodeProto, ...]
    costs: tuple[int, ...]
    shapes: dict[str, tuple[int, ...]]
    input: str
    output: str

    def names(self) -> set[str]:
        return {self.input, *(node.output[0] for node in self.nodes)}


def find_cuts(model: onnx.ModelProto) -> tuple[Cut, ...]:
    """List every tensor at which a loaded model can be cut, in order of execution.

    Args:
        model: from :func:`offchain.inference.onnx_model.load_model`.
    """
    return _cuts(_trace(model))


def total_cost(model: onnx.ModelProto) -> int:
    """Estimate the cost of a whole loaded model in multiply-accumulates."""
    return sum(_trace(model).costs)


def choose_cuts(model: onnx.ModelProto, segments: int) -> tuple[str, ...]:
    """Choose cuts that balance the estimated cost of the segments.

    The dearest segment is kept within 10 % of the best possible; among such choices the boundaries are as small as
    possible. A cut never parts an activation or a reshape from the layer that it follows.

    Args:
        model: from :func:`offchain.inference.onnx_model.load_model`.
        segments: how many segments, at least 1.

    Raises:
        InvalidInputError: the model has too few layers for so many segments.
    """
    flow = _trace(model)
    usable = [cut for cut in _cuts(flow) if cut.ends_layer]
    if not 1 <= segments <= len(usable) + 1:
        raise InvalidInputError(
            "segments",
            f"{segments} segments cannot be made of {len(usable) + 1} separable layers",
            f"ask for 1 to {len(usable) + 1} segments, or name cuts out of {_listed(_cuts(flow))}",
        )
    positions = [0, *(cut.cost_before for cut in usable), sum(flow.costs)]
    sizes = [0, *(cut.elements for cut in usable), 0]
    chosen = _balance(positions, sizes, segments)
    return tuple(usable[index - 1].name for index in chosen)


def split(model: onnx.ModelProto, cut_names: Sequence[str]) -> tuple[bytes, ...]:
    """Cut a loaded model into ONNX segments whose input and output are named ``input`` and ``output``.

    The bytes depend on the computation alone, not on the names or notes of the exporter.

    Args:
        model: from :func:`offchain.inference.onnx_model.load_model`.
        cut_names: names of tensors out of :func:`find_cuts`, in order of execution.

    Raises:
        InvalidInputError: a name is no tensor through which the whole graph passes, or the order is wrong.
    """
    flow = _trace(model)
    order = [cut.name for cut in _cuts(flow)]
    for index, name in enumerate(cut_names):
        if name not in order:
            raise _refuse_cut(flow, index, name)
    expected = sorted(set(cut_names), key=order.index)
    if list(cut_names) != expected:
        raise InvalidInputError("cuts", "repeat a tensor or are out of order", f"give them as {', '.join(expected)}")
    segments = []
    start, first = flow.input, 0
    for end in (*cut_names, flow.output):
        last = next(i for i, node in enumerate(flow.nodes) if node.output[0] == end) + 1
        segments.append(_build_segment(model, flow, flow.nodes[first:last], start, end))
        start, first = end, last
    return tuple(segments)


def _trace(model: onnx.ModelProto) -> _Flow:
    graph = model.graph
    source, sink = graph.input[0].name, graph.output[0].name
    moving = {source}
    for node in graph.node:
        if moving & set(node.input):
            moving.add(node.output[0])
    if sink not in moving or sink == source:
        raise InvalidInputError("model.graph.output", "does not depend on the input", "return a computed tensor")
    needed = {sink}
    for node in reversed(graph.node):
        if node.output[0] in needed:
            needed.update(node.input)
    wanted = [node for node in graph.node if node.output[0] in needed]
    nodes = tuple(node for node in wanted if node.output[0] in moving)
    shapes = tensor_shapes(model)
    return _Flow(
        nodes=nodes,
        folded=tuple(node for node in wanted if node.output[0] not in moving),
        costs=tuple(node_cost(node, shapes) for node in nodes),
        shapes=shapes,
        input=source,
        output=sink,
    )


def _cuts(flow: _Flow) -> tuple[Cut, ...]:
    remaining: dict[str, int] = {}
    for node in flow.nodes:
        for name in set(node.input):
            remaining[name] = remaining.get(name, 0) + 1
    begins_layer = {name for node in flow.nodes if node.op_type in LAYER_OPERATORS for name in node.input}
    live, cost, cuts = {flow.input}, 0, []
    for node, price in zip(flow.nodes, flow.costs, strict=True):
        cost += price
        live.add(node.output[0])
        for name in set(node.input):
            remaining[name] -= 1
            if not remaining[name]:
                live.discard(name)
        name = node.output[0]
        if live == {name} and name != flow.output:
            shape = flow.shapes[name]
            # Where a tensor forks (a residual connection begins), a new layer begins too.
            cuts.append(Cut(name, shape, math.prod(shape), cost, name in begins_layer or remaining[name] > 1))
    return tuple(cuts)


def _balance(positions: list[int], sizes: list[int], segments: int) -> list[int]:
    """Choose ``segments - 1`` inner indices of ``positions``; see :func:`choose_cuts` for what is minimised."""
    least = _least(positions, sizes, segments, limit=None)[0][0]
    return _least(positions, sizes, segments, limit=least * _IMBALANCE_FOR_SMALLER_BOUNDARIES)[1]


def _least(
    positions: list[int], sizes: list[int], segments: int, limit: float | None
) -> tuple[tuple[int, int], list[int]]:
    """Without a limit minimise the dearest segment; with one, the boundaries and then the sum of squares below it."""
    end = len(positions) - 1
    best: dict[int, tuple[tuple[int, int], list[int]]] = {0: ((0, 0), [])}
    for made in range(1, segments + 1):
        reached: dict[int, tuple[tuple[int, int], list[int]]] = {}
        for stop in range(made, end + 1):
            if (made == segments) != (stop == end):
                continue
            for start, ((major, minor), chosen) in best.items():
                cost = positions[stop] - positions[start]
                if start >= stop or (limit is not None and cost > limit):
                    continue
                score = (max(major, cost), 0) if limit is None else (major + sizes[stop], minor + cost * cost)
                if stop not in reached or score < reached[stop][0]:
                    reached[stop] = (score, [*chosen, stop])
        best = reached
    score, chosen = best[end]
    return score, chosen[:-1]


def _listed(cuts: Iterable[Cut]) -> str:
    names = [cut.name for cut in cuts]
    if not names:
        return "(the graph has no tensor through which all of it passes)"
    more = f" and {len(names) - _NAMED_CUTS} more" if len(names) > _NAMED_CUTS else ""
    return ", ".join(names[:_NAMED_CUTS]) + more


def _refuse_cut(flow: _Flow, index: int, name: str) -> InvalidInputError:
    mend = f"cut at one of {_listed(_cuts(flow))}, or ask for fewer segments"
    if name not in flow.names():
        problem = f"{name!r} is not a tensor between the input and the output"
    elif name in (flow.input, flow.output):
        problem = f"{name!r} is the model's own input or output"
    else:
        crossing = " and ".join(repr(other) for other in _crossing(flow, name))
        problem = f"{name!r} is not all that crosses there: a residual or parallel connection also carries {crossing}"
    return InvalidInputError(f"cuts[{index}]", problem, mend)


def _crossing(flow: _Flow, name: str) -> list[str]:
    """Name the tensors that bypass ``name``: made by what it depends on, used by what it does not depend on."""
    before = {name}
    for node in reversed(flow.nodes):
        if node.output[0] in before:
            before.update(node.input)
    used_behind = {used for node in flow.nodes if node.output[0] not in before for used in node.input}
    return sorted((before & used_behind & flow.names()) - {name})


def _build_segment(model: onnx.ModelProto, flow: _Flow, nodes: Sequence[onnx.NodeProto], start: str, end: str) -> bytes:
    needed = {name for node in nodes for name in node.input}
    constants = []
    for node in reversed(flow.folded):
        if node.output[0] in needed:
            needed.update(node.input)
            constants.append(node)
    ordered = [*reversed(constants), *nodes]
    names = {"": "", start: INPUT_NAME, end: OUTPUT_NAME}
    weights = {weight.name: weight for weight in model.graph.initializer}
    used = dict.fromkeys(name for node in ordered for name in node.input if name in weights)
    names.update({name: f"w{index}" for index, name in enumerate(used)})
    for index, node in enumerate(ordered):
        names.setdefault(node.output[0], f"t{index}")
    graph = helper.make_graph(
        [_rename(node, index, names) for index, node in enumerate(ordered)],
        "segment",
        [helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.FLOAT, flow.shapes[start])],
        [helper.make_tensor_value_info(OUTPUT_NAME, onnx.TensorProto.FLOAT, flow.shapes[end])],
        [_plain_tensor(weights[name], names[name]) for name in used],
    )
    opset = helper.make_opsetid("", model.opset_import[0].version)
    segment = helper.make_model(graph, opset_imports=[opset], ir_version=_SEGMENT_IR_VERSION, producer_name="")
    return segment.SerializeToString(deterministic=True)


def _rename(node: onnx.NodeProto, index: int, names: dict[str, str]) -> onnx.NodeProto:
    renamed = onnx.NodeProto(op_type=node.op_type, name=f"n{index}")
    renamed.input.extend(names[name] for name in node.input)
    renamed.output.append(names[node.output[0]])
    for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
        copied = renamed.attribute.add()
        copied.CopyFrom(attribute)
        copied.ClearField("doc_string")
        if copied.HasField("t"):
            copied.t.CopyFrom(_plain_tensor(attribute.t, ""))
    return renamed


def _plain_tensor(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    """Store a tensor's values in one way; exporters choose between several."""
    return numpy_helper.from_array(numpy_helper.to_array(tensor), name)

"""Finds the stretches of a model between operators of which no circuit is made. Runs in a child process only."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx
from onnx.utils import Extractor

from offchain.errors import InvalidInputError
from offchain.inference.onnx_model import ALLOWED_OPERATORS, load_model, shape_of
from offchain.planning.pieces import Unprovable

_MEND = "export with fixed shapes and opset 17; plan a model with layers that a circuit can hold"


def elements(shape: Sequence[int]) -> int:
    """How many elements a tensor of a batch of one has."""
    return math.prod(shape)


def find_stretches(content: bytes) -> tuple[list[tuple[bytes, bool]], list[Unprovable]]:
    """Return the ONNX files of the stretches, each with whether it is the whole model, and what is left out.

    Raises:
        InvalidInputError: nothing can be proved, or the file is no ONNX file.
    """
    try:
        load_model(content)
        return [(content, True)], []
    except InvalidInputError as error:
        refusal = error
    model = _read(content, refusal)
    unprovable = [
        Unprovable(node.name or node.output[0], node.op_type, reason)
        for node in model.graph.node
        if (reason := _reason(node))
    ]
    if not unprovable:
        raise refusal
    stretches: list[tuple[bytes, bool]] = []
    extractor = Extractor(model)
    for start, end in _spans(model):
        try:
            part = extractor.extract_model([start], [end]).SerializeToString(deterministic=True)
            load_model(part)
        except (InvalidInputError, ValueError) as error:
            unprovable.append(Unprovable(f"{start} to {end}", "", str(error)[:300]))
        else:
            stretches.append((part, False))
    if not stretches:
        raise InvalidInputError(refusal.field, f"{refusal.problem}, and no part beside it can be proved", _MEND)
    return stretches, unprovable


def _read(content: bytes, refusal: InvalidInputError) -> onnx.ModelProto:
    """Parse leniently: a batch of one, and shapes as far as they can be told."""
    try:
        model = onnx.load_from_string(content)
        weights = {weight.name for weight in model.graph.initializer}
        inputs = [value for value in model.graph.input if value.name not in weights]
        for value in (*inputs, *model.graph.output):
            dimensions = value.type.tensor_type.shape.dim
            if dimensions and not dimensions[0].HasField("dim_value"):
                dimensions[0].dim_value = 1
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # protobuf's and onnx's exceptions share no closer base
        raise refusal from error


def _reason(node: onnx.NodeProto) -> str:
    if node.domain not in ("", "ai.onnx"):
        return f"is of the custom domain {node.domain!r}"
    if node.op_type not in ALLOWED_OPERATORS:
        return "is not a supported operator"
    if len([name for name in node.output if name]) != 1:
        return "does not have exactly one output"
    return ""


def _spans(model: onnx.ModelProto) -> list[tuple[str, str]]:
    """Return the longest spans between tensors through which the whole graph passes, without a refused node."""
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    inputs = [value.name for value in graph.input if value.name not in weights]
    shaped = {
        value.name
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        and len(shape := shape_of(value)) >= 2
        and shape[0] == 1
        and min(shape) > 0
    }
    moving = set(inputs)
    nodes = []
    for node in graph.node:
        if moving & set(node.input):
            moving.update(name for name in node.output if name)
            nodes.append(node)
    uses: dict[str, int] = {}
    for node in nodes:
        for name in set(node.input) & moving:
            uses[name] = uses.get(name, 0) + 1
    spans: list[tuple[str, str]] = []
    live = set(inputs)
    start = inputs[0] if len(inputs) == 1 and inputs[0] in shaped else None
    end: str | None = None
    for node in nodes:
        if _reason(node):
            spans += _span(start, end)
            start = end = None
        live.update(name for name in node.output if name)
        for name in set(node.input) & moving:
            uses[name] -= 1
            if not uses[name]:
                live.discard(name)
        [only] = live if len(live) == 1 else [None]
        if only in shaped and only == node.output[0]:
            if start is None:
                start = only
            else:
                end = only
    return spans + _span(start, end)


def _span(start: str | None, end: str | None) -> list[tuple[str, str]]:
    return [(start, end)] if start is not None and end is not None else []

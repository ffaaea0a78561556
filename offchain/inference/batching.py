"""Writes a network for one input as a network for several at once: a batch is one job, one proof per segment.

Every tensor that depends on the input becomes the tensors of the single inputs, one behind the other along its first
dimension. An operator keeps that order, or it mixes inputs and is refused by name. Constants that cover the first
dimension are repeated. What comes out is run beside what went in, row by row, before anyone sees it.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from offchain.errors import InvalidInputError
from offchain.inference.execution import open_session, run_float
from offchain.inference.onnx_model import MAX_BATCH, MAX_MODEL_BYTES, input_shape, load_model, tensor_shapes
from offchain.sandbox import run_limited

TIMEOUT_SECONDS = 120.0
MEMORY_BYTES = 4 << 30
TOLERANCE = 1e-4
"""Relative to the largest output: a library adds in another order where there are more rows."""
_TO_THE_END = np.iinfo(np.int64).max
_MEND = "register it without a batch, or write the model so that its first dimension is the batch throughout"

Shape = tuple[int, ...]


def with_batch(content: bytes, size: int) -> bytes:
    """Return the same network over ``size`` inputs at once, which stand one behind the other in its first dimension.

    Args:
        content: an ONNX file, of one input or already of ``size``; it is parsed in a killable child process.
        size: 1 to ``MAX_BATCH``; with 1 the file is returned as it is.

    Raises:
        InvalidInputError: the file is no model that Interlock supports, or an operator mixes the inputs of a batch.
        NativeCallFailed: the parser crashed, or reached its limits.
    """
    if not 1 <= size <= MAX_BATCH:
        raise InvalidInputError("batch", f"{size} is out of bounds", f"ask for 1 to {MAX_BATCH} inputs")
    if len(content) > MAX_MODEL_BYTES:
        raise InvalidInputError("model", f"has {len(content)} bytes, over {MAX_MODEL_BYTES}", "use a smaller model")
    payload = {"content": base64.b64encode(content).decode(), "size": size}
    answer = run_limited(
        f"{__name__}:with_batch_payload", payload, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=MEMORY_BYTES
    )
    return base64.b64decode(answer["content"])


# --- in the child -----------------------------------------------------------------------------------------------


def with_batch_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """Serve :func:`with_batch` in the child."""
    content, size = base64.b64decode(payload["content"]), int(payload["size"])
    model = load_model(content)
    found = input_shape(model)[0]
    if found not in (1, size) and size != 1:
        problem = f"takes {found} inputs at once already"
        raise InvalidInputError("model.graph.input", problem, f"ask for a batch of {found}, or export it with one")
    if found == size == 1:
        return {"content": payload["content"]}
    if found > 1:
        check_rows_apart(content)
        return {"content": payload["content"]}
    batched = batch_model(model, size).SerializeToString(deterministic=True)
    load_model(batched)
    _compare(model.SerializeToString(deterministic=True), batched, size)
    return {"content": base64.b64encode(batched).decode()}


def batch_model(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """Rewrite a loaded model of one input for ``size`` inputs.

    Args:
        model: from :func:`offchain.inference.onnx_model.load_model`.

    Raises:
        InvalidInputError: an operator mixes inputs, or cannot be written for several; ``field`` names the node.
    """
    writer = _Writer(model, size)
    graph = model.graph
    nodes = [writer.rewrite(index, node) for index, node in enumerate(graph.node)]
    given, returned = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, writer.batched(name))
        for name in (graph.input[0].name, graph.output[0].name)
    )
    batched = helper.make_graph(nodes, graph.name or "batch", [given], [returned], [*graph.initializer, *writer.added])
    return helper.make_model(
        batched,
        opset_imports=[helper.make_opsetid("", model.opset_import[0].version)],
        ir_version=model.ir_version,
    )


def check_rows_apart(content: bytes) -> None:
    """Check that a model of several inputs at once answers each of them whatever the others are.

    Raises:
        InvalidInputError: an output changes with another input of the batch.
    """
    session = open_session(content)
    [entry] = session.get_inputs()
    drawn = np.random.default_rng(0)
    first, other = (drawn.normal(size=entry.shape).astype(np.float32) for _ in range(2))
    expected = session.run(None, {entry.name: first})[0]
    for row in range(len(first)):
        mixed = other.copy()
        mixed[row] = first[row]
        found = session.run(None, {entry.name: mixed})[0]
        if not _close(found[row], expected[row], expected):
            problem = f"output {row} depends on other inputs of the batch too"
            raise InvalidInputError("model.graph", problem, _MEND)


def _compare(single: bytes, batched: bytes, size: int) -> None:
    """Run both on the same inputs."""
    shape = load_model(batched).graph.input[0].type.tensor_type.shape.dim[1:]
    inputs = np.random.default_rng(0).normal(size=(size, *(it.dim_value for it in shape))).astype(np.float32)
    expected, found = run_float(single, inputs), run_float(batched, inputs)
    if expected.shape != found.shape or not _close(found, expected, expected):
        raise InvalidInputError("model.graph", "answers otherwise in a batch than alone", _MEND)


def _close(found: NDArray[np.float32], expected: NDArray[np.float32], scale: NDArray[np.float32]) -> bool:
    return bool(np.abs(found - expected).max() <= TOLERANCE * max(float(np.abs(scale).max()), 1e-6))


@dataclass
class _Writer:
    """Rewrites nodes one by one, in order of execution.

    Attributes:
        shapes: of every tensor of the model for one input.
        moving: the tensors that depend on the input; the others are constants.
        added: new constants.
    """

    model: onnx.ModelProto
    size: int
    shapes: dict[str, Shape] = field(init=False)
    moving: set[str] = field(init=False)
    constants: dict[str, onnx.TensorProto] = field(init=False)
    added: list[onnx.TensorProto] = field(default_factory=list)

    def __post_init__(self) -> None:
        graph = self.model.graph
        self.shapes = tensor_shapes(self.model)
        self.moving = {graph.input[0].name}
        self.constants = {weight.name: weight for weight in graph.initializer}
        for node in graph.node:
            values = _attributes(node).get("value") if node.op_type == "Constant" else None
            if isinstance(values, onnx.TensorProto):
                self.constants[node.output[0]] = values

    def rewrite(self, index: int, node: onnx.NodeProto) -> onnx.NodeProto:
        """Return the node for a batch."""
        if not self.moving & set(node.input):
            return node
        rule = _RULES.get(node.op_type)
        operation = _Operation(
            self, node, f"model.graph.node[{index}] ({node.op_type} {node.name or node.output[0]!r})"
        )
        if rule is None or not self.shapes[node.output[0]]:
            raise operation.refuse("cannot be written for several inputs")
        rewritten = rule(operation)
        self.moving.add(node.output[0])
        return rewritten

    def batched(self, name: str) -> Shape:
        """The shape that a tensor has for the whole batch."""
        first, *others = self.shapes[name]
        return (self.size * first, *others)

    def constant(self, values: NDArray[Any]) -> str:
        """Add a constant; returns its name."""
        name = f"batch:{len(self.added)}"
        self.added.append(numpy_helper.from_array(values, name))
        return name


@dataclass(frozen=True)
class _Operation:
    """One node that the input runs through."""

    writer: _Writer
    node: onnx.NodeProto
    place: str

    @property
    def attributes(self) -> dict[str, Any]:
        return _attributes(self.node)

    @property
    def opset(self) -> int:
        return int(self.writer.model.opset_import[0].version)

    def refuse(self, problem: str) -> InvalidInputError:
        return InvalidInputError(self.place, problem, _MEND)

    def shape(self, at: int) -> Shape:
        return self.writer.shapes[self.node.input[at]]

    def moves(self, at: int) -> bool:
        return at < len(self.node.input) and self.node.input[at] in self.writer.moving

    def only_first_moves(self) -> None:
        if not self.moves(0) or any(self.moves(at) for at in range(1, len(self.node.input))):
            raise self.refuse("takes its parameters out of the input")

    def values(self, at: int) -> NDArray[Any] | None:
        """The constant at an input; None if there is none."""
        if at >= len(self.node.input) or not self.node.input[at]:
            return None
        name = self.node.input[at]
        if name not in self.writer.constants:
            raise self.refuse(f"takes {name!r}, which is neither stored nor made of the input")
        return numpy_helper.to_array(self.writer.constants[name])

    def axes(self, at: int = 1) -> list[int] | None:
        """Axes out of the attribute, or of the input that newer operators take; None if all are meant."""
        listed = self.attributes.get("axes")
        if listed is None:
            values = self.values(at)
            listed = None if values is None else values.tolist()
        rank = len(self.shape(0))
        return None if not listed else [int(axis) % rank for axis in listed]

    def replaced(self, inputs: dict[int, str]) -> onnx.NodeProto:
        """Return the node with other inputs."""
        copied = onnx.NodeProto()
        copied.CopyFrom(self.node)
        for at, name in inputs.items():
            copied.input[at] = name
        return copied

    def as_reshape(self) -> onnx.NodeProto:
        """Return a reshape to what the node makes of each input."""
        target = self.writer.constant(np.array(self.writer.batched(self.node.output[0]), dtype=np.int64))
        return helper.make_node("Reshape", [self.node.input[0], target], list(self.node.output), name=self.node.name)

    def repeated(self, at: int) -> str:
        """Return a constant that holds the one at an input once per input of the batch."""
        values = self.values(at)
        assert values is not None
        return self.writer.constant(np.concatenate([values] * self.writer.size, axis=0))

    def broadcast(self, *, whole: int = 0) -> onnx.NodeProto:
        """Line operands up by their first dimension; ``whole``: so many last dimensions do not broadcast."""
        result = self.writer.shapes[self.node.output[0]]
        changed = {}
        for at, name in enumerate(self.node.input):
            if not name:
                continue
            shape = self.writer.shapes[name]
            reaches = len(shape) == len(result)
            if reaches and len(result) <= whole and not self.moves(at):
                raise self.refuse("mixes the first dimension of its input with a constant")
            if self.moves(at) and not (reaches and shape[0] == result[0] and len(result) > whole):
                raise self.refuse("mixes the inputs of a batch: their first dimension meets another one")
            if not self.moves(at) and reaches and shape[0] > 1:
                changed[at] = self.repeated(at)
        return self.replaced(changed)


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


# --- one rule per kind of operator --------------------------------------------------------------------------------


def _elementwise(it: _Operation) -> onnx.NodeProto:
    return it.broadcast()


def _per_input(it: _Operation) -> onnx.NodeProto:
    """Convolutions, pools and the like: the first dimension is a batch by definition."""
    it.only_first_moves()
    return it.node


def _gemm(it: _Operation) -> onnx.NodeProto:
    it.only_first_moves()
    if it.attributes.get("transA"):
        raise it.refuse("mixes the inputs of a batch: it transposes them")
    covers = len(it.node.input) > 2 and it.node.input[2] and len(it.shape(2)) == 2 and it.shape(2)[0] > 1
    return it.replaced({2: it.repeated(2)} if covers else {})


def _matmul(it: _Operation) -> onnx.NodeProto:
    if it.moves(0) and not it.moves(1) and len(it.shape(1)) <= 2 <= len(it.shape(0)):
        return it.node
    if len(it.shape(0)) < 2 or len(it.shape(1)) < 2:
        raise it.refuse("mixes the inputs of a batch: it adds up along the first dimension")
    return it.broadcast(whole=2)


def _softmax(it: _Operation) -> onnx.NodeProto:
    axis = int(it.attributes.get("axis", 1 if it.opset < 13 else -1)) % len(it.shape(0))
    if axis == 0:
        raise it.refuse("mixes the inputs of a batch: it adds up along the first dimension")
    return it.node


def _reduce(it: _Operation) -> onnx.NodeProto:
    it.only_first_moves()
    axes = it.axes()
    if axes is None and it.attributes.get("noop_with_empty_axes"):
        return it.node
    if axes is None or 0 in axes:
        raise it.refuse("mixes the inputs of a batch: it adds up along the first dimension")
    return it.node


def _concat(it: _Operation) -> onnx.NodeProto:
    if int(it.attributes["axis"]) % len(it.writer.shapes[it.node.output[0]]) == 0:
        raise it.refuse("mixes the inputs of a batch: it joins along the first dimension")
    return it.replaced({at: it.repeated(at) for at in range(len(it.node.input)) if not it.moves(at)})


def _flatten(it: _Operation) -> onnx.NodeProto:
    axis = int(it.attributes.get("axis", 1))
    return it.node if axis % (len(it.shape(0)) + 1) else it.as_reshape()


def _reshape(it: _Operation) -> onnx.NodeProto:
    it.only_first_moves()
    return it.as_reshape()


def _transpose(it: _Operation) -> onnx.NodeProto:
    order = list(it.attributes.get("perm", reversed(range(len(it.shape(0))))))
    if order[0] != 0:
        raise it.refuse("moves the first dimension, which is the batch's")
    return it.node


def _slice(it: _Operation) -> onnx.NodeProto:
    it.only_first_moves()
    starts, ends, steps = it.values(1), it.values(2), it.values(4)
    assert starts is not None
    assert ends is not None
    axes = it.axes(3) if it.values(3) is not None else list(range(len(starts)))
    if axes is None or 0 not in axes:
        return it.node
    at = axes.index(0)
    if starts[at] != 0 or (steps is not None and steps[at] != 1) or ends[at] < it.shape(0)[0]:
        raise it.refuse("takes a part of the first dimension, which is the batch's")
    widened = ends.astype(np.int64)
    widened[at] = _TO_THE_END
    starts = starts.astype(np.int64)  # both are of one type
    changed = {1: it.writer.constant(starts), 2: it.writer.constant(widened)}
    for place in (3, 4):
        values = it.values(place)
        if values is not None:
            changed[place] = it.writer.constant(values.astype(np.int64))
    return it.replaced(changed)


def _pad(it: _Operation) -> onnx.NodeProto:
    it.only_first_moves()
    pads, rank = it.values(1), len(it.shape(0))
    assert pads is not None
    axes = it.axes(3) if it.values(3) is not None else list(range(rank))
    assert axes is not None
    around = {axis: (pads[at], pads[at + len(axes)]) for at, axis in enumerate(axes)}
    if any(around.get(0, (0, 0))):
        raise it.refuse("adds to the first dimension, which is the batch's")
    return it.node


def _gather(it: _Operation) -> onnx.NodeProto:
    it.only_first_moves()
    if int(it.attributes.get("axis", 0)) % len(it.shape(0)) == 0:
        raise it.refuse("takes a part of the first dimension, which is the batch's")
    return it.node


_RULES: dict[str, Callable[[_Operation], onnx.NodeProto]] = {
    **dict.fromkeys(("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"), _elementwise),
    **dict.fromkeys(("Abs", "Clip", "Exp", "HardSigmoid", "Identity", "LeakyRelu", "Neg", "Relu"), _per_input),
    **dict.fromkeys(("Sigmoid", "Sqrt", "Tanh"), _per_input),
    **dict.fromkeys(("AveragePool", "BatchNormalization", "Conv", "GlobalAveragePool", "MaxPool"), _per_input),
    **dict.fromkeys(("LogSoftmax", "Softmax"), _softmax),
    **dict.fromkeys(("ReduceMean", "ReduceSum"), _reduce),
    **dict.fromkeys(("Reshape", "Squeeze", "Unsqueeze"), _reshape),
    "Concat": _concat,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Pad": _pad,
    "Slice": _slice,
    "Transpose": _transpose,
}

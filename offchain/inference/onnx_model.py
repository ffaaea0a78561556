"""Loads ONNX files that strangers wrote, and refuses whatever Interlock could not run or prove.

The checks bound what later stages meet: no reference to a file, no operator with a body, no shape that is unknown
before the model runs, no tensor too large to hold. :func:`load_model` parses in the calling process; bytes that
nobody vouches for go through :mod:`offchain.inference.untrusted`, which does the same in a killable child.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import AttributeProto, TensorProto, numpy_helper

from offchain.errors import InvalidInputError

MAX_MODEL_BYTES = 64 * 1024 * 1024
MAX_NODES = 2_000
MAX_TENSOR_ELEMENTS = 1 << 24
MAX_RANK = 6
MAX_BATCH = 64
"""Inputs that a model takes at once."""
MIN_OPSET = 11
MAX_OPSET = 18
MAX_IR_VERSION = 10

LAYER_OPERATORS = frozenset({"Conv", "Gemm", "MatMul"})
ARITHMETIC_OPERATORS = frozenset({"Add", "BatchNormalization", "Div", "Mul", "Neg", "Sub"})
ACTIVATION_OPERATORS = frozenset(
    {"Abs", "Clip", "Exp", "HardSigmoid", "LeakyRelu", "LogSoftmax", "Max", "Min", "Pow", "Relu", "Sigmoid", "Softmax"}
    | {"Sqrt", "Tanh"}
)
POOLING_OPERATORS = frozenset({"AveragePool", "GlobalAveragePool", "MaxPool", "ReduceMean", "ReduceSum"})
SHAPE_OPERATORS = frozenset(
    {"Concat", "Constant", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Slice", "Squeeze", "Transpose"}
    | {"Unsqueeze"}
)
ALLOWED_OPERATORS = LAYER_OPERATORS | ARITHMETIC_OPERATORS | ACTIVATION_OPERATORS | POOLING_OPERATORS | SHAPE_OPERATORS
_WEIGHT_TYPES = {TensorProto.FLOAT: 4, TensorProto.INT64: 8}
_EXPORT_MEND = "export with torch.onnx.export(model.eval(), example, opset_version=17, dynamo=False)"


def load_model(content: bytes) -> onnx.ModelProto:
    """Parse and check an ONNX file, and infer the shape of every tensor.

    A symbolic batch dimension of the input is fixed to 1, and weights that are repeated among the inputs (as old
    exporters do) are taken out of them.

    Args:
        content: the file, at most ``MAX_MODEL_BYTES``.

    Returns:
        The model with one float32 input and one float32 output, every tensor's static shape in ``value_info``.

    Raises:
        InvalidInputError: the bytes are not such a model; ``field`` begins with ``model``.
    """
    model = _parse(content)
    _check_versions(model)
    _check_nodes(model.graph)
    _check_weights(model.graph)
    _settle_input(model.graph)
    inferred = _infer_shapes(model)
    _check_tensors(inferred)
    return inferred


def shape_of(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Read a static shape."""
    return tuple(dimension.dim_value for dimension in value.type.tensor_type.shape.dim)


def tensor_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """List the shape of every tensor of a loaded model by name, weights included."""
    graph = model.graph
    shapes = {value.name: shape_of(value) for value in (*graph.input, *graph.value_info, *graph.output)}
    shapes.update({weight.name: tuple(weight.dims) for weight in graph.initializer})
    return shapes


def input_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """Return the shape of the input of a loaded model, the batch dimension included."""
    return shape_of(model.graph.input[0])


def output_shape(model: onnx.ModelProto) -> tuple[int, ...]:
    """Return the shape of the output of a loaded model, the batch dimension included."""
    return shape_of(model.graph.output[0])


def _parse(content: bytes) -> onnx.ModelProto:
    if not content:
        raise InvalidInputError("model", "is empty", "send the bytes of an ONNX file")
    if len(content) > MAX_MODEL_BYTES:
        raise InvalidInputError(
            "model", f"has {len(content)} bytes, the limit is {MAX_MODEL_BYTES}", "register a smaller model"
        )
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except DecodeError as error:
        raise InvalidInputError("model", "is not an ONNX file (malformed protobuf)", _EXPORT_MEND) from error
    if not model.HasField("graph") or not model.graph.node:
        raise InvalidInputError("model.graph", "has no nodes", _EXPORT_MEND)
    return model


def _check_versions(model: onnx.ModelProto) -> None:
    if not 1 <= model.ir_version <= MAX_IR_VERSION:
        raise InvalidInputError(
            "model.ir_version", f"{model.ir_version} is not between 1 and {MAX_IR_VERSION}", _EXPORT_MEND
        )
    for opset in model.opset_import:
        if opset.domain not in ("", "ai.onnx"):
            raise InvalidInputError(
                "model.opset_import", f"uses the custom domain {opset.domain!r}", "use standard ONNX operators only"
            )
    versions = [opset.version for opset in model.opset_import]
    if len(versions) != 1 or not MIN_OPSET <= versions[0] <= MAX_OPSET:
        raise InvalidInputError(
            "model.opset_import", f"{versions} is not one opset from {MIN_OPSET} to {MAX_OPSET}", _EXPORT_MEND
        )
    if model.functions or model.training_info:
        raise InvalidInputError("model", "holds functions or training information", _EXPORT_MEND)


def _check_nodes(graph: onnx.GraphProto) -> None:
    if len(graph.node) > MAX_NODES:
        raise InvalidInputError(
            "model.graph.node", f"has {len(graph.node)} nodes, the limit is {MAX_NODES}", "register a smaller model"
        )
    for index, node in enumerate(graph.node):
        field = f"model.graph.node[{index}] ({node.op_type} {node.name!r})"
        if node.domain not in ("", "ai.onnx"):
            raise InvalidInputError(
                field, f"is of the custom domain {node.domain!r}", "use standard ONNX operators only"
            )
        if node.op_type not in ALLOWED_OPERATORS:
            mend = f"use only {', '.join(sorted(ALLOWED_OPERATORS))}; {_EXPORT_MEND} folds most others away"
            raise InvalidInputError(field, "is not a supported operator", mend)
        if len([name for name in node.output if name]) != 1:
            raise InvalidInputError(field, "does not have exactly one output", _EXPORT_MEND)
        for attribute in node.attribute:
            if attribute.type in (
                AttributeProto.GRAPH,
                AttributeProto.GRAPHS,
                AttributeProto.SPARSE_TENSOR,
                AttributeProto.SPARSE_TENSORS,
            ):
                raise InvalidInputError(
                    field, f"attribute {attribute.name!r} holds a graph or a sparse tensor", "use plain operators"
                )


def _stored_tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, TensorProto]]:
    for weight in graph.initializer:
        yield f"model.graph.initializer {weight.name!r}", weight
    for node in graph.node:
        for attribute in node.attribute:
            for tensor in (*((attribute.t,) if attribute.HasField("t") else ()), *attribute.tensors):
                yield f"attribute {attribute.name!r} of {node.op_type} {node.name!r}", tensor


def _check_weights(graph: onnx.GraphProto) -> None:
    if graph.sparse_initializer:
        raise InvalidInputError("model.graph.sparse_initializer", "holds sparse weights", "store dense weights")
    for field, tensor in _stored_tensors(graph):
        if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
            raise InvalidInputError(
                field, "is stored in another file", "save the model as one file (onnx.save without external data)"
            )
        if tensor.data_type not in _WEIGHT_TYPES:
            name = TensorProto.DataType.Name(tensor.data_type) if tensor.data_type in _known_types() else "unknown"
            raise InvalidInputError(field, f"has the element type {name}", "use float32 weights (int64 for shapes)")
        if any(dimension < 0 for dimension in tensor.dims) or math.prod(tensor.dims) > MAX_TENSOR_ELEMENTS:
            raise InvalidInputError(
                field, f"has the shape {tuple(tensor.dims)}", f"keep tensors below {MAX_TENSOR_ELEMENTS} elements"
            )
        try:
            # Raises when the payload is not as long as the shape says.
            values = numpy_helper.to_array(tensor)
        except Exception as error:  # onnx raises whatever numpy does
            raise InvalidInputError(field, f"cannot be read ({error})", _EXPORT_MEND) from error
        if not np.isfinite(values).all():
            raise InvalidInputError(field, "holds NaN or infinity", "train or clip the weights until all are finite")


def _known_types() -> frozenset[int]:
    return frozenset(TensorProto.DataType.values())


def _settle_input(graph: onnx.GraphProto) -> None:
    weights = {weight.name for weight in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise InvalidInputError(
            "model.graph.input", f"has {len(inputs)} tensors", "merge them into one input tensor (concatenate first)"
        )
    if len(graph.output) != 1:
        raise InvalidInputError(
            "model.graph.output", f"has {len(graph.output)} tensors", "return one tensor from the model"
        )
    for value in (*inputs, *graph.output):
        if value.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise InvalidInputError(f"model {value.name!r}", "is not a float32 tensor", "take and return float32")
    dimensions = inputs[0].type.tensor_type.shape.dim
    if dimensions and not dimensions[0].HasField("dim_value"):
        dimensions[0].dim_value = 1
        # What was inferred for an unknown batch size no longer holds.
        del graph.value_info[:]
        graph.output[0].type.tensor_type.ClearField("shape")
    settled = onnx.ValueInfoProto()
    settled.CopyFrom(inputs[0])
    del graph.input[:]
    graph.input.append(settled)


def _infer_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred)
    except Exception as error:  # ValidationError, InferenceError and plain RuntimeError share no closer base
        cause = " ".join(str(error).split())[:300]
        raise InvalidInputError("model.graph", f"is inconsistent ({cause})", _EXPORT_MEND) from error
    return inferred


def _check_tensors(model: onnx.ModelProto) -> None:
    graph = model.graph
    weights = {weight.name for weight in graph.initializer}
    constants = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    values = {value.name: value for value in (*graph.input, *graph.value_info, *graph.output)}
    for name in [graph.input[0].name, *(node.output[0] for node in graph.node)]:
        value = values.get(name)
        field = f"model tensor {name!r}"
        if value is None or not value.type.tensor_type.HasField("shape"):
            raise InvalidInputError(field, "has no shape before the model runs", _EXPORT_MEND)
        dimensions = value.type.tensor_type.shape.dim
        if not all(dimension.HasField("dim_value") for dimension in dimensions):
            raise InvalidInputError(field, "has a dynamic shape", f"fix every dimension; {_EXPORT_MEND}")
        shape = shape_of(value)
        if len(shape) > MAX_RANK or math.prod(shape) > MAX_TENSOR_ELEMENTS or min(shape, default=1) < 1:
            mend = f"keep to {MAX_RANK} dimensions and between 1 and {MAX_TENSOR_ELEMENTS} elements"
            raise InvalidInputError(field, f"has the shape {shape}", mend)
        if value.type.tensor_type.elem_type != TensorProto.FLOAT and name not in constants | weights:
            raise InvalidInputError(field, "is not float32", "compute in float32 throughout")
    given, returned = input_shape(model), output_shape(model)
    for field, shape in (("model.graph.input", given), ("model.graph.output", returned)):
        if len(shape) < 2 or shape[0] > MAX_BATCH:
            mend = f"make the first dimension a batch of 1, or of up to {MAX_BATCH}"
            raise InvalidInputError(field, f"has the shape {shape}", mend)
    if given[0] != returned[0]:
        problem = f"has the shape {returned}, but the input's first dimension is {given[0]}"
        raise InvalidInputError("model.graph.output", problem, "make the first dimension of both the batch")

"""A network written for several inputs answers each of them as it does alone, or is refused by the node that mixes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from benchmarks.models import Transformer
from offchain.errors import InvalidInputError
from offchain.inference.batching import batch_model, check_rows_apart, with_batch
from offchain.inference.execution import run_float
from offchain.inference.onnx_model import MAX_BATCH, input_shape, load_model, output_shape
from tests.models import Floats, cnn, mlp, model_of, residual

SIZE = 3


def transformer() -> bytes:
    torch.manual_seed(1)
    buffer = io.BytesIO()
    example = (torch.zeros(1, 8, 8),)
    torch.onnx.export(Transformer().eval(), example, buffer, opset_version=17, dynamo=False)  # type: ignore[arg-type]
    return buffer.getvalue()


def drawn(*shape: int) -> Floats:
    return np.random.default_rng(7).standard_normal(shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def merging() -> bytes:
    """Tokens are laid end to end over what was the batch, get a place each, and come back."""
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["tokens"]),  # (1, 4, 6) to (4, 6)
        helper.make_node("Gemm", ["tokens", "weight"], ["mapped"]),
        helper.make_node("Add", ["mapped", "places"], ["placed"]),
        helper.make_node("Unsqueeze", ["placed", "zero"], ["back"]),
        helper.make_node("Slice", ["back", "begin", "end", "zero"], ["whole"]),
        helper.make_node("Concat", ["whole", "tail"], ["joined"], axis=1),
        helper.make_node("Squeeze", ["joined", "zero"], ["plain"]),
        helper.make_node("Unsqueeze", ["plain", "zero"], ["again"]),
        helper.make_node("Flatten", ["again"], ["y"]),
    ]
    weights = {
        "flat": integers(4, 6),
        "weight": drawn(6, 6),
        "places": drawn(4, 6),
        "zero": integers(0),
        "begin": integers(0),
        "end": integers(1),
        "tail": drawn(1, 2, 6),
    }
    return model_of(nodes, weights, [1, 4, 6], [1, 36]).SerializeToString()


def one(operator: str, shape: list[int], result: list[int], *others: np.ndarray, **attributes: Any) -> bytes:
    """One node in the middle, between two that do no harm."""
    weights = {f"c{at}": value for at, value in enumerate(others)}
    nodes = [
        helper.make_node("Relu", ["x"], ["before"]),
        helper.make_node(operator, ["before", *weights], ["behind"], name="culprit", **attributes),
        helper.make_node("Abs", ["behind"], ["y"]),
    ]
    return model_of(nodes, weights, shape, result).SerializeToString()


def product_of_both() -> bytes:
    nodes = [
        helper.make_node("Transpose", ["x"], ["turned"], name="culprit", perm=[1, 0]),
        helper.make_node("MatMul", ["x", "turned"], ["y"]),
    ]
    return model_of(nodes, {}, [1, 4], [1, 1]).SerializeToString()


MIXING: dict[str, Callable[[], bytes]] = {
    "Softmax": lambda: one("Softmax", [1, 4], [1, 4], axis=0),
    "ReduceMean": lambda: one("ReduceMean", [1, 4], [1, 4], axes=[0], keepdims=1),
    "ReduceSum": lambda: one("ReduceSum", [1, 4], [1, 1], keepdims=1),
    "Concat": lambda: one("Concat", [1, 4], [2, 4], drawn(1, 4), axis=0),
    "Transpose": product_of_both,
    "Slice": lambda: one("Slice", [1, 4], [1, 4], integers(-1), integers(9), integers(0)),
    "Gather": lambda: one("Gather", [1, 4], [1, 4], integers(0), axis=0),
    "Pad": lambda: one("Pad", [1, 4], [2, 4], integers(1, 0, 0, 0)),
    "Add": lambda: one("Add", [1, 4], [2, 4], drawn(2, 4)),
}


@pytest.mark.integration
@pytest.mark.parametrize(
    "content",
    [mlp((4, 6, 3), 1), cnn((1, 2, 3), 8, 4, 2), residual(5, 3), merging(), transformer()],
    ids=["mlp", "cnn", "residual", "merging", "transformer"],
)
def test_with_batch__rows__are_the_single_outputs(content: bytes) -> None:
    single = load_model(content)
    batched = with_batch(content, SIZE)
    inputs = drawn(SIZE, *input_shape(single)[1:])
    model = load_model(batched)
    assert input_shape(model) == (SIZE, *input_shape(single)[1:])
    assert output_shape(model) == (SIZE, *output_shape(single)[1:])
    np.testing.assert_allclose(
        run_float(batched, inputs), run_float(single.SerializeToString(), inputs), rtol=1e-4, atol=1e-5
    )
    # Another order of inputs gives another order of outputs: nothing passes between them.
    np.testing.assert_allclose(run_float(batched, inputs[::-1])[::-1], run_float(batched, inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.unit
@pytest.mark.parametrize("operator", MIXING)
def test_batch_model__inputs_mixed__names_the_node(operator: str) -> None:
    graph = onnx.load_from_string(MIXING[operator]())
    # What these make of one input has a first dimension of another size, which load_model would refuse on its own.
    model = onnx.shape_inference.infer_shapes(graph, data_prop=True)
    with pytest.raises(InvalidInputError) as caught:
        batch_model(model, SIZE)
    assert "culprit" in caught.value.field
    assert operator in caught.value.field
    assert caught.value.mend


@pytest.mark.integration
def test_with_batch__mixing_softmax__is_refused_across_the_process() -> None:
    with pytest.raises(InvalidInputError) as caught:
        with_batch(MIXING["Softmax"](), SIZE)
    assert caught.value.field == "model.graph.node[1] (Softmax 'culprit')"


@pytest.mark.integration
def test_with_batch__symbolic_first_dimension__is_set() -> None:
    node = helper.make_node("Gemm", ["x", "weight"], ["y"])
    content = model_of([node], {"weight": drawn(4, 2)}, ["batch", 4], ["batch", 2]).SerializeToString()
    assert input_shape(load_model(with_batch(content, 5))) == (5, 4)


@pytest.mark.integration
@pytest.mark.parametrize("size", [0, MAX_BATCH + 1])
def test_with_batch__size_out_of_bounds__is_refused(size: int) -> None:
    with pytest.raises(InvalidInputError) as caught:
        with_batch(mlp((4, 3), 1), size)
    assert caught.value.field == "batch"


@pytest.mark.integration
def test_with_batch__file_that_has_one__is_taken_as_it_is_or_refused() -> None:
    batched = with_batch(mlp((4, 3), 1), SIZE)
    assert with_batch(batched, SIZE) == batched
    assert with_batch(batched, 1) == batched
    with pytest.raises(InvalidInputError) as caught:
        with_batch(batched, SIZE + 1)
    assert f"takes {SIZE} inputs" in caught.value.problem


@pytest.mark.integration
def test_with_batch__file_whose_rows_mix__is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        with_batch(one("Softmax", [SIZE, 4], [SIZE, 4], axis=0), SIZE)
    assert "depends on other inputs" in caught.value.problem


@pytest.mark.unit
def test_check_rows_apart__rows_apart__passes() -> None:
    check_rows_apart(one("Softmax", [SIZE, 4], [SIZE, 4], axis=1))


@pytest.mark.unit
@pytest.mark.parametrize(
    ("given", "returned", "problem"),
    [([MAX_BATCH + 1, 4], [MAX_BATCH + 1, 4], "has the shape"), ([2, 4], [1, 4], "first dimension is 2")],
)
def test_load_model__batch_too_large_or_lost__is_refused(given: list[int], returned: list[int], problem: str) -> None:
    if given == returned:
        content = one("Neg", given, returned)
    else:
        content = one("ReduceMean", given, returned, axes=[0], keepdims=1)
    with pytest.raises(InvalidInputError) as caught:
        load_model(content)
    assert problem in caught.value.problem


@pytest.mark.unit
def test_run_float__batched_model__answers_a_row_per_input() -> None:
    content = batch_model(load_model(mlp((4, 3), 1)), SIZE).SerializeToString()
    inputs = drawn(SIZE + 1, 4)
    expected = run_float(mlp((4, 3), 1), inputs)
    np.testing.assert_allclose(run_float(content, inputs), expected, rtol=1e-5, atol=1e-6)

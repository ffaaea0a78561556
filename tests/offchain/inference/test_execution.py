from __future__ import annotations

import numpy as np
import pytest
from onnx import load_from_string, numpy_helper

from offchain.errors import InvalidInputError
from offchain.inference.execution import run_float
from tests.models import tiny_mlp

pytestmark = pytest.mark.unit


def test_run_float__batch__agrees_with_numpy() -> None:
    content = tiny_mlp(5)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in load_from_string(content).graph.initializer}
    inputs = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    hidden = np.maximum(inputs @ weights["weight0"].T + weights["bias0"], 0)
    outputs = run_float(content, inputs)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, hidden @ weights["weight1"].T + weights["bias1"], rtol=0, atol=1e-5)


def test_run_float__sample_alone_or_in_a_batch__is_bitwise_equal() -> None:
    inputs = np.random.default_rng(0).standard_normal((7, 4)).astype(np.float32)
    assert run_float(tiny_mlp(5), inputs)[3:4].tobytes() == run_float(tiny_mlp(5), inputs[3:4]).tobytes()


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        (np.zeros((2, 5), dtype=np.float32), "shape (2, 5)"),
        (np.zeros((0, 4), dtype=np.float32), "shape (0, 4)"),
        (np.zeros(4, dtype=np.float32), "shape (4,)"),
        (np.zeros((1, 4)), "float64"),
        (np.full((1, 4), np.nan, dtype=np.float32), "NaN"),
        (np.full((1, 4), np.inf, dtype=np.float32), "infinity"),
    ],
)
def test_run_float__bad_input__is_named(inputs: np.ndarray, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        run_float(tiny_mlp(5), inputs)
    assert caught.value.field == "input"
    assert problem in caught.value.problem

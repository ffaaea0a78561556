from __future__ import annotations

from collections import OrderedDict

import numpy as np
import onnx
import pytest
import torch

from offchain.errors import InvalidInputError
from offchain.inference.execution import run_float
from offchain.inference.torch_export import export_module, split_module

pytestmark = pytest.mark.unit

EXAMPLE = torch.zeros(1, 1, 8, 8)


class Residual(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(5, 5)
        self.second = torch.nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        return torch.relu(self.second(h)) + h


@pytest.fixture
def module() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = OrderedDict(
        first=torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, 2, 1), torch.nn.ReLU()),
        norm=torch.nn.BatchNorm2d(3),
        flat=torch.nn.Flatten(),
        drop=torch.nn.Dropout(),
        head=torch.nn.Linear(48, 4),
    )
    return torch.nn.Sequential(layers).eval()


def run_in_order(segments: tuple[bytes, ...], inputs: np.ndarray) -> np.ndarray:
    for segment in segments:
        inputs = run_float(segment, inputs)
    return inputs


@pytest.mark.parametrize("choice", [{"segments": 2}, {"cuts": ["first"]}, {"cuts": ["first.0", "flat"]}, {"cuts": []}])
def test_split_module__segments_in_order__agree_with_torch(module: torch.nn.Module, choice: dict) -> None:
    inputs = torch.randn(4, 1, 8, 8)
    outputs = run_in_order(split_module(module, EXAMPLE, **choice), inputs.numpy())
    np.testing.assert_allclose(outputs, module(inputs).detach().numpy(), rtol=0, atol=1e-5)


def test_split_module__residual__agrees_with_torch() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(4, 5)
    module = Residual()
    outputs = run_in_order(split_module(module, torch.zeros(1, 5), segments=2), inputs.numpy())
    np.testing.assert_allclose(outputs, module(inputs).detach().numpy(), rtol=0, atol=1e-5)


def test_split_module__cut_inside_a_residual_block__is_refused() -> None:
    with pytest.raises(InvalidInputError) as caught:
        split_module(Residual(), torch.zeros(1, 5), cuts=["second"])
    assert "residual or parallel connection" in caught.value.problem


def test_split_module__nested_path__cuts_behind_that_submodule() -> None:
    class Block(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seq = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Tanh()))
            self.items = torch.nn.ModuleList([torch.nn.Linear(3, 4), torch.nn.Linear(4, 5)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.items[1](self.items[0](self.seq(x)))

    module = torch.nn.Sequential(OrderedDict(block=Block(), head=torch.nn.Linear(5, 6)))
    cuts = ["block.seq.0", "block.seq.1.0", "block.seq", "block.items.0", "block"]
    segments = split_module(module, torch.zeros(1, 2), cuts=cuts)
    operators = [[node.op_type for node in onnx.load_from_string(segment).graph.node] for segment in segments]
    assert operators == [["Gemm"], ["Relu"], ["Tanh"], ["Gemm"], ["Gemm"], ["Gemm"]]


def test_export_module__twice__gives_the_same_bytes(module: torch.nn.Module) -> None:
    assert export_module(module, EXAMPLE) == export_module(module, EXAMPLE)


def test_export_module__training_mode__is_exported_for_inference_and_kept(module: torch.nn.Module) -> None:
    expected = export_module(module, EXAMPLE)
    module.train()
    inputs = np.random.default_rng(0).standard_normal((2, 1, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(
        run_float(export_module(module, EXAMPLE), inputs), run_float(expected, inputs), rtol=0, atol=1e-5
    )
    assert module.training


@pytest.mark.parametrize("example", [torch.zeros(8, 8), torch.zeros(2, 1, 8, 8), torch.zeros(1, 8).double()])
def test_export_module__bad_example__is_named(module: torch.nn.Module, example: torch.Tensor) -> None:
    with pytest.raises(InvalidInputError) as caught:
        export_module(module, example)
    assert caught.value.field == "example_input"


def test_export_module__module_that_fails__is_named(module: torch.nn.Module) -> None:
    with pytest.raises(InvalidInputError) as caught:
        export_module(module, torch.zeros(1, 3, 8, 8))
    assert caught.value.field == "module"


@pytest.mark.parametrize("choice", [{}, {"cuts": ["first"], "segments": 2}])
def test_split_module__both_or_neither__is_refused(module: torch.nn.Module, choice: dict) -> None:
    with pytest.raises(InvalidInputError) as caught:
        split_module(module, EXAMPLE, **choice)
    assert caught.value.field == "cuts"

from __future__ import annotations

import numpy as np
import pytest

from offchain.errors import InvalidInputError
from offchain.inference import untrusted
from offchain.inference.onnx_model import load_model
from offchain.inference.splitting import choose_cuts, find_cuts, split
from offchain.inference.untrusted import inspect_model, split_model
from offchain.sandbox import NativeCallFailed, run_limited
from tests.models import cnn, tiny_mlp

pytestmark = pytest.mark.integration  # it starts processes


def test_inspect_model__plain_model__is_summarised() -> None:
    summary = inspect_model(tiny_mlp(0))
    assert (summary.input_shape, summary.output_shape) == ((1, 4), (1, 3))
    assert summary.operators == ("Gemm", "Relu", "Gemm")
    assert summary.parameters == 4 * 6 + 6 + 6 * 3 + 3
    assert summary.cuts == find_cuts(load_model(tiny_mlp(0)))


def test_split_model__number_of_segments__equals_splitting_in_process() -> None:
    content = cnn((1, 2, 3), 8, 4, 0)
    model = load_model(content)
    segments = split_model(content, segments=3)
    assert tuple(segment.onnx for segment in segments) == split(model, choose_cuts(model, 3))
    assert [segment.label for segment in segments] == ["Conv-Relu", "Conv-Relu-Flatten", "MatMul"]
    for before, after in zip(segments, segments[1:], strict=False):
        assert before.output_shape == after.input_shape


def test_split_model__named_cuts__are_taken() -> None:
    assert [segment.label for segment in split_model(tiny_mlp(0), cuts=["linear0"])] == ["Gemm", "Relu-Gemm"]


def test_split_model__both_or_neither__is_refused() -> None:
    for arguments in ({}, {"cuts": ["relu0"], "segments": 2}):
        with pytest.raises(InvalidInputError) as caught:
            split_model(tiny_mlp(0), **arguments)
        assert caught.value.field == "cuts"


def test_inspect_model__malformed_bytes__is_invalid_input() -> None:
    with pytest.raises(InvalidInputError) as caught:
        inspect_model(np.random.default_rng(0).bytes(1_000))
    assert caught.value.field == "model"


def test_inspect_model__limits_reached__is_a_failed_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(untrusted, "TIMEOUT_SECONDS", 0.001)
    with pytest.raises(NativeCallFailed) as caught:
        inspect_model(tiny_mlp(0))
    assert caught.value.kind == "timeout"


def test_inspect_payload__worker__never_imports_torch() -> None:
    names = run_limited(
        "tests.offchain.sandbox_targets:modules_after_import",
        {"modules": ["offchain.inference.untrusted", "offchain.inference.execution", "offchain.inference.calibration"]},
        timeout_seconds=60,
        memory_bytes=1 << 30,
    )["modules"]
    assert "onnx" in names
    assert not {"torch", "sklearn", "ezkl", "web3"} & set(names)


def test_split_model__products_for_another_number_of_segments__refused() -> None:
    with pytest.raises(InvalidInputError, match="products: 1 for 2 segments"):
        split_model(tiny_mlp(0), segments=2, products=[True])


def test_split_model__large_convolution__becomes_a_product_where_products_are_checked() -> None:
    content = cnn([1, 12, 12], 14, 3, 0)
    [laid_out], [checked] = (split_model(content, segments=1, products=[checks]) for checks in (False, True))
    assert laid_out.label == checked.label
    operators = [{node.op_type for node in load_model(part.onnx).graph.node} for part in (laid_out, checked)]
    assert "Gather" not in operators[0]
    assert "Gather" in operators[1]

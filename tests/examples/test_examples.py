"""Trains the real examples; each takes a few seconds."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from examples import breast_cancer, digits
from offchain.inference.calibration import load_samples
from offchain.inference.execution import run_float
from offchain.inference.untrusted import inspect_model, split_model

pytestmark = pytest.mark.integration

EXAMPLES = {"breast_cancer": (breast_cancer, 0.95), "digits": (digits, 0.97)}


@pytest.fixture(scope="session", params=EXAMPLES)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModuleType, Path, float]:
    module, accuracy = EXAMPLES[request.param]
    out = tmp_path_factory.mktemp(request.param)
    module.build(out)
    return module, out, accuracy


def about(out: Path) -> dict[str, Any]:
    return json.loads((out / "about.json").read_text(encoding="utf-8"))


def test_build__heldout_samples__reach_the_accuracy(built: tuple[ModuleType, Path, float]) -> None:
    _, out, accuracy = built
    samples = load_samples(out / "heldout.npz")
    predicted = run_float((out / "model.onnx").read_bytes(), samples.inputs).argmax(axis=1)
    measured = (predicted == samples.labels).mean()
    assert measured >= accuracy
    assert about(out)["heldout_accuracy_float"] == pytest.approx(measured, abs=1e-4)


def test_build__same_seed__gives_the_same_bytes(built: tuple[ModuleType, Path, float], tmp_path: Path) -> None:
    module, out, _ = built
    module.build(tmp_path)
    assert {path.name for path in out.iterdir()} == {
        "model.onnx",
        "calibration.npz",
        "heldout.npz",
        "input.json",
        "about.json",
    }
    for path in out.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_build__files__fit_the_model(built: tuple[ModuleType, Path, float]) -> None:
    _, out, _ = built
    summary = inspect_model((out / "model.onnx").read_bytes())
    for name in ("calibration.npz", "heldout.npz"):
        samples = load_samples(out / name, shape=summary.input_shape[1:])
        assert samples.labels is not None
        assert samples.labels.max() < summary.output_shape[-1] == len(about(out)["classes"])
    example = json.loads((out / "input.json").read_text())["input"]
    assert np.array(example).shape == summary.input_shape == tuple(about(out)["input_shape"])


def test_build__calibration_samples__are_not_held_out(built: tuple[ModuleType, Path, float]) -> None:
    _, out, _ = built
    calibration = {row.tobytes() for row in load_samples(out / "calibration.npz").inputs}
    heldout = {row.tobytes() for row in load_samples(out / "heldout.npz").inputs}
    assert not calibration & heldout


def test_split_model__three_segments__equal_the_whole(built: tuple[ModuleType, Path, float]) -> None:
    _, out, _ = built
    content = (out / "model.onnx").read_bytes()
    segments = split_model(content, segments=3)
    assert len(segments) == about(out)["segments"] == 3
    inputs = outputs = load_samples(out / "heldout.npz").inputs
    for segment in segments:
        outputs = run_float(segment.onnx, outputs)
    np.testing.assert_allclose(outputs, run_float(content, inputs), rtol=0, atol=1e-5)


def test_load_dataset__breast_cancer__stays_within_the_clip() -> None:
    dataset, _ = breast_cancer.load_dataset()
    for inputs in (dataset.train_inputs, dataset.heldout_inputs):
        assert np.abs(inputs).max() <= breast_cancer.CLIP

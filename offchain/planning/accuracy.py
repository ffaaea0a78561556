"""Executes a plan's circuits without proving, to see whether values stay in range and answers stay right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from offchain.inference.calibration import Samples
from offchain.protocol.field import dequantise, quantise
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.settings import read_settings
from offchain.tuning.chain import flatten_samples, input_bound, wide_samples

if TYPE_CHECKING:
    from offchain.planning.plan import Plan

MAX_SAMPLES = 48


@dataclass(frozen=True)
class Accuracy:
    """Fixed point against floating point on held-out samples.

    Attributes:
        samples: how many.
        drift: the largest error relative to the largest output.
        agreement: share of samples of the same class.
        float_accuracy, fixed_accuracy: share of right classes; None without labels.
    """

    samples: int
    drift: float
    agreement: float
    float_accuracy: float | None
    fixed_accuracy: float | None


def check_range(prover: EzklProver, plan: Plan, calibration: NDArray[np.float32], scratch: Path) -> bool:
    """Say whether all circuits hold inputs at the edge: the largest samples doubled, and corners of their cube."""
    flat = flatten_samples(calibration, (1, plan.stretch.boundaries[0].elements))
    return "failed" not in _run(prover, plan, wide_samples(flat, input_bound(flat)), scratch)


def measure_accuracy(prover: EzklProver, plan: Plan, heldout: Samples, scratch: Path) -> Accuracy | None:
    """Compare a plan with the model in floating point; None where a sample leaves a circuit's range."""
    flat = flatten_samples(heldout.inputs[:MAX_SAMPLES], (1, plan.stretch.boundaries[0].elements), "heldout")
    answer = _run(prover, plan, flat, scratch)
    if "failed" in answer:
        return None
    scale = read_settings(plan.settings[-1]).output_scale
    fixed = np.asarray([dequantise(outputs[-1], scale) for outputs in answer["activations"]])
    exact = _float_outputs(prover, plan, heldout.inputs[:MAX_SAMPLES], scratch)
    labels = None if heldout.labels is None else heldout.labels[:MAX_SAMPLES]
    return Accuracy(
        samples=len(flat),
        drift=float(np.abs(fixed - exact).max() / max(float(np.abs(exact).max()), 1e-9)),
        agreement=float((fixed.argmax(axis=1) == exact.argmax(axis=1)).mean()),
        float_accuracy=None if labels is None else float((exact.argmax(axis=1) == labels).mean()),
        fixed_accuracy=None if labels is None else float((fixed.argmax(axis=1) == labels).mean()),
    )


def _run(prover: EzklProver, plan: Plan, inputs: NDArray[np.float64], scratch: Path) -> dict[str, Any]:
    paths = []
    for index, onnx in enumerate(plan.segments):
        paths.append(scratch / f"segment-{index}.onnx")
        paths[-1].write_bytes(onnx)
    payload = {
        "onnx": [str(path) for path in paths],
        "settings": [text.decode() for text in plan.settings],
        "names": [f"segment[{index}]" for index in range(len(paths))],
        "batch": [list(quantise(sample, plan.fixed_point.input_scale)) for sample in inputs],
    }
    return prover.call("try_chain", payload, prover.limits.build_seconds + prover.limits.witness_seconds, "model")


def _float_outputs(prover: EzklProver, plan: Plan, inputs: NDArray[np.float32], scratch: Path) -> NDArray[np.float64]:
    path = scratch / "whole.onnx"
    path.write_bytes(plan.stretch.onnx)
    payload = {
        "onnx": [str(path)],
        "input_shapes": [[1, *inputs.shape[1:]]],
        "batch": inputs.reshape(len(inputs), -1).tolist(),
    }
    answer = prover.call("float_outputs", payload, prover.limits.witness_seconds, "model")
    return np.asarray(answer["outputs"], dtype=np.float64)

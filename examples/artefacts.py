"""What the example scripts share: seeded training, and the files that each of them writes."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from offchain.inference.execution import run_float
from offchain.inference.torch_export import export_module

BATCH = 64


@dataclass(frozen=True, eq=False)
class Dataset:
    """Inputs and classes, apart for training and for measuring.

    Attributes:
        train_inputs, heldout_inputs: (n, *shape) float32.
        train_labels, heldout_labels: (n,) int64.
    """

    train_inputs: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    heldout_inputs: NDArray[np.float32]
    heldout_labels: NDArray[np.int64]


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained. The values in use were chosen by cross-validation within the training part.

    Attributes:
        seed: of the weights, the order and the noise.
        epochs: passes over the training part.
        learning_rate: at its peak; it rises and falls once.
        weight_decay: keeps weights small.
        noise: standard deviation of what is added to each input.
        smoothing: of the labels. With the decay it keeps the outputs small, which a circuit of few bits needs.
    """

    seed: int
    epochs: int
    learning_rate: float
    weight_decay: float
    noise: float
    smoothing: float


def train(module: torch.nn.Module, dataset: Dataset, recipe: Recipe) -> None:
    """Train a classifier in place on one thread, so that one seed gives the same weights on a busy machine too."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    chance = torch.Generator().manual_seed(recipe.seed)
    inputs, labels = torch.from_numpy(dataset.train_inputs), torch.from_numpy(dataset.train_labels)
    optimizer = torch.optim.AdamW(module.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * -(-len(inputs) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total_steps=steps)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=recipe.smoothing)
    module.train()
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(inputs), generator=chance).split(BATCH):
            noise = recipe.noise * torch.randn(inputs[rows].shape, generator=chance)
            optimizer.zero_grad()
            loss(module(inputs[rows] + noise), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    module.eval()


def write_artefacts(
    out: Path, module: torch.nn.Module, dataset: Dataset, *, calibration_samples: int, about: dict[str, Any]
) -> dict[str, Any]:
    """Write ``model.onnx``, ``calibration.npz``, ``heldout.npz``, ``input.json`` and ``about.json``.

    Args:
        out: the directory, made if it is missing.
        module: the trained classifier.
        dataset: what it was trained on and is measured with.
        calibration_samples: how many training samples go into ``calibration.npz``.
        about: what a reader should know of the model; sizes and accuracy are added.

    Returns:
        What ``about.json`` says.
    """
    out.mkdir(parents=True, exist_ok=True)
    shape = dataset.train_inputs.shape[1:]
    model = export_module(module, torch.zeros(1, *shape))
    predicted = run_float(model, dataset.heldout_inputs).argmax(axis=1)
    calibration = slice(0, calibration_samples)
    about = {
        **about,
        "input_shape": [1, *shape],
        "parameters": sum(weight.numel() for weight in module.parameters()),
        "samples": {"train": len(dataset.train_labels), "heldout": len(dataset.heldout_labels)},
        "heldout_accuracy_float": round(float((predicted == dataset.heldout_labels).mean()), 4),
        "example": {"file": "input.json", "heldout_index": 0, "label": int(dataset.heldout_labels[0])},
    }
    (out / "model.onnx").write_bytes(model)
    np.savez(out / "calibration.npz", input=dataset.train_inputs[calibration], label=dataset.train_labels[calibration])
    np.savez(out / "heldout.npz", input=dataset.heldout_inputs, label=dataset.heldout_labels)
    _write_json(out / "input.json", {"input": dataset.heldout_inputs[:1].tolist()})
    _write_json(out / "about.json", about)
    return about


def parse_out(description: str, default: str) -> Path:
    """Read ``--out`` from the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--out", type=Path, default=Path(default), help="directory for the files (default: %(default)s)"
    )
    return parser.parse_args().out


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

"""Trains a screening network for breast cancer on 30 measurements of cell nuclei.

Run ``python -m examples.breast_cancer --out build/models/breast_cancer``. An illustration, not a medical device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from examples.artefacts import Dataset, Recipe, parse_out, train, write_artefacts

SEED = 2024
RECIPE = Recipe(seed=SEED, epochs=40, learning_rate=1e-2, weight_decay=1.0, noise=0.3, smoothing=0.05)
CLIP = 4.0
"""Standardised features are clipped to ±4, so that a circuit of few bits need not hold the rare outlier."""


def build_module() -> torch.nn.Module:
    """Build the network, 30-16-8-2: three layers, so three segments."""
    return torch.nn.Sequential(
        torch.nn.Linear(30, 16),
        torch.nn.ReLU(),
        torch.nn.Linear(16, 8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 2),
    )


def load_dataset() -> tuple[Dataset, dict[str, Any]]:
    """Load, split and standardise the data; the statistics are those of the training part alone."""
    source = load_breast_cancer()
    parts = train_test_split(source.data, source.target, test_size=0.25, random_state=SEED, stratify=source.target)
    train_inputs, heldout_inputs, train_labels, heldout_labels = parts
    mean, deviation = train_inputs.mean(axis=0), train_inputs.std(axis=0)

    def standardise(raw: np.ndarray) -> np.ndarray:
        return np.clip((raw - mean) / deviation, -CLIP, CLIP).astype(np.float32)

    dataset = Dataset(
        standardise(train_inputs),
        train_labels.astype(np.int64),
        standardise(heldout_inputs),
        heldout_labels.astype(np.int64),
    )
    preprocessing = {
        "formula": "clip((raw - mean) / deviation, -4, 4), feature by feature",
        "features": [str(name) for name in source.feature_names],
        "mean": [float(value) for value in mean],
        "deviation": [float(value) for value in deviation],
    }
    return dataset, preprocessing


def build(out: Path) -> dict[str, Any]:
    """Train the network, write its files, and return what ``about.json`` says."""
    dataset, preprocessing = load_dataset()
    torch.manual_seed(SEED)
    module = build_module()
    train(module, dataset, RECIPE)
    about = {
        "name": "breast-cancer",
        "task": "tell malignant from benign tumours by 30 measurements of cell nuclei (an illustration, not for use)",
        "data": "Breast Cancer Wisconsin (Diagnostic), as shipped with scikit-learn",
        "classes": ["malignant", "benign"],
        "segments": 3,
        "seed": SEED,
        "preprocessing": preprocessing,
    }
    return write_artefacts(out, module, dataset, calibration_samples=200, about=about)


if __name__ == "__main__":
    result = build(parse_out(__doc__ or "", "build/models/breast_cancer"))
    print(f"{result['name']}: held-out accuracy {result['heldout_accuracy_float']:.4f} in floating point")

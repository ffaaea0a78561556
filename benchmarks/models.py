"""The five models that the benchmarks prove: ``python -m benchmarks.models [NAME ...] --out build/models``.

digits       the demonstration's network on images of 8×8 pixels, trained as ``examples.digits`` trains it.
lenet        a LeNet on the same images at 28×28, average pooling as in the original (LeCun et al. 1998, section II.B).
mlp          four blocks of a linear layer and a ReLU, 0.5M parameters, on the 64 pixels.
transformer  one block (d = 32, four heads) over a sequence of 8: each row of an image is a token.
speechmos    a packaged network that rates speech; it fits in part. It comes from PyPI, not from this repository, and
             has no real data here: its inputs are seeded noise, so that no accuracy can be told.

Seeds fix data, weights and order, so the files repeat on one machine; what is there is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from examples import artefacts, digits
from examples.artefacts import Dataset, Recipe

SEED = digits.SEED
CALIBRATION_SAMPLES = 200
MLP_WIDTH = 352
WIDTH, HEADS, TOKENS, CLASSES = 32, 4, 8, 10
SPEECHMOS = "speechmos==0.0.1.1"
SPEECHMOS_MEMBER = "speechmos/dnsmos_models/model_v8.onnx"
SPEECHMOS_SHA256 = "9246480c58567bc6affd4200938e77eef49468c8bc7ed3776d109c07456f6e91"
_DONE = "about.json"


def lenet() -> torch.nn.Sequential:
    """Build LeNet-5 with ReLUs: 61,706 parameters, about 416,000 multiply-accumulates."""
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, kernel_size=5, padding=2),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(6, 16, kernel_size=5),
        torch.nn.ReLU(),
        torch.nn.AvgPool2d(2),
        torch.nn.Flatten(),
        torch.nn.Linear(400, 120),
        torch.nn.ReLU(),
        torch.nn.Linear(120, 84),
        torch.nn.ReLU(),
        torch.nn.Linear(84, CLASSES),
    )


def perceptron() -> torch.nn.Sequential:
    """Build the four blocks, between a layer that widens the input and one that reads the classes."""
    blocks = [layer for _ in range(4) for layer in (torch.nn.Linear(MLP_WIDTH, MLP_WIDTH), torch.nn.ReLU())]
    return torch.nn.Sequential(
        torch.nn.Flatten(),
        torch.nn.Linear(64, MLP_WIDTH),
        torch.nn.ReLU(),
        *blocks,
        torch.nn.Linear(MLP_WIDTH, CLASSES),
    )


class LayerNorm(torch.nn.Module):
    """Layer normalisation in plain arithmetic: ONNX's own operator is none that a circuit is made of."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(width))
        self.bias = torch.nn.Parameter(torch.zeros(width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (batch, sequence, width) float32."""
        centred = tokens - tokens.mean(dim=-1, keepdim=True)
        variance = (centred * centred).mean(dim=-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-2) * self.weight + self.bias


class Attention(torch.nn.Module):
    """Multi-head self-attention over tokens that are all seen, with one matrix per role."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = (torch.nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (1, sequence, width) float32."""

        def heads(projected: torch.Tensor) -> torch.Tensor:
            return projected.reshape(-1, TOKENS, HEADS, WIDTH // HEADS).transpose(1, 2)

        query, key, value = heads(self.query(tokens)), heads(self.key(tokens)), heads(self.value(tokens))
        weights = torch.softmax(query @ key.transpose(2, 3) * (WIDTH // HEADS) ** -0.5, dim=-1)
        return self.out((weights @ value).transpose(1, 2).reshape(-1, TOKENS, WIDTH))


class Transformer(torch.nn.Module):
    """Rows of an image as tokens, one pre-norm block, and a linear layer over all tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(8, WIDTH)
        self.place = torch.nn.Parameter(0.1 * torch.randn(1, TOKENS, WIDTH))
        self.before_attention, self.before_widening = LayerNorm(WIDTH), LayerNorm(WIDTH)
        self.attention = Attention()
        self.widen, self.narrow = torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.Linear(4 * WIDTH, WIDTH)
        self.read = torch.nn.Linear(TOKENS * WIDTH, CLASSES)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """image: (batch, 8, 8) float32; returns (batch, 10)."""
        tokens = self.embed(image) + self.place
        tokens = tokens + self.attention(self.before_attention(tokens))
        tokens = tokens + self.narrow(torch.relu(self.widen(self.before_widening(tokens))))
        return self.read(tokens.flatten(1))


def _reshaped(shape: tuple[int, ...]) -> Dataset:
    source = digits.load_dataset()
    train, heldout = (part.reshape(-1, *shape) for part in (source.train_inputs, source.heldout_inputs))
    return Dataset(train, source.train_labels, heldout, source.heldout_labels)


def _enlarged() -> Dataset:
    source = digits.load_dataset()

    def enlarge(images: np.ndarray) -> np.ndarray:
        size = (28, 28)
        larger = torch.nn.functional.interpolate(torch.from_numpy(images), size, mode="bilinear", align_corners=False)
        return larger.numpy()

    return Dataset(
        enlarge(source.train_inputs), source.train_labels, enlarge(source.heldout_inputs), source.heldout_labels
    )


def _trained(
    out: Path, name: str, build: Callable[[], torch.nn.Module], dataset: Dataset, recipe: Recipe
) -> dict[str, Any]:
    torch.manual_seed(SEED)
    module = build()
    artefacts.train(module, dataset, recipe)
    about = {"name": name, "data": "Optical Recognition of Handwritten Digits, as shipped with scikit-learn"}
    return artefacts.write_artefacts(out, module, dataset, calibration_samples=CALIBRATION_SAMPLES, about=about)


def _make_lenet(out: Path) -> dict[str, Any]:
    recipe = Recipe(seed=SEED, epochs=25, learning_rate=4e-3, weight_decay=1e-2, noise=0.1, smoothing=0.05)
    return _trained(out, "lenet", lenet, _enlarged(), recipe)


def _make_perceptron(out: Path) -> dict[str, Any]:
    recipe = Recipe(seed=SEED, epochs=40, learning_rate=2e-3, weight_decay=1e-1, noise=0.1, smoothing=0.05)
    return _trained(out, "mlp", perceptron, _reshaped((64,)), recipe)


def _make_transformer(out: Path) -> dict[str, Any]:
    recipe = Recipe(seed=SEED, epochs=60, learning_rate=5e-3, weight_decay=1e-2, noise=0.1, smoothing=0.05)
    return _trained(out, "transformer", Transformer, _reshaped((8, 8)), recipe)


def _make_speechmos(out: Path) -> dict[str, Any]:
    """Take the network out of its package. Its code is never run, so the package need not be installed."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, SPEECHMOS]
        subprocess.run(command, check=True)
        [wheel] = Path(directory).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            model = archive.read(SPEECHMOS_MEMBER)
    if hashlib.sha256(model).hexdigest() != SPEECHMOS_SHA256:
        raise RuntimeError(f"{SPEECHMOS_MEMBER} of {SPEECHMOS} is not the file that these benchmarks know")
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(model)
    noise = np.random.default_rng(SEED).normal(size=(8, 900, 120)).astype(np.float32)
    np.savez_compressed(out / "calibration.npz", input=noise[:4])
    np.savez_compressed(out / "heldout.npz", input=noise[4:])
    about = {"name": "speechmos", "data": "seeded noise: no recording ships with the package", "package": SPEECHMOS}
    (out / _DONE).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    return about


MAKERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "digits": digits.build,
    "lenet": _make_lenet,
    "mlp": _make_perceptron,
    "transformer": _make_transformer,
    "speechmos": _make_speechmos,
}


def prepare(name: str, root: Path = Path("build/models")) -> Path:
    """Make a benchmark model's files unless they are there.

    Args:
        name: one of ``MAKERS``.
        root: each model has a directory of its name below it.

    Returns:
        The directory, with ``model.onnx``, ``calibration.npz``, ``heldout.npz`` and ``about.json``.
    """
    directory = root / name
    if not (directory / _DONE).is_file():  # written last
        MAKERS[name](directory)
    return directory


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the models that are named, or all of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(MAKERS)}; all if none is named")
    parser.add_argument("--out", type=Path, default=Path("build/models"))
    chosen = parser.parse_args(arguments)
    for name in chosen.names or MAKERS:
        if name not in MAKERS:
            parser.error(f"no model is called {name!r}; there are {', '.join(MAKERS)}")
        about = json.loads((prepare(name, chosen.out) / _DONE).read_text())
        accuracy = about.get("heldout_accuracy_float")
        print(f"{name}: {'no labelled data' if accuracy is None else f'held-out accuracy {accuracy:.4f}'}")


if __name__ == "__main__":
    main()

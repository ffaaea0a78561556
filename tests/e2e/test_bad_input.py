"""What cannot be done is refused by the command with the field and the mend, and costs nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from offchain.cli.app import app
from tests.live_network import MODEL, VALUES, LiveNetwork, write_samples
from tests.models import residual

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Files:
    """What a person might hand in."""

    directory: Path

    def json(self, content: object) -> Path:
        """An input file; NaN is written as Python writes it."""
        return self.text(json.dumps(content))

    def text(self, content: str) -> Path:
        """An input file of any text."""
        path = self.directory / "input.json"
        path.write_text(content)
        return path

    def onnx(self, content: bytes = MODEL) -> Path:
        """A model."""
        path = self.directory / "model.onnx"
        path.write_bytes(content)
        return path

    def npz(self, *shape: int) -> Path:
        """Samples of a shape."""
        chance = np.random.default_rng(1)
        return write_samples(self.directory / "samples.npz", chance.uniform(-1, 1, shape).astype(np.float32))

    def broken_npz(self) -> Path:
        """Something that is called ``.npz``."""
        path = self.directory / "broken.npz"
        path.write_bytes(b"PK\3\4 and then nothing of the kind")
        return path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.fixture
def no_gas(live: LiveNetwork) -> Iterator[None]:
    """The gateway's account sends nothing meanwhile."""
    web3 = live.network.connection.web3

    def sent() -> int:
        return web3.eth.get_transaction_count(live.gateway_account, "pending")

    before = sent()
    yield
    assert sent() == before


def submit(model: str, path: Path) -> tuple[object, ...]:
    return ("job", "submit", model, path, "--wait")


def register(model: Path, calibration: Path, *options: object) -> tuple[object, ...]:
    return ("model", "register", model, "--calibration", calibration, *options)


Arguments = Callable[[Files, str], tuple[object, ...]]

REFUSED: list[tuple[str, Arguments, str, str]] = [
    ("too_few_values", lambda f, m: submit(m, f.json([0.5] * 5)), "input", "send nested lists of shape [1, 6]"),
    ("text_value", lambda f, m: submit(m, f.json([0.5] * 5 + ["six"])), "input[5]", "send numbers only"),
    ("nan", lambda f, m: submit(m, f.json([0.5] * 5 + [float("nan")])), "input[5]", "replace NaN"),
    ("out_of_range", lambda f, m: submit(m, f.json([0.5] * 5 + [1e6])), "input[5]", "clip"),
    ("not_json", lambda f, m: submit(m, f.text("0.5, 0.5")), "INPUT.json", "write nested lists of numbers"),
    ("missing_input", lambda f, m: submit(m, f.directory / "none.json"), "INPUT.json", "name a file"),
    ("unknown_model", lambda f, m: submit("0x" + "12" * 32, f.json([*VALUES])), "model", "register it"),
    ("malformed_model_id", lambda f, m: submit("never-seen", f.json([*VALUES])), "model", "id of a registered model"),
    (
        "malformed_onnx",
        lambda f, m: register(f.onnx(b"\x08\x08 this is no graph"), f.npz(16, 6)),
        "model",
        "torch.onnx.export",
    ),
    (
        "truncated_onnx",
        lambda f, m: register(f.onnx(MODEL[: len(MODEL) // 2]), f.npz(16, 6)),
        "model",
        "torch.onnx.export",
    ),
    (
        "residual_cut",
        lambda f, m: register(f.onnx(residual(4, seed=1)), f.npz(16, 4), "--cuts", "inner"),
        "cuts[0]",
        "cut at one of first, h, sum",
    ),
    (
        "more_segments_than_layers",
        lambda f, m: register(f.onnx(), f.npz(16, 6), "--segments", 9),
        "segments",
        "ask for 1 to 3 segments",
    ),
    ("broken_npz", lambda f, m: register(f.onnx(), f.broken_npz()), "calibration", "numpy.savez_compressed"),
    ("samples_of_another_shape", lambda f, m: register(f.onnx(), f.npz(16, 5)), "calibration.input", "(6,)"),
    ("missing_onnx", lambda f, m: register(f.directory / "none.onnx", f.npz(16, 6)), "model", "existing file"),
    ("malformed_job_id", lambda f, m: ("job", "show", "0x12"), "ID", "32 bytes in hex"),
    ("unknown_job", lambda f, m: ("job", "show", "ab" * 32), "job", "POST /v1/jobs"),
    ("malformed_audit_id", lambda f, m: ("audit", "0x12"), "ID", "32 bytes in hex"),
]


@pytest.mark.parametrize(("arguments", "field", "mend"), [pytest.param(*case[1:], id=case[0]) for case in REFUSED])
def test_interlock__bad_input__names_field_and_mend_and_sends_nothing(
    live: LiveNetwork,
    files: Files,
    no_gas: None,
    monkeypatch: pytest.MonkeyPatch,
    arguments: Arguments,
    field: str,
    mend: str,
) -> None:
    monkeypatch.setenv("INTERLOCK_HOME", str(live.home))
    # In this process: starting the interpreter anew for each case takes longer than the cases.
    done = CliRunner().invoke(app, [str(argument) for argument in arguments(files, live.model)])
    assert done.exit_code == 2, done.output
    problem, _, advice = " ".join(done.stderr.split()).partition("→")
    assert problem.startswith(f"{field}: "), done.stderr
    assert mend in advice, done.stderr


def test_interlock__nan_as_a_process__leaves_with_2_and_no_traceback(live: LiveNetwork, files: Files) -> None:
    done = live.interlock(*submit(live.model, files.json([0.5] * 5 + [float("nan")])))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("input[5]: ")
    assert "Traceback" not in done.stderr


def test_interlock__no_network_running__says_how_to_start_one(live: LiveNetwork, files: Files, tmp_path: Path) -> None:
    for arguments in (("job", "show", "ab" * 32), ("audit", "ab" * 32), register(files.onnx(), files.npz(16, 6))):
        done = live.interlock(*arguments, home=tmp_path / "nowhere")
        assert done.returncode == 2, done.stdout + done.stderr
        assert "no local network runs" in done.stderr
        assert "start one" in done.stderr

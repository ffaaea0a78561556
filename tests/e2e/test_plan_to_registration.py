"""A plan becomes a registration: its cuts, its links and its circuits are what workers prove, if they hold."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offchain.inference.calibration import Samples
from offchain.planning.costs import CircuitShape, TypicalMachine
from offchain.planning.plan import plan_model
from offchain.planning.planner import Constraints
from offchain.planning.report import to_json
from offchain.planning.workers import WorkerClass
from offchain.protocol.links import LinkKind
from offchain.protocol.types import ModelId
from tests.harness import test_prover
from tests.live_network import LiveNetwork, hexadecimal, run_float, write_samples
from tests.models import mlp

pytestmark = pytest.mark.e2e

ONNX = mlp((6, 12, 4, 3), seed=11)
INPUTS = np.random.default_rng(7).uniform(-2, 2, (32, 6)).astype(np.float32)
HELD_OUT = np.random.default_rng(8).uniform(-2, 2, (16, 6)).astype(np.float32)


@dataclass(frozen=True)
class FondOfHashing:
    """A machine on which hashed links cost next to nothing, so that a plan cuts even a tiny network at one."""

    cores: int = 2

    def prove_seconds(self, shape: CircuitShape) -> float:
        """Seconds of one proof."""
        hashed = LinkKind.POSEIDON in (shape.input_kind, shape.output_kind)
        return 1e-3 * 2**shape.log_rows * shape.column_blocks * (0.1 if hashed else 1.0)

    def prove_bytes(self, shape: CircuitShape) -> int:
        """Memory of one proof."""
        return TypicalMachine().prove_bytes(shape)


@pytest.fixture(scope="module")
def plan() -> dict[str, Any]:
    """A plan of two segments with a hashed link between them."""
    constraints = Constraints((WorkerClass(2, 12 << 30, 9),), kinds=(LinkKind.POSEIDON,), slack=0.0, max_segments=2)
    calibration, heldout = Samples(INPUTS, None), Samples(HELD_OUT, None)
    planned = plan_model(ONNX, test_prover(), FondOfHashing(), constraints, calibration=calibration, heldout=heldout)
    return to_json(planned)


@pytest.fixture(scope="module")
def files(live: LiveNetwork) -> Path:
    """The model and its samples, as a person has them."""
    directory = live.home / "planned"
    directory.mkdir()
    (directory / "model.onnx").write_bytes(ONNX)
    write_samples(directory / "calibration.npz", INPUTS)
    write_samples(directory / "heldout.npz", HELD_OUT)
    return directory


def register(live: LiveNetwork, files: Path, *options: object) -> subprocess.CompletedProcess[str]:
    samples = ("--calibration", files / "calibration.npz", "--heldout", files / "heldout.npz")
    return live.interlock("model", "register", files / "model.onnx", *samples, *options)


def model_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^model (0x[0-9a-f]{64})$", done.stdout, re.MULTILINE)
    assert found, done.stdout
    return found[1]


def test_register__plan_with_a_hashed_link__is_proved_by_workers_and_audited(
    live: LiveNetwork, files: Path, plan: dict[str, Any]
) -> None:
    (files / "plan.json").write_text(json.dumps(plan))
    [part] = plan["plans"]
    model = model_of(register(live, files, "--plan", files / "plan.json", "--name", "planned"))
    described = live.client.model(model)["segments"]
    assert [segment["output_kind"] for segment in described] == ["poseidon", "public"]
    for segment, planned in zip(described, part["segments"], strict=True):
        assert (segment["input_scale"], segment["log_rows"]) == (planned["input_scale"], planned["log_rows"])
        assert (segment["is_exact"], segment["ambiguities"], segment["closing_link_is_unique"]) == (True, [], True)
        assert segment["predicted"] == {"seconds": planned["prove_seconds"], "bytes": planned["prove_bytes"]}
    live.network.wait_until_served(ModelId(hexadecimal(model)))
    (files / "input.json").write_text(json.dumps(HELD_OUT[0].tolist()))
    done = live.interlock("job", "submit", model, files / "input.json", "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^job (0x[0-9a-f]{64})$", done.stdout, re.MULTILINE)
    assert found
    audited = live.interlock("audit", found[1], "--rederive", "--json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    report = json.loads(audited.stdout)
    assert [segment["label"] for segment in report["segments"]] == ["proved", "proved"]
    assert all(segment["checks"]["rederived_exactness"]["ok"] for segment in report["segments"])
    exact = [run_float(ONNX, sample) for sample in HELD_OUT]
    drift = 0.05 * float(max(np.abs(answer).max() for answer in exact))
    np.testing.assert_allclose(report["result"], exact[0], rtol=0, atol=drift)


def test_register__auto__plans_and_registers_in_one_go(live: LiveNetwork, files: Path) -> None:
    done = register(live, files, "--auto", "--typical", "--workers", "2c,12g,9", "--name", "by itself")
    model = model_of(done)
    assert "critical path" in done.stdout
    assert all(segment["predicted"] for segment in live.client.model(model)["segments"])


def test_register__thorough__searches_for_the_settings(live: LiveNetwork, files: Path) -> None:
    done = register(live, files, "--segments", 2, "--thorough", "--search-seconds", 20, "--name", "searched")
    described = live.client.model(model_of(done))["segments"]
    assert [segment["is_exact"] for segment in described] == [True, True]
    assert not any(segment["predicted"] for segment in described)


def test_register__plan_that_does_not_hold__is_refused_by_field(
    live: LiveNetwork, files: Path, plan: dict[str, Any]
) -> None:
    spoilt = json.loads(json.dumps(plan))
    spoilt["plans"][0]["segments"][0]["output_scale"] -= 1
    spoilt["plans"][0]["segments"][1]["input_scale"] -= 1
    (files / "spoilt.json").write_text(json.dumps(spoilt))
    refused = register(live, files, "--plan", files / "spoilt.json")
    assert refused.returncode == 2
    assert "plan.plans[0].segments[0].output_scale" in refused.stderr


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--plan", "plan.json", "--segments", 2), "--plan"),
        (("--auto", "--cuts", "a"), "--auto"),
        (("--auto", "--thorough"), "--thorough"),
        (("--auto", "--batch", 4), "--batch"),
    ],
)
def test_register__options_that_exclude_each_other__are_named(
    live: LiveNetwork, files: Path, options: tuple[object, ...], named: str
) -> None:
    refused = register(live, files, *options)
    assert refused.returncode == 2
    assert named in refused.stderr

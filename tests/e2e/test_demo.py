"""``interlock demo``, whole, as the README's first screen has it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from offchain.toolchain import project_root
from tests.harness import TEST_CACHE

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(900)]


def test_demo__both_examples__are_finalised_proved_and_audited(tmp_path: Path) -> None:
    (tmp_path / "cache").symlink_to(TEST_CACHE)
    TEST_CACHE.mkdir(parents=True, exist_ok=True)
    command = [str(Path(sys.executable).with_name("interlock")), "demo", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=project_root())
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["verdict"] == "valid"
    assert [job["model"]["name"] for job in report["jobs"]] == ["breast-cancer", "digits"]
    for job in report["jobs"]:
        assert job["job"]["phase"] == "finalised"
        assert job["audit"]["verdict"] == "valid"
        assert [segment["label"] for segment in job["audit"]["segments"]] == ["proved"] * 3
        assert job["job"]["result"]["top"] == job["expected_class"]
        assert job["model"]["accuracy"]["fixed_accuracy"] >= job["model"]["accuracy"]["float_accuracy"] - 0.02
        assert len(job["proof_bytes"]) == 3
    assert all(step["seconds"] > 0 and step["peak_memory_bytes"] > 0 for step in report["steps"])
    for kind in ("Jobs.request", "Jobs.commit", "Jobs.reveal", "Jobs.prove", "Jobs.finalise"):
        assert report["gas"][kind]["count"] >= 2

"""The rules of ``tests/forge``: forge looks for a sequence of moves after which one does not hold."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from offchain import toolchain

pytestmark = pytest.mark.integration

IS_CI = os.environ.get("CI") == "true"
EXPECTED = {
    "tests/forge/Invariants.t.sol:FirstWorldTest": {"invariant_rules_hold()"},
    "tests/forge/Invariants.t.sol:SecondWorldTest": {"invariant_rules_hold()"},
    "tests/forge/Reach.t.sol:ReachTest": {"test_moves__some_walks__reach_every_outcome()"},
}
RUNS, DEPTH = (512, 512) if IS_CI else (256, 128)
"""Of both worlds together; as ``foundry.toml`` asks for."""
LEAST_RULES = 20

Results = dict[str, dict[str, Any]]

BREAKS = {
    "15": (
        "contracts/jobs/JobProofs.sol",
        "if (!Tally.isOutput(member.link) || member.link == proved) continue;",
        "if (member.link == proved) continue;",
    ),
    "33": ("contracts/jobs/JobProofs.sol", "if (linkIn != opening)", "if (linkIn == 0)"),
    "44": ("contracts/jobs/JobProofs.sol", "link == before ||", "before != 0 ||"),
    "52": ("contracts/Staking.sol", "if (linkOut != held.link)", "if (linkOut == 0)"),
    "55": (
        "contracts/Staking.sol",
        "if (block.timestamp >= held.releaseAt)",
        "if (block.timestamp + 12 hours >= held.releaseAt)",
    ),
}
"""By the rule that it breaks: the source, what stands there, and what is to stand there."""


def play(root: Path, **settings: str) -> Results:
    """What forge reports, by contract and test."""
    command = [str(toolchain.forge_path()), "test", "--json", "--root", str(root)]
    environment = toolchain.environment(os.environ | settings)
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert run.stdout.startswith("{"), run.stdout + run.stderr
    return {contract: suite["test_results"] for contract, suite in json.loads(run.stdout).items()}


def failures(results: Results) -> dict[str, str]:
    """Why tests failed, by contract and test."""
    return {
        f"{contract}: {name}": result["reason"]
        for contract, tests in results.items()
        for name, result in tests.items()
        if result["status"] != "Success"
    }


@pytest.fixture(scope="module")
def results() -> Results:
    return play(toolchain.project_root(), FOUNDRY_PROFILE="ci" if IS_CI else "default")


def test_rules__any_sequence_of_moves__hold(results: Results) -> None:
    assert failures(results) == {}


def test_rules__all_of_them__were_played(results: Results) -> None:
    assert {contract: set(tests) for contract, tests in results.items()} == EXPECTED
    worlds = [result for tests in results.values() for result in tests.values() if "Invariant" in result["kind"]]
    assert sum(world["kind"]["Invariant"]["runs"] for world in worlds) == RUNS
    assert sum(world["kind"]["Invariant"]["calls"] for world in worlds) == RUNS * DEPTH


def test_rules__all_of_them__are_listed_and_checked() -> None:
    root = toolchain.project_root()
    sources = "".join(path.read_text() for path in sorted((root / "tests" / "forge").glob("*.sol")))
    checked = set(re.findall(r'check\((?:[^"]|\n)*?"(\d\d) ', sources))
    listed = set(
        re.findall(r"^\| (\d\d) \|", (root / "tests" / "contracts" / "INVARIANTS.md").read_text(), re.MULTILINE)
    )
    assert checked == listed
    assert len(listed) >= LEAST_RULES


@pytest.mark.slow
@pytest.mark.parametrize("rule", sorted(BREAKS))
def test_rules__broken_contract__are_not_kept(rule: str, tmp_path: Path) -> None:
    root = toolchain.project_root()
    for folder in ("contracts", "tests/forge"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("symbolic", "Reach.t.sol"))
    shutil.copy(root / "foundry.toml", tmp_path)
    for folder in ("node_modules", "tools"):
        (tmp_path / folder).symlink_to(root / folder)
    path, old, new = BREAKS[rule]
    source = (tmp_path / path).read_text()
    assert source.count(old) == 1
    (tmp_path / path).write_text(source.replace(old, new))

    reasons = failures(play(tmp_path, FOUNDRY_INVARIANT_SHRINK_RUN_LIMIT="0"))

    assert any(f'Broken("{rule} ' in reason for reason in reasons.values()), reasons

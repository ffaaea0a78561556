"""The rules of ``tests/forge``: forge looks for a sequence of moves after which one does not hold."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from offchain import toolchain

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EXPECTED = {
    "tests/forge/Invariants.t.sol:InvariantsTest": {
        "invariant_draws_are_by_stake()",
        "invariant_money_is_where_it_belongs()",
        "invariant_rounds_keep_their_word()",
    },
    "tests/forge/Reach.t.sol:ReachTest": {"test_moves__some_walks__reach_every_outcome()"},
}
LEAST_CALLS = 3000
"""Of each invariant; as many as ``foundry.toml`` asks for."""


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """What forge reports, by contract and test."""
    command = [str(toolchain.forge_path()), "test", "--json", "--root", str(toolchain.project_root())]
    run = subprocess.run(
        command, cwd=toolchain.project_root(), env=toolchain.environment(), capture_output=True, text=True, check=False
    )
    assert run.stdout.startswith("{"), run.stdout + run.stderr
    return {contract: suite["test_results"] for contract, suite in json.loads(run.stdout).items()}


def test_rules__any_sequence_of_moves__hold(results: dict[str, dict[str, Any]]) -> None:
    failures = {
        f"{contract}: {name}": result["reason"]
        for contract, tests in results.items()
        for name, result in tests.items()
        if result["status"] != "Success"
    }
    assert failures == {}


def test_rules__all_of_them__were_played(results: dict[str, dict[str, Any]]) -> None:
    assert {contract: set(tests) for contract, tests in results.items()} == EXPECTED
    invariants = results["tests/forge/Invariants.t.sol:InvariantsTest"]
    assert min(result["kind"]["Invariant"]["calls"] for result in invariants.values()) >= LEAST_CALLS

"""Brownie's own commands on this project, each as its user types it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from migrations.ledger import record_path
from offchain.toolchain import project_root
from tests.local_chain import Anvil, running_anvil

pytestmark = pytest.mark.integration

CHAIN_ID = 7_100_000 + os.getpid() % 100_000
"""No other chain's deployment record is to be touched."""
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def brownie(*arguments: str, typed: str | None = None) -> str:
    """Run ``tools/brownie`` and return what it printed, or fail with it."""
    ran = subprocess.run(
        [str(project_root() / "tools" / "brownie"), *arguments],
        input=typed,
        stdin=subprocess.DEVNULL if typed is None else None,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    printed = COLOURS.sub("", ran.stdout)
    assert ran.returncode == 0, printed
    assert "Error" not in printed, printed
    return printed


@dataclass(frozen=True)
class Network:
    """A development network of Brownie's, on a chain that runs already: Brownie attaches and leaves it running."""

    name: str
    anvil: Anvil
    record: Path


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    # What Brownie's own network `development` sets, but for the port and the chain id.
    options = ("--chain-id", str(CHAIN_ID), "--gas-limit", "12000000", "--block-base-fee-per-gas", "0")
    name, record = f"interlock-test-{CHAIN_ID}", record_path(CHAIN_ID)
    with running_anvil(*options) as anvil:
        port = anvil.url.rpartition(":")[2]
        brownie(
            "networks", "add", "development", name, "cmd=anvil", "host=http://127.0.0.1", f"port={port}", "accounts=10"
        )
        try:
            yield Network(name, anvil, record)
        finally:
            brownie("networks", "delete", name)
            record.unlink(missing_ok=True)


def test_brownie_test__folder__passes(network: Network) -> None:
    printed = brownie("test", "tests/brownie", "--network", network.name)
    summary = re.search(r"=+ (.*) in [\d.]+s.* =+", printed)
    assert summary, printed
    assert re.match(r"(\d+) passed", summary[1]), printed
    assert "failed" not in summary[1]
    assert int(summary[1].split()[0]) >= 5


def test_brownie_run__one_step_after_the_other_and_all_again__deploys_once(network: Network) -> None:
    network.record.unlink(missing_ok=True)
    brownie("run", "m01_registry", "--network", network.name)
    first = json.loads(network.record.read_text())
    assert first.keys() == {"chain_id", "block", "registry", "verifier"}
    brownie("run", "m02_jobs", "--network", network.name)
    second = json.loads(network.record.read_text())
    assert second.keys() == {*first.keys(), "jobs", "staking"}
    assert first.items() <= second.items()
    brownie("run", "m03_views", "--network", network.name)
    third = json.loads(network.record.read_text())
    assert third.keys() == {*second.keys(), "verified_inference", "validation_registry"}
    assert second.items() <= third.items()
    printed = brownie("run", "steps", "--network", network.name)
    assert json.loads(network.record.read_text()) == third
    for name in ("registry", "verifier", "staking", "jobs"):
        assert f"{name.title()} at {second[name]}" in printed


def test_brownie_run__second_step_alone__names_the_first(network: Network) -> None:
    network.record.unlink(missing_ok=True)
    with pytest.raises(AssertionError, match="run m01_registry first"):
        brownie("run", "m02_jobs", "--network", network.name)


def test_brownie_console__after_the_migrations__knows_the_contracts(network: Network) -> None:
    network.record.unlink(missing_ok=True)
    shown = 'print(f"<{len(Jobs)} {Jobs[-1]} {chain.height - height}>")'
    typed = ['run("steps")', "height = chain.height", 'run("steps")', shown, "exit()", ""]
    printed = brownie("console", "--network", network.name, typed="\n".join(typed))
    jobs = json.loads(network.record.read_text())["jobs"]
    assert f"<1 {jobs} 0>" in printed

"""What the views of both standards have in common: how they are deployed, and how little they can do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from migrations import m03_views
from migrations.ledger import Ledger, parameters
from migrations.steps import migrate_all
from offchain.chain.connection import artefact
from offchain.chain.deployment import Deployment
from offchain.errors import UnrecoverableError
from tests.contracts.stage import Stage
from tests.contracts.views import NAMES, Views

pytestmark = pytest.mark.integration


def test_addresses__views__are_of_one_deployment(stage: Stage, views: Views) -> None:
    contracts = stage.contracts
    assert views.ask(views.inference, "registry") == views.inference.address
    assert views.ask(views.inference, "jobs") == contracts.jobs.address
    assert views.ask(views.inference, "models") == contracts.registry.address
    assert views.ask(views.validations, "jobs") == contracts.jobs.address


@pytest.mark.parametrize("name", NAMES)
def test_views__code__can_neither_store_nor_call_for_a_change(name: str) -> None:
    # SLOAD, SSTORE, CREATE, CALL, CALLCODE, DELEGATECALL, CREATE2, SELFDESTRUCT
    forbidden = {0x54, 0x55, 0xF0, 0xF1, 0xF2, 0xF4, 0xF5, 0xFF}
    assert instructions(name) & (forbidden | {0xFA}) == {0xFA}  # STATICCALL
    assert instructions("Registry") & forbidden  # so they would be found


def instructions(name: str) -> set[int]:
    """The opcodes of a compiled contract, without what it pushes and without the compiler's note at its end."""
    code = bytes.fromhex(artefact(name)["deployedBytecode"])
    end = len(code) - 2 - int.from_bytes(code[-2:], "big")
    seen, position = set(), 0
    while position < end:
        seen.add(code[position])
        position += code[position] - 0x5E if 0x60 <= code[position] <= 0x7F else 1
    return seen


@pytest.fixture
def deploy(stage: Stage, tmp_path: Path) -> Callable[[], tuple[Path, Deployment]]:
    """Run every migration on a record of its own."""
    path = tmp_path / "record.json"
    return lambda: (path, migrate_all(stage.chain.sender("deployer"), path))


def test_migrate__again__leaves_the_views_alone(deploy: Callable[[], tuple[Path, Deployment]]) -> None:
    path, first = deploy()
    record = json.loads(path.read_text())
    assert (record["verified_inference"], record["validation_registry"]) == (
        first.verified_inference,
        first.validation_registry,
    )
    assert deploy()[1] == first


def test_migrate__one_view_missing__deploys_that_one(deploy: Callable[[], tuple[Path, Deployment]]) -> None:
    path, first = deploy()
    record = json.loads(path.read_text())
    del record["validation_registry"]
    path.write_text(json.dumps(record))
    assert Deployment.load(path).validation_registry is None  # a record from before there were views
    second = deploy()[1]
    assert second.verified_inference == first.verified_inference
    assert second.validation_registry not in (None, first.validation_registry)


def test_migrate__no_jobs__names_the_step_before(stage: Stage, tmp_path: Path) -> None:
    ledger = Ledger(stage.chain.sender("deployer"), tmp_path / "record.json", parameters())
    with pytest.raises(UnrecoverableError, match="run m02_jobs first"):
        m03_views.migrate(ledger)

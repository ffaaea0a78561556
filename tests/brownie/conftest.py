"""The contracts on Brownie's development network, deployed by the migrations' own steps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from brownie import accounts, exceptions, project, web3

from migrations.brownie_entry import NodeSender, register_deployment
from migrations.ledger import Ledger, parameters
from migrations.steps import STEPS
from offchain.chain.connection import Connection


@pytest.fixture(scope="module")
def deployed(module_isolation: None, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Brownie's own contract objects, by name."""
    connection = Connection(web3.provider.endpoint_uri)
    record: Path = tmp_path_factory.mktemp("brownie") / "record.json"
    ledger = Ledger(NodeSender(connection, accounts[0]), record, parameters())
    for step in STEPS:
        step(ledger)
    register_deployment({key: ledger.entries()[key] for key in ("registry", "verifier", "staking", "jobs")})
    loaded = project.get_loaded_projects()[0]
    return SimpleNamespace(
        registry=loaded.Registry[-1], verifier=loaded.Verifier[-1], staking=loaded.Staking[-1], jobs=loaded.Jobs[-1]
    )


@pytest.fixture
def isolated(fn_isolation: None) -> None:
    """Take back what the test does to the chain."""


@contextmanager
def refused(error: str) -> Iterator[None]:
    """Expect a custom error by its name: Brownie shows it as ``Name: arguments``."""
    with pytest.raises(exceptions.VirtualMachineError) as caught:
        yield
    shown = str(caught.value.revert_msg)
    assert shown.split(":")[0] == error, shown

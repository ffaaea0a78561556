"""A chain whose clock moves one second a block and no further by itself, and the stage upon it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from migrations.steps import migrate_all
from offchain.chain import connection as decoding
from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.protocol.types import ZERO_ADDRESS
from tests.contracts.stage import STAKES, Stage
from tests.contracts.views import NAMES, Views
from tests.local_chain import LocalChain, running_anvil


@pytest.fixture(scope="session")
def clockwork() -> Iterator[LocalChain]:
    """The chain."""
    # A clock that always starts alike, so that draws fall alike. Nothing here asks for the state at old blocks; kept,
    # that of a long test fills tens of gigabytes of disk.
    with running_anvil("--prune-history", "64", "--timestamp", "1750000000") as anvil:
        chain = LocalChain(Connection(anvil.url))
        chain.rpc("anvil_setBlockTimestampInterval", 1)
        # By default fees go to address 0, where penalties are burnt: tests compare what arrives there.
        chain.rpc("anvil_setCoinbase", chain.account("proposer").address)
        # As on any chain in use, the address exists: the first wei that it gets would cost 25,000 gas more (EIP-161).
        chain.fund(ZERO_ADDRESS, 1)
        yield chain


@pytest.fixture(scope="session")
def shared_stage(clockwork: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    deployment = migrate_all(clockwork.sender("deployer"), tmp_path_factory.mktemp("stage") / "record.json")
    stage = Stage(
        clockwork,
        Contracts.connect(clockwork.connection, deployment),
        requester=clockwork.instant("requester"),
        owner=clockwork.instant("owner"),
    )
    stage.model = stage.register_segments(3)
    stage.workers = tuple(clockwork.instant(f"worker {index}") for index in range(len(STAKES)))
    for worker, stake_wei in zip(stage.workers, STAKES, strict=True):
        stage.join(worker, stake_wei)
    return stage


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """Three workers that serve a model of three segments; whatever the test does to the chain is taken back."""
    with shared_stage.chain.isolated():
        yield Stage(**vars(shared_stage))


@pytest.fixture
def views(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Iterator[Views]:
    """The views that the migrations deployed."""
    deployment = stage.contracts.deployment
    assert deployment.verified_inference is not None
    assert deployment.validation_registry is not None
    bind = stage.chain.connection.contract
    inference, validations = deployment.verified_inference, deployment.validation_registry
    # Off chain nothing calls the views, so that their errors are not among those that a connection can name.
    monkeypatch.setattr(decoding, "CONTRACTS", (*decoding.CONTRACTS, *NAMES))
    decoding._custom_errors.cache_clear()
    yield Views(stage, bind(NAMES[0], inference), bind(NAMES[1], validations))
    decoding._custom_errors.cache_clear()

"""A real Anvil for the session, with the contracts on it and funded accounts; each test may leave no trace on it.

``pytest -p no:pytest-brownie`` collects everything but ``tests/brownie``; ``brownie test`` collects that folder alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.chain.sender import Sender
from tests.local_chain import Anvil, LocalChain, running_anvil

if TYPE_CHECKING:
    from tests.live_network import LiveNetwork

# A test says what is right, and not how fast a busy machine is.
hypothesis.settings.register_profile("interlock", deadline=None)
hypothesis.settings.load_profile("interlock")

BROWNIE_TESTS = Path(__file__).parent / "brownie"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    under_brownie = config.pluginmanager.hasplugin("brownie-core")
    inside = collection_path == BROWNIE_TESTS or BROWNIE_TESTS in collection_path.parents
    above = collection_path in BROWNIE_TESTS.parents
    return True if inside != under_brownie and not above else None


@pytest.fixture(scope="session")
def anvil() -> Iterator[Anvil]:
    """A chain of its own for the session, on a free port."""
    with running_anvil() as running:
        yield running


@pytest.fixture(scope="session")
def chain(anvil: Anvil) -> LocalChain:
    """Control over the session's chain: time, blocks, balances, snapshots."""
    return LocalChain(Connection(anvil.url))


@pytest.fixture(scope="session")
def connection(chain: LocalChain) -> Connection:
    """A connection to the session's chain."""
    return chain.connection


@pytest.fixture(scope="session")
def deployer(chain: LocalChain) -> Sender:
    """A funded sender that signs for itself."""
    return chain.sender("deployer")


@pytest.fixture(scope="session")
def contracts(chain: LocalChain, deployer: Sender, tmp_path_factory: pytest.TempPathFactory) -> Contracts:
    """All contracts, deployed by the migrations."""
    from migrations.steps import migrate_all

    return Contracts.connect(
        chain.connection, migrate_all(deployer, tmp_path_factory.mktemp("deployment") / "record.json")
    )


@pytest.fixture(scope="session")
def accounts(chain: LocalChain) -> tuple[Sender, ...]:
    """Ten funded senders that sign for themselves."""
    return tuple(chain.sender(f"account {index}") for index in range(10))


@pytest.fixture
def isolation(chain: LocalChain) -> Iterator[None]:
    """Take back whatever the test does to the chain."""
    with chain.isolated():
        yield


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """A network of real processes with nine workers, for the whole session."""
    from tests.live_network import running_network

    with running_network(tmp_path_factory.mktemp("interlock")) as running:
        yield running

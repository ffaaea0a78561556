"""A real IPFS node for the session, and servers that misbehave on purpose."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty_servers import Responder, scripted_server

from offchain.storage.ipfs import IpfsStore
from offchain.storage.node import RunningNode, start_node


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningNode]:
    """A private node."""
    with start_node(tmp_path_factory.mktemp("ipfs")) as running:
        yield running


@pytest.fixture(scope="session")
def store(node: RunningNode) -> IpfsStore:
    """The store over the session's node."""
    return IpfsStore(node.api_url, timeout_seconds=60)


@pytest.fixture(scope="session")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IpfsStore]:
    """A patient store over a node that gives missing content up after a quarter of a second."""
    with start_node(tmp_path_factory.mktemp("impatient"), fetch_timeout_seconds=0.25) as running:
        yield IpfsStore(running.api_url, timeout_seconds=60)


@pytest.fixture
def scripted() -> Iterator[Callable[[Responder], str]]:
    """Start a server that reads one request a connection and then lets the test answer; gives its address."""
    with contextlib.ExitStack() as stack:

        def start(respond: Responder) -> str:
            return stack.enter_context(scripted_server(respond))

        yield start


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A directory for a node of the test's own."""
    return tmp_path / "repository"

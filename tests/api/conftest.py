"""A whole local network with three workers, and gateways of the test's own on the same chain and IPFS node."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offchain.chain.sender import Sender
from offchain.cli.client import GatewayClient
from offchain.network.local import LocalNetwork, NetworkOptions, dev_account
from offchain.protocol.types import ModelId
from offchain.worker.config import create_keystore
from tests.api.gateways import MakeGateway, OwnGateway, calibration, upload
from tests.harness import TEST_CACHE
from tests.local_chain import ETHER
from tests.models import tiny_mlp

WORKERS = 3


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalNetwork]:
    """Anvil, an IPFS node, three workers and a gateway, each a process of its own."""
    directory = tmp_path_factory.mktemp("network") / "network"
    with LocalNetwork(NetworkOptions(directory, TEST_CACHE, workers=WORKERS)) as running:
        yield running


@pytest.fixture(scope="session")
def funder(network: LocalNetwork) -> Sender:
    """Who has money."""
    return Sender(network.connection, dev_account())


@pytest.fixture(scope="session")
def model(network: LocalNetwork, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model that was registered through the gateway and is served by every worker."""
    directory = tmp_path_factory.mktemp("upload")
    files = {"model": tiny_mlp(5), "calibration": calibration()}
    paths = {name: directory / name for name in files}
    for name, content in files.items():
        paths[name].write_bytes(content)
    registered = GatewayClient(network.gateway_url).register(
        paths["model"],
        paths["calibration"],
        heldout=None,
        fields=upload()["data"],
        progress=lambda step, share: None,
    )
    network.wait_until_served(ModelId(bytes.fromhex(registered[2:])))
    return registered


def gateways(network: LocalNetwork, funder: Sender, directory: Path) -> Iterator[MakeGateway]:
    made = []
    numbers = itertools.count()

    def make(funds_wei: int = ETHER, **settings: Any) -> OwnGateway:
        home = directory / f"gateway-{next(numbers)}"
        home.mkdir()
        account = create_keystore(home / "keystore.json", home / "password")
        if funds_wei:
            funder.transfer(account.address, funds_wei)
        config = {
            "rpc_url": network.connection.rpc_url,
            "ipfs_url": network.ipfs_url,
            "deployment": str(network.deployment_path),
            "keystore": "keystore.json",
            "password_file": "password",
            "identity": "identity.age",
            "state_directory": "state",
            "cache_directory": str(TEST_CACHE),
        }
        (home / "gateway.json").write_text(json.dumps(config | settings))
        made.append(OwnGateway(home / "gateway.json"))
        return made[-1]

    yield make
    for gateway in made:
        gateway.end()


@pytest.fixture
def own_gateway(network: LocalNetwork, funder: Sender, tmp_path: Path) -> Iterator[MakeGateway]:
    """Make gateways with an account, an identity and a state of their own."""
    yield from gateways(network, funder, tmp_path)


@pytest.fixture(scope="module")
def lasting_gateway(
    network: LocalNetwork, funder: Sender, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MakeGateway]:
    """Make gateways that several tests share."""
    yield from gateways(network, funder, tmp_path_factory.mktemp("lasting"))

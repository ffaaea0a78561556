"""Finding the network that a command is about, and showing errors as a person wants to read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from web3 import Web3

from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.chain.deployment import Deployment
from offchain.cli.client import GatewayClient
from offchain.errors import InterlockError, InvalidInputError
from offchain.network.local import NetworkRecord
from offchain.protocol.types import JobId
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.storage.ipfs import IpfsStore
from offchain.toolchain import project_root

console = Console()
errors = Console(stderr=True)

IPFS_TIMEOUT_SECONDS = 20.0


def home() -> Path:
    """Where local networks and caches live: ``.interlock`` in the checkout, or ``INTERLOCK_HOME``."""
    return Path(os.environ.get("INTERLOCK_HOME") or project_root() / ".interlock")


def network_directory() -> Path:
    """Where the local network lives."""
    return home() / "network"


def cache_directory() -> Path:
    """Where circuits and keys are kept."""
    return home() / "cache"


def running_network() -> NetworkRecord | None:
    """The local network, if one runs."""
    return NetworkRecord.load(network_directory())


def gateway(url: str | None) -> GatewayClient:
    """Connect to the named gateway, or to the local network's.

    Raises:
        InvalidInputError: none is named and none runs.
    """
    if url is None:
        network = running_network()
        if network is None:
            raise InvalidInputError("--gateway", "no local network runs", "start one with `interlock up`, or name one")
        url = network.gateway_url
    return GatewayClient(url)


def chain_and_store(rpc: str | None, ipfs: str | None, jobs: str | None) -> tuple[Contracts, IpfsStore, EzklProver]:
    """Connect to the named chain and IPFS node, or to the local network's.

    Raises:
        InvalidInputError: something is not named and no local network runs, or ``jobs`` is no address.
    """
    network = running_network()
    missing = [name for name, value in (("--rpc", rpc), ("--ipfs", ipfs), ("--jobs", jobs)) if not value]
    if network is None and missing:
        raise InvalidInputError(", ".join(missing), "no local network runs", "start one, or give these options")
    if jobs is not None and not Web3.is_address(jobs):
        raise InvalidInputError("--jobs", f"{jobs!r} is no address", "give the job contract's, as receipts name it")
    connection = Connection(rpc or (network.rpc_url if network else ""))
    if jobs is not None:
        contracts = Contracts.of_jobs(connection, jobs)
    else:
        assert network is not None
        contracts = Contracts.connect(connection, Deployment.load(network.deployment))
    store = IpfsStore(ipfs or (network.ipfs_url if network else ""), IPFS_TIMEOUT_SECONDS)
    return contracts, store, EzklProver(ArtefactCache(cache_directory()))


def read_job_id(text: str) -> JobId:
    """Read a job's id.

    Raises:
        InvalidInputError: it is not 32 bytes in hex.
    """
    try:
        raw = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        raw = b""
    if len(raw) != 32:
        raise InvalidInputError(
            "ID", f"{text!r} is no job id", "give 32 bytes in hex, as `interlock job submit` prints it"
        )
    return JobId(raw)


@contextmanager
def readable_errors() -> Iterator[None]:
    """Show one of our errors as one line, and leave with code 2."""
    try:
        yield
    except InvalidInputError as error:
        problem = f"[red]{escape(error.field)}[/]: {escape(error.problem)}"
        errors.print(f"{problem}\n[green]→[/] {escape(error.mend)}", highlight=False)
        raise typer.Exit(2) from error
    except InterlockError as error:
        errors.print(f"[red]error[/]: {escape(str(error))}", highlight=False)
        raise typer.Exit(2) from error

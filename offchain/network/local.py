"""The local network: started whole, watched, and stopped whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

import psutil
from eth_account import Account
from eth_account.signers.local import LocalAccount

from migrations.ledger import parameters
from migrations.steps import migrate_all
from offchain.chain.contracts import Contracts
from offchain.chain.sender import Sender
from offchain.errors import InvalidInputError, UnrecoverableError
from offchain.network.processes import DEV_MNEMONIC, Running, free_port, ready_line, start_chain, start_python
from offchain.protocol.types import ModelId
from offchain.worker.config import WorkerConfig, create_keystore, open_keystore

ETHER = 10**18
RECORD = "network.json"

Report = Callable[[str], None]


def say_nothing(message: str) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class NetworkOptions:
    """What a local network is made of.

    Args:
        directory: keys, logs and state; emptied at every start.
        cache_directory: circuits and keys, kept from one start to the next.
        chain: ``anvil`` or ``ganache``.
        workers: how many worker processes.
        gateway_port: 0 for a free one.
        stake_wei: each worker's bond.
        srs: a structured reference string for new models, with its origin; one is made, and marked insecure, if None.
        inputs: what the contracts are deployed with, where it is not as in ``migrations/config/local.json``.
        gateway_settings: likewise of the gateway's configuration.
        early_proofs: how many proofs each worker may begin before they are asked for. Workers that share one machine
            would only keep each other from the proofs that are due.
    """

    directory: Path
    cache_directory: Path
    chain: str = "anvil"
    workers: int = 9
    gateway_port: int = 0
    stake_wei: int = 10 * ETHER
    srs: tuple[Path, str] | None = None
    inputs: Mapping[str, int] = field(default_factory=dict)
    gateway_settings: Mapping[str, object] = field(default_factory=dict)
    early_proofs: int = 0


@dataclass(frozen=True)
class NetworkRecord:
    """Where the parts of a running network are to be found."""

    rpc_url: str
    ipfs_url: str
    gateway_url: str
    deployment: Path
    cache_directory: Path
    pid: int

    def save(self, directory: Path) -> None:
        """Write ``network.json``."""
        content = {name: str(value) if isinstance(value, Path) else value for name, value in vars(self).items()}
        (directory / RECORD).write_text(json.dumps(content, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> NetworkRecord | None:
        """Read ``network.json``; None if no network runs there."""
        try:
            raw = json.loads((directory / RECORD).read_text())
            record = cls(
                **{**raw, "deployment": Path(raw["deployment"]), "cache_directory": Path(raw["cache_directory"])}
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None
        return record if psutil.pid_exists(record.pid) else None


class LocalNetwork:
    """A context manager around all the programs of a network.

    Raises:
        UnrecoverableError: another network runs in the directory, or a part did not come up.
    """

    def __init__(self, options: NetworkOptions, report: Report = say_nothing) -> None:
        self.options = options
        self.programs: dict[str, Running] = {}
        self._report = report

    def __enter__(self) -> LocalNetwork:
        directory = self.options.directory
        if NetworkRecord.load(directory) is not None:
            raise UnrecoverableError(f"a network runs in {directory} already; stop it first (Ctrl-C where it runs)")
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(mode=0o700, parents=True)
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop every program that was started, the last one first."""
        (self.options.directory / RECORD).unlink(missing_ok=True)
        running = list(reversed(self.programs.values()))
        for program in running:
            if program.is_alive():
                program.process.terminate()
        for program in running:
            program.stop()

    def check(self) -> None:
        """Raise if a program has ended by itself.

        Raises:
            UnrecoverableError: naming it, with the end of its log.
        """
        for program in self.programs.values():
            if not program.is_alive():
                raise UnrecoverableError(f"{program.role} has ended; its log ends:\n{program.last_words()}")

    def wait_until_served(self, model_id: ModelId, workers: int | None = None, timeout_seconds: float = 180.0) -> int:
        """Wait until enough workers serve a model and have passed its trial; returns how many have.

        Raises:
            UnrecoverableError: they did not in time, or a program ended.
        """
        wanted = self.options.workers if workers is None else workers
        deadline = time.monotonic() + timeout_seconds
        served_block: int | None = None
        while True:
            self.check()
            head = self.connection.block_number()
            serving = sum(self._is_drawn(address, model_id) for address in self.operators)
            if serving < wanted:
                served_block = None
            elif served_block is None:
                served_block = self.connection.block_number()
            elif head > served_block:
                # Only now: a draw counts who served at the end of the block before.
                return serving
            if time.monotonic() > deadline:
                raise UnrecoverableError(f"only {serving} of {wanted} workers serve the model; see the logs")
            time.sleep(0.3)

    def _is_drawn(self, operator: str, model_id: ModelId) -> bool:
        staking = self.contracts.staking
        return staking.is_serving(operator, model_id) and staking.is_admitted(operator, model_id)

    # --- starting ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        logs = self.options.directory / "logs"
        self._report(f"starting {self.options.chain}")
        self.programs["chain"], self.connection = start_chain(self.options.chain, free_port(), logs / "chain.log")
        self._report("starting IPFS")
        self.ipfs_url = self._launch_ipfs(0)

        self._report("deploying the contracts")
        deployer = Sender(self.connection, dev_account())
        self.deployment_path = self.options.directory / "deployment.json"
        deployed = migrate_all(deployer, self.deployment_path, {**parameters(), **self.options.inputs})
        self.contracts = Contracts.connect(self.connection, deployed)

        self._report(f"starting {self.options.workers} workers")
        self.worker_configs: dict[str, Path] = {}
        self.operators: list[str] = []
        for index in range(self.options.workers):
            self.add_worker(f"worker-{index}", deployer)
        self._wait_until_enrolled()

        self._report("starting the gateway")
        self._start_gateway(deployer)
        self.record = NetworkRecord(
            self.connection.rpc_url,
            self.ipfs_url,
            self.gateway_url,
            self.deployment_path,
            self.options.cache_directory,
            os.getpid(),
        )
        self.record.save(self.options.directory)

    def add_worker(self, name: str, funder: Sender, module: str = "offchain.worker") -> Running:
        """Make keys for a worker, fund it, and start it.

        Args:
            module: the program to run; tests give one that misbehaves.
        """
        home = self.options.directory / name
        home.mkdir(mode=0o700)
        account = create_keystore(home / "keystore.json", home / "password")
        funder.transfer(account.address, self.options.stake_wei + 5 * ETHER)
        config = WorkerConfig(
            name=name,
            rpc_url=self.connection.rpc_url,
            ipfs_url=self.ipfs_url,
            deployment=self.deployment_path,
            keystore=home / "keystore.json",
            password_file=home / "password",
            identity=home / "identity.age",
            state_directory=home / "state",
            cache_directory=self.options.cache_directory,
            stake_wei=self.options.stake_wei,
            early_proofs=self.options.early_proofs,
        )
        config.save(home / "worker.json")
        self.worker_configs[name] = home / "worker.json"
        self.operators.append(account.address)
        return self.start_worker(name, module)

    def start_worker(self, name: str, module: str = "offchain.worker") -> Running:
        """Start a worker that was added before, for the first time or again."""
        log = self.options.directory / "logs" / f"{name}.log"
        self.programs[name] = start_python(name, module, [str(self.worker_configs[name])], log)
        return self.programs[name]

    def restart(self, role: str) -> Running:
        """Start a program again with its own state and at its old address; it is stopped first if it still runs.

        Args:
            role: ``ipfs``, ``gateway`` or a worker's name. Not ``chain``: a development chain keeps nothing.

        Raises:
            InvalidInputError: there is no such program, or it is the chain.
            UnrecoverableError: it did not come up.
        """
        if role not in self.programs or role == "chain":
            known = ", ".join(name for name in self.programs if name != "chain")
            raise InvalidInputError("role", f"{role!r} cannot be restarted", f"use one of {known}")
        self.programs[role].stop()
        if role == "ipfs":
            self._launch_ipfs(_port_of(self.ipfs_url))
        elif role == "gateway":
            path = self.options.directory / "gateway" / "gateway.json"
            config = json.loads(path.read_text()) | {"port": _port_of(self.gateway_url)}
            path.write_text(json.dumps(config, indent=2) + "\n")
            self._launch_gateway()
        else:
            self.start_worker(role)
        return self.programs[role]

    def worker_account(self, name: str) -> LocalAccount:
        """A worker's key; for tests that act in its place."""
        config = WorkerConfig.load(self.worker_configs[name])
        return open_keystore(config.keystore, config.password_file)

    def _wait_until_enrolled(self, timeout_seconds: float = 90.0) -> None:
        deadline = time.monotonic() + timeout_seconds
        while not all(any(self.contracts.staking.encryption_key_of(operator)) for operator in self.operators):
            self.check()
            if time.monotonic() > deadline:
                raise UnrecoverableError(f"the workers did not enrol in {timeout_seconds:.0f} s; see the logs")
            time.sleep(0.2)

    def _start_gateway(self, funder: Sender) -> None:
        home = self.options.directory / "gateway"
        home.mkdir(mode=0o700)
        account = create_keystore(home / "keystore.json", home / "password")
        funder.transfer(account.address, 100 * ETHER)
        config: dict[str, object] = {
            "rpc_url": self.connection.rpc_url,
            "ipfs_url": self.ipfs_url,
            "deployment": str(self.deployment_path),
            "keystore": str(home / "keystore.json"),
            "password_file": str(home / "password"),
            "identity": str(home / "identity.age"),
            "state_directory": str(home / "state"),
            "cache_directory": str(self.options.cache_directory),
            "port": self.options.gateway_port,
        }
        if self.options.srs is not None:
            config |= {"srs": str(self.options.srs[0]), "srs_origin": self.options.srs[1]}
        config |= self.options.gateway_settings
        (home / "gateway.json").write_text(json.dumps(config, indent=2) + "\n")
        self.gateway_url = self._launch_gateway()

    def _launch_ipfs(self, port: int) -> str:
        log, repository = self.options.directory / "logs" / "ipfs.log", self.options.directory / "ipfs"
        arguments = ["--repo", str(repository), "--port", str(port)]
        self.programs["ipfs"] = start_python("ipfs", "offchain.storage.node", arguments, log, reads_ready_line=True)
        return str(ready_line(self.programs["ipfs"])["api"])

    def _launch_gateway(self) -> str:
        log, config = self.options.directory / "logs" / "gateway.log", self.options.directory / "gateway/gateway.json"
        self.programs["gateway"] = start_python("gateway", "api", [str(config)], log, reads_ready_line=True)
        return str(ready_line(self.programs["gateway"])["url"])


def _port_of(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def dev_account(index: int = 0) -> LocalAccount:
    """One of the funded accounts of a development chain."""
    Account.enable_unaudited_hdwallet_features()
    account: LocalAccount = Account.from_mnemonic(DEV_MNEMONIC, account_path=f"m/44'/60'/0'/0/{index}")
    return account

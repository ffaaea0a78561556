"""A whole network of real processes for the end-to-end tests, used as a person uses it: through the command."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from offchain.chain.contracts import Contracts, read_job
from offchain.chain.errors import TransactionRefused
from offchain.chain.events import Event, job_events
from offchain.chain.sender import Sender
from offchain.cli.client import GatewayClient
from offchain.network.local import LocalNetwork, NetworkOptions, dev_account
from offchain.protocol.duties import JobView
from offchain.protocol.types import Address, JobId, ModelId, Phase
from offchain.toolchain import project_root
from tests.harness import TEST_CACHE
from tests.local_chain import ETHER
from tests.models import mlp

T = TypeVar("T")

WORKERS = 9
MAX_DRIFT = 0.05
MODEL = mlp((6, 12, 10, 3), seed=21)
VALUES = (0.61, -1.13, 0.37, 1.71, 0.47, -0.89)


def hexadecimal(text: str) -> bytes:
    """Read an id as the command prints it."""
    return bytes.fromhex(text.removeprefix("0x"))


def run_float(model: bytes, values: object) -> NDArray[np.float32]:
    """What a model answers in floating point; a batch of one."""
    session = onnxruntime.InferenceSession(model)
    (answer,) = session.run(None, {session.get_inputs()[0].name: np.array([values], np.float32)})
    return answer.ravel()


def until(look: Callable[[], T | None], what: str, timeout_seconds: float = 120.0) -> T:
    """Look again until there is something to be seen; fail with ``what`` if there never is."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"waited {timeout_seconds:.0f} s in vain: {what}"
        time.sleep(0.05)


def write_samples(path: Path, inputs: NDArray[np.float32]) -> Path:
    """Write calibration samples as a person would."""
    np.savez_compressed(path, input=inputs)
    return path


@dataclass
class LiveNetwork:
    """A running network with a model that its workers serve.

    Args:
        home: what ``INTERLOCK_HOME`` names.
        model: the id of :data:`MODEL`, as the command printed it.
        drift: how far fixed point may be off for that model.
    """

    network: LocalNetwork
    home: Path
    model: str = ""
    drift: float = 0.0
    registration: subprocess.CompletedProcess[str] | None = None
    frozen: set[str] = field(default_factory=set)

    # --- as a person --------------------------------------------------------------------------------------------------

    def interlock(self, *arguments: object, home: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run the ``interlock`` command to its end."""
        environment = os.environ | {"INTERLOCK_HOME": str(home or self.home), "COLUMNS": "200"}
        command = [str(Path(sys.executable).with_name("interlock")), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=150, check=False, env=environment, cwd=project_root()
        )

    def register(self, onnx: bytes, samples: NDArray[np.float32], name: str, segments: int) -> str:
        """Register a model with the command and wait until all workers serve it; returns its id."""
        files = self.home / "files"
        files.mkdir(exist_ok=True)
        (files / f"{name}.onnx").write_bytes(onnx)
        calibration = write_samples(files / f"{name}.npz", samples)
        arguments = ("--segments", segments, "--calibration", calibration)
        done = self.interlock("model", "register", files / f"{name}.onnx", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        self.registration = done
        found = re.search(r"^model (0x[0-9a-f]{64})$", done.stdout, re.MULTILINE)
        assert found, done.stdout
        self.network.wait_until_served(ModelId(hexadecimal(found[1])))
        return found[1]

    @property
    def client(self) -> GatewayClient:
        """The gateway's REST interface."""
        return GatewayClient(self.network.gateway_url)

    def submit(self, values: Sequence[float] = VALUES, **policy: int) -> JobId:
        """Submit a job on :data:`MODEL`."""
        job = self.client.submit(self.model, list(values), policy=policy, fee_wei=None, key=None)
        return JobId(hexadecimal(job))

    def assert_right(self, job: JobId, values: Sequence[float] = VALUES) -> None:
        """The job's result is what the model answers in floating point, and an audit from outside is valid."""
        answer = until(lambda: self.client.job("0x" + job.hex())["result"], "the result")
        np.testing.assert_allclose(np.ravel(answer["values"]), run_float(MODEL, values), rtol=0, atol=self.drift)
        audited = self.interlock("audit", job.hex(), "--json")
        assert audited.returncode == 0, audited.stdout + audited.stderr
        assert [segment["label"] for segment in json.loads(audited.stdout)["segments"]] == ["proved"] * 3

    # --- the chain ----------------------------------------------------------------------------------------------------

    @property
    def contracts(self) -> Contracts:
        """The contracts."""
        return self.network.contracts

    @cached_property
    def gateway_account(self) -> Address:
        """The account that pays for jobs."""
        keystore = json.loads((self.network.options.directory / "gateway" / "keystore.json").read_text())
        return Address(self.network.connection.web3.to_checksum_address("0x" + keystore["address"]))

    def view(self, job: JobId) -> JobView | None:
        """The job as the newest block shows it; None while the chain does not know it."""
        try:
            return read_job(self.contracts, job)
        except TransactionRefused:
            return None

    def seen(self, job: JobId, condition: Callable[[JobView], object], what: str, seconds: float = 120.0) -> JobView:
        """Wait until a job's view fulfils a condition."""

        def look() -> JobView | None:
            view = self.view(job)
            return view if view is not None and condition(view) else None

        return until(look, what, seconds)

    def ended(self, job: JobId, phase: Phase = Phase.FINALISED) -> JobView:
        """Wait until a job is over, which must be in this phase."""
        view = self.seen(job, lambda it: it.phase.is_terminal, "the end of the job")
        assert view.phase is phase, [event.name for event in self.events(job)]
        return view

    def events(self, job: JobId) -> tuple[Event, ...]:
        """Every event of a job."""
        connection, deployment = self.network.connection, self.contracts.deployment
        return job_events(self.contracts, job, deployment.block, connection.block_number())

    def penalties(self, job: JobId) -> list[tuple[str, int]]:
        """Who lost stake over a job, by name, and the reason's number."""
        found = [event.arguments for event in self.events(job) if event.name == "OperatorPenalised"]
        return [(self.name_of(arguments["operator"]), arguments["reason"]) for arguments in found]

    def jump(self, seconds: int) -> None:
        """Let so much time pass on chain at once."""
        provider: Any = self.network.connection.web3.provider
        provider.make_request("evm_increaseTime", [seconds])
        provider.make_request("evm_mine", [])

    # --- workers ------------------------------------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The workers."""
        return tuple(self.network.worker_configs)

    def name_of(self, operator: str) -> str:
        """A worker's name by its account."""
        return dict(zip(self.network.operators, self.names, strict=True))[operator]

    def operator_of(self, name: str) -> str:
        """A worker's account by its name."""
        return dict(zip(self.names, self.network.operators, strict=True))[name]

    def stakes(self) -> dict[str, int]:
        """What every worker has at stake."""
        return {name: self.contracts.staking.active_of(self.operator_of(name)) for name in self.names}

    def freeze(self, *names: str) -> None:
        """Have programs stand still, as if they hung."""
        for name in names:
            os.kill(self.network.programs[name].pid, signal.SIGSTOP)
            self.frozen.add(name)

    def thaw(self) -> None:
        """Have them go on."""
        for name in self.frozen:
            os.kill(self.network.programs[name].pid, signal.SIGCONT)
        self.frozen.clear()

    def make_good(self) -> None:
        """Put everything right again for the next test: every program runs, and all stakes are equal.

        Two of three unequal stakes may be less than the quorum.
        """
        self.thaw()
        wanted, funder = self.network.options.stake_wei, Sender(self.network.connection, dev_account())
        for name, stake in self.stakes().items():
            if stake < wanted:
                # Two senders of one account would take the same nonce.
                self.network.programs[name].stop()
                account = self.network.worker_account(name)
                funder.transfer(account.address, wanted - stake + ETHER)
                self.contracts.staking.bond(Sender(self.network.connection, account), wanted - stake)
        for name, program in tuple(self.network.programs.items()):
            if not program.is_alive():
                self.network.restart(name)


@contextmanager
def running_network(
    home: Path,
    *,
    chain: str = "anvil",
    workers: int = WORKERS,
    early_proofs: int = 0,
    network_class: type[LocalNetwork] = LocalNetwork,
) -> Iterator[LiveNetwork]:
    """Start a network and register :data:`MODEL`, in three segments."""
    home.mkdir(parents=True, exist_ok=True)
    # The command's own cache, so that circuits of earlier runs are found.
    TEST_CACHE.mkdir(parents=True, exist_ok=True)
    (home / "cache").symlink_to(TEST_CACHE)
    options = NetworkOptions(home / "network", TEST_CACHE, chain=chain, workers=workers, early_proofs=early_proofs)
    with network_class(options) as network:
        live = LiveNetwork(network, home)
        samples = np.random.default_rng(7).uniform(-2, 2, (32, 6)).astype(np.float32)
        live.model = live.register(MODEL, samples, "never-seen", 3)
        live.drift = MAX_DRIFT * float(max(np.abs(run_float(MODEL, row)).max() for row in samples))
        try:
            yield live
        finally:
            live.thaw()

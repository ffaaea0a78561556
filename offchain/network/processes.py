"""Starting the programs of a local network, on loopback and free ports, and stopping them again by process id."""

from __future__ import annotations

import ctypes
import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from offchain import toolchain
from offchain.chain.connection import Connection
from offchain.chain.errors import ChainUnreachable
from offchain.errors import InvalidInputError, UnrecoverableError

DEV_MNEMONIC = "test test test test test test test test test test test junk"
"""The phrase that every Anvil and Hardhat node starts with: worth nothing anywhere else."""

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    """Find a port on loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _die_with_parent() -> None:
    """In the child: be terminated when the supervisor dies, however it dies (prctl(2))."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


@dataclass
class Running:
    """A started program.

    Args:
        role: ``chain``, ``ipfs``, ``gateway`` or ``worker-N``.
        log: where its output goes.
    """

    role: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Whether it is still running."""
        return self.process.poll() is None

    def stop(self, timeout_seconds: float = 10.0) -> None:
        """Ask it to end, and kill it if it does not."""
        if self.is_alive():
            self.process.terminate()
        try:
            self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """Kill it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def last_words(self, lines: int = 12) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def start(role: str, command: list[str], log: Path, *, reads_ready_line: bool = False) -> Running:
    """Start a program in the background.

    Args:
        reads_ready_line: leave its standard output to the caller instead of the log; see :func:`ready_line`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("a") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if reads_ready_line else output,
            stderr=output,
            text=True,
            cwd=toolchain.project_root(),
            env=toolchain.environment(),
            preexec_fn=_die_with_parent,
        )
    return Running(role, process, log)


def start_python(role: str, module: str, arguments: list[str], log: Path, *, reads_ready_line: bool = False) -> Running:
    """Start one of our own modules as a program."""
    return start(role, [sys.executable, "-m", module, *arguments], log, reads_ready_line=reads_ready_line)


def ready_line(program: Running) -> dict[str, object]:
    """Wait for the JSON line with which a program says that it is ready.

    Raises:
        UnrecoverableError: it ended instead; the message holds the end of its log.
    """
    assert program.process.stdout is not None
    line = program.process.stdout.readline()
    try:
        answer: dict[str, object] = json.loads(line)
    except ValueError:
        program.stop()
        raise UnrecoverableError(f"{program.role} did not start; its log ends:\n{program.last_words()}") from None
    return answer


def start_chain(kind: str, port: int, log: Path, block_seconds: int = 1) -> tuple[Running, Connection]:
    """Start a chain and wait until it answers.

    Args:
        kind: ``anvil`` or ``ganache``.
        block_seconds: a block comes at least this often, so that time passes on chain.

    Raises:
        UnrecoverableError: it did not come up.
    """
    running = start("chain", _chain_command(kind, port, block_seconds), log)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and running.is_alive():
        try:
            connection = Connection(url)
            connection.block_number()
            return running, connection
        except ChainUnreachable:
            time.sleep(0.1)
    running.stop()
    raise UnrecoverableError(f"{kind} did not start on port {port}; its log ends:\n{running.last_words()}")


ANVIL_OPTIONS = ("--max-persisted-states", "0")
"""States beyond the last few hundred blocks would go to disk by the gigabyte; nobody here reads them."""


def _chain_command(kind: str, port: int, block_seconds: int) -> list[str]:
    if kind == "anvil":
        options = ["--block-time", str(block_seconds), "--mixed-mining", "--hardfork", "shanghai"]
        return [
            str(toolchain.anvil_path()),
            "--host",
            "127.0.0.1",
            "--port",
            str(port),
            "--silent",
            *ANVIL_OPTIONS,
            *options,
        ]
    if kind == "ganache":
        return [
            *toolchain.ganache_command(),
            *("--server.host", "127.0.0.1", "--server.port", str(port)),
            *("--wallet.mnemonic", DEV_MNEMONIC, "--wallet.defaultBalance", "10000"),
            *("--chain.hardfork", "shanghai", "--miner.blockTime", str(block_seconds), "--logging.quiet"),
        ]
    raise InvalidInputError("chain", f"{kind!r} is unknown", "use anvil or ganache")

"""The local IPFS node: Kubo in a process of its own, driven over HTTP like any daemon.

``python -m offchain.storage.node --repo DIR --port N`` serves until SIGTERM; `start_node` does so from Python.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

from offchain.errors import InterlockError, InvalidInputError, UnrecoverableError

_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
_LOOPBACK = "127.0.0.1"
_LOG_NAME = "node.log"
_MAX_ADD_BYTES = 1 << 30


class NodeStartFailed(UnrecoverableError):
    """The node's process ended, or stayed silent, before it was ready.

    Args:
        repository: its directory.
        reason: what it said.
    """

    def __init__(self, repository: Path, reason: str) -> None:
        super().__init__(f"the IPFS node in {repository} did not start: {reason}")
        self.repository = repository
        self.reason = reason


@dataclass
class RunningNode:
    """A node in a process of its own; leaving the ``with`` block stops it.

    Args:
        repository: its directory, with kubo.log and node.log.
        api_url: for `IpfsStore`.
        peer_id: its libp2p identity.
        swarm_addresses: where other nodes connect to it.
        process: the process, ours to end.
    """

    repository: Path
    api_url: str
    peer_id: str
    swarm_addresses: tuple[str, ...]
    process: subprocess.Popen[str] = field(repr=False)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def stop(self, timeout_seconds: float = 10.0) -> int:
        """End the node in order; kill it if it does not obey.

        Args:
            timeout_seconds: how long to wait before killing.
        Returns:
            The exit code: 0 in order, negative if it was killed.
        """
        self.process.terminate()
        try:
            code = self.process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._close_pipes()
        return code

    def kill(self) -> int:
        """End the node at once, as a crash would.

        Returns:
            The exit code, negative.
        """
        self.process.kill()
        code = self.process.wait()
        self._close_pipes()
        return code

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> RunningNode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_node(
    repository: Path,
    *,
    port: int = 0,
    swarm_port: int = 0,
    fetch_timeout_seconds: float = 20.0,
    max_add_bytes: int = _MAX_ADD_BYTES,
    start_timeout_seconds: float = 30.0,
) -> RunningNode:
    """Start a node and wait until it answers. It ends with the calling process, however that ends.

    Args:
        repository: its directory; made if it is missing.
        port: of the HTTP interface on loopback; 0 chooses a free one.
        swarm_port: for other nodes, on loopback; 0 chooses a free one.
        fetch_timeout_seconds: how long one request may look for content and bring it here; the next one goes on
            where it was.
        max_add_bytes: the largest content that it accepts in one call.
        start_timeout_seconds: how long to wait for it.
    Returns:
        The node, ready.
    Raises:
        NodeStartFailed: it did not get ready; the message says why (for example that the repository is in use).
    """
    repository = repository.resolve()
    repository.mkdir(mode=0o700, parents=True, exist_ok=True)
    command = [sys.executable, "-m", "offchain.storage.node", "--repo", str(repository), "--port", str(port)]
    command += ["--swarm-port", str(swarm_port), "--fetch-timeout", str(fetch_timeout_seconds)]
    command += ["--max-add-bytes", str(max_add_bytes), "--end-with-stdin"]
    search_path = os.pathsep.join(filter(None, (str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    with (repository / _LOG_NAME).open("a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**os.environ, "PYTHONPATH": search_path},
        )
    try:
        answer = _first_line(process, time.monotonic() + start_timeout_seconds)
        ready: dict[str, Any] = (
            json.loads(answer) if answer else {"ready": False, "error": f"no answer; see {_LOG_NAME} there"}
        )
        if not ready["ready"]:
            raise NodeStartFailed(repository, str(ready["error"]))
        addresses = tuple(str(address) for address in ready["swarm"])
        return RunningNode(repository, str(ready["api"]), str(ready["peer_id"]), addresses, process)
    except BaseException:
        process.kill()
        process.communicate()
        raise


def _first_line(process: subprocess.Popen[str], deadline: float) -> str:
    """Wait for the line that a child writes when it is ready; empty if it ends or stays silent instead."""
    assert process.stdout is not None
    is_readable, _, _ = select.select([process.stdout], [], [], max(deadline - time.monotonic(), 0))
    return process.stdout.readline() if is_readable else ""


def main(arguments: list[str] | None = None) -> int:
    """Run the node until SIGTERM or SIGINT.

    Args:
        arguments: the command line's.
    Returns:
        The exit code: 0 stopped in order, 2 refused to start.
    """
    parser = argparse.ArgumentParser(prog="python -m offchain.storage.node", description=__doc__)
    parser.add_argument("--repo", type=Path, required=True, help="the node's directory; made if it is missing")
    parser.add_argument("--port", type=int, default=0, help="HTTP interface on loopback; 0 chooses a free one")
    parser.add_argument("--swarm-port", type=int, default=0, help="for other nodes on loopback; 0 chooses a free one")
    parser.add_argument("--fetch-timeout", type=float, default=20.0, help="seconds to look for missing content")
    parser.add_argument("--max-add-bytes", type=int, default=_MAX_ADD_BYTES, help="largest content in one call")
    parser.add_argument("--end-with-stdin", action="store_true", help="stop when standard input closes")
    options = parser.parse_args(arguments)
    # Kubo's library prints to standard output as well; the one line that a parent waits for gets a channel of its own.
    ready = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        _serve(options, ready)
    except InterlockError as error:
        print(json.dumps({"ready": False, "error": str(error)}), file=ready, flush=True)
        print(error, file=sys.stderr)
        return 2
    return 0


def _serve(options: argparse.Namespace, ready: TextIO) -> None:
    # Imported here, so that a parent that only starts nodes loads neither the server nor Kubo.
    import uvicorn

    from offchain.storage.api_v0 import ApiV0
    from offchain.storage.kubo import KuboNode

    repository: Path = options.repo.resolve()
    repository.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chdir(repository)  # kubo.log is written to the working directory
    listener = _listen(options.port)
    node = KuboNode(repository, options.swarm_port)

    class Server(uvicorn.Server):
        """Says when it listens, and leaves signals to us: uvicorn raises them again which cuts the shutdown short."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            url = f"http://{_LOOPBACK}:{listener.getsockname()[1]}"
            line = {"ready": True, "api": url, "peer_id": node.peer_id, "swarm": list(node.addresses())}
            print(json.dumps(line), file=ready, flush=True)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield

    api = ApiV0(node, options.fetch_timeout, options.max_add_bytes)
    server = Server(
        uvicorn.Config(api.application(), log_level="warning", lifespan="off", timeout_graceful_shutdown=1, ws="none")
    )

    async def run() -> None:
        loop = asyncio.get_running_loop()

        def end() -> None:
            server.should_exit = True
            api.abandon()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, end)
        if options.end_with_stdin:
            threading.Thread(target=_call_at_end_of_stdin, args=(loop, end), daemon=True).start()
        await server.serve(sockets=[listener])

    try:
        asyncio.run(run())
    finally:
        node.close()


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((_LOOPBACK, port))
    except (OSError, OverflowError) as error:
        raise InvalidInputError("--port", f"{port} cannot be used ({error})", "give a free port, or 0") from error
    return listener


def _call_at_end_of_stdin(loop: asyncio.AbstractEventLoop, end: Callable[[], None]) -> None:
    while os.read(0, 4096):
        pass
    loop.call_soon_threadsafe(end)


if __name__ == "__main__":
    code = main()
    sys.stderr.flush()
    # Threads that wait inside Kubo for content that nobody has never end, and must not keep the process.
    os._exit(code)

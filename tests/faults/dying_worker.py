"""A worker that is killed at chosen instructions: ``python -m tests.faults.dying_worker CONFIG.json``.

A file ``deaths`` beside its configuration lists the instructions, one a line. At each it kills itself with SIGKILL, as
a power cut would, once: whoever starts it again sees its next life go on.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from offchain.protocol.duties import Duty, JobView
from offchain.worker.__main__ import run
from offchain.worker.asked import round_of
from offchain.worker.daemon import Worker

BEFORE_PROVING = ("executed", "remembered", "broadcast", "committed", "sealed", "revealed")
"""An output is known, on disk, its commitment sent, mined; its copy pinned, its reveal mined."""
PROVING = ("proving", "proof sent")
"""The prover runs, its proof is sent. (What follows is the next life's: it finds the segment proved.)"""

_deaths = Path(sys.argv[1]).with_name("deaths") if len(sys.argv) > 1 else Path("deaths")


def plan(directory: Path, instructions: tuple[str, ...]) -> None:
    """Write a worker's list."""
    (directory / "deaths").write_text("\n".join(instructions))


def die(instruction: str) -> None:
    """Die here, if that is on the list; it is struck off first."""
    left = _deaths.read_text().splitlines() if _deaths.exists() else []
    if instruction in left:
        left.remove(instruction)
        _deaths.write_text("\n".join(left))
        os.kill(os.getpid(), signal.SIGKILL)


def then_die(function: Callable[..., Any], instruction: str) -> Callable[..., Any]:
    """The same function, behind which a death may lie."""

    def call(*arguments: Any, **options: Any) -> Any:
        answer = function(*arguments, **options)
        die(instruction)
        return answer

    return call


class DyingWorker(Worker):
    """Honest, and dies."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.execute = then_die(self.execute, "executed")  # type: ignore[method-assign]
        self._memory.save = then_die(self._memory.save, "remembered")  # type: ignore[method-assign]
        self._executor.seal_output = then_die(self._executor.seal_output, "sealed")  # type: ignore[method-assign]
        wait = self._sender._wait

        def wait_or_die(name: str, hashes: list[str]) -> Any:
            if name in ("commit", "prove"):
                die({"commit": "broadcast", "prove": "proof sent"}[name])
            return wait(name, hashes)

        self._sender._wait = wait_or_die  # type: ignore[method-assign]

    def _commit(self, view: JobView, segment: int) -> None:
        super()._commit(view, segment)
        die("committed")

    def _reveal(self, view: JobView, segment: int) -> None:
        super()._reveal(view, segment)
        die("revealed")

    def _prove(self, view: JobView, duty: Duty) -> None:
        is_new = round_of(view, duty.segment) not in self._proofs
        super()._prove(view, duty)
        if is_new:
            threading.Thread(target=self._die_with_the_prover_running, daemon=True).start()

    def _die_with_the_prover_running(self) -> None:
        while not psutil.Process().children():
            time.sleep(0.01)
        die("proving")


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), DyingWorker))

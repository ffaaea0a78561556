"""The machines that are to prove, as a planner sees them."""

from __future__ import annotations

import heapq
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from offchain.errors import InvalidInputError

_CLASS = re.compile(r"(\d+)c,(\d+(?:\.\d+)?)g,(\d+)")


@dataclass(frozen=True)
class WorkerClass:
    """Workers that are alike.

    Attributes:
        cores: processor cores of each.
        memory_bytes: what one proof may take on each.
        count: how many there are.
    """

    cores: int
    memory_bytes: int
    count: int


@dataclass(frozen=True)
class Load:
    """One proof to be made: what it takes on the measured machine."""

    seconds: float
    memory_bytes: int


def parse_workers(text: str) -> tuple[WorkerClass, ...]:
    """Read classes of workers such as ``2c,24g,9`` (2 cores, 24 GiB, 9 of them), several separated by ``;``.

    Raises:
        InvalidInputError: the text is none.
    """
    classes = []
    for part in text.replace(" ", "").split(";"):
        match = _CLASS.fullmatch(part.lower())
        if match is None or not int(match[1]) or not float(match[2]) or not int(match[3]):
            mend = "write cores, gibibytes and count, for example 2c,24g,9, several separated by ;"
            raise InvalidInputError("workers", f"{part!r} is no class of workers", mend)
        classes.append(WorkerClass(int(match[1]), int(float(match[2]) * (1 << 30)), int(match[3])))
    return tuple(classes)


def limit_memory(workers: Sequence[WorkerClass], gibibytes: float) -> tuple[WorkerClass, ...]:
    """Return the same workers, of which a proof may take no more than this.

    Raises:
        InvalidInputError: nothing is left.
    """
    if not gibibytes > 0:
        raise InvalidInputError("memory", f"{gibibytes} GiB is no memory", "give a positive number of GiB")
    limit = int(gibibytes * (1 << 30))
    return tuple(replace(group, memory_bytes=min(group.memory_bytes, limit)) for group in workers)


def schedule(loads: Sequence[Load], workers: Sequence[WorkerClass], measured_cores: int) -> float | None:
    """Return when the last proof is done, the longest first, each on the worker that ends it soonest.

    Args:
        measured_cores: how many cores the machine has on which ``seconds`` hold; time goes with the inverse of cores.

    Returns:
        Seconds, or None where a proof fits no worker. At most 4/3 of the best, and the best itself where there are as
        many workers as proofs (Graham, SIAM J. Appl. Math. 17, 1969).
    """
    free: list[list[tuple[float, int]]] = [[(0.0, index) for index in range(group.count)] for group in workers]
    end = 0.0
    for load in sorted(loads, key=lambda load: -load.seconds):
        best: tuple[float, int] | None = None
        for at, group in enumerate(workers):
            if load.memory_bytes <= group.memory_bytes:
                done = free[at][0][0] + load.seconds * measured_cores / group.cores
                best = min(best, (done, at)) if best is not None else (done, at)
        if best is None:
            return None
        done, at = best
        heapq.heapreplace(free[at], (done, free[at][0][1]))
        end = max(end, done)
    return end

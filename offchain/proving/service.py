"""Proves for several jobs on one machine: in the order of their deadlines, never more at once than memory holds.

A prover that is killed for lack of memory costs its operator stake, so what a proof needs is predicted, and one that
would not fit beside the others waits. Keys are read ahead while it does. A proof that nobody has asked for yet fills
idle time only: one that is due ends it where it needs its place.
"""

from __future__ import annotations

import itertools
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum

from offchain.errors import InvalidInputError
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Proof, ProverFailed, SegmentCircuit
from offchain.sandbox import Cancellation

_log = logging.getLogger(__name__)

BASE_BYTES = 64 << 20
"""What the prover takes before it reads a key: the interpreter, the library and the SRS of a small circuit."""
BYTES_PER_KEY_BYTE = 2.6
"""Proofs of circuits of 2^9 to 2^16 rows took 0.77 to 0.88 of what the two predict (``benchmarks.prover_memory``)."""
WAITING_SECONDS = 0.2
"""How often somebody who waits looks whether it was cancelled."""


class State(Enum):
    """How far a proof is."""

    WAITING = "waiting"
    PROVING = "proving"
    YIELDING = "yielding"
    """It is being ended, for one that is due."""


@dataclass(frozen=True)
class Progress:
    """One proof that waits or is made.

    Args:
        deadline: on the monotonic clock; infinite if nobody has asked for it yet.
        predicted_bytes: peak memory.
        predicted_seconds: how long proving takes, alone on the machine; 0 where nothing predicts it.
        seconds: how long it has been in this state.
    """

    name: str
    state: State
    deadline: float
    predicted_bytes: int
    predicted_seconds: float
    seconds: float


@dataclass(order=True)
class _Task:
    deadline: float
    number: int
    name: str = field(compare=False)
    predicted_bytes: int = field(compare=False)
    predicted_seconds: float = field(compare=False)
    cancellation: Cancellation | None = field(compare=False, default=None)
    state: State = field(compare=False, default=State.WAITING)
    since: float = field(compare=False, default_factory=time.monotonic)

    @property
    def is_early(self) -> bool:
        """Whether it may be ended for one that is due."""
        return self.deadline == math.inf and self.cancellation is not None


class ProverService:
    """Admits proofs by deadline and memory.

    Args:
        prover: makes them.
        memory_bytes: what all proofs under way may take together.
        slots: how many may be made at once. Two at once on two cores gain about 15 %.
        predict: peak memory of a circuit's proof, where more is known than the size of its key. The larger one counts.
        predict_seconds: how long a circuit's proof takes, for :meth:`progress`; it decides nothing.
    """

    def __init__(
        self,
        prover: EzklProver,
        *,
        memory_bytes: int,
        slots: int = 1,
        predict: Callable[[SegmentCircuit], int] | None = None,
        predict_seconds: Callable[[SegmentCircuit], float] | None = None,
    ) -> None:
        if memory_bytes <= 0:
            raise InvalidInputError("memory_bytes", f"{memory_bytes} is nothing", "give what the prover may take")
        if slots <= 0:
            raise InvalidInputError("slots", f"{slots} would make no proof", "give at least 1")
        self._prover = prover
        self._memory_bytes = memory_bytes
        self._slots = slots
        self._predict = predict or predicted_bytes
        self._predict_seconds = predict_seconds or (lambda circuit: 0.0)
        self._changed = threading.Condition()
        self._tasks: list[_Task] = []
        self._numbers = itertools.count()

    def progress(self) -> tuple[Progress, ...]:
        """What is under way and what waits, the most urgent first."""
        now = time.monotonic()
        with self._changed:
            return tuple(
                Progress(it.name, it.state, it.deadline, it.predicted_bytes, it.predicted_seconds, now - it.since)
                for it in self._tasks
            )

    def check_fits(self, circuit: SegmentCircuit, name: str) -> int:
        """Return what a proof is predicted to take, in bytes.

        Raises:
            InvalidInputError: more than all that there is.
        """
        needed = max(predicted_bytes(circuit), self._predict(circuit))
        self._check_fits(needed, name)
        return needed

    def _check_fits(self, needed: int, name: str) -> None:
        if needed > self._memory_bytes:
            raise InvalidInputError(
                name,
                f"its proof needs about {needed >> 20} MiB, and the prover has {self._memory_bytes >> 20} MiB",
                "give the prover more memory, or cut the model into smaller segments",
            )

    def prove(
        self,
        circuit: SegmentCircuit,
        elements: Sequence[int],
        *,
        deadline: float = math.inf,
        cancellation: Cancellation | None = None,
        name: str = "segment",
    ) -> Proof:
        """Wait for a place, execute and prove.

        Args:
            elements: the segment's input.
            deadline: on the monotonic clock; the earliest is served first. One that has passed is still served. With
                an infinite one it only fills idle time, and is cancelled where one that is due needs its place.
            cancellation: ends the waiting, or the proof, with ProverFailed.

        Raises:
            InvalidInputError: it needs more memory than there is, or the circuit does not take the input.
            ProverFailed: it ran out of time or memory, or was cancelled.
        """
        least = predicted_bytes(circuit)
        self._check_fits(least, name)
        # What was learnt since the circuit was loaded is no reason to refuse what is owed by now: it is proved alone.
        needed = min(max(least, self._predict(circuit)), self._memory_bytes)
        seconds = self._predict_seconds(circuit)
        task = _Task(deadline, next(self._numbers), name, needed, seconds, cancellation)
        with self._place(task, circuit):
            return self._prover.prove_elements(circuit, elements, name=name, cancellation=cancellation)

    def hasten(self, cancellation: Cancellation, deadline: float) -> None:
        """Give a proof that waits or is made another deadline; nothing happens if it is over, or has not come yet.

        Args:
            cancellation: the one that the proof was asked for with.
        """
        with self._changed:
            for task in self._tasks:
                if task.cancellation is cancellation:
                    task.deadline = deadline
            self._tasks.sort()
            self._changed.notify_all()

    @contextmanager
    def _place(self, task: _Task, circuit: SegmentCircuit) -> Iterator[None]:
        with self._changed:
            self._tasks.append(task)
            self._tasks.sort()
        try:
            if not self._is_next(task):
                _log.info("proof of %s waits: %d others come first or are made", task.name, len(self._tasks) - 1)
                read_ahead(circuit)
            with self._changed:
                while not self._is_next(task):
                    if task.cancellation is not None and task.cancellation.is_cancelled:
                        raise ProverFailed(task.name, "cancelled", "it is not wanted any more")
                    self._make_room(task)
                    self._changed.wait(WAITING_SECONDS)
                task.state, task.since = State.PROVING, time.monotonic()
            due = "early" if task.is_early else f"due in {task.deadline - task.since:.0f} s"
            _log.info("proof of %s begun (%s, about %d MiB)", task.name, due, task.predicted_bytes >> 20)
            yield
            _log.info("proof of %s made in %.1f s", task.name, time.monotonic() - task.since)
        finally:
            with self._changed:
                self._tasks.remove(task)
                self._changed.notify_all()

    def _is_next(self, task: _Task) -> bool:
        """Whether a place is free, and nobody waits who is more urgent. Who does not fit yet is not overtaken."""
        with self._changed:
            under_way = [it for it in self._tasks if it.state is not State.WAITING]
            waiting = [it for it in self._tasks if it.state is State.WAITING]
            if task.is_early and not all(it.is_early for it in self._tasks):
                return False
            return self._has_place(task, under_way) and waiting[0] is task

    def _has_place(self, task: _Task, others: Sequence[_Task]) -> bool:
        taken = sum(it.predicted_bytes for it in others)
        return len(others) < self._slots and taken + task.predicted_bytes <= self._memory_bytes

    def _make_room(self, task: _Task) -> None:
        """End early proofs for one that is due and comes next, the last begun first, as many as it needs."""
        waiting = [it for it in self._tasks if it.state is State.WAITING]
        if task.is_early or waiting[0] is not task:
            return
        staying = [it for it in self._tasks if it.state is State.PROVING]
        for early in sorted((it for it in staying if it.is_early), key=lambda it: it.since, reverse=True):
            if self._has_place(task, staying):
                return
            assert early.cancellation is not None
            staying.remove(early)
            early.state = State.YIELDING
            early.cancellation.cancel()
            _log.info("proof of %s yields to %s", early.name, task.name)


def predicted_bytes(circuit: SegmentCircuit) -> int:
    """Peak memory of a proof. It goes with the proving key, which is held whole, and once more as polynomials."""
    return BASE_BYTES + int(BYTES_PER_KEY_BYTE * circuit.pk.stat().st_size)


def read_ahead(circuit: SegmentCircuit) -> None:
    """Have the system read a circuit's keys into its cache, while the proof waits."""
    for path in (circuit.pk, circuit.compiled, circuit.srs.path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)

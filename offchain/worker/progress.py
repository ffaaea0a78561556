"""How far a worker's proofs are, for whoever asks: a file in its state directory, written while there are any.

No port is opened for it, and nothing that a proof is about is in it.
"""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from offchain.proving.service import Progress

_log = logging.getLogger(__name__)

FILE = "proofs.json"
WRITE_SECONDS = 1.0
SILENT_SECONDS = 15.0
"""Whoever has not written for so long while a proof was under way is not running."""


@dataclass(frozen=True)
class ProofStatus:
    """One proof that waits or is made.

    Args:
        state: as in :class:`offchain.proving.service.State`.
        seconds: how long it has been in it.
        predicted_seconds: how long proving takes, alone on the machine.
        predicted_bytes: peak memory.
        due_seconds: until its deadline, negative behind it; None if nobody has asked for it yet.
    """

    name: str
    state: str
    seconds: float
    predicted_seconds: float
    predicted_bytes: int
    due_seconds: float | None


@dataclass(frozen=True)
class ProofStatuses:
    """What a worker last wrote.

    Args:
        written_at: seconds since the epoch.
    """

    written_at: float
    proofs: tuple[ProofStatus, ...]

    @property
    def is_silent(self) -> bool:
        """Whether proofs were under way, and nothing was heard of them since."""
        return bool(self.proofs) and time.time() - self.written_at > SILENT_SECONDS


class ProgressWriter:
    """Writes how proofs are every second, for as long as there are any, and once more when there are none.

    Args:
        progress: of the proofs; see :meth:`offchain.proving.service.ProverService.progress`.
        directory: where the file is kept.
    """

    def __init__(self, progress: Callable[[], Sequence[Progress]], directory: Path) -> None:
        self._progress = progress
        self._path = directory / FILE
        self._had_any = True

    def start(self) -> threading.Thread:
        """Write from now on, until the process ends."""
        thread = threading.Thread(target=self._run, name="progress", daemon=True)
        thread.start()
        return thread

    def write(self) -> None:
        """Write now, unless there were no proofs the last time and there are none now.

        Raises:
            OSError: the file cannot be written.
        """
        now, proofs = time.monotonic(), self._progress()
        if proofs or self._had_any:
            statuses = [asdict(_status_of(proof, now)) for proof in proofs]
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps({"written_at": time.time(), "proofs": statuses}) + "\n")
            partial.replace(self._path)
        self._had_any = bool(proofs)

    def _run(self) -> None:
        while True:
            try:
                self.write()
            except OSError as error:
                _log.warning("how proofs are cannot be written to %s: %s", self._path, error)
                return
            time.sleep(WRITE_SECONDS)


def read_progress(directory: Path) -> ProofStatuses | None:
    """Return what the worker with this state directory last wrote; None if it never did, or it cannot be read."""
    try:
        document = json.loads((directory / FILE).read_text())
        return ProofStatuses(document["written_at"], tuple(ProofStatus(**entry) for entry in document["proofs"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _status_of(proof: Progress, now: float) -> ProofStatus:
    return ProofStatus(
        name=proof.name,
        state=proof.state.value,
        seconds=round(proof.seconds, 1),
        predicted_seconds=round(proof.predicted_seconds, 1),
        predicted_bytes=proof.predicted_bytes,
        due_seconds=None if proof.deadline == math.inf else round(proof.deadline - now, 1),
    )

"""A content-addressed directory of artefacts that several processes share.

The key of an entry covers the operation, the tool's version and the digests of everything that went in, so an entry
never goes stale. An entry appears by one rename, complete or not at all, and a lock per key lets one process of many
do the work.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

PRUNE_GRACE_SECONDS = 3_600.0
"""Entries used this recently are never pruned: somebody may still hold their paths."""


class ArtefactCache:
    """Computes an artefact once and keeps it.

    Args:
        root: directory of the cache; made if it is not there.
        max_bytes: when set, the entries used longest ago are pruned after each new one.
    """

    def __init__(self, root: Path, max_bytes: int | None = None) -> None:
        self.root = root.resolve()  # child processes may work elsewhere
        self._max_bytes = max_bytes
        for name in ("entries", "locks", "partial"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def get_or_make(self, operation: str, inputs: Mapping[str, str | int], make: Callable[[Path], None]) -> Path:
        """Return the directory of an entry, and fill it first when it is missing.

        Args:
            operation: what is computed, for example ``build-1``; change it when the result's format changes.
            inputs: everything that decides the result: digests, versions, parameters.
            make: writes the artefacts into the empty directory that it is given. When it raises, nothing is kept.
        """
        key = cache_key(operation, inputs)
        entry = self.root / "entries" / key
        if not entry.is_dir():
            with FileLock(self.root / "locks" / f"{key}.lock"):
                if not entry.is_dir():
                    self._fill(entry, make)
                    self._prune(keep=entry)
        os.utime(entry)
        return entry

    def _fill(self, entry: Path, make: Callable[[Path], None]) -> None:
        partial = Path(tempfile.mkdtemp(dir=self.root / "partial"))
        try:
            make(partial)
            for path in (*sorted(partial.rglob("*")), partial):
                _flush(path)
            partial.rename(entry)
            _flush(entry.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _prune(self, keep: Path) -> None:
        if self._max_bytes is None:
            return
        now = time.time()
        entries = sorted((entry.stat().st_mtime, entry) for entry in (self.root / "entries").iterdir())
        sizes = {entry: directory_bytes(entry) for _, entry in entries}
        total = sum(sizes.values())
        for used, entry in entries:
            if total <= self._max_bytes or now - used < PRUNE_GRACE_SECONDS:
                return
            if entry != keep and self._remove(entry):
                total -= sizes[entry]

    def _remove(self, entry: Path) -> bool:
        try:
            with FileLock(self.root / "locks" / f"{entry.name}.lock", timeout=0):
                # A rename first, so that no reader ever sees half an entry.
                doomed = self.root / "partial" / f"{entry.name}.{os.getpid()}.pruned"
                entry.rename(doomed)
        except (Timeout, FileNotFoundError):
            return False
        shutil.rmtree(doomed, ignore_errors=True)
        return True


def cache_key(operation: str, inputs: Mapping[str, str | int]) -> str:
    """Return the hexadecimal SHA-256 that names an entry."""
    document = json.dumps({"operation": operation, "inputs": dict(inputs)}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(document.encode()).hexdigest()


def directory_bytes(directory: Path) -> int:
    """Return the size of all files below a directory."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

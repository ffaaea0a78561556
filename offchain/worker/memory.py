"""What a worker must remember across a restart: its cursor, its assignments, and the secrets behind its commitments."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path

from offchain.protocol.field import decode_elements, encode_elements
from offchain.protocol.types import JobId, Link

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cursor (id INTEGER PRIMARY KEY CHECK (id = 0), block INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (job BLOB PRIMARY KEY, is_open INTEGER NOT NULL DEFAULT 1);
CREATE TABLE IF NOT EXISTS executions (
    job BLOB NOT NULL, segment INTEGER NOT NULL, attempt INTEGER NOT NULL,
    inputs BLOB NOT NULL, outputs BLOB NOT NULL, link BLOB NOT NULL, salt BLOB NOT NULL,
    PRIMARY KEY (job, segment, attempt)
);
"""


@dataclass(frozen=True)
class Work:
    """A segment that was executed: what a reveal and a proof need."""

    job: JobId
    segment: int
    attempt: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    link: Link
    salt: bytes


class Memory:
    """A small database in the worker's state directory. Every change is on disk before the call returns.

    Args:
        path: the database file; its directory exists.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False)
        path.chmod(0o600)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def cursor(self) -> int | None:
        """The first block that was never read; None at the first start."""
        row = self._one("SELECT block FROM cursor")
        return None if row is None else int(row[0])

    def move_cursor(self, block: int) -> None:
        """Remember that everything before ``block`` was handled."""
        self._do("INSERT INTO cursor VALUES (0, ?) ON CONFLICT (id) DO UPDATE SET block = excluded.block", block)

    def open_job(self, job: JobId) -> None:
        """Remember a job to follow; one that was closed stays closed."""
        self._do("INSERT INTO jobs (job) VALUES (?) ON CONFLICT DO NOTHING", job)

    def close_job(self, job: JobId) -> None:
        """Forget a job that is over, and what was computed for it."""
        self._do("UPDATE jobs SET is_open = 0 WHERE job = ?", job)
        self._do("DELETE FROM executions WHERE job = ?", job)

    def open_jobs(self) -> tuple[JobId, ...]:
        """The jobs to follow."""
        with self._lock:
            rows = self._database.execute("SELECT job FROM jobs WHERE is_open = 1 ORDER BY rowid").fetchall()
        return tuple(JobId(row[0]) for row in rows)

    def save(self, work: Work) -> None:
        """Remember an execution, before its commitment is sent; the first one of a round stays."""
        self._do(
            "INSERT INTO executions (job, segment, attempt, inputs, outputs, link, salt) VALUES (?, ?, ?, ?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            work.job,
            work.segment,
            work.attempt,
            encode_elements(work.inputs),
            encode_elements(work.outputs),
            work.link,
            work.salt,
        )

    def work(self, job: JobId, segment: int, attempt: int) -> Work | None:
        """Recall an execution."""
        row = self._one(
            "SELECT inputs, outputs, link, salt FROM executions WHERE job = ? AND segment = ? AND attempt = ?",
            job,
            segment,
            attempt,
        )
        if row is None:
            return None
        inputs, outputs, link, salt = row
        return Work(job, segment, attempt, decode_elements(inputs), decode_elements(outputs), Link(link), salt)

    def _one(self, statement: str, *values: object) -> tuple[bytes, ...] | None:
        with self._lock:
            row: tuple[bytes, ...] | None = self._database.execute(statement, values).fetchone()
        return row

    def _do(self, statement: str, *values: object) -> None:
        with self._lock, self._database:
            self._database.execute(statement, values)

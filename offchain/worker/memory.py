"""What a worker must remember across a restart: its cursor, its assignments, and the secrets behind its commitments."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from offchain.protocol.field import decode_elements, encode_elements
from offchain.protocol.types import Hold, JobId, Link, ModelId
from offchain.worker.database import open_database

_SCHEMA = """
CREATE TABLE IF NOT EXISTS cursor (id INTEGER PRIMARY KEY CHECK (id = 0), block INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS jobs (job BLOB PRIMARY KEY, is_open INTEGER NOT NULL DEFAULT 1);
CREATE TABLE IF NOT EXISTS works (
    job BLOB NOT NULL, segment INTEGER NOT NULL, attempt INTEGER NOT NULL, opening BLOB NOT NULL,
    inputs BLOB NOT NULL, outputs BLOB NOT NULL, link BLOB NOT NULL, salt BLOB NOT NULL,
    PRIMARY KEY (job, segment, attempt, opening)
);
CREATE TABLE IF NOT EXISTS holds (hold TEXT PRIMARY KEY, job BLOB NOT NULL);
"""


_FORGET = "DELETE FROM works WHERE job = ? AND NOT EXISTS (SELECT 1 FROM holds WHERE job = works.job)"


@dataclass(frozen=True)
class Work:
    """A segment that was executed: what a reveal and a proof need.

    Args:
        opening: the link of ``inputs``. The same attempt can open with another on another branch of the chain.
    """

    job: JobId
    segment: int
    attempt: int
    opening: Link
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
        self._database = open_database(path, _SCHEMA)

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
        """Forget a job that is over, and what was computed for it, unless stake is held for it."""
        self._do_all(("UPDATE jobs SET is_open = 0 WHERE job = ?", (job,)), (_FORGET, (job,)))

    def open_jobs(self) -> tuple[JobId, ...]:
        """The jobs to follow."""
        with self._lock:
            rows = self._database.execute("SELECT job FROM jobs WHERE is_open = 1 ORDER BY rowid").fetchall()
        return tuple(JobId(row[0]) for row in rows)

    def save(self, work: Work) -> None:
        """Remember an execution, before its commitment is sent; the first one of a round and an opening stays."""
        self._do(
            "INSERT INTO works (job, segment, attempt, opening, inputs, outputs, link, salt) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            work.job,
            work.segment,
            work.attempt,
            work.opening,
            encode_elements(work.inputs),
            encode_elements(work.outputs),
            work.link,
            work.salt,
        )

    def work(self, job: JobId, segment: int, attempt: int, opening: Link) -> Work | None:
        """Recall an execution."""
        key = (job, segment, attempt, opening)
        row = self._one(
            "SELECT inputs, outputs, link, salt FROM works WHERE (job, segment, attempt, opening) = (?, ?, ?, ?)", *key
        )
        if row is None:
            return None
        inputs, outputs, link, salt = row
        return Work(*key, decode_elements(inputs), decode_elements(outputs), Link(link), salt)

    def save_hold(self, hold: Hold) -> None:
        """Remember stake that is held; what was computed for its job stays as long."""
        document = {name: value.hex() if isinstance(value, bytes) else value for name, value in asdict(hold).items()}
        encoded = json.dumps(document, sort_keys=True)
        self._do("INSERT INTO holds VALUES (?, ?) ON CONFLICT DO NOTHING", encoded, hold.job_id)

    def drop_hold(self, hold: Hold) -> None:
        """Forget stake that was held, and with the last of a closed job what was computed for it."""
        rows = [encoded for encoded, kept in self._holds() if kept == hold]
        is_over = "NOT EXISTS (SELECT 1 FROM jobs WHERE job = works.job AND is_open = 1)"
        self._do_all(
            *(("DELETE FROM holds WHERE hold = ?", (encoded,)) for encoded in rows),
            (f"{_FORGET} AND {is_over}", (hold.job_id,)),
        )

    def holds(self) -> tuple[Hold, ...]:
        """The stake to look after."""
        return tuple(hold for _, hold in self._holds())

    def _holds(self) -> list[tuple[str, Hold]]:
        with self._lock:
            rows = self._database.execute("SELECT hold FROM holds ORDER BY rowid").fetchall()
        return [(row[0], _hold_of(json.loads(row[0]))) for row in rows]

    def _one(self, statement: str, *values: object) -> tuple[bytes, ...] | None:
        with self._lock:
            row: tuple[bytes, ...] | None = self._database.execute(statement, values).fetchone()
        return row

    def _do(self, statement: str, *values: object) -> None:
        self._do_all((statement, values))

    def _do_all(self, *statements: tuple[str, tuple[object, ...]]) -> None:
        """All of them, or none."""
        with self._lock, self._database:
            for statement, values in statements:
                self._database.execute(statement, values)


def _hold_of(document: dict[str, Any]) -> Hold:
    binary: dict[str, Callable[[bytes], Any]] = {"job_id": JobId, "model_id": ModelId, "opening": Link, "link": Link}
    return Hold(**document | {name: kind(bytes.fromhex(document[name])) for name, kind in binary.items()})

"""The jobs that this gateway answers for, as its database remembers them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from api.database import Database, jobs
from offchain.protocol.field import decode_elements, encode_elements
from offchain.protocol.links import link_of_values
from offchain.protocol.types import JobId, Link, ModelId, Policy


@dataclass(frozen=True)
class JobRow:
    """A job.

    Args:
        job: its id, which follows from the salt.
        key, request_hash: what came with it; None if the job was found on the chain after the database was lost.
        salt, policy, elements: what sending it takes; the elements are forgotten when it is over.
        given: how many inputs were sent; the rest of a batch repeats the last one. None where it is not known.
        route: the route document that the policy and the fee come from; None if they were named by hand.
        is_sent: whether it was seen on the chain; only a hint, since a reorganisation may take it back.
        ended_block: the block at which its end was first seen.
        is_open: whether the driver still attends to it.
        result: its output, as field elements; no longer its output if a proof has overturned it since.
        refusal: why the contract will never take it.
        trouble: what went wrong when it was last attended to; it will be tried again.
    """

    job: JobId
    key: str | None
    request_hash: bytes | None
    salt: bytes | None
    model: ModelId
    policy: Policy | None
    fee_wei: int
    elements: tuple[int, ...] | None
    is_sent: bool = False
    ended_block: int | None = None
    is_open: bool = True
    result: tuple[int, ...] | None = None
    refusal: str | None = None
    trouble: str | None = None
    route: bytes | None = None
    given: int | None = None

    def result_of(self, link: Link) -> tuple[int, ...] | None:
        """The kept result, if it is what the last segment is settled on."""
        return self.result if self.result is not None and link_of_values(self.result) == link else None


class JobRows:
    """Reads and writes :class:`JobRow`; every change is on disk before the call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: JobRow) -> JobRow:
        """Add a job, unless its key is taken; return the job that holds the key."""
        statement = insert(jobs).values(
            job=row.job,
            idempotency_key=row.key,
            request_hash=row.request_hash,
            salt=row.salt,
            model=row.model,
            policy=None if row.policy is None else asdict(row.policy),
            fee_wei=str(row.fee_wei),
            elements=None if row.elements is None else encode_elements(row.elements),
            is_sent=row.is_sent,
            is_open=True,
            created_at=time.time(),
            route=row.route,
            given=row.given,
        )
        with self._database.transaction() as connection:
            connection.execute(statement.on_conflict_do_nothing())
            wanted = jobs.c.job == row.job if row.key is None else jobs.c.idempotency_key == row.key
            return _read(connection.execute(sa.select(jobs).where(wanted)).mappings().one())

    def with_key(self, key: str) -> JobRow | None:
        """The job that was asked for with this key."""
        return self._one(jobs.c.idempotency_key == key)

    def get(self, job: JobId) -> JobRow | None:
        """The job with this id."""
        return self._one(jobs.c.job == job)

    def open(self) -> tuple[JobRow, ...]:
        """The jobs that the driver attends to, oldest first."""
        return self._all(jobs.c.is_open)

    def unsent(self) -> tuple[JobRow, ...]:
        """The jobs that were accepted and not yet seen on the chain."""
        return self._all(jobs.c.is_open & ~jobs.c.is_sent)

    def change(self, job: JobId, **values: Any) -> None:
        """Change columns of a job."""
        if values.get("result") is not None:
            values["result"] = encode_elements(values["result"])
        with self._database.transaction() as connection:
            connection.execute(sa.update(jobs).where(jobs.c.job == job).values(**values))

    def close(self, job: JobId) -> None:
        """Stop attending to a job, and forget its input."""
        self.change(job, is_open=False, elements=None, trouble=None)

    def _one(self, condition: sa.ColumnElement[bool]) -> JobRow | None:
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(jobs).where(condition)).mappings().one_or_none()
        return None if found is None else _read(found)

    def _all(self, condition: sa.ColumnElement[bool]) -> tuple[JobRow, ...]:
        with self._database.transaction() as connection:
            found = connection.execute(sa.select(jobs).where(condition).order_by(jobs.c.created_at)).mappings().all()
        return tuple(_read(row) for row in found)


def _read(row: Mapping[Any, Any]) -> JobRow:
    return JobRow(
        job=JobId(row["job"]),
        key=row["idempotency_key"],
        request_hash=row["request_hash"],
        salt=row["salt"],
        model=ModelId(row["model"]),
        policy=None if row["policy"] is None else Policy(**row["policy"]),
        fee_wei=int(row["fee_wei"]),
        elements=None if row["elements"] is None else decode_elements(row["elements"]),
        is_sent=row["is_sent"],
        ended_block=row["ended_block"],
        is_open=row["is_open"],
        result=None if row["result"] is None else decode_elements(row["result"]),
        refusal=row["refusal"],
        trouble=row["trouble"],
        route=row["route"],
        given=row["given"],
    )

"""The gateway's database: what has not reached the chain yet, and an index of the rest that can be rebuilt from it.

SQLite in write-ahead mode, flushed to disk at every commit: what an answer promises survives a kill at any instruction.
The schema is made by the Alembic revisions in ``migrations/gateway`` alone; the tables below only name its columns.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from offchain.errors import UnrecoverableError
from offchain.toolchain import project_root

REVISIONS = project_root() / "migrations" / "gateway"
BUSY_MILLISECONDS = 20_000

metadata = sa.MetaData()

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("job", sa.LargeBinary, primary_key=True),
    sa.Column("idempotency_key", sa.Text, unique=True),
    sa.Column("request_hash", sa.LargeBinary),
    sa.Column("salt", sa.LargeBinary),
    sa.Column("model", sa.LargeBinary, nullable=False),
    sa.Column("policy", sa.JSON(none_as_null=True)),
    sa.Column("fee_wei", sa.Text, nullable=False),
    sa.Column("elements", sa.LargeBinary),
    sa.Column("ended_block", sa.Integer),
    sa.Column("is_sent", sa.Boolean, nullable=False),
    sa.Column("is_open", sa.Boolean, nullable=False),
    sa.Column("result", sa.LargeBinary),
    sa.Column("refusal", sa.Text),
    sa.Column("trouble", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("route", sa.LargeBinary),
    sa.Column("given", sa.Integer),
)

registrations = sa.Table(
    "registrations",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("parameters", sa.JSON, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("step", sa.Text, nullable=False),
    sa.Column("share", sa.Float, nullable=False),
    sa.Column("model", sa.LargeBinary),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("model", sa.LargeBinary, primary_key=True),
    sa.Column("block", sa.Integer, nullable=False),
)

worker_keys = sa.Table(
    "worker_keys",
    metadata,
    sa.Column("operator", sa.Text, primary_key=True),
    sa.Column("encryption_key", sa.LargeBinary, nullable=False),
)

grants = sa.Table(
    "grants",
    metadata,
    sa.Column("model", sa.LargeBinary, primary_key=True),
    sa.Column("encryption_key", sa.LargeBinary, primary_key=True),
)

facts = sa.Table(
    "facts", metadata, sa.Column("name", sa.Text, primary_key=True), sa.Column("value", sa.Text, nullable=False)
)


class Database:
    """Opens the database of a state directory, and brings its schema up to date.

    Args:
        path: the file; its directory exists.
    """

    def __init__(self, path: Path) -> None:
        # Inputs of open jobs lie in it: only the owner may read it, from its first byte on.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
        path.chmod(0o600)
        self._engine = sa.create_engine(f"sqlite:///{path}", pool_size=8, max_overflow=64)
        sa.event.listen(self._engine, "connect", _prepare)
        sa.event.listen(self._engine, "begin", _begin)
        self._upgrade()

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """One transaction, on disk when the block is left; taken back if it raises."""
        with self._engine.begin() as connection:
            yield connection

    def fact(self, name: str) -> str | None:
        """Recall a single value."""
        with self.transaction() as connection:
            value: str | None = connection.scalar(sa.select(facts.c.value).where(facts.c.name == name))
        return value

    def state(self, name: str, value: str) -> None:
        """Remember a single value."""
        with self.transaction() as connection:
            connection.execute(sa.delete(facts).where(facts.c.name == name))
            connection.execute(sa.insert(facts).values(name=name, value=value))

    def belong_to(self, deployment: str) -> None:
        """Refuse to serve another deployment than the one that the database was made for.

        Raises:
            UnrecoverableError: its jobs are of other contracts.
        """
        known = self.fact("deployment")
        if known is None:
            self.state("deployment", deployment)
        elif known != deployment:
            raise UnrecoverableError(
                f"the state directory is of the deployment {known}, not {deployment}; use another state_directory"
            )

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    def _upgrade(self) -> None:
        config = Config()
        config.set_main_option("script_location", str(REVISIONS).replace("%", "%%"))
        # In one transaction: a kill in the middle leaves the old schema.
        with self.transaction() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


def _prepare(connection: sa.engine.interfaces.DBAPIConnection, record: object) -> None:
    # Without this the driver would begin transactions by itself, and not before every statement.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = FULL", f"busy_timeout = {BUSY_MILLISECONDS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # A transaction that read before it writes could otherwise fail where another wrote in between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")

"""Registrations of models, the models on the chain, and which workers may open which model."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert

from api.database import Database, grants, models, registrations, worker_keys
from offchain.protocol.trials import DEFAULT_TRIALS
from offchain.protocol.types import ModelId
from offchain.storage.sealing import EncryptionKey


@dataclass(frozen=True)
class Parameters:
    """What the owner asked for besides the files.

    Args:
        search_seconds: how long to look for the settings that prove fastest; 0 for the first that fit.
        predicted: what proving takes as the plan says, seconds and bytes of each segment; None without a plan.
    """

    name: str
    segments: int | None
    cuts: tuple[str, ...] | None
    max_drift: float
    has_heldout: bool
    trials: int = DEFAULT_TRIALS
    search_seconds: int = 0
    predicted: tuple[tuple[float, int], ...] | None = None


@dataclass(frozen=True)
class Registration:
    """A model on its way to the chain.

    Args:
        id: follows from the files and the parameters.
        status: queued, running, done or failed.
        step, share: what is under way, and how much of the whole is done, 0 to 1.
        model: once it is registered.
        error: why it failed, as the API says it.
        attempts: how often the prover ran out of its limits.
    """

    id: str
    parameters: Parameters
    status: str = "queued"
    step: str = "queued"
    share: float = 0.0
    model: ModelId | None = None
    error: dict[str, Any] | None = None
    attempts: int = 0


class ModelRows:
    """Reads and writes what the gateway knows of models; every change is on disk before the call returns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # --- registrations ----------------------------------------------------------------------------------------------

    def add(self, registration: Registration) -> Registration:
        """Add a registration, unless it is there; return the one that is."""
        statement = insert(registrations).values(
            id=registration.id,
            parameters=asdict(registration.parameters),
            status=registration.status,
            step=registration.step,
            share=0.0,
            attempts=0,
            created_at=time.time(),
        )
        with self._database.transaction() as connection:
            connection.execute(statement.on_conflict_do_nothing())
            found = connection.execute(sa.select(registrations).where(registrations.c.id == registration.id))
            return _read(found.mappings().one())

    def registration(self, identifier: str) -> Registration | None:
        """The registration with this id."""
        found = self._registrations(registrations.c.id == identifier)
        return found[0] if found else None

    def unfinished(self) -> tuple[Registration, ...]:
        """The registrations that are queued or were under way, oldest first."""
        return self._registrations(registrations.c.status.in_(("queued", "running")))

    def predicted(self, model: ModelId) -> tuple[tuple[float, int], ...] | None:
        """What proving each segment takes, in seconds and bytes, as the plan said that a model was registered by."""
        found = self._registrations(registrations.c.model == model)
        return next((entry.parameters.predicted for entry in reversed(found) if entry.parameters.predicted), None)

    def published(self) -> tuple[Registration, ...]:
        """The registrations that are done."""
        return self._registrations(registrations.c.status == "done")

    def change(self, identifier: str, **values: Any) -> None:
        """Change columns of a registration."""
        with self._database.transaction() as connection:
            connection.execute(sa.update(registrations).where(registrations.c.id == identifier).values(**values))

    def _registrations(self, condition: sa.ColumnElement[bool]) -> tuple[Registration, ...]:
        statement = sa.select(registrations).where(condition).order_by(registrations.c.created_at)
        with self._database.transaction() as connection:
            return tuple(_read(row) for row in connection.execute(statement).mappings())

    # --- models on the chain ----------------------------------------------------------------------------------------

    def index(self, model: ModelId, block: int) -> None:
        """Remember a registered model."""
        with self._database.transaction() as connection:
            connection.execute(insert(models).values(model=model, block=block).on_conflict_do_nothing())

    def indexed(self, limit: int, offset: int) -> tuple[ModelId, ...]:
        """Registered models, the newest first."""
        statement = sa.select(models.c.model).order_by(models.c.block.desc(), models.c.model)
        with self._database.transaction() as connection:
            return tuple(ModelId(model) for model in connection.scalars(statement.limit(limit).offset(offset)))

    # --- who may open what ------------------------------------------------------------------------------------------

    def set_key(self, operator: str, key: bytes) -> None:
        """Remember the newest encryption key of a worker."""
        statement = insert(worker_keys).values(operator=operator, encryption_key=key)
        with self._database.transaction() as connection:
            connection.execute(
                statement.on_conflict_do_update(index_elements=["operator"], set_={"encryption_key": key})
            )

    def keys_without(self, model: ModelId) -> tuple[bytes, ...]:
        """The workers' keys to which a model was not granted yet."""
        granted = sa.select(grants.c.encryption_key).where(grants.c.model == model)
        statement = sa.select(worker_keys.c.encryption_key).where(worker_keys.c.encryption_key.not_in(granted))
        with self._database.transaction() as connection:
            return tuple(connection.scalars(statement.order_by(worker_keys.c.operator)))

    def record_grants(self, model: ModelId, keys: Iterable[bytes | EncryptionKey]) -> None:
        """Remember to which keys a model was granted."""
        rows: Sequence[dict[str, bytes]] = [{"model": model, "encryption_key": bytes(key)} for key in keys]
        if rows:
            with self._database.transaction() as connection:
                connection.execute(insert(grants).on_conflict_do_nothing(), rows)


def _read(row: Mapping[Any, Any]) -> Registration:
    raw = row["parameters"]
    cuts = None if raw["cuts"] is None else tuple(raw["cuts"])
    figures = raw.get("predicted")
    predicted = None if figures is None else tuple((seconds, size) for seconds, size in figures)
    return Registration(
        id=row["id"],
        parameters=Parameters(**{**raw, "cuts": cuts, "predicted": predicted}),
        status=row["status"],
        step=row["step"],
        share=row["share"],
        model=None if row["model"] is None else ModelId(row["model"]),
        error=row["error"],
        attempts=row["attempts"],
    )

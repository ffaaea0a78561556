"""What the contracts remember."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from offchain.protocol.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    Hold,
    Job,
    JobId,
    Link,
    ModelId,
    Round,
)

Weights = tuple[tuple[Address, int], ...]
"""The weight of every leaf of a model's tree, in the order of the leaves."""

NO_ROUND = Round(0, Link(ZERO_HASH), 0, ZERO_ADDRESS, ZERO_ADDRESS, False, ZERO_HASH, ZERO_HASH, ())


@dataclass(frozen=True)
class Block:
    """The block that takes a transaction: its number, and its time in seconds since the epoch."""

    number: int
    timestamp: int


@dataclass(frozen=True)
class Domain:
    """What binds every hash to one deployment: the chain's id, and the addresses of ``Jobs`` and ``Staking``."""

    chain_id: int
    jobs: Address
    staking: Address


@dataclass(frozen=True)
class Model:
    """What matters of a registered model.

    Args:
        segments: how many.
        trials: hashes of the answers that new workers have to find.
    """

    segments: int
    trials: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Bond:
    """An operator's stake: *active* counts in draws, *unbonding* no longer does, but can still be slashed."""

    active: int = 0
    unbonding: int = 0
    release_at: int = 0
    encryption_key: bytes = ZERO_HASH
    models: tuple[ModelId, ...] = ()


@dataclass(frozen=True)
class Membership:
    """An operator's part in a model. The leaf, once given, and the admission, once earned, stay.

    Args:
        trial, committed_block, commitment: of the trial that it committed to last.
    """

    leaf: int | None = None
    serving: bool = False
    admitted: bool = False
    trial: int = 0
    committed_block: int = 0
    commitment: bytes = ZERO_HASH


@dataclass
class State:
    """Everything that lasts from one transaction to the next. Values are immutable, so that a copy is cheap.

    Args:
        burnt_wei: stake that nobody got.
        compensations: what ``Staking`` owes to accounts that were harmed; ``credits`` is what ``Jobs`` owes.
        histories: per model the blocks that changed a weight, in order, each with all weights at its end.
        queues: per model the jobs that wait, cancelled ones included, each with its bucket, in order of arrival.
    """

    models: dict[ModelId, Model] = field(default_factory=dict)
    bonds: dict[Address, Bond] = field(default_factory=dict)
    burnt_wei: int = 0
    memberships: dict[tuple[ModelId, Address], Membership] = field(default_factory=dict)
    histories: dict[ModelId, tuple[tuple[int, Weights], ...]] = field(default_factory=dict)
    reputations: dict[tuple[ModelId, Address], int] = field(default_factory=dict)
    answered_at: dict[tuple[ModelId, int], int] = field(default_factory=dict)
    equivocations: dict[tuple[JobId, int, int, Address], bool] = field(default_factory=dict)
    holds: dict[Hold, bool] = field(default_factory=dict)
    compensations: dict[Address, int] = field(default_factory=dict)
    credits: dict[Address, int] = field(default_factory=dict)
    jobs: dict[JobId, Job] = field(default_factory=dict)
    rounds: dict[tuple[JobId, int, int], Round] = field(default_factory=dict)
    running: dict[ModelId, int] = field(default_factory=dict)
    queues: dict[ModelId, tuple[tuple[int, JobId], ...]] = field(default_factory=dict)

    def copy(self) -> State:
        """The same state, unaffected by what becomes of this one."""
        fields: Any = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(self).items()}
        return State(**fields)

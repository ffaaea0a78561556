"""Values of the protocol: ids, policies, and the records that the chain keeps.

Ids and hashes are 32 bytes, addresses are checksummed hex, amounts are wei and times are seconds since the epoch.
Enumerations carry the numbers of their Solidity twins in ``IJobs.sol``.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NewType

JobId = NewType("JobId", bytes)
ModelId = NewType("ModelId", bytes)
Link = NewType("Link", bytes)
Address = NewType("Address", str)

ZERO_HASH = bytes(32)
ZERO_ADDRESS = Address("0x" + "00" * 20)


class Phase(IntEnum):
    """Where a job stands; see ``Phase`` in ``IJobs.sol``."""

    NONE = 0
    REQUESTED = 1
    AWAITING_INPUT = 2
    COMMITTING = 3
    DRAWING = 4
    REVEALING = 5
    SETTLING = 6
    SAMPLING = 7
    PROVING = 8
    FINALISABLE = 9
    FINALISED = 10
    EXPIRED = 11
    FAILED = 12

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self in (Phase.FINALISED, Phase.FAILED)


class Label(IntEnum):
    """What stands behind a segment's output."""

    NONE = 0
    PROVED = 1
    AGREED = 2
    ATTESTED = 3
    UNPROVED = 4


class Reason(IntEnum):
    """Why a job failed, or why an operator lost stake."""

    NONE = 0
    NO_QUORUM = 1
    TIMED_OUT = 2
    MISSED_COMMIT = 3
    MISSED_REVEAL = 4
    MISSED_PROOF = 5
    CONTRADICTED_PROOF = 6


@dataclass(frozen=True)
class Policy:
    """What a requester asks for; see ``Policy`` in ``IJobs.sol``."""

    committee_size: int
    quorum_bps: int
    proof_permille: int
    input_seconds: int
    commit_seconds: int
    reveal_seconds: int
    prove_seconds: int


@dataclass(frozen=True)
class Job:
    """A job as the chain stores it. ``phase`` is the stored phase; time may have moved on."""

    id: JobId
    requester: Address
    phase: Phase
    segment: int
    segments: int
    proofs_due: int
    frozen_block: int
    seed_block: int
    deadline: int
    model_id: ModelId
    input_link: Link
    input_cid: bytes
    result_key: bytes
    fee_wei: int
    policy: Policy
    evidence_root: bytes


@dataclass(frozen=True)
class Member:
    """A committee member's part in a round. ``link`` and ``activation_cid`` are zero until it reveals."""

    operator: Address
    weight: int
    commitment: bytes
    link: Link
    activation_cid: bytes


@dataclass(frozen=True)
class Round:
    """One segment's round; empty until its committee is drawn."""

    total_weight: int
    settled_link: Link
    settled_weight: int
    prover: Address
    proved_by: Address
    proof_hash: bytes
    proof_cid: bytes
    members: tuple[Member, ...]

    def member(self, operator: str) -> Member | None:
        """The operator's part, or None if it is not in the committee."""
        return next((member for member in self.members if member.operator == operator), None)

    @property
    def supporters(self) -> tuple[Member, ...]:
        """The members that revealed the settled output."""
        if self.settled_link == ZERO_HASH:
            return ()
        return tuple(member for member in self.members if member.link == self.settled_link)

    @property
    def label(self) -> Label:
        """What stands behind the segment's output, as ``Jobs.labelOf`` says it."""
        if self.settled_link == ZERO_HASH:
            return Label.NONE
        return Label.PROVED if self.proof_hash != ZERO_HASH else Label.AGREED

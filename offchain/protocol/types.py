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

UNAVAILABLE = Link((1).to_bytes(32, "big"))
"""Revealed in place of an output: the round's input cannot be fetched, opened or matched with its link."""
BAD_INPUT = Link((2).to_bytes(32, "big"))
"""Revealed in place of an output: the round's input cannot be worked on as the job asks."""


def is_output(link: bytes) -> bool:
    """Whether a revealed link stands for an output: it is not zero and no vote."""
    return link > BAD_INPUT


class Phase(IntEnum):
    """Where a job stands; see ``Phase`` in ``IJobs.sol``."""

    NONE = 0
    QUEUED = 1
    REQUESTED = 2
    AWAITING_INPUT = 3
    COMMITTING = 4
    DRAWING = 5
    REVEALING = 6
    SETTLING = 7
    CONTESTED = 8
    SAMPLING = 9
    PROVING = 10
    CHALLENGEABLE = 11
    FINALISABLE = 12
    FINALISED = 13
    EXPIRED = 14
    FAILED = 15

    @property
    def is_terminal(self) -> bool:
        """Whether nothing can happen to the job any more."""
        return self in (Phase.FINALISED, Phase.FAILED)

    @property
    def is_open(self) -> bool:
        """Whether a proof can still change the job: from the first draw on, until it is decided."""
        return Phase.AWAITING_INPUT <= self <= Phase.CHALLENGEABLE


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
    TOO_FEW_ACTED = 3
    INPUT_UNAVAILABLE = 4
    BAD_INPUT = 5
    CANCELLED = 6
    MISSED_COMMIT = 7
    MISSED_REVEAL = 8
    MISSED_PROOF = 9
    CONTRADICTED_PROOF = 10
    WITHHELD_ACTIVATION = 11


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
    challenge_seconds: int


@dataclass(frozen=True)
class Job:
    """A job as the chain stores it. ``phase`` is the stored phase; time may have moved on.

    Args:
        redraws: how often a committee was replaced because too few of it committed.
        ends_at: when everything lapses that is not finalisable by then; zero while queued.
        closed_at: when it was finalised or failed; zero until then.
        route_cid: digest inside the CID of the route document; zero if there is none.
        attempts: the attempt at each segment that counts.
    """

    id: JobId
    requester: Address
    phase: Phase
    segment: int
    segments: int
    proofs_due: int
    redraws: int
    frozen_block: int
    seed_block: int
    deadline: int
    ends_at: int
    closed_at: int
    model_id: ModelId
    input_link: Link
    input_cid: bytes
    result_key: bytes
    route_cid: bytes
    fee_wei: int
    policy: Policy
    attempts: tuple[int, ...]
    evidence_root: bytes


@dataclass(frozen=True)
class Member:
    """A committee member's part in a round. ``link`` and ``activation_cid`` are zero until it reveals.

    Args:
        announced_block: when it announced a proof; zero if it has not.
        sealed_for: the next segment's attempt whose committee its activation is sealed to.
        announcement: see :func:`offchain.protocol.hashing.announcement`.
    """

    operator: Address
    weight: int
    commitment: bytes
    link: Link
    activation_cid: bytes
    announced_block: int = 0
    sealed_for: int = 0
    announcement: bytes = ZERO_HASH


@dataclass(frozen=True)
class Hold:
    """What a proof took of the bond of a member that had revealed another output, while an appeal is possible.

    Args:
        opening: the link that the proof opened with, and that a proof of the member's own output has to open with.
        link: what the member revealed.
        challenger: who is to be compensated if there is no such proof; the zero address if nobody is.
        amount: wei.
        reputation: what the member's was.
        release_at: the first second in which it is too late for an appeal.
    """

    job_id: JobId
    model_id: ModelId
    segment: int
    attempt: int
    operator: Address
    opening: Link
    link: Link
    challenger: Address
    amount: int
    reputation: int = 0
    release_at: int = 0


@dataclass(frozen=True)
class Round:
    """One attempt at a segment; empty until its committee is drawn.

    Args:
        overturned: whether a proof replaced what a quorum had agreed on.
    """

    total_weight: int
    settled_link: Link
    settled_weight: int
    prover: Address
    proved_by: Address
    overturned: bool
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
        if self.proof_hash != ZERO_HASH:
            return Label.PROVED
        return Label.AGREED if len(self.supporters) > 1 else Label.UNPROVED

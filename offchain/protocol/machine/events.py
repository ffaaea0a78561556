"""The events of the contracts as values: one class per Solidity event, its fields in the order of the declaration."""

from __future__ import annotations

from dataclasses import dataclass

from offchain.protocol.types import Address, Hold, JobId, Link, ModelId, Policy, Reason


class Event:
    """Something that happened; see the event of the same name in ``contracts/interfaces``."""


# --- Staking ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncryptionKeySet(Event):
    operator: Address
    encryption_key: bytes


@dataclass(frozen=True)
class Bonded(Event):
    operator: Address
    amount: int
    active: int


@dataclass(frozen=True)
class UnbondingStarted(Event):
    operator: Address
    amount: int
    active: int
    release_at: int


@dataclass(frozen=True)
class Withdrawn(Event):
    operator: Address
    amount: int


@dataclass(frozen=True)
class Slashed(Event):
    operator: Address
    amount: int
    active: int
    unbonding: int


@dataclass(frozen=True)
class ServingStarted(Event):
    model_id: ModelId
    operator: Address
    leaf: int


@dataclass(frozen=True)
class ServingStopped(Event):
    model_id: ModelId
    operator: Address
    leaf: int


@dataclass(frozen=True)
class WeightChanged(Event):
    model_id: ModelId
    operator: Address
    leaf: int
    weight: int


@dataclass(frozen=True)
class TrialCommitted(Event):
    model_id: ModelId
    operator: Address
    trial: int
    commitment: bytes


@dataclass(frozen=True)
class TrialPassed(Event):
    model_id: ModelId
    operator: Address
    trial: int


@dataclass(frozen=True)
class ReputationChanged(Event):
    model_id: ModelId
    operator: Address
    reputation: int


@dataclass(frozen=True)
class EquivocationPenalised(Event):
    job_id: JobId
    segment: int
    operator: Address
    attempt: int
    amount: int


@dataclass(frozen=True)
class SlashHeld(Event):
    job_id: JobId
    segment: int
    operator: Address
    hold: Hold


@dataclass(frozen=True)
class SlashAppealed(Event):
    job_id: JobId
    segment: int
    operator: Address
    attempt: int
    amount: int
    active: int


@dataclass(frozen=True)
class SlashReleased(Event):
    job_id: JobId
    segment: int
    operator: Address
    attempt: int
    for_challenger: int
    for_requester: int


# --- Escrow -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Credited(Event):
    account: Address
    amount: int


@dataclass(frozen=True)
class Claimed(Event):
    account: Address
    amount: int


# --- Jobs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class JobRequested(Event):
    job_id: JobId
    requester: Address
    model_id: ModelId
    input_link: Link
    result_key: bytes
    route_cid: bytes
    fee_wei: int
    policy: Policy


@dataclass(frozen=True)
class JobQueued(Event):
    job_id: JobId
    model_id: ModelId
    bucket: int


@dataclass(frozen=True)
class JobStarted(Event):
    job_id: JobId
    frozen_block: int
    ends_at: int


@dataclass(frozen=True)
class SeedBlockSet(Event):
    job_id: JobId
    segment: int
    seed_block: int


@dataclass(frozen=True)
class CommitteeDrawn(Event):
    job_id: JobId
    segment: int
    attempt: int
    seed: bytes
    operators: tuple[Address, ...]
    weights: tuple[int, ...]


@dataclass(frozen=True)
class InputProvided(Event):
    job_id: JobId
    input_cid: bytes


@dataclass(frozen=True)
class Committed(Event):
    job_id: JobId
    segment: int
    operator: Address
    attempt: int
    commitment: bytes


@dataclass(frozen=True)
class Revealed(Event):
    job_id: JobId
    segment: int
    operator: Address
    attempt: int
    link: Link
    activation_cid: bytes


@dataclass(frozen=True)
class Resealed(Event):
    job_id: JobId
    segment: int
    operator: Address
    activation_cid: bytes


@dataclass(frozen=True)
class SegmentReopened(Event):
    job_id: JobId
    segment: int
    attempt: int
    same_committee: bool


@dataclass(frozen=True)
class SegmentSettled(Event):
    job_id: JobId
    segment: int
    link: Link
    stake_for: int
    stake_total: int


@dataclass(frozen=True)
class SegmentContested(Event):
    job_id: JobId
    segment: int
    deadline: int


@dataclass(frozen=True)
class ProverDrawn(Event):
    job_id: JobId
    segment: int
    prover: Address
    deadline: int


@dataclass(frozen=True)
class ProofAnnounced(Event):
    job_id: JobId
    segment: int
    operator: Address
    announcement: bytes


@dataclass(frozen=True)
class SegmentProved(Event):
    job_id: JobId
    segment: int
    prover: Address
    link_in: Link
    link_out: Link
    proof_hash: bytes
    proof_cid: bytes


@dataclass(frozen=True)
class SegmentOverturned(Event):
    job_id: JobId
    segment: int
    challenger: Address
    before: Link
    proved: Link
    stake_against: int


@dataclass(frozen=True)
class OperatorPenalised(Event):
    job_id: JobId
    segment: int
    operator: Address
    reason: Reason
    amount: int


@dataclass(frozen=True)
class JobFinalised(Event):
    job_id: JobId
    result_link: Link
    evidence_root: bytes


@dataclass(frozen=True)
class JobFailed(Event):
    job_id: JobId
    reason: Reason
    refund: int

"""What the policy router is told and what it answers: demands, conditions, routes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from offchain.protocol.economics import BPS, PERMILLE, Deterrence, Unroutable
from offchain.protocol.manifest import Manifest
from offchain.protocol.types import Policy

MAX_SEGMENTS = 16
"""As in ``Policies.sol``."""


class Criticality(Enum):
    """What a wrong answer would cost."""

    LOW = "low"
    """Agreement of a quorum is enough."""
    STANDARD = "standard"
    """Agreement, and proofs drawn at a rate at which not computing does not pay."""
    CRITICAL = "critical"
    """Every segment proved."""


class Privacy(Enum):
    """Who may see what."""

    OPEN = "open"
    """Workers may see the input and everything that follows from it."""
    SPLIT = "split"
    """No worker may see more than one segment. That hides the whole, and is no confidentiality."""
    CLIENT_HEAD = "client-head"
    """The raw input must not leave the client."""
    ATTESTED = "attested"
    """Only attested hardware may see anything."""


class Evidence(Enum):
    """What is to stand behind a segment's output when the job is final."""

    PROOF = "proof"
    AGREEMENT = "agreement"
    ATTESTATION = "attestation"


@dataclass(frozen=True)
class ModelSize:
    """What of a manifest matters here.

    Args:
        log_rows: per segment; its circuit has two to this power rows, and time and memory of a proof go with them.
        provable: per segment, whether it has a circuit that can be proved at all.
    """

    log_rows: tuple[int, ...]
    provable: tuple[bool, ...]

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return len(self.log_rows)

    @classmethod
    def of(cls, manifest: Manifest) -> ModelSize:
        """Read the size out of a manifest."""
        segments = manifest.segments
        return cls(tuple(one.log_rows for one in segments), tuple(one.proof_bytes > 0 for one in segments))


@dataclass(frozen=True)
class Demand:
    """What the requester wants.

    Args:
        latency_seconds: what may pass from the job's start to its end, if no round has to be held again or contested.
        budget_wei: the most that it will pay as a fee.
        proof_permille: the rate of proofs it asks for; None to have the least that deters.
    """

    criticality: Criticality
    privacy: Privacy
    model: ModelSize
    latency_seconds: int
    budget_wei: int
    proof_permille: int | None = None


@dataclass(frozen=True)
class Deployment:
    """Parameters that were fixed when the contracts were deployed."""

    minimum_window_seconds: int
    minimum_fee_wei: int
    minimum_stake_wei: int
    contradiction_penalty_bps: int
    prover_share_bps: int


@dataclass(frozen=True)
class Conditions:
    """What is to be had.

    Args:
        workers: how many can be drawn for the model.
        largest_weight_wei: of any of them; the least is the deployment's minimum stake.
        max_log_rows: the largest circuit that they prove.
        turn_seconds: what a worker needs for a turn: to fetch, compute, pin, send and be mined, with all margins.
        proving_seconds: per segment, predicted, rounded up; not looked at where a segment cannot be proved.
        proof_costs_wei: per segment, what a proof costs its prover, gas included; likewise.
        cost_wei: C, what a worker spends on computing the dearest segment honestly.
        collusion_bps: r, the declared chance that a check is bought, in basis points.
        fee_wei: the going fee; a route may ask for more, never for less.
    """

    deployment: Deployment
    workers: int
    largest_weight_wei: int
    max_log_rows: int
    turn_seconds: int
    proving_seconds: tuple[int, ...]
    proof_costs_wei: tuple[int, ...]
    cost_wei: int
    collusion_bps: int
    fee_wei: int


class Windows(NamedTuple):
    """The lengths of a job's windows, in seconds."""

    input: int
    commit: int
    reveal: int
    prove: int
    challenge: int

    def scheduled_seconds(self, segments: int, proof_permille: int) -> int:
        """What a job lasts if everybody acts at the last moment of a turn, and no round is held again or contested."""
        total = 2 * self.input + segments * (self.commit + self.reveal)
        if proof_permille > 0:
            total += self.input + 2 * self.prove
        return total + (self.challenge if proof_permille < PERMILLE else 0)


@dataclass(frozen=True)
class Route:
    """A decision.

    Args:
        policy: to request the job with.
        challenge_seconds: the window for challenges, whether or not the policy of this version has a field for it.
        fee_wei: to escrow at least.
        evidence: per segment, what is to stand behind it.
        deterrence: the numbers of the rate that was chosen.
        scheduled_seconds: what the job lasts at most, if no round is held again or contested.
        reasons: a line for each rule, with its numbers.
    """

    policy: Policy
    challenge_seconds: int
    fee_wei: int
    evidence: tuple[Evidence, ...]
    deterrence: Deterrence
    scheduled_seconds: int
    reasons: tuple[str, ...]


def check_demand(demand: Demand) -> None:
    """Refuse a demand whose numbers mean nothing.

    Raises:
        Unroutable: naming the field.
    """
    model = demand.model
    if not 1 <= model.segments <= MAX_SEGMENTS:
        raise Unroutable("model.segments", f"there are {model.segments}", f"use a model of 1 to {MAX_SEGMENTS}")
    if len(model.provable) != model.segments:
        raise Unroutable("model.provable", f"{len(model.provable)} for {model.segments} segments", "give one a segment")
    for index, provable in enumerate(model.provable):
        if type(provable) is not bool:
            raise Unroutable(f"model.provable[{index}]", f"{provable!r} is neither true nor false", "say which")
    _check_counts("model.log_rows", *model.log_rows)
    _check_counts("latency_seconds", demand.latency_seconds)
    _check_counts("budget_wei", demand.budget_wei)
    if demand.proof_permille is not None:
        _check_counts("proof_permille", demand.proof_permille, most=PERMILLE)


def check_conditions(conditions: Conditions, segments: int) -> None:
    """Refuse conditions whose numbers mean nothing, or that do not fit a model of so many segments.

    Raises:
        Unroutable: naming the field.
    """
    deployment = conditions.deployment
    for name in ("minimum_window_seconds", "minimum_fee_wei"):
        _check_counts(f"conditions.deployment.{name}", getattr(deployment, name))
    for name in ("contradiction_penalty_bps", "prover_share_bps"):
        _check_counts(f"conditions.deployment.{name}", getattr(deployment, name), most=BPS)
    _check_counts("conditions.deployment.minimum_stake_wei", deployment.minimum_stake_wei, least=1)
    _check_counts("conditions.largest_weight_wei", conditions.largest_weight_wei, least=deployment.minimum_stake_wei)
    _check_counts("conditions.collusion_bps", conditions.collusion_bps, most=BPS)
    _check_counts("conditions.turn_seconds", conditions.turn_seconds, least=1)
    for name in ("workers", "max_log_rows", "cost_wei", "fee_wei"):
        _check_counts(f"conditions.{name}", getattr(conditions, name))
    for name in ("proving_seconds", "proof_costs_wei"):
        values = getattr(conditions, name)
        if len(values) != segments:
            raise Unroutable(f"conditions.{name}", f"{len(values)} for {segments} segments", "give one a segment")
        _check_counts(f"conditions.{name}", *values)


def _check_counts(field: str, *values: object, least: int = 0, most: int | None = None) -> None:
    for value in values:
        if type(value) is not int or value < least or (most is not None and value > most):
            bounds = f"at least {least}" if most is None else f"{least} to {most}"
            raise Unroutable(field, f"{value!r} is out of bounds", f"give a whole number, {bounds}")

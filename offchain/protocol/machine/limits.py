"""What is fixed for every job: bounds of policies (``Policies.sol``), and what a deployment may choose."""

from __future__ import annotations

from dataclasses import dataclass

from offchain.protocol.machine.errors import Refused
from offchain.protocol.types import Policy

BPS = 10_000
MAX_COMMITTEE = 21
MAX_MEMBERS = 192
MAX_WINDOW_SECONDS = 3600
MAX_REDRAWS = 4
MAX_SKIPS = 64
MAX_MODELS_PER_OPERATOR = 16
JOB_SECONDS = 7 * 86_400
APPEAL_SECONDS = 86_400
BLOCKHASH_BLOCKS = 256
"""How many blocks back the hash of a block can be had. Source: Ethereum Yellow Paper, BLOCKHASH."""


@dataclass(frozen=True)
class Parameters:
    """What is fixed when the contracts are deployed; see ``Parameters`` in ``JobRecord.sol``."""

    minimum_stake_wei: int
    unbonding_seconds: int
    minimum_fee_wei: int
    minimum_window_seconds: int
    max_running_jobs: int
    miss_penalty_bps: int
    contradiction_penalty_bps: int
    prover_share_bps: int
    fault_share_bps: int
    challenger_share_bps: int
    requester_share_bps: int

    def validate(self) -> None:
        """Refuse what the contracts cannot be deployed with."""
        # Stake that is on its way out can still be slashed for any job that it was drawn for.
        if self.unbonding_seconds < JOB_SECONDS:
            raise Refused("UnbondingTooShort", self.unbonding_seconds, JOB_SECONDS)
        if not 1 <= self.minimum_window_seconds <= MAX_WINDOW_SECONDS:
            raise Refused("WindowOutOfRange", self.minimum_window_seconds, 1, MAX_WINDOW_SECONDS)
        if self.max_running_jobs == 0:
            raise Refused("CountIsZero", "maxRunningJobs")
        _require_share(self.miss_penalty_bps, BPS)
        _require_share(self.contradiction_penalty_bps, BPS)
        _require_share(self.prover_share_bps, BPS)
        _require_share(self.fault_share_bps, BPS)
        # Whoever has its own stake slashed by its own proof loses at least half of it.
        _require_share(self.challenger_share_bps, BPS // 2)
        _require_share(self.challenger_share_bps + self.requester_share_bps, BPS // 2)


def validate_policy(policy: Policy, segments: int, minimum_seconds: int) -> None:
    """Refuse a policy with a field out of its bounds (``Policies.validate``)."""
    size = policy.committee_size
    if not 1 <= size <= MAX_COMMITTEE:
        raise Refused("CommitteeSizeOutOfRange", size, MAX_COMMITTEE)
    if size * segments > MAX_MEMBERS:
        raise Refused("CommitteeSizeOutOfRange", size, MAX_MEMBERS // segments)
    # Above one half, at most one output can hold a quorum.
    if not BPS // 2 < policy.quorum_bps <= BPS:
        raise Refused("QuorumOutOfRange", policy.quorum_bps)
    if policy.proof_permille > 1000:
        raise Refused("ProofRateOutOfRange", policy.proof_permille)
    for window in (
        policy.input_seconds,
        policy.commit_seconds,
        policy.reveal_seconds,
        policy.prove_seconds,
        policy.challenge_seconds,
    ):
        if not minimum_seconds <= window <= MAX_WINDOW_SECONDS:
            raise Refused("WindowOutOfRange", window, minimum_seconds, MAX_WINDOW_SECONDS)


def _require_share(share_bps: int, maximum: int) -> None:
    if share_bps > maximum:
        raise Refused("ShareOutOfRange", share_bps)

"""The conditions of a route: what the contracts fix, who can be drawn, and what a gateway's operator declares."""

from __future__ import annotations

from dataclasses import dataclass

from offchain.chain.contracts import Contracts
from offchain.errors import InvalidInputError
from offchain.protocol.economics import (
    BPS,
    PERMILLE,
    Deterrence,
    member_reward_wei,
    require_deterrence,
    slashed_wei,
)
from offchain.protocol.route_terms import Conditions, Deployment
from offchain.protocol.types import ModelId, Policy
from offchain.requester.requester import Requester

MIN_LOG_ROWS = 12
PROVING_SECONDS = (*(2,) * MIN_LOG_ROWS, 3, 6, 12, 24, 47, 93, 185)
"""Seconds that a proof takes, by the power of two of its circuit's rows: 0.36 s at 2^11 rows on two cores and linear in
the rows, as was measured, times four for circuits that are full of lookups."""


@dataclass(frozen=True)
class Declared:
    """What no chain says, and the operator of a gateway has to: route documents show it.

    Args:
        turn_seconds: what a worker needs for a turn, with all margins.
        proving_seconds: of a proof, by the power of two of its circuit's rows; doubled for each power beyond the last.
        max_log_rows: the largest circuit that workers prove.
        proof_cost_wei: what a proof costs its prover, gas included.
        cost_wei: what a worker spends on computing the dearest segment honestly.
        collusion_bps: the chance that a check is bought, in basis points.
        going_fee_wei: what jobs usually pay; a routed job pays at least this.
    """

    turn_seconds: int = 15
    proving_seconds: tuple[int, ...] = PROVING_SECONDS
    max_log_rows: int = 17
    proof_cost_wei: int = 10**15
    cost_wei: int = 10**14
    collusion_bps: int = 1000
    going_fee_wei: int = 0

    def __post_init__(self) -> None:
        if not self.proving_seconds or min(self.proving_seconds) < 1:
            raise InvalidInputError(
                "proving_seconds", "it is no table of seconds", "give 1 or more for each power of 2"
            )
        if self.turn_seconds < 1:
            raise InvalidInputError("turn_seconds", f"{self.turn_seconds} is too few", "give 1 or more")
        if not 0 <= self.collusion_bps < BPS:
            raise InvalidInputError("collusion_bps", f"{self.collusion_bps} is out of bounds", f"give 0 to {BPS - 1}")
        for name in ("proof_cost_wei", "cost_wei", "going_fee_wei"):
            if getattr(self, name) < 0:
                raise InvalidInputError(name, f"{getattr(self, name)} is below 0", "give wei, 0 or more")

    def predict_seconds(self, log_rows: int) -> int:
        """Predict how long a proof takes for a circuit of 2 to this power rows."""
        beyond = max(0, log_rows - len(self.proving_seconds) + 1)
        return self.proving_seconds[min(log_rows, len(self.proving_seconds) - 1)] << beyond


class ConditionsReader:
    """Finds out under which conditions a model's jobs run now.

    Args:
        contracts, requester: the chain, as the account sees it that is going to pay.
        declared: what the chain does not say.
    """

    def __init__(self, contracts: Contracts, requester: Requester, declared: Declared) -> None:
        self._contracts = contracts
        self._requester = requester
        self._declared = declared
        self._deployment: Deployment | None = None

    def read(self, model_id: ModelId) -> Conditions:
        """Read the conditions at the newest block.

        Raises:
            InvalidInputError: the model is not registered.
        """
        segments = self._requester.manifest(model_id).segments
        declared, standing = self._declared, self._requester.standing(model_id)
        deployment = self.deployment()
        return Conditions(
            deployment=deployment,
            workers=standing.workers,
            largest_weight_wei=max(standing.largest_weight_wei, deployment.minimum_stake_wei),
            max_log_rows=declared.max_log_rows,
            turn_seconds=declared.turn_seconds,
            proving_seconds=tuple(declared.predict_seconds(one.log_rows) for one in segments),
            proof_costs_wei=(declared.proof_cost_wei,) * len(segments),
            cost_wei=declared.cost_wei,
            collusion_bps=declared.collusion_bps,
            fee_wei=declared.going_fee_wei,
        )

    def deployment(self) -> Deployment:
        """What was fixed when the contracts were deployed."""
        if self._deployment is None:
            jobs = self._contracts.jobs
            self._deployment = Deployment(
                minimum_window_seconds=jobs.minimum_window_seconds(),
                minimum_fee_wei=jobs.minimum_fee(),
                minimum_stake_wei=self._contracts.staking.minimum_stake(),
                contradiction_penalty_bps=self._fixed("contradictionPenaltyBps"),
                prover_share_bps=self._fixed("proverShareBps"),
            )
        return self._deployment

    def require_deterrence(self, model_id: ModelId, policy: Policy, fee_wei: int) -> None:
        """Refuse a rate of proofs that looks like a threat and is none. No proofs, and all of them, need no threat.

        Raises:
            RateTooLow: with the numbers, and the least rate that deters.
        """
        if policy.proof_permille in (0, PERMILLE):
            return
        conditions = self.read(model_id)
        deployment = conditions.deployment
        reward_wei = member_reward_wei(
            fee_wei,
            len(conditions.proving_seconds),
            policy.committee_size,
            deployment.prover_share_bps,
            deployment.minimum_stake_wei,
            conditions.largest_weight_wei,
        )
        lost_wei = slashed_wei(deployment.minimum_stake_wei, deployment.contradiction_penalty_bps)
        deterrence = Deterrence(
            policy.proof_permille, conditions.collusion_bps, reward_wei, lost_wei, conditions.cost_wei
        )
        require_deterrence(deterrence)

    def _fixed(self, name: str) -> int:
        jobs = self._contracts.jobs
        with jobs.connection.translated(name):
            return int(jobs.contract.functions[name]().call())

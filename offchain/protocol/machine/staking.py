"""Bonds, service, trials, slashing and reputation (``Staking.sol``)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from offchain.protocol import hashing, reputation, sortition
from offchain.protocol.machine.errors import Refused
from offchain.protocol.machine.events import (
    Bonded,
    EncryptionKeySet,
    EquivocationPenalised,
    ReputationChanged,
    ServingStarted,
    ServingStopped,
    Slashed,
    TrialCommitted,
    TrialPassed,
    UnbondingStarted,
    WeightChanged,
    Withdrawn,
)
from offchain.protocol.machine.ledger import Ledger, entry_point
from offchain.protocol.machine.limits import BPS, MAX_MODELS_PER_OPERATOR
from offchain.protocol.machine.state import NO_ROUND, Bond, Membership, Weights
from offchain.protocol.types import ZERO_HASH, Address, JobId, Link, ModelId


class Staking(Ledger):
    """Who stands behind what it says, with how much, and with what record."""

    def bond_of(self, operator: Address) -> Bond:
        """The operator's stake."""
        return self.state.bonds.get(operator, Bond())

    def membership_of(self, operator: Address, model_id: ModelId) -> Membership:
        """The operator's part in a model."""
        return self.state.memberships.get((model_id, operator), Membership())

    def reputation_of(self, operator: Address, model_id: ModelId) -> int:
        """Settled segments that it stood behind since it last lied; see :mod:`offchain.protocol.reputation`."""
        return self.state.reputations.get((model_id, operator), 0)

    def weights_at(self, model_id: ModelId, block_number: int) -> Weights:
        """The weights of a model's leaves as they stood at the end of a block."""
        history = self.state.histories.get(model_id, ())
        return next((weights for number, weights in reversed(history) if number <= block_number), ())

    # --- bonds --------------------------------------------------------------------------------------------------------

    @entry_point
    def set_encryption_key(self, encryption_key: bytes) -> None:
        """Publish the key to which activations are sealed for the caller."""
        if encryption_key == ZERO_HASH:
            raise Refused("EncryptionKeyIsZero")
        self._change_bond(self.caller, encryption_key=encryption_key)
        self.emit(EncryptionKeySet(self.caller, encryption_key))

    @entry_point
    def bond(self, value_wei: int) -> None:
        """Add to the caller's active bond."""
        if value_wei == 0:
            raise Refused("AmountIsZero")
        bond = self._change_bond(self.caller, active=self.bond_of(self.caller).active + value_wei)
        self.emit(Bonded(self.caller, value_wei, bond.active))
        self._refresh_weights(self.caller)

    @entry_point
    def start_unbonding(self, amount: int) -> None:
        """Move part of the caller's bond on its way out; the whole way begins again for what was on it already."""
        bond = self.bond_of(self.caller)
        if amount == 0:
            raise Refused("AmountIsZero")
        if amount > bond.active:
            raise Refused("InsufficientStake", self.caller, amount, bond.active)
        bond = self._change_bond(
            self.caller,
            active=bond.active - amount,
            unbonding=bond.unbonding + amount,
            release_at=self.block.timestamp + self.parameters.unbonding_seconds,
        )
        self.emit(UnbondingStarted(self.caller, amount, bond.active, bond.release_at))
        self._refresh_weights(self.caller)

    @entry_point
    def withdraw(self) -> None:
        """Pay out what has finished unbonding."""
        bond = self.bond_of(self.caller)
        if bond.unbonding == 0:
            raise Refused("NothingToWithdraw", self.caller)
        if self.block.timestamp < bond.release_at:
            raise Refused("StillUnbonding", bond.release_at, self.block.timestamp)
        self._change_bond(self.caller, unbonding=0)
        self.emit(Withdrawn(self.caller, bond.unbonding))

    @entry_point
    def refresh_weights(self, operator: Address) -> None:
        """Have an operator's weights follow its active bond; anyone may."""
        self._refresh_weights(operator)

    # --- service and trials -------------------------------------------------------------------------------------------

    @entry_point
    def serve(self, model_id: ModelId) -> None:
        """Enter the caller into a model's draws, without weight until it has passed a trial where there are any."""
        bond, membership = self.bond_of(self.caller), self.membership_of(self.caller, model_id)
        if model_id not in self.state.models:
            raise Refused("UnknownModel", model_id)
        if bond.encryption_key == ZERO_HASH:
            raise Refused("EncryptionKeyMissing", self.caller)
        if bond.active < self.parameters.minimum_stake_wei:
            raise Refused("InsufficientStake", self.caller, self.parameters.minimum_stake_wei, bond.active)
        if len(bond.models) == MAX_MODELS_PER_OPERATOR:
            raise Refused("TooManyModels", self.caller, MAX_MODELS_PER_OPERATOR)
        if membership.serving:
            raise Refused("AlreadyServing", self.caller, model_id)
        leaf = len(self._weights(model_id)) if membership.leaf is None else membership.leaf
        admitted = membership.admitted or not self.state.models[model_id].trials
        self._change_membership(model_id, leaf=leaf, serving=True, admitted=admitted)
        self._change_bond(self.caller, models=(*bond.models, model_id))
        self.emit(ServingStarted(model_id, self.caller, leaf))
        self._set_weight(model_id, self.caller)

    @entry_point
    def stop_serving(self, model_id: ModelId) -> None:
        """Take the caller out of future draws of a model."""
        membership = self.membership_of(self.caller, model_id)
        if not membership.serving or membership.leaf is None:
            raise Refused("NotServing", self.caller, model_id)
        self._change_membership(model_id, serving=False)
        models = list(self.bond_of(self.caller).models)
        models[models.index(model_id)] = models[-1]  # the last takes its place: later events follow this order
        self._change_bond(self.caller, models=tuple(models[:-1]))
        self.emit(ServingStopped(model_id, self.caller, membership.leaf))
        self._set_weight(model_id, self.caller)

    @entry_point
    def commit_trial(self, model_id: ModelId, trial: int, commitment: bytes) -> None:
        """Commit to an answer to a trial that nobody has answered; the last commitment counts."""
        self._require_candidate(model_id)
        self._require_trial(model_id, trial)
        answered_at = self.state.answered_at.get((model_id, trial), 0)
        if answered_at:
            raise Refused("TrialAnswered", model_id, trial, answered_at)
        self._change_membership(model_id, trial=trial, committed_block=self.block.number, commitment=commitment)
        self.emit(TrialCommitted(model_id, self.caller, trial, commitment))

    @entry_point
    def pass_trial(self, model_id: ModelId, answer: bytes, salt: bytes) -> None:
        """Show the answer that was committed to, in an earlier block and before anybody else showed it."""
        membership = self._require_candidate(model_id)
        trial, committed = membership.trial, membership.committed_block
        chain_id, staking = self.domain.chain_id, self.domain.staking
        actual = hashing.trial_commitment(chain_id, staking, model_id, trial, self.caller, answer, salt)
        if membership.commitment != actual:
            raise Refused("TrialCommitmentMismatch", membership.commitment, actual)
        answered_at = self.state.answered_at.get((model_id, trial), 0)
        if committed >= self.block.number:
            raise Refused("BlockNotOver", committed, self.block.number)
        # An answer that was seen before it was committed to is no answer.
        if answered_at and committed >= answered_at:
            raise Refused("TrialAnswered", model_id, trial, answered_at)
        expected, found = self._require_trial(model_id, trial), hashing.answer_hash(answer)
        if found != expected:
            raise Refused("WrongAnswer", model_id, trial, expected, found)
        self.state.answered_at[model_id, trial] = answered_at or self.block.number
        self._change_membership(model_id, admitted=True)
        self.emit(TrialPassed(model_id, self.caller, trial))
        self._set_weight(model_id, self.caller)

    # --- penalties and reputation -------------------------------------------------------------------------------------

    @entry_point
    def report_equivocation(
        self,
        job_id: JobId,
        segment: int,
        attempt: int,
        operator: Address,
        links: tuple[Link, Link],
        signers: tuple[Address | None, Address | None],
    ) -> None:
        """Penalise a member, once a round, that signed two results for it, or one and revealed another.

        Args:
            signers: whose signature each of the two is, over ``hashing.result_digest``; None where there is none.
        """
        if links[0] == links[1]:
            raise Refused("NoEquivocation", job_id, segment, operator)
        member = self.state.rounds.get((job_id, segment, attempt), NO_ROUND).member(operator)
        if member is None:
            raise Refused("NotMember", job_id, segment, operator)
        # What a member revealed bears the signature of its transaction.
        is_revealed = signers[1] is None and links[1] == member.link != ZERO_HASH
        for signer in signers[:1] if is_revealed else signers:
            if signer is None:
                raise Refused("ECDSAInvalidSignatureLength", 0)
            if signer != operator:
                raise Refused("SignatureMismatch", operator, signer)
        if (job_id, segment, attempt, operator) in self.state.equivocations:
            raise Refused("AlreadyPenalised", job_id, segment, operator)
        self.state.equivocations[job_id, segment, attempt, operator] = True
        model_id = self.state.jobs[job_id].model_id
        taken = self._take(operator, member.weight * self.parameters.contradiction_penalty_bps // BPS, model_id)
        self._set_reputation(operator, model_id, reputation.after_contradiction)
        self.emit(EquivocationPenalised(job_id, segment, operator, attempt, taken))
        self.state.burnt_wei += taken

    def slash(self, operator: Address, amount: int, model_id: ModelId) -> int:
        """Take up to an amount from an operator that missed something, and burn it; return what was taken."""
        taken = self._take(operator, amount, model_id)
        self._set_reputation(operator, model_id, reputation.after_miss)
        self.state.burnt_wei += taken
        return taken

    def commend(self, operator: Address, model_id: ModelId) -> None:
        """One more segment without a fault."""
        self._set_reputation(operator, model_id, reputation.after_success)

    def draw_operators(
        self, model_id: ModelId, at_block: int, seed: bytes, count: int, earlier: Collection[Address]
    ) -> tuple[tuple[Address, int], ...]:
        """Draw a committee from the weights at the end of a block, apart from earlier ones if workers suffice."""
        return sortition.draw_committee(self.weights_at(model_id, at_block), seed, count, earlier)

    # --- parts --------------------------------------------------------------------------------------------------------

    def _take(self, operator: Address, amount: int, model_id: ModelId) -> int:
        """Active bond first. The weight in this model follows at once, in others with the next refresh."""
        bond = self.bond_of(operator)
        from_active = min(amount, bond.active)
        from_unbonding = min(amount - from_active, bond.unbonding)
        taken = from_active + from_unbonding
        bond = self._change_bond(operator, active=bond.active - from_active, unbonding=bond.unbonding - from_unbonding)
        self.emit(Slashed(operator, taken, bond.active, bond.unbonding))
        if self.membership_of(operator, model_id).serving:
            self._set_weight(model_id, operator)
        return taken

    def _set_reputation(self, operator: Address, model_id: ModelId, rule: Callable[[int], int]) -> None:
        before = self.reputation_of(operator, model_id)
        after = rule(before)
        if after != before:
            self.state.reputations[model_id, operator] = after
            self.emit(ReputationChanged(model_id, operator, after))

    def _refresh_weights(self, operator: Address) -> None:
        for model_id in self.bond_of(operator).models:
            self._set_weight(model_id, operator)

    def _set_weight(self, model_id: ModelId, operator: Address) -> None:
        """Have a weight follow its bond, if that is no dust and its operator serves the model, admitted to it."""
        membership, active = self.membership_of(operator, model_id), self.bond_of(operator).active
        leaf = membership.leaf
        assert leaf is not None  # whoever served once has one
        is_counted = membership.serving and membership.admitted and active >= self.parameters.minimum_stake_wei
        weight = active if is_counted else 0
        weights = self._weights(model_id)
        weights = (*weights[:leaf], (operator, weight), *weights[leaf + 1 :])
        earlier = tuple(entry for entry in self.state.histories.get(model_id, ()) if entry[0] != self.block.number)
        self.state.histories[model_id] = (*earlier, (self.block.number, weights))
        self.emit(WeightChanged(model_id, operator, leaf, weight))

    def _weights(self, model_id: ModelId) -> Weights:
        return self.weights_at(model_id, self.block.number)

    def _require_candidate(self, model_id: ModelId) -> Membership:
        membership = self.membership_of(self.caller, model_id)
        if not membership.serving:
            raise Refused("NotServing", self.caller, model_id)
        if membership.admitted:
            raise Refused("AlreadyAdmitted", self.caller, model_id)
        return membership

    def _require_trial(self, model_id: ModelId, trial: int) -> bytes:
        trials = self.state.models[model_id].trials
        if trial >= len(trials):
            raise Refused("UnknownTrial", model_id, trial)
        return trials[trial]

    def _change_bond(self, operator: Address, **changes: Any) -> Bond:
        bond = self.state.bonds[operator] = replace(self.bond_of(operator), **changes)
        return bond

    def _change_membership(self, model_id: ModelId, **changes: Any) -> None:
        membership = self.membership_of(self.caller, model_id)
        self.state.memberships[model_id, self.caller] = replace(membership, **changes)

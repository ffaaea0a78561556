"""What a proof took of a bond, while its operator may still prove its own output too (``Staking.sol``)."""

from __future__ import annotations

from dataclasses import replace

from offchain.protocol import reputation
from offchain.protocol.machine.errors import Refused
from offchain.protocol.machine.events import Claimed, Credited, SlashAppealed, SlashHeld, SlashReleased
from offchain.protocol.machine.ledger import entry_point
from offchain.protocol.machine.limits import APPEAL_SECONDS, BPS
from offchain.protocol.machine.staking import Staking
from offchain.protocol.types import ZERO_ADDRESS, Address, Hold, Link


class Holds(Staking):
    """A circuit may admit more than one output: whoever proves its own, with the same opening, loses nothing."""

    def is_held(self, hold: Hold) -> bool:
        """Whether it is neither given back nor released."""
        return hold in self.state.holds

    def compensation_of(self, account: Address) -> int:
        """What the account may claim of ``Staking``, in wei."""
        return self.state.compensations.get(account, 0)

    @entry_point
    def appeal(self, hold: Hold, proves: tuple[Link, Link] | None) -> None:
        """Give an operator back what is held, and its reputation.

        Args:
            proves: the links that the proof opens and closes with; None if it does not verify.
        """
        self._close_hold(hold)
        if self.block.timestamp >= hold.release_at:
            raise Refused("AppealOver", hold.release_at, self.block.timestamp)
        if proves is None:
            raise Refused("ProofRejected", hold.model_id, hold.segment)
        if proves[0] != hold.opening:
            raise Refused("OpeningLinkMismatch", hold.segment, hold.opening, proves[0])
        if proves[1] != hold.link:
            raise Refused("ClosingLinkMismatch", hold.segment, hold.link, proves[1])
        bond = self._change_bond(hold.operator, active=self.bond_of(hold.operator).active + hold.amount)
        where = (hold.job_id, hold.segment, hold.operator, hold.attempt)
        self.emit(SlashAppealed(*where, hold.amount, bond.active))
        both = (hold.operator, hold.model_id)
        self._set_reputation(*both, lambda now: min(now + hold.reputation, reputation.MAX_REPUTATION))
        if self.membership_of(*both).serving:
            self._set_weight(hold.model_id, hold.operator)

    @entry_point
    def release(self, hold: Hold) -> None:
        """Share what nobody proved in time between challenger and requester, and burn the rest, one half or more."""
        self._close_hold(hold)
        if self.block.timestamp < hold.release_at:
            raise Refused("StillHeld", hold.release_at, self.block.timestamp)
        shares = [0, 0]
        if hold.challenger != ZERO_ADDRESS:
            parameters, requester = self.parameters, self.state.jobs[hold.job_id].requester
            shares = [
                hold.amount * bps // BPS for bps in (parameters.challenger_share_bps, parameters.requester_share_bps)
            ]
            self._compensate(hold.challenger, shares[0])
            self._compensate(requester, shares[1])
        self.emit(SlashReleased(hold.job_id, hold.segment, hold.operator, hold.attempt, *shares))
        self.state.burnt_wei += hold.amount - sum(shares)

    @entry_point
    def claim_compensation(self) -> None:
        """Pay the caller all that ``Staking`` credits it with."""
        amount = self.compensation_of(self.caller)
        if amount == 0:
            raise Refused("NothingToClaim", self.caller)
        self.state.compensations[self.caller] = 0
        self.emit(Claimed(self.caller, amount))

    def hold(self, wanted: Hold) -> int:
        """Take up to ``wanted.amount`` from an operator whose output a proof contradicts, and hold it; return that."""
        taken = self._take(wanted.operator, wanted.amount, wanted.model_id)
        reputation_before = self.reputation_of(wanted.operator, wanted.model_id)
        release_at = self.block.timestamp + APPEAL_SECONDS
        held = replace(wanted, amount=taken, reputation=reputation_before, release_at=release_at)
        self._set_reputation(held.operator, held.model_id, reputation.after_contradiction)
        self.state.holds[held] = True
        self.emit(SlashHeld(held.job_id, held.segment, held.operator, held))
        return taken

    def _close_hold(self, hold: Hold) -> None:
        """Each ends once."""
        if not self.is_held(hold):
            raise Refused("NotHeld", hold.job_id, hold.segment, hold.operator)
        del self.state.holds[hold]

    def _compensate(self, account: Address, amount: int) -> None:
        if amount:
            self.state.compensations[account] = self.compensation_of(account) + amount
            self.emit(Credited(account, amount))

"""Stake that a proof took and that is held: this worker's own, which it appeals for, and that of those it challenged.

A circuit may admit more than one output, so a proof of another one says nothing against what this worker computed. It
has a day to prove that its own output follows from the same input.
"""

from __future__ import annotations

import logging
import time

from offchain.chain.contracts import Contracts
from offchain.chain.errors import TransactionRefused
from offchain.chain.events import Event
from offchain.chain.sender import Sender
from offchain.chain.staking import hold_of
from offchain.errors import InterlockError
from offchain.protocol.types import Address, Hold
from offchain.worker.asked import Asked
from offchain.worker.memory import Memory
from offchain.worker.proofs import Proofs

_log = logging.getLogger(__name__)

MOST_AT_ONCE = 8
"""Of all the appeals that are to be made: those that are due first. The others must not stand before other proofs."""
HOPELESS = frozenset({"AppealOver", "ClosingLinkMismatch", "OpeningLinkMismatch"})
"""Refusals that no other proof of the same work would change."""
PAUSE_SECONDS = 30.0
"""How long an appeal that the chain refused is left alone: a node may lag, or the chain be congested."""


class Appeals:
    """What one worker does about stake that is held.

    Args:
        contracts, sender: the outside.
        memory: remembers what is held, and what was computed.
        proofs: makes the proofs, one after the other.
        reorganisation_blocks: how deep the end of a hold has to be in the chain before it is forgotten.
    """

    def __init__(
        self, contracts: Contracts, sender: Sender, memory: Memory, proofs: Proofs, reorganisation_blocks: int
    ) -> None:
        self._contracts = contracts
        self._sender = sender
        self._memory = memory
        self._proofs = proofs
        self._reorganisation_blocks = reorganisation_blocks
        self._me = Address(sender.address)
        self._made: dict[Hold, Asked] = {}
        self._ended: dict[Hold, int] = {}
        self._not_before: dict[Hold, float] = {}

    def __bool__(self) -> bool:
        """Whether a proof is made, waiting or not sent yet."""
        return bool(self._made)

    def stop(self) -> None:
        """End every proof."""
        for asked in self._made.values():
            asked.cancel()

    def notice(self, event: Event) -> None:
        """Remember stake of this worker's that was taken, or that it has a share in."""
        hold = hold_of(event.arguments)
        if self._me == hold.operator:
            _log.warning("job %s: %d wei of this stake are held, and are appealed for", _name(hold), hold.amount)
        if self._me in (hold.operator, hold.challenger):
            self._memory.save_hold(hold)

    def attend_all(self, block_number: int) -> bool:
        """Appeal, or release, where that is due. The trouble with one does not keep the others.

        Returns:
            Whether anything was released that this worker has a share in.
        """
        holds = sorted(self._memory.holds(), key=lambda hold: hold.release_at)
        if not holds:
            return False
        has_released, timestamp = False, self._contracts.connection.timestamp()
        for hold in holds:
            if hold.challenger == self._me and timestamp < hold.release_at:
                continue
            try:
                has_released |= self._attend(hold, block_number, timestamp)
            except InterlockError as error:
                _log.warning("job %s: %s", _name(hold), error)
            except Exception as error:  # the trouble with one must not cost the others
                _log.warning("job %s: %s", _name(hold), error, exc_info=error)
        return has_released

    def _attend(self, hold: Hold, block_number: int, timestamp: int) -> bool:
        staking = self._contracts.staking
        if not staking.is_held(hold):
            self._drop_proof(hold)
            if block_number >= self._ended.setdefault(hold, block_number) + self._reorganisation_blocks:
                self._forget(hold)
            return False
        self._ended.pop(hold, None)
        if timestamp < hold.release_at:
            if hold.operator == self._me:
                # Half the time is kept for the transaction, and for a proof that has to be made again.
                self._appeal(hold, (hold.release_at - timestamp) / 2)
        elif hold.challenger == self._me:
            staking.release(self._sender, hold)
            _log.info("job %s: %d wei were not appealed for, and are shared and burnt", _name(hold), hold.amount)
            return True
        else:
            self._forget(hold)
        return False

    def _appeal(self, hold: Hold, seconds: float) -> None:
        if time.monotonic() < self._not_before.get(hold, 0.0):
            return None
        if hold not in self._made:
            if len(self._made) >= MOST_AT_ONCE:
                return None
            work = self._memory.work(hold.job_id, hold.segment, hold.attempt, hold.opening)
            if work is None or work.link != hold.link:
                _log.error("job %s: what was revealed is not what this worker remembers: no appeal", _name(hold))
                return self._forget(hold)
            self._made[hold] = self._proofs.make(hold.model_id, work, seconds)
        future = self._made[hold].future
        if not future.done():
            return None
        if future.exception() is not None:
            self._made.pop(hold).future.result()  # raises; the next cycle makes another
        proof = future.result()
        try:
            self._contracts.staking.appeal(self._sender, hold, proof.proof, proof.instances)
        except TransactionRefused as refused:
            if refused.error == "NotHeld":  # an earlier life of this worker, or anybody else, was faster
                return None
            self._drop_proof(hold)  # a lie stays one; what was refused for another reason is proved again
            self._not_before[hold] = time.monotonic() + PAUSE_SECONDS
            if refused.error in HOPELESS:
                self._forget(hold)
            raise
        self._made.pop(hold)
        _log.info("job %s: proved this output too, and got %d wei back", _name(hold), hold.amount)
        return None

    def _forget(self, hold: Hold) -> None:
        self._memory.drop_hold(hold)
        self._ended.pop(hold, None)
        self._not_before.pop(hold, None)
        self._drop_proof(hold)

    def _drop_proof(self, hold: Hold) -> None:
        asked = self._made.pop(hold, None)
        if asked is not None:
            asked.cancel()


def _name(hold: Hold) -> str:
    return f"{hold.job_id.hex()[:8]}, segment {hold.segment}"

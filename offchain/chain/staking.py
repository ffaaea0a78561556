"""The typed class of ``Staking``: bonds, draws, and what a proof took of a bond."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from typing import Any

from eth_hash.auto import keccak
from web3.types import BlockIdentifier

from offchain.chain.binding import LATEST, Bound
from offchain.chain.sender import Receipt, Sender
from offchain.protocol.types import Address, Hold, JobId, Link, ModelId

_HOLD = "(bytes32,bytes32,uint256,uint256,address,bytes32,bytes32,address,uint256,uint256,uint256)"
SLASH_HELD = "0x" + keccak(f"SlashHeld(bytes32,uint256,address,{_HOLD})".encode()).hex()
"""Topic of ``IStaking.SlashHeld``."""
APPEAL_GAS = 16_000_000
"""Limit of an appeal: the adapter sets 4M aside for the verifier, whatever that uses, and each instance costs gas."""


class Staking(Bound):
    """Bonds of operators and the draw of committees; see ``IStaking.sol``."""

    name = "Staking"

    def set_encryption_key(self, sender: Sender, key: bytes) -> Receipt:
        """Publish the X25519 key (32 bytes) to which activations are sealed for the sender."""
        return self._write(sender, "setEncryptionKey", key)

    def bond(self, sender: Sender, amount_wei: int) -> Receipt:
        """Add to the sender's active bond."""
        return self._write(sender, "bond", value_wei=amount_wei)

    def start_unbonding(self, sender: Sender, amount_wei: int) -> Receipt:
        """Move part of the sender's bond to unbonding."""
        return self._write(sender, "startUnbonding", amount_wei)

    def withdraw(self, sender: Sender) -> Receipt:
        """Pay out what has finished unbonding."""
        return self._write(sender, "withdraw")

    def serve(self, sender: Sender, model_id: ModelId) -> Receipt:
        """Enter the sender into a model's draws."""
        return self._write(sender, "serve", model_id)

    def stop_serving(self, sender: Sender, model_id: ModelId) -> Receipt:
        """Take the sender out of a model's future draws."""
        return self._write(sender, "stopServing", model_id)

    def refresh_weights(self, sender: Sender, operator: str) -> Receipt:
        """Have an operator's weight follow its bond in the draws of every model that it serves; anyone may."""
        return self._write(sender, "refreshWeights", operator)

    def commit_trial(self, sender: Sender, model_id: ModelId, trial: int, commitment: bytes) -> Receipt:
        """Commit to the answer to one of a model's trials; see :func:`offchain.protocol.hashing.trial_commitment`."""
        return self._write(sender, "commitTrial", model_id, trial, commitment)

    def pass_trial(self, sender: Sender, model_id: ModelId, answer: bytes, salt: bytes) -> Receipt:
        """Show the answer that was committed to in an earlier block."""
        return self._write(sender, "passTrial", model_id, answer, salt)

    def report_equivocation(
        self,
        sender: Sender,
        job: JobId,
        segment: int,
        attempt: int,
        operator: str,
        links: tuple[Link, Link],
        signatures: tuple[bytes, bytes],
    ) -> Receipt:
        """Penalise a member that signed two results, or one and revealed another (then with an empty signature)."""
        evidence = (job, segment, attempt, operator, list(links), list(signatures))
        return self._write(sender, "reportEquivocation", *evidence)

    def appeal(self, sender: Sender, hold: Hold, proof: bytes, instances: Sequence[int]) -> Receipt:
        """Give an operator back what is held of its bond: this proves its own output."""
        return self._write(sender, "appeal", astuple(hold), proof, list(instances), gas=APPEAL_GAS)

    def release(self, sender: Sender, hold: Hold) -> Receipt:
        """Share what nobody proved in time between the challenger and the requester, and burn the rest."""
        return self._write(sender, "release", astuple(hold))

    def claim_compensation(self, sender: Sender) -> Receipt:
        """Pay the sender what this contract credits it with."""
        return self._write(sender, "claim")

    def compensation_of(self, account: str) -> int:
        """What the account may claim of this contract, in wei."""
        return int(self._read("creditOf", account))

    def is_held(self, hold: Hold, block: BlockIdentifier = LATEST) -> bool:
        """Whether it is neither given back nor released."""
        return bool(self._read("isHeld", astuple(hold), block=block))

    def is_admitted(self, operator: str, model_id: ModelId) -> bool:
        """Whether the operator's bond counts in the model's draws while it serves it."""
        return bool(self._read("isAdmitted", operator, model_id))

    def trial_answered_at(self, model_id: ModelId, trial: int) -> int:
        """The block in which a trial's answer was first shown; zero until then."""
        return int(self._read("trialAnsweredAt", model_id, trial))

    def reputation_of(self, operator: str, model_id: ModelId) -> int:
        """Settled segments that the operator stood behind since its last contradiction; a miss halves it."""
        return int(self._read("reputationOf", operator, model_id))

    def minimum_stake(self) -> int:
        """The least active bond (wei) that counts in draws."""
        return int(self._read("minimumStake"))

    def active_of(self, operator: str) -> int:
        """Active bond, in wei."""
        return int(self._read("activeOf", operator))

    def unbonding_of(self, operator: str) -> tuple[int, int]:
        """Bond on its way out (wei), and when it may be withdrawn (seconds since the epoch)."""
        amount, release_at = self._read("unbondingOf", operator)
        return int(amount), int(release_at)

    def encryption_key_of(self, operator: str) -> bytes:
        """The key to which activations are sealed for an operator; zero if it has set none."""
        return bytes(self._read("encryptionKeyOf", operator))

    def is_serving(self, operator: str, model_id: ModelId) -> bool:
        """Whether the operator serves the model now."""
        return bool(self._read("isServing", operator, model_id))

    def draw(
        self,
        model_id: ModelId,
        at_block: int,
        seed: bytes,
        count: int,
        excluded: Sequence[str],
        block: BlockIdentifier = LATEST,
    ) -> tuple[tuple[Address, int], ...]:
        """Draw as a job would; see ``offchain.protocol.sortition.draw`` for the same in Python."""
        operators, weights = self._read("draw", model_id, at_block, seed, count, list(excluded), block=block)
        return tuple((Address(operator), int(weight)) for operator, weight in zip(operators, weights, strict=True))

    def total_weight_at(self, model_id: ModelId, block_number: int) -> int:
        """Sum of a model's weights at the end of a past block, in wei."""
        return int(self._read("totalWeightAt", model_id, block_number))


def hold_of(arguments: Mapping[str, Any]) -> Hold:
    """The hold that a ``SlashHeld`` event tells of."""
    raw = tuple(arguments["hold"].values())
    job_id, model_id, segment, attempt, operator, opening, link, challenger, *numbers = raw
    return Hold(
        job_id=JobId(bytes(job_id)),
        model_id=ModelId(bytes(model_id)),
        segment=segment,
        attempt=attempt,
        operator=Address(operator),
        opening=Link(bytes(opening)),
        link=Link(bytes(link)),
        challenger=Address(challenger),
        amount=numbers[0],
        reputation=numbers[1],
        release_at=numbers[2],
    )

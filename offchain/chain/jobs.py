"""The typed class of ``Jobs``: a job from its request to its payment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from web3.types import BlockIdentifier

from offchain.chain.binding import LATEST, Bound
from offchain.chain.sender import Receipt, Sender
from offchain.protocol.types import ZERO_HASH, Address, Job, JobId, Link, Member, ModelId, Phase, Policy, Round

PROOF_GAS = 16_000_000
"""Limit of a proof's transaction: the adapter sets 4M aside for the verifier, whatever that uses of it, and a whole
committee but its prover may have to be slashed."""


@dataclass(frozen=True)
class JobRequest:
    """See ``Request`` in ``IJobs.sol``."""

    model_id: ModelId
    input_link: Link
    result_key: bytes
    salt: bytes
    policy: Policy
    route_cid: bytes = ZERO_HASH


class Jobs(Bound):
    """Jobs from request to payment; see ``IJobs.sol``."""

    name = "Jobs"

    def request(self, sender: Sender, what: JobRequest, fee_wei: int) -> Receipt:
        """Escrow the fee and open a job; its id is :func:`offchain.protocol.hashing.job_id`."""
        policy = astuple(what.policy)
        arguments = (what.model_id, what.input_link, what.result_key, what.salt, what.route_cid, policy)
        return self._write(sender, "request", arguments, value_wei=fee_wei)

    def admit(self, sender: Sender, model_id: ModelId) -> Receipt:
        """Start the queued job of a model whose turn it is."""
        return self._write(sender, "admit", model_id)

    def cancel(self, sender: Sender, job: JobId) -> Receipt:
        """Take a queued job back."""
        return self._write(sender, "cancel", job)

    def draw(self, sender: Sender, job: JobId) -> Receipt:
        """Make the draw that is due."""
        return self._write(sender, "draw", job)

    def provide_input(self, sender: Sender, job: JobId, input_cid: bytes) -> Receipt:
        """Say where the sealed input lies."""
        return self._write(sender, "provideInput", job, input_cid)

    def reseal(self, sender: Sender, job: JobId, activation_cid: bytes) -> Receipt:
        """Say where an output lies, sealed to a committee that was drawn anew."""
        return self._write(sender, "reseal", job, activation_cid)

    def commit(self, sender: Sender, job: JobId, segment: int, attempt: int, commitment: bytes) -> Receipt:
        """Commit to an output, in the round that it was computed for."""
        return self._write(sender, "commit", job, segment, attempt, commitment)

    def reveal(self, sender: Sender, job: JobId, link: Link, salt: bytes, activation_cid: bytes) -> Receipt:
        """Open a commitment."""
        return self._write(sender, "reveal", job, link, salt, activation_cid)

    def settle(self, sender: Sender, job: JobId) -> Receipt:
        """Settle a segment whose time to reveal is over."""
        return self._write(sender, "settle", job)

    def prove(
        self, sender: Sender, job: JobId, segment: int, proof: bytes, instances: Sequence[int], proof_cid: bytes
    ) -> Receipt:
        """Prove a segment that was drawn for it."""
        return self._write(sender, "prove", job, segment, proof, list(instances), proof_cid, gas=PROOF_GAS)

    def announce(self, sender: Sender, job: JobId, segment: int, announcement: bytes) -> Receipt:
        """Bind the sender to a proof; see :func:`offchain.protocol.hashing.announcement`."""
        return self._write(sender, "announce", job, segment, announcement)

    def challenge(
        self, sender: Sender, job: JobId, segment: int, proof: bytes, instances: Sequence[int], proof_cid: bytes
    ) -> Receipt:
        """Decide a contested segment, or overturn a settled one, with a proof that was announced."""
        return self._write(sender, "challenge", job, segment, proof, list(instances), proof_cid, gas=PROOF_GAS)

    def finalise(self, sender: Sender, job: JobId) -> Receipt:
        """Pay everybody, by credit, and close the job."""
        return self._write(sender, "finalise", job)

    def expire(self, sender: Sender, job: JobId) -> Receipt:
        """Close a job that ran out of time."""
        return self._write(sender, "expire", job)

    def claim(self, sender: Sender) -> Receipt:
        """Pay the sender what is credited to it."""
        return self._write(sender, "claim")

    def address_of(self, part: str) -> Address:
        """The contract that this one uses as its ``registry``, ``verifier`` or ``staking``, fixed when deployed."""
        return Address(self._read(part))

    def credit_of(self, account: str) -> int:
        """What the account may claim, in wei."""
        return int(self._read("creditOf", account))

    def load_of(self, model_id: ModelId) -> tuple[int, int]:
        """How many jobs of a model run, and how many entries its queue has (cancelled ones included)."""
        running, queued = self._read("loadOf", model_id)
        return int(running), int(queued)

    def max_running_jobs(self) -> int:
        """How many jobs of one model may run at a time."""
        return int(self._read("maxRunningJobs"))

    def minimum_fee(self) -> int:
        """The least fee of a job, in wei."""
        return int(self._read("minimumFeeWei"))

    def minimum_window_seconds(self) -> int:
        """The least length of each of a job's windows."""
        return int(self._read("minimumWindowSeconds"))

    def phase_of(self, job: JobId, block: BlockIdentifier = LATEST) -> Phase:
        """The phase that holds at the block, time included."""
        return Phase(self._read("phaseOf", job, block=block))

    def job_of(self, job: JobId, block: BlockIdentifier = LATEST) -> Job:
        """The job as stored.

        Raises:
            TransactionRefused: ``UnknownJob``.
        """
        raw = self._read("jobOf", job, block=block)
        segments, attempts = raw[3], raw[18]
        return Job(
            id=job,
            requester=Address(raw[0]),
            phase=Phase(raw[1]),
            segment=raw[2],
            segments=segments,
            proofs_due=raw[4],
            redraws=raw[5],
            frozen_block=raw[6],
            seed_block=raw[7],
            deadline=raw[8],
            ends_at=raw[9],
            closed_at=raw[10],
            model_id=ModelId(bytes(raw[11])),
            input_link=Link(bytes(raw[12])),
            input_cid=bytes(raw[13]),
            result_key=bytes(raw[14]),
            route_cid=bytes(raw[15]),
            fee_wei=raw[16],
            policy=Policy(*raw[17]),
            attempts=tuple((attempts >> (16 * segment)) & 0xFFFF for segment in range(segments)),
            evidence_root=bytes(raw[19]),
        )

    def round_of(self, job: JobId, segment: int, block: BlockIdentifier = LATEST) -> Round:
        """The attempt at a segment that counts; empty until its committee is drawn."""
        return _round(self._read("roundOf", job, segment, block=block))

    def round_at(self, job: JobId, segment: int, attempt: int, block: BlockIdentifier = LATEST) -> Round:
        """Any attempt at a segment; attempts are numbered from zero."""
        return _round(self._read("roundAt", job, segment, attempt, block=block))


def _round(raw: Any) -> Round:
    return Round(
        total_weight=raw[0],
        settled_link=Link(bytes(raw[1])),
        settled_weight=raw[2],
        prover=Address(raw[3]),
        proved_by=Address(raw[4]),
        overturned=raw[5],
        proof_hash=bytes(raw[6]),
        proof_cid=bytes(raw[7]),
        members=tuple(
            Member(
                operator=Address(member[0]),
                announced_block=member[1],
                sealed_for=member[2],
                weight=member[3],
                commitment=bytes(member[4]),
                link=Link(bytes(member[5])),
                activation_cid=bytes(member[6]),
                announcement=bytes(member[7]),
            )
            for member in raw[8]
        ),
    )

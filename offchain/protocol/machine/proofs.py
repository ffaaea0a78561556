"""Proofs: what a drawn prover owes, and what a challenger may (``JobProofs.sol``)."""

from __future__ import annotations

from dataclasses import dataclass

from offchain.protocol import hashing
from offchain.protocol.machine.errors import Refused
from offchain.protocol.machine.events import (
    OperatorPenalised,
    ProofAnnounced,
    SegmentOverturned,
    SegmentProved,
    SegmentReopened,
    SegmentSettled,
)
from offchain.protocol.machine.ledger import entry_point
from offchain.protocol.machine.limits import BPS
from offchain.protocol.machine.record import require_value
from offchain.protocol.machine.rounds import Rounds
from offchain.protocol.types import (
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    Hold,
    Job,
    JobId,
    Link,
    Member,
    Phase,
    Reason,
    is_output,
)

OPEN = tuple(phase for phase in Phase if phase.is_open)
"""Any phase from the first draw on, until the job is decided."""


@dataclass(frozen=True)
class Proof:
    """A proof as the machine sees one.

    Args:
        hash: see :func:`offchain.protocol.hashing.proof_hash`.
        cid: where it lies.
        proves: the links that it opens and closes with; None if it does not verify.
    """

    hash: bytes
    cid: bytes
    proves: tuple[Link, Link] | None


class Proofs(Rounds):
    """A proof is final: it settles what no quorum could, and overturns what one did."""

    @entry_point
    def announce(self, job_id: JobId, segment: int, announcement: bytes) -> None:
        """A member binds itself to a proof before anybody can see it; the last announcement counts."""
        self.require_phase(job_id, *OPEN)
        require_value(announcement, "announcement")
        self.require_member(job_id, segment)
        announced = {"announcement": announcement, "announced_block": self.block.number}
        self.change_member(job_id, segment, self.caller, **announced)
        self.emit(ProofAnnounced(job_id, segment, self.caller, announcement))

    @entry_point
    def prove(self, job_id: JobId, segment: int, proof: Proof) -> None:
        """Prove a segment that was drawn for it: the drawn prover alone at first, then whoever voted with it."""
        job = self.require_phase(job_id, Phase.PROVING)
        round_ = self.round_of(job_id, segment)
        if segment >= job.segments or round_.prover == ZERO_ADDRESS:
            raise Refused("ProofNotDue", job_id, segment)
        if round_.proof_hash != ZERO_HASH:
            raise Refused("AlreadyProved", job_id, segment)
        self._require_prover(job, segment)
        self._accept(job_id, segment, round_.settled_link, proof)
        job = self.change(job_id, proofs_due=job.proofs_due - 1)
        if job.proofs_due == 0:
            self.await_proofs(job_id)
        if self.caller != round_.prover:
            drawn = next(member for member in round_.members if member.operator == round_.prover)
            self.penalise_miss(job_id, segment, drawn, Reason.MISSED_PROOF)
        self._penalise_contradicted(job_id, segment, ZERO_ADDRESS)

    @entry_point
    def challenge(self, job_id: JobId, segment: int, proof: Proof) -> None:
        """Decide a contested segment, or overturn a settled one, with a proof of what the caller revealed."""
        job = self.require_phase(job_id, *OPEN)
        if segment > job.segment:
            raise Refused("NothingToChallenge", job_id, segment, self.caller)
        round_ = self.round_of(job_id, segment)
        if round_.proof_hash != ZERO_HASH:
            raise Refused("AlreadyProved", job_id, segment)
        before, link = round_.settled_link, self.require_member(job_id, segment).link
        is_decided = before != ZERO_HASH or (segment == job.segment and job.phase is Phase.CONTESTED)
        if not is_output(link) or link == before or not is_decided:
            raise Refused("NothingToChallenge", job_id, segment, self.caller)
        self._accept(job_id, segment, link, proof)
        weight = _weight_for(round_.members, link)
        self.change_round(job_id, segment, settled_link=link, settled_weight=weight)
        if before == ZERO_HASH:
            self.emit(SegmentSettled(job_id, segment, link, weight, round_.total_weight))
            self.advance(job_id)
        else:
            self.change_round(job_id, segment, overturned=True)
            against = _weight_for(round_.members, before)
            self.emit(SegmentOverturned(job_id, segment, self.caller, before, link, against))
            self._resume(job_id, segment)
        self._penalise_contradicted(job_id, segment, self.caller)

    # --- who may ------------------------------------------------------------------------------------------------------

    def _require_prover(self, job: Job, segment: int) -> None:
        round_ = self.round_of(job.id, segment)
        if self.caller == round_.prover:
            return
        if self.require_member(job.id, segment).link != round_.settled_link or not self._is_open_to_all(job):
            raise Refused("NotProver", job.id, segment, self.caller)

    def _is_open_to_all(self, job: Job) -> bool:
        """Whether the drawn provers' own time is over."""
        return self.block.timestamp + job.policy.prove_seconds >= job.deadline

    def _require_announced(self, job_id: JobId, segment: int, proof: Proof) -> None:
        """What a copier can lift from a pending transaction is worth nothing to it: it did not announce it."""
        job = self.state.jobs[job_id]
        if self.caller == self.round_of(job_id, segment).prover and not self._is_open_to_all(job):
            return  # it alone may prove now; later it could copy like anybody else
        member = self.require_member(job_id, segment)
        where = (self.domain.chain_id, self.domain.jobs, job_id, segment, self.attempt_of(job_id, segment))
        expected = hashing.announcement(*where, self.caller, proof.hash)
        if member.announcement != expected:
            raise Refused("ProofNotAnnounced", job_id, segment, self.caller, expected)
        if member.announced_block >= self.block.number:
            raise Refused("AnnouncementTooFresh", member.announced_block, self.block.number)

    # --- what a proof does --------------------------------------------------------------------------------------------

    def _accept(self, job_id: JobId, segment: int, closing: Link, proof: Proof) -> None:
        """The interlock: a valid proof counts only between the links that its neighbours stand by."""
        job = self.state.jobs[job_id]
        require_value(proof.cid, "proofCid")
        self._require_announced(job_id, segment, proof)
        opening = self._opening_of(job_id, segment)
        if proof.proves is None:
            raise Refused("ProofRejected", job.model_id, segment)
        link_in, link_out = proof.proves
        if link_in != opening:
            raise Refused("OpeningLinkMismatch", segment, opening, link_in)
        if link_out != closing:
            raise Refused("ClosingLinkMismatch", segment, closing, link_out)
        self.change_round(job_id, segment, proof_hash=proof.hash, proof_cid=proof.cid, proved_by=self.caller)
        self.emit(SegmentProved(job_id, segment, self.caller, opening, closing, proof.hash, proof.cid))

    def _opening_of(self, job_id: JobId, segment: int) -> Link:
        """The link that a proof of the segment has to open with."""
        return self.state.jobs[job_id].input_link if segment == 0 else self.round_of(job_id, segment - 1).settled_link

    def _penalise_contradicted(self, job_id: JobId, segment: int, challenger: Address) -> None:
        """Hold stake of each member whose output is not the proved one; votes are no outputs."""
        round_, model_id = self.round_of(job_id, segment), self.state.jobs[job_id].model_id
        where = (job_id, model_id, segment, self.attempt_of(job_id, segment))
        for member in round_.members:
            if not is_output(member.link) or member.link == round_.settled_link:
                continue
            amount = member.weight * self.parameters.contradiction_penalty_bps // BPS
            links = (self._opening_of(job_id, segment), member.link)
            taken = self.hold(Hold(*where, member.operator, *links, challenger, amount))
            self.emit(OperatorPenalised(job_id, segment, member.operator, Reason.CONTRADICTED_PROOF, taken))

    def _resume(self, job_id: JobId, segment: int) -> None:
        """Go on behind an overturned segment: all that followed on it is to be done again."""
        job = self.state.jobs[job_id]
        reached = job.segment
        if segment + 1 == job.segments:
            # While the seed that is to sample is awaited it stays, or it could be thrown away for another.
            if job.phase in (Phase.PROVING, Phase.CHALLENGEABLE):
                self.change(job_id, proofs_due=self._count_due(job_id))
                self.await_proofs(job_id)
            return
        self.change(job_id, segment=segment, proofs_due=0, seed_block=0)
        for later in range(segment + 1, min(job.segments, reached + 2)):
            if self.round_of(job_id, later).members:
                self._reopen(job_id, later, later == segment + 1)
        self.advance(job_id)

    def _count_due(self, job_id: JobId) -> int:
        rounds = (self.round_of(job_id, segment) for segment in range(self.state.jobs[job_id].segments))
        return sum(round_.prover != ZERO_ADDRESS and round_.proof_hash == ZERO_HASH for round_ in rounds)

    def _reopen(self, job_id: JobId, segment: int, same_committee: bool) -> None:
        """Begin a segment again, right behind the overturned one with the committee that it had.

        That did nothing wrong, and the proved output is sealed to it already, unless it was drawn after that.
        """
        before = self.round_of(job_id, segment)
        attempt = self.open_attempt(job_id, segment)
        self.emit(SegmentReopened(job_id, segment, attempt, same_committee))
        if not same_committee:
            return
        members = tuple(
            Member(member.operator, member.weight, ZERO_HASH, Link(ZERO_HASH), ZERO_HASH) for member in before.members
        )
        self.change_round(job_id, segment, members=members, total_weight=before.total_weight)
        for sender in self.round_of(job_id, segment - 1).members:
            if sender.sealed_for + 1 == attempt:
                self.change_member(job_id, segment - 1, sender.operator, sealed_for=attempt)


def _weight_for(members: tuple[Member, ...], link: Link) -> int:
    return sum(member.weight for member in members if member.link == link)

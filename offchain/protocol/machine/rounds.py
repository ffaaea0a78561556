"""Rounds: draw, commit, reveal, tally (``JobRounds.sol``)."""

from __future__ import annotations

from collections.abc import Callable

from offchain.protocol import hashing, sortition, tally
from offchain.protocol.machine.errors import Refused
from offchain.protocol.machine.events import (
    Committed,
    CommitteeDrawn,
    InputProvided,
    ProverDrawn,
    Resealed,
    Revealed,
    SegmentContested,
    SegmentReopened,
    SegmentSettled,
)
from offchain.protocol.machine.ledger import entry_point
from offchain.protocol.machine.limits import BLOCKHASH_BLOCKS, MAX_REDRAWS
from offchain.protocol.machine.record import Record, is_last, require_value
from offchain.protocol.types import (
    BAD_INPUT,
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    JobId,
    Link,
    Member,
    Phase,
    Reason,
    is_output,
)


class Rounds(Record):
    """A segment is worked on: a committee is drawn, commits, reveals, and is counted."""

    @entry_point
    def draw(self, job_id: JobId, blockhash: Callable[[int], bytes]) -> None:
        """Make the draw that is due: the first committee, the next one, another one, or the proofs.

        Args:
            blockhash: the hash of a block that is over.
        """
        job = self.require_phase(job_id, Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING)
        if job.phase is Phase.COMMITTING:  # it lapsed, and left no seed block: this call fixes one
            return self._close_committing(job_id)
        if self.block.number <= job.seed_block:
            raise Refused("SeedNotReady", job.seed_block, self.block.number)
        if self.block.number - job.seed_block > BLOCKHASH_BLOCKS:
            return self.set_seed_block(job_id)
        entropy = blockhash(job.seed_block)
        self.change(job_id, seed_block=0)
        if job.phase is Phase.SAMPLING:
            self._draw_proofs(job_id, entropy)
        elif self.round_of(job_id, job.segment).members:
            if self._draw_committee(job_id, job.segment + 1, entropy):
                self.enter(job_id, Phase.REVEALING, job.policy.reveal_seconds)
        elif self._draw_committee(job_id, job.segment, entropy):
            if job.segment == 0:
                self.enter(job_id, Phase.AWAITING_INPUT, job.policy.input_seconds)
            else:  # those of the segment before seal their output once more, in the time that a requester has
                self.enter(job_id, Phase.COMMITTING, job.policy.input_seconds + job.policy.commit_seconds)

    @entry_point
    def provide_input(self, job_id: JobId, input_cid: bytes) -> None:
        """The requester says where the input lies, sealed to the first committee."""
        job = self.require_phase(job_id, Phase.AWAITING_INPUT)
        if self.caller != job.requester:
            raise Refused("NotRequester", job_id, self.caller)
        require_value(input_cid, "inputCid")
        self.change(job_id, input_cid=input_cid)
        self.emit(InputProvided(job_id, input_cid))
        self.enter(job_id, Phase.COMMITTING, job.policy.commit_seconds)

    @entry_point
    def reseal(self, job_id: JobId, activation_cid: bytes) -> None:
        """A supporter of the segment before seals its output to a committee that was drawn anew; once for each."""
        job = self.require_phase(job_id, Phase.COMMITTING)
        require_value(activation_cid, "activationCid")
        if job.segment == 0:
            raise Refused("NotSupporter", job_id, 0, self.caller)
        before, attempt = job.segment - 1, self.attempt_of(job_id, job.segment)
        member = self.require_member(job_id, before)
        if member.link != self.round_of(job_id, before).settled_link:
            raise Refused("NotSupporter", job_id, before, self.caller)
        if member.sealed_for >= attempt:
            raise Refused("AlreadySealed", job_id, before, self.caller)
        self.change_member(job_id, before, self.caller, sealed_for=attempt, activation_cid=activation_cid)
        self.emit(Resealed(job_id, before, self.caller, activation_cid))

    @entry_point
    def commit(self, job_id: JobId, segment: int, attempt: int, commitment: bytes) -> None:
        """A member commits to its output or vote, in the round that it means; the last one closes the phase."""
        job = self.require_phase(job_id, Phase.COMMITTING)
        require_value(commitment, "commitment")
        under_way = (job.segment, self.attempt_of(job_id, job.segment))
        if (segment, attempt) != under_way:
            raise Refused("WrongRound", job_id, *under_way)
        if self.require_member(job_id, job.segment).commitment != ZERO_HASH:
            raise Refused("AlreadyCommitted", job_id, job.segment, self.caller)
        self.change_member(job_id, job.segment, self.caller, commitment=commitment)
        self.emit(Committed(job_id, job.segment, self.caller, attempt, commitment))
        if any(member.commitment == ZERO_HASH for member in self.round_of(job_id, job.segment).members):
            return
        if is_last(job):
            self.enter(job_id, Phase.REVEALING, job.policy.reveal_seconds)
        else:
            self._await_committee(job_id)

    @entry_point
    def reveal(self, job_id: JobId, link: Link, salt: bytes, activation_cid: bytes) -> None:
        """A member opens its commitment; when nobody who committed is left to do so, the segment is settled."""
        job = self.require_phase(job_id, Phase.REVEALING)
        require_value(link, "link")
        if is_output(link):
            require_value(activation_cid, "activationCid")
        elif activation_cid != ZERO_HASH:
            raise Refused("ValueNotZero", "activationCid")
        segment, attempt = job.segment, self.attempt_of(job_id, job.segment)
        member = self.require_member(job_id, segment)
        if member.link != ZERO_HASH:
            raise Refused("AlreadyRevealed", job_id, segment, self.caller)
        where = (self.domain.chain_id, self.domain.jobs, job_id, segment, attempt)
        actual = hashing.commitment(*where, self.caller, link, salt)
        if member.commitment != actual:
            raise Refused("CommitmentMismatch", member.commitment, actual)
        if job.phase is Phase.COMMITTING:  # it lapsed, and nothing had to be drawn: from here on it is stored
            self.change(job_id, phase=Phase.REVEALING, deadline=job.deadline + job.policy.reveal_seconds)
        sealed_for = member.sealed_for if is_last(job) else self.attempt_of(job_id, segment + 1)
        opened = {"link": link, "activation_cid": activation_cid, "sealed_for": sealed_for}
        self.change_member(job_id, segment, self.caller, **opened)
        self.emit(Revealed(job_id, segment, self.caller, attempt, link, activation_cid))
        members = self.round_of(job_id, segment).members
        if all(other.commitment == ZERO_HASH or other.link != ZERO_HASH for other in members):
            self._settle(job_id)

    @entry_point
    def settle(self, job_id: JobId) -> None:
        """Settle a segment whose time to reveal is over."""
        self.require_phase(job_id, Phase.SETTLING)
        self._settle(job_id)

    # --- draws --------------------------------------------------------------------------------------------------------

    def _close_committing(self, job_id: JobId) -> None:
        """The time to commit is over: another committee is drawn if no quorum can come of this one, else the next."""
        job = self.state.jobs[job_id]
        if self._is_short(job_id):
            self._penalise_silent(job_id)
            if job.redraws == MAX_REDRAWS:
                return self.fail(job_id, Reason.TOO_FEW_ACTED, job.fee_wei)
            self.change(job_id, redraws=job.redraws + 1)
            attempt = self.open_attempt(job_id, job.segment)
            self.emit(SegmentReopened(job_id, job.segment, attempt, False))
        self._await_committee(job_id)

    def _await_committee(self, job_id: JobId) -> None:
        self.enter(job_id, Phase.DRAWING, self.state.jobs[job_id].policy.reveal_seconds)
        self.set_seed_block(job_id)

    def _draw_committee(self, job_id: JobId, segment: int, entropy: bytes) -> bool:
        """Draw a committee, or end the job where none can be had: weights are frozen. Says whether it goes on."""
        job, attempt = self.state.jobs[job_id], self.attempt_of(job_id, segment)
        seed = hashing.committee_seed(self.domain.chain_id, self.domain.jobs, job_id, segment, entropy)
        earlier = self._earlier_members(job_id, segment)
        size = job.policy.committee_size
        drawn = self.draw_operators(job.model_id, job.frozen_block, seed, size, earlier)
        if len(drawn) < size:
            self.fail(job_id, Reason.TOO_FEW_ACTED, job.fee_wei)
            return False
        members = tuple(Member(operator, weight, ZERO_HASH, Link(ZERO_HASH), ZERO_HASH) for operator, weight in drawn)
        operators, weights = zip(*drawn, strict=True)
        self.change_round(job_id, segment, members=members, total_weight=sum(weights))
        self.emit(CommitteeDrawn(job_id, segment, attempt, seed, operators, weights))
        return True

    def _earlier_members(self, job_id: JobId, segment: int) -> set[Address]:
        """The members of all earlier segments, and of the attempt before at this one."""
        rounds = [self.round_of(job_id, index) for index in range(segment)]
        rounds.append(self.round_at(job_id, segment, self.attempt_of(job_id, segment) - 1))
        return {member.operator for round_ in rounds for member in round_.members}

    def _draw_proofs(self, job_id: JobId, entropy: bytes) -> None:
        """Draw the segments to be proved, and who is to prove each; what was sampled once stays sampled."""
        job, due = self.state.jobs[job_id], 0
        for segment in range(job.segments):
            round_ = self.round_of(job_id, segment)
            if round_.proof_hash != ZERO_HASH:
                continue
            if round_.prover == ZERO_ADDRESS:
                sample = hashing.sample_seed(self.domain.chain_id, self.domain.jobs, job_id, segment, entropy)
                if not sortition.is_sampled(sample, job.policy.proof_permille):
                    continue
                prover = sortition.draw_prover(round_.members, round_.settled_link, sample)
                round_ = self.change_round(job_id, segment, prover=prover)
            due += 1
            deadline = self.block.timestamp + job.policy.prove_seconds
            self.emit(ProverDrawn(job_id, segment, round_.prover, deadline))
        self.change(job_id, proofs_due=due)
        self.await_proofs(job_id)

    # --- tally --------------------------------------------------------------------------------------------------------

    def _settle(self, job_id: JobId) -> None:
        """Count the round: an output with a quorum settles it, anything else leaves it to a proof.

        Where nobody shows an output, nobody shows that it could be done: then silence costs nothing. The votes end the
        job; but behind a segment that can still be overturned, not before there was time for that.
        """
        job = self.state.jobs[job_id]
        segment, round_ = job.segment, self.round_of(job_id, job.segment)
        if tally.has_output(round_.members):
            self._penalise_silent(job_id)
        elif segment == 0:
            return self.fail_without_output(job_id)
        link, weight = tally.leading(round_.members)
        if tally.is_quorum(weight, round_.total_weight, job.policy.quorum_bps) and is_output(link):
            self.change_round(job_id, segment, settled_link=link, settled_weight=weight)
            self.emit(SegmentSettled(job_id, segment, link, weight, round_.total_weight))
            self.advance(job_id)
        else:
            self.enter(job_id, Phase.CONTESTED, 2 * job.policy.prove_seconds)
            self.emit(SegmentContested(job_id, segment, self.state.jobs[job_id].deadline))

    def _penalise_silent(self, job_id: JobId) -> None:
        """A miss is a fault only where another member showed that it could be done."""
        segment = self.state.jobs[job_id].segment
        members = self.round_of(job_id, segment).members
        has_committed, has_revealed = tally.participation(members)
        for member in members:
            if member.commitment == ZERO_HASH:
                if has_committed:
                    self.penalise_miss(job_id, segment, member, Reason.MISSED_COMMIT)
            elif member.link == ZERO_HASH and has_revealed:
                self.penalise_miss(job_id, segment, member, Reason.MISSED_REVEAL)

    def advance(self, job_id: JobId) -> None:
        """Go on behind a segment that has just been settled."""
        job = self.state.jobs[job_id]
        if not is_last(job):
            job = self.change(job_id, segment=job.segment + 1)
            if self.round_of(job_id, job.segment).members:
                # Where rounds were done again, a supporter may have to seal its output again first.
                sealing = 0 if self.attempt_of(job_id, job.segment) == 0 else job.policy.input_seconds
                self.enter(job_id, Phase.COMMITTING, sealing + job.policy.commit_seconds)
            else:  # it was to be drawn anew when the segment before it was overturned
                self._await_committee(job_id)
        elif job.policy.proof_permille:
            self.enter(job_id, Phase.SAMPLING, job.policy.input_seconds)
            self.set_seed_block(job_id)
        else:
            self.await_proofs(job_id)

    def await_proofs(self, job_id: JobId) -> None:
        """Go on with the proofs that are due, or behind the last one."""
        job = self.state.jobs[job_id]
        if job.proofs_due:
            self.enter(job_id, Phase.PROVING, 2 * job.policy.prove_seconds)
        elif all(self.round_of(job_id, segment).proof_hash != ZERO_HASH for segment in range(job.segments)):
            self.enter(job_id, Phase.FINALISABLE)
        else:
            self.enter(job_id, Phase.CHALLENGEABLE, job.policy.challenge_seconds)

    def fail_without_output(self, job_id: JobId) -> None:
        """End a job whose round under way has no output that counts: by the vote that has a quorum, if there is one."""
        job = self.state.jobs[job_id]
        round_ = self.round_of(job_id, job.segment)
        vote, weight = tally.leading(round_.members)
        if is_output(vote) or not tally.is_quorum(weight, round_.total_weight, job.policy.quorum_bps):
            return self.fail(job_id, Reason.NO_QUORUM, job.fee_wei)
        if vote == BAD_INPUT:
            return self.charge_requester(job_id, Reason.BAD_INPUT, vote, weight)
        if job.segment == 0:
            return self.charge_requester(job_id, Reason.INPUT_UNAVAILABLE, vote, weight)
        for member in self.round_of(job_id, job.segment - 1).supporters:
            self.penalise_miss(job_id, job.segment - 1, member, Reason.WITHHELD_ACTIVATION)
        self.fail(job_id, Reason.INPUT_UNAVAILABLE, job.fee_wei)

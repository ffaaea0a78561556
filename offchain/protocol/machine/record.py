"""The record of all jobs: phases, rounds, penalties, and how a job closes (``JobRecord.sol``)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from offchain.protocol import tally
from offchain.protocol.machine.errors import Refused
from offchain.protocol.machine.events import JobFailed, OperatorPenalised, SeedBlockSet
from offchain.protocol.machine.holds import Holds
from offchain.protocol.machine.limits import BPS
from offchain.protocol.machine.state import NO_ROUND
from offchain.protocol.types import ZERO_HASH, Address, Job, JobId, Label, Link, Member, Phase, Reason, Round


class Record(Holds):
    """What every part of a job's life reads and writes."""

    def phase_of(self, job_id: JobId, timestamp: int) -> Phase:
        """The phase that holds at a time: what time alone brings about is never stored.

        A deadline is the first second that is too late. Settling, and drawing behind a commit phase that lapsed, have
        one more time to reveal; everything else lapses into Expired, and everything at once when the job's end comes.
        """
        job = self.state.jobs.get(job_id)
        if job is None:
            return Phase.NONE
        if not job.deadline or timestamp < min(job.deadline, job.ends_at):
            return job.phase
        if job.phase is Phase.CHALLENGEABLE:  # what is decided before the job's end stands
            return Phase.FINALISABLE if job.deadline <= job.ends_at else Phase.EXPIRED
        if timestamp >= job.ends_at:
            return Phase.EXPIRED
        late = (timestamp - job.deadline) // job.policy.reveal_seconds
        lapsed: tuple[Phase, ...] = ()
        if job.phase is Phase.REVEALING:
            lapsed = (Phase.SETTLING,)
        elif job.phase is Phase.COMMITTING:
            # Behind the last segment is no committee to draw, unless its own has to be replaced.
            is_complete = is_last(job) and not self._is_short(job_id)
            lapsed = (Phase.REVEALING, Phase.SETTLING) if is_complete else (Phase.DRAWING,)
        return lapsed[late] if late < len(lapsed) else Phase.EXPIRED

    def job_of(self, job_id: JobId) -> Job:
        """The job as stored."""
        if job_id not in self.state.jobs:
            raise Refused("UnknownJob", job_id)
        return self.state.jobs[job_id]

    def round_at(self, job_id: JobId, segment: int, attempt: int) -> Round:
        """Any attempt at a segment; empty until its committee is drawn."""
        return self.state.rounds.get((job_id, segment, attempt), NO_ROUND)

    def round_of(self, job_id: JobId, segment: int) -> Round:
        """The attempt at a segment that counts."""
        return self.round_at(job_id, segment, self.attempt_of(job_id, segment))

    def attempt_of(self, job_id: JobId, segment: int) -> int:
        """The number of the attempt at a segment that counts."""
        job = self.state.jobs[job_id]
        return job.attempts[segment] if segment < job.segments else 0

    def label_of(self, job_id: JobId, segment: int) -> Label:
        """What stands behind a segment's output."""
        return self.round_of(job_id, segment).label

    # --- phases -------------------------------------------------------------------------------------------------------

    def require_phase(self, job_id: JobId, *expected: Phase) -> Job:
        """The job, if one of these phases holds in the block under way."""
        phase = self.phase_of(job_id, self.block.timestamp)
        if phase not in expected:
            raise Refused("WrongPhase", job_id, phase)
        return self.state.jobs[job_id]

    def enter(self, job_id: JobId, phase: Phase, window_seconds: int = 0) -> None:
        """Store a phase, that lapses after so many seconds, or never."""
        deadline = self.block.timestamp + window_seconds if window_seconds else 0
        self.change(job_id, phase=phase, deadline=deadline)

    def set_seed_block(self, job_id: JobId) -> None:
        """Have the hash of this block, which nobody knows yet, seed the next draw."""
        job = self.change(job_id, seed_block=self.block.number)
        self.emit(SeedBlockSet(job_id, job.segment, job.seed_block))

    def _is_short(self, job_id: JobId) -> bool:
        """Whether too few committed for any output to have a quorum."""
        job = self.state.jobs[job_id]
        return tally.is_short(self.round_of(job_id, job.segment).members, job.policy.quorum_bps)

    # --- rounds -------------------------------------------------------------------------------------------------------

    def change(self, job_id: JobId, **changes: Any) -> Job:
        """Store new values for fields of a job."""
        job = self.state.jobs[job_id] = replace(self.state.jobs[job_id], **changes)
        return job

    def change_round(self, job_id: JobId, segment: int, **changes: Any) -> Round:
        """Store new values for fields of the attempt at a segment that counts."""
        changed = replace(self.round_of(job_id, segment), **changes)
        self.state.rounds[job_id, segment, self.attempt_of(job_id, segment)] = changed
        return changed

    def change_member(self, job_id: JobId, segment: int, operator: Address, **changes: Any) -> None:
        """Store new values for fields of one member's part."""
        members = tuple(
            replace(member, **changes) if member.operator == operator else member
            for member in self.round_of(job_id, segment).members
        )
        self.change_round(job_id, segment, members=members)

    def require_member(self, job_id: JobId, segment: int) -> Member:
        """The caller's part in a segment."""
        member = self.round_of(job_id, segment).member(self.caller)
        if member is None:
            raise Refused("NotMember", job_id, segment, self.caller)
        return member

    def open_attempt(self, job_id: JobId, segment: int) -> int:
        """Begin another attempt at a segment, without a committee; return its number."""
        attempts = list(self.state.jobs[job_id].attempts)
        attempts[segment] += 1
        self.change(job_id, attempts=tuple(attempts))
        return attempts[segment]

    # --- penalties and closing ----------------------------------------------------------------------------------------

    def penalise_miss(self, job_id: JobId, segment: int, member: Member, reason: Reason) -> None:
        """Burn a share of the stake that a member was drawn with: it was silent, or withheld its output."""
        amount = member.weight * self.parameters.miss_penalty_bps // BPS
        taken = self.slash(member.operator, amount, self.state.jobs[job_id].model_id)
        self.emit(OperatorPenalised(job_id, segment, member.operator, reason, taken))

    def pay_by_weight(self, round_: Round, link: Link, weight: int, amount: int) -> int:
        """Share an amount among the members that revealed ``link``, rounding down; return what was paid."""
        paid = 0
        for member in round_.members:
            if member.link == link:
                part = amount * member.weight // weight
                self.credit(member.operator, part)
                paid += part
        return paid

    def fail(self, job_id: JobId, reason: Reason, refund: int) -> None:
        """Close a job without a result."""
        self.close(job_id, Phase.FAILED)
        self.credit(self.state.jobs[job_id].requester, refund)
        self.emit(JobFailed(job_id, reason, refund))

    def charge_requester(self, job_id: JobId, reason: Reason, link: Link, weight: int) -> None:
        """End a job by its requester's fault: a segment's part of a share of the fee goes to those who did their part.

        They are the members of the round under way that revealed ``link``, whose stakes add up to ``weight``. Those of
        earlier segments get nothing: what they settled on may be why this input is bad.
        """
        job = self.state.jobs[job_id]
        share = job.fee_wei * self.parameters.fault_share_bps // BPS // job.segments
        paid = self.pay_by_weight(self.round_of(job_id, job.segment), link, weight, share)
        self.fail(job_id, reason, job.fee_wei - paid)

    def close(self, job_id: JobId, phase: Phase) -> None:
        """Let nothing more happen to a job, and another one of its model start."""
        job = self.state.jobs[job_id]
        if job.phase is not Phase.QUEUED:
            self.state.running[job.model_id] -= 1
        self.enter(job_id, phase)
        self.change(job_id, closed_at=self.block.timestamp)


def require_value(value: bytes, name: str) -> None:
    """Refuse zero, which stands for what is not there."""
    if value == ZERO_HASH:
        raise Refused("ValueIsZero", name)


def is_last(job: Job) -> bool:
    """Whether the segment under way is the model's last."""
    return job.segment + 1 == job.segments

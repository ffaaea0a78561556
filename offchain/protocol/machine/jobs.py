"""How jobs end (``Jobs.sol``), and the machine as a whole."""

from __future__ import annotations

from offchain.protocol import hashing
from offchain.protocol.machine.events import JobFinalised
from offchain.protocol.machine.ledger import entry_point
from offchain.protocol.machine.limits import BPS
from offchain.protocol.machine.proofs import Proofs
from offchain.protocol.machine.queue import Queue
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, JobId, Link, Phase, Reason, Round


class Machine(Queue, Proofs):
    """The whole protocol; see :mod:`offchain.protocol.machine`."""

    @entry_point
    def finalise(self, job_id: JobId) -> None:
        """Pay everybody, by credit, and close the job over one root of all its evidence."""
        job = self.require_phase(job_id, Phase.FINALISABLE)
        self.close(job_id, Phase.FINALISED)
        rounds = [self.round_of(job_id, segment) for segment in range(job.segments)]
        paid = 0
        for round_ in rounds:
            paid += self._pay(round_, job.fee_wei // job.segments)
            for member in round_.supporters:
                self.commend(member.operator, job.model_id)
        self.credit(job.requester, job.fee_wei - paid)  # what rounding left over
        root = hashing.evidence_root(self.domain.chain_id, self.domain.jobs, job, rounds)
        self.change(job_id, evidence_root=root)
        self.emit(JobFinalised(job_id, rounds[-1].settled_link, root))

    @entry_point
    def expire(self, job_id: JobId) -> None:
        """Close a job that ran out of time. Where its own end came first, nobody had the time that the policy gave."""
        job = self.require_phase(job_id, Phase.EXPIRED)
        had_time = job.deadline <= job.ends_at
        if job.phase is Phase.AWAITING_INPUT and had_time:
            total = self.round_of(job_id, 0).total_weight
            return self.charge_requester(job_id, Reason.INPUT_UNAVAILABLE, Link(ZERO_HASH), total)
        if job.phase is Phase.CONTESTED and had_time:
            return self.fail_without_output(job_id)
        if job.phase is Phase.PROVING and had_time:
            for segment in range(job.segments):
                round_ = self.round_of(job_id, segment)
                for member in round_.members:
                    if member.operator == round_.prover and round_.proof_hash == ZERO_HASH:
                        self.penalise_miss(job_id, segment, member, Reason.MISSED_PROOF)
        self.fail(job_id, Reason.TIMED_OUT, job.fee_wei)

    def _pay(self, round_: Round, fee: int) -> int:
        """Pay a segment: its share to the prover, if there is one, and the rest by stake to those it stands upon."""
        for_prover = fee * self.parameters.prover_share_bps // BPS if round_.proved_by != ZERO_ADDRESS else 0
        self.credit(round_.proved_by, for_prover)
        for_voters = self.pay_by_weight(round_, round_.settled_link, round_.settled_weight, fee - for_prover)
        return for_prover + for_voters

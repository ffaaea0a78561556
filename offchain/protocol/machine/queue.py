"""How jobs come in, wait and start (``JobQueue.sol``, ``FeeQueue.sol``)."""

from __future__ import annotations

from dataclasses import dataclass

from offchain.protocol import hashing
from offchain.protocol.machine.errors import Refused
from offchain.protocol.machine.events import JobQueued, JobRequested, JobStarted
from offchain.protocol.machine.ledger import entry_point
from offchain.protocol.machine.limits import JOB_SECONDS, MAX_SKIPS, validate_policy
from offchain.protocol.machine.record import Record, require_value
from offchain.protocol.types import ZERO_HASH, Address, Job, JobId, Link, ModelId, Phase, Policy, Reason

HIGHEST_BUCKET = 255


@dataclass(frozen=True)
class Request:
    """What a requester asks for; see ``Request`` in ``IJobs.sol``."""

    model_id: ModelId
    input_link: Link
    result_key: bytes
    salt: bytes
    policy: Policy
    route_cid: bytes = ZERO_HASH


def bucket_of(fee_wei: int) -> int:
    """The bucket of a fee: four to the octave, so that fees in one differ by a quarter at most.

    Octaves count from 1 wei; the quarter is what the two bits behind the leading one say.
    """
    octave = max(fee_wei.bit_length() - 1, 0)
    quarter = (fee_wei << 2 >> octave) & 3
    return min(4 * octave + quarter, HIGHEST_BUCKET)


class Queue(Record):
    """At most so many jobs of a model run at a time; of those that wait, the one that offered most is next."""

    def load_of(self, model_id: ModelId) -> tuple[int, int]:
        """How many jobs of a model run, and how many entries its queue has, cancelled ones included."""
        return self.state.running.get(model_id, 0), len(self.state.queues.get(model_id, ()))

    def job_id_of(self, requester: Address, salt: bytes) -> JobId:
        """The id of the job that this account opens with this salt."""
        return hashing.job_id(self.domain.chain_id, self.domain.jobs, requester, salt)

    @entry_point
    def request(self, what: Request, value_wei: int) -> None:
        """Escrow the fee and open a job: it starts at once if one more may run and none waits."""
        model = self.state.models.get(what.model_id)
        if model is None:
            raise Refused("UnknownModel", what.model_id)
        if value_wei < self.parameters.minimum_fee_wei:
            raise Refused("FeeTooLow", self.parameters.minimum_fee_wei, value_wei)
        require_value(what.input_link, "inputLink")
        require_value(what.result_key, "resultKey")
        validate_policy(what.policy, model.segments, self.parameters.minimum_window_seconds)
        job_id = self.job_id_of(self.caller, what.salt)
        if job_id in self.state.jobs:
            raise Refused("JobAlreadyRequested", job_id)
        self.state.jobs[job_id] = self._new_job(job_id, what, value_wei, model.segments)
        terms = (what.input_link, what.result_key, what.route_cid, value_wei, what.policy)
        self.emit(JobRequested(job_id, self.caller, what.model_id, *terms))
        running, queued = self.load_of(what.model_id)
        if running < self.parameters.max_running_jobs and queued == 0:
            self._start(job_id)
        else:
            bucket = bucket_of(value_wei)
            self.state.queues[what.model_id] = (*self.state.queues.get(what.model_id, ()), (bucket, job_id))
            self.emit(JobQueued(job_id, what.model_id, bucket))

    @entry_point
    def admit(self, model_id: ModelId) -> None:
        """Start the job that has waited longest of those in the highest bucket; cancelled ones are passed over."""
        running, queued = self.load_of(model_id)
        if running >= self.parameters.max_running_jobs or queued == 0:
            raise Refused("NothingToAdmit", model_id, running, queued)
        for _ in range(min(MAX_SKIPS, queued)):
            queue = self.state.queues[model_id]
            entry = max(queue, key=lambda waiting: waiting[0])  # the first of equals
            self.state.queues[model_id] = tuple(other for other in queue if other is not entry)
            if self.state.jobs[entry[1]].phase is Phase.QUEUED:
                return self._start(entry[1])

    @entry_point
    def cancel(self, job_id: JobId) -> None:
        """The requester takes a queued job back; its entry stays until it is passed over."""
        job = self.require_phase(job_id, Phase.QUEUED)
        if self.caller != job.requester:
            raise Refused("NotRequester", job_id, self.caller)
        self.fail(job_id, Reason.CANCELLED, job.fee_wei)

    def _new_job(self, job_id: JobId, what: Request, fee_wei: int, segments: int) -> Job:
        return Job(
            id=job_id,
            requester=self.caller,
            phase=Phase.QUEUED,
            segment=0,
            segments=segments,
            proofs_due=0,
            redraws=0,
            frozen_block=0,
            seed_block=0,
            deadline=0,
            ends_at=0,
            closed_at=0,
            model_id=what.model_id,
            input_link=what.input_link,
            input_cid=ZERO_HASH,
            result_key=what.result_key,
            route_cid=what.route_cid,
            fee_wei=fee_wei,
            policy=what.policy,
            attempts=(0,) * segments,
            evidence_root=ZERO_HASH,
        )

    def _start(self, job_id: JobId) -> None:
        job = self.state.jobs[job_id]
        self.state.running[job.model_id] = self.load_of(job.model_id)[0] + 1
        # Membership is frozen before any seed of this job exists.
        frozen_block, ends_at = self.block.number - 1, self.block.timestamp + JOB_SECONDS
        self.change(job_id, frozen_block=frozen_block, ends_at=ends_at)
        self.emit(JobStarted(job_id, frozen_block, ends_at))
        self.enter(job_id, Phase.REQUESTED, job.policy.input_seconds)
        self.set_seed_block(job_id)

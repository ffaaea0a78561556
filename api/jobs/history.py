"""A job's events, read from no further back than where they can begin."""

from __future__ import annotations

from offchain.chain.contracts import Contracts
from offchain.chain.events import Event, job_events
from offchain.protocol.types import Job


def whole_history(contracts: Contracts, job: Job, head: int) -> tuple[Event, ...]:
    """Read all events of a job, in order.

    A job that started at once was requested in the block after its frozen one. One that had waited was requested
    earlier, nobody knows when: only then are all blocks since the deployment read.
    """
    started = job.frozen_block
    events = job_events(contracts, job.id, started, head) if started else ()
    if any(event.name == "JobRequested" for event in events):
        return events
    last = started - 1 if started else head
    return (*job_events(contracts, job.id, contracts.deployment.block, last), *events)

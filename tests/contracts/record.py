"""What the contracts' tests read back: events of a job, and what a stake or a fee comes to."""

from __future__ import annotations

from typing import Any

from offchain.chain.events import Event, job_events, read_events
from offchain.chain.staking import hold_of
from offchain.protocol.types import Hold, Reason
from tests.contracts.stage import STAKES, Play, Stage
from tests.local_chain import InstantSender

MISS_BPS = 100
CONTRADICTION_BPS = 5000
FAULT_SHARE_BPS = 2000
CHALLENGER_SHARE_BPS = 3000
REQUESTER_SHARE_BPS = 1000


def events_of(play: Play, name: str | None = None) -> list[Event]:
    """The job's events, of one name or all."""
    stage = play.stage
    head = stage.contracts.connection.block_number()
    events = job_events(stage.contracts, play.job, stage.contracts.deployment.block, head)
    return [event for event in events if name in (None, event.name)]


def newest_events(stage: Stage) -> list[tuple[str, dict[str, Any]]]:
    """Names and arguments of what the newest block emitted."""
    head = stage.contracts.connection.block_number()
    return [(event.name, dict(event.arguments)) for event in read_events(stage.contracts, head, head)]


def penalties(play: Play) -> list[tuple[int, str, Reason, int]]:
    """Segment, operator, reason and amount of every penalty."""
    return [
        (
            event.arguments["segment"],
            event.arguments["operator"],
            Reason(event.arguments["reason"]),
            event.arguments["amount"],
        )
        for event in events_of(play, "OperatorPenalised")
    ]


def holds_of(play: Play) -> list[Hold]:
    """What proofs took of those that revealed something else, in the order in which it was taken."""
    return [hold_of(event.arguments) for event in events_of(play, "SlashHeld")]


def release_all(play: Play) -> list[Hold]:
    """Let the time for appeals go by, and have everything that was taken shared and burnt."""
    holds = holds_of(play)
    play.stage.chain.move_to(max(hold.release_at for hold in holds))
    for hold in holds:
        play.stage.contracts.staking.release(play.stage.owner, hold)
    return holds


def compensations(stage: Stage) -> dict[str, int]:
    """What ``Staking`` credits everybody on the stage with, but for those with nothing."""
    everybody = (stage.requester, stage.owner, *stage.workers)
    owed = {sender.address: stage.contracts.staking.compensation_of(sender.address) for sender in everybody}
    return {address: amount for address, amount in owed.items() if amount}


def failure(play: Play) -> tuple[Reason, int]:
    """Why the job failed, and what was refunded."""
    (failed,) = events_of(play, "JobFailed")
    return Reason(failed.arguments["reason"]), failed.arguments["refund"]


def share(amount_wei: int, bps: int) -> int:
    """A share of an amount, rounded down."""
    return amount_wei * bps // 10_000


def stake_of(stage: Stage, worker: InstantSender) -> int:
    """What a worker of the stage bonded at first."""
    return STAKES[stage.workers.index(worker)]


def stakes_of(stage: Stage) -> int:
    """What all workers together still have bonded."""
    return sum(stage.contracts.staking.active_of(worker.address) for worker in stage.workers)

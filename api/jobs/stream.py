"""A job's events as a stream that outlives outages of the chain and can be taken up again anywhere."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import anyio
import anyio.to_thread

from api.jobs.service import JobService
from offchain.chain.events import Event
from offchain.errors import InvalidInputError, RecoverableError
from offchain.protocol.types import JobId

_log = logging.getLogger(__name__)

TERMINAL_EVENTS = frozenset({"JobFinalised", "JobFailed"})
OVERLAP_BLOCKS = 10
"""How many blocks are read again, in case they were replaced."""
_AMOUNTS = frozenset({"feeWei", "weights", "stakeFor", "stakeTotal", "stakeAgainst", "amount", "refund"})


class Place(NamedTuple):
    """Where an event stands on the chain."""

    block: int
    log_index: int


@dataclass(frozen=True)
class StreamedEvent:
    """An event as it is sent: its arguments as JSON, bytes in hex, amounts of wei as decimal strings."""

    id: str
    name: str
    content: dict[str, Any]


def parse_place(text: str) -> Place:
    """Read a ``Last-Event-ID``.

    Raises:
        InvalidInputError: it is not one of ours.
    """
    found = re.fullmatch(r"(\d{1,15})-(\d{1,9})", text, re.ASCII)
    if found is None:
        raise InvalidInputError("Last-Event-ID", f"{text[:40]!r} is no event's id", "send the id of the last event")
    return Place(int(found[1]), int(found[2]))


async def follow(
    service: JobService, job: JobId, after: Place | None, stopping: threading.Event, poll_seconds: float
) -> AsyncIterator[StreamedEvent]:
    """Yield a job's events in order until its last one.

    Args:
        after: the last event that the reader has; all of them if None.
        stopping: ends the stream early.
        poll_seconds: how often the chain is asked.
    """
    sent: set[tuple[bytes, int]] = set()
    first_block: int | None = None
    while not stopping.is_set():
        try:
            events, head, is_final = await anyio.to_thread.run_sync(service.events, job, first_block)
        except RecoverableError as error:
            _log.info("events of job %s: %s", job.hex()[:8], error)
            await anyio.sleep(poll_seconds)
            continue
        for event in events:
            key = (event.block_hash, event.log_index)
            if key in sent:
                continue
            sent.add(key)
            if after is None or Place(event.block_number, event.log_index) > after:
                yield describe(event)
            if event.name in TERMINAL_EVENTS:
                return
        if is_final:
            return
        if head is not None:
            first_block = max(first_block or 0, head - OVERLAP_BLOCKS)
        await anyio.sleep(poll_seconds)


def describe(event: Event) -> StreamedEvent:
    """Turn an event into what is sent."""
    content = {name: _plain(value, name in _AMOUNTS) for name, value in event.arguments.items()}
    content |= {"block": event.block_number, "transaction": event.transaction_hash}
    return StreamedEvent(f"{event.block_number}-{event.log_index}", event.name, content)


def _plain(value: Any, is_amount: bool) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return "0x" + bytes(value).hex()
    if isinstance(value, Mapping):
        return {name: _plain(part, name in _AMOUNTS) for name, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_plain(part, is_amount) for part in value]
    return str(value) if is_amount else value

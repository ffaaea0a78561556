"""What is told of a job: a view of the chain in the API's words."""

from __future__ import annotations

from typing import Any, Literal

from api.jobs.schemas import JobAccepted, MemberAnswer, ResultAnswer, SegmentAnswer
from offchain.protocol.duties import JobView
from offchain.protocol.field import dequantise
from offchain.protocol.manifest import SegmentRecord
from offchain.protocol.types import (
    BAD_INPUT,
    UNAVAILABLE,
    ZERO_ADDRESS,
    ZERO_HASH,
    JobId,
    Link,
    Member,
    Phase,
    Round,
    is_output,
)
from offchain.storage.cid import digest_to_cid

_VOTES: dict[Link, Literal["unavailable", "bad_input"]] = {UNAVAILABLE: "unavailable", BAD_INPUT: "bad_input"}


def describe_accepted(job: JobId) -> JobAccepted:
    """Say where to follow a job."""
    url = f"/v1/jobs/{hexadecimal(job)}"
    return JobAccepted(job=hexadecimal(job), status_url=url, events_url=f"{url}/events", receipt_url=f"{url}/receipt")


def describe_result(
    elements: tuple[int, ...], segment: SegmentRecord, batch: int = 1, given: int | None = None
) -> ResultAnswer:
    """Show the output of a model's last segment.

    Args:
        batch: how many inputs the model takes.
        given: how many of them were sent; all if None.
    """
    count = batch if given is None else given
    size = len(elements) // batch
    values = dequantise(elements, segment.output_scale)[: count * size]
    rows = [values[at : at + size] for at in range(0, len(values), size)]
    shape = (count, *segment.output_shape[1:]) if batch > 1 else segment.output_shape
    tops = [max(range(size), key=row.__getitem__) for row in rows]
    return ResultAnswer(
        values=nest(list(values), shape),
        elements=[str(element) for element in elements],
        shape=list(shape),
        top=tops[0],
        tops=tops,
        inputs=count,
        padding=batch - count,
    )


def describe_segment(view: JobView, index: int) -> SegmentAnswer:
    """Say how one segment stands."""
    round_ = view.rounds[index]
    opening = view.job.input_link if index == 0 else view.rounds[index - 1].settled_link
    is_settled, is_proved = round_.settled_link != ZERO_HASH, round_.proof_hash != ZERO_HASH
    return SegmentAnswer(
        index=index,
        attempt=view.job.attempts[index],
        label=round_.label.name.lower(),
        is_contested=view.phase is Phase.CONTESTED and index == view.job.segment,
        overturned=round_.overturned,
        link_in=None if opening == ZERO_HASH else hexadecimal(opening),
        link_out=hexadecimal(round_.settled_link) if is_settled else None,
        stake_for=str(round_.settled_weight),
        stake_total=str(round_.total_weight),
        committee=[_member(member, round_) for member in round_.members],
        prover=None if round_.prover == ZERO_ADDRESS else round_.prover,
        proved_by=round_.proved_by if is_proved else None,
        proof_cid=digest_to_cid(round_.proof_cid) if is_proved else None,
    )


def _member(member: Member, round_: Round) -> MemberAnswer:
    is_known = round_.settled_link != ZERO_HASH and is_output(member.link)
    return MemberAnswer(
        operator=member.operator,
        stake_wei=str(member.weight),
        has_committed=member.commitment != ZERO_HASH,
        has_revealed=member.link != ZERO_HASH,
        agrees=member.link == round_.settled_link if is_known else None,
        vote=_VOTES.get(member.link),
    )


def nest(values: list[float], shape: tuple[int, ...]) -> Any:
    """Arrange row-major values as nested lists."""
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]  # type: ignore[misc]
    return values


def hexadecimal(content: bytes) -> str:
    """Write an id or a hash."""
    return "0x" + content.hex()

"""Moves of those from whom a proof took stake, for ``test_jobs_stateful.py``, and a course that needs them."""

from __future__ import annotations

from dataclasses import replace

from offchain.protocol import links
from offchain.protocol.types import Hold, Link
from tests.contracts.players import OUTPUTS, Players, boundary
from tests.contracts.stage import PROOF_BYTES


def any_hold(play: Players, index: int) -> Hold | None:
    """One of those that are neither given back nor released."""
    holds = tuple(play.sides.machine.state.holds)
    return holds[index % len(holds)] if holds else None


def appeal(play: Players, hold: Hold, who: int, opening: int | None = None, closing: int | None = None) -> bool:
    """Show a proof of what was held against, or one with another opening or closing output."""
    record = play.record(hold.job_id)
    assert record is not None
    before = [play.link(hold.job_id, hold.segment - 1, output) for output in range(3)] if hold.segment else []
    opens = boundary(hold.segment, before.index(hold.opening) if opening is None and before else opening or 0)
    if closing is None:
        closing = [play.link(hold.job_id, hold.segment, output) for output in range(3)].index(hold.link)
    content: tuple[bytes, tuple[int, ...]]
    if hold.segment + 1 == record.segments:
        content, closes = (opens.ljust(PROOF_BYTES, b"\1"), OUTPUTS[closing]), links.link_of_values(OUTPUTS[closing])
    else:
        point = boundary(hold.segment + 1, closing)
        content, closes = ((opens + point).ljust(PROOF_BYTES, b"\1"), ()), links.link_of_commitment(point)
    proves = (Link(links.link_of_commitment(opens)), Link(closes)) if hold.model_id == play.model(0) else None
    return play.sides.move(play.who(who), "appeal", hold, *content, machine=(hold, proves))


def release(play: Players, hold: Hold, who: int = 0) -> bool:
    """Share and burn."""
    return play.sides.move(play.who(who), "release", hold)


def claim(play: Players, who: int) -> bool:
    """Claim of what was shared."""
    return play.sides.move(play.who(who), "claim_compensation")


def appealed(play: Players) -> None:
    """Two are contradicted, each time: one proves its own output as well, the other one's is shared and burnt."""
    for job, permille in enumerate((0, 1000)):
        play.request(0, 10**15 + 7, 3, permille)
        votes = {0: "ttt", 1: "wvt"}.get(job, "twv")
        while not play.phase(play.job(job)).is_terminal and not play.sides.machine.state.holds:
            record = play.record(play.job(job))
            assert record is not None
            play.go_on(job, votes if record.segment == 1 or job else "wwt", 0)
        _both_ways(play)
    for who in range(len(play.sides.accounts)):
        claim(play, who)
        claim(play, who)


def _both_ways(play: Players) -> None:
    first, *_, last = tuple(play.sides.machine.state.holds)
    for wrong in (0, 1, 2):
        appeal(play, replace(first, amount=first.amount + 1), 0)
        if play.link(first.job_id, first.segment, wrong) != first.link:
            appeal(play, first, 0, closing=wrong)
    appeal(play, first, 0, opening=2)
    release(play, first)
    play.stake("start_unbonding", play.index(first.operator), 1)
    appeal(play, first, 0)
    appeal(play, first, 0)
    release(play, first)
    play.sides.move_to(last.release_at - 2)
    release(play, last)
    play.sides.move_to(last.release_at - 1)
    appeal(play, last, 0)
    release(play, last)
    release(play, last)

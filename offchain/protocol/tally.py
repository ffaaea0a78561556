"""Counting a round by stake."""

from __future__ import annotations

from collections.abc import Sequence

from offchain.protocol.types import ZERO_HASH, Link, Member, is_output


def leading(members: Sequence[Member]) -> tuple[Link, int]:
    """The link with the most stake behind it, votes included, the first of equals, and that stake; zero if none."""
    best, best_weight = Link(ZERO_HASH), 0
    for member in members:
        if member.link == ZERO_HASH:
            continue
        weight = sum(other.weight for other in members if other.link == member.link)
        if weight > best_weight:
            best, best_weight = member.link, weight
    return best, best_weight


def is_quorum(weight: int, total: int, quorum_bps: int) -> bool:
    """Whether ``weight`` is at least ``quorum_bps`` (basis points) of ``total``."""
    return weight * 10_000 >= total * quorum_bps


def is_short(members: Sequence[Member], quorum_bps: int) -> bool:
    """Whether too few committed for any output to have a quorum."""
    committed = sum(member.weight for member in members if member.commitment != ZERO_HASH)
    return not is_quorum(committed, sum(member.weight for member in members), quorum_bps)


def has_output(members: Sequence[Member]) -> bool:
    """Whether anybody revealed an output, rather than a vote."""
    return any(is_output(member.link) for member in members)


def participation(members: Sequence[Member]) -> tuple[bool, bool]:
    """Whether anybody committed, and whether anybody revealed.

    A miss is a fault only where another member showed that it could be done.
    """
    has_committed = any(member.commitment != ZERO_HASH for member in members)
    return has_committed, any(member.link != ZERO_HASH for member in members)

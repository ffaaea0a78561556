"""Counting a round by stake."""

from __future__ import annotations

from collections.abc import Sequence

from offchain.protocol.types import ZERO_HASH, Link, Member


def leading(members: Sequence[Member]) -> tuple[Link, int]:
    """The output with the most stake behind it, the first of equals, and that stake; zero if nobody revealed."""
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


def participation(members: Sequence[Member]) -> tuple[bool, bool]:
    """Whether anybody committed, and whether anybody revealed.

    A miss is a fault only where another member showed that it could be done.
    """
    has_committed = any(member.commitment != ZERO_HASH for member in members)
    return has_committed, any(member.link != ZERO_HASH for member in members)

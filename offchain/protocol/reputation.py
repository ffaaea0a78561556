"""Reputation: how many segments in a row an operator supported without a fault, halved by a miss, ended by a lie.

This departs from the rule of the paper's companion documents, R' = R · 0.8^misses · 1.01^hits within [0.1, 10] (known
from summaries; the constants are our reading of them). Its logarithm grows whenever (1 − e) ln 1.01 > e ln 1.25, that
is up to an error rate e of 4.27 %: an operator that is wrong once in 25 segments ends at the cap, beside those that
never are. Here a fault costs in proportion to what was earned, and a success adds one step whatever was earned, so that
every rate of errors has a level of its own: about (1 − e) / e for contradictions and 2 (1 − e) / e for misses.
"""

from __future__ import annotations

from enum import Enum

MAX_REPUTATION = 10_000


class Conduct(Enum):
    """What an operator did in a segment that was settled."""

    SUPPORTED = "supported"
    MISSED = "missed"
    CONTRADICTED = "contradicted"


def after_success(reputation: int) -> int:
    """The reputation of an operator that supported a settled segment: one more, up to ``MAX_REPUTATION``."""
    return min(reputation + 1, MAX_REPUTATION)


def after_miss(reputation: int) -> int:
    """The reputation of an operator that was silent where another was not: half, rounded down."""
    return reputation // 2


def after_contradiction(reputation: int) -> int:
    """The reputation of an operator whose output a proof contradicted, or that signed two: none."""
    del reputation  # however high: nothing is left of it
    return 0


_RULES = {
    Conduct.SUPPORTED: after_success,
    Conduct.MISSED: after_miss,
    Conduct.CONTRADICTED: after_contradiction,
}


def after(reputation: int, conduct: Conduct) -> int:
    """The reputation after one segment."""
    return _RULES[conduct](reputation)

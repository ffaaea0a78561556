"""Proofs begun before anybody has asked for them: while the segments behind are still executed and voted on.

The chain draws the provers only once every segment is settled. Each member of a committee may be drawn to prove what
it executed, so it can begin at once: if it is drawn, its proof is there earlier, by as much as the rounds behind it
take. What is wasted if it is not is bounded three ways: so many at a time, only where the chance is good enough, and
each output once at most. A proof that is due never waits for one of these, which fill the prover's idle time.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Set
from dataclasses import dataclass

from offchain.protocol.duties import JobView
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Phase, is_output
from offchain.worker.asked import Asked, Round, round_of
from offchain.worker.memory import Work

_log = logging.getLogger(__name__)

Recall = Callable[[int], Work | None]
"""What was computed for a segment of the job at hand."""


@dataclass(frozen=True)
class EarlyBounds:
    """How much work may be wasted.

    Args:
        at_once: how many early proofs may wait or be made; none is begun if 0.
        least_permille: the least chance of being drawn at which one is begun.
    """

    at_once: int = 0
    least_permille: int = 0


class EarlyProofs:
    """The early proofs of one worker.

    Args:
        ask: asks for the proof of a segment of the job at hand, without a deadline.
    """

    def __init__(self, bounds: EarlyBounds, ask: Callable[[JobView, Work], Asked]) -> None:
        self._bounds = bounds
        self._ask = ask
        self._asked: dict[Round, Asked] = {}
        self._begun: set[Round] = set()

    def attend(self, view: JobView, me: Address, due: Set[Round], recall: Recall) -> None:
        """Begin what may come to be owed, and end what cannot any more.

        Args:
            due: proofs that there is a duty to make; they are taken, not begun.
        """
        found = {round_of(view, segment): (chance, segment) for segment, chance in chances(view, me).items()}
        for key in [key for key in self._asked if key[0] == view.job.id and key not in found and key not in due]:
            self._asked.pop(key).cancel()
        if view.phase.is_terminal:
            self._begun = {key for key in self._begun if key[0] != view.job.id}
        for key, (chance, segment) in sorted(found.items(), key=lambda it: (-it[1][0], it[1][1])):
            under_way = sum(not asked.future.done() for asked in self._asked.values())
            if under_way >= self._bounds.at_once or 1000 * chance < self._bounds.least_permille:
                return
            if key in self._begun or key in due:
                continue
            work = recall(segment)
            if work is not None and is_output(work.link):
                self._begun.add(key)
                self._asked[key] = self._ask(view, work)
                _log.info(
                    "job %s: segment %d is proved early; the chance that this is owed is %.0f %%",
                    view.job.id.hex()[:8],
                    segment,
                    100 * chance,
                )

    def take(self, key: Round) -> Asked | None:
        """Hand over what there is now a duty to make; None if it was not begun, or nothing will come of it."""
        asked = self._asked.pop(key, None)
        return None if asked is None or asked.is_lost else asked

    def stop(self) -> None:
        """End them all."""
        for asked in self._asked.values():
            asked.cancel()


def chances(view: JobView, account: Address) -> dict[int, float]:
    """How likely each proof that an account could already make is to be asked of it, by segment.

    A prover is drawn among those who support a settled output, by weight.
    """
    if not Phase.COMMITTING <= view.phase <= Phase.SAMPLING:
        return {}
    found = {}
    for segment, round_ in enumerate(view.rounds[: view.job.segment + 1]):
        member = round_.member(account)
        if member is None or member.commitment == ZERO_HASH or round_.proof_hash != ZERO_HASH:
            continue
        if round_.prover != ZERO_ADDRESS:
            # Drawn before a later segment was overturned, and it stays so.
            chance = float(round_.prover == account)
        elif round_.settled_link == ZERO_HASH:
            chance = view.job.policy.proof_permille / 1000 * member.weight / max(1, round_.total_weight)
        else:
            supporters = round_.supporters
            weight = sum(other.weight for other in supporters if other.operator == account)
            chance = view.job.policy.proof_permille / 1000 * weight / max(1, sum(it.weight for it in supporters))
        if chance > 0:
            found[segment] = chance
    return found

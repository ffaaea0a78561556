"""What an account has to do next for a job: a pure function of the chain's record and of what the account remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Job, Phase, Round


class Action(Enum):
    """Something that an account can do for a job."""

    DRAW = "draw"
    PROVIDE_INPUT = "provide input"
    COMMIT = "commit"
    REVEAL = "reveal"
    SETTLE = "settle"
    PROVE = "prove"
    FINALISE = "finalise"
    EXPIRE = "expire"


@dataclass(frozen=True)
class Duty:
    """One action that is due.

    Args:
        action: what to do.
        segment: for which segment.
        rank: how many others are to be given the chance first; only housekeeping that any account may do has a rank
            above zero. Whoever waits longer than its turn sends a transaction only if nobody else did.
    """

    action: Action
    segment: int
    rank: int = 0


@dataclass(frozen=True)
class JobView:
    """A job as one block shows it: everything read at the same height.

    Args:
        job: as stored.
        phase: as it holds at that block's time.
        rounds: of all segments; empty ones have no members.
        block_number, timestamp: of the block.
    """

    job: Job
    phase: Phase
    rounds: tuple[Round, ...]
    block_number: int
    timestamp: int

    @property
    def round(self) -> Round:
        """The round of the segment under way."""
        return self.rounds[self.job.segment]


_HOUSEKEEPING = {
    Phase.REQUESTED: Action.DRAW,
    Phase.DRAWING: Action.DRAW,
    Phase.SAMPLING: Action.DRAW,
    Phase.SETTLING: Action.SETTLE,
    Phase.FINALISABLE: Action.FINALISE,
    Phase.EXPIRED: Action.EXPIRE,
}


def duties_of(view: JobView, account: Address) -> tuple[Duty, ...]:
    """List what an account has to do now, most urgent first.

    Housekeeping (draws, settling, finalising, expiring) falls to everybody who has a part in the job, in turn: the
    requester first, then the members of the round under way in the order in which they were drawn.

    Args:
        view: the job at one block.
        account: the requester, a member of some committee, or a stranger (who has no duties).
    """
    action = _HOUSEKEEPING.get(view.phase)
    if action is not None:
        return _housekeeping(view, account, action)
    segment = view.job.segment
    if view.phase is Phase.AWAITING_INPUT and account == view.job.requester:
        return (Duty(Action.PROVIDE_INPUT, 0),)
    if view.phase is Phase.PROVING:
        return _proofs(view, account)
    member = view.round.member(account)
    if member is None:
        return ()
    if view.phase is Phase.COMMITTING and member.commitment == ZERO_HASH:
        return (Duty(Action.COMMIT, segment),)
    if view.phase is Phase.REVEALING and member.commitment != ZERO_HASH and member.link == ZERO_HASH:
        return (Duty(Action.REVEAL, segment),)
    return ()


def _housekeeping(view: JobView, account: Address, action: Action) -> tuple[Duty, ...]:
    if action is Action.DRAW and view.job.seed_block > 0 and view.block_number < view.job.seed_block:
        return ()
    turns: Sequence[Address] = (view.job.requester, *(member.operator for member in view.round.members))
    if account not in turns:
        return ()
    return (Duty(action, view.job.segment, turns.index(account)),)


def _proofs(view: JobView, account: Address) -> tuple[Duty, ...]:
    """Proofs that the account was drawn for; once the drawn provers' time is over, also those of its own outputs."""
    is_open = view.timestamp + view.job.policy.prove_seconds >= view.job.deadline
    due = []
    for segment, round_ in enumerate(view.rounds):
        if round_.prover == ZERO_ADDRESS or round_.proof_hash != ZERO_HASH:
            continue
        supporters = [member.operator for member in round_.supporters]
        if account == round_.prover:
            due.append(Duty(Action.PROVE, segment))
        elif is_open and account in supporters:
            due.append(Duty(Action.PROVE, segment, 1 + supporters.index(account)))
    return tuple(due)

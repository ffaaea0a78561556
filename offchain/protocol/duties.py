"""What an account has to do next for a job: a pure function of the chain's record and of what the account remembers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from eth_hash.auto import keccak

from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Job, Link, Member, Phase, Round, is_output


class Action(Enum):
    """Something that an account can do for a job."""

    ADMIT = "admit"
    DRAW = "draw"
    PROVIDE_INPUT = "provide input"
    RESEAL = "reseal"
    COMMIT = "commit"
    REVEAL = "reveal"
    SETTLE = "settle"
    PROVE = "prove"
    CHALLENGE = "challenge"
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

    def opening(self, segment: int) -> Link:
        """The link that a segment opens with: the job's input, or what the segment before it settled on."""
        return self.job.input_link if segment == 0 else self.rounds[segment - 1].settled_link


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
    requester first, then the members of the round under way in the order in which they were drawn, then those of
    earlier segments, the latest first: they are owed their pay. A queued job's requester tries to have its model's
    next job admitted, whosever that is. Drawing the first committee falls to strangers too, or a place among the
    running jobs of a model could be held for nothing.

    Args:
        view: the job at one block.
        account: the requester, a member of some committee, or a stranger that serves the model.
    """
    return (*_challenges(view, account), *_due_of_phase(view, account))


def _due_of_phase(view: JobView, account: Address) -> tuple[Duty, ...]:
    action = _HOUSEKEEPING.get(view.phase)
    if action is not None:
        return _housekeeping(view, account, action)
    if account == view.job.requester:
        if view.phase is Phase.QUEUED:
            return (Duty(Action.ADMIT, 0),)
        if view.phase is Phase.AWAITING_INPUT:
            return (Duty(Action.PROVIDE_INPUT, 0),)
    if view.phase is Phase.PROVING:
        return _proofs(view, account)
    if view.phase is Phase.COMMITTING:
        return (*_commit(view, account), *_reseal(view, account))
    if view.phase is Phase.REVEALING:
        member = view.round.member(account)
        if member is not None and member.commitment != ZERO_HASH and member.link == ZERO_HASH:
            return (Duty(Action.REVEAL, view.job.segment),)
    return ()


def _commit(view: JobView, account: Address) -> tuple[Duty, ...]:
    member = view.round.member(account)
    if member is None or member.commitment != ZERO_HASH:
        return ()
    return (Duty(Action.COMMIT, view.job.segment),)


def _reseal(view: JobView, account: Address) -> tuple[Duty, ...]:
    """A committee that was drawn anew needs the output of the segment before it, sealed to its members."""
    segment = view.job.segment
    if segment == 0:
        return ()
    waiting = [member.operator for member in view.rounds[segment - 1].supporters if _is_behind(view, member)]
    return (Duty(Action.RESEAL, segment - 1),) if account in waiting else ()


def _is_behind(view: JobView, member: Member) -> bool:
    return member.sealed_for < view.job.attempts[view.job.segment]


def _challenges(view: JobView, account: Address) -> tuple[Duty, ...]:
    """Segments whose output is another than the account revealed, and which a proof can still decide."""
    if not view.phase.is_open:
        return ()
    due = []
    for segment, round_ in enumerate(view.rounds[: view.job.segment + 1]):
        member = round_.member(account)
        if member is None or not is_output(member.link) or round_.proof_hash != ZERO_HASH:
            continue
        is_contested = segment == view.job.segment and view.phase is Phase.CONTESTED
        if member.link == round_.settled_link or (round_.settled_link == ZERO_HASH and not is_contested):
            continue
        rivals = [other.operator for other in round_.members if is_output(other.link)]
        dissenters = [operator for operator in rivals if operator not in {m.operator for m in round_.supporters}]
        due.append(Duty(Action.CHALLENGE, segment, dissenters.index(account)))
    return tuple(due)


def _housekeeping(view: JobView, account: Address, action: Action) -> tuple[Duty, ...]:
    if action is Action.DRAW and view.job.seed_block > 0 and view.block_number < view.job.seed_block:
        return ()
    rounds = (view.round, *reversed(view.rounds[: view.job.segment]))
    members = [member.operator for round_ in rounds for member in round_.members]
    turns: Sequence[Address] = tuple(dict.fromkeys((view.job.requester, *members)))
    if account in turns:
        return (Duty(action, view.job.segment, turns.index(account)),)
    if members or action not in (Action.DRAW, Action.EXPIRE):
        return ()
    # Nobody knows the others' turns before there is a committee: a few strangers at a time.
    return (Duty(action, view.job.segment, 1 + _turn_of_stranger(view.job.id, account)),)


def _turn_of_stranger(job: bytes, account: Address) -> int:
    """A number from 0 to 7 that differs from job to job and from account to account."""
    return keccak(job + account.encode())[0] % 8


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

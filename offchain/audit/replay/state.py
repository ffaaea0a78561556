"""A job's events, read one after the other, and what the job is after each of them.

The rules are those of ``JobRecord.sol``, written once more. What an event says is compared with what has to come of all
before it. The replay then goes on with what had to come, so that one fault does not look like many.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from offchain.audit.record import ChainRecord, Standings, read_number
from offchain.audit.replay.findings import Findings, Topic
from offchain.chain.events import Event
from offchain.protocol import tally
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Hold, Job, Link, Member, Phase, Policy, Round

BPS = 10_000
JOB_SECONDS = 7 * 86_400
"""``Policies.JOB_SECONDS``."""
SEED_LIFETIME_BLOCKS = 256
"""How long a contract can see a block's hash. Source: Solidity documentation, ``blockhash``."""
NO_ROUND = Round(0, Link(ZERO_HASH), 0, ZERO_ADDRESS, ZERO_ADDRESS, False, ZERO_HASH, ZERO_HASH, ())


class ReplayState:
    """The job as its events make it.

    Args:
        record: what is replayed; of the stored job only what no event says is taken over.
        standings: of the model's operators; None if they could not be had.
    """

    def __init__(self, record: ChainRecord, standings: Standings | None) -> None:
        self.record = record
        self.standings = standings
        self.findings = Findings()
        self.events: Sequence[Event] = record.events
        self.place = 0
        self.current: Event | None = None
        self.job: Job = replace(
            record.job,
            phase=Phase.NONE,
            segment=0,
            proofs_due=0,
            redraws=0,
            frozen_block=0,
            seed_block=0,
            deadline=0,
            ends_at=0,
            closed_at=0,
            input_cid=ZERO_HASH,
            attempts=(0,) * record.job.segments,
        )
        self.rounds: dict[tuple[int, int], Round] = {}
        self.proved: dict[tuple[int, int], tuple[Event, bytes]] = {}
        """Per proved attempt the event, and what the proof had to open with."""
        self.contested: set[tuple[int, int]] = set()
        self.equivocations: set[tuple[int, int, str]] = set()
        self.holds: dict[tuple[int, int, str], Hold] = {}
        """By segment, attempt and operator: stake that is neither given back nor released."""
        self.weights = () if standings is None else standings.weights_at(record.job.frozen_block)
        self._parameters: dict[str, int] = {}

    # --- the job ------------------------------------------------------------------------------------------------------

    @property
    def policy(self) -> Policy:
        """What the requester asked for."""
        return self.job.policy

    @property
    def is_last(self) -> bool:
        """Whether the last segment is under way."""
        return self.job.segment + 1 == self.job.segments

    def parameter(self, name: str) -> int:
        """One of the numbers that were fixed when the contracts were deployed."""
        if name not in self._parameters:
            self._parameters[name] = read_number(self.record, name)
        return self._parameters[name]

    def round(self, segment: int, attempt: int | None = None) -> Round:
        """An attempt at a segment: the one that counts, unless another is given."""
        return self.rounds.get((segment, self.job.attempts[segment] if attempt is None else attempt), NO_ROUND)

    def keep(self, segment: int, **changes: Any) -> Round:
        """Change the round that counts, and return it."""
        kept = replace(self.round(segment), **changes)
        self.rounds[segment, self.job.attempts[segment]] = kept
        return kept

    def keep_member(self, segment: int, operator: str, **changes: Any) -> None:
        """Change a member's part in the round that counts."""
        members = self.round(segment).members
        self.keep(segment, members=tuple(replace(it, **changes) if it.operator == operator else it for it in members))

    def topic(self, name: str, segment: int) -> Topic:
        """A topic of the attempt that counts."""
        known = 0 <= segment < self.job.segments
        return Topic(name, segment, self.job.attempts[segment] if known else 0)

    def enter(self, phase: Phase, window: int) -> None:
        """Begin a phase; it never lapses if the window is zero."""
        self.job = replace(self.job, phase=phase, deadline=self.now() + window if window else 0)

    def next_attempt(self, segment: int) -> int:
        """Begin another attempt at a segment, and return its number."""
        attempts = list(self.job.attempts)
        attempts[segment] += 1
        self.job = replace(self.job, attempts=tuple(attempts))
        return attempts[segment]

    # --- time ---------------------------------------------------------------------------------------------------------

    def now(self) -> int:
        """The time of the block of the event under way."""
        return 0 if self.current is None else self.record.time_of(self.current.block_number)

    def phase(self) -> Phase:
        """The phase that holds now: time may have moved on from the stored one (``JobRecord._phase``)."""
        job, stored, now = self.job, self.job.phase, self.now()
        if job.deadline == 0 or (now < job.deadline and now < job.ends_at):
            return stored
        if stored is Phase.CHALLENGEABLE:
            return Phase.FINALISABLE if job.deadline <= job.ends_at else Phase.EXPIRED
        if now >= job.ends_at:
            return Phase.EXPIRED
        late = (now - job.deadline) // self.policy.reveal_seconds
        if stored is Phase.REVEALING and late == 0:
            return Phase.SETTLING
        if stored is Phase.COMMITTING and late < 2:
            is_complete = self.is_last and not self.is_short()
            if late == 0:
                return Phase.REVEALING if is_complete else Phase.DRAWING
            if is_complete:
                return Phase.SETTLING
        return Phase.EXPIRED

    def is_short(self) -> bool:
        """Whether too few committed for any output to have a quorum."""
        return tally.is_short(self.round(self.job.segment).members, self.policy.quorum_bps)

    # --- events -------------------------------------------------------------------------------------------------------

    def expect(self, topic: Topic, name: str, segment: int | None = None, **arguments: object) -> Event | None:
        """Take the next event, which has to come of the one under way; None if another or none comes."""
        following = self.events[self.place] if self.place < len(self.events) else None
        is_right = (
            following is not None
            and self.current is not None
            and (following.name, following.transaction_hash) == (name, self.current.transaction_hash)
            and (segment is None or following.arguments["segment"] == segment)
        )
        if following is None or not is_right:
            self.findings.fault(topic, f"event {name} is missing; {describe(following)} comes instead")
            return None
        self.place += 1
        for argument, expected in arguments.items():
            self.findings.compare(topic, f"{name}.{argument}", expected, following.arguments[argument])
        return following

    def require_phase(self, topic: Topic, event: Event, *phases: Phase) -> bool:
        """Whether the job was in one of these phases; a fault if not."""
        phase = self.phase()
        if phase in phases:
            return True
        self.findings.fault(topic, f"event {describe(event)} came in phase {phase.name}")
        return False

    def member(self, topic: Topic, segment: int, operator: str) -> Member | None:
        """A member of the round that counts; a fault if it is none."""
        member = self.round(segment).member(operator)
        if member is None:
            self.findings.fault(topic, f"{operator} is no member of the committee")
        return member

    def set_seed(self, topic: Topic) -> None:
        """A seed block is set: the one that the transaction is in."""
        event = self.expect(topic, "SeedBlockSet", self.job.segment)
        if event is not None:
            self.findings.compare(topic, "seed block", event.block_number, event.arguments["seedBlock"])
        number = (event or self.current).block_number  # type: ignore[union-attr]
        self.job = replace(self.job, seed_block=number)

    def entropy(self, topic: Topic, event: Event) -> bytes:
        """The hash of the seed block, which the draw uses up."""
        seed_block = self.job.seed_block
        if not seed_block < event.block_number <= seed_block + SEED_LIFETIME_BLOCKS:
            within = f"within {SEED_LIFETIME_BLOCKS} after {seed_block}"
            self.findings.compare(topic, "block of the draw", within, event.block_number)
        self.job = replace(self.job, seed_block=0)
        return self.record.contracts.connection.block_hash(seed_block)


def describe(event: Event | None) -> str:
    """Name an event with where it lies."""
    return "no other" if event is None else f"{event.name} in block {event.block_number}"


def as_operator(value: object) -> Address:
    """An address as events have it."""
    return Address(str(value))

"""Draws, commitments, reveals and tallies, by the rules of ``JobRounds.sol``."""

from __future__ import annotations

from dataclasses import replace

from offchain.audit.record import calldata_of
from offchain.audit.replay.findings import Topic
from offchain.audit.replay.holds import ReplayHolds
from offchain.audit.replay.money import NO_LINK
from offchain.audit.replay.state import JOB_SECONDS, as_operator, describe
from offchain.chain.events import Event
from offchain.protocol import hashing, sortition, tally
from offchain.protocol.types import (
    BAD_INPUT,
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    Link,
    Member,
    Phase,
    Reason,
    is_output,
)

MAX_REDRAWS = 4
"""``Policies.MAX_REDRAWS``."""
START = Topic("start")
REQUEST = Topic("request")


class ReplayRounds(ReplayHolds):
    """The replay, with the rules by which a segment is worked on and settled."""

    # --- start --------------------------------------------------------------------------------------------------------

    def started(self, event: Event) -> None:
        """The job starts: its committees will be drawn from the stakes of the block before."""
        number, asked = event.block_number, event.arguments
        self.findings.compare(START, "frozen block", number - 1, asked["frozenBlock"])
        ends_at = self.record.time_of(number) + JOB_SECONDS
        self.findings.compare(START, "end of the job", ends_at, asked["endsAt"])
        self.job = replace(self.job, frozen_block=number - 1, ends_at=ends_at)
        self.enter(Phase.REQUESTED, self.policy.input_seconds)
        self.set_seed(self.topic("committee", 0))
        self.findings.note(START, f"block {number}, stakes of block {number - 1}")

    def input_provided(self, event: Event) -> None:
        """The requester sealed the input to the first committee."""
        if self.require_phase(REQUEST, event, Phase.AWAITING_INPUT):
            self.job = replace(self.job, input_cid=bytes(event.arguments["inputCid"]))
            self.enter(Phase.COMMITTING, self.policy.commit_seconds)

    # --- draws --------------------------------------------------------------------------------------------------------

    def to_be_drawn(self) -> int:
        """The segment whose committee is drawn next: that of the round under way if it has none, or the next one."""
        has_own = bool(self.round(self.job.segment).members)
        return min(self.job.segment + has_own, self.job.segments - 1)

    def await_committee(self) -> None:
        """A committee is to be drawn."""
        self.enter(Phase.DRAWING, self.policy.reveal_seconds)
        self.set_seed(self.topic("committee", self.to_be_drawn()))

    def committee_drawn(self, event: Event) -> None:
        """A committee is the one that the seed block's hash draws from the frozen weights."""
        said, segment, job = event.arguments, self.to_be_drawn(), self.job
        topic = self.topic("committee", segment)
        if said["segment"] != segment or self.round(segment).members:
            self.findings.fault(
                self.topic("committee", said["segment"]), f"event {describe(event)} is not of the draw that was due"
            )
            return
        if not self.require_phase(topic, event, Phase.REQUESTED, Phase.DRAWING):
            return
        self.findings.compare(topic, "attempt", topic.attempt, said["attempt"])
        record = self.record
        entropy = self.entropy(topic, event)
        seed = hashing.committee_seed(record.chain_id, record.jobs, job.id, segment, entropy)
        self.findings.compare(topic, "seed", seed, said["seed"])
        earlier = self.earlier_members(segment)
        expected = sortition.draw_committee(self.weights, seed, self.policy.committee_size, earlier)
        drawn = tuple(zip(map(Address, said["operators"]), said["weights"], strict=True))
        self.findings.compare(topic, "drawn committee", expected, drawn)
        again = len({operator for operator, _ in drawn} & set(earlier))
        shared = (
            f"{again} of them in an earlier one: too few workers for disjoint ones" if again else "none in an earlier"
        )
        self.findings.note(topic, f"{len(drawn)} members, {shared}")
        # What was drawn is what goes on, whatever should have been: the fault is noted.
        members = tuple(Member(*one, ZERO_HASH, NO_LINK, ZERO_HASH) for one in drawn)
        self.keep(segment, members=members, total_weight=sum(weight for _, weight in drawn))
        if segment != job.segment:
            self.enter(Phase.REVEALING, self.policy.reveal_seconds)
        elif segment == 0:
            self.enter(Phase.AWAITING_INPUT, self.policy.input_seconds)
        else:
            self.enter(Phase.COMMITTING, self.policy.input_seconds + self.policy.commit_seconds)

    def earlier_members(self, segment: int) -> list[Address]:
        """Who is passed over in a draw, as things stand: all members before, and those of the attempt before."""
        rounds = [self.round(before) for before in range(segment)]
        if self.job.attempts[segment]:
            rounds.append(self.round(segment, self.job.attempts[segment] - 1))
        return [member.operator for round_ in rounds for member in round_.members]

    def close_committing(self) -> None:
        """The time to commit is over: the next committee is to be drawn, or this one replaced."""
        segment = self.job.segment
        if self.is_short():
            self.penalise_silent(segment)
            if self.job.redraws == MAX_REDRAWS:
                return self.fail(Reason.TOO_FEW_ACTED)
            self.job = replace(self.job, redraws=self.job.redraws + 1)
            self.reopen(segment, same_committee=False)
        return self.await_committee()

    def reopen(self, segment: int, *, same_committee: bool) -> None:
        """Another attempt at a segment begins."""
        attempt = self.next_attempt(segment)
        topic = self.topic("committee", segment)
        self.expect(topic, "SegmentReopened", segment, attempt=attempt, sameCommittee=same_committee)
        why = "the same committee: its input changed" if same_committee else "another committee"
        self.findings.note(topic, f"attempt {attempt}, {why}")

    # --- commit and reveal --------------------------------------------------------------------------------------------

    def resealed(self, event: Event) -> None:
        """A supporter of the segment before sealed its output to a committee that was drawn anew."""
        segment = int(event.arguments["segment"])
        topic = self.topic("votes", segment)
        if not self.require_phase(topic, event, Phase.COMMITTING):
            return
        member = self.member(topic, segment, event.arguments["operator"])
        if member is None or not self.findings.compare(topic, "segment resealed", self.job.segment - 1, segment):
            return
        settled, attempt = self.round(segment).settled_link, self.job.attempts[segment + 1]
        self.findings.compare(topic, f"output that {member.operator} resealed", settled, member.link)
        if member.sealed_for >= attempt:
            self.findings.fault(topic, f"{member.operator} had sealed its output to that committee already")
        cid = bytes(event.arguments["activationCid"])
        self.keep_member(segment, member.operator, sealed_for=attempt, activation_cid=cid)

    def committed(self, event: Event) -> None:
        """A member committed to its output."""
        segment, operator = int(event.arguments["segment"]), as_operator(event.arguments["operator"])
        topic = self.topic("votes", segment)
        if not self.require_phase(topic, event, Phase.COMMITTING):
            return
        member = self.member(topic, segment, operator)
        place = (self.job.segment, self.job.attempts[self.job.segment])
        said = (segment, int(event.arguments["attempt"]))
        if member is None or not self.findings.compare(topic, "segment and attempt", place, said):
            return
        if member.commitment != ZERO_HASH:
            self.findings.fault(topic, f"{operator} committed twice")
            return
        self.keep_member(segment, operator, commitment=bytes(event.arguments["commitment"]))
        if any(it.commitment == ZERO_HASH for it in self.round(segment).members):
            return
        if self.is_last:
            self.enter(Phase.REVEALING, self.policy.reveal_seconds)
        else:
            self.await_committee()

    def revealed(self, event: Event) -> None:
        """A member opened its commitment, to an output or to a vote."""
        said = event.arguments
        segment, operator = int(said["segment"]), as_operator(said["operator"])
        topic = self.topic("votes", segment)
        if not self.require_phase(topic, event, Phase.REVEALING):
            return
        member = self.member(topic, segment, operator)
        place = (self.job.segment, self.job.attempts[self.job.segment])
        if member is None or not self.findings.compare(
            topic, "segment and attempt", place, (segment, int(said["attempt"]))
        ):
            return
        if member.link != ZERO_HASH:
            self.findings.fault(topic, f"{operator} revealed twice")
            return
        link, cid = Link(bytes(said["link"])), bytes(said["activationCid"])
        self.check_opening(topic, event, member, link)
        if is_output(link) is (cid == ZERO_HASH):
            what = "an output" if is_output(link) else "a vote"
            self.findings.fault(topic, f"{operator} revealed {what} with activation 0x{cid.hex()}")
        if self.job.phase is Phase.COMMITTING:  # a last commit phase that lapsed turned into revealing by time alone
            deadline = self.job.deadline + self.policy.reveal_seconds
            self.job = replace(self.job, phase=Phase.REVEALING, deadline=deadline)
        sealed_for = 0 if self.is_last else self.job.attempts[segment + 1]
        self.keep_member(segment, operator, link=link, activation_cid=cid, sealed_for=sealed_for)
        if all(it.commitment == ZERO_HASH or it.link != ZERO_HASH for it in self.round(segment).members):
            self.settle()

    def check_opening(self, topic: Topic, event: Event, member: Member, link: Link) -> None:
        """A reveal opens its commitment."""
        call = calldata_of(self.record, event, "reveal")
        if call is None:  # an operator may be a contract: the salt is somewhere inside its own calldata
            self.findings.note(topic, f"{member.operator} revealed through a contract")
            return
        place = (topic.segment or 0, topic.attempt)
        record = self.record
        opening = hashing.commitment(
            record.chain_id, record.jobs, self.job.id, *place, member.operator, link, call["salt"]
        )
        self.findings.compare(topic, f"opening of {member.operator}'s commitment", member.commitment, opening)

    # --- tally --------------------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """A round is over: an output has a quorum, or a proof may decide, or the job fails."""
        segment = self.job.segment
        round_, topic = self.round(segment), self.topic("tally", segment)
        total, quorum = round_.total_weight, self.policy.quorum_bps
        committed = sum(member.commitment != ZERO_HASH for member in round_.members)
        revealed = sum(member.link != ZERO_HASH for member in round_.members)
        votes = sum(member.link != ZERO_HASH and not is_output(member.link) for member in round_.members)
        without = f", {votes} without an output" if votes else ""
        self.findings.note(self.topic("votes", segment), f"{committed} committed, {revealed} opened{without}")
        if tally.has_output(round_.members):
            self.penalise_silent(segment)
        elif segment == 0:
            return self.fail_without_output()
        link, weight = tally.leading(round_.members)
        if tally.is_quorum(weight, total, quorum) and is_output(link):
            self.findings.note(topic, f"{weight} of {total} wei for it, {quorum} bps needed")
            self.settled(segment, link, weight)
            return self.advance()
        self.findings.note(topic, f"contested: {weight} of {total} wei for the leading one, {quorum} bps needed")
        self.contested.add((segment, topic.attempt))
        self.enter(Phase.CONTESTED, 2 * self.policy.prove_seconds)
        self.expect(topic, "SegmentContested", segment, deadline=self.job.deadline)
        return None

    def settled(self, segment: int, link: Link, weight: int) -> None:
        """An output stands."""
        total = self.round(segment).total_weight
        topic = self.topic("tally", segment)
        self.expect(topic, "SegmentSettled", segment, link=link, stakeFor=weight, stakeTotal=total)
        self.keep(segment, settled_link=link, settled_weight=weight)

    def penalise_silent(self, segment: int) -> None:
        """Whoever was silent where another was not pays for it."""
        members = self.round(segment).members
        has_committed, has_revealed = tally.participation(members)
        for member in members:
            if member.commitment == ZERO_HASH:
                if has_committed:
                    self.penalise_miss(segment, member, Reason.MISSED_COMMIT)
            elif member.link == ZERO_HASH and has_revealed:
                self.penalise_miss(segment, member, Reason.MISSED_REVEAL)

    def advance(self) -> None:
        """The job goes on behind a segment that has just been settled."""
        if not self.is_last:
            self.job = replace(self.job, segment=self.job.segment + 1)
            if not self.round(self.job.segment).members:
                return self.await_committee()
            # Where rounds were done again, a supporter may have to seal its output again first.
            sealing = 0 if self.job.attempts[self.job.segment] == 0 else self.policy.input_seconds
            return self.enter(Phase.COMMITTING, sealing + self.policy.commit_seconds)
        if self.policy.proof_permille == 0:
            return self.await_proofs()
        self.enter(Phase.SAMPLING, self.policy.input_seconds)
        return self.set_seed(self.topic("sample", self.job.segment))

    def await_proofs(self) -> None:
        """The job goes on with the proofs that are due, or behind the last one."""
        if self.job.proofs_due:
            self.enter(Phase.PROVING, 2 * self.policy.prove_seconds)
        elif any(self.round(segment).proof_hash == ZERO_HASH for segment in range(self.job.segments)):
            self.enter(Phase.CHALLENGEABLE, self.policy.challenge_seconds)
        else:
            self.enter(Phase.FINALISABLE, 0)

    def fail_without_output(self) -> None:
        """The job fails: by the vote that has a quorum, if there is one."""
        segment = self.job.segment
        round_ = self.round(segment)
        vote, weight = tally.leading(round_.members)
        is_decided = tally.is_quorum(weight, round_.total_weight, self.policy.quorum_bps)
        if is_output(vote) or not is_decided:
            return self.fail(Reason.NO_QUORUM)
        if vote == BAD_INPUT:
            return self.charge_requester(Reason.BAD_INPUT, vote, weight)
        if segment == 0:
            return self.charge_requester(Reason.INPUT_UNAVAILABLE, vote, weight)
        for member in self.round(segment - 1).supporters:
            self.penalise_miss(segment - 1, member, Reason.WITHHELD_ACTIVATION)
        return self.fail(Reason.INPUT_UNAVAILABLE)

    def expire(self) -> None:
        """The job ran out of time."""
        job = self.job
        had_time = job.deadline <= job.ends_at
        if job.phase is Phase.AWAITING_INPUT and had_time:
            return self.charge_requester(Reason.INPUT_UNAVAILABLE, NO_LINK, self.round(0).total_weight)
        if job.phase is Phase.CONTESTED:
            return self.fail_without_output()
        if job.phase is Phase.PROVING and had_time:
            for segment in range(job.segments):
                round_ = self.round(segment)
                member = round_.member(round_.prover) if round_.prover != ZERO_ADDRESS else None
                if member is not None and round_.proof_hash == ZERO_HASH:
                    self.penalise_miss(segment, member, Reason.MISSED_PROOF)
        return self.fail(Reason.TIMED_OUT)

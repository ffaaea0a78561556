"""Samples, proofs and challenges, by the rules of ``JobRounds.sol`` and ``JobProofs.sol``."""

from __future__ import annotations

from dataclasses import replace

from offchain.audit.replay.findings import Topic
from offchain.audit.replay.rounds import ReplayRounds
from offchain.audit.replay.state import as_operator
from offchain.chain.events import Event
from offchain.protocol import hashing, sortition
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Link, Member, Phase, Reason, Round, is_output


class ReplayProofs(ReplayRounds):
    """The replay, with the rules by which segments are proved and overturned."""

    # --- sample -------------------------------------------------------------------------------------------------------

    def due_proofs(self) -> dict[int, Address]:
        """Who has to prove which segment, by the hash of the seed block."""
        record, due = self.record, dict[int, Address]()
        entropy = record.contracts.connection.block_hash(self.job.seed_block)
        for segment in range(self.job.segments):
            round_ = self.round(segment)
            if round_.proof_hash != ZERO_HASH:
                continue
            sample = hashing.sample_seed(record.chain_id, record.jobs, self.job.id, segment, entropy)
            if round_.prover != ZERO_ADDRESS:  # drawn before a later segment was overturned: that stands
                due[segment] = round_.prover
            elif sortition.is_sampled(sample, self.policy.proof_permille):
                due[segment] = sortition.draw_prover(round_.members, round_.settled_link, sample)
        return due

    def draw_proofs(self, event: Event | None) -> None:
        """The sample is drawn. Where nothing is due, that leaves no event behind.

        Args:
            event: the first of the draw's; None if there is none.
        """
        due = self.due_proofs()
        if event is not None:
            self.entropy(self.topic("sample", self.job.segment), event)
        deadline = self.now() + self.policy.prove_seconds
        for segment in range(self.job.segments):
            topic, prover = self.topic("sample", segment), due.get(segment)
            if prover is not None:
                drawn_before = self.round(segment).prover != ZERO_ADDRESS
                self.findings.note(topic, f"to be proved by {prover}" + (", as drawn before" if drawn_before else ""))
                self.expect(topic, "ProverDrawn", segment, prover=prover, deadline=deadline)
                self.keep(segment, prover=prover)
            elif self.round(segment).proof_hash == ZERO_HASH:
                self.findings.note(topic, "not drawn for proving")
        self.job = replace(self.job, proofs_due=len(due), seed_block=0)
        self.await_proofs()

    def is_silently_drawn(self) -> bool:
        """Whether the sample may have been drawn without a trace, because nothing is due."""
        return self.job.phase is Phase.SAMPLING and not self.due_proofs()

    # --- announcements ------------------------------------------------------------------------------------------------

    def announced(self, event: Event) -> None:
        """A member bound itself to a proof; the last time counts."""
        segment, operator = int(event.arguments["segment"]), as_operator(event.arguments["operator"])
        topic = self.topic("proving", segment)
        phase = self.phase()
        if not (phase.is_open or self.is_silently_drawn()):
            self.findings.fault(topic, f"{operator} announced a proof in phase {phase.name}")
            return
        if self.member(topic, segment, operator) is not None:
            announcement = bytes(event.arguments["announcement"])
            self.keep_member(segment, operator, announcement=announcement, announced_block=event.block_number)

    def check_announced(self, topic: Topic, event: Event, member: Member) -> None:
        """The proof was announced in an earlier block: nobody copied it out of a pending transaction."""
        record, place = self.record, (topic.segment or 0, topic.attempt)
        proof_hash = bytes(event.arguments["proofHash"])
        expected = hashing.announcement(record.chain_id, record.jobs, self.job.id, *place, member.operator, proof_hash)
        self.findings.compare(topic, f"announcement of {member.operator}", expected, member.announcement)
        if not 0 < member.announced_block < event.block_number:
            expected_block = f"before {event.block_number}"
            self.findings.compare(topic, "block of the announcement", expected_block, member.announced_block)

    # --- proofs -------------------------------------------------------------------------------------------------------

    def segment_proved(self, event: Event) -> None:
        """A proof was taken: a drawn one, or a challenge by a member that had revealed another output."""
        segment, prover = int(event.arguments["segment"]), as_operator(event.arguments["prover"])
        topic = self.topic("proving", segment)
        if self.job.phase is Phase.SAMPLING and self.due_proofs().get(segment) == prover:
            self.draw_proofs(None)  # the events of the draw were held back: faults by themselves
        round_ = self.round(segment)
        if round_.proof_hash != ZERO_HASH:
            self.findings.fault(topic, "it was proved twice")
            return
        member = self.member(topic, segment, prover)
        if member is None:
            self._accept(event, segment, round_.settled_link)
        elif member.link == round_.settled_link or prover == round_.prover:
            self._prove(event, segment, round_, member)
        else:
            self._challenge(event, segment, round_, member)

    def _prove(self, event: Event, segment: int, round_: Round, member: Member) -> None:
        topic = self.topic("proving", segment)
        self.require_phase(topic, event, Phase.PROVING)
        is_drawn = member.operator == round_.prover
        is_open = self.now() + self.policy.prove_seconds >= self.job.deadline
        if round_.prover == ZERO_ADDRESS:
            self.findings.fault(topic, "no proof of it was due")
        elif is_open:  # from here on everybody could copy a proof that is on its way
            self.check_announced(topic, event, member)
        elif not is_drawn:
            self.findings.fault(topic, f"{member.operator} proved it in the drawn prover's time")
        who = "who was drawn" if is_drawn else "when the drawn prover's time was over"
        self.findings.note(topic, f"by {member.operator}, {who}")
        self._accept(event, segment, round_.settled_link)
        self.job = replace(self.job, proofs_due=max(self.job.proofs_due - 1, 0))
        if self.job.proofs_due == 0:
            self.await_proofs()
        late = round_.member(round_.prover) if round_.prover != member.operator else None
        if late is not None:
            self.penalise_miss(segment, late, Reason.MISSED_PROOF)
        self._hold_contradicted(segment, ZERO_ADDRESS)

    def _challenge(self, event: Event, segment: int, round_: Round, member: Member) -> None:
        topic, before, link = self.topic("proving", segment), round_.settled_link, member.link
        phase = self.phase()
        may = segment <= self.job.segment and is_output(link) and (phase.is_open or self.is_silently_drawn())
        is_contested = before == ZERO_HASH
        if not may or (is_contested and (segment, phase) != (self.job.segment, Phase.CONTESTED)):
            self.findings.fault(topic, f"{member.operator} had nothing to challenge in phase {phase.name}")
        self.check_announced(topic, event, member)
        self._accept(event, segment, link)
        weight = sum(it.weight for it in round_.members if it.link == link)
        tally = self.topic("tally", segment)
        if is_contested:
            self.findings.note(topic, f"by {member.operator}, who decided what was contested")
            self.findings.note(tally, f"decided by a proof, {weight} of {round_.total_weight} wei for it")
            self.settled(segment, link, weight)
            self.advance()
        else:
            self.findings.note(topic, f"by {member.operator}, who overturned what a quorum had agreed on")
            self.findings.note(tally, f"overturned by a proof, {weight} of {round_.total_weight} wei for it")
            self.keep(segment, settled_link=link, settled_weight=weight, overturned=True)
            outvoted = sum(it.weight for it in round_.members if it.link == before)
            said = {"challenger": member.operator, "before": before, "proved": link, "stakeAgainst": outvoted}
            self.expect(tally, "SegmentOverturned", segment, **said)
            self._resume(segment)
        self._hold_contradicted(segment, member.operator)

    def _accept(self, event: Event, segment: int, link: Link) -> None:
        """Keep a proof, and between which links it has to stand."""
        said = event.arguments
        topic = self.topic("proving", segment)
        opening = self._opening_of(segment)
        self.findings.compare(topic, "links of the proof", (opening, link), (said["linkIn"], said["linkOut"]))
        self.proved[segment, topic.attempt] = (event, opening)
        self.keep(
            segment,
            proof_hash=bytes(said["proofHash"]),
            proof_cid=bytes(said["proofCid"]),
            proved_by=as_operator(said["prover"]),
        )

    def _opening_of(self, segment: int) -> Link:
        return self.job.input_link if segment == 0 else self.round(segment - 1).settled_link

    def _hold_contradicted(self, segment: int, challenger: str) -> None:
        round_ = self.round(segment)
        for member in round_.members:
            if is_output(member.link) and member.link != round_.settled_link:
                self.hold(segment, member, self._opening_of(segment), challenger)

    # --- what follows on an overturned segment ------------------------------------------------------------------------

    def _resume(self, segment: int) -> None:
        is_sampled = self.job.phase in (Phase.PROVING, Phase.CHALLENGEABLE)
        reached = self.job.segment
        self.job = replace(self.job, segment=segment)
        if self.is_last:
            if is_sampled:
                due = sum(
                    self.round(before).prover != ZERO_ADDRESS and self.round(before).proof_hash == ZERO_HASH
                    for before in range(segment)
                )
                self.job = replace(self.job, proofs_due=due)
                self.await_proofs()
            return
        self.job = replace(self.job, proofs_due=0, seed_block=0)
        for later in range(segment + 1, min(self.job.segments, reached + 2)):
            if self.round(later).members:
                self._reopen_behind(later, same_committee=later == segment + 1)
        self.advance()

    def _reopen_behind(self, segment: int, *, same_committee: bool) -> None:
        before = self.round(segment)
        self.reopen(segment, same_committee=same_committee)
        if not same_committee:
            return
        members = tuple(Member(it.operator, it.weight, ZERO_HASH, Link(ZERO_HASH), ZERO_HASH) for it in before.members)
        attempt = self.job.attempts[segment]
        self.keep(segment, members=members, total_weight=before.total_weight)
        senders = tuple(
            replace(it, sealed_for=attempt) if it.sealed_for + 1 == attempt else it
            for it in self.round(segment - 1).members
        )
        self.keep(segment - 1, members=senders)

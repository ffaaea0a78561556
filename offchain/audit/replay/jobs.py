"""A whole job from its events, and what is stored of it compared with that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from eth_account import Account

from offchain.audit.record import ChainRecord, Standings, calldata_of, read_number
from offchain.audit.replay.findings import Topic
from offchain.audit.replay.money import PAYOUTS
from offchain.audit.replay.proofs import ReplayProofs
from offchain.audit.replay.rounds import REQUEST, START
from offchain.audit.replay.state import BPS, SEED_LIFETIME_BLOCKS, as_operator, describe
from offchain.chain.events import Event
from offchain.protocol import hashing
from offchain.protocol.types import ZERO_HASH, Link, ModelId, Phase, Policy, Reason, Round

STATE = Topic("state")
OF_REQUEST = ("requester", "model_id", "input_link", "result_key", "route_cid", "fee_wei", "policy", "input_cid")
OF_START = ("frozen_block", "ends_at")
OF_MEMBERS = {
    "committee": ("operator", "weight"),
    "votes": ("commitment", "link", "activation_cid", "sealed_for"),
    "proving": ("announced_block", "announcement"),
}
OF_ROUNDS = {
    "tally": ("total_weight", "settled_link", "settled_weight", "overturned"),
    "sample": ("prover",),
    "proving": ("proved_by", "proof_hash", "proof_cid"),
}
BEFORE_A_DRAW = ("SegmentReopened", "SeedBlockSet")
BUCKETS = 256


def replay(record: ChainRecord, standings: Standings | None) -> Replay:
    """Go through all events of a job, and compare what is stored of it with what they lead to."""
    run = Replay(record, standings)
    run.run()
    return run


class Replay(ReplayProofs):
    """The replay of a whole job; see :func:`replay`."""

    _is_requested = False
    _failed_unseen = False

    def run(self) -> None:
        """Go through the events, in order. What cannot be replayed is a fault of what it is about."""
        while self.place < len(self.events):
            self.current = event = self.events[self.place]
            before = self.place
            try:
                self._move(event)
            except Exception as error:
                # An event that was tampered with may break any rule on the way; that is a finding like any other.
                self.findings.fault(self._topic_of(event), f"{describe(event)}: {type(error).__name__}: {error}")
            self.place = max(self.place, before + 1)
        self._finish()

    def _move(self, event: Event) -> None:
        handlers: dict[str, Callable[[Event], None]] = {
            "JobRequested": self._requested,
            "JobStarted": self._admitted,
            "CommitteeDrawn": self.committee_drawn,
            "InputProvided": self.input_provided,
            "Resealed": self.resealed,
            "Committed": self.committed,
            "Revealed": self.revealed,
            "ProofAnnounced": self.announced,
            "SegmentProved": self.segment_proved,
            "JobFinalised": self._finalised,
            "EquivocationPenalised": self._equivocated,
            "SlashAppealed": self.appealed,
            "SlashReleased": self.released,
        }
        handler = handlers.get(event.name)
        if handler is None:
            self._move_by_time(event)
        else:
            self.place += 1
            handler(event)

    def _move_by_time(self, event: Event) -> None:
        """Somebody called what has no event of its own: to draw, settle, expire or cancel."""
        phase, stored, name = self.phase(), self.job.phase, event.name
        fined = name in ("OperatorPenalised", "JobFailed")
        if stored is Phase.QUEUED and name == "JobFailed":
            self.fail(Reason.CANCELLED)
        elif (stored, phase) == (Phase.COMMITTING, Phase.DRAWING) and (fined or name in BEFORE_A_DRAW):
            self.close_committing()
        elif phase is Phase.SETTLING and (fined or name in ("SegmentSettled", "SegmentContested")):
            self.settle()
        elif stored is Phase.SAMPLING and name == "ProverDrawn":
            self.require_phase(self._topic_of(event), event, Phase.SAMPLING)
            self.draw_proofs(event)
        elif phase in (Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING) and name == "SeedBlockSet":
            self._renew_seed(event)
        elif phase is Phase.EXPIRED and fined:
            self._failed_unseen = self.is_silently_drawn()
            self.expire()
        else:
            self.findings.fault(self._topic_of(event), f"event {describe(event)} follows from nothing before it")

    def _topic_of(self, event: Event) -> Topic:
        names = {
            "SeedBlockSet": "committee",
            "CommitteeDrawn": "committee",
            "SegmentReopened": "committee",
            "Committed": "votes",
            "Revealed": "votes",
            "Resealed": "votes",
            "SegmentSettled": "tally",
            "SegmentContested": "tally",
            "SegmentOverturned": "tally",
            "ProverDrawn": "sample",
            "ProofAnnounced": "proving",
            "SegmentProved": "proving",
            "OperatorPenalised": "penalties",
            "EquivocationPenalised": "penalties",
            "SlashHeld": "penalties",
            "SlashAppealed": "penalties",
            "SlashReleased": "penalties",
        }
        if event.name in names:
            return self.topic(names[event.name], int(event.arguments["segment"]))
        if event.name in ("JobRequested", "InputProvided", "JobQueued"):
            return REQUEST
        return START if event.name == "JobStarted" else PAYOUTS

    # --- request and end ----------------------------------------------------------------------------------------------

    def _requested(self, event: Event) -> None:
        if self._is_requested:
            self.findings.fault(REQUEST, "it was requested twice")
            return
        self._is_requested = True
        asked = event.arguments
        policy = asked["policy"]
        self.job = replace(
            self.job,
            requester=as_operator(asked["requester"]),
            model_id=ModelId(bytes(asked["modelId"])),
            input_link=Link(bytes(asked["inputLink"])),
            result_key=bytes(asked["resultKey"]),
            route_cid=bytes(asked["routeCid"]),
            fee_wei=int(asked["feeWei"]),
            policy=Policy(*(policy.values() if hasattr(policy, "values") else policy)),
        )
        self._check_id(event)
        self.findings.note(REQUEST, f"by {self.job.requester} in block {event.block_number}")
        following = self.events[self.place] if self.place < len(self.events) else None
        if following is not None and following.name == "JobQueued":
            self.expect(REQUEST, "JobQueued", modelId=self.job.model_id, bucket=bucket_of(self.job.fee_wei))
            self.findings.note(REQUEST, "queued")
            return self.enter(Phase.QUEUED, 0)
        started = self.expect(START, "JobStarted")
        if started is not None:
            self.started(started)
        return None

    def _check_id(self, event: Event) -> None:
        """The job's id follows from its requester and the salt, where that is to be seen."""
        call = calldata_of(self.record, event, "request")
        if call is not None:
            record, salt = self.record, bytes(call["what"]["salt"])
            expected = hashing.job_id(record.chain_id, record.jobs, self.job.requester, salt)
            self.findings.compare(REQUEST, "job id", expected, self.job.id)

    def _admitted(self, event: Event) -> None:
        if self.require_phase(START, event, Phase.QUEUED):
            self.started(event)

    def _finalised(self, event: Event) -> None:
        if not self.is_silently_drawn():
            if self.job.phase is Phase.SAMPLING:
                self.draw_proofs(None)  # the events of the draw were held back: faults by themselves
            self.require_phase(STATE, event, Phase.FINALISABLE)
        self._leave_sampling()
        self.close(Phase.FINALISED)
        self.check_payouts(event)

    def _leave_sampling(self) -> None:
        """Go on behind a sample that was drawn without a trace."""
        if self.is_silently_drawn():
            self.draw_proofs(None)

    # --- draws that came too late, and two words ----------------------------------------------------------------------

    def _renew_seed(self, event: Event) -> None:
        """A seed block is replaced only when its hash cannot be seen any more: nobody draws until it suits them."""
        sampling = self.job.phase is Phase.SAMPLING
        topic = self.topic("sample", self.job.segment) if sampling else self.topic("committee", self.to_be_drawn())
        seed_block = self.job.seed_block
        if event.block_number <= seed_block + SEED_LIFETIME_BLOCKS:
            self.findings.fault(topic, f"seed block {seed_block} was replaced while its hash could be seen")
        self.set_seed(topic)

    def _equivocated(self, event: Event) -> None:
        """A member signed two results of one attempt, or one and revealed another."""
        said, operator = event.arguments, as_operator(event.arguments["operator"])
        segment, attempt = int(said["segment"]), int(said["attempt"])
        topic = Topic("penalties", segment, attempt)
        member = self.round(segment, attempt).member(operator)
        if member is None:
            self.findings.fault(topic, f"{operator} is no member of the committee")
            return
        if (segment, attempt, operator) in self.equivocations:
            self.findings.fault(topic, f"{operator} was penalised twice for signing two results")
        self.equivocations.add((segment, attempt, operator))
        full = member.weight * read_number(self.record, "equivocationPenaltyBps", "staking") // BPS
        self.check_slash(topic, event, operator, full, is_grave=True)
        self.findings.note(topic, f"{operator} signed two results")
        call = calldata_of(self.record, event, "reportEquivocation", "staking")
        if call is None:
            return
        links, signatures = call["links"], call["signatures"]
        if links[0] == links[1]:
            self.findings.fault(topic, f"{operator} signed one result only")
        for link, signature in zip(links, signatures, strict=True):
            if not signature and link == member.link:  # what it revealed bears the signature of its transaction
                continue
            digest = hashing.result_digest(
                self.record.chain_id, self.record.contracts.staking.address, self.job.id, segment, attempt, Link(link)
            )
            signer = Account._recover_hash(digest, signature=signature)
            self.findings.compare(topic, f"signer of 0x{bytes(link).hex()}", operator, signer)

    # --- what is stored -----------------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Compare every stored field with what the events lead to."""
        stored = self.record.job
        if not self._is_requested:
            self.findings.fault(REQUEST, "event JobRequested is missing")
        if stored.seed_block == 0 and self.job.phase is Phase.SAMPLING:
            self._leave_sampling()
            self.job = replace(self.job, deadline=stored.deadline)  # nothing says when that was
        if self._failed_unseen and stored.seed_block == 0:
            self.job = replace(self.job, seed_block=0)  # likewise, where the job failed behind it
        if self.job.phase is not Phase.FINALISED:
            self.findings.compare(STATE, "evidence root", ZERO_HASH, stored.evidence_root)
        for field in fields(stored):
            if field.name in ("id", "segments", "evidence_root"):
                continue
            topic = REQUEST if field.name in OF_REQUEST else START if field.name in OF_START else STATE
            self.findings.compare(topic, field.name, getattr(self.job, field.name), getattr(stored, field.name))
        for segment, attempts in enumerate(self.record.attempts):
            for attempt, round_ in enumerate(attempts):
                self._compare(segment, attempt, round_)

    def _compare(self, segment: int, attempt: int, stored: Round) -> None:
        expected = self.round(segment, attempt)
        for name, names in OF_ROUNDS.items():
            for field in names:
                topic = Topic(name, segment, attempt)
                self.findings.compare(topic, f"stored {field}", getattr(expected, field), getattr(stored, field))
        topic = Topic("committee", segment, attempt)
        if not self.findings.compare(topic, "members", len(expected.members), len(stored.members)):
            return
        for member, kept in zip(expected.members, stored.members, strict=True):
            for name, names in OF_MEMBERS.items():
                for field in names:
                    topic, what = Topic(name, segment, attempt), f"stored {field} of {member.operator}"
                    self.findings.compare(topic, what, getattr(member, field), getattr(kept, field))


def bucket_of(fee_wei: int) -> int:
    """The bucket of a job's fee in its model's queue, four to the octave (``FeeQueue.bucketOf``)."""
    octave = fee_wei.bit_length() - 1
    quarter = ((fee_wei << 2) >> octave) & 3
    return min(octave << 2 | quarter, BUCKETS - 1)

"""Those who move in ``test_jobs_stateful.py``: each method is one thing that they may try, on both sides at once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from eth_hash.auto import keccak

from offchain.chain.jobs import JobRequest
from offchain.protocol import hashing, links
from offchain.protocol.field import encode_elements
from offchain.protocol.machine import Proof, Request
from offchain.protocol.types import (
    BAD_INPUT,
    UNAVAILABLE,
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    Job,
    JobId,
    Link,
    ModelId,
    Phase,
    is_output,
)
from tests.contracts.comparison import Comparison, Mover
from tests.contracts.stage import POLICY, PROOF_BYTES, Stage

FALSE = 1
"""What the mock verifier of the second model answers."""
ANSWERS = (keccak(b"first answer"), keccak(b"second answer"), keccak(b"wrong answer"))
TRIALS = tuple(hashing.answer_hash(answer) for answer in ANSWERS[:2])
KINDS = ("model", "input", "key", "quorum", "window")
OUTPUTS = ((7, 8, 9), (7, 8, 10), (1, 2, 3))
VOTES = {"t": 0, "w": 1, "v": 2}
"""True, wrong and wrong in another way: the number of an output."""
SALT = keccak(b"salt")


def boundary(segment: int, output: int) -> bytes:
    """The commitment in front of a segment: the true one, or what follows from another output of the one before."""
    return keccak(b"x%d.%d" % (segment, output)) + keccak(b"y%d.%d" % (segment, output))


@dataclass
class Players:
    """Everybody, by number: 0 owns nothing, 1 requests, the next ones work, the last two are new.

    Args:
        secrets: what members committed to, by job, segment, attempt and operator.
        hastened: jobs whose end was moved.
        played: the courses that went well.
    """

    sides: Comparison
    stage: Stage
    secrets: dict[tuple[JobId, int, int, str], Link] = field(default_factory=dict)
    hastened: set[JobId] = field(default_factory=set)
    requests: int = 0
    played: set[str] = field(default_factory=set)

    def copy(self) -> Players:
        """The same players at the beginning of another course."""
        return Players(self.sides.copy(), self.stage)

    def settle_in(self, stakes: list[int]) -> None:
        """Workers bond and serve the first model; half of them the second one too, whose trials they take."""
        for index, stake in enumerate(stakes, 2):
            self.stake("bond", index, stake)
            self.look_after("set_encryption_key", index, False)
            self.stake("serve", index, self.model(0))
        for index in range(2, 6):
            self.stake("serve", index, self.model(1))
            self.commit_trial(index, 1, 0, ANSWERS[0])
        for index in range(2, 5):
            self.pass_trial(index, 1, ANSWERS[0])
        for index in (len(stakes) + 2, len(stakes) + 3):
            self.stake("bond", index, 2 * stakes[0])
            self.look_after("set_encryption_key", index, False)

    # --- who and what -------------------------------------------------------------------------------------------------

    def who(self, index: int) -> Mover:
        return self.sides.accounts[index]

    def model(self, index: int) -> ModelId:
        return self.sides.models[index] if index < len(self.sides.models) else ModelId(keccak(b"no model"))

    def job(self, index: int) -> JobId:
        jobs = self.sides.jobs
        return jobs[index % len(jobs)] if jobs and index >= 0 else JobId(keccak(b"no job"))

    def record(self, job: JobId) -> Job | None:
        return self.sides.machine.state.jobs.get(job)

    def phase(self, job: JobId) -> Phase:
        """The phase that the next block sees."""
        return self.sides.machine.phase_of(job, self.sides.head.timestamp + 1)

    def index(self, operator: str) -> int:
        return next(index for index, account in enumerate(self.sides.accounts) if account.address == operator)

    def link(self, job: JobId, segment: int, output: int) -> Link:
        """What stands for one of a segment's three outputs."""
        record = self.record(job)
        if record is not None and segment + 1 == record.segments:
            return Link(keccak(encode_elements(OUTPUTS[output])))
        return Link(keccak(boundary(segment + 1, output)))

    def _output_of(self, job: JobId, segment: int, link: bytes) -> int:
        return next((output for output in range(3) if self.link(job, segment, output) == link), 0)

    # --- jobs ---------------------------------------------------------------------------------------------------------

    def request(
        self, model: int, fee: int, size: int, permille: int, fault: str | None = None, again: bool = False
    ) -> None:
        if len(self.sides.jobs) > 5:
            return
        policy = replace(POLICY, committee_size=size, proof_permille=permille)
        self.requests += not again
        content: dict[str, Any] = {
            "model_id": self.model(2 if fault == "model" else model),
            "input_link": ZERO_HASH if fault == "input" else keccak(boundary(0, 0)),
            "result_key": ZERO_HASH if fault == "key" else keccak(b"result key"),
            "salt": self.requests.to_bytes(32, "big"),
            "policy": replace(policy, quorum_bps=5000) if fault == "quorum" else policy,
            "route_cid": keccak(b"route"),
        }
        if fault == "window":
            content["policy"] = replace(policy, challenge_seconds=3601)
        requester = self.who(1)
        taken = (Request(**content), fee)
        if self.sides.move(requester, "request", JobRequest(**content), fee, machine=taken):
            job = self.sides.machine.job_id_of(Address(requester.address), content["salt"])
            self.sides.jobs.append(job)
            self.sides.compare()

    def admit(self, model: int) -> None:
        self.sides.move(self.who(0), "admit", self.model(model))

    def simple(self, name: str, job: int, who: int, *arguments: Any) -> bool:
        return self.sides.move(self.who(who), name, self.job(job), *arguments)

    def draw(self, job: int, who: int = 0) -> bool:
        arguments = (self.job(job), self.sides.blockhash)
        return self.sides.move(self.who(who), "draw", self.job(job), machine=arguments)

    def commit(self, job: int, who: int, vote: str, zero: bool = False, beside: tuple[int, int] = (0, 0)) -> bool:
        """Commit in the round under way, or in one that lies so many segments and attempts beside it."""
        job_id, operator = self.job(job), Address(self.who(who).address)
        record = self.record(job_id)
        segment = 0 if record is None else record.segment
        attempt = 0 if record is None else record.attempts[segment]
        link = {"u": UNAVAILABLE, "b": BAD_INPUT}.get(vote) or self.link(job_id, segment, VOTES[vote])
        commitment = hashing.commitment(*self._where(job_id, segment, attempt), operator, link, SALT)
        named = (max(segment + beside[0], 0), max(attempt + beside[1], 0))
        if not self.simple("commit", job, who, *named, ZERO_HASH if zero else commitment):
            return False
        self.secrets[job_id, segment, attempt, operator] = link
        return True

    def reveal(self, job: int, who: int, fault: str | None = None) -> bool:
        job_id, operator = self.job(job), self.who(who).address
        record = self.record(job_id)
        segment = 0 if record is None else record.segment
        attempt = 0 if record is None else record.attempts[segment]
        link = self.secrets.get((job_id, segment, attempt, operator), self.link(job_id, segment, 0))
        cid = keccak(b"activation" + operator.encode())
        if is_output(link) == (fault == "cid"):
            cid = ZERO_HASH
        link, salt = (ZERO_HASH if fault == "link" else link), (keccak(b"other") if fault == "salt" else SALT)
        return self.simple("reveal", job, who, link, salt, cid)

    def reseal_all(self, job: int) -> None:
        """Every member of the segment before tries to seal its output again."""
        record = self.record(self.job(job))
        if record is not None and record.segment and self.phase(record.id) is Phase.COMMITTING:
            for member in self.sides.machine.round_of(record.id, record.segment - 1).members:
                self.simple("reseal", job, self.index(member.operator), keccak(b"resealed"))

    def claim(self, who: int) -> None:
        self.sides.move(self.who(who), "claim")

    def _where(self, job: JobId, segment: int, attempt: int) -> tuple[int, Address, JobId, int, int]:
        domain = self.sides.machine.domain
        return domain.chain_id, domain.jobs, job, segment, attempt

    # --- proofs -------------------------------------------------------------------------------------------------------

    def proof(
        self, job: int, segment: int, who: int, opening: int | None = None, closing: int | None = None
    ) -> tuple[bytes, tuple[int, ...]]:
        """A proof that the mock verifiers take.

        Args:
            opening: the output of the segment before that it opens with; what was settled, if None.
            closing: the output that it closes with; what the player revealed, if None.
        """
        job_id, machine = self.job(job), self.sides.machine
        record = self.record(job_id)
        if record is None or segment >= record.segments:
            return bytes(PROOF_BYTES), ()
        if opening is None:
            settled = machine.round_of(job_id, segment - 1).settled_link if segment else ZERO_HASH
            opening = self._output_of(job_id, segment - 1, settled)
        if closing is None:
            member = machine.round_of(job_id, segment).member(self.who(who).address)
            closing = self._output_of(job_id, segment, member.link if member else ZERO_HASH)
        if segment + 1 == record.segments:
            return boundary(segment, opening).ljust(PROOF_BYTES, b"\1"), OUTPUTS[closing]
        return (boundary(segment, opening) + boundary(segment + 1, closing)).ljust(PROOF_BYTES, b"\1"), ()

    def announce(
        self, job: int, segment: int, who: int, proof: tuple[bytes, tuple[int, ...]], zero: bool = False
    ) -> bool:
        job_id, record = self.job(job), self.record(self.job(job))
        attempt = record.attempts[segment] if record and segment < record.segments else 0
        operator = Address(self.who(who).address)
        announcement = hashing.announcement(
            *self._where(job_id, segment, attempt), operator, hashing.proof_hash(*proof)
        )
        return self.simple("announce", job, who, segment, ZERO_HASH if zero else announcement)

    def show(
        self,
        name: str,
        job: int,
        segment: int,
        who: int,
        opening: int | None = None,
        closing: int | None = None,
        announced: bool = True,
        zero: bool = False,
    ) -> bool:
        """Prove or challenge."""
        content = self.proof(job, segment, who, opening, closing)
        if announced:
            self.announce(job, segment, who, content)
        job_id, cid, record = self.job(job), ZERO_HASH if zero else keccak(b"proof"), self.record(self.job(job))
        proves: tuple[Link, Link] | None = None
        if record is None or record.model_id == self.model(0):
            closes = content[0][64:128]
            closing_link = links.link_of_values(content[1]) if content[1] else links.link_of_commitment(closes)
            proves = (Link(links.link_of_commitment(content[0][:64])), Link(closing_link))
        proof = Proof(hashing.proof_hash(*content), cid, proves)
        machine = (job_id, segment, proof)
        return self.sides.move(self.who(who), name, job_id, segment, *content, cid, machine=machine)

    def prove_all(self, job: int, late: bool) -> None:
        """The drawn provers prove or, where they are late, those that voted with them."""
        record = self.record(self.job(job))
        if late and record is not None and record.phase is Phase.PROVING:
            self._to(record.deadline - record.policy.prove_seconds)
        for segment in range(record.segments if record else 0):
            round_ = self.sides.machine.round_of(self.job(job), segment)
            provers = [member.operator for member in round_.supporters if (member.operator == round_.prover) != late]
            if round_.prover != ZERO_ADDRESS and provers:
                self.show("prove", job, segment, self.index(provers[0]), announced=late)

    def dissent(self, job: int) -> bool:
        """Whoever revealed an output that was not settled proves it, in the first segment where anybody did."""
        record = self.record(self.job(job))
        for segment in range(record.segment + 1 if record else 0):
            round_ = self.sides.machine.round_of(self.job(job), segment)
            for member in round_.members:
                if is_output(member.link) and member.link != round_.settled_link and round_.proof_hash == ZERO_HASH:
                    return self.show("challenge", job, segment, self.index(member.operator))
        return False

    # --- stake --------------------------------------------------------------------------------------------------------

    def stake(self, name: str, who: int, argument: Any) -> bool:
        return self.sides.move(self.who(who), name, argument)

    def look_after(self, name: str, who: int, zero: bool) -> None:
        account = self.who(who)
        arguments: dict[str, tuple[Any, ...]] = {
            "withdraw": (),
            "refresh_weights": (account.address,),
            "set_encryption_key": (ZERO_HASH if zero else keccak(b"key"),),
        }
        self.sides.move(account, name, *arguments[name])

    def commit_trial(self, who: int, model: int, trial: int, answer: bytes) -> None:
        commitment = self.trial_commitment(who, model, trial, answer)
        self.sides.move(self.who(who), "commit_trial", self.model(model), trial, commitment)

    def trial_commitment(self, who: int, model: int, trial: int, answer: bytes) -> bytes:
        domain, operator = self.sides.machine.domain, Address(self.who(who).address)
        where = (domain.chain_id, domain.staking, self.model(model), trial, operator)
        return hashing.trial_commitment(*where, answer, SALT)

    def pass_trial(self, who: int, model: int, answer: bytes) -> None:
        self.sides.move(self.who(who), "pass_trial", self.model(model), answer, SALT)

    def try_out(self, who: int, trial: int, honest: bool) -> None:
        self.stake("serve", who, self.model(1))
        answer = ANSWERS[trial if honest else 2]
        self.commit_trial(who, 1, trial, answer)
        self.pass_trial(who, 1, answer)

    def report_equivocation(
        self,
        job: int,
        segment: int,
        attempt: int,
        member: int,
        links: tuple[int, int],
        forged: int | None,
        revealed: bool,
    ) -> None:
        """Report that a member signed two links.

        Args:
            forged: which signature is somebody else's.
            revealed: whether the second signature is left out, as of what was revealed.
        """
        job_id, domain = self.job(job), self.sides.machine.domain
        members = self.sides.machine.round_at(job_id, segment, attempt).members
        operator = members[member].operator if member < len(members) else Address(self.who(0).address)
        both = (self.link(job_id, segment, links[0]), self.link(job_id, segment, links[1]))
        signatures, signers = [], []
        for index, link in enumerate(both):
            signer = self.who(0) if forged == index else self.who(self.index(operator))
            digest = hashing.result_digest(domain.chain_id, domain.staking, job_id, segment, attempt, link)
            is_left_out = revealed and index == 1
            signatures.append(b"" if is_left_out else bytes(signer.account.unsafe_sign_hash(digest).signature))
            signers.append(None if is_left_out else Address(signer.address))
        where = (job_id, segment, attempt, operator, both)
        self.sides.move(self.who(0), "report_equivocation", *where, tuple(signatures), machine=(*where, tuple(signers)))

    # --- courses ------------------------------------------------------------------------------------------------------

    def go_on(self, job: int, votes: str, silent: int) -> None:
        """The next thing that a job waits for.

        Args:
            votes: of the members, in the order in which they were drawn.
            silent: bits of those members that do nothing now.
        """
        job_id = self.job(job)
        record, phase = self.record(job_id), self.phase(job_id)
        if record is None or phase.is_terminal:
            return
        if phase is Phase.QUEUED:
            self.admit(self.sides.models.index(record.model_id))
        elif phase in (Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING):
            self.draw(job)
        elif phase is Phase.AWAITING_INPUT:
            self.simple("provide_input", job, 1, keccak(b"input"))
        elif phase in (Phase.COMMITTING, Phase.REVEALING):
            self._play_members(job, votes, silent)
        elif phase is Phase.CONTESTED:
            if silent or not self.dissent(job):
                self.lapse(job, 1)
        elif phase is Phase.PROVING:
            self.prove_all(job, silent % 2 == 1)
        elif phase is Phase.CHALLENGEABLE:
            if not (votes != "ttt" and self.dissent(job)):
                self.lapse(job, 1)
        else:
            names = {Phase.SETTLING: "settle", Phase.FINALISABLE: "finalise", Phase.EXPIRED: "expire"}
            self.simple(names[phase], job, 0)

    def _play_members(self, job: int, votes: str, silent: int) -> None:
        record = self.record(self.job(job))
        assert record is not None
        for index, member in enumerate(self.sides.machine.round_of(self.job(job), record.segment).members):
            phase = self.phase(self.job(job))
            if silent >> index & 1:
                continue
            if phase is Phase.COMMITTING and member.commitment == ZERO_HASH:
                self.commit(job, self.index(member.operator), votes[index])
            if phase is Phase.REVEALING and member.commitment != ZERO_HASH and member.link == ZERO_HASH:
                self.reveal(job, self.index(member.operator))
        if silent:
            self.lapse(job, 1)

    # --- time ---------------------------------------------------------------------------------------------------------

    def lapse(self, job: int, spare: int) -> None:
        """So that the next block comes that many seconds before the deadline, and one more."""
        record = self.record(self.job(job))
        if record is not None and record.deadline:
            self._to(record.deadline - spare)

    def hasten(self, job: int, seconds: int) -> None:
        """Move a job's end to so many seconds behind its deadline, less 300: no job lasts a week in a test."""
        job_id, record = self.job(job), self.record(self.job(job))
        if record is not None and record.deadline and job_id not in self.hastened:
            self.hastened.add(job_id)
            self.sides.move_end(job_id, record.deadline + seconds - 300)

    def _to(self, timestamp: int) -> None:
        if timestamp > self.sides.head.timestamp:
            self.sides.move_to(timestamp)

"""The executable specification by itself; that it is what the contracts do is compared in ``tests/contracts``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from offchain.protocol import hashing
from offchain.protocol.machine import Block, Domain, Machine, Model, Parameters, Proof, Refused, Request
from offchain.protocol.machine.events import JobFinalised, SegmentOverturned
from offchain.protocol.machine.limits import JOB_SECONDS
from offchain.protocol.machine.queue import bucket_of
from offchain.protocol.types import ZERO_HASH, Address, JobId, Label, Link, ModelId, Phase, Policy

pytestmark = pytest.mark.unit

PARAMETERS = Parameters(
    minimum_stake_wei=10,
    unbonding_seconds=JOB_SECONDS,
    minimum_fee_wei=1,
    minimum_window_seconds=5,
    max_running_jobs=1,
    miss_penalty_bps=100,
    contradiction_penalty_bps=5000,
    prover_share_bps=5000,
    fault_share_bps=2000,
    challenger_share_bps=3000,
    requester_share_bps=1000,
)
POLICY = Policy(3, 6000, 0, 100, 100, 100, 100, 100)
MODEL = ModelId(keccak(b"model"))
INPUT = Link(keccak(b"input"))
TRUE, FALSE = Link(keccak(b"true")), Link(keccak(b"false"))
REQUESTER = Address("0x" + "0f" * 20)
WORKERS = tuple(Address("0x" + f"{number:02x}" * 20) for number in (1, 2, 3))
SALT = keccak(b"salt")
STAKE = 1000
FEE = 3001


class Course:
    """One move after the other, each in a block of its own."""

    def __init__(self, workers: tuple[Address, ...] = WORKERS) -> None:
        self.machine = Machine(Domain(1, Address("0x" + "aa" * 20), Address("0x" + "bb" * 20)), PARAMETERS)
        self.machine.register(MODEL, Model(1))
        self.block = Block(1, 1000)
        for worker in workers:
            self.make(worker, "bond", STAKE)
            self.make(worker, "set_encryption_key", keccak(b"key"))
            self.make(worker, "serve", MODEL)

    def make(self, caller: Address, name: str, *arguments: Any) -> Any:
        self.block = Block(self.block.number + 1, self.block.timestamp + 1)
        return getattr(self.machine, name)(caller, self.block, *arguments)

    def request(self, salt: bytes = SALT, fee: int = FEE) -> JobId:
        self.make(REQUESTER, "request", Request(MODEL, INPUT, keccak(b"key"), salt, POLICY), fee)
        return self.machine.job_id_of(REQUESTER, salt)

    def draw(self, job: JobId) -> None:
        self.make(REQUESTER, "draw", job, lambda number: keccak(number.to_bytes(32, "big")))

    def play(self, outputs: tuple[Link, ...]) -> JobId:
        """A job up to the end of its only round."""
        job = self.request()
        self.draw(job)
        self.make(REQUESTER, "provide_input", job, keccak(b"cid"))
        domain = self.machine.domain
        for worker, output in zip(WORKERS, outputs, strict=True):
            where = (domain.chain_id, domain.jobs, job, 0, 0, worker)
            self.make(worker, "commit", job, 0, 0, hashing.commitment(*where, output, SALT))
        for worker, output in zip(WORKERS, outputs, strict=True):
            self.make(worker, "reveal", job, output, SALT, keccak(b"activation"))
        return job

    def challenge(self, worker: Address, job: JobId, closing: Link) -> Any:
        domain, hashed = self.machine.domain, keccak(b"proof")
        self.make(
            worker, "announce", job, 0, hashing.announcement(domain.chain_id, domain.jobs, job, 0, 0, worker, hashed)
        )
        return self.make(worker, "challenge", job, 0, Proof(hashed, keccak(b"cid"), (INPUT, closing)))

    def wealth(self) -> int:
        """All that there is, wherever it lies."""
        state = self.machine.state
        bonds = sum(bond.active + bond.unbonding for bond in state.bonds.values())
        fees = sum(job.fee_wei for job in state.jobs.values() if not job.phase.is_terminal)
        held = sum(hold.amount for hold in state.holds) + sum(state.compensations.values())
        return bonds + held + fees + sum(state.credits.values()) + state.burnt_wei


def test_machine__one_mind__is_finalised_with_nothing_lost() -> None:
    course = Course()
    job = course.play((TRUE, TRUE, TRUE))
    course.block = Block(course.block.number, course.machine.job_of(job).deadline)
    events = course.make(REQUESTER, "finalise", job)
    assert isinstance(events[-1], JobFinalised)
    assert course.machine.label_of(job, 0) is Label.AGREED
    assert course.machine.state.credits == {**dict.fromkeys(WORKERS, FEE // 3), REQUESTER: FEE - FEE // 3 * 3}
    assert course.wealth() == 3 * STAKE + FEE


def test_machine__proof_against_a_majority__wins_and_half_of_what_is_taken_is_burnt_at_least() -> None:
    course = Course()
    job = course.play((FALSE, FALSE, TRUE))
    assert course.machine.round_of(job, 0).settled_link == FALSE
    events = course.challenge(WORKERS[2], job, TRUE)
    assert any(isinstance(event, SegmentOverturned) for event in events)
    assert course.machine.phase_of(job, course.block.timestamp) is Phase.FINALISABLE
    assert [course.machine.bond_of(worker).active for worker in WORKERS] == [500, 500, 1000]
    holds = tuple(course.machine.state.holds)
    assert [hold.amount for hold in holds] == [500, 500]
    for hold in holds:
        course.block = Block(course.block.number, hold.release_at)
        course.make(REQUESTER, "release", hold)
    assert course.machine.state.burnt_wei == 600
    compensations = (course.machine.compensation_of(WORKERS[2]), course.machine.compensation_of(REQUESTER))
    assert compensations == (300, 100)
    assert course.wealth() == 3 * STAKE + FEE


def test_machine__refused_in_the_middle_of_a_move__has_changed_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    course = Course()
    job = course.play((TRUE, TRUE, TRUE))
    course.block = Block(course.block.number, course.machine.job_of(job).deadline)
    before = course.machine.state.copy()

    def refuse(*_: object) -> None:
        assert course.machine.state != before  # the first members are paid by now
        raise Refused("Test")

    monkeypatch.setattr(course.machine, "commend", refuse)
    with pytest.raises(Refused):
        course.make(REQUESTER, "finalise", job)
    assert course.machine.state == before
    monkeypatch.undo()
    course.make(REQUESTER, "finalise", job)
    assert course.machine.job_of(job).phase is Phase.FINALISED


def test_draw__fewer_workers_than_a_committee_takes__ends_the_job() -> None:
    course = Course(WORKERS[:2])
    job = course.request()
    course.draw(job)
    assert course.machine.job_of(job).phase is Phase.FAILED
    assert course.machine.credit_of(REQUESTER) == FEE


def test_commit__for_a_round_that_is_not_under_way__is_refused() -> None:
    course = Course()
    job = course.request()
    course.draw(job)
    course.make(REQUESTER, "provide_input", job, keccak(b"cid"))
    with pytest.raises(Refused) as caught:
        course.make(WORKERS[0], "commit", job, 0, 1, keccak(b"commitment"))
    assert (caught.value.error, caught.value.arguments) == ("WrongRound", (job, 0, 0))


def test_machine__unknown_job__is_named() -> None:
    course = Course()
    job = JobId(keccak(b"no job"))
    with pytest.raises(Refused) as caught:
        course.machine.job_of(job)
    assert (caught.value.error, caught.value.arguments) == ("UnknownJob", (job,))
    with pytest.raises(Refused) as caught:
        course.make(REQUESTER, "expire", job)
    assert (caught.value.error, caught.value.arguments) == ("WrongPhase", (job, Phase.NONE))


def test_admit__more_cancelled_jobs_than_one_call_passes_over__takes_two_calls() -> None:
    course = Course()
    first = course.request()
    waiting = [course.request(keccak(bytes([number])), FEE) for number in range(70)]
    for job in waiting[:-1]:
        course.make(REQUESTER, "cancel", job)
    course.block = Block(course.block.number, course.machine.job_of(first).deadline)
    course.make(REQUESTER, "expire", first)
    assert course.make(REQUESTER, "admit", MODEL) == ()
    assert course.machine.load_of(MODEL) == (0, 6)
    course.make(REQUESTER, "admit", MODEL)
    assert course.machine.load_of(MODEL) == (1, 0)
    assert course.machine.job_of(waiting[-1]).phase is Phase.REQUESTED


@pytest.mark.parametrize(
    ("changes", "error", "arguments"),
    [
        ({"unbonding_seconds": JOB_SECONDS - 1}, "UnbondingTooShort", (JOB_SECONDS - 1, JOB_SECONDS)),
        ({"minimum_window_seconds": 0}, "WindowOutOfRange", (0, 1, 3600)),
        ({"minimum_window_seconds": 3601}, "WindowOutOfRange", (3601, 1, 3600)),
        ({"max_running_jobs": 0}, "CountIsZero", ("maxRunningJobs",)),
        ({"miss_penalty_bps": 10_001}, "ShareOutOfRange", (10_001,)),
        ({"contradiction_penalty_bps": 10_001}, "ShareOutOfRange", (10_001,)),
        ({"prover_share_bps": 10_001}, "ShareOutOfRange", (10_001,)),
        ({"fault_share_bps": 10_001}, "ShareOutOfRange", (10_001,)),
        ({"challenger_share_bps": 5001}, "ShareOutOfRange", (5001,)),
        ({"challenger_share_bps": 4000, "requester_share_bps": 1001}, "ShareOutOfRange", (5001,)),
    ],
)
def test_machine__parameter_out_of_its_bounds__is_refused(
    changes: dict[str, int], error: str, arguments: tuple[object, ...]
) -> None:
    with pytest.raises(Refused) as caught:
        Machine(Domain(1, REQUESTER, REQUESTER), replace(PARAMETERS, **changes))
    assert (caught.value.error, caught.value.arguments) == (error, arguments)


@given(st.integers(1, 2**70), st.integers(0, 2**68))
def test_bucket_of__higher_fee__is_never_in_a_lower_bucket(fee: int, more: int) -> None:
    assert bucket_of(fee) <= bucket_of(fee + more) <= 255


@given(st.integers(4, 2**63))
def test_bucket_of__a_quarter_more__is_in_another_bucket(fee: int) -> None:
    assert bucket_of(fee) < bucket_of(-(-fee * 5 // 4)) or bucket_of(fee) == 255


def test_phase_of__own_end__comes_before_every_deadline() -> None:
    course = Course()
    job = course.play((TRUE, TRUE, TRUE))
    stored = course.machine.job_of(job)
    assert (stored.phase, stored.evidence_root) == (Phase.CHALLENGEABLE, ZERO_HASH)
    for ends_at, phase in ((stored.deadline - 1, Phase.EXPIRED), (stored.deadline, Phase.FINALISABLE)):
        course.machine.state.jobs[job] = replace(stored, ends_at=ends_at)
        assert course.machine.phase_of(job, ends_at - 1) is Phase.CHALLENGEABLE
        assert course.machine.phase_of(job, ends_at) is phase

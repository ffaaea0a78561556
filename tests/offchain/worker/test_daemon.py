"""The worker's cycle under faults: none of them may stop it, nor cost it a proof that is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.chain.errors import ChainUnreachable, InsufficientFunds
from offchain.errors import UnrecoverableError
from offchain.protocol.duties import Action, Duty, JobView
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Job, JobId, Link, Member, ModelId, Phase, Round
from offchain.proving.port import Proof
from offchain.requester.policy import DEFAULT_POLICY
from offchain.storage.cid import cid_of
from offchain.storage.port import ContentCorrupt, StoreUnreachable
from offchain.storage.sealing import Identity
from offchain.worker import daemon
from offchain.worker.daemon import Settings, Worker
from offchain.worker.memory import Memory, Work

pytestmark = pytest.mark.unit

ME = Address("0x" + "11" * 20)
JOBS = tuple(JobId(bytes([number]) * 32) for number in (1, 2))
LINK = Link(b"\7" * 32)
PROOF = Proof(b"proof", (1, 2))


def failing(*errors: Exception | None) -> Callable[..., None]:
    """Fail as listed, call by call; None and everything behind the list succeed."""
    left = list(errors)

    def call(*arguments: object) -> None:
        error = left.pop(0) if left else None
        if error is not None:
            raise error

    return call


class Outside:
    """Stands in for chain, store and prover, to let any call of theirs fail."""

    def __init__(self) -> None:
        self.head = 1
        self.sent: list[str] = []
        self.proved = 0
        self.before_flush = self.before_put = self.before_send = failing()
        none: dict[str, Any] = {"encryption_key_of": lambda operator: b"", "set_encryption_key": lambda *_: None}
        self.contracts: Any = SimpleNamespace(
            deployment=SimpleNamespace(block=0),
            connection=SimpleNamespace(block_number=lambda: self.head, chain_id=1),
            staking=SimpleNamespace(active_of=lambda operator: 1, **none),
            jobs=SimpleNamespace(prove=self._prove),
        )
        self.store: Any = SimpleNamespace(flush=lambda: self.before_flush(), put=self._put)
        self.executor: Any = SimpleNamespace(prove=self._make_proof)

    def _prove(self, sender: object, job: JobId, segment: int, *rest: object) -> None:
        self.before_send()
        self.sent.append("proof")

    def _put(self, content: bytes) -> str:
        self.before_put()
        return cid_of(content)

    def _make_proof(self, model: ModelId, work: Work, deadline: float, cancellation: object) -> Proof:
        self.proved += 1
        return PROOF


@pytest.fixture
def outside() -> Outside:
    return Outside()


@pytest.fixture
def worker(outside: Outside, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setattr(daemon.EventFollower, "poll", lambda self: ((), 1))
    made = Worker(
        outside.contracts,
        SimpleNamespace(address=ME),  # type: ignore[arg-type]
        outside.store,
        outside.executor,
        Memory(tmp_path / "memory.sqlite"),
        Identity.generate(),
        Settings(1, (), 0.0, 0.0, 1),
    )
    for job in JOBS:
        made._memory.open_job(job)
    return made


@pytest.mark.parametrize("error", [ValueError("no JSON"), OSError("disk full"), ChainUnreachable("rpc", "away")])
def test_run__error_that_may_pass__goes_on(worker: Worker, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    stop, fail = threading.Event(), failing(error)

    def cycle() -> None:
        fail()
        stop.set()

    monkeypatch.setattr(worker, "cycle", cycle)
    worker.run(stop)
    assert stop.is_set()


def test_run__unrecoverable_error__ends(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "cycle", failing(UnrecoverableError("another chain")))
    with pytest.raises(UnrecoverableError):
        worker.run(threading.Event())


@pytest.mark.parametrize("error", [KeyError("odd"), ChainUnreachable("rpc", "away")])
def test_cycle__one_job_fails__attends_to_the_others(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    attended, fail = [], failing(error)

    def attend(job: JobId) -> None:
        attended.append(job)
        fail()

    monkeypatch.setattr(worker, "_attend", attend)
    worker.cycle()
    assert tuple(attended) == JOBS


def test_cycle__node_refuses_content__attends_to_the_jobs(
    worker: Worker, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    attended: list[JobId] = []
    monkeypatch.setattr(worker, "_attend", attended.append)
    outside.before_flush = failing(ContentCorrupt(cid_of(b"meant"), "what came"))
    worker.cycle()
    assert tuple(attended) == JOBS


@pytest.mark.parametrize("error", [RuntimeError("odd"), None])
def test_serve_granted__model_that_breaks_something__is_left_alone(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, error: Exception | None
) -> None:
    model = ModelId(b"\3" * 32)
    worker._grant(model)
    monkeypatch.setattr(worker, "_is_loaded", lambda model: True)
    monkeypatch.setattr(worker, "_serve", failing(error))
    worker._serve_granted()
    assert not worker._granted


def test_serve_granted__model_that_takes_long_to_load__does_not_keep_the_worker_from_its_jobs(
    worker: Worker, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, loaded, attended = ModelId(b"\3" * 32), threading.Event(), []
    outside.executor.circuits = lambda model: loaded.wait(60)
    served: list[ModelId] = []
    monkeypatch.setattr(worker, "_attend", attended.append)
    monkeypatch.setattr(worker, "_serve", served.append)
    worker._grant(model)
    worker.cycle()
    assert tuple(attended) == JOBS
    assert not served
    loaded.set()
    worker._loading[model].result()
    worker.cycle()
    assert served == [model]


def test_serve_granted__account_cannot_pay__tries_again_later(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ModelId(b"\3" * 32)
    worker._grant(model)
    monkeypatch.setattr(worker, "_is_loaded", lambda model: True)
    monkeypatch.setattr(worker, "_serve", failing(InsufficientFunds("empty")))
    worker._serve_granted()
    assert worker._granted[model] > 0


@pytest.mark.parametrize("where", ["before_put", "before_send"])
def test_attend__proof_cannot_be_sent__sends_the_same_proof_later(
    worker: Worker, outside: Outside, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    remember(worker, JOBS[0])
    monkeypatch.setattr(daemon, "read_job", lambda contracts, job: proving(job))
    setattr(outside, where, failing(StoreUnreachable("ipfs", "away")))
    worker._attend(JOBS[0])
    wait_for_proof(worker)
    worker._attend(JOBS[0])
    assert not outside.sent
    worker._attend(JOBS[0])
    assert (outside.proved, outside.sent, bool(worker._proofs)) == (1, ["proof"], False)


def test_attend__somebody_else_proved__forgets_the_proof(
    worker: Worker, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is left over would keep every later cycle busy, and its memory, for as long as the worker runs."""
    remember(worker, JOBS[0])
    views = [proving(JOBS[0]), proved(JOBS[0])]
    monkeypatch.setattr(daemon, "read_job", lambda contracts, job: views.pop(0))
    worker._attend(JOBS[0])
    assert worker._proofs
    worker._attend(JOBS[0])
    assert not worker._proofs
    assert not outside.sent


@pytest.mark.parametrize(("window", "waits"), [(3600, 8.0), (5, 5 / 8 * 2)])
def test_is_my_turn__windows_of_any_length__comes_before_they_lapse(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, window: int, waits: float
) -> None:
    view = proving(JOBS[0])
    windows = dict.fromkeys(("input_seconds", "commit_seconds", "reveal_seconds", "prove_seconds"), window)
    view = replace(view, job=replace(view.job, policy=replace(DEFAULT_POLICY, committee_size=3, **windows)))
    worker._settings = replace(worker._settings, turn_seconds=4.0)
    now = 1_000.0
    monkeypatch.setattr(daemon, "time", SimpleNamespace(monotonic=lambda: now))
    duty = Duty(Action.SETTLE, 0, rank=2)
    assert not worker._is_my_turn(view, duty)
    now += waits - 0.01
    assert not worker._is_my_turn(view, duty)
    now += 0.02
    assert worker._is_my_turn(view, duty)


def remember(worker: Worker, job: JobId) -> None:
    worker._memory.save(Work(job, 0, 0, LINK, (1,), (2,), LINK, bytes(32)))


def wait_for_proof(worker: Worker) -> None:
    worker._proofs.wait()


def proving(job: JobId) -> JobView:
    """A job of one segment that this worker has to prove."""
    stored = Job(
        job, ME, Phase.PROVING, 0, 1, 1, 0, 1, 0, 10_000, 20_000, 0, ModelId(b"\3" * 32), LINK, ZERO_HASH, ZERO_HASH,
        ZERO_HASH, 1,
        DEFAULT_POLICY, (0,), ZERO_HASH,
    )  # fmt: skip
    member = Member(ME, 1, b"\1" * 32, LINK, b"\2" * 32)
    round_ = Round(1, LINK, 1, ME, ZERO_ADDRESS, False, ZERO_HASH, ZERO_HASH, (member,))
    return JobView(stored, Phase.PROVING, (round_,), 1, 1)


def proved(job: JobId) -> JobView:
    """The same job, once somebody has proved it."""
    view = proving(job)
    return replace(view, rounds=(replace(view.rounds[0], proof_hash=b"\4" * 32, proved_by=ME),))


def test_attend__one_duty_fails__does_the_others(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(daemon, "read_job", lambda contracts, job: proving(job))
    duties = (Duty(Action.RESEAL, 0), Duty(Action.COMMIT, 0))
    monkeypatch.setattr(daemon, "duties_of", lambda view, account: duties)
    done: list[str] = []
    monkeypatch.setattr(worker, "_reseal", failing(StoreUnreachable("ipfs", "away")))
    monkeypatch.setattr(worker, "_commit", lambda view, segment: done.append("committed"))
    worker._attend(JOBS[0])
    assert done == ["committed"]


def test_attend__job_ended_in_blocks_that_were_not_read__keeps_what_was_computed(
    worker: Worker, outside: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stake may be held by a proof that stands in one of them."""
    view = replace(proved(JOBS[0]), phase=Phase.FINALISED, block_number=100)
    monkeypatch.setattr(daemon, "read_job", lambda contracts, job: view)
    outside.contracts.jobs.phase_of = lambda job, block: Phase.FINALISED if block >= 60 else Phase.PROVING
    outside.contracts.jobs.credit_of = outside.contracts.staking.compensation_of = lambda account: 0
    worker._read_to = 60
    worker._attend(JOBS[0])
    assert JOBS[0] in worker._memory.open_jobs()
    worker._read_to = 70
    worker._attend(JOBS[0])
    assert JOBS[0] not in worker._memory.open_jobs()

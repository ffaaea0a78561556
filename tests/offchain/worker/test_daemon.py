"""The worker's cycle under faults: none of them may stop it, nor cost it a proof that is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.chain.errors import ChainUnreachable, InsufficientFunds
from offchain.errors import UnrecoverableError
from offchain.protocol.types import Address, JobId, Link, ModelId
from offchain.proving.port import Proof
from offchain.storage.cid import cid_of
from offchain.storage.port import ContentCorrupt
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

    def _make_proof(self, job: JobId, model: ModelId, work: Work) -> Proof:
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
    monkeypatch.setattr(worker, "_serve", failing(error))
    worker._serve_granted()
    assert not worker._granted


def test_serve_granted__account_cannot_pay__ends(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    worker._grant(ModelId(b"\3" * 32))
    monkeypatch.setattr(worker, "_serve", failing(InsufficientFunds("empty")))
    with pytest.raises(InsufficientFunds):
        worker._serve_granted()

"""Requesters whose jobs wait, on contracts that run one job of a model at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from migrations.ledger import parameters
from migrations.steps import migrate_all
from offchain.chain.contracts import Contracts, read_job
from offchain.chain.errors import TransactionRefused
from offchain.protocol.duties import Action
from offchain.protocol.types import JobId, Phase
from offchain.requester import requester as module
from offchain.requester.requester import Requester
from offchain.storage.sealing import Identity
from tests.contracts.stage import POLICY, STAKES, Play, Stage
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration

ALONE = replace(POLICY, committee_size=1, proof_permille=0)


@pytest.fixture(scope="module")
def narrow(chain: LocalChain, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    record = tmp_path_factory.mktemp("narrow") / "record.json"
    inputs = {**parameters(), "max_running_jobs": 1}
    deployment = migrate_all(chain.sender("narrow deployer"), record, inputs)
    contracts = Contracts.connect(chain.connection, deployment)
    stage = Stage(chain, contracts, chain.instant("narrow requester"), chain.instant("narrow owner"))
    stage.model = stage.register_segments(1)
    stage.workers = tuple(chain.instant(f"narrow worker {index}") for index in range(len(STAKES)))
    for worker, stake_wei in zip(stage.workers, STAKES, strict=True):
        stage.join(worker, stake_wei)
    return stage


@pytest.fixture
def stage(narrow: Stage) -> Iterator[Stage]:
    with narrow.chain.isolated():
        yield narrow


def requester_of(stage: Stage, name: str) -> Requester:
    """A requester that neither stores nor commits to anything here."""
    sender = stage.chain.sender(name)
    return Requester(stage.contracts, None, None, sender, Identity.generate())  # type: ignore[arg-type]


def advance(stage: Stage, requester: Requester, job: JobId) -> Action | None:
    return requester.advance(read_job(stage.contracts, job), ())


def two_jobs(stage: Stage) -> tuple[Play, Play, Requester]:
    """One that runs, and one of another account that waits."""
    second = requester_of(stage, "patient")
    running = stage.request(ALONE)
    waiting = stage.request(ALONE, requester=second._sender)
    assert (running.phase, waiting.phase) == (Phase.REQUESTED, Phase.QUEUED)
    return running, waiting, second


def test_advance__queued_behind_a_running_job__waits(stage: Stage) -> None:
    _, waiting, requester = two_jobs(stage)
    before = stage.chain.head()
    assert advance(stage, requester, waiting.job) is None
    assert waiting.phase is Phase.QUEUED
    assert stage.chain.head() == before  # nothing was sent


def test_advance__job_before_it_ends__admits_it(stage: Stage) -> None:
    running, waiting, requester = two_jobs(stage)
    running.to_challengeable()
    stage.chain.advance(ALONE.challenge_seconds + 1)
    assert advance(stage, requester, waiting.job) is None
    running.finalise()
    assert running.phase is Phase.FINALISED
    assert advance(stage, requester, waiting.job) is Action.ADMIT
    assert waiting.phase is Phase.REQUESTED
    assert stage.contracts.jobs.load_of(stage.model) == (1, 0)


def test_advance__expired_job_holds_the_place__closes_it_and_admits(stage: Stage) -> None:
    running, waiting, requester = two_jobs(stage)
    assert advance(stage, requester, waiting.job) is None
    stage.chain.advance(ALONE.input_seconds + 1)
    assert running.phase is Phase.EXPIRED
    assert advance(stage, requester, waiting.job) is Action.ADMIT
    assert (running.phase, waiting.phase) == (Phase.FAILED, Phase.REQUESTED)


def test_advance__place_was_looked_for_a_moment_ago__does_not_look_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, waiting, requester = two_jobs(stage)
    reads = []
    real = module.read_events
    monkeypatch.setattr(module, "read_events", lambda *given, **named: reads.append(given) or real(*given, **named))
    for _ in range(3):
        assert advance(stage, requester, waiting.job) is None
    assert len(reads) == 1
    stage.chain.advance(module.ROOM_SECONDS)
    assert advance(stage, requester, waiting.job) is None
    assert len(reads) == 2


def test_advance__others_offered_more__has_them_started_first(stage: Stage) -> None:
    running, waiting, requester = two_jobs(stage)
    generous = stage.request(ALONE, fee_wei=10**17)
    stage.chain.advance(ALONE.input_seconds + 1)
    assert advance(stage, requester, waiting.job) is Action.ADMIT
    assert (generous.phase, waiting.phase) == (Phase.REQUESTED, Phase.QUEUED)
    assert running.phase is Phase.FAILED


def test_cancel__queued__is_credited_and_started_is_refused(stage: Stage) -> None:
    running, waiting, requester = two_jobs(stage)
    requester.cancel(waiting.job)
    assert waiting.phase is Phase.FAILED
    assert stage.contracts.jobs.credit_of(requester.address) == waiting.record.fee_wei
    with pytest.raises(TransactionRefused) as refused:
        requester.cancel(running.job)
    assert refused.value.error == "WrongPhase"
    assert advance(stage, requester, waiting.job) is None


def test_cancelled_entry__before_another__is_passed_over(stage: Stage) -> None:
    running, waiting, requester = two_jobs(stage)
    third = stage.request(ALONE, requester=requester._sender)
    requester.cancel(waiting.job)
    stage.chain.advance(ALONE.input_seconds + 1)
    assert advance(stage, requester, third.job) is Action.ADMIT
    assert (running.phase, third.phase) == (Phase.FAILED, Phase.REQUESTED)

"""Jobs that wait: contracts of their own that run one job of a model at a time, beside the network's."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from typer.testing import CliRunner

from api.gateway import Gateway
from api.jobs.history import whole_history
from migrations.ledger import parameters
from migrations.steps import migrate_all
from offchain.chain.contracts import Contracts
from offchain.chain.errors import InsufficientFunds, TransactionNotMined
from offchain.chain.sender import Sender
from offchain.cli.app import app
from offchain.network.local import LocalNetwork
from offchain.protocol.types import JobId, Link, Policy
from offchain.requester.policy import read_policy
from tests.api.gateways import FAST, Documented, MakeGateway, OwnGateway
from tests.api.test_jobs import finished, stream, until
from tests.contracts.stage import Stage
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration

SHORT = read_policy({**FAST, "input_seconds": 5})
LONG = read_policy({**FAST, "input_seconds": 3600})
FEE_WEI = 10**15
_salts = itertools.count(1)


@dataclass(frozen=True)
class Queue:
    """Contracts where one job of a model runs at a time, and a gateway on them."""

    stage: Stage
    own: OwnGateway
    gateway: Gateway
    client: Documented

    def request(self, policy: Policy = LONG) -> str:
        """Request a job of the model from the gateway's account; it attends to it when it reads of it."""
        salt = next(_salts).to_bytes(32, "big")
        requester = self.gateway.jobs._requester
        requester.request(self.stage.model, Link(b"\7" * 32), policy, salt, FEE_WEI)
        return "0x" + requester.job_id(salt).hex()

    def show(self, job: str) -> dict[str, object]:
        answer: dict[str, object] = self.client.get(f"/v1/jobs/{job}").json()
        return answer

    def events(self, job: str) -> list[str]:
        """The names of a job's events, as they are streamed first."""
        events, _, _ = self.gateway.jobs.events(JobId(bytes.fromhex(job[2:])), None)
        return [event.name for event in events]


@pytest.fixture(scope="module")
def stage(network: LocalNetwork, funder: Sender, tmp_path_factory: pytest.TempPathFactory) -> Stage:
    record = tmp_path_factory.mktemp("queue") / "deployment.json"
    chain = LocalChain(network.connection)
    deployed = migrate_all(chain.sender("queue's deployer"), record, {**parameters(), "max_running_jobs": 1})
    owner = chain.sender("queue's owner")
    return Stage(chain, Contracts.connect(network.connection, deployed), owner, owner)  # type: ignore[arg-type]


@pytest.fixture
def queue(stage: Stage, own_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory) -> Queue:
    """A model that nothing runs of, and a gateway that nobody shares."""
    stage.model = stage.register_segments(2, name=f"queued {next(_salts)}")
    record = tmp_path_factory.mktemp("deployment") / "deployment.json"
    stage.contracts.deployment.save(record)
    own = own_gateway(deployment=str(record))
    gateway = own.build()
    return Queue(stage, own, gateway, own.client(gateway))


def test_show_job__queued__says_how_many_run_and_wait(queue: Queue) -> None:
    running, waiting = queue.request(), queue.request()
    assert (queue.show(running)["phase"], queue.show(running)["queue"]) == ("requested", None)
    shown = queue.show(waiting)
    assert (shown["phase"], shown["deadline"], shown["ends_at"], shown["closed_at"]) == ("queued", None, None, None)
    assert shown["queue"] == {"running": 1, "most_running": 1, "waiting": 1}
    assert queue.events(waiting) == ["JobRequested", "JobQueued"]


def test_cancel_job__queued__is_refunded_and_stays_cancelled(queue: Queue) -> None:
    running, waiting = queue.request(), queue.request()
    account = queue.gateway.jobs._requester.address
    for _ in range(2):
        answer = queue.client.delete(f"/v1/jobs/{waiting}")
        shown = answer.json()
        assert (answer.status_code, shown["phase"], shown["reason"], shown["is_over"]) == (
            200,
            "failed",
            "cancelled",
            True,
        )
        assert shown["closed_at"]
    assert queue.stage.contracts.jobs.credit_of(account) == FEE_WEI
    assert queue.events(waiting) == ["JobRequested", "JobQueued", "JobFailed"]
    error = queue.client.delete(f"/v1/jobs/{running}").json()["error"]
    assert (error["type"], error["message"]) == ("not_queued", "the job is requested")


def test_cancel_job__of_another_account__is_refused(queue: Queue, own_gateway: MakeGateway) -> None:
    queue.request()
    waiting = queue.request()
    other = own_gateway(deployment=str(queue.own.config.deployment)).client()
    error = other.delete(f"/v1/jobs/{waiting}").json()["error"]
    requester = queue.gateway.jobs._requester.address
    assert (error["type"], error["message"]) == ("not_requester", f"{requester} requested the job")
    assert queue.show(waiting)["phase"] == "queued"


@pytest.mark.parametrize(
    ("error", "kind"), [(InsufficientFunds("empty"), "out_of_funds"), (TransactionNotMined("cancel", ()), "try_again")]
)
def test_cancel_job__transaction_fails__says_so(
    queue: Queue, monkeypatch: pytest.MonkeyPatch, error: Exception, kind: str
) -> None:
    queue.request()
    waiting = queue.request()

    def fail(job: JobId) -> None:
        raise error

    monkeypatch.setattr(queue.gateway.jobs._requester, "cancel", fail)
    answer = queue.client.delete(f"/v1/jobs/{waiting}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (503, kind)
    assert queue.show(waiting)["phase"] == "queued"


def test_cancel_job__cancelled_meanwhile__is_answered_as_done(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.request()
    waiting = queue.request()
    requester = queue.gateway.jobs._requester
    real = requester.cancel

    def second(job: JobId) -> object:
        real(job)
        return real(job)

    monkeypatch.setattr(requester, "cancel", second)
    answer = queue.client.delete(f"/v1/jobs/{waiting}")
    assert (answer.status_code, answer.json()["reason"]) == (200, "cancelled")


def test_cancel_job__started_meanwhile__is_refused(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    running, waiting = queue.request(SHORT), queue.request()
    jobs, requester, account = queue.stage.contracts.jobs, queue.gateway.jobs._requester, queue.stage.owner
    until(lambda: queue.show(running)["phase"] == "expired")
    real = requester.cancel

    def late(job: JobId) -> object:
        jobs.expire(account, JobId(bytes.fromhex(running[2:])))
        jobs.admit(account, queue.stage.model)
        return real(job)

    monkeypatch.setattr(requester, "cancel", late)
    error = queue.client.delete(f"/v1/jobs/{waiting}").json()["error"]
    assert (error["type"], error["message"]) == ("not_queued", "the job is requested")


def test_events__job_that_waited__begin_with_its_request(queue: Queue) -> None:
    """Its driver has the first job closed when it is too late for its input, and the second one started."""
    queue.request(SHORT)
    waiting = queue.request()
    queue.own.end()
    _, client = queue.own.start()
    until(lambda: client.get(f"/v1/jobs/{waiting}").json()["phase"] == "requested")
    contracts, job = queue.stage.contracts, JobId(bytes.fromhex(waiting[2:]))
    record, head = contracts.jobs.job_of(job), contracts.connection.block_number()
    events = whole_history(contracts, record, head)
    assert [event.name for event in events][:3] == ["JobRequested", "JobQueued", "JobStarted"]
    assert events[0].block_number < record.frozen_block
    with stream(client, f"/v1/jobs/{waiting}/events") as streamed:
        assert [next(streamed)["event"] for _ in range(3)] == ["JobRequested", "JobQueued", "JobStarted"]


def test_interlock_job_cancel__queued__prints_that_it_is_cancelled(queue: Queue) -> None:
    # The job that runs is another account's: the gateway would draw for its own, and end it for want of workers.
    running, waiting = "0x" + queue.stage.request(LONG, FEE_WEI).job.hex(), queue.request()
    queue.own.end()
    process, client = queue.own.start()
    shown = CliRunner().invoke(app, ["job", "show", waiting, "--gateway", process.url])
    assert "1 of 1 jobs of the model run, 1 wait" in " ".join(shown.output.split())
    done = CliRunner().invoke(app, ["job", "cancel", waiting, "--gateway", process.url])
    assert (done.exit_code, "reason: cancelled" in done.output) == (0, True), done.output
    assert finished(client, {"status_url": f"/v1/jobs/{waiting}"})["reason"] == "cancelled"
    late = CliRunner().invoke(app, ["job", "cancel", running, "--gateway", process.url])
    assert late.exit_code == 2
    assert "requested the job" in late.stderr

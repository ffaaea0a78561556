"""Jobs that wait: how many run, who is next, and that nobody can make the queue costly by filling it."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak
from hypothesis import example, given
from hypothesis import strategies as st

from offchain.chain.contracts import Contracts
from offchain.chain.jobs import Jobs
from offchain.chain.staking import Staking
from offchain.protocol.types import JobId, Phase, Reason
from tests.contracts.stage import FEE, POLICY, Play, Stage, refused
from tests.contracts.test_jobs_request import LONGEST_JOB_SECONDS, PARAMETERS, deploy
from tests.local_chain import InstantSender

pytestmark = pytest.mark.integration

MAX_SKIPS = 64


def bucket_of(fee_wei: int) -> int:
    """The bucket of a fee, worked out apart from the contract: four to the octave."""
    octave = fee_wei.bit_length() - 1
    quarter = (4 * fee_wei >> octave) - 4
    return min(4 * octave + quarter, 255)


def with_capacity(stage: Stage, capacity: int) -> Stage:
    """The same stage on contracts where so many jobs of a model may run."""
    jobs = deploy(stage, maxRunningJobs=capacity)
    stage.contracts = Contracts(
        connection=stage.contracts.connection,
        deployment=stage.contracts.deployment,
        registry=stage.contracts.registry,
        verifier=stage.contracts.verifier,
        staking=Staking(stage.chain.connection, jobs.address_of("staking")),
        jobs=jobs,
    )
    for worker in stage.workers:
        stage.join(worker, 2 * 10**18)
    return stage


@pytest.fixture
def narrow(stage: Stage) -> Stage:
    """A stage where one job of a model may run at a time."""
    return with_capacity(stage, 1)


def admit(stage: Stage) -> JobId:
    """Admit the next job; return which it was."""
    jobs = stage.contracts.jobs
    before = stage.contracts.connection.block_number()
    jobs.admit(stage.owner, stage.model)
    started = [arguments for name, arguments in newest(stage) if name == "JobStarted"]
    assert stage.contracts.connection.block_number() == before + 1
    return JobId(started[0]["jobId"]) if started else JobId(b"")


def newest(stage: Stage) -> list[tuple[str, dict[str, object]]]:
    """What the newest block emitted on this stage's own contracts."""
    head = stage.contracts.connection.block_number()
    logs = stage.contracts.jobs.contract.events
    found = []
    for name in ("JobStarted", "JobQueued", "SeedBlockSet", "JobFailed"):
        for log in getattr(logs, name)().get_logs(from_block=head, to_block=head):
            found.append((name, dict(log["args"])))
    return found


def close(play: Play) -> None:
    """End a running job by its lapse."""
    if play.phase is not Phase.EXPIRED:
        play.lapse()
    play.expire()


def test_request__as_many_as_may_run__start_and_the_next_waits(stage: Stage) -> None:
    narrow = with_capacity(stage, 2)
    first, second = narrow.request(), narrow.request()
    assert [play.phase for play in (first, second)] == [Phase.REQUESTED] * 2
    assert narrow.contracts.jobs.load_of(narrow.model) == (2, 0)
    held = narrow.chain.connection.balance(narrow.contracts.jobs.address)
    third = narrow.request()
    ((name, arguments),) = newest(narrow)
    assert (name, arguments) == (
        "JobQueued",
        {"jobId": third.job, "modelId": narrow.model, "bucket": bucket_of(FEE)},
    )
    assert narrow.chain.connection.balance(narrow.contracts.jobs.address) == held + FEE, "it is escrowed all the same"
    record = third.record
    assert (third.phase, record.phase) == (Phase.QUEUED, Phase.QUEUED)
    assert (record.frozen_block, record.seed_block, record.deadline, record.ends_at) == (0, 0, 0, 0)
    assert narrow.contracts.jobs.load_of(narrow.model) == (2, 1)


def test_request__other_model__has_a_queue_of_its_own(narrow: Stage) -> None:
    narrow.request()
    other = narrow.register_segments(1, "other")
    assert narrow.request(model_id=other).phase is Phase.REQUESTED
    assert narrow.contracts.jobs.load_of(other) == (1, 0)


def test_phase_of__queued__never_lapses_and_nothing_can_be_done_to_it(narrow: Stage) -> None:
    narrow.request()
    play = narrow.request()
    narrow.chain.advance(10 * 365 * 24 * 3600)
    assert play.phase is Phase.QUEUED
    for move in (play.draw, play.settle, play.expire, play.finalise, play.provide_input):
        with refused("WrongPhase", jobId=play.job, actual=Phase.QUEUED):
            move()
    with refused("WrongPhase", jobId=play.job, actual=Phase.QUEUED):
        play.jobs.announce(narrow.workers[0], play.job, 0, keccak(b"word"))


def test_admit__room_for_one_more__starts_it_with_all_its_time(narrow: Stage) -> None:
    running, waiting = narrow.request(), narrow.request()
    with refused("NothingToAdmit", modelId=narrow.model, running=1, queued=1):
        narrow.contracts.jobs.admit(narrow.owner, narrow.model)
    close(running)
    assert narrow.contracts.jobs.load_of(narrow.model) == (0, 1)
    narrow.chain.mine(300)
    assert admit(narrow) == waiting.job
    block, now = narrow.chain.head()
    record = waiting.record
    assert (record.frozen_block, record.seed_block, record.phase) == (block - 1, block, Phase.REQUESTED)
    assert (record.deadline, record.ends_at) == (now + POLICY.input_seconds, now + LONGEST_JOB_SECONDS)
    assert [name for name, _ in newest(narrow)] == ["JobStarted", "SeedBlockSet"]
    assert narrow.contracts.jobs.load_of(narrow.model) == (1, 0)
    waiting.draw()
    assert waiting.phase is Phase.AWAITING_INPUT


def test_admit__nobody_waits__is_refused(narrow: Stage) -> None:
    with refused("NothingToAdmit", modelId=narrow.model, running=0, queued=0):
        narrow.contracts.jobs.admit(narrow.owner, narrow.model)
    unknown = keccak(b"unknown")
    with refused("NothingToAdmit", modelId=unknown, running=0, queued=0):
        narrow.contracts.jobs.admit(narrow.owner, unknown)  # type: ignore[arg-type]


def test_request__others_wait__goes_behind_them_though_there_is_room(narrow: Stage) -> None:
    running, waiting = narrow.request(), narrow.request()
    close(running)
    late = narrow.request(fee_wei=FEE)
    assert late.phase is Phase.QUEUED
    assert admit(narrow) == waiting.job


@pytest.mark.parametrize("end", ["finalise", "expire", "fail"])
def test_load_of__job_that_ends_in_any_way__makes_room(narrow: Stage, end: str) -> None:
    play = narrow.request()
    assert narrow.contracts.jobs.load_of(narrow.model) == (1, 0)
    if end == "finalise":
        play.play_on()
        assert play.phase is Phase.FINALISED
    elif end == "expire":
        close(play)
    else:
        play.to_committing().play_round({w.address: (1).to_bytes(32, "big") for w in narrow.workers})  # type: ignore[misc]
        assert play.phase is Phase.FAILED
    assert narrow.contracts.jobs.load_of(narrow.model) == (0, 0)


def test_admit__several_fees__come_by_bucket_and_within_one_in_order(narrow: Stage) -> None:
    running = narrow.request()
    fees = [10**9, 8 * 10**9, 8 * 10**9 + 5, 10**18, 10**9 + 1, 8 * 10**9, 10**20, 2**63, 10**12]
    waiting = [(bucket_of(fee), index, narrow.request(fee_wei=fee).job) for index, fee in enumerate(fees)]
    assert len({bucket for bucket, *_ in waiting}) < len(waiting)
    expected = [job for *_, job in sorted(waiting, key=lambda entry: (-entry[0], entry[1]))]
    admitted = []
    for _ in waiting:
        close(running)
        job = admit(narrow)
        admitted.append(job)
        running = Play(narrow, job, narrow.requester)
    assert admitted == expected
    assert narrow.contracts.jobs.load_of(narrow.model) == (1, 0)


def test_cancel__queued__refunds_all_and_is_passed_over(narrow: Stage) -> None:
    running, cancelled, waiting = narrow.request(), narrow.request(), narrow.request()
    with refused("NotRequester", jobId=cancelled.job, caller=narrow.owner.address):
        narrow.contracts.jobs.cancel(narrow.owner, cancelled.job)
    narrow.contracts.jobs.cancel(narrow.requester, cancelled.job)
    assert newest(narrow) == [
        ("JobFailed", {"jobId": cancelled.job, "reason": Reason.CANCELLED, "refund": FEE}),
    ]
    assert (cancelled.phase, narrow.credits()[narrow.requester.address]) == (Phase.FAILED, FEE)
    assert cancelled.record.closed_at == narrow.chain.head()[1]
    # It keeps its place until its turn: taking it out would cost more the longer the queue is.
    assert narrow.contracts.jobs.load_of(narrow.model) == (1, 2)
    with refused("WrongPhase", jobId=cancelled.job, actual=Phase.FAILED):
        narrow.contracts.jobs.cancel(narrow.requester, cancelled.job)
    close(running)
    assert admit(narrow) == waiting.job
    assert narrow.contracts.jobs.load_of(narrow.model) == (1, 0)


def test_cancel__running__is_refused(narrow: Stage) -> None:
    play = narrow.request()
    with refused("WrongPhase", jobId=play.job, actual=Phase.REQUESTED):
        narrow.contracts.jobs.cancel(narrow.requester, play.job)


def test_admit__more_cancelled_than_one_call_passes_over__takes_another_call(narrow: Stage) -> None:
    running = narrow.request()
    cancelled = [narrow.request() for _ in range(MAX_SKIPS + 1)]
    waiting = narrow.request()
    for play in cancelled:
        narrow.contracts.jobs.cancel(narrow.requester, play.job)
    close(running)
    jobs = narrow.contracts.jobs
    with narrow.chain.isolated():
        # The same call that finds one at its last step starts it.
        assert admit(narrow) == b""
        assert jobs.load_of(narrow.model) == (0, 2)
        assert admit(narrow) == waiting.job
    assert bytes(jobs.contract.functions.admit(narrow.model).call()) == bytes(32)


def test_admit__only_cancelled_ones_left__empties_the_queue(narrow: Stage) -> None:
    running, cancelled = narrow.request(), narrow.request()
    narrow.contracts.jobs.cancel(narrow.requester, cancelled.job)
    close(running)
    assert narrow.request().phase is Phase.QUEUED, "as far as anybody knows, one waits"
    assert admit(narrow) != b""
    assert narrow.contracts.jobs.load_of(narrow.model) == (1, 0)


@pytest.fixture
def spare(stage: Stage) -> InstantSender:
    return stage.chain.instant("spare")


def test_queue__a_thousand_waiting__costs_as_much_as_one(narrow: Stage) -> None:
    """Nobody can make requests, admissions or cancellations costly, or impossible, by filling the queue."""
    jobs, model = narrow.contracts.jobs, narrow.model

    def gas_of_turn() -> tuple[int, int, int]:
        """Requesting one, requesting and cancelling another, and admitting the first."""
        with narrow.chain.isolated():
            # The same salts each time: a zero in them would cost less.
            narrow.request(fee_wei=2**70, salt=b"\1" * 32)
            requested = gas_of_newest(narrow)
            play = narrow.request(fee_wei=2**70, salt=b"\2" * 32)
            cancelled = jobs.cancel(narrow.requester, play.job).gas_used
            close(running)
            admitted = jobs.admit(narrow.owner, model).gas_used
            return requested, cancelled, admitted

    running = narrow.request()
    narrow.request()
    few = gas_of_turn()
    fill(narrow, 1000)
    assert jobs.load_of(model) == (1, 1001)
    assert gas_of_turn() == few


def fill(stage: Stage, count: int) -> None:
    """Have so many jobs wait, of forty different fees; a hundred in a block, since nothing is asked in between."""
    rpc, salt = stage.chain.rpc, b"a salt that is to be replaced   "
    stage.request(requester=stage.owner, salt=salt)
    data = newest_transaction(stage)["input"]
    assert data.count(salt.hex()) == 1
    rpc("evm_setAutomine", False)
    for index in range(count - 1):
        transaction = {
            "from": stage.owner.address,
            "to": stage.contracts.jobs.address,
            "gas": hex(500_000),
            "value": hex(10**9 * (1 + index % 40)),
            "data": data.replace(salt.hex(), keccak(b"%d" % index).hex()),
        }
        rpc("eth_sendTransaction", transaction)
        if index % 100 == 99 or index == count - 2:
            stage.chain.mine()
    rpc("evm_setAutomine", True)


def newest_transaction(stage: Stage) -> dict[str, str]:
    """The only transaction of the newest block."""
    (transaction,) = stage.chain.rpc("eth_getBlockByNumber", "latest", True)["transactions"]
    return transaction  # type: ignore[no-any-return]


def gas_of_newest(stage: Stage) -> int:
    """Gas of the only transaction of the newest block."""
    receipt = stage.chain.rpc("eth_getTransactionReceipt", newest_transaction(stage)["hash"])
    return int(receipt["gasUsed"], 16)


@given(fee_wei=st.integers(1, 2**80))
@example(1)
@example(2)
@example(3)
@example(4)
@example(2**63)
@example(2**63 + 2**62 + 2**61)
@example(2**200)
def test_bucket_of__any_two_fees__orders_what_is_apart_by_more_than_a_quarter_octave(fee_wei: int) -> None:
    assert bucket_of(fee_wei) <= bucket_of(fee_wei + 1) <= 255
    if bucket_of(2 * fee_wei) < 255:
        assert bucket_of(2 * fee_wei) == bucket_of(fee_wei) + 4


@pytest.mark.parametrize("fee_wei", [1, 2, 3, 4, 5, 6, 7, 8, 10**9, 2**63, 7 * 2**61 - 1, 7 * 2**61, 2**64, 2**90])
def test_request__any_fee__waits_in_the_bucket_that_python_says(stage: Stage, fee_wei: int) -> None:
    jobs: Jobs = deploy(stage, maxRunningJobs=1, minimumFeeWei=0)
    stage.contracts = Contracts(**vars(stage.contracts) | {"jobs": jobs})
    stage.chain.fund(stage.requester.address, 2**100)
    stage.request(fee_wei=1)
    stage.request(fee_wei=fee_wei)
    ((_, arguments),) = newest(stage)
    assert arguments["bucket"] == bucket_of(fee_wei)
    assert PARAMETERS["minimumFeeWei"] > 0

"""What a worker stands by in a round: its output, or a vote that costs nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from offchain.errors import RecoverableError
from offchain.protocol.duties import JobView
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_ADDRESS, ZERO_HASH, Link, Phase
from offchain.worker.executions import Executions
from offchain.worker.executor import BadInput, NoUsableInput
from offchain.worker.memory import Work
from offchain.worker.predictions import predicted_seconds
from tests.offchain.worker.test_daemon import JOBS, LINK, ME, proving

pytestmark = pytest.mark.unit

WINDOW = 100


def committing(seconds_left: int = WINDOW, prove_seconds: int = 300, proof_permille: int = 1000) -> JobView:
    """A job of one segment in which this worker has to commit."""
    view = proving(JOBS[0])
    policy = replace(view.job.policy, commit_seconds=WINDOW, prove_seconds=prove_seconds, proof_permille=proof_permille)
    job = replace(view.job, phase=Phase.COMMITTING, policy=policy, deadline=view.timestamp + seconds_left)
    member = replace(view.rounds[0].members[0], commitment=ZERO_HASH, link=Link(ZERO_HASH))
    round_ = replace(view.rounds[0], prover=ZERO_ADDRESS, settled_link=Link(ZERO_HASH), members=(member,))
    return replace(view, job=job, phase=Phase.COMMITTING, rounds=(round_,))


def executing(execute: Callable[[JobView, int], Work], log_rows: int | None = 10, least: int = 0) -> Executions:
    return Executions(execute, lambda view: None if log_rows is None else (predicted_seconds(log_rows),), least)


def done(view: JobView, segment: int) -> Work:
    return Work(view.job.id, segment, 0, LINK, (1,), (2,), LINK, bytes(32))


def raising(error: Exception) -> Callable[[JobView, int], Work]:
    def execute(view: JobView, segment: int) -> Work:
        raise error

    return execute


def answer(executions: Executions, view: JobView, waiting_proofs: int = 0) -> Work | None:
    """Ask, wait for what that begins, and ask again."""
    first = executions.answer(view, 0, ME, waiting_proofs)
    executions.wait()
    return first or executions.answer(view, 0, ME, waiting_proofs)


def test_answer__input_that_can_be_had__is_the_output() -> None:
    found = answer(executing(done), committing())
    assert found is not None
    assert found.link == LINK


def test_answer__input_that_takes_for_ever__is_asked_for_again_and_voted_on_at_half_time() -> None:
    come = threading.Event()

    def slow(view: JobView, segment: int) -> Work:
        come.wait(60)
        return done(view, segment)

    executions = executing(slow)
    assert executions.answer(committing(), 0, ME, 0) is None
    assert executions.answer(committing(WINDOW // 2 + 1), 0, ME, 0) is None
    vote = executions.answer(committing(WINDOW // 2), 0, ME, 0)
    come.set()
    assert vote is not None
    assert vote.link == UNAVAILABLE


@pytest.mark.parametrize("error", [NoUsableInput("away"), RecoverableError("odd"), ValueError("odder")])
def test_answer__execution_that_fails__is_a_vote_at_half_time_and_no_silence(error: Exception) -> None:
    executions = executing(raising(error))
    assert answer(executions, committing()) is None
    vote = executions.answer(committing(WINDOW // 2), 0, ME, 0)
    assert vote is not None
    assert vote.link == UNAVAILABLE


def test_answer__input_that_the_circuit_refuses__is_a_vote_at_once() -> None:
    vote = answer(executing(raising(BadInput("out of range"))), committing())
    assert vote is not None
    assert vote.link == BAD_INPUT


@pytest.mark.parametrize(
    ("prove_seconds", "log_rows", "least", "waiting", "votes"),
    [
        (300, 10, 301, 0, True),  # less than the operator accepts
        (300, 10, 300, 0, False),
        (5, 14, 0, 0, True),  # 6.4 s at 2^14 rows
        (13, 14, 0, 0, False),
        (13, 14, 0, 1, True),  # another proof is owed already
        (5, None, 0, 0, False),  # nothing is known of the model
    ],
)
def test_answer__windows_to_prove_in__are_refused_if_they_cannot_be_kept(
    prove_seconds: int, log_rows: int | None, least: int, waiting: int, votes: bool
) -> None:
    found = answer(executing(done, log_rows, least), committing(prove_seconds=prove_seconds), waiting)
    assert found is not None
    assert (found.link == BAD_INPUT) is votes


def test_answer__job_without_proofs__is_taken_whatever_its_windows() -> None:
    found = answer(executing(done, 20, 3600), committing(prove_seconds=5, proof_permille=0))
    assert found is not None
    assert found.link == LINK

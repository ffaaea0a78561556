"""Executions beside the worker's cycle: fetching what somebody else pinned may take as long as it likes.

A worker that waited for one job's input would miss the windows of all its other jobs, and anybody could make it wait.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from offchain.errors import InterlockError
from offchain.protocol.duties import JobView
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, JobId, Link
from offchain.worker.asked import Round, round_of
from offchain.worker.executor import BadInput
from offchain.worker.memory import Work

_log = logging.getLogger(__name__)

THREADS = 8
RETRY_SECONDS = 3.0
"""How long an execution that failed is left alone before it is tried again."""
MARGIN = 2
"""Predicted proving times were seen to be off by half on a busy machine."""

Execute = Callable[[JobView, int], Work]


class Executions:
    """What one worker computes, or says instead.

    Args:
        execute: computes a segment's output.
        prove_seconds: what the proof of each of a job's segments is predicted to take; None if the model is not loaded.
        least_prove_seconds: the shortest window to prove in that the operator accepts, whatever is predicted.
    """

    def __init__(
        self,
        execute: Execute,
        prove_seconds: Callable[[JobView], tuple[float, ...] | None],
        least_prove_seconds: int,
    ) -> None:
        self._execute = execute
        self._prove_seconds = prove_seconds
        self._least_prove_seconds = least_prove_seconds
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="execute")
        self._under_way: dict[Round, Future[Work]] = {}
        self._not_before: dict[Round, float] = {}

    def __bool__(self) -> bool:
        """Whether anything is computed, or waits to be tried again."""
        return bool(self._under_way or self._not_before)

    def wait(self) -> None:
        """Wait until everything under way has ended."""
        for future in tuple(self._under_way.values()):
            future.exception()

    def stop(self) -> None:
        """Start nothing else; what is under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def forget(self, job: JobId) -> None:
        """Drop what was begun for a job."""
        for key in [key for key in (*self._under_way, *self._not_before) if key[0] == job]:
            self._not_before.pop(key, None)
            future = self._under_way.pop(key, None)
            if future is not None:
                future.cancel()

    def answer(self, view: JobView, segment: int, operator: str, waiting_proofs: int) -> Work | None:
        """What to stand by in a round: an output, a vote once it is time for one, or None while there is neither.

        Args:
            waiting_proofs: how many proofs the worker has still to make.
        """
        if self._is_too_short(view, operator, waiting_proofs):
            return _vote(view, segment, BAD_INPUT)
        work = self._try(view, segment)
        if work is None and view.timestamp >= view.job.deadline - view.job.policy.commit_seconds // 2:
            # Whatever keeps it: being silent costs stake, and a vote does not.
            self.forget(view.job.id)
            _log.warning("job %s: segment %d cannot be executed in time", view.job.id.hex()[:8], segment)
            return _vote(view, segment, UNAVAILABLE)
        return work

    def _try(self, view: JobView, segment: int) -> Work | None:
        key = round_of(view, segment)
        if key not in self._under_way:
            if time.monotonic() >= self._not_before.get(key, 0.0):
                self._not_before.pop(key, None)
                self._under_way[key] = self._pool.submit(self._execute, view, segment)
            return None
        if not self._under_way[key].done():
            return None
        future = self._under_way.pop(key)
        error = future.exception()
        if error is None:
            return future.result()
        if isinstance(error, BadInput):
            return _vote(view, segment, BAD_INPUT)
        self._not_before[key] = time.monotonic() + RETRY_SECONDS
        unforeseen = None if isinstance(error, InterlockError) else error
        _log.warning("job %s: segment %d: %s", view.job.id.hex()[:8], segment, error, exc_info=unforeseen)
        return None

    def _is_too_short(self, view: JobView, operator: str, waiting_proofs: int) -> bool:
        """Whether the worker may have to prove more than it can in the job's windows, which it knows beforehand."""
        policy = view.job.policy
        if policy.proof_permille == 0:
            return False
        if policy.prove_seconds < self._least_prove_seconds:
            return True
        predicted = self._prove_seconds(view)
        if predicted is None:
            return False
        mine = [index for index, round_ in enumerate(view.rounds) if round_.member(operator) is not None]
        seconds = sum(predicted[index] for index in mine) + waiting_proofs * max(predicted)
        return policy.prove_seconds < MARGIN * seconds


def _vote(view: JobView, segment: int, link: Link) -> Work:
    where = (view.job.id, segment, view.job.attempts[segment], view.opening(segment))
    return Work(*where, (), (), link, secrets.token_bytes(32))

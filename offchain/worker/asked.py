"""A proof that was asked for, and what it is a proof of."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from offchain.protocol.duties import JobView
from offchain.protocol.types import JobId
from offchain.proving.port import Proof
from offchain.sandbox import Cancellation

Round = tuple[JobId, int, int]
"""A job, a segment and an attempt at it."""


class Asked:
    """A proof that was asked for.

    Args:
        prove: called with the arguments and a cancellation.
        is_early: whether it was asked for before there was a duty to make it.
    """

    def __init__(
        self, pool: ThreadPoolExecutor, prove: Callable[..., Proof], *arguments: object, is_early: bool = False
    ) -> None:
        self.is_early = is_early
        self.cancellation = Cancellation()
        self.future: Future[Proof] = pool.submit(prove, *arguments, self.cancellation)

    @property
    def is_lost(self) -> bool:
        """Whether no proof will come of it."""
        return self.cancellation.is_cancelled or (self.future.done() and self.future.exception() is not None)

    def cancel(self) -> None:
        """End it, wherever it is."""
        self.cancellation.cancel()
        self.future.cancel()


def round_of(view: JobView, segment: int) -> Round:
    """The attempt at a segment that counts."""
    return view.job.id, segment, view.job.attempts[segment]

"""Proofs that a worker owes or wants: made beside its cycle, pinned, announced where that is asked, and sent."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Set
from concurrent.futures import ThreadPoolExecutor

from offchain.chain.contracts import Contracts
from offchain.chain.sender import Sender
from offchain.errors import RecoverableError
from offchain.protocol import hashing
from offchain.protocol.duties import Action, Duty, JobView
from offchain.protocol.types import Address, JobId, ModelId
from offchain.proving.port import Proof
from offchain.storage.cid import cid_to_digest
from offchain.storage.local import CachedStore
from offchain.worker.asked import Asked, Round, round_of
from offchain.worker.early import EarlyBounds, EarlyProofs, Recall
from offchain.worker.executor import Executor
from offchain.worker.memory import Work

_log = logging.getLogger(__name__)

THREADS = 64
"""How many proofs may be asked for at once. They wait for each other in the prover's service."""


class Proofs:
    """The proofs of one worker.

    Args:
        contracts, sender, store: the outside.
        executor: makes the proofs.
        early: begins those that this worker may come to owe.
    """

    def __init__(
        self, contracts: Contracts, sender: Sender, store: CachedStore, executor: Executor, early: EarlyBounds
    ) -> None:
        self._contracts = contracts
        self._sender = sender
        self._store = store
        self._executor = executor
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="prove")
        self._made: dict[Round, Asked] = {}
        self._early = EarlyProofs(early, self._ask_early)

    def __bool__(self) -> bool:
        """Whether anything is made, waiting or not sent yet."""
        return bool(self._made)

    def __len__(self) -> int:
        """How many proofs are made, waiting or not sent yet."""
        return len(self._made)

    def __contains__(self, key: Round) -> bool:
        return key in self._made

    def wait(self) -> None:
        """Wait until everything under way is made or has failed."""
        for asked in tuple(self._made.values()):
            asked.future.exception()

    def stop(self) -> None:
        """End every proof."""
        for asked in self._made.values():
            asked.cancel()
        self._early.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def keep_only(self, job: JobId, due: Set[Round]) -> None:
        """Drop the proofs that a job does not need any more, made, under way or waiting."""
        for key in [key for key in self._made if key[0] == job and key not in due]:
            self._made.pop(key).cancel()

    def make(self, model: ModelId, work: Work, seconds: float) -> Asked:
        """Ask for a proof that belongs to no duty, and is needed in so many seconds."""
        return Asked(self._pool, self._executor.prove, model, work, time.monotonic() + seconds)

    def attend_early(self, view: JobView, due: Set[Round], recall: Recall) -> None:
        """Begin the proofs that this worker may come to owe for a job, and end those that it cannot any more.

        Args:
            due: those that it owes or wants.
            recall: what it computed for a segment.
        """
        self._early.attend(view, Address(self._sender.address), due, recall)

    def _ask_early(self, view: JobView, work: Work) -> Asked:
        return Asked(self._pool, self._executor.prove, view.job.model_id, work, math.inf, is_early=True)

    def attend(self, view: JobView, duty: Duty, work: Work) -> None:
        """Start a proof, or announce or send one that is made. It is kept until the chain has it.

        Raises:
            ProverFailed: it took too long or too much memory; the next call starts another.
            StoreUnreachable, ChainUnreachable, TransactionRefused: the same proof is sent again by the next call.
        """
        key = round_of(view, duty.segment)
        asked = self._made.get(key) or self._early.take(key)
        if asked is None:
            self._made[key] = self.make(view.job.model_id, work, _seconds_left(view, duty))
            return
        self._made[key] = asked
        future = asked.future
        if not future.done():
            if asked.is_early:  # each time: it may not even have come to the prover when it was begun
                self._executor.hasten(asked.cancellation, time.monotonic() + _seconds_left(view, duty))
            return
        if future.exception() is not None:
            self._made.pop(key).future.result()  # raises
        self._send(view, duty, future.result())

    def _send(self, view: JobView, duty: Duty, proof: Proof) -> None:
        job, segment = view.job.id, duty.segment
        if not self._is_announced(view, segment, proof):
            return
        cid = cid_to_digest(self._store.put(proof.to_json()))
        jobs = self._contracts.jobs
        send: Callable[..., object] = jobs.challenge if duty.action is Action.CHALLENGE else jobs.prove
        send(self._sender, job, segment, proof.proof, proof.instances, cid)
        del self._made[round_of(view, segment)]
        _log.info("job %s: %sd segment %d", job.hex()[:8], duty.action.value, segment)

    def _is_announced(self, view: JobView, segment: int, proof: Proof) -> bool:
        """Whether the chain takes the proof from this worker by now; announces it if it was not yet."""
        round_, me = view.rounds[segment], Address(self._sender.address)
        is_open_to_all = view.timestamp + view.job.policy.prove_seconds >= view.job.deadline
        if round_.prover == me and not is_open_to_all:
            return True  # nobody else may, or can have been quicker
        member = round_.member(me)
        if member is None:
            raise RecoverableError(f"segment {segment} is another committee's by now")
        contracts, job = self._contracts, view.job
        announcement = hashing.announcement(
            contracts.connection.chain_id,
            contracts.jobs.address,
            job.id,
            segment,
            job.attempts[segment],
            me,
            hashing.proof_hash(proof.proof, proof.instances),
        )
        if member.announcement == announcement:
            return True
        contracts.jobs.announce(self._sender, job.id, segment, announcement)
        return False


def _seconds_left(view: JobView, duty: Duty) -> float:
    """Until others may prove in the drawn prover's place, at its cost, or until the phase is over."""
    seconds = view.job.deadline - view.timestamp
    if duty.action is Action.PROVE and seconds > view.job.policy.prove_seconds:
        seconds -= view.job.policy.prove_seconds
    return float(seconds)

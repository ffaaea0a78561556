"""The worker's cycle: read events, look at every job it has a part in, do what is due.

The chain decides what is due, so a worker that was killed, or saw a reorganisation, goes on. What it must not lose,
the salt and the output behind each commitment, is on disk before the commitment is sent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from offchain.chain.contracts import Contracts, read_job
from offchain.chain.errors import ChainUnreachable, TransactionRefused
from offchain.chain.events import Event, EventFollower
from offchain.chain.sender import Sender
from offchain.errors import InterlockError, RecoverableError, UnrecoverableError
from offchain.protocol import hashing
from offchain.protocol.duties import Action, Duty, JobView, duties_of
from offchain.protocol.types import ZERO_HASH, Address, JobId, ModelId, is_output
from offchain.storage.cid import cid_to_digest
from offchain.storage.local import CachedStore
from offchain.storage.port import StoreUnreachable
from offchain.storage.sealing import Identity
from offchain.worker.appeals import Appeals
from offchain.worker.asked import round_of
from offchain.worker.candidacy import Candidacy
from offchain.worker.early import EarlyBounds
from offchain.worker.executions import Executions
from offchain.worker.executor import Executor, NotGranted
from offchain.worker.memory import Memory, Work
from offchain.worker.proofs import Proofs

_log = logging.getLogger(__name__)

REORGANISATION_DEPTH = 10
"""How many blocks may be replaced without a worker losing anything."""

LOST_RACES = frozenset(
    {
        "WrongPhase",
        "WrongRound",
        "AlreadyCommitted",
        "AlreadyRevealed",
        "AlreadySealed",
        "AlreadyProved",
        "AlreadyServing",
        "AnnouncementTooFresh",
        "NothingToChallenge",
        "SeedNotReady",
    }
)
"""Refusals that mean only that somebody else, or an earlier life of this worker, was faster."""

WATCH_SECONDS = 5.0
"""How often a job is looked at that has no committee yet."""

PUT_OFF_SECONDS = 10.0
"""How long a model whose content cannot be had is left alone."""


@dataclass(frozen=True)
class Settings:
    """How a worker behaves; see :class:`offchain.worker.config.WorkerConfig`."""

    stake_wei: int
    models: tuple[str, ...]
    poll_seconds: float
    turn_seconds: float
    claim_above_wei: int
    least_prove_seconds: int = 0
    early_proofs: EarlyBounds = EarlyBounds()


class Worker:
    """One operator's worker.

    Args:
        contracts, sender, store: the outside.
        executor: executes and proves.
        memory: what survives a restart.
        identity: opens what is sealed to this worker.
        candidacy: passes the trials of the models that are served; None where there are none to pass.
    """

    def __init__(
        self,
        contracts: Contracts,
        sender: Sender,
        store: CachedStore,
        executor: Executor,
        memory: Memory,
        identity: Identity,
        settings: Settings,
        candidacy: Candidacy | None = None,
    ) -> None:
        self._candidacy = candidacy
        self._contracts = contracts
        self._sender = sender
        self._store = store
        self._executor = executor
        self._memory = memory
        self._identity = identity
        self._settings = settings
        self._me = Address(sender.address)
        self._follower = EventFollower(contracts, memory.cursor() or contracts.deployment.block, REORGANISATION_DEPTH)
        self._served: set[ModelId] = set()
        self._granted: dict[ModelId, float] = {}
        self._noticed: dict[tuple[JobId, Action, int], float] = {}
        self._proofs = Proofs(contracts, sender, store, executor, settings.early_proofs)
        self._appeals = Appeals(contracts, sender, memory, self._proofs, REORGANISATION_DEPTH)
        # Looked up when called: tests make a worker execute otherwise.
        self._executions = Executions(
            lambda view, segment: self.execute(view, segment),
            lambda view: self._executor.prove_seconds(view),
            settings.least_prove_seconds,
        )
        self._watched: dict[JobId, float] = {}
        self._loader = ThreadPoolExecutor(1, thread_name_prefix="load")
        self._loading: dict[ModelId, Future[object]] = {}
        self._has_stale_weights = False
        self._last_block = -1
        self._read_to = -1

    def run(self, stop: threading.Event) -> None:
        """Work until told to stop. Faults are logged and waited out, unforeseen ones too: whoever stops loses stake.

        Raises:
            UnrecoverableError: the configuration or the chain is wrong; a restart alone will not help.
        """
        pause = self._settings.poll_seconds
        while not stop.is_set():
            try:
                self.cycle()
                pause = self._settings.poll_seconds
            except UnrecoverableError:
                raise
            except Exception as error:
                pause = min(2 * pause, 10.0)
                _log.warning(
                    "this cycle failed and is tried again in %.1f s: %s", pause, error, exc_info=_is_unforeseen(error)
                )
            stop.wait(pause)
        self._appeals.stop()
        self._proofs.stop()
        self._executions.stop()
        self._loader.shutdown(wait=False, cancel_futures=True)
        if self._candidacy is not None:
            self._candidacy.stop()

    def cycle(self) -> None:
        """Do everything that is due at the newest block; nothing, if there is no new one and nothing is under way."""
        head = self._contracts.connection.block_number()
        making = (self._proofs, self._appeals, self._executions)
        busy = (*making, self._noticed, self._granted, self._candidacy, self._watched)
        if head == self._last_block and not any(busy):
            return
        self._enrol()
        self._flush()
        events, cursor = self._follower.poll()
        for event in events:
            self._handle(event)
        self._read_to = cursor - 1
        self._serve_granted()
        self._refresh_weights()
        if self._candidacy is not None:
            self._candidacy.attend_all()
        for job in self._memory.open_jobs():
            self._guarded(job, partial(self._attend, job))
        if self._appeals.attend_all(head):
            self._claim()
        self._watch()
        # Only now: a failure before this line reads the same events again, and so does a restart with grants left.
        if not self._granted:
            self._memory.move_cursor(cursor)
        self._follower.advance(cursor)
        self._last_block = head

    def _guarded(self, job: JobId, step: Callable[[], None]) -> None:
        """Do one thing for a job. Its trouble must not cost the stake on others, nor on what else is due for it."""
        try:
            step()
        except UnrecoverableError:
            raise
        except TransactionRefused as refused:
            level = logging.DEBUG if refused.error in LOST_RACES else logging.WARNING
            _log.log(level, "job %s: %s", job.hex()[:8], refused)
        except Exception as error:
            _log.warning("job %s: %s", job.hex()[:8], error, exc_info=_is_unforeseen(error))

    def _watch(self) -> None:
        """Look after jobs of served models that have no committee yet: whoever asked for one may have left."""
        for job, not_before in tuple(self._watched.items()):
            if time.monotonic() >= not_before:
                self._watched[job] = time.monotonic() + WATCH_SECONDS
                self._guarded(job, partial(self._attend_as_stranger, job))

    def _attend_as_stranger(self, job: JobId) -> None:
        view = read_job(self._contracts, job)
        if view.phase.is_terminal or view.rounds[0].members:
            del self._watched[job]
            return
        for duty in duties_of(view, self._me):
            if self._is_my_turn(view, duty):
                self._fulfil(view, duty)

    def _flush(self) -> None:
        """Send what the node did not take before. What it refuses is no reason to leave the jobs alone."""
        try:
            self._store.flush()
        except StoreUnreachable:
            raise
        except RecoverableError as error:
            _log.warning("kept for the next cycle: %s", error)

    # --- taking part ------------------------------------------------------------------------------------------------

    def _enrol(self) -> None:
        """Publish the encryption key and bond, once. A bond that was slashed or is unbonding is left alone."""
        staking = self._contracts.staking
        if self._last_block >= 0:
            return
        # The bond first: models are granted to keys that have a bond behind them.
        if staking.active_of(self._me) == 0 and staking.unbonding_of(self._me)[0] == 0:
            staking.bond(self._sender, self._settings.stake_wei)
            _log.info("bonded %d wei", self._settings.stake_wei)
        if staking.encryption_key_of(self._me) != self._identity.encryption_key:
            staking.set_encryption_key(self._sender, self._identity.encryption_key)

    def _handle(self, event: Event) -> None:
        if event.name == "AccessGranted":
            self._grant(ModelId(bytes(event.arguments["modelId"])))
        elif event.name == "CommitteeDrawn" and self._me in event.arguments["operators"]:
            self._memory.open_job(JobId(bytes(event.arguments["jobId"])))
        elif event.name == "JobRequested" and ModelId(bytes(event.arguments["modelId"])) in self._served:
            self._watched.setdefault(JobId(bytes(event.arguments["jobId"])), 0.0)
        elif event.name in ("Slashed", "SlashAppealed") and event.arguments["operator"] == self._me:
            is_new = event.block_number >= self._follower.cursor  # the last blocks are read again each time
            self._has_stale_weights |= is_new and len(self._served) > 1
        elif event.name == "SlashHeld":
            self._appeals.notice(event)

    def _grant(self, model_id: ModelId) -> None:
        """Notice that somebody was granted a model; perhaps this worker was."""
        wanted = self._settings.models
        if model_id not in self._served and (not wanted or model_id.hex() in wanted):
            self._granted.setdefault(model_id, 0.0)

    def _serve_granted(self) -> None:
        """Take up the models that were granted. One that cannot be had now is put off: jobs do not wait for it."""
        for model_id, not_before in tuple(self._granted.items()):
            if time.monotonic() < not_before:
                continue
            try:
                if not self._is_loaded(model_id):
                    continue
                self._serve(model_id)
            except ChainUnreachable:
                raise
            except NotGranted as error:
                _log.info("%s", error)  # another grant announces itself by another event
            except RecoverableError as error:
                _log.warning("model %s is put off: %s", model_id.hex(), error)
                self._granted[model_id] = time.monotonic() + PUT_OFF_SECONDS
                continue
            except UnrecoverableError:
                raise
            except Exception as error:  # anyone may register and grant anything
                _log.warning("model %s is not served: %s", model_id.hex(), error, exc_info=_is_unforeseen(error))
            del self._granted[model_id]

    def _is_loaded(self, model_id: ModelId) -> bool:
        """Load a model beside the cycle: compiling a large one must not cost the stake on jobs under way."""
        if model_id not in self._loading:
            self._loading[model_id] = self._loader.submit(self._executor.circuits, model_id)
        if not self._loading[model_id].done():
            return False
        self._loading.pop(model_id).result()  # raises what went wrong
        return True

    def _refresh_weights(self) -> None:
        """After a slash, or an appeal, weigh as much in other models' draws as there is of the bond."""
        if self._has_stale_weights:
            self._contracts.staking.refresh_weights(self._sender, self._me)
            self._has_stale_weights = False

    def _serve(self, model_id: ModelId) -> None:
        """Enter a model's draws, once it is loaded."""
        if not self._contracts.staking.is_serving(self._me, model_id):
            self._contracts.staking.serve(self._sender, model_id)
        if self._candidacy is not None:
            self._candidacy.enter(model_id)
        self._served.add(model_id)
        _log.info("serving model %s", model_id.hex())

    # --- attending to a job -----------------------------------------------------------------------------------------

    def _attend(self, job: JobId) -> None:
        view = read_job(self._contracts, job)
        if view.phase.is_terminal:
            self._close(view)
        duties = duties_of(view, self._me)
        due = {(duty.action, duty.segment) for duty in duties}
        self._noticed = {key: since for key, since in self._noticed.items() if key[0] != job or key[1:] in due}
        proofs = {round_of(view, segment) for action, segment in due if action in (Action.PROVE, Action.CHALLENGE)}
        self._proofs.keep_only(job, proofs)
        for duty in duties:
            if self._is_my_turn(view, duty):
                self._guarded(job, partial(self._fulfil, view, duty))
        self._proofs.attend_early(view, proofs, lambda it: self._memory.work(*round_of(view, it), view.opening(it)))

    def _close(self, view: JobView) -> None:
        """Forget a job once its end is too deep in the chain to be undone; until then its work may be needed again."""
        # Only what was read counts as settled: a proof that took stake for this job may stand in a block that was not.
        job, settled_block = view.job.id, min(view.block_number, self._read_to) - REORGANISATION_DEPTH
        if settled_block < 0 or not self._contracts.jobs.phase_of(job, settled_block).is_terminal:
            return
        self._memory.close_job(job)
        self._executions.forget(job)
        self._claim()

    def _is_my_turn(self, view: JobView, duty: Duty) -> bool:
        if duty.rank == 0:
            return True
        policy = view.job.policy
        shortest = min(policy.input_seconds, policy.commit_seconds, policy.reveal_seconds, policy.prove_seconds)
        # Everybody's turn comes within the first half of any window, however short the windows are.
        turn = min(self._settings.turn_seconds, shortest / (2 * (1 + policy.committee_size)))
        since = self._noticed.setdefault((view.job.id, duty.action, duty.segment), time.monotonic())
        return time.monotonic() - since >= duty.rank * turn

    def _fulfil(self, view: JobView, duty: Duty) -> None:
        jobs, job = self._contracts.jobs, view.job.id
        if duty.action is Action.COMMIT:
            self._commit(view, duty.segment)
        elif duty.action is Action.REVEAL:
            self._reveal(view, duty.segment)
        elif duty.action is Action.RESEAL:
            self._reseal(view, duty.segment)
        elif duty.action in (Action.PROVE, Action.CHALLENGE):
            self._prove(view, duty)
        elif duty.action is Action.DRAW:
            jobs.draw(self._sender, job)
        elif duty.action is Action.SETTLE:
            jobs.settle(self._sender, job)
        elif duty.action is Action.FINALISE:
            jobs.finalise(self._sender, job)
        elif duty.action is Action.EXPIRE:
            jobs.expire(self._sender, job)

    def execute(self, view: JobView, segment: int) -> Work:
        """Compute the output that this worker stands by."""
        return self._executor.execute(view, segment)

    def _commit(self, view: JobView, segment: int) -> None:
        key = round_of(view, segment)
        if self._memory.work(*key, view.opening(segment)) is None:
            answer = self._executions.answer(view, segment, self._me, len(self._proofs))
            if answer is None:
                return  # the next cycle asks again
            self._memory.save(answer)
        work = self._remembered(view, segment)
        commitment = hashing.commitment(
            self._contracts.connection.chain_id,
            self._contracts.jobs.address,
            *key,
            self._me,
            work.link,
            work.salt,
        )
        self._contracts.jobs.commit(self._sender, *key, commitment)
        _log.info("job %s: committed to segment %d", view.job.id.hex()[:8], segment)

    def _reveal(self, view: JobView, segment: int) -> None:
        work = self._remembered(view, segment)
        digest = cid_to_digest(self._executor.seal_output(view, work)) if is_output(work.link) else ZERO_HASH
        self._contracts.jobs.reveal(self._sender, view.job.id, work.link, work.salt, digest)
        _log.info("job %s: revealed segment %d", view.job.id.hex()[:8], segment)

    def _reseal(self, view: JobView, segment: int) -> None:
        cid = self._executor.seal_output(view, self._remembered(view, segment))
        self._contracts.jobs.reseal(self._sender, view.job.id, cid_to_digest(cid))
        _log.info("job %s: sealed the output of segment %d to another committee", view.job.id.hex()[:8], segment)

    def _prove(self, view: JobView, duty: Duty) -> None:
        self._proofs.attend(view, duty, self._remembered(view, duty.segment))

    def _remembered(self, view: JobView, segment: int) -> Work:
        work = self._memory.work(*round_of(view, segment), view.opening(segment))
        if work is None:
            raise RecoverableError(f"what was computed for segment {segment} is lost with the state directory")
        return work

    def _claim(self) -> None:
        jobs, staking, least = self._contracts.jobs, self._contracts.staking, self._settings.claim_above_wei
        if jobs.credit_of(self._me) > least:
            jobs.claim(self._sender)
        if staking.compensation_of(self._me) > least:
            staking.claim_compensation(self._sender)


def _is_unforeseen(error: Exception) -> bool:
    return not isinstance(error, InterlockError)

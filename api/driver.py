"""Sees jobs through: one thread that sends what was accepted, does what is due, and keeps the results.

The chain decides what is due, so the driver may be killed at any instruction: it looks again. A job that the chain does
not know is sent; its salt makes sure that sending it twice cannot make two jobs of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from api.database import Database
from api.jobs.rows import JobRow, JobRows
from api.models.registrar import Registrar
from api.models.rows import ModelRows, Registration
from offchain.chain.contracts import Contracts, read_job
from offchain.chain.errors import TransactionRefused
from offchain.chain.events import Event, EventFollower
from offchain.chain.sender import Sender
from offchain.errors import InterlockError, InvalidInputError, RecoverableError
from offchain.models.publication import announced_keys, grant
from offchain.protocol.duties import JobView
from offchain.protocol.types import ZERO_HASH, JobId, ModelId, Phase
from offchain.requester.requester import Requester
from offchain.storage.cid import cid_to_digest
from offchain.storage.port import ContentStore
from offchain.storage.sealing import EncryptionKey

_log = logging.getLogger(__name__)

FINAL_BLOCKS = 10
"""How long a job that ended is still looked at, in case the chain takes its end back."""
LONGEST_PAUSE_SECONDS = 30.0
CURSOR = "cursor"


class Driver:
    """One thread beside the endpoints.

    Args:
        requester, sender: the gateway's account.
        registrar: knows the identities of the models that were registered here.
        poll_seconds: how often the chain is asked for a new block.
    """

    def __init__(
        self,
        database: Database,
        jobs: JobRows,
        models: ModelRows,
        contracts: Contracts,
        store: ContentStore,
        requester: Requester,
        sender: Sender,
        registrar: Registrar,
        poll_seconds: float,
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._models = models
        self._contracts = contracts
        self._store = store
        self._requester = requester
        self._sender = sender
        self._registrar = registrar
        self._poll_seconds = poll_seconds
        cursor = database.fact(CURSOR)
        self._follower = EventFollower(contracts, contracts.deployment.block if cursor is None else int(cursor))
        self._pauses: dict[bytes, tuple[float, float]] = {}
        self._woken = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="driver", daemon=True)
        self.last_block = -1

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Look at once, instead of at the next block."""
        self._woken.set()

    def stop(self, timeout_seconds: float = 5.0) -> None:
        """End after the step under way; what it leaves undone is done at the next start."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def _run(self) -> None:
        pause = self._poll_seconds
        while not self._stopping.is_set():
            is_woken = self._woken.is_set()
            self._woken.clear()
            try:
                self.cycle(is_woken)
                pause = self._poll_seconds
            except Exception as error:
                # The gateway goes on answering, so its driver goes on trying; health shows the last block it saw.
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                _log.warning("this cycle failed and is tried again in %.1f s: %s", pause, error)
                if not isinstance(error, InterlockError):
                    _log.exception("unforeseen")
            self._woken.wait(pause)

    def cycle(self, is_woken: bool = True) -> None:
        """Do whatever is due at the newest block.

        Args:
            is_woken: do so even if the block was seen before.
        """
        head = self._contracts.connection.block_number()
        if head == self.last_block and not is_woken:
            return
        self._read_events()
        for row in self._jobs.open():
            if self._stopping.is_set():
                return
            self._attempt(row.job, partial(self._attend, row, head))
        for registration in self._models.published():
            assert registration.model is not None
            self._attempt(registration.model, partial(self._grant, registration.model, registration))
        self.last_block = head

    # --- what the chain says ----------------------------------------------------------------------------------------

    def _read_events(self) -> None:
        events, cursor = self._follower.poll()
        for event in events:
            self._handle(event)
        # Only now: a failure before this line reads the same events again.
        self._database.state(CURSOR, str(cursor))
        self._follower.advance(cursor)

    def _handle(self, event: Event) -> None:
        arguments = event.arguments
        if event.name == "EncryptionKeySet":
            self._models.set_key(arguments["operator"], bytes(arguments["encryptionKey"]))
        elif event.name == "ModelRegistered":
            self._models.index(ModelId(bytes(arguments["modelId"])), event.block_number)
        elif event.name == "JobRequested" and arguments["requester"] == self._requester.address:
            self._adopt(JobId(bytes(arguments["jobId"])), ModelId(bytes(arguments["modelId"])), arguments["feeWei"])

    def _adopt(self, job: JobId, model: ModelId, fee_wei: int) -> None:
        """Attend to a job of this account even if the database that accepted it is lost."""
        if self._jobs.get(job) is None:
            self._jobs.add(JobRow(job, None, None, None, model, None, fee_wei, None, is_sent=True))

    # --- doing what is due ------------------------------------------------------------------------------------------

    def _attempt(self, key: bytes, step: Callable[[], None]) -> None:
        """Do one thing; if it fails, it alone is put off, each time for longer."""
        _, not_before = self._pauses.get(key, (0.0, 0.0))
        if time.monotonic() < not_before:
            return
        try:
            step()
            self._pauses.pop(key, None)
        except Exception as error:
            pause = min(2 * self._pauses.get(key, (self._poll_seconds, 0.0))[0], LONGEST_PAUSE_SECONDS)
            self._pauses[key] = (pause, time.monotonic() + pause)
            _log.warning("%s: %s", key.hex()[:8], error, exc_info=not isinstance(error, InterlockError))
            trouble = str(error) if isinstance(error, InterlockError) else "something unforeseen, see the log"
            self._jobs.change(JobId(key), trouble=trouble)

    def _attend(self, row: JobRow, head: int) -> None:
        try:
            view = read_job(self._contracts, row.job)
        except TransactionRefused:
            self._send(row)
            return
        if not row.is_sent:
            self._jobs.change(row.job, is_sent=True)
        if view.phase.is_terminal:
            self._end(row, view, head)
        elif view.phase is not Phase.AWAITING_INPUT or row.elements is not None:
            self._requester.advance(view, row.elements or ())
        if row.trouble is not None:
            self._jobs.change(row.job, trouble=None)
        self._keep_result(row, view)

    def _send(self, row: JobRow) -> None:
        if row.salt is None or row.policy is None or row.elements is None:
            # It was found on the chain, which has taken it back: without its input it cannot be sent again.
            self._jobs.close(row.job)
            return
        try:
            link = self._requester.link_of_input(row.model, row.elements)
            # Whoever reads of the route on the chain is to find it, so its document is pinned first.
            cid = ZERO_HASH if row.route is None else cid_to_digest(self._store.put(row.route))
            self._requester.request(row.model, link, row.policy, row.salt, row.fee_wei, cid)
        except (TransactionRefused, InvalidInputError) as error:
            if isinstance(error, TransactionRefused) and error.error == "unknown":
                raise
            self._jobs.change(row.job, refusal=str(error))
            self._jobs.close(row.job)
            _log.warning("job %s will never be taken: %s", row.job.hex()[:8], error)

    def _end(self, row: JobRow, view: JobView, head: int) -> None:
        if row.ended_block is None:
            self._jobs.change(row.job, ended_block=view.block_number)
            _log.info("job %s: %s", row.job.hex()[:8], view.phase.name.lower())
        elif head >= row.ended_block + FINAL_BLOCKS:
            self._jobs.close(row.job)

    def _keep_result(self, row: JobRow, view: JobView) -> None:
        settled = view.rounds[-1].settled_link
        if view.phase is Phase.FAILED or settled == ZERO_HASH or row.result_of(settled) is not None:
            return
        try:
            self._jobs.change(row.job, result=self._requester.open_result(view).elements)
        except (RecoverableError, InvalidInputError) as error:
            _log.info("the result of job %s: %s", row.job.hex()[:8], error)

    def _grant(self, model: ModelId, registration: Registration) -> None:
        """Seal a model that was registered here to the bonded workers that announced a key since."""
        missing = self._models.keys_without(model)
        if not missing:
            return
        bonded = set(announced_keys(self._contracts))
        keys = tuple(EncryptionKey(key) for key in missing if key in bonded)
        if not keys:
            return
        grant(model, self._registrar.identity(registration), keys, self._store, self._contracts, self._sender)
        self._models.record_grants(model, keys)
        _log.info("model %s granted to %d more workers", model.hex()[:8], len(keys))

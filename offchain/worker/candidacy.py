"""How a worker's stake comes to count: it answers one of the model's trials.

The chain refuses an answer that was shown before the worker had committed to it, so what is found is on disk before the
commitment is sent, and whatever life of the worker comes next shows it. What the chain says to the attempt decides what
is done next: there is no state to get wrong.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from offchain.chain.contracts import Contracts
from offchain.chain.errors import ChainUnreachable, TransactionRefused
from offchain.chain.sender import Sender
from offchain.errors import InterlockError, RecoverableError, UnrecoverableError
from offchain.models.loading import fetch_manifest
from offchain.models.trials import answer_trials
from offchain.protocol import hashing
from offchain.protocol.types import Address, ModelId
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import InputOutOfRange, SegmentCircuit
from offchain.storage.port import ContentReader
from offchain.worker.database import open_database

_log = logging.getLogger(__name__)

REORGANISATION_DEPTH = 10
"""How many blocks may be replaced without an admission being lost."""
PUT_OFF_SECONDS = 10.0
"""How long a model is left alone when something outside fails."""
SELDOM_SECONDS = 600.0
"""How long a model is left alone that admits nobody now."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS candidates (model BLOB PRIMARY KEY, trial INTEGER, answer BLOB, salt BLOB);
"""


class NobodyAdmitted(RecoverableError):
    """No trial of the model is left that this worker could answer."""


class WrongTrial(RecoverableError):
    """What the owner names as a trial's answer is not what the model gives here."""


@dataclass(frozen=True)
class Attempt:
    """An answer to one of a model's trials, and the salt that hides it while it is only committed to."""

    trial: int
    answer: bytes
    salt: bytes


class Candidacies:
    """The models to be admitted to, with the attempts. Every change is on disk before the call returns.

    Args:
        path: the database file; its directory exists.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._database = open_database(path, _SCHEMA)

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def enter(self, model_id: ModelId) -> None:
        """Remember a model; one that is known keeps its attempt."""
        self._do("INSERT INTO candidates (model) VALUES (?) ON CONFLICT DO NOTHING", model_id)

    def leave(self, model_id: ModelId) -> None:
        """Forget a model."""
        self._do("DELETE FROM candidates WHERE model = ?", model_id)

    def models(self) -> tuple[ModelId, ...]:
        """The models that were entered and not left."""
        with self._lock:
            rows = self._database.execute("SELECT model FROM candidates ORDER BY rowid").fetchall()
        return tuple(ModelId(row[0]) for row in rows)

    def save(self, model_id: ModelId, attempt: Attempt | None) -> None:
        """Replace the attempt at a model that was entered."""
        values = (None, None, None) if attempt is None else (attempt.trial, attempt.answer, attempt.salt)
        self._do("UPDATE candidates SET trial = ?, answer = ?, salt = ? WHERE model = ?", *values, model_id)

    def attempt(self, model_id: ModelId) -> Attempt | None:
        """The attempt at a model."""
        statement = "SELECT trial, answer, salt FROM candidates WHERE model = ? AND trial IS NOT NULL"
        with self._lock:
            row = self._database.execute(statement, (model_id,)).fetchone()
        return None if row is None else Attempt(*row)

    def _do(self, statement: str, *values: object) -> None:
        with self._lock, self._database:
            self._database.execute(statement, values)


class Candidacy:
    """One operator's way into the draws of the models that it serves.

    Args:
        contracts, sender, store, prover: the outside.
        circuits: loads a model, once.
        candidacies: what survives a restart.
    """

    def __init__(
        self,
        contracts: Contracts,
        sender: Sender,
        store: ContentReader,
        prover: EzklProver,
        circuits: Callable[[ModelId], tuple[SegmentCircuit, ...]],
        candidacies: Candidacies,
    ) -> None:
        self._contracts = contracts
        self._sender = sender
        self._store = store
        self._prover = prover
        self._circuits = circuits
        self._candidacies = candidacies
        self._me = Address(sender.address)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="trial")
        self._answering: dict[ModelId, Future[Attempt]] = {}
        self._unanswerable: set[tuple[ModelId, int]] = set()
        self._not_before: dict[ModelId, float] = {}
        self._admitted_since: dict[ModelId, int] = {}

    def __bool__(self) -> bool:
        """Whether an answer is being looked for: the next call may find it although no block has come."""
        return bool(self._answering)

    def wait(self) -> None:
        """Wait until every answer under way is found, or cannot be."""
        for future in tuple(self._answering.values()):
            future.exception()

    def stop(self) -> None:
        """Look for no other answer; the search under way ends by itself."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def enter(self, model_id: ModelId) -> None:
        """Remember, on disk, that a model is served and its trial is to be passed."""
        self._candidacies.enter(model_id)

    def attend_all(self) -> None:
        """Attend to every model that was entered, until its admission is too deep in the chain to be undone.

        Raises:
            ChainUnreachable: try again.
        """
        for model_id in self._candidacies.models():
            self.attend(model_id)

    def attend(self, model_id: ModelId) -> bool:
        """Take the next step towards being admitted to a model that is served; called once per block or more often.

        Returns:
            Whether the operator is admitted.

        Raises:
            ChainUnreachable: try again. Everything else is logged and put off: anyone may register anything.
        """
        self._candidacies.enter(model_id)
        if self._contracts.staking.is_admitted(self._me, model_id):
            self._leave_once_settled(model_id)
            return True
        self._admitted_since.pop(model_id, None)
        if time.monotonic() < self._not_before.get(model_id, 0.0):
            return False
        if not self._contracts.staking.is_serving(self._me, model_id):
            return False
        try:
            attempt = self._candidacies.attempt(model_id) or self._find(model_id)
            return attempt is not None and self._show_or_commit(model_id, attempt)
        except (ChainUnreachable, UnrecoverableError):
            raise
        except NobodyAdmitted as error:
            _log.warning("%s", error)
            self._not_before[model_id] = time.monotonic() + SELDOM_SECONDS
        except Exception as error:
            unforeseen = not isinstance(error, InterlockError)
            _log.warning("model %s: its trial is put off: %s", model_id.hex(), error, exc_info=unforeseen)
            self._not_before[model_id] = time.monotonic() + PUT_OFF_SECONDS
        return False

    def _leave_once_settled(self, model_id: ModelId) -> None:
        head = self._contracts.connection.block_number()
        if head - self._admitted_since.setdefault(model_id, head) >= REORGANISATION_DEPTH:
            del self._admitted_since[model_id]
            self._candidacies.leave(model_id)

    # --- an attempt on the chain ------------------------------------------------------------------------------------

    def _show_or_commit(self, model_id: ModelId, attempt: Attempt) -> bool:
        """Show the answer; where the chain knows of no commitment to it, send that first."""
        staking = self._contracts.staking
        try:
            staking.pass_trial(self._sender, model_id, attempt.answer, attempt.salt)
        except TransactionRefused as refused:
            if refused.error == "AlreadyAdmitted":  # an earlier life sent it
                return True
            if refused.error == "BlockNotOver":
                return False
            if refused.error == "TrialCommitmentMismatch":
                self._commit(model_id, attempt)
            elif refused.error == "TrialAnswered":
                self._give_up(model_id, attempt)
            else:
                raise
            return False
        _log.info("model %s: admitted by trial %d", model_id.hex(), attempt.trial)
        return True

    def _commit(self, model_id: ModelId, attempt: Attempt) -> None:
        staking = self._contracts.staking
        commitment = hashing.trial_commitment(
            self._contracts.connection.chain_id,
            staking.address,
            model_id,
            attempt.trial,
            self._me,
            attempt.answer,
            attempt.salt,
        )
        try:
            staking.commit_trial(self._sender, model_id, attempt.trial, commitment)
        except TransactionRefused as refused:
            if refused.error != "TrialAnswered":
                raise
            self._give_up(model_id, attempt)
            return
        _log.info("model %s: committed to trial %d", model_id.hex(), attempt.trial)

    def _give_up(self, model_id: ModelId, attempt: Attempt) -> None:
        _log.info("model %s: somebody else answered trial %d first", model_id.hex(), attempt.trial)
        self._candidacies.save(model_id, None)

    # --- finding an answer ------------------------------------------------------------------------------------------

    def _find(self, model_id: ModelId) -> Attempt | None:
        """Look for an answer beside the cycle, and remember the one that is found; None while it is looked for."""
        if model_id not in self._answering:
            self._answering[model_id] = self._pool.submit(self._answer, model_id)
            return None
        if not self._answering[model_id].done():
            return None
        attempt = self._answering.pop(model_id).result()  # raises what went wrong
        self._candidacies.save(model_id, attempt)
        return attempt

    def _answer(self, model_id: ModelId) -> Attempt:
        trials = fetch_manifest(self._contracts, self._store, model_id).trials
        trial = self._choose(model_id, len(trials.answers))
        try:
            [answer] = answer_trials(trials, [trial], self._circuits(model_id), self._prover)
        except InputOutOfRange as error:
            self._unanswerable.add((model_id, trial))
            raise WrongTrial(f"trial {trial} cannot be run here ({error})") from error
        if hashing.answer_hash(answer) != trials.answer_hashes()[trial]:
            # It would be refused once it is shown, and would have helped nobody but those who copy it.
            self._unanswerable.add((model_id, trial))
            raise WrongTrial(f"trial {trial} has another answer than its owner says")
        return Attempt(trial, answer, secrets.token_bytes(32))

    def _choose(self, model_id: ModelId, count: int) -> int:
        """Choose by chance among the trials that nobody has answered: candidates that come together should part."""
        left = [trial for trial in range(count) if (model_id, trial) not in self._unanswerable]
        while left:
            trial = left.pop(secrets.randbelow(len(left)))
            if self._contracts.staking.trial_answered_at(model_id, trial) == 0:
                return trial
        raise NobodyAdmitted(
            f"model {model_id.hex()} admits nobody any more: each of its {count} trials has been answered, or cannot "
            "be; its owner has to register it again, with others"
        )

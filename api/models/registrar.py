"""Registers accepted models one after the other, in the background and across restarts."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import threading
from pathlib import Path

from api.errors import refusal_of
from api.models.rows import ModelRows, Registration
from api.models.service import describe_refusal
from offchain.chain.contracts import Contracts
from offchain.chain.errors import InsufficientFunds, TransactionRefused
from offchain.chain.sender import Sender
from offchain.errors import InvalidInputError, RecoverableError
from offchain.inference.calibration import load_samples
from offchain.models.preparation import PreparedModel, prepare
from offchain.models.publication import announced_keys, publish
from offchain.models.recipe import Recipe
from offchain.planning.document import read_plan
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import ProverFailed, Srs
from offchain.storage.port import ContentStore
from offchain.storage.sealing import Identity

_log = logging.getLogger(__name__)

MAX_ATTEMPTS = 2
PREPARING_SHARE = 0.8
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 30.0


class Stopped(Exception):
    """The gateway is to end; the registration goes on at the next start."""


class Registrar:
    """One thread that prepares and publishes what was accepted.

    Args:
        uploads: a directory per registration: its files, and what was prepared of them.
        identities: the models' own keys, by registration.
        srs: what new keys are made with; made here if None.
        max_log_rows: the largest circuit that a model may need.
    """

    def __init__(
        self,
        rows: ModelRows,
        contracts: Contracts,
        store: ContentStore,
        prover: EzklProver,
        sender: Sender,
        uploads: Path,
        identities: Path,
        srs: Srs | None,
        max_log_rows: int,
    ) -> None:
        self._rows = rows
        self._contracts = contracts
        self._store = store
        self._prover = prover
        self._sender = sender
        self._uploads = uploads
        self._identities = identities
        self._srs = srs
        self._max_log_rows = max_log_rows
        self._woken = threading.Event()
        self._stopping = threading.Event()
        # A native call may take minutes: the process does not wait for it, and its child ends with it.
        self._thread = threading.Thread(target=self._run, name="registrar", daemon=True)

    def start(self) -> None:
        """Go on with what was under way when the last process ended."""
        for left_over in self._uploads.glob("*.partial"):
            shutil.rmtree(left_over, ignore_errors=True)
        self._thread.start()

    def wake(self) -> None:
        """Look for new registrations."""
        self._woken.set()

    def stop(self, timeout_seconds: float = 2.0) -> None:
        """End at the next step."""
        self._stopping.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout_seconds)

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def identity(self, registration: Registration) -> Identity:
        """The model's own key; made, and on disk, before anything is sealed to it."""
        path = self._identities / f"{registration.id}.age"
        if path.exists() and path.stat().st_size == 0:
            path.unlink()  # a kill came between making and writing it, so nothing is sealed to it
        if not path.exists():
            Identity.generate().save(path)
        return Identity.load(path)

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while not self._stopping.is_set():
            self._woken.clear()
            try:
                waiting = self._rows.unfinished()
                if not waiting:
                    self._woken.wait()
                    continue
                self._register(waiting[0])
                pause = FIRST_PAUSE_SECONDS
            except Stopped:
                return
            except Exception:
                # Only what is outside: whatever concerns a registration alone has made it fail already.
                _log.exception("registering is tried again in %.0f s", pause)
                self._stopping.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _register(self, registration: Registration) -> None:
        try:
            self._publish(registration, self._prepared(registration))
        except (Stopped, InsufficientFunds):
            raise
        except ProverFailed as error:
            attempts = registration.attempts + 1
            self._rows.change(registration.id, attempts=attempts)
            if attempts >= MAX_ATTEMPTS:
                self._fail(registration, InvalidInputError("model", str(error), "cut it into more segments"))
        except TransactionRefused as error:
            self._fail(registration, InvalidInputError("model", str(error), "see the contracts' errors"))
        except RecoverableError:
            raise
        except Exception as error:
            self._fail(registration, error)

    def _prepared(self, registration: Registration) -> PreparedModel:
        """Prepare a model once: sealing is randomised, so doing it again would make another model of it."""
        directory = self._uploads / registration.id
        kept = directory / "prepared"
        if kept.exists():
            # Written by ourselves into a directory that nobody else may enter.
            ready: PreparedModel = pickle.loads(kept.read_bytes())
            return ready
        parameters = registration.parameters
        samples = {
            name: load_samples((directory / name).read_bytes())
            for name in ("calibration", "heldout")
            if (directory / name).exists()
        }
        model, plan = (directory / "model").read_bytes(), directory / "plan"
        prepared = prepare(
            model,
            Recipe(
                parameters.name,
                parameters.segments,
                parameters.cuts,
                self._max_log_rows,
                parameters.max_drift,
                parameters.trials,
                plan=read_plan(plan.read_bytes(), model, self._max_log_rows) if plan.exists() else None,
                search_seconds=parameters.search_seconds,
            ),
            samples["calibration"],
            self._prover,
            heldout=samples.get("heldout"),
            srs=self._srs,
            identity=self.identity(registration),
            progress=lambda step, share: self._progress(registration, step, PREPARING_SHARE * share),
        )
        _write_whole(kept, pickle.dumps(prepared))
        return prepared

    def _publish(self, registration: Registration, prepared: PreparedModel) -> None:
        known = announced_keys(self._contracts)
        model = publish(
            prepared,
            self._store,
            self._contracts,
            self._sender,
            progress=lambda step, share: self._progress(
                registration, step, PREPARING_SHARE + (1 - PREPARING_SHARE) * share
            ),
        )
        self._rows.record_grants(model, known)
        self._rows.index(model, self._contracts.connection.block_number())
        self._rows.change(registration.id, status="done", step="registered", share=1.0, model=model)
        shutil.rmtree(self._uploads / registration.id, ignore_errors=True)
        _log.info("registration %s: model %s", registration.id, model.hex())

    def _progress(self, registration: Registration, step: str, share: float) -> None:
        if self._stopping.is_set():
            raise Stopped
        self._rows.change(registration.id, status="running", step=step, share=share)

    def _fail(self, registration: Registration, error: Exception) -> None:
        _log.warning("registration %s failed: %s", registration.id, error)
        self._rows.change(registration.id, status="failed", error=describe_refusal(refusal_of(error)))
        shutil.rmtree(self._uploads / registration.id, ignore_errors=True)


def _write_whole(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)

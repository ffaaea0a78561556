"""Accepting models for registration and describing the registered ones."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from api.config import GatewayConfig
from api.errors import Fault, Refused
from api.models.rows import ModelRows, Parameters, Registration
from api.models.schemas import (
    MAX_NAME,
    MAX_SEARCH_SECONDS,
    MAX_SEGMENTS,
    AccuracySummary,
    ErrorDetail,
    ModelAnswer,
    ModelList,
    PredictedProof,
    RegistrationAccepted,
    RegistrationAnswer,
    SegmentSummary,
)
from offchain.chain.contracts import Contracts
from offchain.errors import InvalidInputError
from offchain.inference.batching import with_batch
from offchain.inference.calibration import load_samples
from offchain.inference.onnx_model import MAX_BATCH
from offchain.models.recipe import cut_model
from offchain.planning.document import PlannedModel, read_plan
from offchain.protocol.trials import DEFAULT_TRIALS, MAX_TRIALS
from offchain.protocol.types import ModelId
from offchain.requester.requester import Requester
from offchain.sandbox import NativeCallFailed
from offchain.storage.port import ContentCorrupt, ContentUnavailable

_log = logging.getLogger(__name__)

MAX_WAITING = 32
MAX_COUNTED_WORKERS = 64
FILES = ("model", "calibration", "heldout", "plan")
FIELDS = ("name", "segments", "cuts", "max_drift", "trials", "search_seconds", "batch")
DEFAULT_DRIFT = 0.05


class ModelService:
    """The gateway's models.

    Args:
        uploads: directory where files wait until they are registered.
        wake: called when a registration was added.
    """

    def __init__(
        self,
        config: GatewayConfig,
        contracts: Contracts,
        requester: Requester,
        rows: ModelRows,
        uploads: Path,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._contracts = contracts
        self._requester = requester
        self._rows = rows
        self._uploads = uploads
        self._wake = wake

    def accept(self, files: Mapping[str, bytes], texts: Mapping[str, str]) -> tuple[RegistrationAccepted, bool]:
        """Validate a model as far as that is quick, and promise to register it; once per content and parameters.

        Returns:
            The registration, and whether it is a new one.

        Raises:
            Refused, InvalidInputError, NativeCallFailed: nothing was kept.
        """
        files = write_batch(files, texts)
        plan = None
        if "plan" in files and "model" in files:
            plan = read_plan(files["plan"], files["model"], self._config.max_log_rows)
        parameters = read_parameters(files, texts, plan)
        identifier = registration_id(files, parameters)
        registration = self._rows.registration(identifier)
        if registration is not None and registration.status != "failed":
            return _accepted(registration), False
        if len(self._rows.unfinished()) >= MAX_WAITING:
            raise Refused(Fault.TRY_AGAIN, f"{MAX_WAITING} models are waiting already", mend="try again later")
        check_files(files, parameters, plan)
        self._keep(identifier, files)
        is_new = registration is None
        if registration is None:
            registration = self._rows.add(Registration(identifier, parameters))
        else:
            self._rows.change(identifier, status="queued", step="queued", share=0.0, error=None, attempts=0)
        self._wake()
        return _accepted(registration), is_new

    def show_registration(self, identifier: str) -> RegistrationAnswer:
        """Say how a registration stands.

        Raises:
            Refused: ``unknown_registration``.
        """
        found = self._rows.registration(identifier)
        if found is None:
            raise Refused(
                Fault.UNKNOWN_REGISTRATION,
                f"there is no registration {identifier}",
                field="registration",
                mend="use the id that POST /v1/models answered",
            )
        return RegistrationAnswer(
            registration=found.id,
            status=found.status,
            step=found.step,
            share=round(found.share, 4),
            model=None if found.model is None else "0x" + found.model.hex(),
            error=None if found.error is None else ErrorDetail(**found.error),
        )

    def show(self, model: ModelId) -> ModelAnswer:
        """Describe a registered model.

        Raises:
            Refused: ``unknown_model``.
        """
        if not self._contracts.registry.is_registered(model):
            raise Refused(
                Fault.UNKNOWN_MODEL,
                f"0x{model.hex()} is not registered",
                field="model",
                mend="use an id out of GET /v1/models",
            )
        return self._describe(model)

    def list(self, limit: int, offset: int) -> ModelList:
        """Describe the registered models, the newest first."""
        listed, unreadable = [], []
        for model in self._rows.indexed(limit, offset):
            try:
                listed.append(self._describe(model))
            except (InvalidInputError, ContentUnavailable, ContentCorrupt) as error:
                _log.info("model %s: %s", model.hex(), error)
                unreadable.append("0x" + model.hex())
        return ModelList(models=listed, unreadable=unreadable)

    def _describe(self, model: ModelId) -> ModelAnswer:
        manifest = self._requester.manifest(model)
        head = self._contracts.connection.block_number()
        predicted = self._rows.predicted(model) or (None,) * len(manifest.segments)
        drawn = self._contracts.staking.draw(model, head - 1, bytes(32), MAX_COUNTED_WORKERS, [])
        return ModelAnswer(
            model="0x" + model.hex(),
            name=manifest.name,
            input_shape=list(manifest.segments[0].input_shape),
            output_shape=list(manifest.segments[-1].output_shape),
            batch=manifest.batch,
            input_bound=manifest.input_bound,
            segments=[
                SegmentSummary(
                    index=index,
                    operators=segment.operators,
                    input_shape=list(segment.input_shape),
                    output_shape=list(segment.output_shape),
                    input_scale=segment.input_scale,
                    output_scale=segment.output_scale,
                    input_kind=segment.input_kind.name.lower(),
                    output_kind=segment.output_kind.name.lower(),
                    rows=segment.rows,
                    log_rows=segment.log_rows,
                    proof_bytes=segment.proof_bytes,
                    is_exact=not segment.ambiguities,
                    ambiguities=list(segment.ambiguities),
                    closing_link_is_unique=segment.closing_link_is_unique,
                    predicted=None if figures is None else PredictedProof(seconds=figures[0], bytes=figures[1]),
                )
                for index, (segment, figures) in enumerate(zip(manifest.segments, predicted, strict=True))
            ],
            accuracy=AccuracySummary(**asdict(manifest.accuracy)),
            srs_origin=manifest.srs.origin,
            workers=len(drawn),
        )

    def _keep(self, identifier: str, files: Mapping[str, bytes]) -> None:
        """Write the files, on disk as a whole or not at all; the same ones may be there already."""
        partial = self._uploads / f"{identifier}.{secrets.token_hex(4)}.partial"
        partial.mkdir(mode=0o700)
        try:
            for name, content in files.items():
                with (partial / name).open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
            if not (self._uploads / identifier).exists():
                partial.rename(self._uploads / identifier)
        except OSError:
            if not (self._uploads / identifier).exists():  # else another request was faster with the same files
                raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def write_batch(files: Mapping[str, bytes], texts: Mapping[str, str]) -> Mapping[str, bytes]:
    """Replace a model by the same over as many inputs as the field ``batch`` says. What is registered is that file.

    Raises:
        InvalidInputError: naming the node of the model that mixes inputs.
    """
    batch = _whole_number("batch", texts.get("batch", "1"), 1, MAX_BATCH)
    if batch == 1 or "model" not in files:
        return files
    try:
        return {**files, "model": with_batch(files["model"], batch)}
    except NativeCallFailed as error:
        raise InvalidInputError("model", f"reading it failed ({error.kind})", "send a sound ONNX file") from error


def read_parameters(
    files: Mapping[str, bytes], texts: Mapping[str, str], plan: PlannedModel | None = None
) -> Parameters:
    """Validate the form's fields.

    Raises:
        InvalidInputError: naming the field.
    """
    for name in ("model", "calibration"):
        if name not in files:
            raise InvalidInputError(name, "the file is missing", f"send it as the form's part {name}")
    name = texts.get("name", "").strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise InvalidInputError("name", "it is missing, too long, or not printable", f"give 1 to {MAX_NAME} characters")
    if ("segments" in texts) + ("cuts" in texts) + ("plan" in files) != 1:
        problem = "exactly one of segments, cuts and a plan is needed"
        raise InvalidInputError("segments", problem, "send one of the three")
    segments, cuts = None, None
    if "segments" in texts:
        segments = _whole_number("segments", texts["segments"], 1, MAX_SEGMENTS)
    elif "cuts" in texts:
        cuts = tuple(cut.strip() for cut in texts["cuts"].split(","))
        if not all(cuts) or len(cuts) >= MAX_SEGMENTS:
            raise InvalidInputError("cuts", "they are no names", f"name 1 to {MAX_SEGMENTS - 1}, with commas between")
    trials = _whole_number("trials", texts.get("trials", str(DEFAULT_TRIALS)), 0, MAX_TRIALS)
    seconds = _whole_number("search_seconds", texts.get("search_seconds", "0"), 0, MAX_SEARCH_SECONDS)
    if seconds and plan is not None:
        raise InvalidInputError("search_seconds", "a plan has its own settings", "send one of the two")
    if seconds and "heldout" not in files:
        raise InvalidInputError("heldout", "the file is missing", "send samples that a search may bound accuracy on")
    predicted = None
    if plan is not None:
        predicted = tuple((segment.prove_seconds, segment.prove_bytes) for segment in plan.segments)
    drift = _drift(texts.get("max_drift"))
    return Parameters(name, segments, cuts, drift, "heldout" in files, trials, seconds, predicted)


def registration_id(files: Mapping[str, bytes], parameters: Parameters) -> str:
    """The id that the same files with the same parameters always have."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return hashlib.sha256(json.dumps([digests, asdict(parameters)], sort_keys=True).encode()).hexdigest()[:32]


def check_files(files: Mapping[str, bytes], parameters: Parameters, plan: PlannedModel | None) -> None:
    """Validate the files: that the model can be read and cut so, and that the samples fit it.

    Raises:
        InvalidInputError: naming the file, or the place in it.
    """
    try:
        segments = cut_model(files["model"], parameters.segments, parameters.cuts, plan)
        if segments[0].input_shape[0] > 1:
            with_batch(files["model"], 1)  # whose rows must not depend on each other
    except NativeCallFailed as error:
        raise InvalidInputError("model", f"reading it failed ({error.kind})", "send a sound ONNX file") from error
    if len(segments) > MAX_SEGMENTS:
        raise InvalidInputError("segments", f"{len(segments)} are too many", f"ask for at most {MAX_SEGMENTS}")
    for name in ("calibration", "heldout"):
        if name in files:
            try:
                load_samples(files[name], shape=segments[0].input_shape[1:])
            except InvalidInputError as error:
                field = error.field.replace("calibration", name, 1)
                raise InvalidInputError(field, error.problem, error.mend) from error


def _whole_number(field: str, text: str, least: int, most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 4 and least <= int(text) <= most:
        return int(text)
    raise InvalidInputError(field, f"{text[:40]!r} is out of bounds", f"send a whole number, {least} to {most}")


def _drift(text: str | None) -> float:
    try:
        drift = DEFAULT_DRIFT if text is None else float(text)
    except ValueError:
        drift = math.nan
    if not 0 < drift <= 1:
        raise InvalidInputError("max_drift", f"{str(text)[:40]!r} is out of bounds", "send a number above 0, up to 1")
    return drift


def _accepted(registration: Registration) -> RegistrationAccepted:
    return RegistrationAccepted(registration=registration.id, status_url=f"/v1/models/registrations/{registration.id}")


def describe_refusal(refused: Refused) -> dict[str, Any]:
    """What a registration remembers of its failure."""
    detail: dict[str, Any] = refused.body()["error"]
    return detail

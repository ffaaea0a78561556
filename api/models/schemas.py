"""What the model endpoints take and answer."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from offchain.inference.onnx_model import MAX_BATCH
from offchain.protocol.trials import DEFAULT_TRIALS, MAX_TRIALS

MAX_NAME = 100
MAX_SEARCH_SECONDS = 600
MAX_SEGMENTS = 16
"""See ``Policies.MAX_SEGMENTS``."""

UPLOAD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "required": ["model", "calibration", "name"],
    "properties": {
        "model": {"type": "string", "format": "binary", "description": "An ONNX file."},
        "calibration": {
            "type": "string",
            "format": "binary",
            "description": "An .npz file with the array `input` of shape (n, …): typical inputs, extreme ones too; "
            "and optionally `label` (n,).",
        },
        "heldout": {"type": "string", "format": "binary", "description": "The same, for measuring accuracy."},
        "plan": {
            "type": "string",
            "format": "binary",
            "description": "What `interlock model plan --json` wrote of this model: cuts, links, scales and sizes are "
            "taken from it, and tried before they are used. In place of `segments` and `cuts`.",
        },
        "name": {"type": "string", "minLength": 1, "maxLength": MAX_NAME},
        "segments": {"type": "integer", "minimum": 1, "maximum": MAX_SEGMENTS, "description": "Or `cuts`, or a plan."},
        "cuts": {"type": "string", "description": "Names of tensors to cut at, with commas between. Or `segments`."},
        "max_drift": {
            "type": "number",
            "exclusiveMinimum": 0,
            "maximum": 1,
            "default": 0.05,
            "description": "How far outputs in fixed point may be off, relative to the largest output.",
        },
        "search_seconds": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_SEARCH_SECONDS,
            "default": 0,
            "description": "How long to search for the settings that prove fastest within `max_drift` of `heldout`; "
            "0 takes the first that fit. Not with a plan, which has its own.",
        },
        "batch": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_BATCH,
            "default": 1,
            "description": "How many inputs a job takes, and one proof per segment covers: the model is written for "
            "so many; calibration and held-out samples stay single inputs.",
        },
        "trials": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_TRIALS,
            "default": DEFAULT_TRIALS,
            "description": "Questions with known answers, one of which a new worker has to answer before its stake "
            "counts; without any, whoever bonds may serve the model.",
        },
    },
}


class RegistrationAccepted(BaseModel):
    """A model that will be registered, whatever happens to this process."""

    registration: str
    status_url: str


class ErrorDetail(BaseModel):
    """Why something failed; the same fields as in an error's answer."""

    type: str
    message: str
    field: str | None
    mend: str | None


class RegistrationAnswer(BaseModel):
    """How a registration stands."""

    registration: str
    status: str = Field(description="queued, running, done or failed")
    step: str
    share: float = Field(description="How much of the whole is done, 0 to 1.")
    model: str | None
    error: ErrorDetail | None


class PredictedProof(BaseModel):
    """What proving a segment takes, as the plan said that the model was registered by here."""

    seconds: float
    bytes: int


class SegmentSummary(BaseModel):
    """One segment of a model."""

    index: int
    operators: str
    input_shape: list[int]
    output_shape: list[int]
    input_scale: int
    output_scale: int
    input_kind: str
    output_kind: str
    rows: int
    log_rows: int
    proof_bytes: int
    is_exact: bool = Field(description="Whether one input has one output that proves, as the model's owner says.")
    ambiguities: list[str] = Field(description="Why not.")
    closing_link_is_unique: bool = Field(description="Whether equal outputs have one link.")
    predicted: PredictedProof | None


class AccuracySummary(BaseModel):
    """Floating point against fixed point."""

    samples: int
    float_accuracy: float | None
    fixed_accuracy: float | None
    agreement: float
    max_error: float
    source: str


class ModelAnswer(BaseModel):
    """A registered model, as its manifest describes it."""

    model: str
    name: str
    input_shape: list[int]
    output_shape: list[int]
    batch: int = Field(description="How many inputs one job takes: the first dimension of both shapes.")
    input_bound: float = Field(description="Largest absolute value that an input may have.")
    segments: list[SegmentSummary]
    accuracy: AccuracySummary
    srs_origin: str
    workers: int = Field(description="How many workers serve it; counted up to 64.")


class ModelList(BaseModel):
    """Registered models, the newest first."""

    models: list[ModelAnswer]
    unreadable: list[str] = Field(description="Models whose manifest cannot be had now, or is not one.")

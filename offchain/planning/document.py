"""The JSON document of a plan, and its strict reader: what a model may be registered by.

Whoever registers a plan decides how the model is cut, linked and laid out. The figures are predictions, and the
circuits' settings are none of its fields: they are generated again and tried by :mod:`offchain.tuning.following`.
"""

from __future__ import annotations

import hashlib
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from offchain.errors import InvalidInputError
from offchain.planning.layouts import planned_parameters
from offchain.protocol.links import LinkKind
from offchain.proving.port import FixedPoint
from offchain.proving.settings import RunParameters
from offchain.tuning.layout import MAX_LEGS, MAX_RANGE_BITS, MIN_LEGS, MIN_LOG_ROWS

MAX_PLAN_BYTES = 1 << 20
_MEND = "send what `interlock model plan --json` wrote"
_AGAIN = "plan this model again"

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]
Scale = Annotated[int, Field(ge=0, le=127)]
Name = Annotated[str, Field(min_length=1, max_length=1024)]
Kind = Literal["KZG", "POSEIDON", "PUBLIC"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=True)


class Workers(_Strict):
    """Machines that are alike."""

    cores: Count
    memory_bytes: Count
    count: Count


class FixedPointChoice(_Strict):
    """How numbers are held; ``rescales`` says nothing of single segments."""

    input_scale: Annotated[int, Field(ge=1, le=30)]
    param_scale: Annotated[int, Field(ge=1, le=30)]
    rescales: bool


class HeldOut(_Strict):
    """What the plan's fixed point did on held-out samples."""

    samples: Count
    drift: Seconds
    agreement: Share
    float_accuracy: Share | None
    fixed_accuracy: Share | None


class Fewer(_Strict):
    """The best plan of so many segments."""

    segments: Count
    prove_seconds: Seconds | None
    gas: Count


class Figures(_Strict):
    """What proving a segment took."""

    prove_seconds: Seconds
    prove_bytes: Count


class Refused(_Strict):
    """What cannot be proved, and why."""

    name: str
    operator: str
    reason: str


class PlannedSegment(_Strict):
    """One segment: the circuit that is to be made of it, and what that is predicted to cost.

    Attributes:
        start, stop: which of the planner's pieces it is.
        is_rescaled: whether products are brought back to the input's scale.
        legs: digits of a decomposition.
        checks_products: whether products of matrices are claimed, and checked in columns of their own.
        column_blocks: how often the rows are folded.
        ambiguities: what the planner thinks keeps its output from being the only one that can be proved.
        measured: what a proof took where the plan was tried, if it was.
    """

    start: Count
    stop: Count
    is_rescaled: bool
    input_scale: Scale
    output_scale: Scale
    input_kind: Kind
    output_kind: Kind
    log_rows: Annotated[int, Field(ge=MIN_LOG_ROWS, le=26)]
    legs: Annotated[int, Field(ge=MIN_LEGS, le=MAX_LEGS)]
    column_blocks: Annotated[int, Field(ge=1, le=16)]
    rows: Count
    prove_seconds: Seconds
    prove_bytes: Count
    input_elements: Count
    boundary_elements: Count
    gas: Count
    verifier_bytes: Count
    operators: tuple[str, ...]
    checks_products: bool = False
    ambiguities: tuple[str, ...]
    measured: Figures | None = None

    @property
    def is_called_exact(self) -> bool:
        """Whether the planner takes its output for the only one that can be proved, its link apart."""
        return set(self.ambiguities) <= {"KZG link"}


class PlannedModel(_Strict):
    """How one stretch of a model is to be proved.

    Attributes:
        cuts: names of tensors, of the model with its wide layers cut by channels already.
        channel_groups: which layers those are, and into how many parts each is cut.
    """

    opening: Name = Field(validation_alias="from", serialization_alias="from")
    closing: Name = Field(validation_alias="to", serialization_alias="to")
    is_whole: bool
    cuts: tuple[Name, ...]
    channel_groups: dict[Name, Annotated[int, Field(ge=2, le=16)]] = Field(default_factory=dict, max_length=64)
    fixed_point: FixedPointChoice
    critical_seconds: Seconds
    execute_seconds: Seconds
    prove_seconds: Seconds
    total_seconds: Seconds
    peak_bytes: Count
    gas: Count
    accuracy: HeldOut | None
    alternatives: tuple[Fewer, ...]
    segments: Annotated[tuple[PlannedSegment, ...], Field(min_length=1, max_length=16)]

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """Link kind of each boundary, one more than segments."""
        first = LinkKind[self.segments[0].input_kind]
        return (first, *(LinkKind[segment.output_kind] for segment in self.segments))

    def parameters(self, index: int) -> RunParameters:
        """Return what the settings of a segment are generated from."""
        segment = self.segments[index]
        fixed_point = FixedPoint(segment.input_scale, self.fixed_point.param_scale, segment.is_rescaled)
        return planned_parameters(
            (self.kinds[index], self.kinds[index + 1]),
            fixed_point,
            segment.log_rows,
            segment.legs,
            checks_products=segment.checks_products,
        )


class PlanDocument(_Strict):
    """A whole file.

    Attributes:
        model_sha256: of the ONNX file that was planned.
        plans: one per stretch of the model that can be proved.
        unprovable: what lies between them.
    """

    format: Literal["interlock.plan.v1"]
    model_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    workers: tuple[Workers, ...]
    plans: tuple[PlannedModel, ...]
    unprovable: tuple[Refused, ...]


def read_plan(content: bytes, model: bytes, max_log_rows: int = 26) -> PlannedModel:
    """Read the plan of a whole model.

    Args:
        content: the JSON document.
        model: the ONNX file that is to be registered by it.
        max_log_rows: the largest circuit that is made.

    Raises:
        InvalidInputError: naming the field that is wrong, such as ``plan.plans[0].segments[1].log_rows``.
    """
    if len(content) > MAX_PLAN_BYTES:
        raise InvalidInputError("plan", f"{len(content)} bytes are too many", f"keep to {MAX_PLAN_BYTES}")
    try:
        document = PlanDocument.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise InvalidInputError(_field(first["loc"]), first["msg"][:200].lower(), _MEND) from error
    if document.model_sha256 != hashlib.sha256(model).hexdigest():
        raise InvalidInputError("plan.model_sha256", "it is a plan of another model file", _AGAIN)
    if len(document.plans) != 1 or not document.plans[0].is_whole or document.unprovable:
        problem = "it does not cover the whole model, and nothing else would prove the rest"
        raise InvalidInputError("plan.plans", problem, "register a model of which everything can be proved")
    plan = document.plans[0]
    _check_line(plan)
    _check_sizes(plan, max_log_rows)
    return plan


def _field(place: tuple[int | str, ...]) -> str:
    return "plan" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)


def _check_line(plan: PlannedModel) -> None:
    """Check that the segments follow each other: pieces, scales and links."""
    segments, at = plan.segments, "plan.plans[0]"
    if len(plan.cuts) != len(segments) - 1:
        problem = f"{len(plan.cuts)} cuts do not make {len(segments)} segments"
        raise InvalidInputError(f"{at}.cuts", problem, "name one tensor between every two segments")
    if segments[0].input_kind == "POSEIDON":
        raise InvalidInputError(f"{at}.segments[0].input_kind", "a model takes no hashed input", "use KZG or PUBLIC")
    if segments[-1].output_kind != "PUBLIC":
        raise InvalidInputError(f"{at}.segments[-1].output_kind", "the last output must be public", "use PUBLIC")
    if segments[0].start != 0 or any(segment.start >= segment.stop for segment in segments):
        raise InvalidInputError(f"{at}.segments", "they do not cover the model's pieces from the first on", _AGAIN)
    if segments[0].input_scale != plan.fixed_point.input_scale:
        problem = f"it is {segments[0].input_scale}, and the fixed point has {plan.fixed_point.input_scale}"
        raise InvalidInputError(f"{at}.segments[0].input_scale", problem, _AGAIN)
    for index, (left, right) in enumerate(pairwise(segments), start=1):
        pairs: dict[str, tuple[object, object]] = {
            "start": (left.stop, right.start),
            "input_scale": (left.output_scale, right.input_scale),
            "input_kind": (left.output_kind, right.input_kind),
        }
        if right.input_kind == "KZG":
            pairs["log_rows"] = (left.log_rows, right.log_rows)
        for name, (before, after) in pairs.items():
            if before != after:
                problem = f"it is {after}, but segment {index - 1} has {before} there"
                raise InvalidInputError(f"{at}.segments[{index}].{name}", problem, _AGAIN)


def _check_sizes(plan: PlannedModel, max_log_rows: int) -> None:
    for index, segment in enumerate(plan.segments):
        field = f"plan.plans[0].segments[{index}]"
        if segment.log_rows > max_log_rows:
            problem = f"it is {segment.log_rows}, and {max_log_rows} are taken here"
            raise InvalidInputError(f"{field}.log_rows", problem, f"plan with --max-log-rows {max_log_rows}")
        if segment.legs * (segment.log_rows - 1) > MAX_RANGE_BITS:
            problem = f"{segment.legs} digits of {segment.log_rows - 1} bits are more than {MAX_RANGE_BITS} bits"
            raise InvalidInputError(f"{field}.legs", problem, _AGAIN)

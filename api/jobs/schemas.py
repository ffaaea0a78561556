"""What the job endpoints take and answer. Amounts are decimal strings of wei, ids and hashes are hex with 0x."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from offchain.requester.policy import DEFAULT_POLICY, MAX_COMMITTEE, MAX_WINDOW_SECONDS, MIN_WINDOW_SECONDS

HASH_PATTERN = "^0x[0-9a-fA-F]{64}$"
_WINDOW: dict[str, Any] = {"type": "integer", "minimum": MIN_WINDOW_SECONDS, "maximum": MAX_WINDOW_SECONDS}
POLICY_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "committee_size": {"type": "integer", "minimum": 1, "maximum": MAX_COMMITTEE},
        "quorum_bps": {"type": "integer", "minimum": 5001, "maximum": 10_000},
        "proof_permille": {"type": "integer", "minimum": 0, "maximum": 1000},
        "input_seconds": _WINDOW,
        "commit_seconds": _WINDOW,
        "reveal_seconds": _WINDOW,
        "prove_seconds": _WINDOW,
    },
    "default": asdict(DEFAULT_POLICY),
}


class JobBody(BaseModel):
    """A job to run."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(pattern=HASH_PATTERN, description="The id of a registered model.")
    input: list[Any] = Field(
        description="Nested lists of numbers in the model's input shape; a leading dimension of 1 may be left out.",
        json_schema_extra={"items": {}},
    )
    policy: dict[str, Any] = Field(
        default_factory=dict,
        description="What evidence is wanted; fields left out have their defaults.",
        json_schema_extra=POLICY_SCHEMA,
    )
    fee_wei: int | str | None = Field(
        default=None, description="What the workers share, in wei; as a string where numbers lose digits."
    )


class JobAccepted(BaseModel):
    """A job that will be run, whatever happens to this process."""

    job: str
    status_url: str
    events_url: str
    receipt_url: str


class MemberAnswer(BaseModel):
    """A member of a segment's committee."""

    operator: str
    stake_wei: str
    has_committed: bool
    has_revealed: bool
    agrees: bool | None = Field(description="With the settled output; null until both are known.")


class SegmentAnswer(BaseModel):
    """How one segment stands."""

    index: int
    label: str = Field(description="What stands behind its output: none, proved, agreed, attested or unproved.")
    link_in: str | None = Field(description="Hash of the commitment to its input.")
    link_out: str | None = Field(description="Hash of the commitment to its output, once settled.")
    stake_for: str = Field(description="Stake that revealed the settled output.")
    stake_total: str = Field(description="Stake of the whole committee.")
    committee: list[MemberAnswer]
    prover: str | None = Field(description="Who was drawn to prove it.")
    proved_by: str | None
    proof_cid: str | None


class ResultAnswer(BaseModel):
    """What the model answered."""

    values: Any = Field(description="Nested lists of numbers in the model's output shape.")
    elements: list[str] = Field(description="The field elements behind the recorded link, as decimal strings.")
    shape: list[int]
    top: int = Field(description="Index of the largest value, in row-major order.")


class JobAnswer(BaseModel):
    """How a job stands, derived from the chain."""

    job: str
    model: str
    phase: str = Field(description="`accepted` before the job is on the chain, then the contract's phase.")
    is_over: bool
    requester: str
    fee_wei: str
    policy: dict[str, int] | None
    segment: int = Field(description="The segment under way.")
    deadline: int | None = Field(description="When the stored phase lapses, in seconds since the epoch.")
    block: int | None = Field(description="At which all of this was read; null before the job is on the chain.")
    segments: list[SegmentAnswer]
    result: ResultAnswer | None = Field(description="Once the last segment is settled, and as long as it can be had.")
    reason: str | None = Field(description="Why the job failed.")
    trouble: str | None = Field(description="What the gateway met when it last attended to the job; it tries again.")

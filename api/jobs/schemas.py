"""What the job endpoints take and answer. Amounts are decimal strings of wei, ids and hashes are hex with 0x."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

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
        "challenge_seconds": _WINDOW,
    },
    "default": asdict(DEFAULT_POLICY),
}


MAX_LATENCY_SECONDS = 7 * 24 * 3600
"""When everything lapses; ``JOB_SECONDS`` in ``Policies.sol``."""


class DemandBody(BaseModel):
    """What is wanted of a job, from which the gateway chooses the policy, or refuses; never something weaker."""

    model_config = ConfigDict(extra="forbid", strict=True)

    criticality: Literal["low", "standard", "critical"] = Field(
        description="What a wrong answer would cost. Low: agreement of a quorum is enough; standard: proofs besides, "
        "drawn at a rate that deters; critical: every segment is proved."
    )
    privacy: Literal["open", "split", "client-head", "attested"] = Field(
        description="Who may see what. Open: workers see what they work on; split: and none sees two segments; the "
        "others cannot be had yet."
    )
    latency_seconds: int = Field(
        ge=1,
        le=MAX_LATENCY_SECONDS,
        description="What may pass from the job's start to its end, if no round has to be held again or contested.",
    )
    proof_permille: int | None = Field(
        default=None, ge=0, le=1000, description="Chance that a segment is proved; the least that deters if left out."
    )


class JobBody(BaseModel):
    """A job to run."""

    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field(pattern=HASH_PATTERN, description="The id of a registered model.")
    input: list[Any] | None = Field(
        default=None,
        description="Nested lists of numbers in the model's input shape; a leading dimension of 1 may be left out.",
    )
    inputs: list[Any] | None = Field(
        default=None,
        description="In place of `input`: a list of inputs, as many as the model's `batch` or fewer; the rest repeats "
        "the last one.",
    )
    policy: dict[str, Any] = Field(
        default_factory=dict,
        description="What evidence is wanted; fields left out have their defaults. Not together with `demand`.",
        json_schema_extra=POLICY_SCHEMA,
    )
    demand: DemandBody | None = Field(
        default=None, description="What is wanted instead of a policy; the gateway chooses one, and says why."
    )
    fee_wei: int | str | None = Field(
        default=None,
        description="What the workers share, in wei; as a string where numbers lose digits. With `demand`, the most.",
    )


def body_schema() -> dict[str, Any]:
    """The schema of :class:`JobBody`, without references, as an OpenAPI document can hold it."""
    schema = JobBody.model_json_schema()
    demand = schema.pop("$defs")["DemandBody"]
    described = schema["properties"]["demand"]
    described["anyOf"] = [demand if "$ref" in option else option for option in described["anyOf"]]
    return schema


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
    agrees: bool | None = Field(description="With the settled output; null until both are known, and for a vote.")
    vote: Literal["unavailable", "bad_input"] | None = Field(
        description="What it revealed in place of an output: its input cannot be had, or cannot be worked on."
    )


class SegmentAnswer(BaseModel):
    """How one segment stands."""

    index: int
    attempt: int = Field(description="Which attempt this is, from 0; committees that did not act are replaced.")
    label: str = Field(
        description="What stands behind its output: none yet, proved, agreed (by at least two), attested, or unproved "
        "(one member's word)."
    )
    is_contested: bool = Field(description="Whether no output has a quorum, and a proof is to decide.")
    overturned: bool = Field(description="Whether a proof replaced what a quorum had agreed on.")
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

    values: Any = Field(description="Nested lists of numbers in `shape`: what the inputs that were sent are answered.")
    elements: list[str] = Field(
        description="The field elements behind the recorded link, as decimal strings; of what filled a batch up too."
    )
    shape: list[int] = Field(description="The model's output shape; in a batch, its first dimension is `inputs`.")
    top: int = Field(description="Index of the first input's largest value, in row-major order.")
    tops: list[int] = Field(description="The same for each input.")
    inputs: int = Field(description="How many inputs were sent.")
    padding: int = Field(description="How often the last one was repeated to fill the batch up.")


class QueueAnswer(BaseModel):
    """Why a job waits: its model's jobs start by fee, and only so many run."""

    running: int = Field(description="Jobs of the model that run.")
    most_running: int = Field(description="How many may.")
    waiting: int = Field(description="Entries of the queue, this job's and cancelled ones included.")


class RouteAnswer(BaseModel):
    """Why a job has its policy."""

    cid: str = Field(description="Of the route document on IPFS: demand, conditions, decision and reasons.")
    reasons: list[str] | None = Field(
        description="A line for each rule; null while the document cannot be had, or if it is not of this job."
    )


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
    ends_at: int | None = Field(
        description="When everything lapses that is not finalisable; null until it has started."
    )
    closed_at: int | None = Field(description="When it was finalised or failed.")
    queue: QueueAnswer | None = Field(description="While it is queued.")
    route: RouteAnswer | None = Field(description="Where the policy was chosen by what was demanded.")
    block: int | None = Field(description="At which all of this was read; null before the job is on the chain.")
    segments: list[SegmentAnswer]
    result: ResultAnswer | None = Field(description="Once the last segment is settled, and as long as it can be had.")
    reason: str | None = Field(description="Why the job failed.")
    trouble: str | None = Field(description="What the gateway met when it last attended to the job; it tries again.")

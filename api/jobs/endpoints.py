"""``/v1/jobs``."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio.to_thread
from fastapi import APIRouter, Depends, Header, Response
from sse_starlette.sse import EventSourceResponse

from api.dependencies import GatewayHere, JobIdHere, JsonBody
from api.errors import UNREACHABLE, Fault, documented
from api.jobs.schemas import JobAccepted, JobAnswer, body_schema
from api.jobs.stream import Place, follow, parse_place

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

KEEP_ALIVE_SECONDS = 15

IdempotencyKey = Annotated[
    str,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Chosen by the client. The same key with the same request is the same job, however often it comes.",
    ),
]


@router.post(
    "",
    status_code=202,
    response_model=JobAccepted,
    summary="Run a model on an input",
    responses={
        200: {"model": JobAccepted, "description": "The same request came before with this key: the same job."},
        **documented(
            Fault.MALFORMED_BODY,
            Fault.IDEMPOTENCY_KEY_MALFORMED,
            Fault.UNKNOWN_MODEL,
            Fault.TOO_FEW_WORKERS,
            Fault.IDEMPOTENCY_KEY_REUSED,
            Fault.BODY_TOO_LARGE,
            Fault.UNSUPPORTED_CONTENT_TYPE,
            Fault.INVALID_INPUT,
            Fault.UNROUTABLE,
            Fault.OUT_OF_FUNDS,
            *UNREACHABLE,
        ),
    },
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {"schema": body_schema()}}}},
)
def submit_job(key: IdempotencyKey, content: JsonBody, gateway: GatewayHere, response: Response) -> JobAccepted:
    """Everything is validated before anything is sent: a refused request costs nothing and leaves nothing behind."""
    job, is_new = gateway.jobs.accept(key, content)
    if not is_new:
        response.status_code = 200
    response.headers["Location"] = job.status_url
    return job


@router.get(
    "/{job}",
    response_model=JobAnswer,
    summary="How a job stands",
    responses=documented(Fault.UNKNOWN_JOB, Fault.INVALID_INPUT, Fault.CHAIN_UNREACHABLE),
)
def show_job(job: JobIdHere, gateway: GatewayHere) -> JobAnswer:
    """Derived from the chain at one block."""
    return gateway.jobs.show(job)


@router.delete(
    "/{job}",
    response_model=JobAnswer,
    summary="Take a queued job back",
    responses=documented(
        Fault.UNKNOWN_JOB,
        Fault.NOT_REQUESTER,
        Fault.NOT_QUEUED,
        Fault.INVALID_INPUT,
        Fault.OUT_OF_FUNDS,
        Fault.TRY_AGAIN,
        Fault.CHAIN_UNREACHABLE,
    ),
)
def cancel_job(job: JobIdHere, gateway: GatewayHere) -> JobAnswer:
    """Its fee is credited to the gateway's account. Doing it twice is doing it once; a job that has started goes on."""
    return gateway.jobs.cancel(job)


def read_place(
    last_event_id: Annotated[
        str | None, Header(alias="Last-Event-ID", description="Go on after this event; from the first one if absent.")
    ] = None,
) -> Place | None:
    """Where an interrupted reader goes on."""
    return None if last_event_id is None else parse_place(last_event_id)


@router.get(
    "/{job}/events",
    summary="Follow a job's events",
    response_class=EventSourceResponse,
    responses={
        200: {
            "description": "Server-sent events: `id` is block-logindex, `event` the contract's event, `data` its "
            "arguments as JSON. Ends after the job's end. After a reorganisation, events of new blocks come again.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        },
        **documented(Fault.UNKNOWN_JOB, Fault.INVALID_INPUT, Fault.CHAIN_UNREACHABLE),
    },
)
async def follow_job(
    job: JobIdHere, gateway: GatewayHere, after: Annotated[Place | None, Depends(read_place)]
) -> EventSourceResponse:
    """Every event of the job in order, from the first one or after ``Last-Event-ID``."""
    await anyio.to_thread.run_sync(gateway.jobs.require, job)

    async def events() -> AsyncIterator[dict[str, Any]]:
        async for event in follow(gateway.jobs, job, after, gateway.stopping, gateway.config.poll_seconds):
            yield {"id": event.id, "event": event.name, "data": json.dumps(event.content)}

    return EventSourceResponse(events(), ping=KEEP_ALIVE_SECONDS)


@router.get(
    "/{job}/receipt",
    summary="The receipt of a job that is over",
    response_model=dict[str, Any],
    responses=documented(Fault.UNKNOWN_JOB, Fault.NO_RECEIPT, Fault.INVALID_INPUT, *UNREACHABLE),
)
def show_receipt(job: JobIdHere, gateway: GatewayHere) -> dict[str, Any]:
    """Where an auditor finds everything; nothing in it has to be believed."""
    return gateway.jobs.receipt(job)

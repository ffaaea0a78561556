"""Every way in which an endpoint can refuse: one shape, one status per type, all of them in the OpenAPI document."""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field, create_model
from starlette.exceptions import HTTPException

from offchain.chain.errors import ChainUnreachable, InsufficientFunds
from offchain.errors import InvalidInputError, RecoverableError
from offchain.storage.port import ContentCorrupt, ContentUnavailable, StoreUnreachable

_log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5


@dataclass(frozen=True)
class _Kind:
    status: int
    meaning: str


class Fault(Enum):
    """The types of errors; the name in lower case is what stands in ``error.type``."""

    MALFORMED_BODY = _Kind(400, "The body cannot be read at all.")
    IDEMPOTENCY_KEY_MALFORMED = _Kind(400, "The Idempotency-Key header is missing, too long, or not visible ASCII.")
    NOT_REQUESTER = _Kind(403, "Another account requested the job.")
    FOREIGN_ORIGIN = _Kind(403, "The request was sent to another host name, or by a page from another place.")
    UNKNOWN_MODEL = _Kind(404, "No such model is registered on the chain.")
    UNKNOWN_JOB = _Kind(404, "No such job exists, neither here nor on the chain.")
    UNKNOWN_REGISTRATION = _Kind(404, "No such registration was made here.")
    NOT_FOUND = _Kind(404, "There is no such path.")
    METHOD_NOT_ALLOWED = _Kind(405, "The path does not take this method.")
    TOO_FEW_WORKERS = _Kind(409, "Fewer workers serve the model than the policy's committee needs.")
    IDEMPOTENCY_KEY_REUSED = _Kind(409, "The same key came before with another request.")
    NO_RECEIPT = _Kind(409, "The job has not ended yet, or never reached the chain.")
    NOT_QUEUED = _Kind(409, "The job does not wait in the queue: only there can it be cancelled.")
    BODY_TOO_LARGE = _Kind(413, "The body, or a file in it, is larger than this gateway takes.")
    UNSUPPORTED_CONTENT_TYPE = _Kind(415, "The body has another content type than the endpoint takes.")
    INVALID_INPUT = _Kind(422, "A field cannot be accepted as it is.")
    UNROUTABLE = _Kind(422, "What is demanded cannot be had here now, and nothing less is put in its place.")
    INTERNAL = _Kind(500, "Something unforeseen; the id in the message is in the gateway's log.")
    CHAIN_UNREACHABLE = _Kind(503, "The chain does not answer; try again.")
    STORE_UNREACHABLE = _Kind(503, "The IPFS node does not answer, or cannot find the content now; try again.")
    OUT_OF_FUNDS = _Kind(503, "The gateway's account cannot pay for the job.")
    TRY_AGAIN = _Kind(503, "Something outside is unwell; try again.")

    @property
    def type(self) -> str:
        """What stands in ``error.type``."""
        return self.name.lower()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.value.status


UNREACHABLE = (Fault.CHAIN_UNREACHABLE, Fault.STORE_UNREACHABLE)
"""What an endpoint may answer that needs both chain and IPFS."""


class Refused(Exception):
    """An answer other than success.

    Args:
        fault: its type.
        message: what is wrong, in one sentence.
        field: the part of the request that is to blame, if one is.
        mend: what to do about it.
    """

    def __init__(self, fault: Fault, message: str, *, field: str | None = None, mend: str | None = None) -> None:
        super().__init__(message)
        self.fault = fault
        self.message = message
        self.field = field
        self.mend = mend

    def body(self) -> dict[str, Any]:
        """The JSON answer."""
        return {
            "error": {"type": self.fault.type, "message": self.message, "field": self.field, "mend": self.mend},
        }


def documented(*faults: Fault) -> dict[int | str, dict[str, Any]]:
    """Describe errors for the OpenAPI document of one endpoint; those that any request may meet are added.

    Args:
        faults: what the endpoint may answer besides success.
    """
    by_status: dict[int, list[Fault]] = {}
    for fault in (*faults, Fault.FOREIGN_ORIGIN, Fault.INTERNAL):
        by_status.setdefault(fault.status, []).append(fault)
    responses: dict[int | str, dict[str, Any]] = {}
    for status, several in sorted(by_status.items()):
        model: Any = _models[several[0]]
        for fault in several[1:]:
            model = model | _models[fault]
        meaning = " ".join(f"`{fault.type}`: {fault.value.meaning}" for fault in several)
        responses[status] = {"model": model, "description": meaning}
    return responses


def _model_of(fault: Fault) -> type[BaseModel]:
    """The answer's schema, with the one value that ``type`` has."""
    name = "".join(part.capitalize() for part in fault.name.split("_"))
    detail = create_model(
        f"{name}Detail",
        type=(Literal[fault.type], ...),
        message=(str, Field(description="What is wrong, in one sentence.")),
        field=(str | None, Field(description="Which part of the request is to blame, for example `input[0][3]`.")),
        mend=(str | None, Field(description="What to do about it.")),
    )
    return create_model(name, error=(detail, ...))


_models = {fault: _model_of(fault) for fault in Fault}


def refusal_of(error: Exception) -> Refused:
    """Say in the API's terms what one of our own errors means to whoever asked."""
    if isinstance(error, Refused):
        return error
    if isinstance(error, InvalidInputError):
        return Refused(Fault.INVALID_INPUT, f"{error.field}: {error.problem}", field=error.field, mend=error.mend)
    if isinstance(error, ChainUnreachable):
        return Refused(Fault.CHAIN_UNREACHABLE, str(error), mend="try again in a few seconds")
    if isinstance(error, (StoreUnreachable, ContentUnavailable, ContentCorrupt)):
        return Refused(Fault.STORE_UNREACHABLE, str(error), mend="try again in a few seconds")
    if isinstance(error, InsufficientFunds):
        return Refused(Fault.OUT_OF_FUNDS, str(error), mend="send the gateway's account more of the chain's currency")
    if isinstance(error, RecoverableError):
        return Refused(Fault.TRY_AGAIN, str(error), mend="try again in a few seconds")
    incident = secrets.token_hex(6)
    _log.error("incident %s", incident, exc_info=error)
    return Refused(
        Fault.INTERNAL, f"something unforeseen happened (incident {incident})", mend="tell the operator the incident"
    )


def answer(refused: Refused) -> JSONResponse:
    """Render a refusal."""
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if refused.fault.status == 503 else None
    return JSONResponse(refused.body(), status_code=refused.fault.status, headers=headers)


def install(app: FastAPI) -> None:
    """Have an application answer every error in the one shape."""

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        return answer(refusal_of(error))

    async def refuse_parameter(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return answer(_refused_parameter(error))

    async def refuse_route(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        fault = {404: Fault.NOT_FOUND, 405: Fault.METHOD_NOT_ALLOWED}.get(error.status_code, Fault.MALFORMED_BODY)
        return answer(Refused(fault, f"{request.method} {request.url.path}: {error.detail}", mend="see /docs"))

    for kind in (Refused, InvalidInputError, RecoverableError, InsufficientFunds, Exception):
        app.add_exception_handler(kind, refuse)
    app.add_exception_handler(RequestValidationError, refuse_parameter)
    app.add_exception_handler(HTTPException, refuse_route)


def _refused_parameter(error: RequestValidationError) -> Refused:
    first = error.errors()[0]
    kind, *names = first["loc"]
    field = ".".join(str(name) for name in names) or str(kind)
    if kind == "header" and field.lower() == "idempotency-key":
        return Refused(
            Fault.IDEMPOTENCY_KEY_MALFORMED,
            f"Idempotency-Key: {first['msg']}",
            field="Idempotency-Key",
            mend="send 1 to 255 visible ASCII characters of your choice, the same ones whenever you repeat the request",
        )
    return Refused(Fault.INVALID_INPUT, f"{field}: {first['msg']}", field=field, mend="see /docs for what it takes")

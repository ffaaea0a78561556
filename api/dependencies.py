"""What endpoints share: the gateway behind them, and bodies that are read no further than their limit."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request
from starlette.types import Message

from api.errors import Fault, Refused
from api.gateway import Gateway
from api.jobs.schemas import HASH_PATTERN
from offchain.protocol.types import JobId, ModelId


def get_gateway(request: Request) -> Gateway:
    """The gateway that the application was made for."""
    gateway: Gateway = request.app.state.gateway
    return gateway


GatewayHere = Annotated[Gateway, Depends(get_gateway)]


def read_job_id(job: Annotated[str, Path(pattern=HASH_PATTERN, description="A job's id.")]) -> JobId:
    """A job's id out of the path."""
    return JobId(bytes.fromhex(job[2:]))


def read_model_id(model: Annotated[str, Path(pattern=HASH_PATTERN, description="A model's id.")]) -> ModelId:
    """A model's id out of the path."""
    return ModelId(bytes.fromhex(model[2:]))


JobIdHere = Annotated[JobId, Depends(read_job_id)]
ModelIdHere = Annotated[ModelId, Depends(read_model_id)]


def require_content_type(request: Request, expected: str) -> None:
    """Refuse a body of another content type.

    Raises:
        Refused: ``unsupported_content_type``.
    """
    actual = request.headers.get("content-type", "")
    if actual.partition(";")[0].strip().lower() != expected:
        raise Refused(
            Fault.UNSUPPORTED_CONTENT_TYPE,
            f"the body's content type is {actual or 'not given'}",
            field="Content-Type",
            mend=f"send {expected}",
        )


def limited(request: Request, max_bytes: int) -> Request:
    """The same request, whose body cannot be read beyond a limit.

    Raises:
        Refused: ``body_too_large``, at once if the request says its length, or while it is read.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes:
        raise too_large("body", max_bytes)
    taken = 0

    async def receive() -> Message:
        nonlocal taken
        message = await request.receive()
        taken += len(message.get("body", b""))
        if taken > max_bytes:
            raise too_large("body", max_bytes)
        return message

    return Request(request.scope, receive)


def too_large(field: str, max_bytes: int) -> Refused:
    """The refusal of a body, or of a file in it."""
    return Refused(
        Fault.BODY_TOO_LARGE, f"{field}: it has more than {max_bytes} bytes", field=field, mend="send less at once"
    )


async def read_json_body(request: Request, gateway: GatewayHere) -> bytes:
    """The bytes of a JSON body."""
    require_content_type(request, "application/json")
    return await limited(request, gateway.config.max_body_bytes).body()


JsonBody = Annotated[bytes, Depends(read_json_body)]

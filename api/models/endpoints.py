"""``/v1/models``."""

from __future__ import annotations

from typing import Annotated

import anyio.to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from api.dependencies import GatewayHere, ModelIdHere, limited, require_content_type, too_large
from api.errors import UNREACHABLE, Fault, Refused, documented
from api.models.schemas import UPLOAD_SCHEMA, ModelAnswer, ModelList, RegistrationAccepted, RegistrationAnswer
from api.models.service import FIELDS, FILES
from offchain.errors import InvalidInputError

router = APIRouter(prefix="/v1/models", tags=["models"])

MAX_FIELD_BYTES = 16_384
FORM_OVERHEAD_BYTES = 1 << 20


@router.post(
    "",
    status_code=202,
    response_model=RegistrationAccepted,
    summary="Register a model",
    responses={
        200: {"model": RegistrationAccepted, "description": "The same files came before with the same parameters."},
        **documented(
            Fault.MALFORMED_BODY,
            Fault.BODY_TOO_LARGE,
            Fault.UNSUPPORTED_CONTENT_TYPE,
            Fault.INVALID_INPUT,
            Fault.TRY_AGAIN,
        ),
    },
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD_SCHEMA}}}},
)
async def register_model(request: Request, gateway: GatewayHere, response: Response) -> RegistrationAccepted:
    """Validated as far as that is quick; compiling and publishing go on afterwards, see the status URL."""
    require_content_type(request, "multipart/form-data")
    files, texts = await _read_form(request, gateway.config.max_model_bytes)
    registration, is_new = await anyio.to_thread.run_sync(gateway.models.accept, files, texts)
    if not is_new:
        response.status_code = 200
    response.headers["Location"] = registration.status_url
    return registration


@router.get(
    "/registrations/{registration}",
    response_model=RegistrationAnswer,
    summary="How a registration stands",
    responses=documented(Fault.UNKNOWN_REGISTRATION, Fault.INVALID_INPUT),
)
def show_registration(
    registration: Annotated[str, Path(pattern="^[0-9a-f]{32}$")], gateway: GatewayHere
) -> RegistrationAnswer:
    """What is under way, and what went wrong."""
    return gateway.models.show_registration(registration)


@router.get(
    "",
    response_model=ModelList,
    summary="Registered models",
    responses=documented(Fault.INVALID_INPUT, *UNREACHABLE),
)
def list_models(
    gateway: GatewayHere,
    limit: Annotated[int, Query(ge=1, le=100)] = 50,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> ModelList:
    """The newest first, whoever registered them."""
    return gateway.models.list(limit, offset)


@router.get(
    "/{model}",
    response_model=ModelAnswer,
    summary="A registered model",
    responses=documented(Fault.UNKNOWN_MODEL, Fault.INVALID_INPUT, *UNREACHABLE),
)
def show_model(model: ModelIdHere, gateway: GatewayHere) -> ModelAnswer:
    """What its manifest says, checked against its id."""
    return gateway.models.show(model)


async def _read_form(request: Request, max_file_bytes: int) -> tuple[dict[str, bytes], dict[str, str]]:
    whole = limited(request, len(FILES) * max_file_bytes + FORM_OVERHEAD_BYTES)
    files: dict[str, bytes] = {}
    texts: dict[str, str] = {}
    try:
        async with whole.form(max_files=16, max_fields=16, max_part_size=MAX_FIELD_BYTES) as form:
            for name, value in form.multi_items():
                is_file = isinstance(value, UploadFile)
                if name not in (FILES if is_file else FIELDS):
                    expected = f"send the files {', '.join(FILES)} and the fields {', '.join(FIELDS)}"
                    raise InvalidInputError(
                        name[:80], f"it is no {'file' if is_file else 'field'} of the form", expected
                    )
                if name in files or name in texts:
                    raise InvalidInputError(name, "it is there more than once", "send it once")
                if isinstance(value, UploadFile):
                    if (value.size or 0) > max_file_bytes:
                        raise too_large(name, max_file_bytes)
                    files[name] = await value.read()
                else:
                    texts[name] = value
    except HTTPException as error:
        raise Refused(
            Fault.MALFORMED_BODY,
            f"the form cannot be read ({error.detail})",
            field="body",
            mend="send multipart/form-data",
        ) from error
    return files, texts

"""The part of Kubo's HTTP interface that Interlock uses, over `KuboNode`.

Loopback only, without accounts, like Kubo's own. What a web page could send from a browser on this machine is
refused, as Kubo does: every call is a POST, to a loopback host name, without an Origin.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from starlette.applications import Starlette
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from offchain.storage.kubo import KUBO_VERSION, KuboFailed, KuboNode, remove

T = TypeVar("T")

_CHUNK_BYTES = 1 << 20
# Every content that nobody has costs a thread for as long as the node runs: Kubo's library cannot be interrupted.
_MAX_UNRESOLVED = 1024
_CID = re.compile(r"(?:/ipfs/)?([A-Za-z0-9]{10,128})")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}


class Refused(Exception):
    """A call that gets an error answer, in the form of Kubo's.

    Args:
        message: what a client shows.
        status: Kubo answers 500 to all but the plainly malformed.
    """

    def __init__(self, message: str, status: int = 500) -> None:
        super().__init__(message)
        self.message = message
        self.status = status


@dataclass
class _Download:
    """A fetch under way, shared by all who ask for the same content, so that asking again costs no more threads."""

    file: Path
    done: asyncio.Future[None]
    waiting: int = field(default=0)


class ApiV0:
    """Request handlers; all state lives on the event loop's thread.

    Args:
        node: the running node.
        fetch_timeout_seconds: how long to look for content that is not here; a request may ask for less.
        max_add_bytes: the largest body of an ``add``.
    """

    def __init__(self, node: KuboNode, fetch_timeout_seconds: float, max_add_bytes: int) -> None:
        self._node = node
        self._max_add_bytes = max_add_bytes
        self._fetch_timeout_seconds = fetch_timeout_seconds
        self._downloads: dict[str, _Download] = {}

    def application(self) -> Starlette:
        """Build the ASGI application."""
        handlers: dict[str, Callable[[Request], Awaitable[Response]]] = {
            "version": self._version,
            "id": self._id,
            "add": self._add,
            "cat": self._cat,
            "pin/ls": self._pin_ls,
            "pin/add": self._pin_add,
            "pin/rm": self._pin_rm,
            "swarm/connect": self._swarm_connect,
            "repo/stat": self._repo_stat,
        }
        routes = [Route(f"/api/v0/{path}", _guarded(handler), methods=["POST"]) for path, handler in handlers.items()]
        hosts = Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False)
        return Starlette(
            routes=routes,
            middleware=[hosts],
            exception_handlers={Refused: _answer_refused, KuboFailed: _answer_failed},
        )

    def abandon(self) -> None:
        """Answer everybody who waits for content that is not here, so that the server can stop."""
        for download in self._downloads.values():
            if not download.done.done():
                download.done.set_exception(Refused("the node is stopping"))

    async def _version(self, request: Request) -> Response:
        repository_version = (self._node.repository / "version").read_text(encoding="ascii").strip()
        return JSONResponse({"Version": KUBO_VERSION, "Commit": "", "Repo": repository_version, "System": ""})

    async def _id(self, request: Request) -> Response:
        addresses = await _in_thread(self._node.addresses)
        return JSONResponse(
            {
                "ID": self._node.peer_id,
                "PublicKey": "",
                "Addresses": list(addresses),
                "AgentVersion": f"kubo/{KUBO_VERSION}/interlock",
                "ProtocolVersion": "ipfs/0.1.0",
            }
        )

    async def _add(self, request: Request) -> Response:
        wanted = {"cid-version": "0", "raw-leaves": "false", "chunker": "size-262144", "pin": "true"}
        for option, only in wanted.items():
            if request.query_params.get(option, only) != only:
                raise Refused(f"this node adds with {option}={only} only", 400)
        only_hash = request.query_params.get("only-hash") == "true"
        capped = Request(request.scope, _capped(request.receive, self._max_add_bytes))
        try:
            async with capped.form(max_files=1, max_fields=0) as form:
                upload = _only_file(form)
                cid, size = await self._add_upload(upload, only_hash)
        except MultiPartException as error:
            raise Refused(f"malformed multipart body: {error.message}", 400) from error
        return JSONResponse({"Name": upload.filename or cid, "Hash": cid, "Size": str(size)})

    async def _add_upload(self, upload: UploadFile, only_hash: bool) -> tuple[str, int]:
        size = 0
        with tempfile.NamedTemporaryFile(dir=self._node.scratch) as file:
            while chunk := await upload.read(_CHUNK_BYTES):
                size += await asyncio.to_thread(file.write, chunk)
            file.flush()
            return await _in_thread(lambda: self._node.add(Path(file.name), only_hash)), size

    async def _cat(self, request: Request) -> Response:
        offset, length = _whole_number(request, "offset"), _whole_number(request, "length")
        file = await self._open(_cid(request), self._timeout_seconds(request))
        size = max(file.seek(0, 2) - (offset or 0), 0)
        size = size if length is None else min(size, length)
        file.seek(offset or 0)
        headers = {"X-Stream-Output": "1", "Content-Length": str(size)}
        return StreamingResponse(_read_out(file, size), media_type="text/plain", headers=headers)

    async def _pin_ls(self, request: Request) -> Response:
        kind = request.query_params.get("type", "all")
        pins = await _in_thread(self._node.pins)
        if "arg" in request.query_params and (cid := _cid(request)) not in pins:
            raise Refused(f"path '{cid}' is not pinned")
        only = _cid(request) if "arg" in request.query_params else None
        return JSONResponse(
            {"Keys": {key: {"Type": of} for key, of in pins.items() if kind in ("all", of) and only in (None, key)}}
        )

    async def _pin_add(self, request: Request) -> Response:
        cid = _cid(request)
        # Fetched first: a pin of content that nobody has would wait in the library and happen long after the answer.
        (await self._open(cid, self._timeout_seconds(request))).close()
        await _in_thread(lambda: self._node.pin(cid))
        return JSONResponse({"Pins": [cid]})

    async def _pin_rm(self, request: Request) -> Response:
        cid = _cid(request)
        if not await _in_thread(lambda: self._node.unpin(cid)):
            raise Refused("not pinned or pinned indirectly")
        return JSONResponse({"Pins": [cid]})

    async def _swarm_connect(self, request: Request) -> Response:
        address = request.query_params.get("arg", "")
        if "\0" in address or "/p2p/" not in address:
            raise Refused(f"{address!r} is no multiaddress with a peer id", 400)
        try:
            timeout = self._timeout_seconds(request)
            is_connected = await asyncio.wait_for(_in_thread(lambda: self._node.connect(address)), timeout)
        except TimeoutError as error:
            raise Refused(f"connect {address} failure: no answer") from error
        if not is_connected:
            raise Refused(f"connect {address} failure")
        return JSONResponse({"Strings": [f"connect {address.rsplit('/', 1)[1]} success"]})

    async def _repo_stat(self, request: Request) -> Response:
        count, size = await _in_thread(self._node.blocks)
        repository = str(self._node.repository)
        return JSONResponse({"NumObjects": count, "RepoSize": size, "RepoPath": repository, "Version": "fs-repo"})

    async def _open(self, cid: str, timeout_seconds: float) -> BinaryIO:
        """Fetch content within a time and open it; the file's name is gone as soon as nobody waits for it any more."""
        download = self._downloads.get(cid)
        if download is None:
            if len(self._downloads) >= _MAX_UNRESOLVED and not self._node.has_root(cid):
                raise Refused(f"already looking for {_MAX_UNRESOLVED} contents that nobody has; restart the node")
            download = self._start_download(cid)
        download.waiting += 1
        try:
            await asyncio.wait_for(asyncio.shield(download.done), timeout_seconds)
            if not download.file.is_file():
                raise Refused("this dag node is a directory")
            return download.file.open("rb")
        except TimeoutError as error:
            raise Refused(f"context deadline exceeded: nobody has {cid}") from error
        finally:
            download.waiting -= 1
            self._drop_unused(download)

    def _start_download(self, cid: str) -> _Download:
        with tempfile.NamedTemporaryFile(dir=self._node.scratch) as name:
            file = Path(f"{name.name}-{cid[-8:]}")
        download = _Download(file, _in_thread(lambda: self._node.fetch(cid, file)))
        self._downloads[cid] = download

        def forget(done: asyncio.Future[None]) -> None:
            del self._downloads[cid]
            if not done.cancelled():
                done.exception()  # seen, even if everybody who waited has gone
            self._drop_unused(download)

        download.done.add_done_callback(forget)
        return download

    def _drop_unused(self, download: _Download) -> None:
        if download.done.done() and download.waiting == 0:
            remove(download.file)

    def _timeout_seconds(self, request: Request) -> float:
        asked = _DURATION.fullmatch(request.query_params.get("timeout", ""))
        if asked is None:
            return self._fetch_timeout_seconds
        return min(float(asked[1]) * _UNIT_SECONDS[asked[2]], self._fetch_timeout_seconds)


def _in_thread(call: Callable[[], T]) -> asyncio.Future[T]:
    """Run a blocking call in a thread of its own, which the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        result, failure = None, None
        try:
            result = call()
        except Exception as error:
            failure = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, daemon=True).start()
    return future


def _guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def guarded(request: Request) -> Response:
        if "origin" in request.headers or "referer" in request.headers:
            raise Refused("not from a browser", 403)
        return await handler(request)

    return guarded


def _capped(receive: Callable[[], Awaitable[Message]], max_bytes: int) -> Callable[[], Awaitable[Message]]:
    received = 0

    async def capped() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > max_bytes:
            raise Refused(f"more than {max_bytes} bytes in one request", 413)
        return message

    return capped


def _only_file(form: FormData) -> UploadFile:
    uploads = [part for part in form.values() if isinstance(part, UploadFile)]
    if len(uploads) != 1:
        raise Refused("the body must hold exactly one file", 400)
    return uploads[0]


def _cid(request: Request) -> str:
    match = _CID.fullmatch(request.query_params.get("arg", ""))
    if match is None:
        raise Refused(f"invalid path {request.query_params.get('arg', '')!r}: give one CID", 400)
    return match[1]


def _whole_number(request: Request, name: str) -> int | None:
    text = request.query_params.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{1,18}", text):
        raise Refused(f"{name} must be a whole number", 400)
    return int(text)


async def _read_out(file: BinaryIO, size: int) -> AsyncIterator[bytes]:
    with file:
        while size > 0 and (chunk := await asyncio.to_thread(file.read, min(size, _CHUNK_BYTES))):
            size -= len(chunk)
            yield chunk


async def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse({"Message": error.message, "Code": 0, "Type": "error"}, error.status)


async def _answer_failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"Message": str(error), "Code": 0, "Type": "error"}, 500)

"""Keeping other people's web pages from using the gateway through its user's browser."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from api.errors import Fault, Refused, answer

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})


class LoopbackOnly:
    """Refuses requests that were sent to another name, or by a page from another place.

    The gateway pays from its own account and listens on loopback. A page can still send forms from the user's browser
    (they name their origin), or point a name of its own at loopback (the request then names that host).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            for name, value in (("Host", f"//{headers.get('host', '')}"), ("Origin", headers.get("origin"))):
                if value is not None and _host(value) not in LOOPBACK_NAMES:
                    refused = Refused(
                        Fault.FOREIGN_ORIGIN,
                        f"{name}: it is not this machine",
                        field=name,
                        mend="ask the gateway by its loopback address, from a program or a page of this machine",
                    )
                    await answer(refused)(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None

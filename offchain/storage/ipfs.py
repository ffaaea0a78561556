"""`ContentStore` over any IPFS daemon's HTTP interface, by way of ipfshttpclient."""

from __future__ import annotations

import http.client
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import ipfshttpclient
import requests
import urllib3.exceptions
from ipfshttpclient import exceptions as ipfs_errors

from offchain.errors import InvalidInputError
from offchain.storage.cid import Cid, cid_of, cid_to_digest
from offchain.storage.port import (
    ContentCorrupt,
    ContentTooLarge,
    ContentUnavailable,
    StoreHealth,
    StoreUnreachable,
)

# ipfshttpclient 0.7 hands urllib3 a parameter that version 2 ignores, and says so to whoever runs a command.
warnings.filterwarnings("ignore", message="The 'strict' parameter is no longer needed", category=FutureWarning)

_READ_BYTES = 65_536
# A node that drips bytes keeps every single read alive: beyond the silence limit a transfer must reach this pace.
_SLOWEST_BYTES_PER_SECOND = 262_144
# Said aloud because newer daemons can be configured to other defaults, and other options give other CIDs.
_ADD_OPTIONS = {"pin": "true", "cid-version": "0", "raw-leaves": "false", "chunker": "size-262144"}
_ADDRESS_MEND = "give http://HOST:PORT or /ip4/HOST/tcp/PORT"
# What a daemon or the wire can throw through ipfshttpclient 0.7: its own errors; bare requests errors while a body is
# read; AssertionError, TypeError, KeyError and ValueError when the answer has another shape than IPFS gives.
_BROKEN_ANSWER = (AssertionError, TypeError, KeyError, ValueError, AttributeError)
_WIRE_ERRORS = (
    ipfs_errors.Error,
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


class IpfsStore:
    """Content on an IPFS node, each byte checked against its CID on the way out and back.

    Opens one connection per request, so that threads share nothing.

    Args:
        api_url: the node's HTTP interface, ``http://127.0.0.1:5001`` or ``/ip4/127.0.0.1/tcp/5001``.
        timeout_seconds: how long the node may be silent before a call fails, above 0.
    Raises:
        InvalidInputError: the address or the limit cannot be used.
    """

    def __init__(self, api_url: str, timeout_seconds: float) -> None:
        if not timeout_seconds > 0:
            raise InvalidInputError("timeout_seconds", f"{timeout_seconds} is not above 0", "give seconds")
        self.api_url = api_url
        self._timeout_seconds = timeout_seconds
        try:
            # Client, not connect(): connect() refuses every daemon newer than 0.8 by its version number.
            self._client = ipfshttpclient.Client(_multiaddress(api_url), timeout=timeout_seconds)
        except (ipfs_errors.AddressError, ValueError) as error:
            raise InvalidInputError("api_url", f"{api_url!r} is no usable address", _ADDRESS_MEND) from error
        # The node is where the address says: a proxy from the environment must not come between.
        self._http: Any = self._client._client
        self._http._session_props["trust_env"] = False

    def put(self, content: bytes) -> Cid:
        """Add and pin content; see `ContentStore.put`."""
        cid = cid_of(content)
        with self._translated():
            claimed = str(self._client.add_bytes(content, opts=dict(_ADD_OPTIONS)))
        if claimed != cid:
            raise ContentCorrupt(cid, claimed)
        return cid

    def get(self, cid: Cid, *, max_bytes: int) -> bytes:
        """Fetch content, bounded in time and size, and check it; see `ContentStore.get`."""
        cid_to_digest(cid)
        if max_bytes < 0:
            raise InvalidInputError("max_bytes", f"{max_bytes} is below 0", "give a number of bytes")
        content = bytearray()
        allowed_seconds = self._timeout_seconds + max_bytes / _SLOWEST_BYTES_PER_SECOND
        deadline = time.monotonic() + allowed_seconds
        with self._translated(cid), self._stream(cid, max_bytes, allowed_seconds) as chunks:
            for chunk in chunks:
                content += chunk
                if len(content) > max_bytes:
                    raise ContentTooLarge(cid, max_bytes)
                if time.monotonic() > deadline:
                    raise ContentUnavailable(cid, f"only {len(content)} bytes came in time")
        fetched = bytes(content)
        actual = cid_of(fetched)
        if actual != cid:
            raise ContentCorrupt(cid, actual)
        return fetched

    def pin(self, cid: Cid) -> None:
        """Have the node fetch and keep content; see `ContentStore.pin`."""
        cid_to_digest(cid)
        with self._translated(cid):
            self._client.pin.add(cid, opts={"timeout": f"{self._timeout_seconds:.3f}s"})

    def unpin(self, cid: Cid) -> None:
        """Allow the node to forget content; see `ContentStore.unpin`."""
        cid_to_digest(cid)
        with self._translated():
            try:
                self._client.pin.rm(cid)
            except ipfs_errors.ErrorResponse as error:
                if "not pinned" not in str(error):
                    raise

    def pinned(self) -> tuple[Cid, ...]:
        """List what was pinned on purpose; see `ContentStore.pinned`."""
        with self._translated():
            keys = self._client.pin.ls(type="recursive").as_json()["Keys"]
            return tuple(sorted(Cid(str(key)) for key in keys))

    def health(self) -> StoreHealth:
        """Ask the node who it is; see `ContentStore.health`."""
        with self._translated():
            answer = self._client.id().as_json()
            addresses = tuple(str(address) for address in answer["Addresses"] or ())
            return StoreHealth(str(answer["ID"]), str(answer["AgentVersion"]), addresses)

    def connect_peer(self, address: str) -> None:
        """Have the node connect to another node.

        Args:
            address: the other's multiaddress with its peer id, one of `StoreHealth.addresses`.
        Raises:
            StoreUnreachable: this node does not answer, or cannot reach the other.
        """
        with self._translated():
            # Not swarm.connect(): ipfshttpclient 0.7 sends each character of the address as one more argument.
            self._http.request("/swarm/connect", (address,), decoder="json")

    @contextmanager
    def _stream(self, cid: Cid, max_bytes: int, allowed_seconds: float) -> Iterator[Iterator[bytes]]:
        """Open a transfer that holds one small read at a time, of one byte more than allowed, so that excess shows."""
        # Not cat(stream=True): that reads without a chunk size, and then whatever the server calls one chunk is read
        # into memory whole, before any limit of ours can be applied.
        closables, chunks = self._http._request(
            "POST",
            "/cat",
            [("arg", cid), ("length", str(max_bytes + 1)), ("timeout", f"{allowed_seconds:.3f}s")],
            auth=None,
            data=None,
            headers={"Accept-Encoding": "identity"},
            timeout=self._timeout_seconds,
            chunk_size=_READ_BYTES,
        )
        try:
            yield chunks
        finally:
            for closable in closables:
                closable.close()

    @contextmanager
    def _translated(self, cid: Cid | None = None) -> Iterator[None]:
        """Turn whatever a call throws into our errors.

        Args:
            cid: the content that the node must find; without it, every failure is the node's.
        """
        try:
            yield
        except _WIRE_ERRORS as error:
            if cid is not None and _is_about_content(error):
                waited = f"no answer within {self._timeout_seconds:g} s"
                reason = str(error) if isinstance(error, ipfs_errors.ErrorResponse) else waited
                raise ContentUnavailable(cid, reason) from error
            raise StoreUnreachable(self.api_url, _reason(error)) from error
        except _BROKEN_ANSWER as error:
            raise StoreUnreachable(self.api_url, f"this is not an IPFS answer ({_reason(error)})") from error


def _multiaddress(api_url: str) -> str:
    """Spell an address as the multiaddress that ipfshttpclient wants."""
    if api_url.startswith("/"):
        return api_url
    parts = urlsplit(api_url)
    is_plain = parts.path in ("", "/") and not (parts.query or parts.fragment or parts.username or parts.password)
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain:
        raise InvalidInputError("api_url", f"{api_url!r} is no usable address", _ADDRESS_MEND)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    host = parts.hostname
    if ":" in host:
        kind = "ip6"
    elif host.replace(".", "").isdigit():
        kind = "ip4"
    else:
        kind = "dns"
    return f"/{kind}/{host}/tcp/{port}/{parts.scheme}"


def _is_about_content(error: Exception) -> bool:
    """Tell a node that could not find content from a node that is not well."""
    if isinstance(error, ipfs_errors.TimeoutError):
        return not isinstance(error.original, requests.ConnectTimeout)
    if isinstance(error, requests.ConnectionError):  # silence in the middle of a body arrives bare
        return bool(error.args) and isinstance(error.args[0], urllib3.exceptions.ReadTimeoutError)
    return isinstance(error, ipfs_errors.ErrorResponse)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

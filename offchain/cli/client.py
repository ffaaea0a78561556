"""The gateway's REST interface, from the client's side."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from offchain.errors import InterlockError, InvalidInputError, RecoverableError

TIMEOUT_SECONDS = 60.0
POLL_SECONDS = 0.3
SUBMISSIONS = 3


class GatewayUnreachable(RecoverableError):
    """No gateway answers at the address."""


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event of a job."""

    id: str
    name: str
    content: dict[str, Any]


class GatewayClient:
    """Speaks to one gateway.

    Args:
        url: for example ``http://127.0.0.1:8000``.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._http = httpx.Client(base_url=self._url, timeout=TIMEOUT_SECONDS)

    def register(
        self,
        model: Path,
        calibration: Path,
        *,
        heldout: Path | None,
        plan: bytes | None = None,
        fields: dict[str, str],
        progress: Callable[[str, float], None],
    ) -> str:
        """Register a model and wait until it is on chain; returns its id.

        Args:
            plan: what `interlock model plan --json` wrote, or None where the fields say how to cut.

        Raises:
            InvalidInputError: the gateway refuses the model, naming the field and the mend.
            GatewayUnreachable: nothing answers.
        """
        paths = {"model": model, "calibration": calibration} | ({"heldout": heldout} if heldout else {})
        files = {name: (path.name, read_file(name, path)) for name, path in paths.items()}
        files |= {"plan": ("plan.json", plan)} if plan is not None else {}
        answer = self._call("POST", "/v1/models", data=fields, files=files)
        status_url = answer["status_url"]
        while True:
            status = self._call("GET", status_url)
            progress(status["step"] or status["status"], float(status["share"] or 0.0))
            if status["status"] == "done":
                return str(status["model"])
            if status["status"] == "failed":
                raise _refusal(status["error"] or {})
            time.sleep(POLL_SECONDS)

    def models(self) -> list[dict[str, Any]]:
        """Every registered model."""
        return list(self._call("GET", "/v1/models")["models"])

    def model(self, model: str) -> dict[str, Any]:
        """One model's summary."""
        return self._call("GET", f"/v1/models/{model}")

    def submit(
        self,
        model: str,
        values: object,
        *,
        is_batch: bool = False,
        policy: dict[str, int],
        demand: dict[str, Any] | None = None,
        fee_wei: int | None,
        key: str | None,
    ) -> str:
        """Submit a job; returns its id. The same key and request give the same job, however often it is sent.

        Args:
            is_batch: whether ``values`` is a list of inputs, for a model that takes several.
            policy: fields that are not to have their defaults.
            demand: what the gateway is to choose the policy by, instead.
        """
        body: dict[str, Any] = {"model": model, "inputs" if is_batch else "input": values}
        body |= {"policy": policy} if demand is None else {"demand": demand}
        if fee_wei is not None:
            body["fee_wei"] = str(fee_wei)
        key = key or secrets.token_urlsafe(24)
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
        # Not httpx's own encoder, which breaks on NaN: the gateway refuses that by the name of the element.
        content = json.dumps(body)
        for attempt in range(SUBMISSIONS):
            try:
                return str(self._call("POST", "/v1/jobs", content=content, headers=headers)["job"])
            except RecoverableError as error:
                # The answer may have got lost behind a job that was accepted: with the same key it is the same job.
                if attempt + 1 == SUBMISSIONS:
                    raise GatewayUnreachable(f"{error}; to try again without paying twice, add --key {key}") from error
                time.sleep(1.0 + attempt)
        raise AssertionError("unreachable")

    def job(self, job: str) -> dict[str, Any]:
        """How a job stands."""
        return self._call("GET", f"/v1/jobs/{job}")

    def cancel(self, job: str) -> dict[str, Any]:
        """Take a queued job back; returns how it stands then.

        Raises:
            InvalidInputError: it has started, or is somebody else's.
        """
        return self._call("DELETE", f"/v1/jobs/{job}")

    def receipt(self, job: str) -> dict[str, Any]:
        """The receipt of a job that is over."""
        return self._call("GET", f"/v1/jobs/{job}/receipt")

    def health(self) -> dict[str, Any]:
        """How the gateway and what it leans on are."""
        return self._call("GET", "/v1/health")

    def events(self, job: str) -> Iterator[ServerEvent]:
        """Follow a job's events from its first to its last; a connection that breaks is taken up again."""
        last = ""
        while True:
            try:
                headers = {"Last-Event-ID": last} if last else {}
                path = f"/v1/jobs/{job}/events"
                with self._http.stream("GET", path, headers=headers, timeout=None) as response:
                    if response.status_code != 200:
                        response.read()
                        raise _refusal_of(response)
                    for event in _parse(response.iter_lines()):
                        last = event.id or last
                        yield event
                return
            except httpx.TransportError:
                time.sleep(1.0)

    def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **options)
        except httpx.TransportError as error:
            raise GatewayUnreachable(
                f"no gateway answers at {self._url} ({type(error).__name__}); start one with `interlock up`, "
                "or name another with --gateway"
            ) from error
        if response.status_code >= 400:
            raise _refusal_of(response)
        answer: dict[str, Any] = response.json()
        return answer


def _parse(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Read server-sent events (WHATWG HTML, section 9.2)."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield ServerEvent(fields.get("id", ""), fields.get("event", "message"), json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


def read_file(name: str, path: Path) -> bytes:
    """Read a file that a person named.

    Raises:
        InvalidInputError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError(name, f"{path} cannot be read ({error.strerror})", "name an existing file") from error


def _refusal_of(response: httpx.Response) -> InterlockError:
    try:
        refusal = _refusal(response.json()["error"])
        return RecoverableError(f"{refusal.problem}; {refusal.mend}") if response.status_code == 503 else refusal
    except (ValueError, KeyError, TypeError):
        return RecoverableError(f"the gateway answered {response.status_code} without saying why; see its log")


def _refusal(error: dict[str, Any]) -> InvalidInputError:
    field = error.get("field") or error.get("type") or "request"
    message = str(error.get("message") or "it was refused").removeprefix(f"{field}: ")
    return InvalidInputError(str(field), message, str(error.get("mend") or "see the gateway's log"))

"""Clients that hold a gateway to its OpenAPI document, and gateways of a test's own."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import re
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from fastapi.testclient import TestClient

from api.config import GatewayConfig
from api.gateway import Gateway, build_gateway
from api.main import create_app, run
from tests.models import tiny_mlp

FAST = {"committee_size": 1, "proof_permille": 0, "challenge_seconds": 5}
"""One worker a segment, no proof, and hardly any time for one: as short as a job can be."""
VALUES = [0.5, -1.0, 0.25, 1.5]


def npz(**arrays: Any) -> bytes:
    """Write an .npz file."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def calibration(width: int = 4) -> bytes:
    """Samples for a model that takes so many numbers."""
    return npz(input=np.random.default_rng(7).uniform(-2, 2, (16, width)).astype(np.float32))


def upload(seed: int = 5) -> dict[str, Any]:
    """What registers a tiny model in two segments; arguments of ``post``."""
    return {
        "files": {"model": tiny_mlp(seed), "calibration": calibration()},
        "data": {"name": f"tiny {seed}", "segments": "2"},
    }


class Documented:
    """A client that checks every refusal against the OpenAPI document, and remembers which ones it saw."""

    seen: set[tuple[str, str]] = set()

    def __init__(self, http: httpx.Client) -> None:
        self.http = http
        self.document: dict[str, Any] = http.get("/openapi.json").json()

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> httpx.Response:
        return self.request("POST", path, **options)

    def delete(self, path: str, **options: Any) -> httpx.Response:
        return self.request("DELETE", path, **options)

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        response = self.http.request(method, path, **options)
        if response.status_code >= 400 and "error" in response.json():
            operation = self.operation(method, path)
            error = response.json()["error"]
            assert set(error) == {"type", "message", "field", "mend"}
            assert "Traceback" not in error["message"]
            assert error["type"] in self.types(operation)[str(response.status_code)]
            self.seen.add((operation["operationId"], error["type"]))
        return response

    def submit(self, key: str, body: object, **options: Any) -> httpx.Response:
        """Post a job."""
        return self.post("/v1/jobs", json=body, headers={"Idempotency-Key": key}, **options)

    def operation(self, method: str, path: str) -> dict[str, Any]:
        """The operation that serves a path."""
        plain = path.partition("?")[0]
        for template in sorted(self.document["paths"], key=lambda it: it.count("{")):
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), plain):
                return self.document["paths"][template][method.lower()]
        raise AssertionError(f"{path} is not documented")

    def types(self, operation: dict[str, Any]) -> dict[str, set[str]]:
        """The error types that an operation declares, by status."""
        declared: dict[str, set[str]] = {}
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/json"]["schema"]
                for option in schema.get("anyOf", [schema]):
                    answer = self._resolved(option)["properties"]
                    if "error" in answer:
                        declared.setdefault(status, set()).add(
                            self._resolved(answer["error"])["properties"]["type"]["const"]
                        )
        return declared

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        return self.document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]


class GatewayProcess:
    """A gateway in a process of its own, forked from one that has imported everything already.

    Args:
        path: its configuration file.
        point: where it is to be killed; see ``dying_gateway``.
    """

    def __init__(self, path: Path, point: str | None) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["tests.api.dying_gateway"])
        ready, answers = context.Pipe(duplex=False)
        self.process = context.Process(target=serve, args=(path, point, answers), daemon=True)
        self.process.start()
        answers.close()
        with os.fdopen(os.dup(ready.fileno())) as lines:
            self.url = str(json.loads(lines.readline())["url"])

    def wait(self, timeout_seconds: float) -> int | None:
        """Wait for its end; returns its exit code, negative if it was killed."""
        self.process.join(timeout_seconds)
        return self.process.exitcode

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.join()

    def stop(self) -> None:
        """End it in order, if it still runs."""
        self.process.terminate()
        if self.wait(10) is None:
            self.kill()


def serve(path: Path, point: str | None, answers: Connection) -> None:
    """Run in the process."""
    from tests.api import dying_gateway

    log = os.open(path.parent / "gateway.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(answers.fileno(), 1)
    os.dup2(log, 2)
    if point is not None:
        dying_gateway.arm(point)
    sys.exit(run(path))


class OwnGateway:
    """A gateway of a test's own, in this process or in others, one after the other.

    Args:
        path: its configuration file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._processes: list[GatewayProcess] = []
        self._built: list[Gateway] = []

    @property
    def config(self) -> GatewayConfig:
        """Its configuration."""
        return GatewayConfig.load(self.path)

    def change(self, **settings: Any) -> OwnGateway:
        """Change its configuration."""
        replace(self.config, **settings).save(self.path)
        return self

    def build(self) -> Gateway:
        """Build it in this process, with nothing going on in the background."""
        gateway = build_gateway(self.config)
        self._built.append(gateway)
        return gateway

    def client(self, gateway: Gateway | None = None) -> Documented:
        """Speak to it in this process."""
        app = create_app(gateway or self.build())
        return Documented(TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False))

    def start(self, point: str | None = None) -> tuple[GatewayProcess, Documented]:
        """Start it as a process, which is killed at some point if one is named."""
        process = GatewayProcess(self.path, point)
        self._processes.append(process)
        return process, Documented(httpx.Client(base_url=process.url, timeout=60))

    def rows(self, table: str) -> list[sqlite3.Row]:
        """What its database holds, read behind its back."""
        connection = sqlite3.connect(f"file:{self.config.state_directory / 'gateway.sqlite'}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        try:
            return connection.execute(f"SELECT * FROM {table}").fetchall()
        finally:
            connection.close()

    def end(self) -> None:
        """End whatever was started."""
        for process in self._processes:
            process.stop()
        for gateway in self._built:
            gateway.stop()
        self._processes.clear()
        self._built.clear()


MakeGateway = Callable[..., OwnGateway]

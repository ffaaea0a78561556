"""The client of the gateway, and options that are refused before anything starts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from offchain.cli import client as module
from offchain.cli.app import app
from offchain.cli.client import SUBMISSIONS, GatewayClient, GatewayUnreachable
from offchain.cli.jobs import build_demand

pytestmark = pytest.mark.unit


def answering(monkeypatch: pytest.MonkeyPatch, *answers: httpx.Response | Exception) -> tuple[GatewayClient, list[str]]:
    """A client whose gateway gives these answers in turn, and the idempotency keys that it saw."""
    monkeypatch.setattr(module.time, "sleep", lambda seconds: None)
    left, keys = list(answers), []

    def answer(request: httpx.Request) -> httpx.Response:
        keys.append(request.headers["Idempotency-Key"])
        given = left.pop(0)
        if isinstance(given, Exception):
            raise given
        return given

    client = GatewayClient("http://127.0.0.1:1")
    client._http = httpx.Client(base_url="http://127.0.0.1:1", transport=httpx.MockTransport(answer))
    return client, keys


def test_submit__answers_get_lost__repeats_the_same_key(monkeypatch: pytest.MonkeyPatch) -> None:
    away = {"error": {"type": "try_again", "message": "away", "field": None, "mend": "wait"}}
    client, keys = answering(
        monkeypatch,
        httpx.ReadTimeout("lost"),
        httpx.Response(503, json=away),
        httpx.Response(200, json={"job": "0x01"}),
    )
    assert client.submit("0x02", [1.0], policy={}, fee_wei=None, key=None) == "0x01"
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_submit__gateway_stays_away__names_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    client, keys = answering(monkeypatch, *[httpx.ConnectError("away")] * SUBMISSIONS)
    with pytest.raises(GatewayUnreachable) as caught:
        client.submit("0x02", [1.0], policy={}, fee_wei=None, key=None)
    assert f"--key {keys[0]}" in str(caught.value)


def test_up__srs_of_unnamed_origin__is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_HOME", str(tmp_path))
    done = CliRunner().invoke(app, ["up", "--srs", str(tmp_path / "srs")])
    assert done.exit_code == 2
    assert "--srs-origin" in done.stderr
    assert not (tmp_path / "network").exists()


def test_submit__demand__is_sent_instead_of_a_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, object]] = []
    client = GatewayClient("http://127.0.0.1:1")

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(202, json={"job": "0x01"})

    client._http = httpx.Client(base_url="http://127.0.0.1:1", transport=httpx.MockTransport(answer))
    demand = {"criticality": "low", "privacy": "open", "latency_seconds": 60}
    assert client.submit("0x02", [1.0], policy={}, demand=demand, fee_wei=7, key="k") == "0x01"
    assert sent == [{"model": "0x02", "input": [1.0], "demand": demand, "fee_wei": "7"}]


@pytest.mark.parametrize(
    ("options", "demand"),
    [
        ((None, None, None, 500), None),
        (("low", None, None, None), {"criticality": "low", "privacy": "open", "latency_seconds": 1800}),
        ((None, "split", None, None), {"criticality": "standard", "privacy": "split", "latency_seconds": 1800}),
        (
            (None, None, 60, 500),
            {"criticality": "standard", "privacy": "open", "latency_seconds": 60, "proof_permille": 500},
        ),
    ],
)
def test_build_demand__any_of_its_options__makes_one(options: tuple[Any, ...], demand: dict[str, object]) -> None:
    assert build_demand(*options) == demand


def test_submit__committee_and_a_demand__is_refused(tmp_path: Path) -> None:
    arguments = ["job", "submit", "0x01", str(tmp_path / "x"), "--committee", "3", "--criticality", "low"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert done.stderr.split("\n")[0] == "--committee: the policy is to be chosen for you"

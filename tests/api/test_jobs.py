"""Whole jobs through the REST interface, with real workers, and what may happen to the gateway on their way."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest

from offchain.audit import audit
from offchain.chain.events import Event, read_events
from offchain.cli.client import GatewayClient
from offchain.network.local import LocalNetwork
from offchain.protocol.route_document import MAX_ROUTE_BYTES, disagreements, parse_route_document
from offchain.protocol.types import JobId, ModelId
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.storage.cid import digest_to_cid
from offchain.storage.ipfs import IpfsStore
from offchain.toolchain import project_root
from tests.api.gateways import FAST, VALUES, Documented, MakeGateway, calibration, upload
from tests.models import tiny_mlp

pytestmark = pytest.mark.e2e

PROVED = {"committee_size": 1, "proof_permille": 1000}
PATIENCE_SECONDS = 60
NOBODY = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def client(network: LocalNetwork) -> Documented:
    """The network's own gateway."""
    return Documented(httpx.Client(base_url=network.gateway_url, timeout=60))


def until(condition: Callable[[], Any]) -> Any:
    """Wait until something holds, and return it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.1)
    return found


def finished(client: Documented, job: dict[str, str]) -> dict[str, Any]:
    """Wait for a job's end."""
    until(lambda: client.get(job["status_url"]).json()["is_over"])
    return client.get(job["status_url"]).json()


@contextmanager
def stream(client: Documented, url: str, **headers: str) -> Iterator[Iterator[dict[str, str]]]:
    """Read server-sent events."""

    def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
        event: dict[str, str] = {}
        for line in lines:
            name, _, value = line.partition(": ")
            if name:
                event[name] = value
            elif event:
                yield event
                event = {}

    with client.http.stream("GET", url, headers=headers, timeout=PATIENCE_SECONDS) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        yield events(response.iter_lines())


def requests_of(network: LocalNetwork, address: str) -> list[Event]:
    """The jobs that an account has on the chain."""
    contracts = network.contracts
    events = read_events(contracts, contracts.deployment.block, contracts.connection.block_number())
    return [it for it in events if it.name == "JobRequested" and it.arguments["requester"] == address]


def test_job__submitted__is_finalised_proved_and_explained(
    client: Documented, network: LocalNetwork, model: str, own_gateway: MakeGateway
) -> None:
    job = client.submit("whole-job", {"model": model, "input": [VALUES], "policy": PROVED}).json()
    with stream(client, job["events_url"]) as events:
        seen = list(events)
    names = [event["event"] for event in seen]
    assert (names[0], names[-1]) == ("JobRequested", "JobFinalised")
    assert [names.count(it) for it in ("CommitteeDrawn", "Committed", "Revealed", "SegmentProved")] == [2, 2, 2, 2]
    places = [tuple(map(int, event["id"].split("-"))) for event in seen]
    assert places == sorted(set(places))
    first = json.loads(seen[0]["data"])
    assert (first["jobId"], first["modelId"]) == (job["job"], model)

    with stream(client, job["events_url"], **{"Last-Event-ID": seen[4]["id"]}) as events:
        assert list(events) == seen[5:]
    with stream(client, job["events_url"], **{"Last-Event-ID": seen[-1]["id"]}) as events:
        assert list(events) == []

    answer = client.get(job["status_url"]).json()
    assert answer["phase"] == "finalised"
    assert [segment["label"] for segment in answer["segments"]] == ["proved", "proved"]
    assert answer["segments"][0]["link_out"] == answer["segments"][1]["link_in"]
    exact = onnxruntime.InferenceSession(tiny_mlp(5)).run(None, {"x": np.array([VALUES], np.float32)})[0]
    assert np.allclose(answer["result"]["values"], exact, atol=0.05)
    assert answer["result"]["top"] == int(exact.argmax())
    assert answer["result"]["shape"] == [1, 3]

    receipt = client.get(job["receipt_url"]).json()
    assert (receipt["job"], receipt["phase"], receipt["model"]) == (job["job"], "finalised", model)
    assert receipt["result_link"] == answer["segments"][-1]["link_out"]
    # A stranger's gateway shows the same job from the chain, but cannot open its result; nor write the receipt
    # as long as it cannot fetch the manifest.
    stranger = own_gateway(ipfs_url=NOBODY).client()
    shown = stranger.get(job["status_url"]).json()
    assert (shown["segments"], shown["result"]) == (answer["segments"], None)
    assert stranger.get(job["receipt_url"]).json()["error"]["type"] == "store_unreachable"


def test_job__of_a_batched_model__answers_the_inputs_that_were_sent(
    client: Documented, network: LocalNetwork, tmp_path: Path
) -> None:
    paths = {"model": tmp_path / "model.onnx", "calibration": tmp_path / "calibration.npz"}
    for name, content in {"model": tiny_mlp(8), "calibration": calibration()}.items():
        paths[name].write_bytes(content)
    gateway = GatewayClient(network.gateway_url)
    model = gateway.register(**paths, heldout=None, fields=BATCHED, progress=lambda step, share: None)
    network.wait_until_served(ModelId(bytes.fromhex(model[2:])))
    shown = client.get(f"/v1/models/{model}").json()
    assert (shown["batch"], shown["input_shape"], shown["output_shape"]) == (3, [3, 4], [3, 3])

    inputs = [VALUES, [1.0, 0.5, -0.5, 0.0]]
    job = client.submit("batch", {"model": model, "inputs": inputs, "policy": PROVED}).json()
    answer = finished(client, job)
    assert [segment["label"] for segment in answer["segments"]] == ["proved"]
    session = onnxruntime.InferenceSession(tiny_mlp(8))
    exact = np.concatenate([session.run(None, {"x": np.array([row], np.float32)})[0] for row in inputs])
    result = answer["result"]
    assert np.allclose(result["values"], exact, atol=0.05)
    assert result["tops"] == exact.argmax(axis=1).tolist()
    assert (result["shape"], result["inputs"], result["padding"], len(result["elements"])) == ([2, 3], 2, 1, 9)

    contracts = network.contracts
    store, prover = IpfsStore(network.ipfs_url, 20.0), EzklProver(ArtefactCache(tmp_path / "cache"))
    report = audit(contracts, store, prover, JobId(bytes.fromhex(job["job"][2:])))
    assert report.verdict == "valid", report.failures
    assert np.allclose(report.outputs[:2], result["values"])
    assert report.outputs[2] == report.outputs[1]

    for body, field in (
        ({"inputs": [*inputs, VALUES, VALUES]}, "inputs"),
        ({"inputs": [VALUES, [9e9] * 4]}, "inputs[1][0]"),
        ({"inputs": [VALUES], "input": VALUES}, "input"),
        ({"input": [VALUES]}, "input"),
    ):
        refused = client.submit("other", {"model": model, **body}).json()
        assert refused["error"]["field"] == field


BATCHED = {"name": "batched", "segments": "1", "batch": "3", "trials": "2"}
DEMAND = {"criticality": "standard", "privacy": "open", "latency_seconds": 900}


def test_job__routed__is_run_as_decided_and_says_why(
    network: LocalNetwork, model: str, own_gateway: MakeGateway
) -> None:
    own = own_gateway()
    _, client = own.start()
    job = client.submit("k", {"model": model, "input": VALUES, "demand": DEMAND}).json()
    contracts, job_id = network.contracts, JobId(bytes.fromhex(job["job"][2:]))
    until(lambda: client.get(job["status_url"]).json()["phase"] in ("challengeable", "finalised"))
    network.connection.web3.provider.make_request("evm_increaseTime", [900])  # type: ignore[arg-type]
    answer = finished(client, job)
    assert (answer["phase"], answer["reason"]) == ("finalised", None)
    labels = [segment["label"] for segment in answer["segments"]]
    assert set(labels) <= {"agreed", "proved"}
    assert [len(segment["committee"]) for segment in answer["segments"]] == [3, 3]
    for segment in answer["segments"]:
        assert (segment["attempt"], segment["is_contested"], segment["overturned"]) == (0, False, False)
        assert [(member["agrees"], member["vote"]) for member in segment["committee"]] == [(True, None)] * 3

    stored = contracts.jobs.job_of(job_id)
    content = IpfsStore(network.ipfs_url, 20.0).get(digest_to_cid(stored.route_cid), max_bytes=MAX_ROUTE_BYTES)
    document = parse_route_document(content)
    assert document.route.policy == stored.policy
    assert disagreements(document, stored.policy, stored.fee_wei, document.demand.model) == ()
    # The least that pays for two segments' proofs, of which provers get half, and not the whole of what was allowed.
    assert (stored.fee_wei, document.demand.budget_wei) == (4 * 10**15, own.config.default_fee_wei)
    assert document.conditions.workers == len(network.operators)
    assert document.conditions.largest_weight_wei == network.options.stake_wei
    assert answer["route"] == {"cid": digest_to_cid(stored.route_cid), "reasons": list(document.route.reasons)}
    assert answer["policy"]["proof_permille"] == document.route.deterrence.permille == 1
    # Whoever did not decide finds the reasons on IPFS, where the job's record points to.
    assert own_gateway().client().get(job["status_url"]).json()["route"] == answer["route"]


def test_job__conditions_change_before_it_is_sent__is_sent_as_it_was_decided(
    network: LocalNetwork, model: str, own_gateway: MakeGateway
) -> None:
    own = own_gateway()
    client = own.client()
    job = client.submit("k", {"model": model, "input": VALUES, "demand": DEMAND}).json()
    decided = client.get(job["status_url"]).json()
    assert (decided["phase"], len(decided["route"]["reasons"])) == ("accepted", 6)
    own.end()

    gateway = own.change(cost_wei=10**15, turn_seconds=30).build()
    client = own.client(gateway)
    assert client.submit("k", {"model": model, "input": VALUES, "demand": DEMAND}).status_code == 200
    gateway.driver.cycle()
    sent = client.get(job["status_url"]).json()
    assert sent["phase"] == "requested"
    for name in ("route", "policy", "fee_wei"):
        assert sent[name] == decided[name]
    stored = network.contracts.jobs.job_of(JobId(bytes.fromhex(job["job"][2:])))
    assert digest_to_cid(stored.route_cid) == decided["route"]["cid"]


def test_model__registered__is_described(client: Documented, model: str) -> None:
    described = client.get(f"/v1/models/{model}").json()
    assert (described["name"], described["srs_origin"], described["workers"]) == ("tiny 5", "insecure-dev", 3)
    assert (described["input_shape"], len(described["segments"])) == ([1, 4], 2)
    assert described in client.get("/v1/models").json()["models"]
    health = client.get("/v1/health")
    assert (health.status_code, health.json()["is_healthy"]) == (200, True)


def test_submit_job__hundred_times_at_once__is_one_job(client: Documented, network: LocalNetwork, model: str) -> None:
    address = client.get("/v1/health").json()["account"]["address"]
    before = len(requests_of(network, address))
    body = {"model": model, "input": VALUES, "policy": FAST}
    with ThreadPoolExecutor(100) as threads:
        answers = list(threads.map(lambda _: client.submit("hundred", body), range(100)))
    assert sorted(answer.status_code for answer in answers) == [200] * 99 + [202]
    assert len({answer.json()["job"] for answer in answers}) == 1
    assert finished(client, answers[0].json())["phase"] == "finalised"
    assert len(requests_of(network, address)) == before + 1


@pytest.mark.parametrize("point", ["row written", "before sending", "signed and sent", "mined"])
def test_submit_job__gateway_killed__neither_loses_nor_doubles_it(
    network: LocalNetwork, model: str, own_gateway: MakeGateway, point: str
) -> None:
    own = own_gateway()
    body = {"model": model, "input": VALUES, "policy": FAST}
    dying, client = own.start(point)
    try:
        client.submit("k", body)
    except httpx.TransportError:
        pass  # it died before it could answer
    assert dying.wait(PATIENCE_SECONDS) == -9
    assert len(own.rows("jobs")) == 1

    _, client = own.start()
    again = client.submit("k", body)
    assert again.status_code == 200
    with stream(client, again.json()["events_url"]) as events:
        assert next(events)["event"] == "JobRequested"
    address = client.get("/v1/health").json()["account"]["address"]
    assert ["0x" + it.arguments["jobId"].hex() for it in requests_of(network, address)] == [again.json()["job"]]
    assert len(own.rows("jobs")) == 1


def test_job__gateway_killed_ipfs_killed__goes_on(network: LocalNetwork, model: str, own_gateway: MakeGateway) -> None:
    own = own_gateway()
    gateway, client = own.start()
    job = client.submit("k", {"model": model, "input": VALUES, "policy": FAST}).json()
    with stream(client, job["events_url"]) as events:
        until(lambda: next(events)["event"] == "JobRequested")
    gateway.kill()
    network.programs["ipfs"].kill()

    _, client = own.start()
    until(lambda: client.get("/v1/health").json()["ipfs"]["is_reachable"] is False)
    assert client.get("/v1/health").status_code == 503
    assert client.get(job["status_url"]).json()["is_over"] is False
    network.restart("ipfs")

    answer = finished(client, job)
    assert (answer["phase"], answer["trouble"]) == ("finalised", None)
    assert until(lambda: client.get(job["status_url"]).json()["result"])["shape"] == [1, 3]


def test_job__database_lost_before_the_draw__is_closed_and_refunded(
    network: LocalNetwork, model: str, own_gateway: MakeGateway
) -> None:
    own = own_gateway()
    gateway = own.build()
    policy = {**FAST, "input_seconds": 5}
    job = own.client(gateway).submit("k", {"model": model, "input": VALUES, "policy": policy}).json()
    gateway.driver.cycle()
    own.end()

    gateway = own.change(state_directory=own.path.parent / "fresh").build()
    client = own.client(gateway)
    until(lambda: client.get(job["status_url"]).json()["phase"] == "expired")
    # Nobody else has a part in the job, so nobody else would close it.
    gateway.driver.cycle()
    assert client.get(job["status_url"]).json()["phase"] == "failed"
    account = client.get("/v1/health").json()["account"]["address"]
    assert network.contracts.jobs.credit_of(account) == gateway.config.default_fee_wei


def test_job__request_taken_back_by_a_reorganisation__is_sent_again(
    network: LocalNetwork, model: str, own_gateway: MakeGateway
) -> None:
    own = own_gateway()
    gateway = own.build()
    client = own.client(gateway)
    web3 = network.connection.web3
    job = client.submit("k", {"model": model, "input": VALUES, "policy": FAST}).json()
    before = web3.eth.block_number
    gateway.driver.cycle()
    gateway.driver.cycle()
    assert own.rows("jobs")[0]["is_sent"]
    answer = web3.provider.make_request("anvil_reorg", [web3.eth.block_number - before, []])  # type: ignore[arg-type]
    assert "error" not in answer
    shown = client.get(job["status_url"]).json()
    assert (shown["phase"], shown["block"]) == ("accepted", None)

    own.end()  # the database is closed; what follows opens it again
    _, client = own.start()
    assert finished(client, job)["phase"] == "finalised"


def test_job__nobody_commits__fails_with_its_reason(
    network: LocalNetwork, model: str, own_gateway: MakeGateway
) -> None:
    own = own_gateway()
    gateway = own.build()
    client = own.client(gateway)
    policy = {**FAST, "input_seconds": 5}
    job = client.submit("k", {"model": model, "input": VALUES, "policy": policy}).json()
    gateway.driver.cycle()  # it is on the chain, and then nobody draws or seals in time
    shown = until(lambda: (it := client.get(job["status_url"]).json())["phase"] == "expired" and it)
    assert shown["is_over"] is False
    gateway.driver.cycle()
    shown = client.get(job["status_url"]).json()
    assert (shown["phase"], shown["reason"], shown["result"]) == ("failed", "timed_out", None)
    assert client.get(job["receipt_url"]).json()["phase"] == "failed"
    with stream(client, job["events_url"]) as events:
        assert [event["event"] for event in events][-1] == "JobFailed"


@pytest.mark.slow
def test_register_model__gateway_killed_twice__registers_it_once(
    network: LocalNetwork, own_gateway: MakeGateway
) -> None:
    own = own_gateway()
    dying, client = own.start("model prepared")
    accepted = client.post("/v1/models", **upload(9)).json()
    assert dying.wait(PATIENCE_SECONDS) == -9
    dying, _ = own.start("model published")
    assert dying.wait(PATIENCE_SECONDS) == -9

    _, client = own.start()
    url = accepted["status_url"]
    shown = until(lambda: (it := client.get(url).json())["status"] in ("done", "failed") and it)
    assert (shown["status"], shown["error"]) == ("done", None)
    contracts = network.contracts
    events = read_events(contracts, contracts.deployment.block, contracts.connection.block_number())
    owner = client.get("/v1/health").json()["account"]["address"]
    registered = [it for it in events if it.name == "ModelRegistered" and it.arguments["registrant"] == owner]
    assert ["0x" + it.arguments["modelId"].hex() for it in registered] == [shown["model"]]
    assert list((own.config.state_directory / "uploads").iterdir()) == []


def test_register_model__cannot_be_compiled__fails_and_says_why(own_gateway: MakeGateway) -> None:
    own = own_gateway(max_log_rows=6)
    _, client = own.start()
    accepted = client.post("/v1/models", **upload(7)).json()
    shown = until(lambda: (it := client.get(accepted["status_url"]).json())["status"] == "failed" and it)
    assert (shown["model"], shown["error"]["type"]) == (None, "invalid_input")
    assert shown["error"]["mend"]


def test_worker__that_joins_later__is_granted_the_model(network: LocalNetwork, model: str, funder: Any) -> None:
    network.add_worker("late", funder)
    operator = network.operators[-1]
    until(lambda: network.contracts.staking.is_serving(operator, ModelId(bytes.fromhex(model[2:]))))


def test_gateway__second_process_on_one_state__is_refused(own_gateway: MakeGateway) -> None:
    own = own_gateway()
    own.start()
    command = [sys.executable, "-m", "api", str(own.path)]
    second = subprocess.run(command, cwd=project_root(), capture_output=True, text=True, timeout=PATIENCE_SECONDS)
    assert (second.returncode, second.stdout) == (1, "")
    assert "another gateway uses" in second.stderr


def test_gateway__terminated__ends_cleanly(own_gateway: MakeGateway, model: str) -> None:
    gateway, client = own_gateway().start()
    job = client.submit("k", {"model": model, "input": VALUES, "policy": FAST}).json()
    with stream(client, job["events_url"]) as events:
        next(events)
        gateway.process.terminate()
        assert gateway.wait(PATIENCE_SECONDS) == 0

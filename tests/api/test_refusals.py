"""Every endpoint refuses exactly as its OpenAPI entry says, names the field and the mend, and keeps nothing."""

from __future__ import annotations

import httpx
import pytest

from api.gateway import Gateway
from offchain.chain.sender import Sender
from offchain.network.local import LocalNetwork
from tests.api.gateways import FAST, VALUES, Documented, MakeGateway, OwnGateway, calibration, npz, upload
from tests.models import tiny_mlp

pytestmark = pytest.mark.integration

NOBODY = "http://127.0.0.1:9"
"""Where nothing listens."""
UNKNOWN = "0x" + "ab" * 32
HEADERS = {"Idempotency-Key": "a", "Content-Type": "application/json"}


def fail(*arguments: object) -> None:
    raise ZeroDivisionError("the secret cause")


def refused(response: httpx.Response, status: int, kind: str, field: str | None) -> None:
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["field"]) == (status, kind, field)
    assert error["mend"]


DEMAND = {"criticality": "standard", "privacy": "open", "latency_seconds": 3600}
SMALL = {"max_body_bytes": 4_000, "max_model_bytes": 4_000}


@pytest.fixture(scope="module")
def refusing(lasting_gateway: MakeGateway) -> tuple[OwnGateway, Gateway, Documented]:
    """A gateway that several tests share, because they leave nothing behind in it."""
    own = lasting_gateway(**SMALL)
    gateway = own.build()
    return own, gateway, own.client(gateway)


@pytest.fixture
def built(own_gateway: MakeGateway) -> tuple[OwnGateway, Gateway, Documented]:
    own = own_gateway(**SMALL)
    gateway = own.build()
    return own, gateway, own.client(gateway)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"input": VALUES[:3]}, "input"),
        ({"input": [[VALUES]]}, "input[0]"),
        ({"input": [[0.5, -1.0, 0.25]]}, "input[0]"),
        ({"input": [[0.5, -1.0, 0.25, "1.5"]]}, "input[0][3]"),
        ({"input": [[0.5, -1.0, 0.25, True]]}, "input[0][3]"),
        ({"input": [[0.5, -1.0, 0.25, None]]}, "input[0][3]"),
        ({"input": [0.5, -1.0, 0.25, 1000]}, "input[3]"),
        ({"input": [0.5, -1.0, 0.25, 10**400]}, "input[3]"),
        ({"input": "numbers"}, "input"),
        ({"model": "0xab"}, "model"),
        ({"policy": {"committee_size": 0}}, "policy.committee_size"),
        ({"policy": {"quorum_bps": 5000}}, "policy.quorum_bps"),
        ({"policy": {"prove_seconds": 3601}}, "policy.prove_seconds"),
        ({"policy": {"speed": 1}}, "policy.speed"),
        ({"policy": []}, "policy"),
        ({"fee_wei": 1}, "fee_wei"),
        ({"fee_wei": "1e18"}, "fee_wei"),
        ({"fee_wei": 10**30}, "fee_wei"),
        ({"priority": 1}, "priority"),
        ({"demand": []}, "demand"),
        ({"demand": {**DEMAND, "criticality": "high"}}, "demand.criticality"),
        ({"demand": {**DEMAND, "privacy": None}}, "demand.privacy"),
        ({"demand": {"criticality": "low", "privacy": "open"}}, "demand.latency_seconds"),
        ({"demand": {**DEMAND, "latency_seconds": 0}}, "demand.latency_seconds"),
        ({"demand": {**DEMAND, "latency_seconds": 60.0}}, "demand.latency_seconds"),
        ({"demand": {**DEMAND, "proof_permille": 1001}}, "demand.proof_permille"),
        ({"demand": {**DEMAND, "speed": 1}}, "demand.speed"),
        ({"demand": DEMAND, "policy": FAST}, "policy"),
        ({"demand": DEMAND, "policy": {}}, "policy"),
        ({"demand": DEMAND, "fee_wei": 1}, "fee_wei"),
    ],
)
def test_submit_job__field_wrong__names_it(
    refusing: tuple[OwnGateway, Gateway, Documented], model: str, changes: dict[str, object], field: str
) -> None:
    own, _, client = refusing
    refused(client.submit("k", {"model": model, "input": VALUES, **changes}), 422, "invalid_input", field)
    assert own.rows("jobs") == []


@pytest.mark.parametrize(
    ("changes", "field", "problem", "mend"),
    [
        ({"privacy": "attested"}, "demand.privacy", "attested needs attestation of workers", "use open or split"),
        ({"privacy": "split"}, "conditions.workers", "3 * 2 = 6 workers, and ", "more to join, or use privacy open"),
        ({"latency_seconds": 9}, "demand.latency_seconds", "9 s are too few", "allow "),
        ({"fee_wei": 10**9}, "fee_wei", "1000000000 does not pay the fee", "allow 4000000000000000 wei"),
        (
            {"criticality": "critical", "proof_permille": 999},
            "demand.proof_permille",
            "999 permille, but criticality critical has every segment proved",
            "ask for 1000, or leave it out",
        ),
    ],
)
def test_submit_job__demand_that_cannot_be_had__is_unroutable(
    refusing: tuple[OwnGateway, Gateway, Documented],
    model: str,
    changes: dict[str, object],
    field: str,
    problem: str,
    mend: str,
) -> None:
    own, _, client = refusing
    demand = {**DEMAND, **{name: value for name, value in changes.items() if name != "fee_wei"}}
    fee = {"fee_wei": changes["fee_wei"]} if "fee_wei" in changes else {}
    response = client.submit("k", {"model": model, "input": VALUES, "demand": demand, **fee})
    refused(response, 422, "unroutable", field)
    assert response.json()["error"]["message"].startswith(f"{field}: ")
    assert problem in response.json()["error"]["message"]
    assert mend in response.json()["error"]["mend"]
    assert own.rows("jobs") == []


def test_submit_job__proofs_too_rare_to_deter__are_refused_with_the_numbers(
    own_gateway: MakeGateway, model: str
) -> None:
    own = own_gateway(cost_wei=10**17)
    client = own.client()

    def submit(permille: int) -> httpx.Response:
        policy = {**FAST, "proof_permille": permille}
        return client.submit(f"k{permille}", {"model": model, "input": VALUES, "policy": policy})

    # Alone in its committee, a member gets half of a segment's half of the fee; half of the least stake is at risk.
    # p (1 - 0.1) (2.5e15 + 5e17) > 1e17
    for permille in (1, 221):
        response = submit(permille)
        refused(response, 422, "unroutable", "policy.proof_permille")
        error = response.json()["error"]
        numbers = f"p(1-r)(R+S) = {permille}/1000 * 9000/10000 * (2500000000000000 + 500000000000000000) = "
        assert numbers in error["message"]
        assert error["message"].endswith("<= C = 100000000000000000 wei")
        assert error["mend"] == "ask for at least 222 permille, or for 1000, or for 0 and rely on agreement"
    assert own.rows("jobs") == []
    assert [submit(permille).status_code for permille in (0, 222, 1000)] == [202] * 3


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_submit_job__not_finite__names_the_element(
    refusing: tuple[OwnGateway, Gateway, Documented], model: str, token: str
) -> None:
    content = f'{{"model": "{model}", "input": [[0, 0, 0, {token}]]}}'
    refused(refusing[2].post("/v1/jobs", content=content, headers=HEADERS), 422, "invalid_input", "input[0][3]")


@pytest.mark.parametrize("content", [b"{", b"", b"[1]", b"\xff\xfe", b"[" * 3_000, b'{"input": ' + b"9" * 3_900])
def test_submit_job__no_json_object__is_malformed(
    refusing: tuple[OwnGateway, Gateway, Documented], content: bytes
) -> None:
    refused(refusing[2].post("/v1/jobs", content=content, headers=HEADERS), 400, "malformed_body", "body")


@pytest.mark.parametrize("depth", [100, 500, 900, 980])
def test_submit_job__nested_deeply__is_refused(
    refusing: tuple[OwnGateway, Gateway, Documented], model: str, depth: int
) -> None:
    content = f'{{"model": "{model}", "input": {"[" * depth}1{"]" * depth}}}'
    assert refusing[2].post("/v1/jobs", content=content, headers=HEADERS).status_code in (400, 422)


@pytest.mark.parametrize("key", [None, "", "a b", "ä", "a" * 256])
def test_submit_job__key_malformed__is_refused(
    refusing: tuple[OwnGateway, Gateway, Documented], model: str, key: str | None
) -> None:
    headers = {} if key is None else {b"Idempotency-Key": key.encode("latin-1")}
    response = refusing[2].post("/v1/jobs", json={"model": model, "input": VALUES}, headers=headers)
    refused(response, 400, "idempotency_key_malformed", "Idempotency-Key")


def test_submit_job__everything_refused__costs_nothing_and_leaves_nothing(
    refusing: tuple[OwnGateway, Gateway, Documented], own_gateway: MakeGateway, model: str, network: LocalNetwork
) -> None:
    own, gateway, client = refusing
    account = gateway.health.check().account
    good = {"model": model, "input": VALUES, "policy": FAST}
    refused(client.submit("k", {**good, "model": UNKNOWN}), 404, "unknown_model", "model")
    too_many = {**good, "policy": {"committee_size": 21}}
    refused(client.submit("k", too_many), 409, "too_few_workers", "policy.committee_size")
    refused(client.submit("k", {**good, "input": [0.1] * 2_000}), 413, "body_too_large", "body")
    chunks = client.post("/v1/jobs", content=(b"[" * 1_000 for _ in range(9)), headers=HEADERS)
    refused(chunks, 413, "body_too_large", "body")
    text = client.post("/v1/jobs", content=b"{}", headers={"Idempotency-Key": "k", "Content-Type": "text/plain"})
    refused(text, 415, "unsupported_content_type", "Content-Type")
    refused(own_gateway(funds_wei=0).client().submit("k", good), 503, "out_of_funds", None)
    gateway.driver.cycle()
    assert own.rows("jobs") == []
    assert gateway.health.check().account == account
    assert network.connection.web3.eth.get_transaction_count(account.address, "pending") == 0  # type: ignore[arg-type]


def test_submit_job__key_used_for_another_request__is_refused(
    built: tuple[OwnGateway, Gateway, Documented], model: str
) -> None:
    own, _, client = built
    first = client.submit("k", {"model": model, "input": VALUES, "policy": FAST})
    again = client.submit("k", {"policy": FAST, "input": VALUES, "model": model})
    other = client.submit("k", {"model": model, "input": VALUES[::-1], "policy": FAST})
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    refused(other, 409, "idempotency_key_reused", "Idempotency-Key")
    assert len(own.rows("jobs")) == 1
    job = first.json()["job"]
    assert client.get(f"/v1/jobs/{job}").json()["phase"] == "accepted"
    refused(client.get(f"/v1/jobs/{job}/receipt"), 409, "no_receipt", "job")
    refused(client.delete(f"/v1/jobs/{job}"), 409, "not_queued", "job")


@pytest.mark.parametrize("path", ["", "/events", "/receipt"])
def test_jobs__id_unknown_or_malformed__is_refused(
    refusing: tuple[OwnGateway, Gateway, Documented], network: LocalNetwork, path: str
) -> None:
    refused(refusing[2].get(f"/v1/jobs/{UNKNOWN}{path}"), 404, "unknown_job", "job")
    refused(refusing[2].get(f"/v1/jobs/0x12{path}"), 422, "invalid_input", "job")
    refused(refusing[2].delete(f"/v1/jobs/{UNKNOWN}"), 404, "unknown_job", "job")
    refused(refusing[2].delete("/v1/jobs/0x12"), 422, "invalid_input", "job")


def test_follow_job__last_event_malformed__is_refused(
    refusing: tuple[OwnGateway, Gateway, Documented], network: LocalNetwork
) -> None:
    response = refusing[2].get(f"/v1/jobs/{UNKNOWN}/events", headers={"Last-Event-ID": "yesterday"})
    refused(response, 422, "invalid_input", "Last-Event-ID")


def with_parts(**changes: object) -> dict[str, dict[str, object]]:
    """The upload with some parts replaced, or left out where None."""
    parts = upload()
    for name, value in changes.items():
        where = "files" if name in ("model", "calibration", "heldout", "virus") else "data"
        parts[where].pop(name, None)
        if value is not None:
            parts[where][name] = value
    return parts


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"model": None}, "model"),
        ({"model": b"no onnx"}, "model"),
        ({"model": tiny_mlp(5)[:-40]}, "model"),
        ({"calibration": None}, "calibration"),
        ({"calibration": b"no npz"}, "calibration"),
        ({"calibration": calibration(3)}, "calibration.input"),
        ({"calibration": npz(input=[[0, 0, 0, float("nan")]])}, "calibration.input[0]"),
        ({"heldout": npz(other=[1])}, "heldout"),
        ({"segments": "0"}, "segments"),
        ({"segments": "three"}, "segments"),
        ({"segments": "9"}, "segments"),
        ({"segments": None}, "segments"),
        ({"segments": None, "cuts": "nowhere"}, "cuts[0]"),
        ({"segments": None, "cuts": ","}, "cuts"),
        ({"cuts": "relu0"}, "segments"),
        ({"max_drift": "nan"}, "max_drift"),
        ({"trials": "-1"}, "trials"),
        ({"trials": "257"}, "trials"),
        ({"trials": "1.5"}, "trials"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"colour": "red"}, "colour"),
        ({"virus": b"x"}, "virus"),
    ],
)
def test_register_model__part_wrong__names_it(
    refusing: tuple[OwnGateway, Gateway, Documented], changes: dict[str, object], field: str
) -> None:
    own, _, client = refusing
    refused(client.post("/v1/models", **with_parts(**changes)), 422, "invalid_input", field)
    assert own.rows("registrations") == []
    assert list((own.config.state_directory / "uploads").iterdir()) == []


def test_register_model__form_malformed__is_refused(refusing: tuple[OwnGateway, Gateway, Documented]) -> None:
    client = refusing[2]
    refused(client.post("/v1/models", json={}), 415, "unsupported_content_type", "Content-Type")
    broken = {"Content-Type": "multipart/form-data"}
    refused(client.post("/v1/models", content=b"--", headers=broken), 400, "malformed_body", "body")
    large = client.post("/v1/models", **with_parts(model=bytes(4_001)))
    refused(large, 413, "body_too_large", "model")
    huge = client.post("/v1/models", **with_parts(model=bytes(2 << 20)))
    refused(huge, 413, "body_too_large", "body")


def test_register_model__same_again__is_the_same_registration(
    built: tuple[OwnGateway, Gateway, Documented],
) -> None:
    own, _, client = built
    first, again = client.post("/v1/models", **upload()), client.post("/v1/models", **upload())
    other = client.post("/v1/models", **with_parts(max_drift="0.2"))
    assert (first.status_code, again.status_code, other.status_code) == (202, 200, 202)
    assert again.json() == first.json() != other.json()
    assert client.get(first.json()["status_url"]).json()["status"] == "queued"
    assert len(own.rows("registrations")) == 2


def test_register_model__too_many_wait__is_put_off(
    refusing: tuple[OwnGateway, Gateway, Documented], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.models.service.MAX_WAITING", 0)
    refused(refusing[2].post("/v1/models", **upload()), 503, "try_again", None)


def test_models__id_unknown_or_malformed__is_refused(refusing: tuple[OwnGateway, Gateway, Documented]) -> None:
    client = refusing[2]
    refused(client.get(f"/v1/models/{UNKNOWN}"), 404, "unknown_model", "model")
    refused(client.get("/v1/models/0x12"), 422, "invalid_input", "model")
    refused(client.get("/v1/models?limit=0"), 422, "invalid_input", "limit")
    refused(client.get(f"/v1/models/registrations/{'a' * 32}"), 404, "unknown_registration", "registration")
    refused(client.get("/v1/models/registrations/x"), 422, "invalid_input", "registration")


def test_every_endpoint__chain_away__says_so(own_gateway: MakeGateway, model: str) -> None:
    gateway = (own := own_gateway()).build()
    client = own.client(gateway)
    job = client.submit("k", {"model": model, "input": VALUES, "policy": FAST}).json()
    connection = gateway.health._contracts.connection
    connection.web3.provider.endpoint_uri = NOBODY  # type: ignore[attr-defined]
    connection.web3.provider.exception_retry_configuration = None  # type: ignore[attr-defined]
    for path in (job["status_url"], job["receipt_url"], f"/v1/models/{model}"):
        refused(client.get(path), 503, "chain_unreachable", None)
    assert client.get(job["status_url"]).headers["Retry-After"]
    refused(client.get(f"/v1/jobs/{UNKNOWN}/events"), 503, "chain_unreachable", None)
    refused(client.delete(job["status_url"]), 503, "chain_unreachable", None)
    refused(client.submit("k2", {"model": model, "input": VALUES}), 503, "chain_unreachable", None)
    gateway.models._rows.index(bytes.fromhex(model[2:]), 1)  # type: ignore[arg-type]
    refused(client.get("/v1/models"), 503, "chain_unreachable", None)
    # What was accepted is kept, and asking for it again needs no chain.
    assert client.submit("k", {"model": model, "input": VALUES, "policy": FAST}).status_code == 200
    health = client.get("/v1/health")
    assert (health.status_code, health.json()["chain"]["is_reachable"]) == (503, False)


def test_every_endpoint__ipfs_away__says_so(own_gateway: MakeGateway, model: str, funder: Sender) -> None:
    gateway = (own := own_gateway(ipfs_url=NOBODY)).build()
    client = own.client(gateway)
    gateway.models._rows.index(bytes.fromhex(model[2:]), 1)  # type: ignore[arg-type]
    refused(client.get(f"/v1/models/{model}"), 503, "store_unreachable", None)
    refused(client.get("/v1/models"), 503, "store_unreachable", None)
    refused(client.submit("k", {"model": model, "input": VALUES, "policy": FAST}), 503, "store_unreachable", None)
    assert own.rows("jobs") == []
    assert client.get("/v1/health").json()["ipfs"] == {"is_reachable": False, "agent": None}


def test_every_endpoint__unforeseen_error__hides_its_cause(
    refusing: tuple[OwnGateway, Gateway, Documented], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, gateway, client = refusing
    for service in (gateway.jobs, gateway.models, gateway.health):
        for name in ("accept", "show", "cancel", "receipt", "require", "list", "show_registration", "check"):
            if hasattr(service, name):
                monkeypatch.setattr(service, name, fail)
    answers = [
        client.submit("k", {}),
        client.delete(f"/v1/jobs/{UNKNOWN}"),
        *(client.get(f"/v1/jobs/{UNKNOWN}{path}") for path in ("", "/events", "/receipt")),
        client.post("/v1/models", **upload()),
        *(client.get(path) for path in ("/v1/models", f"/v1/models/{UNKNOWN}", "/v1/health")),
        client.get(f"/v1/models/registrations/{'a' * 32}"),
    ]
    for response in answers:
        refused(response, 500, "internal", None)
        message = response.json()["error"]["message"]
        assert "secret" not in message
        assert message.rpartition("incident ")[2].rstrip(")") in caplog.text


@pytest.mark.parametrize(
    ("field", "headers"),
    [
        ("Host", {"Host": "gateway.example"}),
        ("Host", {"Host": "127.0.0.1.gateway.example:8000"}),
        ("Origin", {"Origin": "https://page.example"}),
        ("Origin", {"Origin": "null"}),
    ],
)
def test_any_request__sent_to_another_host_or_by_a_foreign_page__is_refused(
    refusing: tuple[OwnGateway, Gateway, Documented], field: str, headers: dict[str, str]
) -> None:
    client = refusing[2]
    for answer in (
        client.post("/v1/jobs", json={}, headers=headers),
        client.delete(f"/v1/jobs/{UNKNOWN}", headers=headers),
        *(client.get(f"/v1/jobs/{UNKNOWN}{path}", headers=headers) for path in ("", "/events", "/receipt")),
        client.post("/v1/models", **upload(), headers=headers),
        *(client.get(path, headers=headers) for path in ("/v1/models", f"/v1/models/{UNKNOWN}", "/v1/health")),
        client.get(f"/v1/models/registrations/{'a' * 32}", headers=headers),
    ):
        refused(answer, 403, "foreign_origin", field)


def test_any_request__by_a_page_of_this_machine__is_served(
    refusing: tuple[OwnGateway, Gateway, Documented],
) -> None:
    assert refusing[2].get("/v1/models", headers={"Origin": "http://localhost:3000"}).status_code == 200


def test_openapi__declared_errors__were_all_provoked(
    refusing: tuple[OwnGateway, Gateway, Documented], request: pytest.FixtureRequest
) -> None:
    collected = {item.function.__name__ for item in request.session.items if isinstance(item, pytest.Function)}
    if not {name for name in globals() if name.startswith("test_")} <= collected:
        pytest.skip("only some of the tests that provoke them ran")
    client = refusing[2]
    declared = {
        (operation["operationId"], kind)
        for path in client.document["paths"].values()
        for operation in path.values()
        for kinds in client.types(operation).values()
        for kind in kinds
    }
    in_test_jobs = {("show_receipt", "store_unreachable")}
    in_test_queue = {("cancel_job", kind) for kind in ("not_requester", "out_of_funds", "try_again")}
    assert declared - client.seen <= in_test_jobs | in_test_queue

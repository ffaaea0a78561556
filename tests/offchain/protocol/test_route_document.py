from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.errors import InvalidInputError
from offchain.protocol.canonical import canonical_json
from offchain.protocol.economics import Unroutable
from offchain.protocol.route_document import (
    MAX_ROUTE_BYTES,
    disagreements,
    parse_route_document,
    write_route_document,
)
from offchain.storage.cid import cid_of
from tests.offchain.protocol.test_routing import CONDITIONS, DEMAND, LOW, STANDARD, inputs

pytestmark = pytest.mark.unit

DOCUMENT = write_route_document(STANDARD, CONDITIONS)
CONTENT = DOCUMENT.to_bytes()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    record = json.loads(CONTENT)
    change(record)
    return canonical_json(record)


def refused_field(content: bytes) -> str:
    with pytest.raises(InvalidInputError) as refused:
        parse_route_document(content)
    return refused.value.field


def test_to_bytes__one_route__this_cid_for_ever() -> None:
    # Rules, constants and wording belong to the format: if this changes, so must FORMAT.
    assert cid_of(CONTENT) == "QmTniBApg1dGfDfRjZ7KEVcE6DbnuQMxTLguTABT214fgR"
    assert (
        cid_of(write_route_document(DEMAND, CONDITIONS).to_bytes()) == "QmZaRjE8Eb83nbioNKHDm8fxUjVpykWiBYc4T2EETGugzt"
    )
    assert cid_of(write_route_document(LOW, CONDITIONS).to_bytes()) == "QmeRAk3qe7M6CkeHKMLVEej8ZXJgEEDPkA1ahTds5GnvYE"


def test_to_bytes__a_route__canonical_json_with_wei_as_text() -> None:
    record = json.loads(CONTENT)
    assert canonical_json(record) == CONTENT
    assert set(record) == {"format", "demand", "conditions", "decision", "reasons"}
    assert record["format"] == "interlock.route.v1"
    assert record["demand"]["budget_wei"] == str(STANDARD.budget_wei)
    assert record["conditions"]["proof_costs_wei"] == [str(cost) for cost in CONDITIONS.proof_costs_wei]
    assert record["decision"]["policy"]["challenge_seconds"] == DOCUMENT.route.challenge_seconds
    assert record["reasons"] == list(DOCUMENT.route.reasons)


@given(given_=inputs())
def test_parse_route_document__any_route__comes_back(given_: tuple[Any, Any]) -> None:
    try:
        document = write_route_document(*given_)
    except Unroutable:
        return
    assert parse_route_document(document.to_bytes()) == document


@given(place=st.integers(0, len(CONTENT) - 1), byte=st.integers(0, 255))
def test_parse_route_document__any_byte_changed__refused_or_another_consistent_route(place: int, byte: int) -> None:
    content = CONTENT[:place] + bytes([byte]) + CONTENT[place + 1 :]
    try:
        document = parse_route_document(content)
    except InvalidInputError:
        assert content != CONTENT
        return
    assert document.to_bytes() == content


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("route.decision", lambda record: record["decision"]["policy"].update(proof_permille=0)),
        ("route.decision", lambda record: record["decision"]["policy"].update(committee_size=1)),
        ("route.decision", lambda record: record["decision"]["policy"].update(challenge_seconds=5)),
        ("route.decision", lambda record: record["decision"]["deterrence"].update(cost_wei="1")),
        ("route.decision", lambda record: record["decision"]["evidence"].__setitem__(0, "proof")),
        ("route.decision", lambda record: record["decision"].update(note="")),
        ("route.decision", lambda record: record.pop("decision")),
        ("route.decision", lambda record: record["demand"].update(criticality="critical")),
        ("route.decision", lambda record: record["demand"].update(privacy="attested")),
        ("route.decision", lambda record: record["demand"].update(budget_wei="1")),
        ("route.decision", lambda record: record["conditions"].update(workers=2)),
        ("route.reasons", lambda record: record["conditions"].update(workers=10)),
        ("route.reasons", lambda record: record["reasons"].__setitem__(0, "because")),
        ("route.reasons", lambda record: record["reasons"].pop()),
        ("route.reasons", lambda record: record.pop("reasons")),
    ],
)
def test_parse_route_document__decision_does_not_follow__refused(
    field: str, change: Callable[[dict[str, Any]], object]
) -> None:
    assert refused_field(changed(change)) == field


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("route.format", lambda record: record.update(format="interlock.route.v2")),
        ("route", lambda record: record.pop("demand")),
        ("route", lambda record: record.update(demand=[])),
        ("route", lambda record: record.update(conditions="all is well")),
        ("route", lambda record: record.update(note="")),
        ("route", lambda record: record["demand"].update(note="")),
        ("route", lambda record: record["demand"].pop("budget_wei")),
        ("route", lambda record: record["demand"].update(budget_wei=10**16)),
        ("route", lambda record: record["demand"].update(budget_wei="010000000000000000")),
        ("route", lambda record: record["demand"].update(budget_wei="-1")),
        ("route", lambda record: record["demand"].update(criticality="vital")),
        ("route", lambda record: record["demand"]["model"].update(log_rows=11)),
        ("route", lambda record: record["conditions"].update(turn_seconds=2**257)),
        ("route", lambda record: record["conditions"]["deployment"].update(owner="me")),
        ("route.demand", lambda record: record["demand"].pop("proof_permille")),
        ("route.decision", lambda record: record["demand"].update(latency_seconds=1e4)),
        ("route.decision", lambda record: record["demand"]["model"].update(provable=[1, True, True])),
        ("route.decision", lambda record: record["demand"]["model"].update(log_rows="abc")),
    ],
)
def test_parse_route_document__fields_are_wrong__refused(
    field: str, change: Callable[[dict[str, Any]], object]
) -> None:
    assert refused_field(changed(change)) == field


@pytest.mark.parametrize(
    ("field", "content"),
    [
        ("route", b""),
        ("route", b"\xff"),
        ("route", b"[" * 10_000),
        ("route", b'{"format":NaN}'),
        ("route.format", b"[]"),
        ("route", b" " + CONTENT),
        ("route", CONTENT + b"\n"),
        ("route", CONTENT.replace(b":", b": ", 1)),
        ("route", CONTENT.replace(b'"format":', b'"format":"interlock.route.v1","format":', 1)),
        ("route", CONTENT.replace(b"interlock", b"\\u0069nterlock", 1)),
        ("route", CONTENT + b" " * MAX_ROUTE_BYTES),
    ],
)
def test_parse_route_document__not_canonical__refused(field: str, content: bytes) -> None:
    assert refused_field(content) == field


@pytest.mark.parametrize("content", [b" " + CONTENT, CONTENT + b"\n", CONTENT.replace(b":", b": ", 1)])
def test_parse_route_document__white_space__refused_as_not_canonical(content: bytes) -> None:
    with pytest.raises(InvalidInputError, match="its bytes are not canonical"):
        parse_route_document(content)


def test_parse_route_document__true_for_one__refused_though_python_calls_them_equal() -> None:
    content = changed(lambda record: record["decision"]["policy"].update(input_seconds=True))
    assert refused_field(content) == "route.decision"
    one = write_route_document(replace(DEMAND, proof_permille=1000), replace(CONDITIONS, fee_wei=10**15))
    record = json.loads(one.to_bytes())
    record["decision"]["deterrence"]["permille"] = 1000.0
    assert refused_field(canonical_json(record)) == "route"


def test_disagreements__the_job_that_was_decided__none() -> None:
    policy, fee_wei = DOCUMENT.route.policy, DOCUMENT.route.fee_wei
    assert disagreements(DOCUMENT, policy, fee_wei, STANDARD.model) == ()
    assert disagreements(DOCUMENT, policy, fee_wei + 1, STANDARD.model) == ()


@pytest.mark.parametrize("name", list(asdict(DOCUMENT.route.policy)))
def test_disagreements__one_field_of_the_policy_differs__named(name: str) -> None:
    policy = DOCUMENT.route.policy
    other = replace(policy, **{name: getattr(policy, name) + 1})
    (line,) = disagreements(DOCUMENT, other, DOCUMENT.route.fee_wei, STANDARD.model)
    assert line == f"policy.{name} is {getattr(other, name)}, and {getattr(policy, name)} was decided"


def test_disagreements__less_fee_and_another_model__both_said() -> None:
    model = replace(STANDARD.model, log_rows=(11, 11, 13))
    lines = disagreements(DOCUMENT, DOCUMENT.route.policy, DOCUMENT.route.fee_wei - 1, model)
    assert len(lines) == 2
    assert "fee" in lines[0]
    assert "model" in lines[1]

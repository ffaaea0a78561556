"""The gateway's parts by themselves: configuration, database, errors, streams."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import alembic.op
import pytest
import sqlalchemy as sa

from api.config import GatewayConfig
from api.database import Database, metadata
from api.driver import Driver
from api.errors import Fault, Refused, refusal_of
from api.jobs.answers import describe_segment
from api.jobs.rows import JobRow, JobRows
from api.jobs.stream import Place, describe, follow, parse_place
from api.models.rows import ModelRows, Parameters, Registration
from api.models.service import read_parameters, registration_id
from offchain.chain.errors import ChainUnreachable, InsufficientFunds
from offchain.chain.events import Event
from offchain.errors import InvalidInputError, RecoverableError, UnrecoverableError
from offchain.protocol.duties import JobView
from offchain.protocol.field import FIELD_MODULUS
from offchain.protocol.links import link_of_values
from offchain.protocol.trials import DEFAULT_TRIALS
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, Address, Job, JobId, Link, Member, ModelId, Phase, Round
from offchain.requester.policy import DEFAULT_POLICY
from offchain.storage.port import StoreUnreachable

pytestmark = pytest.mark.unit

SETTINGS = {
    "rpc_url": "http://127.0.0.1:1",
    "ipfs_url": "http://127.0.0.1:2",
    "deployment": "deployment.json",
    "keystore": "keystore.json",
    "password_file": "/etc/password",
    "identity": "identity.age",
    "state_directory": "state",
    "cache_directory": "cache",
}
JOB, MODEL = JobId(b"j" * 32), ModelId(b"m" * 32)


def row(job: JobId = JOB, key: str = "k") -> JobRow:
    return JobRow(job, key, b"h" * 32, b"s" * 32, MODEL, DEFAULT_POLICY, 10**30, (0, FIELD_MODULUS - 1))


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path / "gateway.sqlite")


# --- configuration ----------------------------------------------------------------------------------------------


def test_load__relative_paths__are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(SETTINGS | {"poll_seconds": 1}))
    config = GatewayConfig.load(path)
    assert (config.keystore, config.password_file) == (tmp_path / "keystore.json", Path("/etc/password"))
    assert (config.port, config.poll_seconds, config.srs) == (0, 1.0, None)
    config.save(tmp_path / "again.json")
    assert GatewayConfig.load(tmp_path / "again.json") == config


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": 1}, "colour"),
        ({"port": "80"}, "port"),
        ({"port": 65_536}, "port"),
        ({"port": True}, "port"),
        ({"keystore": 1}, "keystore"),
        ({"srs_origin": "found"}, "srs_origin"),
        ({"default_fee_wei": 0}, "default_fee_wei"),
        ({"default_fee_wei": 10**18}, "default_fee_wei"),
        ({"turn_seconds": 0}, "turn_seconds"),
        ({"turn_seconds": 1.5}, "turn_seconds"),
        ({"proving_seconds": []}, "proving_seconds"),
        ({"proving_seconds": [1, 0]}, "proving_seconds"),
        ({"proving_seconds": [1, "2"]}, "proving_seconds[1]"),
        ({"collusion_bps": 10_000}, "collusion_bps"),
        ({"cost_wei": -1}, "cost_wei"),
    ],
)
def test_load__setting_wrong__names_it(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(SETTINGS | changes))
    with pytest.raises(InvalidInputError) as raised:
        GatewayConfig.load(path)
    assert raised.value.field == field


@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_load__no_configuration__names_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "gateway.json"
    path.write_text(content)
    with pytest.raises(InvalidInputError) as raised:
        GatewayConfig.load(path)
    assert raised.value.field == str(path)


# --- database ---------------------------------------------------------------------------------------------------


def test_database__upgraded__has_the_tables_that_the_code_names(database: Database) -> None:
    with database.transaction() as connection:
        inspected = sa.inspect(connection)
        for table in metadata.tables.values():
            made = {column["name"]: column["nullable"] for column in inspected.get_columns(table.name)}
            named = {column.name: bool(column.nullable) for column in table.columns if not column.primary_key}
            assert named.items() <= made.items()
            assert set(made) == {column.name for column in table.columns}
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def test_database__upgrade_interrupted__is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = alembic.op.create_table, []

    def interrupted(name: str, *columns: Any) -> None:
        made.append(name)
        if len(made) == 3:
            raise KeyboardInterrupt
        real(name, *columns)

    monkeypatch.setattr(alembic.op, "create_table", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Database(tmp_path / "gateway.sqlite")
    monkeypatch.undo()
    assert JobRows(Database(tmp_path / "gateway.sqlite")).open() == ()


def test_database__file__is_for_its_owner_alone(tmp_path: Path, database: Database) -> None:
    assert (tmp_path / "gateway.sqlite").stat().st_mode & 0o077 == 0


def test_belong_to__other_deployment__is_refused(database: Database) -> None:
    database.belong_to("1:a")
    database.belong_to("1:a")
    with pytest.raises(UnrecoverableError):
        database.belong_to("1:b")


def test_add__job__comes_back_as_it_was(database: Database) -> None:
    rows = JobRows(database)
    assert rows.add(row()) == row()
    assert rows.get(JOB) == rows.with_key("k") == row()
    assert rows.open() == rows.unsent() == (row(),)


def test_add__job_with_a_route__keeps_the_document(database: Database) -> None:
    rows, routed = JobRows(database), replace(row(), route=b"{}", given=2)
    assert rows.add(routed) == rows.get(JOB) == routed
    rows.close(JOB)
    closed = rows.get(JOB)
    assert closed is not None
    assert closed.route == b"{}"


def test_database__made_before_there_were_routes__keeps_its_jobs(tmp_path: Path) -> None:
    database = Database(tmp_path / "gateway.sqlite")
    JobRows(database).add(row())
    with database.transaction() as connection:
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN route")
        connection.exec_driver_sql("ALTER TABLE jobs DROP COLUMN given")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'g0001'")
    database.close()
    assert JobRows(Database(tmp_path / "gateway.sqlite")).get(JOB) == row()


def test_add__key_taken__answers_with_its_holder(database: Database) -> None:
    rows = JobRows(database)
    rows.add(row())
    assert rows.add(row(JobId(b"other" + bytes(27)))).job == JOB
    assert len(rows.open()) == 1


def test_close__job_over__forgets_its_input_and_keeps_its_result(database: Database) -> None:
    rows = JobRows(database)
    rows.add(row())
    rows.change(JOB, result=(FIELD_MODULUS - 1,), is_sent=True)
    rows.close(JOB)
    closed = rows.get(JOB)
    assert closed is not None
    assert (closed.elements, closed.result, closed.is_open) == (None, (FIELD_MODULUS - 1,), False)
    assert rows.open() == rows.unsent() == ()


def test_add__registration_twice__is_one(database: Database) -> None:
    rows = ModelRows(database)
    first = Registration("r", Parameters("n", None, ("a", "b"), 0.05, False))
    assert rows.add(first) == rows.add(first) == first
    rows.change("r", status="running", step="cutting", share=0.1)
    assert [it.status for it in rows.unfinished()] == ["running"]
    rows.change("r", status="done", model=MODEL)
    assert (rows.unfinished(), [it.model for it in rows.published()]) == ((), [MODEL])


def test_keys_without__granted_before__are_left_out(database: Database) -> None:
    rows = ModelRows(database)
    rows.set_key("0xa", b"1" * 32)
    rows.set_key("0xb", b"2" * 32)
    rows.set_key("0xb", b"3" * 32)
    assert set(rows.keys_without(MODEL)) == {b"1" * 32, b"3" * 32}
    rows.record_grants(MODEL, [b"1" * 32])
    assert rows.keys_without(MODEL) == (b"3" * 32,)
    assert len(rows.keys_without(ModelId(b"n" * 32))) == 2


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "fault"),
    [
        (InvalidInputError("f", "p", "m"), Fault.INVALID_INPUT),
        (ChainUnreachable("u", "r"), Fault.CHAIN_UNREACHABLE),
        (StoreUnreachable("u", "r"), Fault.STORE_UNREACHABLE),
        (InsufficientFunds("f"), Fault.OUT_OF_FUNDS),
        (RecoverableError("f"), Fault.TRY_AGAIN),
        (UnrecoverableError("f"), Fault.INTERNAL),
        (KeyError("secret"), Fault.INTERNAL),
        (Refused(Fault.NO_RECEIPT, "m"), Fault.NO_RECEIPT),
    ],
)
def test_refusal_of__error__has_its_type(error: Exception, fault: Fault) -> None:
    assert refusal_of(error).fault is fault
    assert "secret" not in refusal_of(error).message


# --- models -----------------------------------------------------------------------------------------------------


def test_registration_id__anything_changed__is_another() -> None:
    files, texts = {"model": b"m", "calibration": b"c"}, {"name": "n", "segments": "2"}
    variants = [
        (files, texts),
        ({**files, "model": b"n"}, texts),
        ({**files, "heldout": b"h"}, texts),
        ({"model": b"c", "calibration": b"m"}, texts),
        (files, {**texts, "name": "o"}),
        (files, {**texts, "segments": "3"}),
        (files, {"name": "n", "cuts": "a,b"}),
        (files, {**texts, "max_drift": "0.1"}),
        (files, {**texts, "trials": "0"}),
    ]
    ids = [registration_id(files, read_parameters(files, texts)) for files, texts in variants]
    assert len(set(ids)) == len(variants)
    assert ids[0] == registration_id(files, read_parameters(files, {**texts, "max_drift": "0.05"}))
    assert ids[0] == registration_id(files, read_parameters(files, {**texts, "trials": "16"}))


def test_add__registration_from_before_trials__has_as_many_as_by_default(database: Database) -> None:
    rows = ModelRows(database)
    rows.add(Registration("r", Parameters("n", 2, None, 0.05, False)))
    old = {"name": "n", "segments": 2, "cuts": None, "max_drift": 0.05, "has_heldout": False}
    rows.change("r", parameters=old)
    assert [it.parameters.trials for it in rows.unfinished()] == [DEFAULT_TRIALS]


# --- jobs -------------------------------------------------------------------------------------------------------


def job_view(phase: Phase, *rounds: Round, segment: int = 0) -> JobView:
    job = Job(
        id=JOB,
        requester=Address("0xr"),
        phase=phase,
        segment=segment,
        segments=len(rounds),
        proofs_due=0,
        redraws=0,
        frozen_block=7,
        seed_block=0,
        deadline=0,
        ends_at=0,
        closed_at=0,
        model_id=MODEL,
        input_link=Link(b"i" * 32),
        input_cid=bytes(32),
        result_key=bytes(32),
        route_cid=bytes(32),
        fee_wei=1,
        policy=DEFAULT_POLICY,
        attempts=(2,) * len(rounds),
        evidence_root=bytes(32),
    )
    return JobView(job, phase, rounds, 8, 9)


def one_round(*links: bytes, settled: bytes = bytes(32), overturned: bool = False) -> Round:
    members = [Member(Address(f"0x{place}"), 5, b"c" * 32, Link(link), bytes(32)) for place, link in enumerate(links)]
    nobody = Address("0x" + "00" * 20)
    return Round(15, Link(settled), 10, nobody, nobody, overturned, bytes(32), bytes(32), tuple(members))


A, B = b"a" * 32, b"b" * 32


@pytest.mark.parametrize(
    ("links", "settled", "label", "told"),
    [
        ((A, A, B), A, "agreed", [(True, None), (True, None), (False, None)]),
        ((A, UNAVAILABLE, bytes(32)), A, "unproved", [(True, None), (None, "unavailable"), (None, None)]),
        ((A, BAD_INPUT, B), bytes(32), "none", [(None, None), (None, "bad_input"), (None, None)]),
    ],
)
def test_describe_segment__outputs_and_votes__are_told_apart(
    links: tuple[bytes, ...], settled: bytes, label: str, told: list[tuple[bool | None, str | None]]
) -> None:
    answer = describe_segment(job_view(Phase.REVEALING, one_round(*links, settled=settled)), 0)
    assert (answer.label, answer.attempt) == (label, 2)
    assert [(member.agrees, member.vote) for member in answer.committee] == told
    assert [member.has_revealed for member in answer.committee] == [any(link) for link in links]


def test_describe_segment__contested_or_overturned__says_so() -> None:
    rounds = (one_round(A, A, settled=A, overturned=True), one_round(A, B))
    view = job_view(Phase.CONTESTED, *rounds, segment=1)
    answers = [describe_segment(view, index) for index in range(2)]
    assert [(answer.overturned, answer.is_contested) for answer in answers] == [(True, False), (False, True)]


def test_result_of__overturned_since__is_no_result() -> None:
    """What was kept when a quorum had agreed on it is not shown once a proof has shown another output."""
    kept = replace(row(), result=(1, 2))
    assert kept.result_of(Link(link_of_values((1, 2)))) == (1, 2)
    assert kept.result_of(Link(link_of_values((1, 3)))) is None
    assert row().result_of(Link(link_of_values(()))) is None


def test_keep_result__overturned_since__opens_the_new_one(database: Database) -> None:
    rows, opened = JobRows(database), []
    rows.add(row())

    def open_result(view: JobView) -> SimpleNamespace:
        opened.append(outputs)
        return SimpleNamespace(elements=outputs)

    driver = object.__new__(Driver)
    driver._jobs, driver._requester = rows, SimpleNamespace(open_result=open_result)  # type: ignore[assignment]
    for outputs in ((1, 2), (1, 2), (1, 3)):
        kept = rows.get(JOB)
        assert kept is not None
        settled = one_round(A, settled=link_of_values(outputs))
        driver._keep_result(kept, job_view(Phase.CHALLENGEABLE, settled))
    assert opened == [(1, 2), (1, 3)]
    assert rows.get(JOB) == replace(row(), result=(1, 3))


# --- streams ----------------------------------------------------------------------------------------------------


def event(name: str, block: int, index: int = 0, fork: bytes = b"a") -> Event:
    arguments = {"jobId": JOB, "weights": [10**20], "policy": {"quorumBps": 1}, "feeWei": 7}
    return Event(name, arguments, "0x", block, fork + bytes([block]), "0xt", index)


class Chain:
    """Answers what it was given, one answer a poll; the last one for ever."""

    def __init__(self, *answers: Sequence[Event] | Exception) -> None:
        self._answers = list(answers)

    def events(self, job: JobId, first_block: int | None) -> tuple[tuple[Event, ...], int | None, bool]:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return tuple(answer), 5, False


def streamed(chain: Chain, after: Place | None = None) -> list[str]:
    async def collect() -> list[str]:
        events = follow(chain, JOB, after, threading.Event(), 0.0)  # type: ignore[arg-type]
        return [it.id for it in [it async for it in events]]

    return asyncio.run(collect())


def test_follow__chain_away_for_a_while__goes_on() -> None:
    first, last = event("JobRequested", 1), event("JobFinalised", 2)
    assert streamed(Chain([first], ChainUnreachable("u", "r"), [first, last])) == ["1-0", "2-0"]


def test_follow__after_an_event__leaves_out_what_came_before() -> None:
    events = [event("JobRequested", 1), event("Committed", 2, 3), event("Committed", 2, 4), event("JobFailed", 10)]
    assert streamed(Chain(events), Place(2, 3)) == ["2-4", "10-0"]
    assert streamed(Chain(events), Place(99, 0)) == []


def test_follow__reorganised__sends_the_new_events() -> None:
    first, replaced, new = event("JobRequested", 1), event("Committed", 2), event("Committed", 3, 0, b"b")
    last = event("JobFinalised", 4, 0, b"b")
    assert streamed(Chain([first, replaced], [first, new, last])) == ["1-0", "2-0", "3-0", "4-0"]


def test_describe__event__is_json() -> None:
    content = describe(event("JobRequested", 1, 2)).content
    assert json.loads(json.dumps(content)) == content
    assert (content["jobId"], content["feeWei"], content["weights"]) == ("0x" + JOB.hex(), "7", [str(10**20)])
    assert content["policy"] == {"quorumBps": 1}


@pytest.mark.parametrize("text", ["", "1", "1-", "-1-2", "1-2-3", "1-2 ", "١-٢", "1" * 16 + "-1"])
def test_parse_place__malformed__is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as raised:
        parse_place(text)
    assert raised.value.field == "Last-Event-ID"

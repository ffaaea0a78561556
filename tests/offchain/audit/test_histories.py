"""Whole audits, with real proofs and a real store, of jobs that did not go through undisputed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from eth_hash.auto import keccak

from offchain.audit import AuditReport, audit, record
from offchain.chain.contracts import Contracts
from offchain.chain.events import Event, job_events
from offchain.chain.staking import hold_of
from offchain.protocol.route_document import RouteDocument, write_route_document
from offchain.protocol.route_terms import Criticality, Deployment, ModelSize
from offchain.protocol.types import Link, Phase
from offchain.proving.ezkl_prover import EzklProver
from offchain.requester.receipt import build_receipt
from offchain.storage.cid import cid_to_digest
from offchain.storage.ipfs import IpfsStore
from tests.harness import NONE_PROVED, Elements, Play, ReadyModel
from tests.local_chain import ETHER, LocalChain
from tests.offchain.audit.test_audit import text_of
from tests.offchain.audit.test_tampering import (
    MEMBER_FIELDS,
    MEMBERS_SLOT,
    Storage,
    alter_events,
    altered,
    memory,
    round_place,
    rounds_slot,
)
from tests.offchain.protocol.test_routing import CONDITIONS, DEMAND

pytestmark = pytest.mark.integration
__all__ = ["memory", "rounds_slot"]  # fixtures

NewJob = Callable[..., Play]


@pytest.fixture
def report_on(contracts: Contracts, store: IpfsStore, prover: EzklProver) -> Callable[[Play], AuditReport]:
    return lambda play: audit(contracts, store, prover, play.job)


def failed(report: AuditReport) -> set[str]:
    return {name for name, _ in report.failures}


def lying(segment: int, places: frozenset[int] = frozenset({0, 1})) -> Callable[[int, int, Elements], Elements]:
    """Have those members of a segment's committee agree on the same false output."""

    def answer(at: int, place: int, outputs: Elements) -> Elements:
        return (outputs[0] + 1, *outputs[1:]) if at == segment and place in places else outputs

    return answer


def overturn(play: Play, segment: int, until: Phase) -> Play:
    """Let the liars have their quorum, go on until a phase behind it, and have the honest member prove them wrong."""
    while play.view().rounds[segment].settled_link == bytes(32):
        play.step(play.view())
    if play.view().phase is not until:
        play.run(until=until)
    play.challenge(segment)
    return play


@pytest.fixture(scope="session")
def overturned(new_job: NewJob) -> Play:
    """A job whose middle segment was overturned when all was settled: the last one was done twice."""
    play = new_job(policy=NONE_PROVED, answer=lying(1))
    play.request()
    return overturn(play, 1, Phase.CHALLENGEABLE).run()


def test_audit__middle_segment_overturned__is_valid_and_told(
    report_on: Callable[[Play], AuditReport], overturned: Play
) -> None:
    report = report_on(overturned)
    assert report.failures == ()
    assert [segment.label for segment in report.segments] == ["agreed", "proved", "agreed"]
    assert [segment.history for segment in report.segments] == [(), ("overturned",), ("attempt 2",)]
    checks = report.segments[1].checks
    assert "who overturned what a quorum had agreed on" in checks["proving"].detail
    assert checks["penalties"].detail.count("CONTRADICTED_PROOF, held") == 2
    assert report.segments[1].stake_for * 2 < report.segments[1].stake_total
    assert report.segments[2].checks["attempt[0].votes"].ok
    assert "the same committee" in report.segments[2].checks["committee"].detail
    shown = text_of(report)
    assert "overturned" in shown
    assert "attempt 2" in shown


def test_audit__held_stake_released__is_valid_and_told(
    report_on: Callable[[Play], AuditReport],
    overturned: Play,
    contracts: Contracts,
    chain: LocalChain,
    isolation: None,
) -> None:
    events = job_events(contracts, overturned.job, 0, chain.head()[0])
    holds = [hold_of(event.arguments) for event in events if event.name == "SlashHeld"]
    assert len(holds) == 2
    chain.move_to(holds[0].release_at)
    for hold in holds:
        contracts.staking.release(chain.instant("anybody"), hold)
    report = report_on(overturned)
    assert report.failures == ()
    assert report.segments[1].checks["penalties"].detail.count("shared") == 2
    assert contracts.staking.compensation_of(holds[0].challenger) > 0


def test_build_receipt__overturned_job__tells_of_it(contracts: Contracts, overturned: Play, model: ReadyModel) -> None:
    receipt = build_receipt(contracts, overturned.view(), model.manifest)
    assert [(it["attempt"], it["overturned"]) for it in receipt["segments"]] == [(0, False), (0, True), (1, False)]
    assert receipt["route_cid"] is None


@pytest.mark.parametrize("segment", [0, 2])
def test_audit__first_or_last_segment_overturned__is_valid_and_told(
    report_on: Callable[[Play], AuditReport], new_job: NewJob, isolation: None, segment: int
) -> None:
    play = new_job(policy=NONE_PROVED, answer=lying(segment))
    play.request()
    phase = Phase.COMMITTING if segment == 0 else Phase.CHALLENGEABLE
    report = report_on(overturn(play, segment, phase).run())
    assert report.failures == ()
    assert report.segments[segment].label == "proved"
    assert "overturned" in report.segments[segment].history
    assert (report.result is None) == (segment == 0)


def test_audit__proof_of_a_superseded_attempt__is_checked_where_it_stood(
    report_on: Callable[[Play], AuditReport], new_job: NewJob, isolation: None
) -> None:
    """The last segment was proved on a false input before the one before it was overturned."""
    play = new_job(answer=lying(1))
    play.run(until=Phase.PROVING)
    play.prove(2)
    play.challenge(1)
    report = report_on(play.run())
    assert report.failures == ()
    last = report.segments[2].checks
    assert last["attempt[0].verified_on_chain"].ok
    assert last["attempt[0].link_in"].detail == "equals the link of segment 1 at that time"
    assert last["link_in"].detail == "equals the link of segment 1"
    assert "as drawn before" in report.segments[0].checks["sample"].detail


def test_audit__contested_segment__is_valid_and_told(
    report_on: Callable[[Play], AuditReport], new_job: NewJob, isolation: None
) -> None:
    def answer(at: int, place: int, outputs: Elements) -> Elements:
        return (outputs[0] + place, *outputs[1:]) if at == 1 else outputs

    report = report_on(new_job(policy=NONE_PROVED, answer=answer).run())
    assert report.failures == ()
    assert report.segments[1].history == ("contested",)
    assert report.segments[1].label == "proved"
    assert "decided by a proof" in report.segments[1].checks["tally"].detail


def test_audit__redrawn_committee_and_votes__is_valid_and_told(
    report_on: Callable[[Play], AuditReport], new_job: NewJob, isolation: None
) -> None:
    silent = frozenset({(1, 0), (1, 1)})
    votes = {(2, 1): Link((1).to_bytes(32, "big"))}
    report = report_on(new_job(policy=NONE_PROVED, silent=silent, mute=frozenset({(0, 2)}), votes=votes).run())
    assert report.failures == ()
    assert report.segments[1].history == ("attempt 2",)
    assert report.segments[1].checks["attempt[0].penalties"].detail.count("MISSED_COMMIT") == 2
    assert "MISSED_REVEAL" in report.segments[0].checks["penalties"].detail
    assert "1 without an output" in report.segments[2].checks["votes"].detail


def test_audit__one_word_alone__is_unproved(
    report_on: Callable[[Play], AuditReport], new_job: NewJob, isolation: None
) -> None:
    report = report_on(new_job(policy=replace(NONE_PROVED, committee_size=1)).run())
    assert report.failures == ()
    assert [segment.label for segment in report.segments] == ["unproved"] * 3


def test_audit__failed_job__is_audited_as_far_as_it_got(
    report_on: Callable[[Play], AuditReport], new_job: NewJob, isolation: None
) -> None:
    bad = Link((2).to_bytes(32, "big"))
    play = new_job(policy=NONE_PROVED, votes={(1, place): bad for place in range(3)})
    report = report_on(play.run(until=Phase.FAILED))
    assert failed(report) == {"phase", "segments[1].settled", "segments[2].settled"}
    assert "failed (BAD_INPUT)" in report.checks["payouts"].detail


# --- what is wrong is named -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        ("SegmentReopened", "attempt", "segments[2].committee"),
        ("SegmentReopened", "sameCommittee", "segments[2].committee"),
        ("SegmentOverturned", "challenger", "segments[1].tally"),
        ("SegmentOverturned", "before", "segments[1].tally"),
        ("SegmentOverturned", "proved", "segments[1].tally"),
        ("SegmentOverturned", "stakeAgainst", "segments[1].tally"),
        ("ProofAnnounced", "announcement", "segments[1].proving"),
        ("OperatorPenalised", "operator", "segments[1].penalties"),
        ("OperatorPenalised", "reason", "segments[1].penalties"),
        ("OperatorPenalised", "amount", "segments[1].penalties"),
    ],
)
def test_audit__event_of_an_overturned_job_altered__is_named(
    report_on: Callable[[Play], AuditReport],
    overturned: Play,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    argument: str,
    expected: str,
) -> None:
    def change(events: list[Event]) -> list[Event]:
        place = next(place for place, event in enumerate(events) if event.name == name)
        value = events[place].arguments[argument]
        new = not value if isinstance(value, bool) else altered(value)
        events[place] = replace(events[place], arguments=events[place].arguments | {argument: new})
        return events

    alter_events(monkeypatch, change)
    assert expected in failed(report_on(overturned))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SegmentReopened", "segments[2].committee"),
        ("SegmentOverturned", "segments[1].tally"),
        ("ProofAnnounced", "segments[1].proving"),
        ("OperatorPenalised", "segments[1].penalties"),
    ],
)
def test_audit__event_of_an_overturned_job_missing__is_named(
    report_on: Callable[[Play], AuditReport],
    overturned: Play,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    expected: str,
) -> None:
    alter_events(monkeypatch, lambda events: [event for event in events if event.name != name])
    assert expected in failed(report_on(overturned))


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        ("Slashed", "amount", "segments[1].penalties"),
        ("Slashed", "operator", "segments[1].penalties"),
        ("Credited", "amount", "payouts"),
        ("ReputationChanged", "reputation", "reputation"),
    ],
)
def test_audit__stake_of_a_challenge_altered__is_named(
    report_on: Callable[[Play], AuditReport],
    overturned: Play,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    argument: str,
    expected: str,
) -> None:
    genuine, head = record.read_events, overturned.view().block_number

    def lie(*arguments: object, **options: object) -> object:
        for event in genuine(*arguments, **options):  # type: ignore[arg-type]
            if event.name == name and event.block_number <= head:
                event = replace(event, arguments=event.arguments | {argument: altered(event.arguments[argument])})
            yield event

    monkeypatch.setattr(record, "read_events", lie)
    assert expected in failed(report_on(overturned))


@pytest.mark.parametrize("field", MEMBER_FIELDS)
def test_audit__member_of_a_superseded_attempt_flipped__is_named(
    report_on: Callable[[Play], AuditReport],
    overturned: Play,
    chain: LocalChain,
    contracts: Contracts,
    rounds_slot: int,
    field: str,
) -> None:
    word, byte, name = MEMBER_FIELDS[field]
    length = round_place(overturned.job, 2, rounds_slot, 0) + MEMBERS_SLOT
    first = int.from_bytes(keccak(length.to_bytes(32, "big")), "big")
    with Storage(chain, contracts).flipped(first + word, byte):
        assert failed(report_on(overturned)) == {name.replace("[1].", "[2].attempt[0].")}


# --- routes ---------------------------------------------------------------------------------------------------------


def route_of(contracts: Contracts, model: ReadyModel) -> RouteDocument:
    """What a demand for agreement alone leads to, on these contracts."""
    numbers = contracts.jobs.contract.functions
    deployment = Deployment(
        contracts.jobs.minimum_window_seconds(),
        contracts.jobs.minimum_fee(),
        contracts.staking.minimum_stake(),
        int(numbers.contradictionPenaltyBps().call()),
        int(numbers.proverShareBps().call()),
    )
    demand = replace(DEMAND, model=ModelSize.of(model.manifest), criticality=Criticality.LOW, proof_permille=0)
    conditions = replace(CONDITIONS, deployment=deployment, workers=9, largest_weight_wei=2 * ETHER)
    return write_route_document(demand, conditions)


@pytest.fixture(scope="session")
def routed(new_job: NewJob, contracts: Contracts, store: IpfsStore, model: ReadyModel) -> tuple[Play, RouteDocument]:
    document = route_of(contracts, model)
    decided = document.route
    cid = cid_to_digest(store.put(document.to_bytes()))
    return new_job(policy=decided.policy, fee_wei=decided.fee_wei, route_cid=cid).run(), document


def test_audit__routed_job__is_decided_again_and_shows_the_reasons(
    report_on: Callable[[Play], AuditReport], routed: tuple[Play, RouteDocument]
) -> None:
    play, document = routed
    report = report_on(play)
    assert report.failures == ()
    for reason in document.route.reasons:
        assert reason in report.checks["route"].detail


@pytest.mark.parametrize("change", ["fee", "policy", "deployment", "decision", "gone"])
def test_audit__job_that_its_route_does_not_lead_to__is_named(
    report_on: Callable[[Play], AuditReport],
    routed: tuple[Play, RouteDocument],
    new_job: NewJob,
    store: IpfsStore,
    isolation: None,
    change: str,
) -> None:
    _, document = routed
    decided = document.route
    changes: dict[str, object] = {"policy": decided.policy, "fee_wei": decided.fee_wei}
    content = document.to_bytes()
    if change == "fee":
        changes["fee_wei"] = decided.fee_wei - 1
    elif change == "policy":
        changes["policy"] = replace(decided.policy, commit_seconds=decided.policy.commit_seconds + 1)
    elif change == "deployment":
        deployment = replace(document.conditions.deployment, minimum_fee_wei=7)
        content = write_route_document(document.demand, replace(document.conditions, deployment=deployment)).to_bytes()
    elif change == "decision":
        content = content.replace(b'"quorum_bps":', b'"quorum_bps":1')
    digest = keccak(b"nowhere") if change == "gone" else cid_to_digest(store.put(content))
    play = new_job(route_cid=digest, **changes)
    play.request()
    report = report_on(play)
    assert "route" in failed(report)
    assert report.checks["request"].ok

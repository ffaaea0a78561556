"""Every word of a job's record and every event is checked against the others: none can be altered unnoticed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.audit import AuditReport, audit, evidence, record
from offchain.audit.replay import rounds, state
from offchain.audit.report import CheckFailed
from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.chain.events import Event
from offchain.protocol.links import LinkKind
from offchain.protocol.types import Reason
from offchain.proving.ezkl_prover import EzklProver
from offchain.storage.ipfs import IpfsStore
from tests.harness import Play
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration

WORD = 32
# Bit places from the right, as Solidity packs: slot within the struct, byte within the slot. See ``IJobs.sol``.
JOB_FIELDS = {
    "requester": (0, 0, "request"),
    "phase": (0, 20, "phase"),
    "segment": (0, 21, "state"),
    "segments": (0, 22, "segments"),
    "proofsDue": (0, 23, "state"),
    "redraws": (0, 24, "state"),
    "frozenBlock": (0, 25, "start"),
    "seedBlock": (1, 0, "state"),
    "deadline": (1, 6, "state"),
    "endsAt": (1, 12, "start"),
    "closedAt": (1, 18, "state"),
    "modelId": (2, 0, "request"),
    "inputLink": (3, 0, "request"),
    "inputCid": (4, 0, "request"),
    "resultKey": (5, 0, "request"),
    "routeCid": (6, 0, "request"),
    "feeWei": (7, 0, "request"),
    "policy.committeeSize": (8, 0, "request"),
    "policy.quorumBps": (8, 1, "request"),
    "policy.proofPermille": (8, 3, "request"),
    "policy.inputSeconds": (8, 5, "request"),
    "policy.commitSeconds": (8, 9, "request"),
    "policy.revealSeconds": (8, 13, "request"),
    "policy.proveSeconds": (8, 17, "request"),
    "policy.challengeSeconds": (8, 21, "request"),
    "attempts": (9, 0, "state"),
    "attempts.last": (9, 4, "state"),
    "evidenceRoot": (10, 0, "evidence_root"),
}
ROUND_FIELDS = {
    "totalWeight": (0, 0, "segments[1].tally"),
    "settledLink": (1, 0, "segments[1].tally"),
    "settledWeight": (2, 0, "segments[1].tally"),
    "prover": (3, 0, "segments[1].sample"),
    "provedBy": (4, 0, "segments[1].proving"),
    "overturned": (4, 20, "segments[1].tally"),
    "proofHash": (5, 0, "segments[1].proof"),
    "proofCid": (6, 0, "evidence_root"),
}
PROOF_FIELDS = {
    "prover": (3, 0, "segments[1].sample"),
    "provedBy": (4, 0, "segments[1].proof_hash"),
    "overturned": (4, 20, "segments[1].tally"),
    "proofHash": (5, 0, "segments[1].proof_hash"),
    "proofCid": (6, 0, "segments[1].proof"),
}
MEMBERS_SLOT, MEMBER_WORDS = 7, 6
MEMBER_FIELDS = {
    "operator": (0, 0, "segments[1].committee"),
    "announcedBlock": (0, 20, "segments[1].proving"),
    "sealedFor": (0, 26, "segments[1].votes"),
    "weight": (1, 0, "segments[1].committee"),
    "commitment": (2, 0, "segments[1].votes"),
    "link": (3, 0, "segments[1].votes"),
    "activationCid": (4, 0, "segments[1].votes"),
    "announcement": (5, 0, "segments[1].proving"),
}


class Storage:
    """The job contract's storage of a job, word by word."""

    def __init__(self, chain: LocalChain, contracts: Contracts) -> None:
        self._chain = chain
        self._address = contracts.jobs.address

    def read(self, place: int) -> int:
        word = self._chain.connection.web3.eth.get_storage_at(self._address, place)  # type: ignore[arg-type]
        return int.from_bytes(word, "big")

    def write(self, place: int, value: int) -> None:
        self._chain.rpc("anvil_setStorageAt", self._address, f"0x{place:064x}", f"0x{value:064x}")

    @contextmanager
    def flipped(self, place: int, byte: int = 0) -> Any:
        """Flip one bit for a while."""
        before = self.read(place)
        self.write(place, before ^ (1 << (8 * byte)))
        try:
            yield
        finally:
            self.write(place, before)


@pytest.fixture(scope="session")
def memory(chain: LocalChain, contracts: Contracts) -> Storage:
    return Storage(chain, contracts)


@pytest.fixture(scope="session")
def rounds_slot(memory: Storage, agreed: Play) -> int:
    """The slot of ``Jobs._rounds``, found by what it must hold; ``_jobs`` comes right before it."""
    settled = int.from_bytes(agreed.view().rounds[0].settled_link, "big")
    return next(slot for slot in range(16) if memory.read(round_place(agreed.job, 0, slot) + 1) == settled)


def job_place(job: bytes, slot: int) -> int:
    """Where a job begins. Source: Solidity documentation, "Layout of State Variables in Storage"."""
    return int.from_bytes(keccak(encode(["bytes32", "uint256"], [job, slot])), "big")


def round_place(job: bytes, segment: int, slot: int, attempt: int = 0) -> int:
    of_segment = keccak(encode(["uint256", "uint256"], [segment, job_place(job, slot)]))
    return int.from_bytes(keccak(encode(["uint256", "bytes32"], [attempt, of_segment])), "big")


@pytest.fixture
def failed(contracts: Contracts, store: IpfsStore, prover: EzklProver) -> Callable[[Play], set[str]]:
    """Audit a job and give the names of the checks that fail."""

    def run(play: Play) -> set[str]:
        report: AuditReport = audit(contracts, store, prover, play.job)
        return {name for name, _ in report.failures}

    return run


@pytest.mark.parametrize("field", JOB_FIELDS)
def test_audit__job_field_flipped__is_named(
    failed: Callable[[Play], set[str]], memory: Storage, agreed: Play, rounds_slot: int, field: str
) -> None:
    slot, byte, expected = JOB_FIELDS[field]
    with memory.flipped(job_place(agreed.job, rounds_slot - 1) + slot, byte):
        assert expected in failed(agreed)


@pytest.mark.parametrize("field", ROUND_FIELDS)
def test_audit__round_field_flipped__is_named(
    failed: Callable[[Play], set[str]], memory: Storage, agreed: Play, rounds_slot: int, field: str
) -> None:
    word, byte, expected = ROUND_FIELDS[field]
    with memory.flipped(round_place(agreed.job, 1, rounds_slot) + word, byte):
        assert expected in failed(agreed)


@pytest.mark.parametrize("field", PROOF_FIELDS)
def test_audit__proof_field_flipped__is_named(
    failed: Callable[[Play], set[str]], memory: Storage, finished: Play, rounds_slot: int, field: str
) -> None:
    word, byte, expected = PROOF_FIELDS[field]
    with memory.flipped(round_place(finished.job, 1, rounds_slot) + word, byte):
        assert expected in failed(finished)


@pytest.mark.parametrize("member", [0, 2])
@pytest.mark.parametrize("field", MEMBER_FIELDS)
def test_audit__member_field_flipped__is_named(
    failed: Callable[[Play], set[str]], memory: Storage, agreed: Play, rounds_slot: int, member: int, field: str
) -> None:
    word, byte, expected = MEMBER_FIELDS[field]
    length = round_place(agreed.job, 1, rounds_slot) + MEMBERS_SLOT
    first = int.from_bytes(keccak(length.to_bytes(WORD, "big")), "big")
    with memory.flipped(first + member * MEMBER_WORDS + word, byte):
        assert expected in failed(agreed)
    assert failed(agreed) == set()


EVENT_ARGUMENTS = [
    ("JobRequested", "requester", "request"),
    ("JobRequested", "inputLink", "request"),
    ("JobRequested", "policy", "request"),
    ("JobRequested", "routeCid", "request"),
    ("JobStarted", "frozenBlock", "start"),
    ("JobStarted", "endsAt", "start"),
    ("InputProvided", "inputCid", "request"),
    ("SeedBlockSet", "seedBlock", "segments[0].committee"),
    ("CommitteeDrawn", "seed", "segments[0].committee"),
    ("CommitteeDrawn", "operators", "segments[0].committee"),
    ("CommitteeDrawn", "weights", "segments[0].committee"),
    ("CommitteeDrawn", "attempt", "segments[0].committee"),
    ("Committed", "commitment", "segments[0].votes"),
    ("Committed", "attempt", "segments[0].votes"),
    ("Revealed", "attempt", "segments[0].votes"),
    ("Revealed", "link", "segments[0].votes"),
    ("Revealed", "activationCid", "segments[0].votes"),
    ("SegmentSettled", "link", "segments[0].tally"),
    ("SegmentSettled", "stakeFor", "segments[0].tally"),
    ("SegmentSettled", "stakeTotal", "segments[0].tally"),
    ("ProverDrawn", "prover", "segments[0].sample"),
    ("ProverDrawn", "deadline", "segments[0].sample"),
    ("SegmentProved", "prover", "segments[0].proof_hash"),
    ("SegmentProved", "proofHash", "segments[0].proof_hash"),
    ("SegmentProved", "proofCid", "segments[0].proof_hash"),
    ("SegmentProved", "linkIn", "segments[0].link_out"),
    ("SegmentProved", "linkOut", "segments[0].proving"),
    ("JobFinalised", "resultLink", "evidence_root"),
    ("JobFinalised", "evidenceRoot", "evidence_root"),
]


def altered(value: Any) -> Any:
    if isinstance(value, bytes):
        return bytes(value[:-1]) + bytes([value[-1] ^ 1])
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, str):
        return "0x" + "12" * 20
    if isinstance(value, (list, tuple)):
        return tuple(reversed(value))
    return dict.fromkeys(value, 1)


def alter_events(monkeypatch: pytest.MonkeyPatch, change: Callable[[list[Event]], list[Event]]) -> None:
    """Have the chain's endpoint lie about a job's events."""
    genuine = record.job_events
    monkeypatch.setattr(record, "job_events", lambda *arguments: tuple(change(list(genuine(*arguments)))))


@pytest.mark.parametrize(("name", "argument", "expected"), EVENT_ARGUMENTS)
def test_audit__event_altered__is_named(
    failed: Callable[[Play], set[str]],
    finished: Play,
    agreed: Play,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    argument: str,
    expected: str,
) -> None:
    def change(events: list[Event]) -> list[Event]:
        place = next(place for place, event in enumerate(events) if event.name == name)
        event = events[place]
        events[place] = replace(event, arguments=event.arguments | {argument: altered(event.arguments[argument])})
        return events

    alter_events(monkeypatch, change)
    # Without proofs an audit takes a tenth of a second.
    assert expected in failed(finished if name in ("ProverDrawn", "SegmentProved") else agreed)


@pytest.mark.parametrize(
    ("name", "times", "expected"),
    [
        ("JobRequested", 0, "request"),
        ("JobRequested", 2, "request"),
        ("JobStarted", 0, "start"),
        ("JobStarted", 2, "start"),
        ("SeedBlockSet", 0, "segments[0].committee"),
        ("SeedBlockSet", 2, "segments[0].committee"),
        ("InputProvided", 0, "request"),
        ("InputProvided", 2, "request"),
        ("CommitteeDrawn", 0, "segments[0].committee"),
        ("CommitteeDrawn", 2, "segments[0].committee"),
        ("Committed", 0, "segments[0].votes"),
        ("Revealed", 0, "segments[0].votes"),
        ("SegmentSettled", 0, "segments[0].tally"),
        ("SegmentSettled", 2, "segments[0].tally"),
        ("JobFinalised", 0, "evidence_root"),
        ("JobFinalised", 2, "evidence_root"),
    ],
)
def test_audit__event_missing_or_repeated__is_named(
    failed: Callable[[Play], set[str]],
    agreed: Play,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    times: int,
    expected: str,
) -> None:
    def change(events: list[Event]) -> list[Event]:
        place = next(place for place, event in enumerate(events) if event.name == name)
        return events[:place] + [events[place]] * times + events[place + 1 :]

    alter_events(monkeypatch, change)
    assert expected in failed(agreed)


def test_audit__penalty_that_nobody_deserved__is_named(
    failed: Callable[[Play], set[str]], agreed: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(events: list[Event]) -> list[Event]:
        operator = agreed.view().rounds[2].members[1].operator
        fine = {"segment": 2, "operator": operator, "reason": int(Reason.MISSED_PROOF), "amount": 1}
        return [*events, replace(events[-1], name="OperatorPenalised", arguments=fine)]

    alter_events(monkeypatch, change)
    assert failed(agreed) == {"segments[2].penalties"}


def test_audit__vote_of_a_stranger__is_named(
    failed: Callable[[Play], set[str]], agreed: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(events: list[Event]) -> list[Event]:
        vote = next(event for event in events if event.name == "Committed")
        return [*events, replace(vote, arguments=vote.arguments | {"operator": "0x" + "12" * 20})]

    alter_events(monkeypatch, change)
    assert failed(agreed) == {"segments[0].votes"}


def test_audit__commitment_that_the_salt_does_not_open__is_named(
    failed: Callable[[Play], set[str]], agreed: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "calldata_of", lambda *arguments: {"salt": bytes(32)})
    assert failed(agreed) == {f"segments[{index}].votes" for index in range(3)}


def test_audit__drawn_outside_the_seeds_lifetime__is_named(
    failed: Callable[[Play], set[str]], agreed: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "SEED_LIFETIME_BLOCKS", 0)
    assert failed(agreed) == {f"segments[{index}].committee" for index in range(3)}


@pytest.mark.parametrize(
    ("name", "argument", "expected"),
    [
        ("WeightChanged", "weight", {f"segments[{index}].committee" for index in range(3)}),
        ("Credited", "amount", {"payouts"}),
        ("Credited", "account", {"payouts"}),
        ("ReputationChanged", "operator", {"reputation"}),
        ("ReputationChanged", "reputation", {"reputation"}),
    ],
)
def test_audit__stake_or_payment_altered__is_named(
    failed: Callable[[Play], set[str]],
    agreed: Play,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    argument: str,
    expected: set[str],
) -> None:
    genuine = record.read_events

    def lie(*arguments: Any, **options: Any) -> Any:
        for event in genuine(*arguments, **options):
            if event.name == name:
                event = replace(event, arguments=event.arguments | {argument: altered(event.arguments[argument])})
            yield event

    monkeypatch.setattr(record, "read_events", lie)
    assert failed(agreed) == expected


def test_audit__block_replaced_meanwhile__is_named(
    failed: Callable[[Play], set[str]], agreed: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    genuine = Connection.block_hash

    def reorganised(self: Connection, number: int) -> bytes:
        seen.append(number)
        head = agreed.view().block_number
        return bytes(32) if number == head and seen.count(head) > 1 else genuine(self, number)

    monkeypatch.setattr(Connection, "block_hash", reorganised)
    assert failed(agreed) == {"block"}


def test_audit__started_in_another_block_than_the_frozen_one_says__is_named(
    failed: Callable[[Play], set[str]], agreed: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(events: list[Event]) -> list[Event]:
        return [
            replace(event, block_number=event.block_number + 1) if event.name == "JobStarted" else event
            for event in events
        ]

    alter_events(monkeypatch, change)
    assert failed(agreed) == {"start"}


@pytest.mark.parametrize(
    "change",
    [
        {"input_kind": LinkKind.POSEIDON},
        {"output_kind": LinkKind.POSEIDON},
        {"proof_bytes": 3_456},
        {"verifier_code_hash": bytes(32)},
        {"verification_key_digest": bytes(32)},
        {"input_elements": 1},
        {"output_elements": 1},
    ],
)
def test_check_registered__field_that_the_manifest_contradicts__fails(
    contracts: Contracts, finished: Play, change: dict[str, Any]
) -> None:
    registered = contracts.registry.segment_of(finished.model.id, 1)
    described = finished.model.manifest.segments[1]
    assert evidence.check_registered(registered, described)
    with pytest.raises(CheckFailed):
        evidence.check_registered(replace(registered, **change), described)


def test_check_links__other_links_than_recorded__fail(contracts: Contracts, finished: Play) -> None:
    chain_record = record.read_record(contracts, finished.job)
    registered = contracts.registry.segment_of(finished.model.id, 1)
    facts = evidence.read_links(finished.proof(1), registered)
    swapped = replace(facts, opening=facts.closing, closing=facts.opening)
    attempt = evidence.ProvedAttempt(
        1, chain_record.rounds[1], True, chain_record.opening_link(1), chain_record.one("SegmentProved", 1)
    )
    for check in (evidence.check_link_in, evidence.check_link_out):
        assert check(attempt, facts)
        with pytest.raises(CheckFailed):
            check(attempt, swapped)
    assert evidence.check_on_chain(chain_record, 1, facts)
    with pytest.raises(CheckFailed):
        evidence.check_on_chain(chain_record, 1, swapped)


def test_read_result__other_instances_than_settled__fail(contracts: Contracts, finished: Play) -> None:
    chain_record, proof = record.read_record(contracts, finished.job), finished.proof(2)
    assert evidence.read_result(chain_record, finished.model.manifest, proof)
    for instances in ((proof.instances[0] + 1, *proof.instances[1:]), proof.instances[1:]):
        with pytest.raises(CheckFailed):
            evidence.read_result(chain_record, finished.model.manifest, replace(proof, instances=instances))

"""Tests of what a worker does about stake that is held, on a chain whose mock verifiers take two outputs."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.chain.contracts import Contracts
from offchain.chain.errors import ChainUnreachable, TransactionRefused
from offchain.chain.events import job_events
from offchain.chain.staking import hold_of
from offchain.errors import RecoverableError
from offchain.protocol.types import Hold, Link, ModelId
from offchain.proving.port import Proof
from offchain.worker import appeals as appeals_module
from offchain.worker.appeals import Appeals
from offchain.worker.memory import Memory, Work
from tests.contracts.stage import PROOF_BYTES, Play, Stage, with_policy
from tests.local_chain import ETHER, InstantSender, LocalChain

pytestmark = pytest.mark.integration

BOUNDARY = keccak(b"another x") + keccak(b"another y")
"""What stands for an output that the verifiers take as well."""
ALSO_RIGHT = Link(keccak(BOUNDARY))
DEPTH = 10


@pytest.fixture(scope="module")
def shared_stage(chain: LocalChain, contracts: Contracts) -> Stage:
    stage = Stage(chain, contracts, chain.instant("appeals requester"), chain.instant("appeals owner"))
    stage.model = stage.register_segments(2, "appealed")
    stage.workers = tuple(chain.instant(f"appeals worker {index}") for index in range(3))
    for worker in stage.workers:
        stage.join(worker, 2 * ETHER)
    return stage


@dataclass
class Held:
    """Two members of three are contradicted by the third."""

    play: Play
    loser: InstantSender
    other: InstantSender
    challenger: InstantSender
    holds: dict[str, Hold]


@pytest.fixture
def held(shared_stage: Stage, chain: LocalChain) -> Iterator[Held]:
    with chain.isolated():
        play = shared_stage.request(with_policy(proof_permille=0)).to_committing()
        loser, other, challenger = play.members()
        play.play_round({loser.address: ALSO_RIGHT, other.address: ALSO_RIGHT})
        play.challenge(0, challenger)
        yield Held(play, loser, other, challenger, holds_of(play))


def holds_of(play: Play) -> dict[str, Hold]:
    return {event.arguments["operator"]: hold_of(event.arguments) for event in slash_events(play)}


def slash_events(play: Play) -> list[Any]:
    contracts = play.stage.contracts
    events = job_events(contracts, play.job, contracts.deployment.block, contracts.connection.block_number())
    return [event for event in events if event.name == "SlashHeld"]


class Proving:
    """Makes what the mock verifiers take for a proof of the other output; what goes wrong is set by a test."""

    def __init__(self, play: Play) -> None:
        self.opening = bytes(play.proof(0)[0][:64])
        self.closing = BOUNDARY
        self.errors: list[Exception] = []
        self.asked: list[tuple[ModelId, Work]] = []
        self.never_ends = False
        self.cancelled = 0

    def make(self, model: ModelId, work: Work, seconds: float) -> Any:
        self.asked.append((model, work))
        future: Future[Proof] = Future()
        if self.never_ends:
            return SimpleNamespace(future=future, cancel=self._count)
        if self.errors:
            future.set_exception(self.errors.pop())
        else:
            future.set_result(Proof((self.opening + self.closing).ljust(PROOF_BYTES, b"\1"), ()))
        return SimpleNamespace(future=future, cancel=future.cancel)

    def _count(self) -> None:
        self.cancelled += 1


@dataclass
class Bench:
    """One worker's appeals, with what they stand on."""

    appeals: Appeals
    memory: Memory
    proving: Proving
    stage: Stage

    def attend(self) -> bool:
        return self.appeals.attend_all(self.stage.chain.head()[0])


def bench(held: Held, worker: InstantSender, path: Path, link: Link = ALSO_RIGHT) -> Bench:
    memory, proving, stage = Memory(path / "memory.sqlite"), Proving(held.play), held.play.stage
    opening = Link(held.play.record.input_link)
    memory.open_job(held.play.job)
    memory.save(Work(held.play.job, 0, 0, opening, (1,), (2,), link, bytes(32)))
    appeals = Appeals(stage.contracts, worker, memory, proving, DEPTH)  # type: ignore[arg-type]
    for event in slash_events(held.play):
        appeals.notice(event)
    return Bench(appeals, memory, proving, stage)


def active(held: Held, worker: InstantSender) -> int:
    return held.play.stage.contracts.staking.active_of(worker.address)


def test_attend_all__own_stake_is_held__proves_what_was_revealed_and_gets_it_back(held: Held, tmp_path: Path) -> None:
    desk = bench(held, held.loser, tmp_path)
    assert desk.memory.holds() == (held.holds[held.loser.address],)
    before = active(held, held.loser)
    assert not desk.attend()  # begins the proof, and it is there at once
    model, work = desk.proving.asked[0]
    assert (model, work.link, work.attempt) == (held.play.stage.model, ALSO_RIGHT, 0)
    assert active(held, held.loser) == before + held.holds[held.loser.address].amount
    desk.attend()
    assert len(desk.proving.asked) == 1
    assert not desk.appeals


def test_attend_all__appealed_long_ago__forgets_it_and_what_was_computed(held: Held, tmp_path: Path) -> None:
    desk = bench(held, held.loser, tmp_path)
    desk.attend()
    desk.memory.close_job(held.play.job)
    hold = held.holds[held.loser.address]
    where = (held.play.job, 0, 0, hold.opening)
    desk.attend()
    assert desk.memory.work(*where) is not None  # the appeal may be undone yet
    desk.stage.chain.mine(DEPTH + 1)
    desk.attend()
    assert desk.memory.holds() == ()
    assert desk.memory.work(*where) is None


def test_attend_all__appeal_undone_by_a_reorganisation__appeals_again(
    held: Held, tmp_path: Path, chain: LocalChain
) -> None:
    desk = bench(held, held.loser, tmp_path)
    with chain.isolated():
        desk.attend()
    assert desk.stage.contracts.staking.is_held(held.holds[held.loser.address])
    desk.attend()
    assert not desk.stage.contracts.staking.is_held(held.holds[held.loser.address])


def test_attend_all__proof_fails__makes_another(held: Held, tmp_path: Path) -> None:
    desk = bench(held, held.loser, tmp_path)
    desk.proving.errors.append(RecoverableError("out of memory"))
    desk.attend()
    assert desk.stage.contracts.staking.is_held(held.holds[held.loser.address])
    desk.attend()
    assert len(desk.proving.asked) == 2
    assert not desk.stage.contracts.staking.is_held(held.holds[held.loser.address])


def test_attend_all__what_it_revealed_is_a_lie__gives_up(
    held: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    desk = bench(held, held.loser, tmp_path)
    desk.proving.closing = held.play.stage._boundary(1)  # an honest prover can prove nothing else
    desk.attend()
    assert "ClosingLinkMismatch" in caplog.text
    assert desk.memory.holds() == ()


@pytest.mark.parametrize("worse", ["ChainUnreachable", "KeyError"])
def test_attend_all__trouble_with_one__attends_to_the_others(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worse: str
) -> None:
    desk = bench(held, held.loser, tmp_path)
    first = replace(held.holds[held.loser.address], release_at=1)  # due before the other, and not held at all
    desk.memory.save_hold(first)
    genuine = desk.stage.contracts.staking.is_held
    error: Exception = ChainUnreachable("rpc", "away") if worse == "ChainUnreachable" else KeyError("odd")

    def fail(hold: Hold) -> bool:
        if hold == first:
            raise error
        return genuine(hold)

    monkeypatch.setattr(desk.stage.contracts.staking, "is_held", fail)
    desk.attend()
    assert not genuine(held.holds[held.loser.address])


def test_attend_all__refused_for_a_passing_reason__keeps_it_and_appeals_again(
    held: Held, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, now = bench(held, held.loser, tmp_path), 1000.0
    monkeypatch.setattr(appeals_module, "time", SimpleNamespace(monotonic=lambda: now))
    staking = desk.stage.contracts.staking
    genuine = staking.appeal

    def refuse(*_: object) -> None:
        raise TransactionRefused("appeal", "VerifierGasTooLow", {})

    monkeypatch.setattr(staking, "appeal", refuse)
    desk.attend()
    monkeypatch.setattr(staking, "appeal", genuine)
    desk.attend()
    assert staking.is_held(held.holds[held.loser.address])  # it is left alone for a while
    now += appeals_module.PAUSE_SECONDS
    desk.attend()
    assert not staking.is_held(held.holds[held.loser.address])


def test_attend_all__more_than_a_few_at_once__asks_for_those_that_are_due_first(held: Held, tmp_path: Path) -> None:
    desk = bench(held, held.loser, tmp_path)
    desk.memory.drop_hold(held.holds[held.loser.address])
    mine = held.holds[held.loser.address]
    for hold in (replace(mine, attempt=index, release_at=9 * 10**9 - index) for index in range(12)):
        desk.memory.save_hold(hold)
        desk.memory.save(Work(hold.job_id, 0, hold.attempt, hold.opening, (1,), (2,), hold.link, bytes(32)))
    desk.proving.never_ends = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(desk.stage.contracts.staking, "is_held", lambda hold: True)
        desk.attend()
    assert [work.attempt for _, work in desk.proving.asked] == list(range(11, 11 - appeals_module.MOST_AT_ONCE, -1))
    desk.appeals.stop()
    assert desk.proving.cancelled == appeals_module.MOST_AT_ONCE


def test_attend_all__work_is_lost__says_so(held: Held, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    desk = bench(held, held.loser, tmp_path, link=Link(keccak(b"something else")))
    desk.attend()
    assert desk.proving.asked == []
    assert "no appeal" in caplog.text


def test_attend_all__nobody_appealed_in_time__challenger_releases_what_it_has_a_share_in(
    held: Held, tmp_path: Path, chain: LocalChain
) -> None:
    desk = bench(held, held.challenger, tmp_path)
    assert len(desk.memory.holds()) == 2
    assert not desk.attend()
    staking = desk.stage.contracts.staking
    assert all(staking.is_held(hold) for hold in held.holds.values())
    chain.move_to(next(iter(held.holds.values())).release_at)
    assert desk.attend()
    assert not any(staking.is_held(hold) for hold in held.holds.values())
    assert staking.compensation_of(held.challenger.address) > 0


def test_attend_all__too_late_for_an_appeal__forgets_it(held: Held, tmp_path: Path, chain: LocalChain) -> None:
    desk = bench(held, held.loser, tmp_path)
    chain.move_to(held.holds[held.loser.address].release_at)
    desk.attend()
    assert desk.proving.asked == []
    assert desk.memory.holds() == ()


def test_notice__stake_of_others__is_not_remembered(held: Held, tmp_path: Path) -> None:
    assert bench(held, held.play.stage.owner, tmp_path).memory.holds() == ()


def test_memory__reopened__still_knows_what_is_held(held: Held, tmp_path: Path) -> None:
    desk = bench(held, held.loser, tmp_path)
    desk.memory.close()
    again = Memory(tmp_path / "memory.sqlite")
    assert again.holds() == (held.holds[held.loser.address],)
    again.drop_hold(replace(held.holds[held.loser.address], amount=1))
    assert len(again.holds()) == 1


def test_memory__same_attempt_with_another_opening__is_other_work(tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory.sqlite")
    job: Any = b"\1" * 32
    first, second = Link(b"\2" * 32), Link(b"\3" * 32)
    memory.save(Work(job, 1, 1, first, (1,), (2,), first, bytes(32)))
    assert memory.work(job, 1, 1, second) is None
    memory.save(Work(job, 1, 1, second, (3,), (4,), second, bytes(32)))
    found = memory.work(job, 1, 1, first)
    assert found is not None
    assert found.inputs == (1,)

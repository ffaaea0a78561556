"""Proofs that are begun before anybody asks for them: which, how many, and what ends them."""

from __future__ import annotations

from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from offchain.protocol.duties import JobView
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_ADDRESS, ZERO_HASH, Address, Link, Member, Phase
from offchain.proving.port import Proof, ProverFailed
from offchain.sandbox import Cancellation
from offchain.worker.asked import round_of
from offchain.worker.early import EarlyBounds, EarlyProofs, chances
from offchain.worker.memory import Work
from tests.offchain.worker.test_daemon import JOBS, LINK, ME, proving

pytestmark = pytest.mark.unit

OTHERS = tuple(Address("0x" + digit * 40) for digit in "23")
NONE = Link(ZERO_HASH)
OTHER_LINK = Link(b"\x08" * 32)


def member(operator: Address, link: Link = NONE, weight: int = 1) -> Member:
    return Member(operator, weight, b"\1" * 32, link, ZERO_HASH)


def job(*, segments: int = 1, settled: int = 0, permille: int = 1000, phase: Phase = Phase.COMMITTING) -> JobView:
    """A job in which this worker has committed to every segment, the first ones of which are settled."""
    view = proving(JOBS[0])
    empty = replace(view.rounds[0], prover=ZERO_ADDRESS, proof_hash=ZERO_HASH, total_weight=3, overturned=False)
    rounds = []
    for segment in range(segments):
        link = LINK if segment < settled else NONE
        members = tuple(member(operator, link) for operator in (ME, *OTHERS))
        rounds.append(replace(empty, settled_link=link, members=members))
    policy = replace(view.job.policy, proof_permille=permille)
    attempts = (0,) * segments
    stored = replace(view.job, phase=phase, policy=policy, segments=segments, segment=segments - 1, attempts=attempts)
    return replace(view, job=stored, phase=phase, rounds=tuple(rounds))


def changed(view: JobView, segment: int, **changes: Any) -> JobView:
    rounds = list(view.rounds)
    rounds[segment] = replace(rounds[segment], **changes)
    return replace(view, rounds=tuple(rounds))


def test_chances__committed__is_the_share_of_the_committee() -> None:
    assert chances(job(), ME) == {0: pytest.approx(1 / 3)}
    assert chances(job(permille=500), ME) == {0: pytest.approx(1 / 6)}
    heavy = changed(job(), 0, members=(member(ME, weight=3), *map(member, OTHERS)), total_weight=5)
    assert chances(heavy, ME) == {0: pytest.approx(3 / 5)}


def test_chances__settled__is_the_share_of_the_supporters() -> None:
    members = (member(ME, LINK), member(OTHERS[0], LINK), member(OTHERS[1], OTHER_LINK))
    assert chances(changed(job(settled=1), 0, members=members), ME) == {0: pytest.approx(1 / 2)}
    assert chances(changed(job(settled=1), 0, members=members), OTHERS[1]) == {}


@pytest.mark.parametrize(
    "view",
    [
        job(permille=0),
        job(phase=Phase.PROVING),
        job(phase=Phase.CHALLENGEABLE),
        job(phase=Phase.FAILED),
        changed(job(), 0, members=tuple(map(member, OTHERS))),
        changed(job(), 0, members=(replace(member(ME), commitment=ZERO_HASH), *map(member, OTHERS))),
        changed(job(settled=1), 0, proof_hash=b"\1" * 32),
        changed(job(settled=1), 0, prover=OTHERS[0]),
    ],
)
def test_chances__nothing_can_be_asked_of_it__is_none(view: JobView) -> None:
    assert chances(view, ME) == {}


def test_chances__drawn_before_a_later_segment_was_overturned__is_certain() -> None:
    assert chances(changed(job(settled=1, permille=10), 0, prover=ME), ME) == {0: 1.0}


class Asking:
    """Early proofs, whose making is in the test's hands."""

    def __init__(self, at_once: int = 1, least_permille: int = 0, link: Link = LINK) -> None:
        self.asked: dict[int, Any] = {}
        self.early = EarlyProofs(EarlyBounds(at_once, least_permille), self._ask)
        self._link = link

    def _ask(self, view: JobView, work: Work) -> Any:
        future: Future[Proof] = Future()
        cancellation = Cancellation()
        asked = SimpleNamespace(future=future, cancellation=cancellation, cancel=cancellation.cancel, is_lost=False)
        self.asked[work.segment] = asked
        return asked

    def attend(self, view: JobView, *due: int) -> None:
        works = [Work(view.job.id, it, 0, LINK, (1,), (2,), self._link, bytes(32)) for it in range(view.job.segments)]
        self.early.attend(view, ME, {round_of(view, it) for it in due}, lambda segment: works[segment])

    def cancelled(self) -> list[int]:
        return [segment for segment, asked in self.asked.items() if asked.cancellation.is_cancelled]


def test_attend__segment_executed__begins_its_proof_once() -> None:
    asking = Asking(at_once=9)
    asking.attend(job())
    first = asking.asked[0]
    asking.attend(job())
    assert asking.asked == {0: first}
    first.future.set_exception(ProverFailed("segment", "cancelled", "one that was due took its place"))
    asking.attend(job())
    assert asking.asked == {0: first}  # what was wasted once is not wasted again


@pytest.mark.parametrize(("at_once", "begun"), [(0, []), (1, [0]), (2, [0, 1])])
def test_attend__many_segments__begins_no_more_than_it_may(at_once: int, begun: list[int]) -> None:
    asking = Asking(at_once)
    asking.attend(job(segments=3))
    assert list(asking.asked) == begun


def test_attend__one_is_made__begins_the_next() -> None:
    asking = Asking()
    asking.attend(job(segments=2))
    asking.asked[0].future.set_result(Proof(b"proof", ()))
    asking.attend(job(segments=2))
    assert list(asking.asked) == [0, 1]


@pytest.mark.parametrize(("least", "begun"), [(333, [0]), (334, [])])
def test_attend__chance_is_small__begins_nothing(least: int, begun: list[int]) -> None:
    asking = Asking(least_permille=least)
    asking.attend(job())
    assert list(asking.asked) == begun


@pytest.mark.parametrize("vote", [BAD_INPUT, UNAVAILABLE])
def test_attend__it_voted__has_nothing_to_prove(vote: Link) -> None:
    asking = Asking(link=vote)
    asking.attend(job())
    assert asking.asked == {}


@pytest.mark.parametrize(
    "outcome",
    [
        changed(job(settled=1), 0, settled_link=OTHER_LINK),
        changed(job(settled=1, phase=Phase.PROVING), 0, prover=OTHERS[0]),
        job(settled=1, phase=Phase.CHALLENGEABLE),
        job(phase=Phase.FAILED),
    ],
)
def test_attend__outcome_makes_it_useless__ends_it(outcome: JobView) -> None:
    asking = Asking()
    asking.attend(job())
    asking.attend(outcome)
    assert asking.cancelled() == [0]
    assert asking.early.take(round_of(outcome, 0)) is None


def test_attend__segment_is_done_again__ends_the_proof_of_its_first_attempt() -> None:
    asking = Asking()
    asking.attend(job())
    first = asking.asked[0]
    view = job()
    asking.attend(replace(view, job=replace(view.job, attempts=(1,))))
    assert first.cancellation.is_cancelled
    assert asking.asked[0] is not first


def test_take__this_worker_was_drawn__hands_it_over_under_way() -> None:
    asking = Asking()
    asking.attend(job())
    drawn = changed(job(settled=1, phase=Phase.PROVING), 0, prover=ME)
    asking.attend(drawn, 0)
    assert asking.early.take(round_of(drawn, 0)) is asking.asked[0]
    assert asking.cancelled() == []
    assert asking.early.take(round_of(drawn, 0)) is None


def test_take__nothing_will_come_of_it__is_none() -> None:
    asking = Asking()
    asking.attend(job())
    asking.asked[0].is_lost = True
    assert asking.early.take(round_of(job(), 0)) is None


def test_stop__ends_them() -> None:
    asking = Asking()
    asking.attend(job())
    asking.early.stop()
    assert asking.cancelled() == [0]

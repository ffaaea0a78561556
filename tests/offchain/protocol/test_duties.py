"""What falls to whom: requester, members, strangers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offchain.protocol.duties import Action, JobView, duties_of
from offchain.protocol.types import (
    UNAVAILABLE,
    ZERO_ADDRESS,
    ZERO_HASH,
    Address,
    Job,
    JobId,
    Link,
    Member,
    ModelId,
    Phase,
    Round,
)
from offchain.requester.policy import DEFAULT_POLICY

pytestmark = pytest.mark.unit

REQUESTER, FIRST, SECOND, THIRD, STRANGER = (Address("0x" + f"{number:02x}" * 20) for number in range(1, 6))
TRUTH, LIE = Link(b"\7" * 32), Link(b"\x08" * 32)
EMPTY = Round(0, Link(ZERO_HASH), 0, ZERO_ADDRESS, ZERO_ADDRESS, False, ZERO_HASH, ZERO_HASH, ())


def round_of(says: dict[Address, Link], settled: Link = Link(ZERO_HASH), sealed_for: int = 0) -> Round:  # noqa: B008
    """A round in which everybody committed and revealed what ``says`` says."""
    members = tuple(
        Member(operator, 1, b"\1" * 32, link, b"\2" * 32, sealed_for=sealed_for) for operator, link in says.items()
    )
    return replace(EMPTY, total_weight=len(members), settled_link=settled, settled_weight=2, members=members)


def view_of(phase: Phase, *rounds: Round, segment: int = 0, attempts: tuple[int, ...] = (0, 0)) -> JobView:
    """A job of two segments."""
    job = Job(
        JobId(b"\1" * 32), REQUESTER, phase, segment, 2, 0, 0, 1, 0, 10_000, 20_000, 0, ModelId(b"\3" * 32), TRUTH,
        ZERO_HASH, ZERO_HASH, ZERO_HASH, 1, DEFAULT_POLICY, attempts, ZERO_HASH,
    )  # fmt: skip
    return JobView(job, phase, (*rounds, *[EMPTY] * (2 - len(rounds))), 10, 100)


def actions(view: JobView, account: Address) -> list[tuple[Action, int]]:
    return [(duty.action, duty.segment) for duty in duties_of(view, account)]


AGREED = {FIRST: TRUTH, SECOND: TRUTH, THIRD: TRUTH}


@pytest.mark.parametrize("phase", [Phase.COMMITTING, Phase.DRAWING, Phase.SAMPLING, Phase.PROVING, Phase.CHALLENGEABLE])
def test_duties_of__settled_on_another_output__is_to_challenge_whatever_goes_on(phase: Phase) -> None:
    view = view_of(phase, round_of({FIRST: LIE, SECOND: LIE, THIRD: TRUTH}, LIE), segment=1)
    assert (Action.CHALLENGE, 0) in actions(view, THIRD)
    assert (Action.CHALLENGE, 0) not in actions(view, FIRST)


@pytest.mark.parametrize("phase", [Phase.FINALISABLE, Phase.FINALISED, Phase.EXPIRED, Phase.FAILED])
def test_duties_of__job_that_is_decided__is_not_challenged(phase: Phase) -> None:
    view = view_of(phase, round_of({FIRST: LIE, SECOND: LIE, THIRD: TRUTH}, LIE))
    assert (Action.CHALLENGE, 0) not in actions(view, THIRD)


def test_duties_of__proved_segment_or_a_vote__is_not_challenged() -> None:
    proved = replace(round_of({FIRST: LIE, SECOND: LIE, THIRD: TRUTH}, LIE), proof_hash=b"\4" * 32)
    assert not actions(view_of(Phase.CHALLENGEABLE, proved), THIRD)
    voted = round_of({FIRST: LIE, SECOND: LIE, THIRD: UNAVAILABLE}, LIE)
    assert not actions(view_of(Phase.CHALLENGEABLE, voted), THIRD)


def test_duties_of__contested__falls_to_everybody_with_an_output_in_turn() -> None:
    view = view_of(Phase.CONTESTED, round_of({FIRST: LIE, SECOND: UNAVAILABLE, THIRD: TRUTH}))
    assert [duty.rank for duty in duties_of(view, FIRST)] == [0]
    assert [duty.rank for duty in duties_of(view, THIRD)] == [1]
    assert not actions(view, SECOND)


def test_duties_of__committee_drawn_anew__has_the_supporters_seal_again() -> None:
    view = view_of(Phase.COMMITTING, round_of(AGREED, TRUTH), segment=1, attempts=(0, 1))
    assert actions(view, FIRST) == [(Action.RESEAL, 0)]
    sealed = view_of(Phase.COMMITTING, round_of(AGREED, TRUTH, sealed_for=1), segment=1, attempts=(0, 1))
    assert not actions(sealed, FIRST)
    assert not actions(view, STRANGER)


def test_duties_of__committee_to_be_replaced__is_drawn_by_those_who_are_owed_their_pay() -> None:
    """The round under way has no members then: were it theirs alone, nobody but the requester would draw."""
    view = view_of(Phase.DRAWING, round_of(AGREED, TRUTH), EMPTY, segment=1)
    assert [duty.rank for account in (REQUESTER, FIRST, SECOND, THIRD) for duty in duties_of(view, account)] == [
        0,
        1,
        2,
        3,
    ]
    assert not actions(view, STRANGER)


@pytest.mark.parametrize("phase", [Phase.REQUESTED, Phase.EXPIRED])
def test_duties_of__job_without_a_committee__falls_to_strangers_after_its_requester(phase: Phase) -> None:
    (duty,) = duties_of(view_of(phase), STRANGER)
    assert duty.action is (Action.DRAW if phase is Phase.REQUESTED else Action.EXPIRE)
    assert 1 <= duty.rank <= 8
    assert duties_of(view_of(phase), REQUESTER)[0].rank == 0


def test_duties_of__queued__is_to_have_the_next_one_admitted() -> None:
    assert actions(view_of(Phase.QUEUED), REQUESTER) == [(Action.ADMIT, 0)]
    assert not actions(view_of(Phase.QUEUED), STRANGER)

"""What a proof takes is held for a day, and whoever proves its own output as well has it back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.chain.sender import Receipt
from offchain.protocol.types import ZERO_ADDRESS, Hold, Label, Link, Phase
from tests.contracts.contradicted import (
    DAY,
    OTHER,
    WRONG,
    appeal,
    hold_against,
    of_nobodys_bond,
    overturned,
    proof_of,
    release,
)
from tests.contracts.record import (
    CONTRADICTION_BPS,
    compensations,
    holds_of,
    newest_events,
    release_all,
    share,
)
from tests.contracts.stage import FEE, PROOF_BYTES, STAKES, Play, Stage, refused, with_policy
from tests.contracts.test_staking import weight_now
from tests.contracts.test_staking_reputation import MAXIMUM, have, reputations
from tests.contracts.two_outputs import LIE, SECOND, own_proof, register_two_outputs

pytestmark = pytest.mark.integration


# --- what is held -----------------------------------------------------------------------------------------------------


def test_challenge__members_it_contradicts__has_their_stake_held_and_says_of_whom_and_why(stage: Stage) -> None:
    for worker, reputation in zip(stage.workers, (5, 6, 7), strict=True):
        have(stage, worker, reputation)
    nobody, before = stage.chain.connection.balance(ZERO_ADDRESS), of_nobodys_bond(stage)
    play = overturned(stage)
    expected = [
        Hold(
            job_id=play.job,
            model_id=stage.model,
            segment=0,
            attempt=0,
            operator=stage.workers[place].address,
            opening=play.record.input_link,
            link=WRONG,
            challenger=stage.workers[0].address,
            amount=share(STAKES[place], CONTRADICTION_BPS),
            reputation=5 + place,
            release_at=stage.chain.connection.timestamp() + DAY,
        )
        for place in (1, 2)
    ]
    staking = stage.contracts.staking
    assert sorted(holds_of(play), key=lambda hold: hold.reputation) == expected
    assert all(staking.is_held(hold) for hold in expected)
    assert staking._read("APPEAL_SECONDS") == DAY
    assert of_nobodys_bond(stage) - before == sum(hold.amount for hold in expected)
    assert stage.chain.connection.balance(ZERO_ADDRESS) == nobody
    assert reputations(stage) == [5, 0, 0]
    names = [name for name, _ in newest_events(stage)][-10:]
    each = ["Slashed", "WeightChanged", "ReputationChanged", "SlashHeld", "OperatorPenalised"]
    assert names == [*each, *each]


def test_prove__member_it_contradicts__has_its_stake_held_for_no_challenger(stage: Stage) -> None:
    play = stage.request().to_committing()
    play.play_round({stage.workers[0].address: WRONG}).play_round().play_round().draw()
    play.prove(0)
    (hold,) = holds_of(play)
    assert (hold.operator, hold.challenger, hold.link) == (stage.workers[0].address, ZERO_ADDRESS, WRONG)
    assert (hold.opening, hold.amount) == (play.record.input_link, share(STAKES[0], CONTRADICTION_BPS))


def test_challenge__silent_or_voting__have_nothing_held(stage: Stage) -> None:
    play = stage.request(with_policy(quorum_bps=5001)).to_committing()
    play.play_round({stage.workers[1].address: WRONG, stage.workers[2].address: Link((1).to_bytes(32, "big"))})
    assert play.phase is Phase.CONTESTED
    play.challenge(0, stage.workers[0])
    assert [hold.operator for hold in holds_of(play)] == [stage.workers[1].address]


# --- an appeal --------------------------------------------------------------------------------------------------------


def test_appeal__own_output_proved__gives_bond_weight_and_reputation_back(stage: Stage) -> None:
    have(stage, stage.workers[1], 40)
    weight, stakes = weight_now(stage), of_nobodys_bond(stage)
    play, staking = overturned(stage), stage.contracts.staking
    hold, other = hold_against(play, 1), hold_against(play, 2)
    balances = [stage.chain.connection.balance(address) for address in (staking.address, ZERO_ADDRESS)]
    assert weight_now(stage) == weight - hold.amount - other.amount
    appeal(play, hold)
    assert staking.active_of(hold.operator) == STAKES[1]
    assert weight_now(stage) == weight - other.amount
    assert reputations(stage) == [0, 40, 0]
    assert (staking.is_held(hold), staking.is_held(other)) == (False, True)
    assert of_nobodys_bond(stage) - stakes == other.amount
    assert [stage.chain.connection.balance(address) for address in (staking.address, ZERO_ADDRESS)] == balances
    appealed, *rest = newest_events(stage)
    assert appealed == (
        "SlashAppealed",
        {
            "jobId": play.job,
            "segment": 0,
            "operator": hold.operator,
            "attempt": 0,
            "amount": hold.amount,
            "active": STAKES[1],
        },
    )
    assert [name for name, _ in rest] == ["ReputationChanged", "WeightChanged"]


def test_appeal__gives_stake_back__and_leaves_the_job_as_the_proof_made_it(stage: Stage) -> None:
    play = overturned(stage)
    before = play.record
    for hold in holds_of(play):
        appeal(play, hold)
    settled = play.round(0)
    assert (play.record, settled.settled_link, settled.overturned, settled.label) == (
        before,
        play.truth(0),
        True,
        Label.PROVED,
    )
    play.play_on()
    assert (play.phase, sum(stage.credits().values()), compensations(stage)) == (Phase.FINALISED, FEE, {})


def test_appeal__twice__is_refused_and_nothing_is_left_to_release(stage: Stage) -> None:
    play = overturned(stage)
    hold = hold_against(play, 1)
    appeal(play, hold)
    refusal = {"jobId": play.job, "segment": 0, "operator": hold.operator}
    with refused("NotHeld", **refusal):
        appeal(play, hold)
    stage.chain.move_to(hold.release_at)
    with refused("NotHeld", **refusal):
        release(play, hold)
    assert stage.contracts.staking.active_of(hold.operator) == STAKES[1]
    release(play, hold_against(play, 2))


@pytest.mark.parametrize("late", [False, True])
def test_appeal__day__ends_where_the_release_begins(stage: Stage, late: bool) -> None:
    play = overturned(stage)
    hold, at = hold_against(play, 1), hold_against(play, 1).release_at - (not late)
    stage.chain.move_to(at - 1)
    stage.owner.at = at
    if late:
        with refused("AppealOver", releaseAt=hold.release_at, now_=hold.release_at):
            appeal(play, hold)
        stage.owner.at = at
        release(play, hold)
    else:
        with refused("StillHeld", releaseAt=hold.release_at, now_=hold.release_at - 1):
            release(play, hold)
        stage.owner.at = at
        appeal(play, hold)


def test_appeal__proof_of_something_else__is_refused_and_changes_nothing(stage: Stage) -> None:
    play, staking = overturned(stage), stage.contracts.staking
    hold = hold_against(play, 1)
    with refused("OpeningLinkMismatch", segment=0, expected=hold.opening, actual=WRONG):
        appeal(play, hold, proof_of(play, opening=OTHER))
    with refused("ClosingLinkMismatch", segment=0, expected=WRONG, actual=play.truth(0)):
        appeal(play, hold, play.proof(0)[0])  # what overturned it
    with refused("ProofLengthMismatch", segment=0, expected=PROOF_BYTES, actual=PROOF_BYTES - 1):
        appeal(play, hold, proof_of(play)[:-1])
    with refused("InstanceCountMismatch", segment=0, expected=0, actual=1):
        staking.appeal(stage.owner, hold, proof_of(play), (1,))
    assert staking.is_held(hold)
    assert staking.active_of(hold.operator) == STAKES[1] - hold.amount
    appeal(play, hold)


def test_appeal__verifier_that_says_no__is_refused(stage: Stage) -> None:
    register_two_outputs(stage)
    play = stage.request(with_policy(quorum_bps=5001)).to_committing()
    second, liar, prover = stage.workers
    play.play_round({second.address: SECOND, liar.address: LIE})
    play.challenge(0, prover)
    staking, (lie, other) = stage.contracts.staking, (hold_against(play, place) for place in (1, 0))
    with refused("ProofRejected", modelId=stage.model, segment=0):
        staking.appeal(stage.owner, lie, *own_proof(play, lie))
    staking.appeal(stage.owner, other, *own_proof(play, other))
    assert (staking.is_held(lie), staking.is_held(other)) == (True, False)


def altered(hold: Hold) -> Iterator[Hold]:
    """The hold with any one field changed."""
    for each in fields(Hold):
        value: Any = getattr(hold, each.name)
        other: Any = "0x" + "11" * 20
        if isinstance(value, int):
            other = value + 1
        elif isinstance(value, bytes):
            other = keccak(value)
        yield replace(hold, **{each.name: other})


@pytest.mark.parametrize("move", [appeal, release])
def test_hold__altered_in_any_field__is_not_held(stage: Stage, move: Callable[[Play, Hold], Receipt]) -> None:
    play = overturned(stage)
    hold = hold_against(play, 1)
    if move is release:
        stage.chain.move_to(hold.release_at)
    others = list(altered(hold))
    assert len(others) == 11
    for other in others:
        assert not stage.contracts.staking.is_held(other)
        with refused("NotHeld", jobId=other.job_id, segment=other.segment, operator=other.operator):
            move(play, other)
    move(play, hold)


def test_hold__by_the_operator_itself__is_refused(stage: Stage) -> None:
    play = overturned(stage)
    wanted = tuple(vars(hold_against(play, 1)).values())
    for caller in (stage.workers[1], stage.owner):
        with refused("NotSlasher", caller=caller.address):
            stage.contracts.staking._write(caller, "hold", wanted)


def test_appeal__same_output_of_two__each_has_its_own_back(stage: Stage) -> None:
    play, staking = overturned(stage), stage.contracts.staking
    for place in (1, 2):
        appeal(play, hold_against(play, place))
    assert [staking.active_of(worker.address) for worker in stage.workers] == list(STAKES)
    assert not [hold for hold in holds_of(play) if staking.is_held(hold)]


# --- reputation -------------------------------------------------------------------------------------------------------


def test_appeal__reputation_earned_meanwhile__is_added(stage: Stage) -> None:
    have(stage, stage.workers[1], 40)
    play = overturned(stage).play_on()
    assert reputations(stage) == [3, 2, 2]
    appeal(play, hold_against(play, 1))
    assert reputations(stage) == [3, 42, 2]


@pytest.mark.parametrize("before", [MAXIMUM - 3, MAXIMUM - 2, MAXIMUM])
def test_appeal__reputation__never_exceeds_the_most(stage: Stage, before: int) -> None:
    have(stage, stage.workers[1], before)
    play = overturned(stage).play_on()
    appeal(play, hold_against(play, 1))
    assert reputations(stage)[1] == min(before + 2, MAXIMUM)


def test_release__reputation__stays_gone(stage: Stage) -> None:
    have(stage, stage.workers[1], 40)
    release_all(overturned(stage))
    assert reputations(stage) == [0, 0, 0]

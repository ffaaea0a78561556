"""What is held of whom, whatever else happens to its bond, and who gets it once nobody can appeal any more."""

from __future__ import annotations

from typing import Any

import pytest

from offchain.protocol.types import ZERO_ADDRESS, Phase, Reason
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
    CHALLENGER_SHARE_BPS,
    CONTRADICTION_BPS,
    REQUESTER_SHARE_BPS,
    compensations,
    holds_of,
    newest_events,
    penalties,
    release_all,
    share,
)
from tests.contracts.stage import STAKES, Play, Stage, refused
from tests.contracts.test_staking import slash, weight_now
from tests.contracts.test_staking_equivocation import report, sign
from tests.contracts.test_staking_reputation import have, reputations
from tests.local_chain import ETHER

pytestmark = pytest.mark.integration


# --- bonds on their way out, bonds of little, and draws ---------------------------------------------------------------


def test_appeal__operator_that_unbonds__has_what_was_taken_back_in_its_active_bond(stage: Stage) -> None:
    worker, staking = stage.workers[1], stage.contracts.staking
    play = stage.request().to_committing()
    play.play_round({each.address: WRONG for each in stage.workers[1:]})
    staking.start_unbonding(worker, STAKES[1])
    leaves_at = staking.unbonding_of(worker.address)[1]
    assert weight_now(stage) == STAKES[0] + STAKES[2]
    play.challenge(0, stage.workers[0])
    hold = hold_against(play, 1)
    assert staking.unbonding_of(worker.address) == (STAKES[1] - hold.amount, leaves_at)
    appeal(play, hold)
    assert staking.active_of(worker.address) == hold.amount == share(STAKES[1], CONTRADICTION_BPS)
    assert staking.unbonding_of(worker.address) == (STAKES[1] - hold.amount, leaves_at)
    # It serves still, with what came back; what was on its way out is.
    assert weight_now(stage) == STAKES[0] + STAKES[2] - hold_against(play, 2).amount + hold.amount


def test_appeal__operator_that_left__has_its_stake_back_and_no_weight(stage: Stage) -> None:
    worker, staking = stage.workers[1], stage.contracts.staking
    play = overturned(stage)
    staking.stop_serving(worker, stage.model)
    weight = weight_now(stage)
    appeal(play, hold_against(play, 1))
    assert (staking.active_of(worker.address), weight_now(stage)) == (STAKES[1], weight)
    assert "WeightChanged" not in [name for name, _ in newest_events(stage)]


def test_appeal__other_models__follow_when_refreshed(stage: Stage) -> None:
    staking, worker = stage.contracts.staking, stage.workers[1]
    other = stage.register_segments(1, "other")
    staking.serve(worker, other)
    play = overturned(stage)
    staking.refresh_weights(stage.owner, worker.address)
    assert weight_now(stage, other) == STAKES[1] - hold_against(play, 1).amount
    appeal(play, hold_against(play, 1))
    assert weight_now(stage, other) == STAKES[1] - hold_against(play, 1).amount
    staking.refresh_weights(stage.owner, worker.address)
    assert weight_now(stage, other) == STAKES[1]


def test_appeal__bond_that_fell_below_the_least__counts_in_draws_again(stage: Stage) -> None:
    worker, staking = stage.workers[1], stage.contracts.staking
    play = stage.request().to_committing()
    play.play_round({each.address: WRONG for each in stage.workers[1:]})
    slash(stage, worker, STAKES[1] - ETHER - 5, stage.model)  # by other jobs, meanwhile
    assert staking.active_of(worker.address) == ETHER + 5
    play.challenge(0, stage.workers[0])
    weight, hold = weight_now(stage), hold_against(play, 1)
    assert (hold.amount, staking.active_of(worker.address)) == (ETHER + 5, 0)
    appeal(play, hold)
    assert weight_now(stage) == weight + ETHER + 5


@pytest.mark.parametrize("left", [0, 1, 3, 9])
def test_hold__of_a_bond_of_next_to_nothing__is_what_there_was(stage: Stage, left: int) -> None:
    worker, staking = stage.workers[1], stage.contracts.staking
    play = stage.request().to_committing()
    play.play_round({each.address: WRONG for each in stage.workers[1:]})
    slash(stage, worker, STAKES[1] - left, stage.model)
    have(stage, worker, 40)
    play.challenge(0, stage.workers[0])
    hold = hold_against(play, 1)
    assert (hold.amount, staking.active_of(worker.address)) == (left, 0)
    with stage.chain.isolated():
        appeal(play, hold)
        assert (staking.active_of(worker.address), reputations(stage)[1]) == (left, 40)
    nobody = stage.chain.connection.balance(ZERO_ADDRESS)
    stage.chain.move_to(hold.release_at)
    release(play, hold)
    # Of 1 wei, nothing but the rounding is left, and that is burnt.
    challenger, requester = (share(left, bps) for bps in (CHALLENGER_SHARE_BPS, REQUESTER_SHARE_BPS))
    assert stage.chain.connection.balance(ZERO_ADDRESS) == nobody + left - challenger - requester
    assert sum(compensations(stage).values()) == challenger + requester


# --- the segment before, and other rounds -----------------------------------------------------------------------------


def twice_contradicted(stage: Stage) -> Play:
    """Behind a lie two of three are contradicted; the lie is overturned, and at the next attempt they are again."""
    play, honest = stage.request().to_committing(), stage.workers[0]
    for _ in range(2):
        play.play_round({worker.address: WRONG for worker in stage.workers[1:]})
    play.challenge(1, honest, proof=play.proof(1, opening=OTHER)[0])
    play.challenge(0, honest)
    assert (play.record.segment, play.attempt(1)) == (1, 1)
    play.play_round({worker.address: WRONG for worker in stage.workers[1:]})
    play.challenge(1, honest)
    return play


def test_appeal__segment_before_was_overturned_since__opens_with_what_the_proof_opened_with(stage: Stage) -> None:
    play = twice_contradicted(stage)
    old, new = (hold_against(play, 1, segment=1, attempt=attempt) for attempt in (0, 1))
    assert (old.opening, new.opening) == (WRONG, play.truth(0))
    with refused("OpeningLinkMismatch", segment=1, expected=WRONG, actual=play.truth(0)):
        appeal(play, old, proof_of(play, segment=1))
    with refused("OpeningLinkMismatch", segment=1, expected=play.truth(0), actual=WRONG):
        appeal(play, new, proof_of(play, opening=OTHER))
    before = stage.contracts.staking.active_of(old.operator)
    appeal(play, old, proof_of(play, opening=OTHER))
    appeal(play, new, proof_of(play, segment=1))
    assert stage.contracts.staking.active_of(old.operator) == before + old.amount + new.amount


def test_hold__of_several_rounds__each_ends_by_itself(stage: Stage) -> None:
    play = twice_contradicted(stage)
    holds = holds_of(play)
    assert len({(hold.segment, hold.attempt, hold.operator) for hold in holds}) == len(holds) == 6
    # Three halves of a stake are more than it: the last finds nothing.
    for place in (1, 2):
        taken = sum(hold.amount for hold in holds if hold.operator == stage.workers[place].address)
        assert (taken, stage.contracts.staking.active_of(stage.workers[place].address)) == (STAKES[place], 0)
    appeal(play, hold_against(play, 1))
    assert sum(stage.contracts.staking.is_held(hold) for hold in holds) == 5


def test_report_equivocation__beside_a_hold__takes_of_the_rest_and_no_appeal_undoes_it(stage: Stage) -> None:
    play, worker, staking = overturned(stage), stage.workers[1], stage.contracts.staking
    hold = hold_against(play, 1)
    nobody = stage.chain.connection.balance(ZERO_ADDRESS)
    report(play, worker, sign(play, worker, play.truth(0)), b"", links=(play.truth(0), WRONG))
    burnt = share(STAKES[1], CONTRADICTION_BPS)
    assert staking.active_of(worker.address) == STAKES[1] - hold.amount - burnt
    assert stage.chain.connection.balance(ZERO_ADDRESS) == nobody + burnt
    appeal(play, hold)
    assert staking.active_of(worker.address) == STAKES[1] - burnt
    with refused("AlreadyPenalised", jobId=play.job, segment=0, operator=worker.address):
        report(play, worker, sign(play, worker, play.truth(0)), b"", links=(play.truth(0), WRONG))


# --- who gets what ----------------------------------------------------------------------------------------------------


def test_release__no_appeal__credits_challenger_and_requester_and_burns_the_rest(stage: Stage) -> None:
    play, staking = overturned(stage), stage.contracts.staking
    hold = hold_against(play, 1)
    stage.chain.move_to(hold.release_at)
    balances = [stage.chain.connection.balance(address) for address in (staking.address, ZERO_ADDRESS)]
    release(play, hold)
    challenger, requester = (share(hold.amount, bps) for bps in (CHALLENGER_SHARE_BPS, REQUESTER_SHARE_BPS))
    burnt = hold.amount - challenger - requester
    assert burnt * 2 >= hold.amount
    assert compensations(stage) == {hold.challenger: challenger, stage.requester.address: requester}
    assert set(stage.credits().values()) == {0}
    after = [stage.chain.connection.balance(address) for address in (staking.address, ZERO_ADDRESS)]
    assert [now - before for now, before in zip(after, balances, strict=True)] == [-burnt, burnt]
    assert newest_events(stage) == [
        ("Credited", {"account": hold.challenger, "amount": challenger}),
        ("Credited", {"account": stage.requester.address, "amount": requester}),
        (
            "SlashReleased",
            {
                "jobId": play.job,
                "segment": 0,
                "operator": hold.operator,
                "attempt": 0,
                "forChallenger": challenger,
                "forRequester": requester,
            },
        ),
    ]
    refusal = {"jobId": play.job, "segment": 0, "operator": hold.operator}
    for move in (release, appeal):
        with refused("NotHeld", **refusal):
            move(play, hold)
    assert staking.active_of(hold.operator) == STAKES[1] - hold.amount


def test_release__hold_of_a_proof_that_was_due__is_burnt_whole(stage: Stage) -> None:
    play = stage.request().to_committing()
    play.play_round({stage.workers[0].address: WRONG}).play_round().play_round().draw()
    play.prove(0)
    nobody, staking = stage.chain.connection.balance(ZERO_ADDRESS), stage.contracts.staking
    (hold,) = release_all(play)
    assert stage.chain.connection.balance(ZERO_ADDRESS) == nobody + hold.amount
    assert compensations(stage) == {}
    assert staking.compensation_of(ZERO_ADDRESS) == 0
    ((_, told),) = newest_events(stage)
    assert (told["forChallenger"], told["forRequester"]) == (0, 0)


def test_release__one_appealed__the_others_are_shared_alone(stage: Stage) -> None:
    play = overturned(stage)
    appeal(play, hold_against(play, 1))
    rest = hold_against(play, 2)
    stage.chain.move_to(rest.release_at)
    release(play, rest)
    assert compensations(stage) == {
        stage.workers[0].address: share(rest.amount, CHALLENGER_SHARE_BPS),
        stage.requester.address: share(rest.amount, REQUESTER_SHARE_BPS),
    }
    assert of_nobodys_bond(stage) == sum(compensations(stage).values())


def test_release__long_after_the_job__is_still_there(stage: Stage) -> None:
    play = overturned(stage, permille=0).play_on()
    assert play.phase is Phase.FINALISED
    stage.chain.advance(365 * DAY)
    for hold in holds_of(play):
        release(play, hold)
    assert len(compensations(stage)) == 2


def test_claim__compensation__is_paid_once(stage: Stage) -> None:
    play, staking, challenger = overturned(stage), stage.contracts.staking, stage.workers[0]
    with refused("NothingToClaim", account=challenger.address):
        staking.claim_compensation(challenger)
    release_all(play)
    owed, held = compensations(stage), stage.chain.connection.balance(staking.address)
    balance = stage.chain.connection.balance(challenger.address)
    stage.chain.rpc("anvil_setNextBlockBaseFeePerGas", "0x0")
    receipt = staking.claim_compensation(challenger)
    paid: Any = stage.chain.connection.web3.eth.get_transaction_receipt(receipt.transaction_hash)  # type: ignore[arg-type]
    spent = paid["gasUsed"] * paid["effectiveGasPrice"]
    assert stage.chain.connection.balance(challenger.address) == balance + owed[challenger.address] - spent
    assert stage.chain.connection.balance(staking.address) == held - owed[challenger.address]
    assert newest_events(stage) == [
        ("Claimed", {"account": challenger.address, "amount": owed[challenger.address]}),
    ]
    with refused("NothingToClaim", account=challenger.address):
        staking.claim_compensation(challenger)
    # What the jobs' contract owes is another matter.
    with refused("NothingToClaim", account=challenger.address):
        stage.contracts.jobs.claim(challenger)


def test_challenge__what_it_says_it_took__is_what_is_held(stage: Stage) -> None:
    play = overturned(stage)
    told = {(operator, reason, amount) for _, operator, reason, amount in penalties(play)}
    assert told == {(hold.operator, Reason.CONTRADICTED_PROOF, hold.amount) for hold in holds_of(play)}
    assert len(told) == 2

"""Segments without fault, by operator and model: what adds to them, what halves them, what takes them all."""

from __future__ import annotations

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_ADDRESS, Label, Link, Phase
from tests.contracts.record import newest_events
from tests.contracts.stage import STAKES, Play, Stage, refused, with_policy
from tests.contracts.test_staking_equivocation import both, report
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

WRONG = Link(keccak(b"wrong"))
MAXIMUM = 10_000


def reputations(stage: Stage) -> list[int]:
    return [stage.contracts.staking.reputation_of(worker.address, stage.model) for worker in stage.workers]


def have(stage: Stage, worker: InstantSender, reputation: int) -> None:
    """Give an operator a reputation, as if it had worked so long.

    Source: Solidity documentation, "Layout of State Variables in Storage"; the slot is found by what it must hold.
    """
    staking = stage.contracts.staking
    rpc = stage.chain.rpc
    for slot in range(12):
        inner = keccak(encode(["bytes32", "uint256"], [stage.model, slot]))
        place = "0x" + keccak(encode(["address", "bytes32"], [worker.address, inner])).hex()
        before = rpc("eth_getStorageAt", staking.address, place, "latest")
        rpc("anvil_setStorageAt", staking.address, place, f"0x{reputation:064x}")
        if staking.reputation_of(worker.address, stage.model) == reputation:
            return
        rpc("anvil_setStorageAt", staking.address, place, before)
    raise AssertionError("the reputations are in none of the first slots")


def test_finalise__everybody_faultless__adds_one_for_each_segment(stage: Stage) -> None:
    assert reputations(stage) == [0, 0, 0]
    stage.request().play_on()
    assert reputations(stage) == [3, 3, 3]
    changed = [arguments for name, arguments in newest_events(stage) if name == "ReputationChanged"]
    assert len(changed) == 9
    assert {tuple(arguments) for arguments in changed} == {("modelId", "operator", "reputation")}
    other = stage.register_segments(1, "other")
    assert stage.contracts.staking.reputation_of(stage.workers[0].address, other) == 0


def test_finalise__outvoted_or_voting__adds_nothing(stage: Stage) -> None:
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    first = stage.workers[0]
    for vote in (WRONG, UNAVAILABLE, BAD_INPUT):
        play.play_round({first.address: vote})
    play.play_on()
    assert play.phase is Phase.FINALISED
    assert reputations(stage) == [0, 3, 3]


def test_fail__job_without_a_result__adds_nothing(stage: Stage) -> None:
    play = stage.request().to_committing().play_round()
    play.lapse()
    play.draw()
    play.lapse()
    play.expire()
    assert reputations(stage) == [0, 0, 0]


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (7, 3), (MAXIMUM, MAXIMUM // 2)])
def test_settle__miss__halves_it(stage: Stage, before: int, after: int) -> None:
    play = stage.request().to_committing()
    silent, *others = play.members()
    have(stage, silent, before)
    for worker in others:
        play.commit(worker)
    play.lapse()
    play.draw()
    play.draw()
    for worker in others:
        play.reveal(worker)
    assert stage.contracts.staking.reputation_of(silent.address, stage.model) == after


def test_prove__contradicted__takes_it_all(stage: Stage) -> None:
    liar = stage.workers[0]
    for worker in stage.workers:
        have(stage, worker, 100)
    play = stage.request().to_committing().play_round({liar.address: WRONG}).play_round().play_round()
    play.draw()
    play.prove(0)
    assert reputations(stage) == [0, 100, 100]


def test_challenge__overturned__takes_it_from_the_majority_alone(stage: Stage) -> None:
    for worker in stage.workers:
        have(stage, worker, 100)
    play = stage.request().to_committing()
    play.play_round({worker.address: WRONG for worker in stage.workers[1:]})
    play.challenge(0, stage.workers[0])
    assert reputations(stage) == [100, 0, 0]
    play.play_on()
    assert reputations(stage) == [103, 2, 2]


def test_report_equivocation__takes_it_all(stage: Stage) -> None:
    worker = stage.workers[0]
    have(stage, worker, 100)
    play = stage.request().to_committing()
    report(play, worker, *both(play, worker))
    assert reputations(stage) == [0, 0, 0]
    assert "ReputationChanged" in [name for name, _ in newest_events(stage)]


def test_finalise__at_the_most__adds_no_more(stage: Stage) -> None:
    have(stage, stage.workers[0], MAXIMUM)
    have(stage, stage.workers[1], MAXIMUM - 1)
    stage.request().play_on()
    assert reputations(stage) == [MAXIMUM, MAXIMUM, 3]
    assert stage.contracts.staking._read("MAX_REPUTATION") == MAXIMUM


def test_commend__anybody_but_the_job_contract__is_refused(stage: Stage) -> None:
    for caller in (stage.owner, stage.workers[0]):
        with refused("NotSlasher", caller=caller.address):
            stage.contracts.staking._write(caller, "commend", stage.workers[0].address, stage.model)


@pytest.mark.parametrize("amount", [0, 1, 1001, 10 * ETHER])
def test_slash__whatever_is_taken__is_told_and_burnt(stage: Stage, amount: int) -> None:
    staking, jobs, connection = stage.contracts.staking, stage.contracts.jobs, stage.chain.connection
    stage.chain.fund(jobs.address, ETHER)
    nobody, taken = connection.balance(ZERO_ADDRESS), min(amount, STAKES[0])
    function = staking.contract.functions.slash(stage.workers[0].address, amount, stage.model)
    assert function.call({"from": jobs.address}) == taken
    fields = {"from": jobs.address, "to": staking.address, "data": function._encode_transaction_data()}
    stage.chain.rpc("anvil_setNextBlockBaseFeePerGas", "0x0")
    stage.owner.send_raw("slash", {**fields, "gasPrice": "0x0"})
    assert connection.balance(jobs.address) == ETHER
    assert connection.balance(ZERO_ADDRESS) == nobody + taken


def single(stage: Stage, supporters: int, permille: int) -> Play:
    """A finalised job whose first segment so many of three stand behind, and whose other segments all of them."""
    heavy = stage.chain.instant("heavy")
    stage.join(heavy, 100 * ETHER)
    stage.workers += (heavy,)
    play = stage.request(with_policy(committee_size=4, proof_permille=permille)).to_committing()
    others = [worker for worker in stage.workers if worker != heavy]
    play.play_round({worker.address: UNAVAILABLE for worker in others[supporters - 1 :]})
    return play.play_on()


@pytest.mark.parametrize(
    ("supporters", "permille", "label"),
    [(1, 0, Label.UNPROVED), (2, 0, Label.AGREED), (4, 0, Label.AGREED), (1, 1000, Label.PROVED)],
)
def test_label_of__one_supporter__is_its_word_alone(stage: Stage, supporters: int, permille: int, label: Label) -> None:
    play = single(stage, supporters, permille)
    assert play.phase is Phase.FINALISED
    assert len(play.round(0).supporters) == supporters
    assert (play.round(0).label, play.jobs._read("labelOf", play.job, 0)) == (label, label)


def test_label_of__committee_of_one__is_unproved(stage: Stage) -> None:
    play = stage.request(with_policy(committee_size=1, proof_permille=0)).play_on()
    assert [play.jobs._read("labelOf", play.job, segment) for segment in range(3)] == [Label.UNPROVED] * 3
    assert [play.round(segment).label for segment in range(3)] == [Label.UNPROVED] * 3

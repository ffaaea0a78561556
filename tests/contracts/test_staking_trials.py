"""Trials: an operator's bond counts when it has found an answer that nobody had shown before."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.protocol import hashing
from offchain.protocol.types import ModelId, Reason
from tests.contracts.record import failure, newest_events
from tests.contracts.stage import Stage, refused
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

ANSWERS = [keccak(b"answer %d" % index) for index in range(3)]
SALT = keccak(b"salt")


@pytest.fixture
def model(stage: Stage) -> ModelId:
    """A model with three trials."""
    return stage.register_segments(1, "tried", trials=[hashing.answer_hash(answer) for answer in ANSWERS])


@pytest.fixture
def candidates(stage: Stage, model: ModelId) -> tuple[InstantSender, InstantSender]:
    """Two that serve the model and have passed nothing."""
    workers = stage.chain.instant("candidate"), stage.chain.instant("other candidate")
    for worker in workers:
        stage.join(worker, 2 * ETHER, model)
    return workers


def commitment(
    stage: Stage, model: ModelId, worker: InstantSender, trial: int, answer: bytes, salt: bytes = SALT
) -> bytes:
    staking = stage.contracts.staking
    place = (stage.chain.connection.chain_id, staking.address, model, trial)
    return hashing.trial_commitment(*place, worker.address, answer, salt)  # type: ignore[arg-type]


def commit(stage: Stage, model: ModelId, worker: InstantSender, trial: int = 0) -> None:
    """Commit to the right answer."""
    word = commitment(stage, model, worker, trial, ANSWERS[trial])
    stage.contracts.staking.commit_trial(worker, model, trial, word)


def weight(stage: Stage, model: ModelId) -> int:
    return stage.contracts.staking.total_weight_at(model, stage.contracts.connection.block_number())


def test_serve__model_with_trials__has_no_weight_yet(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    staking, (worker, _) = stage.contracts.staking, candidates
    assert (staking.is_serving(worker.address, model), staking.is_admitted(worker.address, model)) == (True, False)
    assert weight(stage, model) == 0
    staking.bond(worker, ETHER)
    staking.refresh_weights(stage.owner, worker.address)
    assert weight(stage, model) == 0
    play = stage.request(model_id=model)
    play.draw()
    assert failure(play) == (Reason.TOO_FEW_ACTED, play.record.fee_wei)


def test_serve__model_without_trials__is_admitted_at_once(stage: Stage) -> None:
    worker = stage.workers[0]
    assert stage.contracts.staking.is_admitted(worker.address, stage.model)
    with refused("AlreadyAdmitted", operator=worker.address, modelId=stage.model):
        stage.contracts.staking.commit_trial(worker, stage.model, 0, keccak(b"word"))


def test_pass_trial__answer_that_was_committed_to__gives_the_bond_its_weight(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    staking, (worker, _) = stage.contracts.staking, candidates
    commit(stage, model, worker, trial=1)
    word = commitment(stage, model, worker, 1, ANSWERS[1])
    assert newest_events(stage) == [
        ("TrialCommitted", {"modelId": model, "operator": worker.address, "trial": 1, "commitment": word})
    ]
    assert staking.trial_answered_at(model, 1) == 0
    staking.pass_trial(worker, model, ANSWERS[1], SALT)
    assert staking.trial_answered_at(model, 1) == stage.contracts.connection.block_number()
    assert [name for name, _ in newest_events(stage)] == ["TrialPassed", "WeightChanged"]
    assert newest_events(stage)[0][1] == {"modelId": model, "operator": worker.address, "trial": 1}
    assert (staking.is_admitted(worker.address, model), weight(stage, model)) == (True, 2 * ETHER)
    staking.bond(worker, 5)
    assert weight(stage, model) == 2 * ETHER + 5
    for again in (
        lambda: staking.pass_trial(worker, model, ANSWERS[1], SALT),
        lambda: staking.commit_trial(worker, model, 2, word),
    ):
        with refused("AlreadyAdmitted", operator=worker.address, modelId=model):
            again()


def test_pass_trial__once_passed__holds_for_whoever_leaves_and_comes_back(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    staking, (worker, _) = stage.contracts.staking, candidates
    commit(stage, model, worker)
    staking.pass_trial(worker, model, ANSWERS[0], SALT)
    staking.stop_serving(worker, model)
    assert weight(stage, model) == 0
    staking.serve(worker, model)
    assert weight(stage, model) == 2 * ETHER


def test_pass_trial__wrong_answer__is_refused(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    staking, (worker, _) = stage.contracts.staking, candidates
    wrong = keccak(b"wrong")
    staking.commit_trial(worker, model, 0, commitment(stage, model, worker, 0, wrong))
    expected, actual = hashing.answer_hash(ANSWERS[0]), hashing.answer_hash(wrong)
    with refused("WrongAnswer", modelId=model, trial=0, expected=expected, actual=actual):
        staking.pass_trial(worker, model, wrong, SALT)
    # It may try again, with the last commitment; and the answer to another trial is none to this one.
    staking.commit_trial(worker, model, 0, commitment(stage, model, worker, 0, ANSWERS[1]))
    actual = hashing.answer_hash(ANSWERS[1])
    with refused("WrongAnswer", modelId=model, trial=0, expected=expected, actual=actual):
        staking.pass_trial(worker, model, ANSWERS[1], SALT)
    commit(stage, model, worker)
    staking.pass_trial(worker, model, ANSWERS[0], SALT)


def test_pass_trial__anything_but_what_was_committed_to__is_refused(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    staking, (worker, other) = stage.contracts.staking, candidates
    own = commitment(stage, model, worker, 0, ANSWERS[0])
    with refused("TrialCommitmentMismatch", expected=bytes(32), actual=own):
        staking.pass_trial(worker, model, ANSWERS[0], SALT)
    commit(stage, model, worker)
    for answer, salt in ((ANSWERS[1], SALT), (ANSWERS[0], keccak(b"other salt"))):
        actual = commitment(stage, model, worker, 0, answer, salt)
        with refused("TrialCommitmentMismatch", expected=own, actual=actual):
            staking.pass_trial(worker, model, answer, salt)
    # A commitment that was copied names another operator.
    staking.commit_trial(other, model, 0, own)
    actual = commitment(stage, model, other, 0, ANSWERS[0])
    with refused("TrialCommitmentMismatch", expected=own, actual=actual):
        staking.pass_trial(other, model, ANSWERS[0], SALT)


def test_pass_trial__in_the_block_of_the_commitment__is_refused(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    # Or whoever sees an answer in the mempool could commit to it and show it before.
    staking, (worker, _) = stage.contracts.staking, candidates
    commit(stage, model, worker)
    block = stage.contracts.connection.block_number()
    call = staking.contract.functions.passTrial(model, ANSWERS[0], SALT)
    fields = {"from": worker.address, "to": staking.address, "data": call._encode_transaction_data()}
    with refused("BlockNotOver", blockNumber=block, current=block), stage.chain.connection.translated("passTrial"):
        stage.chain.connection.web3.manager.request_blocking("eth_call", [fields, "latest", {}, {"number": hex(block)}])


def test_commit_trial__answer_that_was_shown__is_refused_to_everybody_else(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    staking, (worker, other) = stage.contracts.staking, candidates
    commit(stage, model, worker)
    staking.pass_trial(worker, model, ANSWERS[0], SALT)
    answered = staking.trial_answered_at(model, 0)
    with refused("TrialAnswered", modelId=model, trial=0, answeredAt=answered):
        commit(stage, model, other)
    commit(stage, model, other, trial=2)
    staking.pass_trial(other, model, ANSWERS[2], SALT)
    assert weight(stage, model) == 4 * ETHER


def test_pass_trial__two_that_committed_before_it_was_shown__both_pass(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    # Whoever is faster must not undo another's work.
    staking, (worker, other) = stage.contracts.staking, candidates
    for candidate in candidates:
        commit(stage, model, candidate)
    staking.pass_trial(other, model, ANSWERS[0], SALT)
    answered = staking.trial_answered_at(model, 0)
    staking.pass_trial(worker, model, ANSWERS[0], SALT)
    assert staking.trial_answered_at(model, 0) == answered
    assert weight(stage, model) == 4 * ETHER


def test_pass_trial__committed_in_the_block_in_which_it_was_shown__is_refused(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    # In that block the copier may have seen the answer in the mempool, wherever its commitment stands in the block.
    staking, (worker, copier) = stage.contracts.staking, candidates
    commit(stage, model, worker)
    rpc, functions = stage.chain.rpc, staking.contract.functions
    copied = functions.commitTrial(model, 0, commitment(stage, model, copier, 0, ANSWERS[0]))
    shown = functions.passTrial(model, ANSWERS[0], SALT)
    rpc("evm_setAutomine", False)
    try:
        sent = [
            rpc(
                "eth_sendTransaction",
                {
                    "from": sender.address,
                    "to": staking.address,
                    "gas": hex(1_000_000),
                    "data": call._encode_transaction_data(),
                },
            )
            for sender, call in ((copier, copied), (worker, shown))
        ]
        stage.chain.mine()
    finally:
        rpc("evm_setAutomine", True)
    assert [rpc("eth_getTransactionReceipt", one)["status"] for one in sent] == ["0x1", "0x1"]
    answered = staking.trial_answered_at(model, 0)
    assert answered == stage.contracts.connection.block_number()
    with refused("TrialAnswered", modelId=model, trial=0, answeredAt=answered):
        staking.pass_trial(copier, model, ANSWERS[0], SALT)
    assert not staking.is_admitted(copier.address, model)


def test_trials__whoever_does_not_serve__is_refused(stage: Stage, model: ModelId) -> None:
    staking, outsider = stage.contracts.staking, stage.owner
    with refused("NotServing", operator=outsider.address, modelId=model):
        staking.commit_trial(outsider, model, 0, keccak(b"word"))
    with refused("NotServing", operator=outsider.address, modelId=model):
        staking.pass_trial(outsider, model, ANSWERS[0], SALT)


def test_commit_trial__trial_that_there_is_not__is_refused(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    for trial in (3, 2**16, 2**200):
        with refused("UnknownTrial", modelId=model, trial=trial):
            stage.contracts.staking.commit_trial(candidates[0], model, trial, keccak(b"word"))


def test_pass_trial__below_the_least_bond__still_has_no_weight(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    staking, (worker, _) = stage.contracts.staking, candidates
    staking.start_unbonding(worker, ETHER + 1)
    commit(stage, model, worker)
    staking.pass_trial(worker, model, ANSWERS[0], SALT)
    assert weight(stage, model) == 0
    staking.bond(worker, 1)
    assert weight(stage, model) == ETHER


def test_pass_trial__of_another_model__is_none_of_this_one(
    stage: Stage, model: ModelId, candidates: tuple[InstantSender, InstantSender]
) -> None:
    staking, (worker, _) = stage.contracts.staking, candidates
    other = stage.register_segments(1, "also tried", trials=[hashing.answer_hash(answer) for answer in ANSWERS])
    staking.serve(worker, other)
    commit(stage, model, worker)
    staking.pass_trial(worker, model, ANSWERS[0], SALT)
    assert staking.is_admitted(worker.address, model)
    assert not staking.is_admitted(worker.address, other)
    assert weight(stage, other) == 0

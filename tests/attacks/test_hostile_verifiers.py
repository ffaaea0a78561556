"""Rows 15, 16 and 20: verifiers that are none, that are another's, that change, and that burn what they get."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.protocol import hashing
from offchain.protocol.links import LinkKind
from offchain.protocol.types import ZERO_HASH, Phase
from tests.attacks.mutant import (
    Change,
    Mutant,
    attacking_contract,
    build_stage,
    calldata,
    mined_together,
    running_theatre,
    why_reverted,
)
from tests.contracts.stage import STAKES, Play, Stage, as_abi, refused, spec
from tests.local_chain import InstantSender

pytestmark = pytest.mark.integration

SAYS_NO, BURNS_GAS, HUGE_ANSWER = 1, 7, 8
STIPEND = 4_000_000
GAS_OFFERED = 15_000_000

NO_CODE_NEEDED = Change("Registry.sol", "if (verifier.code.length == 0) revert VerifierHasNoCode(index, verifier);")
REGISTERED_WITHOUT_CODE = Mutant(NO_CODE_NEEDED)
ANSWER_UNREAD = Mutant(
    NO_CODE_NEEDED,
    Change("Verifier.sol", "return ok && answer.length == 32 && abi.decode(answer, (uint256)) == 1;", "return ok;"),
)
ANY_VERIFIER = Mutant(
    Change(
        "Registry.sol",
        "if (verifier.codehash != expected) revert VerifierCodeMismatch(index, expected, verifier.codehash);",
    )
)
CODE_MAY_CHANGE = Mutant(
    Change("Verifier.sol", "if (verifier.codehash != registered.verifierCodeHash) {", "if (verifier == address(0)) {")
)
BOTH_LOOK_AWAY = Mutant(*ANY_VERIFIER.changes, *CODE_MAY_CHANGE.changes)
NO_STIPEND = Mutant(Change("Verifier.sol", "verifier.staticcall{gas: VERIFIER_GAS}(call)", "verifier.staticcall(call)"))


def one_segment(code_hash: bytes) -> dict[str, Any]:
    return spec(code_hash, output_kind=LinkKind.PUBLIC)


def served(stage: Stage) -> Stage:
    """The workers of a stage serve the model that was registered last."""
    for worker in stage.workers:
        stage.contracts.staking.serve(worker, stage.model)
    return stage


def lie_with_a_proof(stage: Stage) -> Play:
    """Everybody reveals what the mock proofs close with, which no verifier of this model would accept."""
    play = stage.request().to_proving()
    play.prove(0)
    return play


# --- row 15 -----------------------------------------------------------------------------------------------------------


def register_nobody(stage: Stage) -> str:
    """Register an account without code as a verifier: a call to it succeeds."""
    nobody = stage.chain.account("nobody").address
    stage.model = stage.register([one_segment(keccak(b""))], [nobody], "nobody's")
    return nobody


def test_verifier_without_code__defence_removed__accepts_every_proof(build: Callable[..., Stage]) -> None:
    stage = build(ANSWER_UNREAD, segments=1)
    register_nobody(stage)
    assert lie_with_a_proof(served(stage)).phase is Phase.FINALISABLE


def test_verifier_without_code__registered__is_stopped_by_the_answer_that_is_missing(
    build: Callable[..., Stage],
) -> None:
    """The second fence: no answer is no yes."""
    stage = build(REGISTERED_WITHOUT_CODE, segments=1)
    register_nobody(stage)
    with refused("ProofRejected", modelId=stage.model, segment=0):
        lie_with_a_proof(served(stage))


def test_verifier_without_code__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    nobody = stage.chain.account("nobody").address
    with refused("VerifierHasNoCode", segment=0, verifier=nobody):
        register_nobody(stage)


# --- row 16: another verifier for somebody's model --------------------------------------------------------------------


def squat(stage: Stage) -> None:
    """An attacker registers an honest model's content first, with a verifier of its own that says yes to all."""
    _, honest_hash = stage.mock(SAYS_NO, 5)
    alien, _ = stage.mock(0, 5)
    stage.model = stage.register([one_segment(honest_hash)], [alien], "honest")


def hashes_of_both(stage: Stage) -> dict[str, bytes]:
    """What the honest verifier's code hashes to, and what the alien's."""
    with stage.chain.isolated():
        return {"expected": stage.mock(SAYS_NO, 5)[1], "actual": stage.mock(0, 5)[1]}


def test_alien_verifier__registered__takes_the_honest_models_place(build: Callable[..., Stage]) -> None:
    """Then no proof counts, since the adapter looks at the code again; but nobody can register the model any more."""
    stage = build(ANY_VERIFIER, segments=1)
    hashes = hashes_of_both(stage)
    squat(stage)
    honest, _ = stage.mock(SAYS_NO, 5)
    content = (keccak(b"honest"), keccak(b"cidhonest"), as_abi([one_segment(hashes["expected"])]))
    with refused("ModelAlreadyRegistered", modelId=hashing.model_id(*content, ())):
        stage.register([one_segment(hashes["expected"])], [honest], "honest")
    with refused("VerifierCodeChanged", segment=0, **hashes):
        lie_with_a_proof(served(stage))


def test_alien_verifier__defence_removed__lie_is_proved(build: Callable[..., Stage]) -> None:
    stage = build(BOTH_LOOK_AWAY, segments=1)
    squat(stage)
    assert lie_with_a_proof(served(stage)).round(0).proof_hash != ZERO_HASH


def test_alien_verifier__refused_because_its_code_is_not_the_models(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    with refused("VerifierCodeMismatch", segment=0, **hashes_of_both(stage)):
        squat(stage)


# --- row 16: code that changes after it was registered ----------------------------------------------------------------

NO_UNLESS_TOLD_TO_DIE = bytes.fromhex("36600657" + "33ff" + "5b5f5f5260205ff3")
"""``CALLDATASIZE PUSH1 6 JUMPI CALLER SELFDESTRUCT JUMPDEST``, and answer zero."""
YES = bytes.fromhex("60015f5260205ff3")


def metamorphosis(stage: Stage) -> tuple[Play, Callable[[], None]]:
    """A model whose verifier says no to everything; its author can turn that into a yes."""
    compiled = attacking_contract("Metamorph")
    factory = stage.chain.connection.web3.eth.contract(**compiled)
    address = stage.owner.send(factory.constructor()).contract
    metamorph = stage.chain.connection.web3.eth.contract(address=address, abi=compiled["abi"])
    stage.owner.send(metamorph.functions.set(NO_UNLESS_TOLD_TO_DIE))
    verifier = metamorph.functions.make().call()
    stage.owner.send(metamorph.functions.make())
    stage.model = stage.register([one_segment(keccak(NO_UNLESS_TOLD_TO_DIE))], [verifier], "changing")
    play = served(stage).request().to_proving()

    def change() -> None:
        stage.owner.send_raw("die", {"from": stage.owner.address, "to": verifier})
        stage.owner.send(metamorph.functions.set(YES))
        stage.owner.send(metamorph.functions.make())

    with refused("ProofRejected", modelId=stage.model, segment=0):
        play.prove(0)
    return play, change


def test_changed_verifier__defence_removed__author_proves_whatever_it_likes() -> None:
    with running_theatre("--hardfork", "shanghai") as before_cancun:
        play, change = metamorphosis(build_stage(before_cancun, CODE_MAY_CHANGE, segments=1))
        change()
        play.prove(0)
        assert play.phase is Phase.FINALISABLE


def test_changed_verifier__refused_because_its_code_is_looked_at_again() -> None:
    with running_theatre("--hardfork", "shanghai") as before_cancun:
        play, change = metamorphosis(build_stage(before_cancun, segments=1))
        change()
        hashes = {"expected": keccak(NO_UNLESS_TOLD_TO_DIE), "actual": keccak(YES)}
        with refused("VerifierCodeChanged", segment=0, **hashes):
            play.prove(0)


# --- row 20 -----------------------------------------------------------------------------------------------------------


def gas_burnt(stage: Stage) -> int:
    """What a proof costs its sender whose verification burns all that it gets."""
    play = stage.request().to_proving()
    prover = stage.by_address(play.round(0).prover)
    proof, instances = play.proof(0)
    call = play.jobs.contract.functions.prove(play.job, 0, proof, list(instances), keccak(b"proof"))
    (receipt,) = mined_together(stage.chain, [{"from": prover.address, "gas": hex(GAS_OFFERED), **calldata(call)}])
    assert why_reverted(stage.chain, receipt) == ("ProofRejected", {"modelId": stage.model, "segment": 0})
    return int(receipt["gasUsed"], 16)


@pytest.mark.parametrize("answer", [BURNS_GAS, HUGE_ANSWER], ids=["endless loop", "a megabyte"])
def test_burning_verifier__costs_its_sender_the_stipend_and_no_more(build: Callable[..., Stage], answer: int) -> None:
    assert gas_burnt(build(segments=1, answer=answer)) < STIPEND + 2_500_000


def test_burning_verifier__defence_removed__takes_all_that_was_offered(build: Callable[..., Stage]) -> None:
    assert gas_burnt(build(NO_STIPEND, segments=1, answer=BURNS_GAS)) > GAS_OFFERED * 9 // 10


def test_starved_verifier__refused_by_name_and_not_as_a_bad_proof(build: Callable[..., Stage]) -> None:
    """Or whoever sends somebody's honest proof with too little gas could have it taken for a bad one."""
    stage = build(segments=1)
    play = stage.request().to_proving()
    prover: InstantSender = stage.by_address(play.round(0).prover)
    proof, instances = play.proof(0)
    call = play.jobs.contract.functions.prove(play.job, 0, proof, list(instances), keccak(b"proof"))
    (receipt,) = mined_together(stage.chain, [{"from": prover.address, "gas": hex(3_000_000), **calldata(call)}])
    error, arguments = why_reverted(stage.chain, receipt)
    assert (error, arguments["required"]) == ("VerifierGasTooLow", STIPEND)
    play.prove(0)


def test_burning_verifier__harms_nobody_elses_job(build: Callable[..., Stage]) -> None:
    """Whoever serves such a model loses at most the penalty of a prover, and others nothing at all."""
    stage = build(segments=1, answer=BURNS_GAS)
    play = stage.request().to_proving()
    prover = play.round(0).prover
    play.lapse()
    play.expire()
    staking = stage.contracts.staking
    lost = {
        worker.address: stake - staking.active_of(worker.address)
        for worker, stake in zip(stage.workers, STAKES, strict=True)
    }
    assert lost == {
        worker.address: stake * 100 // 10_000 if worker.address == prover else 0
        for worker, stake in zip(stage.workers, STAKES, strict=True)
    }

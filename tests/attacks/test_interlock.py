"""A proof counts only between the links that its neighbours stand by, however valid it is by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from offchain.chain.contracts import Contracts
from offchain.chain.errors import TransactionRefused
from offchain.protocol.field import FIELD_MODULUS
from offchain.protocol.links import link_of_commitment, link_of_values
from offchain.protocol.types import ZERO_HASH, Phase
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Proof
from offchain.storage.ipfs import IpfsStore
from tests.attacks.conftest import OTHER_VALUES
from tests.harness import Elements, Play, ReadyModel, execute, prove
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration

VERIFY_PROOF_ABI = [
    {
        "type": "function",
        "name": "verifyProof",
        "stateMutability": "nonpayable",
        "inputs": [{"name": "proof", "type": "bytes"}, {"name": "instances", "type": "uint256[]"}],
        "outputs": [{"name": "", "type": "bool"}],
    }
]
ANSWERS_TRUE = "0x60015f5260205ff3"
"""``PUSH1 1 PUSH0 MSTORE PUSH1 32 PUSH0 RETURN``: a contract that answers every call with one."""


@pytest.fixture(autouse=True)
def _isolation(proving: Play, other_proofs: tuple[Proof, ...], isolation: None) -> None:
    """Whatever gets through is taken back. The session's fixtures are made before, so that they stay."""


@pytest.fixture(scope="session")
def other_proofs(prover: EzklProver, model: ReadyModel, proving: Play) -> tuple[Proof, ...]:
    """Honest proofs of the same model over another input: of another job, that is."""
    elements, proofs = model.quantise(OTHER_VALUES), []
    for circuit in model.circuits:
        proofs.append(prove(prover, circuit, elements))
        elements = execute(prover, circuit, elements).outputs
    return tuple(proofs)


def accepted_by_the_bare_verifier(contracts: Contracts, model: ReadyModel, segment: int, proof: Proof) -> bool:
    address = contracts.registry.segment_of(model.id, segment).verifier
    bare: Any = contracts.connection.web3.eth.contract(address=address, abi=VERIFY_PROOF_ABI)  # type: ignore[call-overload]
    try:
        with contracts.connection.translated("verifyProof"):
            return bool(bare.functions.verifyProof(proof.proof, list(proof.instances)).call({"gas": 5_000_000}))
    except TransactionRefused:
        return False


def refusal(play: Play, segment: int, proof: Proof) -> TransactionRefused:
    """What ``Jobs.prove`` says to a proof from the very worker that was drawn; nothing may have changed."""
    before = play.view()
    with pytest.raises(TransactionRefused) as refused:
        play.prove(segment, proof)
    after = play.view()
    assert (after.job, after.rounds) == (before.job, before.rounds)
    return refused.value


def test_prove__honest_proofs__are_accepted_by_verifier_and_job(
    contracts: Contracts, model: ReadyModel, proving: Play
) -> None:
    for segment in range(3):
        assert accepted_by_the_bare_verifier(contracts, model, segment, proving.proof(segment))
        proving.prove(segment)
    assert proving.view().phase is Phase.FINALISABLE


def test_prove__activation_that_the_segment_before_did_not_produce__is_refused_by_the_link_alone(
    contracts: Contracts, prover: EzklProver, model: ReadyModel, proving: Play
) -> None:
    """The central attack: a valid proof of the right segment, with the right weights, over a made-up activation."""
    activation = proving.inputs[1]
    made_up = (activation[0] + 1, *activation[1:])
    proof = prove(prover, model.circuits[1], made_up)

    assert accepted_by_the_bare_verifier(contracts, model, 1, proof)
    opening, _ = contracts.verifier.verify_segment(model.id, 1, proof.proof, proof.instances)
    refused = refusal(proving, 1, proof)
    assert refused.error == "OpeningLinkMismatch"
    assert refused.arguments == {
        "segment": 1,
        "expected": proving.view().rounds[0].settled_link,
        "actual": link_of_commitment(proof.proof[:64]),
    }
    assert opening == refused.arguments["actual"]


@pytest.mark.parametrize("segment", [0, 1, 2])
def test_prove__proof_of_another_job__is_refused(
    contracts: Contracts, model: ReadyModel, proving: Play, other_proofs: tuple[Proof, ...], segment: int
) -> None:
    assert accepted_by_the_bare_verifier(contracts, model, segment, other_proofs[segment])
    refused = refusal(proving, segment, other_proofs[segment])
    view = proving.view()
    expected = view.job.input_link if segment == 0 else view.rounds[segment - 1].settled_link
    assert (refused.error, refused.arguments["expected"]) == ("OpeningLinkMismatch", expected)


@pytest.mark.parametrize("segment", [0, 2])
def test_prove__other_weights__are_refused_although_the_link_fits(
    contracts: Contracts, prover: EzklProver, proving: Play, other_weights: ReadyModel, segment: int
) -> None:
    proof = prove(prover, other_weights.circuits[segment], proving.inputs[segment])
    assert proof.proof[:64] == proving.proof(segment).proof[:64]
    assert accepted_by_the_bare_verifier(contracts, other_weights, segment, proof)
    assert refusal(proving, segment, proof).error == "ProofRejected"


def test_prove__another_segment_of_the_model__is_refused(proving: Play) -> None:
    """Segments 0 and 1 have proofs of one length."""
    proof = proving.proof(0)
    assert len(proof.proof) == len(proving.proof(1).proof)
    assert refusal(proving, 1, proof).error == "ProofRejected"
    assert refusal(proving, 2, proof).error == "ProofLengthMismatch"


@pytest.mark.parametrize("segment", [1, 2])
@pytest.mark.parametrize("place", [0, 63, 64, 127, 1_600, -1])
def test_prove__flipped_byte__is_refused(proving: Play, segment: int, place: int) -> None:
    proof = proving.proof(segment)
    changed = bytearray(proof.proof)
    changed[place] ^= 1
    assert refusal(proving, segment, replace(proof, proof=bytes(changed))).error == "ProofRejected"


def test_prove__instance_plus_the_field_modulus__is_refused(
    contracts: Contracts, model: ReadyModel, proving: Play
) -> None:
    """It is the same number to the circuit, and another result to whoever reads it."""
    proof = proving.proof(2)
    first, *others = proof.instances
    raised = (first + FIELD_MODULUS, *others)
    refused = proving.view().rounds[2]
    with pytest.raises(TransactionRefused) as caught:
        contracts.jobs.prove(proving.prover_of(2).sender, proving.job, 2, proof.proof, raised, b"\1" * 32)
    assert caught.value.error == "InstanceNotInField"
    assert caught.value.arguments == {"segment": 2, "index": 0, "value": first + FIELD_MODULUS}
    assert proving.view().rounds[2] == refused


def test_prove__other_result__is_refused(proving: Play) -> None:
    """The instances are what the last proof is about: no others go with it."""
    proof = proving.proof(2)
    first, *others = proof.instances
    assert refusal(proving, 2, replace(proof, instances=(first + 1, *others))).error == "ProofRejected"
    assert refusal(proving, 2, replace(proof, instances=tuple(others))).error == "InstanceCountMismatch"


@pytest.mark.parametrize("ends", [slice(0, 64), slice(64, 128), slice(0, 128)], ids=["opening", "closing", "both"])
def test_prove__commitments_spliced_in__are_refused(
    proving: Play, other_proofs: tuple[Proof, ...], ends: slice
) -> None:
    """The links would fit: they are taken from the honest proof."""
    spliced = bytearray(other_proofs[1].proof)
    spliced[ends] = proving.proof(1).proof[ends]
    assert refusal(proving, 1, Proof(bytes(spliced), ())).error == "ProofRejected"


@pytest.mark.parametrize("change", [-32, 32])
def test_prove__other_length__is_refused(proving: Play, change: int) -> None:
    proof = proving.proof(1).proof
    changed = proof[:change] if change < 0 else proof + bytes(change)
    refused = refusal(proving, 1, Proof(changed, ()))
    assert refused.error == "ProofLengthMismatch"
    assert refused.arguments == {"segment": 1, "expected": len(proof), "actual": len(proof) + change}


@pytest.mark.parametrize("code", ["0x", ANSWERS_TRUE], ids=["none", "answers true"])
def test_prove__verifier_lost_its_code__is_refused(
    chain: LocalChain, contracts: Contracts, model: ReadyModel, proving: Play, code: str
) -> None:
    """A call to an address without code succeeds; the other code would accept anything."""
    address = contracts.registry.segment_of(model.id, 1).verifier
    chain.rpc("anvil_setCode", address, code)
    if code != "0x":
        assert accepted_by_the_bare_verifier(contracts, model, 1, Proof(bytes(3_488), ()))
    assert refusal(proving, 1, proving.proof(1)).error == "VerifierCodeChanged"


def test_prove__result_that_nobody_computed__can_never_be_proved(
    chain: LocalChain,
    contracts: Contracts,
    store: IpfsStore,
    prover: EzklProver,
    model: ReadyModel,
    proving: Play,
) -> None:
    """Even a committee that lies with one voice only gets as far as the proof."""

    def lie(segment: int, place: int, outputs: Elements) -> Elements:
        return (outputs[0] + 1, *outputs[1:]) if segment == 2 else outputs

    play = replace(proving, answer=lie, job=b"", salt=bytes(32), inputs=[]).run(until=Phase.PROVING)
    genuine = play.proof(2)
    refused = refusal(play, 2, genuine)
    assert refused.error == "ClosingLinkMismatch"
    assert refused.arguments["expected"] == link_of_values(play.inputs[3])
    assert refused.arguments["actual"] == link_of_values(genuine.instances)

    play.prove(0)
    play.prove(1)
    credit = contracts.jobs.credit_of(play.requester.address)
    chain.advance(2 * play.policy.prove_seconds + 1)
    contracts.jobs.expire(play.requester.sender, play.job)
    assert play.view().phase is Phase.FAILED
    assert contracts.jobs.credit_of(play.requester.address) == credit + play.view().job.fee_wei


def test_prove__activation_that_nobody_computed__can_never_be_proved(proving: Play) -> None:
    """The same in the middle: the proof behind the lie fits it, the segment with the lie cannot be proved."""

    def lie(segment: int, place: int, outputs: Elements) -> Elements:
        return (outputs[0] + 1, *outputs[1:]) if segment == 0 else outputs

    play = replace(proving, answer=lie, job=b"", salt=bytes(32), inputs=[]).run(until=Phase.PROVING)
    play.prove(1)
    assert refusal(play, 0, play.proof(0)).error == "ClosingLinkMismatch"
    assert play.view().rounds[0].proof_hash == ZERO_HASH

from __future__ import annotations

from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.chain.errors import TransactionRefused
from offchain.protocol.field import FIELD_MODULUS, encode_elements
from offchain.protocol.links import LinkKind, links_of_proof
from offchain.protocol.types import ModelId
from tests.contracts.stage import PROOF_BYTES, Stage, refused, spec

pytestmark = pytest.mark.integration

PROOF = bytes(range(256))
# In the order of VerifierMock.Answer.
TRUE, FALSE, TWO, NOTHING, TWO_WORDS, ONE_BYTE, REVERT, BURN_GAS, HUGE = range(9)


def single(stage: Stage, answer: int = TRUE, **changes: Any) -> ModelId:
    """Register a model of one segment: three elements in by KZG, three out in the clear, unless changed."""
    verifier, code_hash = stage.mock(answer)
    stage.verifiers = (verifier,)
    return stage.register([spec(code_hash, **{"output_kind": LinkKind.PUBLIC} | changes)], [verifier], "single")


@pytest.mark.parametrize(("input_kind", "inputs"), [(LinkKind.KZG, 0), (LinkKind.POSEIDON, 1), (LinkKind.PUBLIC, 2)])
@pytest.mark.parametrize("output_kind", [LinkKind.KZG, LinkKind.POSEIDON, LinkKind.PUBLIC])
def test_verify_segment__any_kinds_of_links__reads_what_python_reads(
    stage: Stage, input_kind: LinkKind, inputs: int, output_kind: LinkKind
) -> None:
    outputs = {LinkKind.KZG: 0, LinkKind.POSEIDON: 1, LinkKind.PUBLIC: 3}[output_kind]
    verifier, code_hash = stage.mock()
    first = spec(code_hash, input_kind=input_kind, output_kind=output_kind, input_shape=[2])
    last = spec(code_hash, input_kind=output_kind, output_kind=LinkKind.PUBLIC)
    model = stage.register([first, last], [verifier, verifier])
    instances = tuple(range(100, 100 + inputs + outputs))
    links = stage.contracts.verifier.verify_segment(model, 0, PROOF, instances)
    assert links == links_of_proof(PROOF, instances, input_kind, output_kind, input_elements=2)
    if input_kind is LinkKind.KZG:
        assert links[0] == keccak(PROOF[:64])
    if (input_kind, output_kind) == (LinkKind.KZG, LinkKind.KZG):
        assert links[1] == keccak(PROOF[64:128])
    if (input_kind, output_kind) == (LinkKind.PUBLIC, LinkKind.KZG):
        assert links == (keccak(encode_elements(instances)), keccak(PROOF[:64]))


@pytest.mark.parametrize("length", [0, PROOF_BYTES - 1, PROOF_BYTES + 1, PROOF_BYTES + 32])
def test_verify_segment__proof_of_another_length__is_refused(stage: Stage, length: int) -> None:
    model = single(stage)
    with refused("ProofLengthMismatch", segment=0, expected=PROOF_BYTES, actual=length):
        stage.contracts.verifier.verify_segment(model, 0, bytes(length), (1, 2, 3))


@pytest.mark.parametrize("count", [0, 2, 4])
def test_verify_segment__another_number_of_instances__is_refused(stage: Stage, count: int) -> None:
    model = single(stage)
    with refused("InstanceCountMismatch", segment=0, expected=3, actual=count):
        stage.contracts.verifier.verify_segment(model, 0, PROOF, [1] * count)


@pytest.mark.parametrize("value", [FIELD_MODULUS, FIELD_MODULUS + 2, 2**256 - 1])
def test_verify_segment__instance_plus_the_modulus__is_refused(stage: Stage, value: int) -> None:
    model = single(stage)
    with refused("InstanceNotInField", segment=0, index=1, value=value):
        stage.contracts.verifier.verify_segment(model, 0, PROOF, (FIELD_MODULUS - 1, value, 3))


@pytest.mark.parametrize("answer", [FALSE, TWO, NOTHING, TWO_WORDS, ONE_BYTE, REVERT, BURN_GAS, HUGE])
def test_verify_segment__anything_but_exactly_true__is_refused(stage: Stage, answer: int) -> None:
    model = single(stage, answer)
    with refused("ProofRejected", modelId=model, segment=0):
        stage.contracts.verifier.verify_segment(model, 0, PROOF, (1, 2, 3))


def test_verify_segment__verifier_that_burns_gas__burns_no_more_than_its_stipend(stage: Stage) -> None:
    model = single(stage, BURN_GAS)
    call = stage.contracts.verifier.contract.functions.verifySegment(model, 0, PROOF, (1, 2, 3))
    # Enough for the stipend and little else: the refusal is still named, so the rest was not burnt.
    with refused("ProofRejected", modelId=model, segment=0), stage.contracts.connection.translated("verifySegment"):
        call.call({"gas": 4_200_000})


def test_verify_segment__too_little_gas_for_the_stipend__says_so_instead_of_rejecting(stage: Stage) -> None:
    model = single(stage)
    call = stage.contracts.verifier.contract.functions.verifySegment(model, 0, PROOF, (1, 2, 3))
    with pytest.raises(TransactionRefused) as caught, stage.contracts.connection.translated("verifySegment"):
        call.call({"gas": 2_000_000})
    assert caught.value.error == "VerifierGasTooLow"
    assert caught.value.arguments["required"] == 4_000_000
    assert 0 < caught.value.arguments["available"] < 2_000_000  # type: ignore[operator]


def test_verify_segment__verifier_whose_code_changed__is_refused(stage: Stage) -> None:
    model = single(stage)
    (verifier,) = stage.verifiers
    registered = stage.contracts.registry.segment_of(model, 0).verifier_code_hash
    other, other_hash = stage.mock(TRUE, circuit=1)
    code = stage.chain.connection.web3.eth.get_code(other)  # type: ignore[arg-type]
    stage.chain.rpc("anvil_setCode", verifier, "0x" + bytes(code).hex())
    with refused("VerifierCodeChanged", segment=0, expected=registered, actual=other_hash):
        stage.contracts.verifier.verify_segment(model, 0, PROOF, (1, 2, 3))


def test_verify_segment__verifier_that_lost_its_code__is_refused(stage: Stage) -> None:
    model = single(stage)
    (verifier,) = stage.verifiers
    registered = stage.contracts.registry.segment_of(model, 0).verifier_code_hash
    stage.chain.rpc("anvil_setCode", verifier, "0x")
    with refused("VerifierCodeChanged", segment=0, expected=registered, actual=keccak(b"")):
        stage.contracts.verifier.verify_segment(model, 0, PROOF, (1, 2, 3))


def test_verify_segment__unknown_segment__is_refused(stage: Stage) -> None:
    model = single(stage)
    with refused("UnknownSegment", modelId=model, segment=1):
        stage.contracts.verifier.verify_segment(model, 1, PROOF, (1, 2, 3))


def test_constants__contract__are_those_of_python(stage: Stage) -> None:
    assert stage.contracts.verifier._read("FIELD_MODULUS") == FIELD_MODULUS
    assert stage.contracts.verifier._read("registry") == stage.contracts.registry.address

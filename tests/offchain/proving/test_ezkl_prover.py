"""The ezkl adapter on real circuits: links, bindings, tampering, limits."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from proving_circuits import LIMITS, ProvedChain, export, two_segments

from offchain.errors import InvalidInputError
from offchain.protocol.field import FIELD_MODULUS, quantise
from offchain.protocol.links import LinkKind, links_of_proof
from offchain.proving.boundary import check_boundaries
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.links import input_link, output_link
from offchain.proving.port import (
    BoundaryMismatch,
    CircuitRefused,
    InputOutOfRange,
    Proof,
    ProofRejected,
    ProverFailed,
    SegmentCircuit,
    Srs,
    Tuning,
    VerifyingKey,
)
from offchain.proving.srs import insecure_srs

pytestmark = pytest.mark.integration


def test_prove__linked_segments__carry_one_commitment(prover: EzklProver, chain: ProvedChain) -> None:
    first, second = chain.proofs
    assert first.proof[:64] == prover.commit(chain.elements, chain.circuits[0])
    assert first.proof[64:128] == second.proof[:64]
    assert first.instances == ()
    assert second.instances == chain.witnesses[1].outputs
    assert chain.circuits[0].vk_digest == hashlib.sha256(chain.circuits[0].vk.read_bytes()).digest()


def test_verify__both_proofs__accepts(prover: EzklProver, chain: ProvedChain, srs: Srs) -> None:
    for circuit, proof in zip(chain.circuits, chain.proofs, strict=True):
        prover.verify(circuit.verifying_key(), srs, proof)


def test_prove__another_activation__verifies_alone_and_breaks_the_link(
    prover: EzklProver, chain: ProvedChain, srs: Srs
) -> None:
    outputs = chain.witnesses[0].outputs
    altered = (outputs[0] + 1, *outputs[1:])
    stray = prover.prove(chain.circuits[1], prover.witness(chain.circuits[1], altered))
    prover.verify(chain.circuits[1].verifying_key(), srs, stray)
    assert stray.proof[:64] != chain.proofs[0].proof[64:128]


@pytest.mark.parametrize(
    "elements", [(0, 0, 0, 0), (1, 0, 0, 0), (FIELD_MODULUS - 1,) * 4, quantise((3.0, -3.0, 0.01, 2.99), 7)]
)
def test_witness__commitments__are_what_commit_gives(
    prover: EzklProver, circuits: tuple[SegmentCircuit, ...], elements: tuple[int, ...]
) -> None:
    circuit = replace(circuits[0], input_bound=None)
    witness = prover.witness(circuit, elements)
    assert witness.input_commitment == prover.commit(elements, circuit)
    # The next segment's key commits alike, so that anybody on either side of the link can check it.
    assert witness.output_commitment == prover.commit(witness.outputs, circuits[1])


def test_witness__all_zero_input__commits_to_the_probe_and_not_to_the_identity(
    prover: EzklProver, circuits: tuple[SegmentCircuit, ...]
) -> None:
    witness = prover.witness(circuits[0], (0, 0, 0, 0))
    assert witness.input_commitment == circuits[0].commitment_probe
    assert witness.input_commitment != bytes(64)


def test_witness__twice__is_the_same(prover: EzklProver, chain: ProvedChain) -> None:
    assert prover.witness(chain.circuits[0], chain.elements) == chain.witnesses[0]


def test_activations__batch__equals_single_witnesses(prover: EzklProver, chain: ProvedChain) -> None:
    [outputs, other] = prover.activations(chain.circuits, [chain.elements, (0, 0, 0, 0)])
    assert outputs == tuple(witness.outputs for witness in chain.witnesses)
    assert other != outputs


def test_closing_links__batch__are_those_that_proofs_show(prover: EzklProver, chain: ProvedChain) -> None:
    [links, others] = prover.closing_links(chain.circuits, [chain.elements, (0, 0, 0, 0)])
    ends = [
        links_of_proof(proof.proof, proof.instances, it.input_kind, it.output_kind, it.input_elements)
        for it, proof in zip(chain.circuits, chain.proofs, strict=True)
    ]
    assert links == tuple(closing for _, closing in ends)
    assert links[0] == ends[1][0]
    assert links == tuple(map(output_link, chain.circuits, chain.witnesses))
    assert input_link(chain.circuits[0], chain.witnesses[0], chain.elements) == ends[0][0]
    assert not set(links) & set(others)


def test_closing_links__input_out_of_range__is_named(prover: EzklProver, chain: ProvedChain) -> None:
    with pytest.raises(InputOutOfRange) as caught:
        prover.closing_links(chain.circuits, [chain.elements, (0, 1 << 40, 0, 0)])
    assert caught.value.field == "input[1][1]"
    unbounded = tuple(replace(circuit, input_bound=None) for circuit in chain.circuits)
    with pytest.raises(InputOutOfRange, match="leaves the circuit's range"):
        prover.closing_links(unbounded, [chain.elements, (0, 1 << 100, 0, 0)])


@pytest.mark.parametrize("element", [1 << 126, 1 << 200, FIELD_MODULUS - (1 << 126)])
def test_witness__element_beyond_the_tools_integers__is_named(
    prover: EzklProver, circuits: tuple[SegmentCircuit, ...], element: int
) -> None:
    unbounded = replace(circuits[1], input_bound=None)
    with pytest.raises(InputOutOfRange, match=r"segment\.input\[2\]: over 126 bits"):
        prover.witness(unbounded, (0, 0, element, 0, 0, 0))


def flip(proof: Proof, index: int) -> Proof:
    changed = bytearray(proof.proof)
    changed[index] ^= 1
    return replace(proof, proof=bytes(changed))


@pytest.mark.parametrize("position", ["input link", "output link", "inside", "evaluations", "last byte"])
def test_verify__flipped_byte__rejects(prover: EzklProver, chain: ProvedChain, srs: Srs, position: str) -> None:
    [circuit, proof] = chain.circuits[0], chain.proofs[0]
    length = len(proof.proof)
    index = {
        "input link": 31,
        "output link": 127,
        "inside": length // 4,
        "evaluations": length - 200,
        "last byte": length - 1,
    }
    with pytest.raises(ProofRejected):
        prover.verify(circuit.verifying_key(), srs, flip(proof, index[position]))


def test_verify__instance_plus_modulus__rejects(prover: EzklProver, chain: ProvedChain, srs: Srs) -> None:
    first, *others = chain.proofs[1].instances
    forged = replace(chain.proofs[1], instances=(first + FIELD_MODULUS, *others))
    with pytest.raises(ProofRejected, match="modulus"):
        prover.verify(chain.circuits[1].verifying_key(), srs, forged)


@pytest.mark.parametrize("count", [0, 2, 4])
def test_verify__wrong_instance_count__rejects(prover: EzklProver, chain: ProvedChain, srs: Srs, count: int) -> None:
    forged = replace(chain.proofs[1], instances=(chain.proofs[1].instances * 2)[:count])
    with pytest.raises(ProofRejected, match="instances"):
        prover.verify(chain.circuits[1].verifying_key(), srs, forged)


def test_verify__changed_instance__rejects(prover: EzklProver, chain: ProvedChain, srs: Srs) -> None:
    first, *others = chain.proofs[1].instances
    forged = replace(chain.proofs[1], instances=((first + 1) % FIELD_MODULUS, *others))
    with pytest.raises(ProofRejected):
        prover.verify(chain.circuits[1].verifying_key(), srs, forged)


@pytest.mark.parametrize("suffix", [bytes(32), b"\x00"])
def test_verify__appended_bytes__rejects(prover: EzklProver, chain: ProvedChain, srs: Srs, suffix: bytes) -> None:
    longer = replace(chain.proofs[0], proof=chain.proofs[0].proof + suffix)
    with pytest.raises(ProofRejected, match="proof bytes"):
        prover.verify(chain.circuits[0].verifying_key(), srs, longer)


def test_verify__appended_bytes_without_length__show_why_the_length_is_fixed(
    prover: EzklProver, chain: ProvedChain, srs: Srs
) -> None:
    longer = replace(chain.proofs[0], proof=chain.proofs[0].proof + bytes(32))
    careless = replace(chain.circuits[0].verifying_key(), proof_bytes=len(longer.proof))
    prover.verify(careless, srs, longer)


def test_verify__key_of_another_segment__rejects(prover: EzklProver, chain: ProvedChain, srs: Srs) -> None:
    keys = [circuit.verifying_key() for circuit in chain.circuits]
    wrong = VerifyingKey(keys[0].settings, keys[1].key, keys[0].proof_bytes, keys[0].instance_count)
    with pytest.raises(ProofRejected):
        prover.verify(wrong, srs, chain.proofs[0])


def test_verify__garbage_key__rejects(prover: EzklProver, chain: ProvedChain, srs: Srs) -> None:
    key = chain.circuits[0].verifying_key()
    with pytest.raises(ProofRejected):
        prover.verify(replace(key, key=key.key[:100]), srs, chain.proofs[0])


def test_verify__another_srs__rejects(prover: EzklProver, chain: ProvedChain, srs: Srs, scratch: ArtefactCache) -> None:
    other = insecure_srs(EzklProver(scratch, LIMITS), srs.log_rows)
    assert other.digest != srs.digest
    with pytest.raises(ProofRejected):
        prover.verify(chain.circuits[0].verifying_key(), other, chain.proofs[0])


def test_prove__another_srs_than_the_keys__is_never_handed_out(
    prover: EzklProver, chain: ProvedChain, srs: Srs, scratch: ArtefactCache
) -> None:
    other = insecure_srs(EzklProver(scratch, LIMITS), srs.log_rows)
    with pytest.raises(ProofRejected):
        prover.prove(replace(chain.circuits[0], srs=other), chain.witnesses[0])


def test_prove__forged_output__is_never_handed_out(prover: EzklProver, chain: ProvedChain) -> None:
    document = json.loads(chain.witnesses[1].document)
    document["outputs"][0][0] = "07" + "00" * 31
    forged = replace(chain.witnesses[1], document=json.dumps(document).encode())
    with pytest.raises(ProofRejected):
        prover.prove(chain.circuits[1], forged)


def test_build__other_weights__give_another_key_that_rejects(
    prover: EzklProver, chain: ProvedChain, tuning: Tuning, srs: Srs
) -> None:
    other = prover.build(two_segments(seed=9)[0], tuning.segments[0].settings, srs)
    assert other.vk_digest != chain.circuits[0].vk_digest
    proof = prover.prove(other, prover.witness(other, chain.elements))
    prover.verify(other.verifying_key(), srs, proof)
    with pytest.raises(ProofRejected):
        prover.verify(chain.circuits[0].verifying_key(), srs, proof)


def test_rederive_vk__from_nothing__equals_the_key(
    prover: EzklProver, segments: tuple[bytes, bytes], chain: ProvedChain, tuning: Tuning, srs: Srs
) -> None:
    for onnx, choice, circuit in zip(segments, tuning.segments, chain.circuits, strict=True):
        assert prover.rederive_vk(onnx, choice.settings, srs) == circuit.vk_digest


def test_build__second_time__comes_from_the_cache(
    prover: EzklProver, segments: tuple[bytes, bytes], circuits: tuple[SegmentCircuit, ...], tuning: Tuning, srs: Srs
) -> None:
    unable = EzklProver(prover.cache, replace(LIMITS, build_seconds=0.0))
    assert unable.build(segments[1], tuning.segments[1].settings, srs) == circuits[1]


def test_build__out_of_time__fails_recoverably_and_keeps_nothing(
    scratch: ArtefactCache, segments: tuple[bytes, bytes], tuning: Tuning, srs: Srs
) -> None:
    slow = EzklProver(scratch, replace(LIMITS, build_seconds=0.01))
    with pytest.raises(ProverFailed, match="timeout"):
        slow.build(segments[0], tuning.segments[0].settings, srs)
    assert not list((scratch.root / "entries").iterdir())
    assert not list((scratch.root / "partial").iterdir())


def test_build__out_of_memory__fails_recoverably(
    scratch: ArtefactCache, segments: tuple[bytes, bytes], tuning: Tuning, srs: Srs
) -> None:
    small = EzklProver(scratch, replace(LIMITS, memory_bytes=48 << 20))
    with pytest.raises(ProverFailed):
        small.build(segments[0], tuning.segments[0].settings, srs)


def test_build__settings_that_are_not_canonical__are_refused(
    prover: EzklProver, segments: tuple[bytes, bytes], tuning: Tuning, srs: Srs
) -> None:
    reordered = json.loads(tuning.segments[0].settings)
    reordered["required_range_checks"].reverse()
    with pytest.raises(CircuitRefused, match=r"segment\[0\].settings: not in canonical form"):
        prover.build(segments[0], json.dumps(reordered).encode(), srs, name="segment[0]")


def test_build__weights_that_are_not_fixed__are_refused(
    prover: EzklProver, segments: tuple[bytes, bytes], tuning: Tuning, srs: Srs
) -> None:
    loose = tuning.segments[0].settings.replace(b'"param_visibility":"Fixed"', b'"param_visibility":"Private"')
    with pytest.raises(CircuitRefused, match="weights are not bound"):
        prover.build(segments[0], loose, srs)


def test_build__small_srs__is_refused(
    prover: EzklProver, segments: tuple[bytes, bytes], tuning: Tuning, srs: Srs
) -> None:
    with pytest.raises(InvalidInputError, match="serves log-rows"):
        prover.build(segments[0], tuning.segments[0].settings, replace(srs, log_rows=srs.log_rows - 1))


def test_build__mutated_models__raise_only_our_errors(
    prover: EzklProver, segments: tuple[bytes, bytes], tuning: Tuning, srs: Srs
) -> None:
    onnx = segments[0]
    mutants = [b"", b"\x00", onnx[: len(onnx) // 2], onnx[::-1], onnx.replace(b"Relu", b"Rela"), b"\xff" * 400]
    for mutant in mutants:
        with pytest.raises((InvalidInputError, ProverFailed)):
            prover.build(mutant, tuning.segments[0].settings, srs)


def test_witness__input_over_the_bound__names_the_element(
    prover: EzklProver, circuits: tuple[SegmentCircuit, ...]
) -> None:
    elements = quantise((0.0, 0.0, 1e3, 0.0), 7)
    with pytest.raises(InputOutOfRange, match=r"segment.input\[2\]: 1000 is outside"):
        prover.witness(circuits[0], elements)


def test_witness__value_over_the_range__is_refused(prover: EzklProver, circuits: tuple[SegmentCircuit, ...]) -> None:
    with pytest.raises(InputOutOfRange, match="leaves the circuit's range"):
        prover.witness(replace(circuits[0], input_bound=None), (1 << 60,) * 4)


@pytest.mark.parametrize(
    ("elements", "field"), [((1, 2, 3), "segment.input"), ((0, 0, 0, FIELD_MODULUS), r"input\[3\]")]
)
def test_witness__malformed_input__is_refused(
    prover: EzklProver, circuits: tuple[SegmentCircuit, ...], elements: tuple[int, ...], field: str
) -> None:
    with pytest.raises(InvalidInputError, match=field):
        prover.witness(circuits[0], elements)


def test_check_boundaries__real_chain__passes_and_another_srs_is_refused(
    circuits: tuple[SegmentCircuit, ...], segments: tuple[bytes, bytes], tuning: Tuning, scratch: ArtefactCache
) -> None:
    check_boundaries(circuits)
    other = EzklProver(scratch, LIMITS)
    stranger = other.build(segments[1], tuning.segments[1].settings, insecure_srs(other, tuning.log_rows))
    with pytest.raises(BoundaryMismatch, match="another SRS"):
        check_boundaries((circuits[0], stranger))


def test_prove__poseidon_link__exposes_one_hash_on_both_sides(
    prover: EzklProver, segments: tuple[bytes, bytes], calibration: np.ndarray, chain: ProvedChain
) -> None:
    kinds = (LinkKind.KZG, LinkKind.POSEIDON, LinkKind.PUBLIC)
    tuned = prover.tune(segments, calibration, kinds=kinds)
    srs = insecure_srs(prover, tuned.log_rows)
    hashed = [prover.build(onnx, part.settings, srs) for onnx, part in zip(segments, tuned.segments, strict=True)]
    check_boundaries(hashed)
    first = prover.witness(hashed[0], chain.elements)
    second = prover.witness(hashed[1], first.outputs)
    proofs = [prover.prove(circuit, witness) for circuit, witness in zip(hashed, (first, second), strict=True)]
    assert proofs[0].instances == (int.from_bytes(first.output_commitment or b"", "big"),)
    assert proofs[1].instances == (*proofs[0].instances, *second.outputs)
    for circuit, proof in zip(hashed, proofs, strict=True):
        prover.verify(circuit.verifying_key(), srs, proof)


def test_solidity_verifier__name__is_given_once_with_the_key_in_the_header(
    prover: EzklProver, circuits: tuple[SegmentCircuit, ...]
) -> None:
    source = prover.solidity_verifier(circuits[0], "SegmentVerifier0")
    assert source.startswith("// SPDX-License-Identifier: MIT\n// Generated by ezkl ")
    assert circuits[0].vk_digest.hex() in source
    assert "contract SegmentVerifier0 {" in source
    assert "Halo2Verifier" not in source
    with pytest.raises(InvalidInputError, match="contract_name"):
        prover.solidity_verifier(circuits[0], "X {} contract Evil")


def test_prove__public_ends__expose_input_and_output(prover: EzklProver, calibration: np.ndarray) -> None:
    torch.manual_seed(4)
    onnx = export(torch.nn.Linear(4, 3), 1, 4)
    tuned = prover.tune([onnx], calibration, kinds=(LinkKind.PUBLIC, LinkKind.PUBLIC))
    srs = insecure_srs(prover, tuned.log_rows)
    circuit = prover.build(onnx, tuned.segments[0].settings, srs)
    elements = quantise(calibration[0].tolist(), tuned.scales[0])
    witness = prover.witness(circuit, elements)
    proof = prover.prove(circuit, witness)
    assert proof.instances == (*elements, *witness.outputs)
    assert witness.input_commitment is None
    prover.verify(circuit.verifying_key(), srs, proof)


def test_insecure_srs__second_process_cache__is_the_same_file(prover: EzklProver, srs: Srs) -> None:
    again = insecure_srs(EzklProver(ArtefactCache(prover.cache.root), LIMITS), srs.log_rows)
    assert again == srs
    assert again.origin == "insecure-dev"
    assert again.digest == hashlib.sha256(srs.path.read_bytes()).digest()


def test_prove__out_of_time__fails_recoverably(prover: EzklProver, chain: ProvedChain) -> None:
    hurried = EzklProver(prover.cache, replace(LIMITS, prove_seconds=0.05))
    with pytest.raises(ProverFailed, match="prove of segment: timeout"):
        hurried.prove(chain.circuits[0], chain.witnesses[0])

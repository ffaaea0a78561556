"""A convolution as a checked matrix product: the same field elements, and a verifier that takes them and no others."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from proving_circuits import accepts, deploy, export
from web3 import Web3

from offchain.inference import rewriting
from offchain.protocol.field import FIELD_MODULUS, quantise
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Proof, ProofRejected, SegmentCircuit, Witness
from offchain.proving.srs import insecure_srs
from offchain.proving.verifier import compile_verifiers

pytestmark = pytest.mark.integration

KINDS = (LinkKind.KZG, LinkKind.PUBLIC)


@dataclass(frozen=True)
class Proved:
    circuit: SegmentCircuit
    witness: Witness
    proof: Proof
    verifier: Any


def _rewrite(onnx: bytes) -> bytes:
    """Rewrite even what is small."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rewriting, "MIN_SAVED_CELLS", -(10**6))
        return rewriting.rewrite_for_proving(onnx, products=True)


@pytest.fixture(scope="module")
def plain() -> bytes:
    torch.manual_seed(5)
    return export(torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.AvgPool2d(2)), 1, 1, 6, 6)


@pytest.fixture(scope="module")
def rewritten(plain: bytes) -> bytes:
    return _rewrite(plain)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(6).uniform(-1, 1, size=(8, 1, 6, 6)).astype(np.float32)


@pytest.fixture(scope="module")
def proved(prover: EzklProver, web3: Web3, rewritten: bytes, images: np.ndarray) -> Proved:
    tuned = prover.tune([rewritten], images, kinds=KINDS, checks_products=True)
    srs = insecure_srs(prover, tuned.log_rows)
    circuit = prover.build(rewritten, tuned.segments[0].settings, srs)
    witness = prover.witness(circuit, quantise(images[0].ravel().tolist(), circuit.input_scale))
    [verifier] = compile_verifiers({"Product": prover.solidity_verifier(circuit, "Product")}, prover.cache).values()
    return Proved(circuit, witness, prover.prove(circuit, witness), deploy(web3, verifier))


def test_rewrite_for_proving__convolution__is_laid_out_as_a_checked_product(proved: Proved) -> None:
    assert json.loads(proved.circuit.settings.read_text())["einsum_params"]["total_einsum_col_size"] > 0


def test_rewrite_for_proving__convolution__same_elements(prover: EzklProver, images: np.ndarray) -> None:
    torch.manual_seed(7)
    plain = export(torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU()), 1, 1, 6, 6)
    elements = []
    for onnx, checks in ((plain, False), (_rewrite(plain), False), (_rewrite(plain), True)):
        tuned = prover.tune([onnx], images, kinds=KINDS, checks_products=checks)
        circuit = prover.build(onnx, tuned.segments[0].settings, insecure_srs(prover, tuned.log_rows))
        witness = prover.witness(circuit, quantise(images[1].ravel().tolist(), circuit.input_scale))
        elements.append((circuit.output_scale, witness.outputs))
    assert elements[0] == elements[1] == elements[2]


def test_rewrite_for_proving__average_pool__leaves_the_prover_no_choice(
    prover: EzklProver, plain: bytes, rewritten: bytes, images: np.ndarray
) -> None:
    [exact], [divided] = (prover.tune([onnx], images, kinds=KINDS).segments for onnx in (rewritten, plain))
    assert exact.ambiguities == ()
    assert divided.ambiguities == ("average pool: the prover may round either way",)


def test_verify_proof__checked_product__honest_accepted_and_every_other_output_refused(proved: Proved) -> None:
    assert accepts(proved.verifier, proved.proof)
    for place, instance in enumerate(proved.proof.instances):
        others = list(proved.proof.instances)
        others[place] = (instance + 1) % FIELD_MODULUS
        assert not accepts(proved.verifier, replace(proved.proof, instances=tuple(others)))


def test_prove__checked_product_with_a_forged_output__is_never_handed_out(prover: EzklProver, proved: Proved) -> None:
    document = json.loads(proved.witness.document)
    document["outputs"][0][0] = "07" + "00" * 31
    with pytest.raises(ProofRejected):
        prover.prove(proved.circuit, replace(proved.witness, document=json.dumps(document).encode()))

"""Generated verifiers, compiled, deployed on a real chain and driven with real proofs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from eth_abi import encode
from proving_circuits import ProvedChain, accepts, deploy
from web3 import Web3

from offchain.protocol.field import FIELD_MODULUS
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.verifier import CompiledVerifier, compile_verifiers

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sources(prover: EzklProver, chain: ProvedChain) -> dict[str, str]:
    return {f"Segment{n}": prover.solidity_verifier(circuit, f"Segment{n}") for n, circuit in enumerate(chain.circuits)}


@pytest.fixture(scope="module")
def verifiers(prover: EzklProver, sources: dict[str, str]) -> dict[str, CompiledVerifier]:
    return compile_verifiers(sources, prover.cache)


@pytest.fixture(scope="module")
def deployed(web3: Web3, verifiers: dict[str, CompiledVerifier]) -> list[Any]:
    return [deploy(web3, verifier) for verifier in verifiers.values()]


def test_compile_verifiers__deployed__has_the_promised_runtime_code(
    web3: Web3, verifiers: dict[str, CompiledVerifier], deployed: list[Any]
) -> None:
    for verifier, contract in zip(verifiers.values(), deployed, strict=True):
        assert bytes(web3.eth.get_code(contract.address)) == verifier.runtime_code
        assert len(verifier.runtime_code) < 20_000


def test_compile_verifiers__again_and_with_other_comments__gives_the_same_code(
    sources: dict[str, str], verifiers: dict[str, CompiledVerifier], scratch: ArtefactCache
) -> None:
    commented = {name: source + "// trailing remark\n" for name, source in sources.items()}
    assert compile_verifiers(commented, scratch) == verifiers


def test_verify_proof__chain_of_segments__agrees_with_the_prover(deployed: list[Any], chain: ProvedChain) -> None:
    assert [accepts(contract, proof) for contract, proof in zip(deployed, chain.proofs, strict=True)] == [True, True]
    assert not accepts(deployed[0], chain.proofs[1])


@pytest.mark.parametrize("index", [31, 127, 1_000, -1])
def test_verify_proof__flipped_byte__reverts(deployed: list[Any], chain: ProvedChain, index: int) -> None:
    changed = bytearray(chain.proofs[1].proof)
    changed[index] ^= 1
    assert not accepts(deployed[1], replace(chain.proofs[1], proof=bytes(changed)))


def test_verify_proof__commitment_spliced_in__reverts(
    deployed: list[Any], prover: EzklProver, chain: ProvedChain
) -> None:
    link = prover.commit((1, 2, 3, 4, 5, 6), chain.circuits[1])
    assert not accepts(deployed[1], replace(chain.proofs[1], proof=link + chain.proofs[1].proof[64:]))


def test_verify_proof__changed_instances_or_length__reverts(deployed: list[Any], chain: ProvedChain) -> None:
    proof = chain.proofs[1]
    first, *others = proof.instances
    for instances in ((first + FIELD_MODULUS, *others), (first ^ 1, *others), others, (*proof.instances, 0), ()):
        assert not accepts(deployed[1], replace(proof, instances=tuple(instances)))
    for changed in (proof.proof + bytes(32), proof.proof[:-32], b""):
        assert not accepts(deployed[1], replace(proof, proof=changed))


def test_verify_proof__gas__stays_under_the_recorded_bound(web3: Web3, deployed: list[Any], chain: ProvedChain) -> None:
    for contract, proof in zip(deployed, chain.proofs, strict=True):
        selector = Web3.keccak(text="verifyProof(bytes,uint256[])")[:4]
        calldata = selector + encode(["bytes", "uint256[]"], [proof.proof, list(proof.instances)])
        assert web3.eth.estimate_gas({"to": contract.address, "data": calldata}) < 700_000

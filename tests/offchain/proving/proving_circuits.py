"""Makes the small models that the proving tests share."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from web3 import Web3
from web3.exceptions import ContractLogicError

from offchain.proving.ezkl_prover import Limits
from offchain.proving.port import Proof, SegmentCircuit, Witness
from offchain.proving.verifier import CompiledVerifier

LIMITS = Limits(60.0, 120.0, 60.0, 120.0, 60.0, 4 << 30)


def export(module: torch.nn.Module, *shape: int) -> bytes:
    """Export a module as the ONNX bytes of one segment."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(module.eval(), (torch.zeros(shape),), content, opset_version=17, dynamo=False)
    return content.getvalue()


def two_segments(seed: int) -> tuple[bytes, bytes]:
    """Export the halves of a small seeded classifier."""
    torch.manual_seed(seed)
    first = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU())
    return export(first, 1, 4), export(torch.nn.Linear(6, 3), 1, 6)


@dataclass(frozen=True)
class ProvedChain:
    """Both segments executed and proved on one input."""

    circuits: tuple[SegmentCircuit, ...]
    witnesses: tuple[Witness, ...]
    proofs: tuple[Proof, ...]
    elements: tuple[int, ...]


def deploy(web3: Web3, verifier: CompiledVerifier) -> Any:
    """Deploy a verifier."""
    factory = web3.eth.contract(abi=verifier.abi, bytecode=verifier.creation_code)
    transaction = factory.constructor().transact({"from": web3.eth.accounts[0]})
    receipt = web3.eth.wait_for_transaction_receipt(transaction)
    return web3.eth.contract(address=receipt["contractAddress"], abi=verifier.abi)


def accepts(contract: Any, proof: Proof) -> bool:
    """Say whether a verifier takes a proof."""
    try:
        return contract.functions.verifyProof(proof.proof, list(proof.instances)).call({"gas": 5_000_000})
    except ContractLogicError:
        return False

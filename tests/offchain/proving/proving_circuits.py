"""Makes the small models that the proving tests share."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import torch

from offchain.proving.ezkl_prover import Limits
from offchain.proving.port import Proof, SegmentCircuit, Witness

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

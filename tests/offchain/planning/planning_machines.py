"""Machines and models for the tests of plans: prices are made up, circuits and their settings are real."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from offchain.inference.torch_export import export_module
from offchain.planning.costs import CircuitShape, TypicalMachine
from offchain.planning.workers import WorkerClass
from offchain.protocol.links import LinkKind

ROOMY = (WorkerClass(2, 12 << 30, 9),)


@dataclass(frozen=True)
class PricedMachine:
    """A machine on which hashing costs what a test says."""

    hashed_factor: float = 1.0
    cores: int = 2

    def prove_seconds(self, shape: CircuitShape) -> float:
        """A thousandth of a second per row, more where a boundary is hashed."""
        ends = (shape.input_kind, shape.output_kind)
        return 1e-3 * 2**shape.log_rows * shape.column_blocks * self.hashed_factor ** ends.count(LinkKind.POSEIDON)

    def prove_bytes(self, shape: CircuitShape) -> int:
        """As on a typical machine."""
        return TypicalMachine().prove_bytes(shape)


def perceptron(*widths: int) -> bytes:
    """Linear layers with ReLUs between them."""
    torch.manual_seed(5)
    layers: list[torch.nn.Module] = []
    for index, (before, behind) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
        layers += [torch.nn.ReLU()] * (index > 0) + [torch.nn.Linear(before, behind)]
    return export_module(torch.nn.Sequential(*layers), torch.zeros(1, widths[0]))

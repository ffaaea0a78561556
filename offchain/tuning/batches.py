"""What a model costs per input, alone and in batches, told from settings before anything is compiled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offchain.errors import InvalidInputError
from offchain.inference.batching import with_batch
from offchain.inference.untrusted import split_model
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Tuning
from offchain.proving.settings import RunParameters

LAID_OUT_WEIGHT, CHECKED_WEIGHT = 1.0, 1.33
"""A row of a circuit that checks products against one that lays them out: their proving keys, 6.0 and 4.5 KB a row."""


@dataclass(frozen=True)
class BatchCost:
    """A model at one size of batch.

    Attributes:
        segments: ONNX files in order of execution.
        tuning: their settings.
        is_checked: whether products of matrices are checked, not laid out.
    """

    size: int
    segments: tuple[bytes, ...]
    tuning: Tuning
    is_checked: bool

    @property
    def rows_per_input(self) -> float:
        """Rows of all circuits, full or empty, for each input: time and memory of proofs go with them."""
        return weigh(self.tuning) / self.size


def tune_either(
    prover: EzklProver,
    segments: Sequence[bytes],
    calibration: NDArray[np.float32],
    *,
    max_log_rows: int = 17,
    max_drift: float = 0.05,
) -> Tuning:
    """Choose settings with products laid out and with products checked, and return the cheaper ones.

    Raises:
        CircuitRefused, InvalidInputError: neither fits; see :meth:`offchain.proving.port.Prover.tune`.
    """
    found: list[Tuning] = []
    refused: InvalidInputError | None = None
    for checks in (False, True):
        try:
            limits = {"max_log_rows": max_log_rows, "max_drift": max_drift}
            found.append(prover.tune(segments, calibration, checks_products=checks, **limits))  # type: ignore[arg-type]
        except InvalidInputError as error:
            refused = refused or error
    if not found:
        assert refused is not None
        raise refused
    return min(found, key=weigh)


def weigh(tuning: Tuning) -> float:
    """Rows of all circuits of a chain, those with columns for checked products weighing more."""
    return sum(
        (CHECKED_WEIGHT if checks_products(tuned.settings) else LAID_OUT_WEIGHT) * (1 << tuned.log_rows)
        for tuned in tuning.segments
    )


def checks_products(settings: bytes) -> bool:
    """Whether a circuit checks its products of matrices."""
    return RunParameters.from_settings(settings).checks_products


def cost_of_batch(
    prover: EzklProver,
    model: bytes,
    size: int,
    calibration: NDArray[np.float32],
    *,
    segments: int | None = None,
    cuts: Sequence[str] | None = None,
    max_log_rows: int = 17,
    max_drift: float = 0.05,
) -> BatchCost:
    """Cut a model for a batch and choose its settings.

    Args:
        model: an ONNX file of one input.
        segments, cuts: into how many segments, or at which tensors; one of the two.

    Raises:
        InvalidInputError: it cannot be written for so many inputs, cut so, or proved.
    """
    parts = split_model(with_batch(model, size), segments=segments, cuts=cuts)
    onnx = tuple(part.onnx for part in parts)
    tuning = tune_either(prover, onnx, calibration, max_log_rows=max_log_rows, max_drift=max_drift)
    return BatchCost(size, onnx, tuning, any(checks_products(tuned.settings) for tuned in tuning.segments))


def warn_of(batched: BatchCost, alone: BatchCost) -> str:
    """Say that a batch costs more per input than the model alone; nothing where it does not."""
    if batched.rows_per_input <= alone.rows_per_input:
        return ""
    return (
        f"in batches of {batched.size} an input costs more than alone: {batched.rows_per_input:,.0f} rows of circuits "
        f"against {alone.rows_per_input:,.0f}"
    )

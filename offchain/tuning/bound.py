"""How much accuracy fixed point may cost, and what it does cost on data that nothing was chosen by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from offchain.errors import InvalidInputError
from offchain.tuning.chain import Reals


@dataclass(frozen=True)
class AccuracyBound:
    """What the held-out data must show; at least one must be given.

    Args:
        max_disagreement: share of samples whose largest output is at another index than in floating point.
        max_drift: largest difference of an output, relative to the largest floating-point output.
        max_accuracy_loss: share of labelled samples that are lost, against floating point.

    Raises:
        InvalidInputError: none is given, or one is negative.
    """

    max_disagreement: float | None = None
    max_drift: float | None = None
    max_accuracy_loss: float | None = None

    def __post_init__(self) -> None:
        given = [
            limit for limit in (self.max_disagreement, self.max_drift, self.max_accuracy_loss) if limit is not None
        ]
        if not given or min(given) < 0:
            raise InvalidInputError("bound", "it bounds nothing", "give a share or a drift, not negative")

    def check(self, measured: Measured) -> str:
        """Return what is over the bound, or nothing.

        Raises:
            InvalidInputError: labels are needed, and there are none.
        """
        if self.max_accuracy_loss is not None and measured.accuracy_loss is None:
            raise InvalidInputError("heldout", "it has no labels", "add an array `label`, or bound the drift instead")
        for name, value, limit in (
            ("disagreement", measured.disagreement, self.max_disagreement),
            ("drift", measured.drift, self.max_drift),
            ("accuracy loss", measured.accuracy_loss, self.max_accuracy_loss),
        ):
            if limit is not None and value is not None and value > limit:
                return f"{name} {value:.4g} over {limit:g} on held-out data"
        return ""


@dataclass(frozen=True)
class Measured:
    """What a fixed point costs on held-out samples. Samples beyond the input bound are refused, and count as wrong.

    Args:
        samples: how many there are, and ``refused`` how many of them are beyond the bound.
        disagreement, drift: see :class:`AccuracyBound`; drift is over those not refused.
        float_accuracy, fixed_accuracy: share of labels hit; None without labels.
    """

    samples: int
    refused: int
    disagreement: float
    drift: float
    float_accuracy: float | None
    fixed_accuracy: float | None

    @property
    def accuracy_loss(self) -> float | None:
        """How many more labels floating point hits; None without labels."""
        if self.float_accuracy is None or self.fixed_accuracy is None:
            return None
        return self.float_accuracy - self.fixed_accuracy


def compare(fixed: Reals, reference: Reals, within: NDArray[np.bool_], labels: NDArray[np.int64] | None) -> Measured:
    """Compare fixed-point with floating-point outputs.

    Args:
        fixed: (m, outputs), of the m samples that are ``within`` the input bound.
        reference: (n, outputs), of all.
        within: (n,).
        labels: (n,), or None.
    """
    chosen, predicted = reference.argmax(axis=1), np.full(len(reference), -1)
    predicted[within] = fixed.argmax(axis=1)
    largest = max(float(np.abs(reference).max()), 1e-9)
    return Measured(
        samples=len(reference),
        refused=int((~within).sum()),
        disagreement=float((predicted != chosen).mean()),
        drift=float(np.abs(fixed - reference[within]).max()) / largest if within.any() else 0.0,
        float_accuracy=None if labels is None else float((chosen == labels).mean()),
        fixed_accuracy=None if labels is None else float((predicted == labels).mean()),
    )

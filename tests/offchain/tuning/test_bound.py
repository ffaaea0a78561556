"""What a bound on accuracy lets pass."""

from __future__ import annotations

import numpy as np
import pytest

from offchain.errors import InvalidInputError
from offchain.tuning.bound import AccuracyBound, compare

pytestmark = pytest.mark.unit
REFERENCE = np.array([[1.0, 0.0], [0.0, 2.0], [1.0, 0.5], [0.0, 4.0]])
ALL = np.ones(4, bool)


def test_compare__one_flipped_and_one_refused__count_both() -> None:
    fixed = np.array([[1.0, 0.0], [0.0, 2.0], [0.5, 1.0]])
    measured = compare(fixed, REFERENCE, np.array([True, True, True, False]), np.array([0, 1, 1, 1]))
    assert (measured.samples, measured.refused, measured.disagreement) == (4, 1, 0.5)
    assert measured.drift == pytest.approx(0.5 / 4)
    assert (measured.float_accuracy, measured.fixed_accuracy) == (0.75, 0.75)


def test_check__each_limit__is_kept_and_exceeded() -> None:
    fixed = REFERENCE[:, ::-1].copy()
    measured = compare(fixed, REFERENCE, ALL, np.array([0, 1, 0, 1]))
    assert (measured.disagreement, measured.accuracy_loss, measured.drift) == (1.0, 1.0, 1.0)
    for name in ("max_disagreement", "max_drift", "max_accuracy_loss"):
        assert AccuracyBound(**{name: 1.0}).check(measured) == ""
        assert AccuracyBound(**{name: 0.99}).check(measured).endswith("1 over 0.99 on held-out data")


def test_check__loss_without_labels__is_refused() -> None:
    with pytest.raises(InvalidInputError, match="heldout: it has no labels"):
        AccuracyBound(max_accuracy_loss=0.1).check(compare(REFERENCE, REFERENCE, ALL, None))


@pytest.mark.parametrize("limits", [{}, {"max_drift": -0.1}, {"max_disagreement": -1.0, "max_drift": 0.1}])
def test_accuracy_bound__without_a_limit__is_refused(limits: dict[str, float]) -> None:
    with pytest.raises(InvalidInputError, match="bound: it bounds nothing"):
        AccuracyBound(**limits)

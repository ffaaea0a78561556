"""Making and answering trials; see :mod:`offchain.protocol.trials` for what they are."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offchain.errors import InvalidInputError
from offchain.protocol import hashing
from offchain.protocol.field import quantise, signed
from offchain.protocol.trials import MAX_TRIALS, Trials
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import InputOutOfRange, SegmentCircuit

MAX_SEEDS = 4
"""Each can be unlucky: an input made of extremes only may be more than a circuit takes."""


def check_count(count: int) -> None:
    """Refuse a number of trials that no model can have.

    Raises:
        InvalidInputError: it is not 0 to :data:`~offchain.protocol.trials.MAX_TRIALS`.
    """
    if not 0 <= count <= MAX_TRIALS:
        raise InvalidInputError("trials", f"{count} is out of bounds", f"ask for 0 to {MAX_TRIALS}")


def make_trials(
    circuits: Sequence[SegmentCircuit], calibration: NDArray[np.float32], count: int, prover: EzklProver
) -> Trials:
    """Choose a seed, run the model on the inputs that follow from it, and keep the hashes of the answers.

    Args:
        calibration: typical inputs; the trials' elements lie between the least and the largest value in them.
        count: how many; none is possible.

    Raises:
        InvalidInputError: with every seed that was tried, a circuit refuses an input, or two answers are equal.
    """
    check_count(count)
    edges = quantise((float(calibration.min()), float(calibration.max())), circuits[0].input_scale)
    low, high = (signed(element) for element in edges)
    why = ""
    for _ in range(MAX_SEEDS):
        drafted = Trials(secrets.token_hex(32), low, high, ())
        try:
            answers = answer_trials(drafted, range(count), circuits, prover)
        except InputOutOfRange as error:
            why = f"the circuits do not take their inputs ({error})"
            continue
        if len(set(answers)) == count:
            hashes = tuple(hashing.answer_hash(answer).hex() for answer in answers)
            return Trials(drafted.seed, low, high, hashes)
        why = f"of {count} answers only {len(set(answers))} differ"
    raise InvalidInputError("trials", why, "calibrate on wider inputs, cut the model finer, or ask for fewer trials")


def answer_trials(
    trials: Trials, wanted: Sequence[int], circuits: Sequence[SegmentCircuit], prover: EzklProver
) -> tuple[bytes, ...]:
    """Find the answers to some of a model's trials, by running it.

    Raises:
        InputOutOfRange: a circuit does not take what goes into it.
        ProverFailed: it took too long or too much memory; try again.
    """
    if not wanted:
        return ()
    inputs = [trials.input(trial, circuits[0].input_elements) for trial in wanted]
    return tuple(hashing.trial_answer(links) for links in prover.closing_links(circuits, inputs))

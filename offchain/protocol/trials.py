"""Trials: questions with known answers, by which a new worker shows that it can run a model before its stake counts.

The inputs follow from a public seed; the answers are known to the owner, who hashes them into the model's id. Both
sides derive the inputs here. ``tests/vectors/trials.json`` holds examples.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from eth_hash.auto import keccak

from offchain.errors import InvalidInputError
from offchain.protocol.field import FIELD_MODULUS

MAX_TRIALS = 256
"""See ``Registry.MAX_TRIALS``."""
DEFAULT_TRIALS = 16
MAX_MAGNITUDE = 1 << 62
"""Of a trial's elements. The number of values between two such bounds divides 2^256 so nearly that none is favoured."""
TRIAL_INPUT_TAG = keccak(b"interlock.trial-input.v1")
_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Trials:
    """The trials of a model.

    Args:
        seed: 32 bytes, hex, from which all inputs follow.
        low, high: least and largest element of an input, signed, at the scale of the model's input; both included.
        answers: per trial the :func:`~offchain.protocol.hashing.answer_hash` of its answer, hex; none: no trials.
    """

    seed: str
    low: int
    high: int
    answers: tuple[str, ...]

    def answer_hashes(self) -> tuple[bytes, ...]:
        """The answers' hashes as the registry keeps them."""
        return tuple(bytes.fromhex(answer) for answer in self.answers)

    def input(self, trial: int, elements: int) -> tuple[int, ...]:
        """The input of one of the trials; see :func:`trial_input`."""
        return trial_input(bytes.fromhex(self.seed), trial, elements, self.low, self.high)


def trial_input(seed: bytes, trial: int, elements: int, low: int, high: int) -> tuple[int, ...]:
    """Derive a trial's input: each element uniform between two bounds, independent of all others.

    Element e is ``low + keccak256(abi.encode(TRIAL_INPUT_TAG, seed, trial, e)) mod (high - low + 1)``, negative numbers
    counted down from the field's modulus.

    Args:
        seed: 32 bytes.
        elements: how many elements the model takes.
        low, high: as in :class:`Trials`.

    Returns:
        Field elements.
    """
    head, span = TRIAL_INPUT_TAG + seed + trial.to_bytes(32, "big"), high - low + 1
    return tuple(
        (low + int.from_bytes(keccak(head + index.to_bytes(32, "big")), "big") % span) % FIELD_MODULUS
        for index in range(elements)
    )


def check_trials(trials: Trials) -> None:
    """Refuse trials that make no sense.

    Raises:
        InvalidInputError: naming the field.
    """
    mend = "use the manifest as pinned"
    digests = [("trials.seed", trials.seed)]
    digests += [(f"trials.answers[{index}]", answer) for index, answer in enumerate(trials.answers)]
    for field, value in digests:
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            raise InvalidInputError(field, "it is not 32 bytes in lower-case hex", mend)
    for name, bound in (("low", trials.low), ("high", trials.high)):
        if type(bound) is not int or abs(bound) > MAX_MAGNITUDE:
            raise InvalidInputError(f"trials.{name}", "it is no whole number within 2^62", mend)
    if trials.low > trials.high:
        raise InvalidInputError("trials.low", f"{trials.low} is over trials.high, {trials.high}", mend)
    if len(trials.answers) > MAX_TRIALS:
        raise InvalidInputError("trials.answers", f"{len(trials.answers)} are too many", f"make at most {MAX_TRIALS}")
    if len(set(trials.answers)) < len(trials.answers):
        # Whoever saw the one answered could answer the other.
        raise InvalidInputError("trials.answers", "one is there twice", "make fewer trials, or none")

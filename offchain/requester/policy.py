"""Policies that a requester can name, and their bounds in words."""

from __future__ import annotations

from dataclasses import replace

from offchain.errors import InvalidInputError
from offchain.protocol.types import Policy

DEFAULT_POLICY = Policy(
    committee_size=3,
    quorum_bps=6000,  # two of three, even after one of them was penalised and weighs a little less
    proof_permille=1000,
    input_seconds=120,
    commit_seconds=120,
    reveal_seconds=120,
    prove_seconds=300,
    challenge_seconds=300,
)
"""Three workers a segment, three fifths of their stake, every segment proved."""

MAX_COMMITTEE = 21
MIN_WINDOW_SECONDS = 1
"""A deployment may ask for more: see :meth:`offchain.requester.requester.Requester.check_policy`."""
MAX_WINDOW_SECONDS = 3600


def read_policy(changes: dict[str, object]) -> Policy:
    """Change fields of the default policy, within the bounds that the contract enforces (``Policies.sol``).

    Raises:
        InvalidInputError: naming the field that is unknown or out of bounds.
    """
    known = set(DEFAULT_POLICY.__dataclass_fields__)
    for name, value in changes.items():
        if name not in known:
            raise InvalidInputError(f"policy.{name}", "it is not a field of a policy", f"use one of {sorted(known)}")
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidInputError(f"policy.{name}", f"{value!r} is not a whole number", "send a whole number")
    policy = replace(DEFAULT_POLICY, **changes)  # type: ignore[arg-type]
    window = (MIN_WINDOW_SECONDS, MAX_WINDOW_SECONDS)
    bounds = {
        "committee_size": (1, MAX_COMMITTEE),
        "quorum_bps": (5001, 10_000),
        "proof_permille": (0, 1000),
        "input_seconds": window,
        "commit_seconds": window,
        "reveal_seconds": window,
        "prove_seconds": window,
        "challenge_seconds": window,
    }
    for name, (least, most) in bounds.items():
        value = getattr(policy, name)
        if not least <= value <= most:
            raise InvalidInputError(f"policy.{name}", f"{value} is out of bounds", f"use {least} to {most}")
    return policy

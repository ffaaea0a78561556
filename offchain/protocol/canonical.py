"""Canonical JSON: one value has exactly one spelling, so that its hash and its CID name it."""

from __future__ import annotations

import json


def canonical_json(record: object) -> bytes:
    """Encode as canonical JSON: sorted keys, no white space, ASCII.

    Raises:
        ValueError: the record holds a number that is not finite.
        TypeError: the record holds what JSON cannot say.
    """
    return json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")

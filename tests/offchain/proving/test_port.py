"""The canonical encoding of proofs."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.errors import InvalidInputError
from offchain.protocol.field import FIELD_MODULUS
from offchain.proving.port import Proof

pytestmark = pytest.mark.unit
PROOF = Proof(b"\x01\xab", (0, 5, FIELD_MODULUS - 1))


@given(st.binary(max_size=200), st.lists(st.integers(0, FIELD_MODULUS - 1), max_size=4))
def test_to_json__any_proof__round_trips(proof: bytes, instances: list[int]) -> None:
    assert Proof.from_json(Proof(proof, tuple(instances)).to_json()) == Proof(proof, tuple(instances))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 100_000,
        PROOF.to_json() + b" ",
        PROOF.to_json().replace(b"01ab", b"01AB"),
        PROOF.to_json().replace(b"01ab", b"01a"),
        PROOF.to_json().replace(b"interlock-proof-1", b"interlock-proof-2"),
        PROOF.to_json().replace(b"}", b',"extra":1}'),
        json.dumps(json.loads(PROOF.to_json())).encode(),
        PROOF.to_json().replace(b"%064x" % (FIELD_MODULUS - 1), b"%064x" % FIELD_MODULUS),
        PROOF.to_json().replace(b"%064x" % 5, b"05"),
    ],
)
def test_from_json__anything_else__is_refused(encoded: bytes) -> None:
    with pytest.raises(InvalidInputError, match="proof"):
        Proof.from_json(encoded)

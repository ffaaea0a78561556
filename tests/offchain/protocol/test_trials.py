"""Inputs of trials are the same for everybody, and lie where the manifest says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offchain.protocol import hashing
from offchain.protocol.field import FIELD_MODULUS, signed
from offchain.protocol.trials import MAX_MAGNITUDE, Trials, trial_input
from offchain.protocol.types import Link

pytestmark = pytest.mark.unit

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[2] / "vectors" / "trials.json").read_text())
SEEDS = st.binary(min_size=32, max_size=32)
BOUNDS = st.integers(-MAX_MAGNITUDE, MAX_MAGNITUDE)


@pytest.mark.parametrize("vector", VECTORS["inputs"])
def test_trial_input__vectors__are_what_is_derived(vector: dict[str, Any]) -> None:
    elements = trial_input(
        bytes.fromhex(vector["seed"]), vector["trial"], len(vector["signed"]), vector["low"], vector["high"]
    )
    assert elements == tuple(value % FIELD_MODULUS for value in vector["signed"])
    trials = Trials(vector["seed"], vector["low"], vector["high"], ())
    assert trials.input(vector["trial"], len(vector["signed"])) == elements


def test_trial_answer__vector__is_what_is_computed() -> None:
    vector = VECTORS["answer"]
    answer = hashing.trial_answer([Link(bytes.fromhex(link)) for link in vector["links"]])
    assert (answer.hex(), hashing.answer_hash(answer).hex()) == (vector["answer"], vector["hash"])


@given(seed=SEEDS, trial=st.integers(0, 255), bounds=st.tuples(BOUNDS, BOUNDS).map(sorted), count=st.integers(0, 8))
def test_trial_input__any_bounds__are_kept_and_longer_inputs_begin_alike(
    seed: bytes, trial: int, bounds: list[int], count: int
) -> None:
    low, high = bounds
    elements = trial_input(seed, trial, count, low, high)
    assert len(elements) == count
    assert all(0 <= element < FIELD_MODULUS and low <= signed(element) <= high for element in elements)
    assert trial_input(seed, trial, count + 1, low, high)[:count] == elements


def test_trial_input__narrow_bounds__take_every_value_about_equally_often() -> None:
    elements = [signed(element) for element in trial_input(bytes(32), 0, 4_000, -2, 1)]
    counts = [elements.count(value) for value in (-2, -1, 0, 1)]
    assert sum(counts) == 4_000
    assert min(counts) > 900


def test_trial_input__other_seed_or_trial__is_another() -> None:
    base = trial_input(bytes(32), 0, 8, -256, 255)
    assert trial_input(bytes(32), 1, 8, -256, 255) != base
    assert trial_input(bytes(31) + b"\1", 0, 8, -256, 255) != base

"""What a person sends is taken exactly, or refused by name."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from offchain.errors import InvalidInputError
from offchain.protocol.field import quantise
from offchain.protocol.manifest import Manifest
from offchain.requester.inputs import read_input, read_inputs
from tests.offchain.protocol.test_manifest import MANIFEST

pytestmark = pytest.mark.unit

VALUES = [0.5, -1.25, 4.0, 0.0]


def bounded(bound: float) -> Manifest:
    return replace(MANIFEST, input_bound=bound)


@pytest.mark.parametrize("raw", [[VALUES], VALUES])
def test_read_input__with_or_without_batch_dimension__gives_the_same_elements(raw: object) -> None:
    assert read_input(raw, MANIFEST) == quantise(VALUES, 7)


@pytest.mark.parametrize(
    ("raw", "field", "problem"),
    [
        ([[0.0, 0.0, 0.0]], "input[0]", "3 entries instead of 4"),
        ([[0.0, 0.0, math.nan, 0.0]], "input[0][2]", "not finite"),
        ([[0.0, -math.inf, 0.0, 0.0]], "input[0][1]", "not finite"),
        ([[0.0, 0.0, 0.0, "1"]], "input[0][3]", "not a number"),
        ([[True, 0.0, 0.0, 0.0]], "input[0][0]", "not a number"),
        ([[0.0, 0.0, 0.0, 4.6]], "input[0][3]", "beyond ±4.5"),
        ([[0.0, 0.0, 0.0, 10**400]], "input[0][3]", "beyond ±4.5"),
        ({"a": 1}, "input", "a list of 1 is expected"),
        ([], "input", "0 entries instead of 4"),
        ([[[0.0]], [0.0]], "input", "2 entries instead of 1"),
    ],
)
def test_read_input__what_the_model_cannot_take__names_the_element(raw: object, field: str, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_input(raw, MANIFEST)

    assert caught.value.field == field
    assert problem in caught.value.problem
    assert caught.value.mend


def test_read_input__rounding_up_past_the_bound__is_refused_like_the_circuit_would() -> None:
    # 2.005 · 2^7 = 256.64: within the bound as a real number, and 257 steps as an element.
    with pytest.raises(InvalidInputError) as caught:
        read_input([[2.005, 0.0, 0.0, 0.0]], bounded(2.005))

    assert caught.value.field == "input[0][0]"
    assert read_input([[2.0, 0.0, 0.0, 0.0]], bounded(2.005))[0] == 256


def batched(size: int) -> Manifest:
    """The model of the other tests, for several inputs: the first dimension of every shape."""
    segments = tuple(
        replace(it, input_shape=(size, *it.input_shape[1:]), output_shape=(size, *it.output_shape[1:]))
        for it in MANIFEST.segments
    )
    return replace(MANIFEST, segments=segments)


def test_batch__first_dimension_of_both_ends__is_how_many_inputs_a_job_takes() -> None:
    assert MANIFEST.batch == 1
    assert batched(3).batch == 3
    odd = batched(3).segments
    last = replace(odd[-1], output_shape=(1, *odd[-1].output_shape[1:]))
    assert replace(MANIFEST, segments=(*odd[:-1], last)).batch == 1


@pytest.mark.parametrize("given", [1, 2, 3])
def test_read_inputs__full_or_short_batch__is_filled_with_the_last(given: int) -> None:
    rows = [VALUES, [0.25] * 4, [-1.0] * 4][:given]
    batch = read_inputs(rows, batched(3))
    assert batch.given == given
    assert batch.elements == quantise([value for row in [*rows, *[rows[-1]] * (3 - given)] for value in row], 7)
    assert read_inputs([[row] for row in rows], batched(3)) == batch


@pytest.mark.parametrize(
    ("raw", "field", "problem"),
    [
        ([], "inputs", "holds 0 inputs"),
        ([VALUES] * 4, "inputs", "holds 4 inputs"),
        ("text", "inputs", "no list"),
        ([VALUES, [0.0, 0.0, 9.0, 0.0]], "inputs[1][2]", "beyond"),
        ([VALUES, VALUES[:3]], "inputs[1]", "3 entries instead of 4"),
        ([VALUES, [[0.0, 0.0, 0.0, math.nan]]], "inputs[1][0][3]", "not finite"),
    ],
)
def test_read_inputs__what_the_model_cannot_take__names_the_input(raw: object, field: str, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_inputs(raw, batched(3))
    assert caught.value.field == field
    assert problem in caught.value.problem
    assert caught.value.mend

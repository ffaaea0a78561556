from __future__ import annotations

from fractions import Fraction

import pytest
from eth_abi.packed import encode_packed
from hypothesis import given
from hypothesis import strategies as st

from offchain.protocol.field import (
    FIELD_MODULUS,
    decode_elements,
    dequantise,
    encode_elements,
    quantise,
    signed,
)

pytestmark = pytest.mark.unit

ELEMENTS = st.lists(st.integers(0, FIELD_MODULUS - 1), max_size=6)
REALS = st.floats(-1e6, 1e6, allow_nan=False)


@given(elements=ELEMENTS)
def test_encode_elements__any__decodes_to_itself_and_is_solidity_packed(elements: list[int]) -> None:
    encoded = encode_elements(elements)
    assert decode_elements(encoded) == tuple(elements)
    assert encoded == encode_packed(["uint256[]"], [elements])


@given(elements=ELEMENTS.filter(bool), data=st.data())
def test_encode_elements__one_outside_the_field__is_refused_by_index(elements: list[int], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(elements) - 1))
    outside = data.draw(st.one_of(st.integers(max_value=-1), st.integers(min_value=FIELD_MODULUS)))
    changed = [*elements[:index], outside, *elements[index + 1 :]]
    with pytest.raises(ValueError, match=f"element {index} is outside the field"):
        encode_elements(changed)


@pytest.mark.parametrize("word", [FIELD_MODULUS, 2**256 - 1])
def test_decode_elements__word_outside_the_field__is_refused(word: int) -> None:
    with pytest.raises(ValueError, match="element 1 is outside the field"):
        decode_elements(bytes(32) + word.to_bytes(32, "big"))


@pytest.mark.parametrize("length", [1, 31, 33])
def test_decode_elements__half_a_word__is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=f"{length} bytes"):
        decode_elements(bytes(length))


@given(value=REALS, scale=st.integers(0, 20))
def test_quantise__any_real__comes_back_within_half_a_step(value: float, scale: int) -> None:
    (element,) = quantise([value], scale)
    assert 0 <= element < FIELD_MODULUS
    assert abs(Fraction(signed(element), 1 << scale) - Fraction(value)) <= Fraction(1, 2 << scale)
    assert dequantise([element], scale) == (signed(element) / (1 << scale),)


@given(numbers=st.lists(st.integers(-(1 << 40), 1 << 40)), scale=st.integers(0, 12))
def test_quantise__what_was_dequantised__is_the_same_element(numbers: list[int], scale: int) -> None:
    elements = tuple(number % FIELD_MODULUS for number in numbers)
    assert quantise(dequantise(elements, scale), scale) == elements


@pytest.mark.parametrize(
    ("value", "expected"), [(0.5, 1), (-0.5, -1), (1.5, 2), (-1.5, -2), (2.5, 3), (0.49, 0), (-0.0, 0), (-3.0, -3)]
)
def test_quantise__halves__go_away_from_zero(value: float, expected: int) -> None:
    assert signed(quantise([value], 0)[0]) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_quantise__not_finite__is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        quantise([0.0, value], 7)


def test_signed__both_sides_of_the_middle__are_told_apart() -> None:
    half = FIELD_MODULUS // 2
    assert (signed(0), signed(half), signed(half + 1), signed(FIELD_MODULUS - 1)) == (0, half, -half, -1)

"""What a circuit of a given shape costs: the port that a plan is priced with, and a coarse model for a start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from offchain.protocol.links import LinkKind, instance_count

MAX_VERIFIER_BYTES = 24_576
"""Source: EIP-170."""
GAS_PER_INSTANCE = 900
PROVE_TRANSACTION_GAS = 175_000
"""``Jobs.prove`` with a verifier that does nothing. Source: tests/contracts/gas.json."""
VERIFY_GAS = 543_000
"""Of a small proof with public ends, instances apart."""
VERIFY_GAS_PER_CODE_BYTE = 38
"""A verifier grows by what it checks: 720,000 gas at 18,044 bytes, 543,000 at 13,386."""


@dataclass(frozen=True)
class CircuitShape:
    """All that time and memory of a proof depend on, known before anything is compiled.

    Attributes:
        log_rows: rows are ``2 ** log_rows``.
        rows: how many of them hold values, over all column blocks.
        column_blocks: how often the inner columns are repeated to hold the rows.
        lookups: tables of functions, apart from those of range checks.
        range_tables: tables of range checks.
        has_shuffles: whether it sorts, as a maximum does.
        input_kind, output_kind: how its boundaries are exposed.
        inner_columns: columns that a dot product is laid out over.
        product_rows: rows of the columns in which products of matrices are checked; 0 where there are none.
    """

    log_rows: int
    rows: int
    column_blocks: int
    lookups: int
    range_tables: int
    has_shuffles: bool
    input_kind: LinkKind
    output_kind: LinkKind
    inner_columns: int = 2
    product_rows: int = 0

    @property
    def product_blocks(self) -> int:
        """How often the columns for products are repeated: with one block of rows as often as they fill them.

        With more blocks there are more than they fill; then it is a guess, one off in a third of what was tried.
        """
        if not self.product_rows:
            return 0
        height = 1 << self.log_rows
        return max(math.ceil(self.product_rows / height), math.ceil(0.7 * self.rows / height))


@dataclass(frozen=True)
class Columns:
    """How many columns of each kind a circuit has: of PLONK as in halo2, with LogUp for lookups.

    Attributes:
        advice: columns of values, those behind a random challenge included.
        fixed: columns of tables, constants and selectors, as many as are left when selectors are combined.
        permuted: columns among which cells are copied.
        lookups: arguments. Each commits to two columns.
        degree: of the constraints.
    """

    advice: int
    fixed: int
    permuted: int
    lookups: int
    degree: int

    @property
    def extension(self) -> int:
        """How many times the rows the domain has on which the quotient is evaluated."""
        return 4 if self.degree <= 5 else 8

    @property
    def copies(self) -> int:
        """Grand products of the permutation argument: each takes as many columns as the degree allows."""
        return -(-self.permuted // (self.degree - 2))

    @property
    def proved(self) -> int:
        """Columns that a proof commits to, without the quotient's."""
        return self.advice + 2 * self.lookups + self.copies

    def key_bytes(self, log_rows: int) -> int:
        """Size of the proving key: each of its columns as values, coefficients and on the extended domain."""
        vectors = (2 + self.extension) * (self.fixed + self.permuted) + 3 * self.extension
        return 32 * vectors << log_rows


def columns_of(shape: CircuitShape) -> Columns:
    """Count a circuit's columns, by rules fitted to 43 built circuits.

    Their key sizes come out within 1 % where products are checked in at most one block; with more blocks of them
    :attr:`CircuitShape.product_blocks` is a guess, and the size may be off by a third or more.
    """

    kinds = (shape.input_kind, shape.output_kind)
    hashes = LinkKind.POSEIDON in kinds
    inner = shape.inner_columns * shape.column_blocks
    products = shape.product_blocks
    advice = 3 * inner + 6 * shape.inner_columns * products
    advice += kinds.count(LinkKind.KZG) + 3 * hashes + 3 * shape.has_shuffles
    tables = shape.range_tables * (1 + inner)
    if shape.lookups:
        tables += 1 + shape.lookups * (1 + inner)
    fixed = tables + 1 + _selectors(shape) + 2 * shape.has_shuffles + 5 * hashes
    if products:
        squared, linear, once = (6.0, 1.2, 0.8) if shape.inner_columns == 1 else (5.5, 5.0, -1.4)
        fixed += round(squared * products**2 + linear * products + once)
    return Columns(
        advice=advice,
        fixed=fixed,
        permuted=advice + 2 + hashes,
        lookups=(shape.range_tables + shape.lookups) * inner + 2 * shape.has_shuffles,
        degree=6 if hashes or shape.has_shuffles or shape.inner_columns > 3 else 5,
    )


def _selectors(shape: CircuitShape) -> int:
    """Columns that are left of the selectors of operations: they are combined up to the degree of the constraints."""
    if shape.inner_columns == 1:
        return 3 * shape.column_blocks
    return round(4.33 * shape.column_blocks + (0.4 if shape.inner_columns == 2 else 1.6))


class CostModel(Protocol):
    """Prices circuits by their shape. Seconds and bytes of one proof, alone on the machine."""

    @property
    def cores(self) -> int:
        """How many processor cores it was measured on."""

    def prove_seconds(self, shape: CircuitShape) -> float:
        """How long proving takes."""

    def prove_bytes(self, shape: CircuitShape) -> int:
        """Peak memory of proving."""


@dataclass(frozen=True)
class TypicalMachine:
    """A model of two cores, fitted by hand to circuits of log-rows 10 to 19; it may be half or twice the truth.

    It serves where nothing was measured on the machine itself.
    """

    cores: int = 2

    def prove_seconds(self, shape: CircuitShape) -> float:
        """0.36 s at log-rows 11, 2.0 at 14, 7 at 16, 30 at 18; lookups four times that."""
        return (0.13 + 1.12e-4 * 2**shape.log_rows * _columns(shape)) * _links(shape, 1.05, 1.37)

    def prove_bytes(self, shape: CircuitShape) -> int:
        """75 MB at log-rows 11, 215 at 14, 690 at 16, 2,600 at 18, the process itself included."""
        return int((58e6 + 9.6e3 * 2**shape.log_rows * _columns(shape)) * _links(shape, 1.05, 1.45))


def _columns(shape: CircuitShape) -> float:
    return (0.55 + 0.45 * shape.column_blocks) * (1.0 + 0.45 * max(0, shape.range_tables - 2) + 2.0 * shape.lookups)


def _links(shape: CircuitShape, commitment: float, hashed: float) -> float:
    factors = {LinkKind.KZG: commitment, LinkKind.POSEIDON: hashed, LinkKind.PUBLIC: 1.0}
    return factors[shape.input_kind] * factors[shape.output_kind]


def prove_gas(shape: CircuitShape, input_elements: int, output_elements: int) -> int:
    """Predict the gas of the transaction that proves a segment: verification, and the job contract's part."""
    gas = PROVE_TRANSACTION_GAS + VERIFY_GAS + VERIFY_GAS_PER_CODE_BYTE * (verifier_bytes(shape) - _PLAIN_BYTES)
    for kind, elements in ((shape.input_kind, input_elements), (shape.output_kind, output_elements)):
        gas += GAS_PER_INSTANCE * instance_count(kind, elements)
    return gas


# Compiled sizes of 36 small verifiers, which these figures give within 3 %; log-rows, legs and rescaling do not show in
# them.
_PLAIN_BYTES = 13_386
_BYTES_BY_INNER_COLUMNS = {1: 10_410, 2: _PLAIN_BYTES, 3: 15_940, 4: 19_400}
_BYTES_PER_INNER_COLUMN = 3_400
_COMMITMENT_BYTES = (0, 194, 691)
_HASH_BYTES = 4_658
_BLOCK_BYTES = (1_134, 2_966)
_PRODUCT_BYTES = (5_000, 3_250)
_TABLE_BYTES = 777
_LOOKUP_BYTES = 917
_SHUFFLE_BYTES = 2_884


def verifier_bytes(shape: CircuitShape) -> int:
    """Predict the size of the verifier contract; over ``MAX_VERIFIER_BYTES`` it cannot be deployed by itself.

    One block that checks products fits with one inner column (19,400 bytes) and not with two (25,400 to 25,800).
    """
    kinds = (shape.input_kind, shape.output_kind)
    inner = shape.inner_columns
    known = min(inner, max(_BYTES_BY_INNER_COLUMNS))
    tables = _TABLE_BYTES * max(0, shape.range_tables - 2) + _LOOKUP_BYTES * shape.lookups
    return (
        _BYTES_BY_INNER_COLUMNS[known]
        + _BYTES_PER_INNER_COLUMN * (inner - known)
        + _COMMITMENT_BYTES[kinds.count(LinkKind.KZG)]
        + _HASH_BYTES * (LinkKind.POSEIDON in kinds)
        + (_BLOCK_BYTES[0] + _BLOCK_BYTES[1] * inner) * (shape.column_blocks - 1)
        + (_PRODUCT_BYTES[0] + _PRODUCT_BYTES[1] * inner) * shape.product_blocks
        + tables * inner * shape.column_blocks
        + _SHUFFLE_BYTES * shape.has_shuffles
    )

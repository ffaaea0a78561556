"""What a circuit of a given shape costs: the port that a plan is priced with, and a coarse model for a start."""

from __future__ import annotations

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


# Compiled sizes of thirteen small verifiers, which these figures give within 1 %; log-rows, legs and rescaling do not
# show in them.
_PLAIN_BYTES = 13_386
_COMMITMENT_BYTES = (0, 194, 691)
_HASH_BYTES = 4_658
_BLOCK_BYTES = 7_066
_TABLE_BYTES = 1_554
_LOOKUP_BYTES = 1_834
_SHUFFLE_BYTES = 2_884


def verifier_bytes(shape: CircuitShape) -> int:
    """Predict the size of the verifier contract; over ``MAX_VERIFIER_BYTES`` it cannot be deployed by itself."""
    kinds = (shape.input_kind, shape.output_kind)
    tables = _TABLE_BYTES * max(0, shape.range_tables - 2) + _LOOKUP_BYTES * shape.lookups
    return (
        _PLAIN_BYTES
        + _COMMITMENT_BYTES[kinds.count(LinkKind.KZG)]
        + _HASH_BYTES * (LinkKind.POSEIDON in kinds)
        + _BLOCK_BYTES * (shape.column_blocks - 1)
        + tables * shape.column_blocks
        + _SHUFFLE_BYTES * shape.has_shuffles
    )

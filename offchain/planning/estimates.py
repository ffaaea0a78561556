"""Predicts what a run of pieces costs as one segment, for every circuit that may be made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from offchain.planning.costs import CircuitShape, CostModel, prove_gas, verifier_bytes
from offchain.planning.layouts import Layouts, Rows
from offchain.planning.pieces import ROUNDED_OPERATORS
from offchain.protocol.links import LinkKind
from offchain.proving.settings import RunParameters, read_settings
from offchain.tuning.chain import usable_rows
from offchain.tuning.layout import HEADROOM_BITS, MAX_LEGS, MAX_RANGE_BITS, MIN_LOG_ROWS, legs_for

POSEIDON_ROWS_PER_ELEMENT = 41
LOOKUP_HEADROOM_BITS = 5
"""A table of a function covers ±32: what a softmax takes the exponential of seldom leaves that."""
MAX_COLUMN_BLOCKS = 2
"""A third block makes the verifier contract larger than a chain takes."""


@dataclass(frozen=True)
class Circuit:
    """One way to make a run of pieces into a circuit.

    Attributes:
        start, stop: the run is ``pieces[start:stop]``.
        is_rescaled: whether products are brought back to the input's scale, or scales add up.
        input_scale, output_scale: fractional bits at the boundaries.
        column_blocks: how often the columns are repeated; 0 where that is not decided.
    """

    start: int
    stop: int
    is_rescaled: bool
    input_scale: int
    output_scale: int
    input_kind: LinkKind
    output_kind: LinkKind
    log_rows: int
    legs: int
    column_blocks: int = 0


@dataclass(frozen=True)
class SegmentEstimate:
    """What a circuit is predicted to cost.

    Attributes:
        circuit: which one.
        rows: that hold values.
        prove_seconds, prove_bytes: of one proof.
        input_elements, boundary_elements: that cross the boundaries before and behind it.
        gas: of the transaction that proves it.
        verifier_bytes: of its verifier contract.
        ambiguities: what keeps its output from being the only one that can be proved; empty if nothing does.
    """

    circuit: Circuit
    rows: int
    prove_seconds: float
    prove_bytes: int
    input_elements: int
    boundary_elements: int
    gas: int
    verifier_bytes: int
    ambiguities: tuple[str, ...]


class Estimator:
    """Predicts the circuits of one stretch.

    Args:
        layouts: how large its runs are; already surveyed.
        machine: prices them.
        headroom_bits: what a decomposition holds beyond the fractional bits.
    """

    def __init__(
        self,
        layouts: Layouts,
        machine: CostModel,
        *,
        max_log_rows: int = 18,
        max_column_blocks: int = MAX_COLUMN_BLOCKS,
        headroom_bits: int = HEADROOM_BITS,
    ) -> None:
        self.layouts, self.machine, self.headroom_bits = layouts, machine, headroom_bits
        self.max_log_rows, self.max_column_blocks = max_log_rows, max_column_blocks
        self._settled: dict[Circuit, tuple[int, int]] = {}

    @property
    def first_scale(self) -> int:
        """Fractional bits of the stretch's input, and of what comes out of segments that rescale."""
        return self.layouts.fixed_point.input_scale

    def circuits(
        self, start: int, stop: int, input_scale: int, kinds: tuple[LinkKind, LinkKind]
    ) -> list[SegmentEstimate]:
        """Predict every circuit of a run: larger ones too, since a KZG link ties neighbours to one size."""
        found = []
        for is_rescaled in (False, True):
            rows = self.layouts.rows(start, stop, is_rescaled=is_rescaled)
            if rows.refusal or (is_rescaled and input_scale != self.first_scale):
                continue
            output_scale = input_scale + rows.scale_gain
            product = input_scale + self.layouts.fixed_point.param_scale
            bits = max(product if is_rescaled else output_scale, input_scale) + self.headroom_bits
            lowest = input_scale + LOOKUP_HEADROOM_BITS + 1 if rows.lookups else MIN_LOG_ROWS
            for log_rows in range(max(lowest, MIN_LOG_ROWS), self.max_log_rows + 1):
                legs = legs_for(bits, log_rows)
                if legs > MAX_LEGS or legs * (log_rows - 1) > MAX_RANGE_BITS:
                    continue
                circuit = Circuit(start, stop, is_rescaled, input_scale, output_scale, *kinds, log_rows, legs)
                estimate = self._estimate(circuit, rows)
                if estimate is not None:
                    found.append(estimate)
        return found

    def refusal(self, start: int, stop: int) -> str:
        """Say why no circuit can be made of a run, by rows alone."""
        ways = [self.layouts.rows(start, stop, is_rescaled=way) for way in (False, True)]
        possible = [rows for rows in ways if not rows.refusal]
        if not possible:
            return next((rows.refusal for rows in reversed(ways) if rows.refusal != "exact is cheaper"), "")
        least = min(rows.base + 2 * rows.per_leg for rows in possible)
        return f"needs about {int(least):,} rows, and 2^{self.max_log_rows} are allowed"

    def settle(self, estimates: Sequence[SegmentEstimate]) -> tuple[tuple[bytes, ...], bool]:
        """Generate the settings of a chain of circuits, and learn where a prediction of its rows was wrong.

        Returns:
            The documents, and whether every circuit is as predicted. If not, predictions are better now.
        """
        documents, agreed = [], True
        choices = [
            ((circuit.start, circuit.stop), self._parameters(circuit))
            for circuit in (estimate.circuit for estimate in estimates)
        ]
        for estimate, answer in zip(estimates, self.layouts.settings(choices), strict=True):
            circuit = estimate.circuit
            if "refusal" in answer:
                self.layouts.refuse(circuit.start, circuit.stop, answer["refusal"], is_rescaled=circuit.is_rescaled)
                agreed = False
                continue
            documents.append(answer["settings"].encode())
            summary = read_settings(documents[-1])
            predicted = (estimate.rows, circuit.output_scale)
            self._settled[replace(circuit, column_blocks=0)] = (summary.rows, summary.output_scale)
            agreed = agreed and predicted == (summary.rows, summary.output_scale)
        return tuple(documents), agreed

    def _parameters(self, circuit: Circuit) -> RunParameters:
        kinds = (circuit.input_kind, circuit.output_kind)
        return self.layouts.parameters(
            kinds, circuit.input_scale, circuit.log_rows, circuit.legs, is_rescaled=circuit.is_rescaled
        )

    def _estimate(self, circuit: Circuit, rows: Rows) -> SegmentEstimate | None:
        before, behind = (self.layouts.stretch.boundaries[at].elements for at in (circuit.start, circuit.stop))
        needed = math.ceil(rows.base + rows.per_leg * circuit.legs)
        unfolded = _unfolded_rows(((circuit.input_kind, before), (circuit.output_kind, behind)))
        if circuit in self._settled:
            needed, output_scale = self._settled[circuit]
            circuit = replace(circuit, output_scale=output_scale)
        room = usable_rows(circuit.log_rows)
        blocks = math.ceil(max(needed, 1) / room)
        if unfolded > room or blocks > self.max_column_blocks:
            return None
        circuit = replace(circuit, column_blocks=blocks)
        shape = CircuitShape(
            log_rows=circuit.log_rows,
            rows=max(needed, unfolded),
            column_blocks=blocks,
            lookups=len(rows.lookups),
            range_tables=len(rows.range_checks),
            has_shuffles=rows.has_shuffles,
            input_kind=circuit.input_kind,
            output_kind=circuit.output_kind,
        )
        return SegmentEstimate(
            circuit=circuit,
            rows=shape.rows,
            prove_seconds=self.machine.prove_seconds(shape),
            prove_bytes=self.machine.prove_bytes(shape),
            input_elements=before,
            boundary_elements=behind,
            gas=prove_gas(shape, before, behind),
            verifier_bytes=verifier_bytes(shape),
            ambiguities=self._ambiguities(circuit),
        )

    def _ambiguities(self, circuit: Circuit) -> tuple[str, ...]:
        reasons = ["rescaled"] if circuit.is_rescaled else []
        reasons += sorted(set(self.layouts.stretch.operators(circuit.start, circuit.stop)) & ROUNDED_OPERATORS)
        return (*reasons, *(["KZG link"] if LinkKind.KZG in (circuit.input_kind, circuit.output_kind) else []))


def _unfolded_rows(ends: Sequence[tuple[LinkKind, int]]) -> int:
    hashed = sum(POSEIDON_ROWS_PER_ELEMENT * size + 2 for kind, size in ends if kind is LinkKind.POSEIDON)
    exposed = sum(size for kind, size in ends if kind is LinkKind.PUBLIC)
    return max(hashed, exposed, *(size for kind, size in ends if kind is LinkKind.KZG), 0)

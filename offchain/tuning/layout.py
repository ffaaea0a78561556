"""Lays a chain out: the least log-rows that hold it, and the fewest legs that hold its values.

Time and memory of a proof go with ``2 ** log_rows``, and by default the decomposition table alone forces log-rows 15.
So the search goes upwards from small circuits. For each log-rows the table fills one column, and each leg of a
decomposition adds that many bits of range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from offchain.protocol.links import LinkKind
from offchain.proving.port import CircuitRefused, FixedPoint
from offchain.proving.settings import SettingsSummary, read_settings
from offchain.tuning.chain import Chain, Layout, Plan, decomposition_base, usable_rows
from offchain.tuning.shape import CircuitShape, shape_of

MIN_LOG_ROWS = 6
HEADROOM_BITS = 12
"""Bits of range over the largest scale: values up to ±2^12 fit before any input was tried."""
MAX_RANGE_BITS = 120
"""The tool computes in 128-bit integers, signed."""
MIN_LEGS, MAX_LEGS = 2, 13


@dataclass(frozen=True)
class Floor:
    """What a segment is known to need at least."""

    log_rows: int
    bits: int


@dataclass
class Survey:
    """What the settings of a chain say for one fixed point and one width, asked for as needed.

    Args:
        scales: the scale of each boundary, one more than segments.
    """

    chain: Chain
    fixed_point: FixedPoint
    inner_columns: int
    checks_products: bool = False
    scales: tuple[int, ...] = field(init=False)
    _settings: dict[tuple[int, int], bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        layouts = [self.layout(MIN_LOG_ROWS, MIN_LEGS)] * len(self.chain)
        plan = self.chain.plan(self.fixed_point, layouts)
        self.scales = (plan.summaries[0].input_scale, *(summary.output_scale for summary in plan.summaries))
        self._settings |= {(index, MIN_LEGS): settings for index, settings in enumerate(plan.settings)}

    def layout(self, log_rows: int, legs: int) -> Layout:
        """Return a layout of this width."""
        return Layout(log_rows, legs, self.inner_columns, self.checks_products)

    def floors(self, headroom_bits: int = HEADROOM_BITS) -> tuple[Floor, ...]:
        """Return what the scales alone demand: a product has the sum of two scales, rescaled afterwards or not."""
        product = self.fixed_point.input_scale + self.fixed_point.param_scale
        tops = [max(product, *self.scales[at : at + 2]) for at in range(len(self.chain))]
        return tuple(Floor(MIN_LOG_ROWS, top + headroom_bits) for top in tops)

    @property
    def has_products(self) -> bool:
        """Whether there is a product of matrices that can be checked."""
        return any(self.summary(index, MIN_LEGS).product_rows for index in range(len(self.chain)))

    def fetch(self, wanted: Iterable[tuple[int, int]]) -> None:
        """Ask for pairs of a segment and a number of legs, in one go."""
        missing = sorted({pair for pair in wanted if pair[1] <= MAX_LEGS} - self._settings.keys())
        if not missing:
            return
        choices = []
        for index, legs in missing:
            layout = self.layout(MIN_LOG_ROWS, legs)
            choices.append((index, self.chain.parameters(index, self.fixed_point, self.scales[index], layout)))
        self._settings |= zip(missing, self.chain.generate(choices), strict=True)

    def summary(self, index: int, legs: int) -> SettingsSummary:
        """Return what was fetched. Its rows depend neither on the base nor on log-rows."""
        return read_settings(self._settings[index, legs], self.chain.names[index])

    def shapes(self, layouts: Sequence[Layout]) -> tuple[CircuitShape, ...]:
        """Return what the segments will look like, before any settings were generated for these layouts."""
        pairs = enumerate(layouts)
        return tuple(shape_of(self._settings[index, layout.legs], layout.log_rows) for index, layout in pairs)


def groups_of(kinds: Sequence[LinkKind]) -> list[list[int]]:
    """Return the runs of segments that KZG links tie to one log-rows."""
    groups: list[list[int]] = [[0]]
    for index in range(1, len(kinds) - 1):
        if kinds[index] is LinkKind.KZG:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def lay_out(
    survey: Survey, floors: Sequence[Floor], max_log_rows: int, column_blocks: int = 1, refusal: str = ""
) -> tuple[Layout, ...]:
    """Return the least log-rows of each group of segments, and for each segment the fewest legs that fit there.

    Args:
        column_blocks: how often a segment's rows may be folded into more columns.
        refusal: what to say where no range fits.

    Raises:
        CircuitRefused: names the segment that does not fit.
    """
    heights = range(MIN_LOG_ROWS, max_log_rows + 1)
    survey.fetch((at, legs_for(floor.bits, height)) for at, floor in enumerate(floors) for height in heights)
    layouts: dict[int, Layout] = {}
    for group in groups_of(survey.chain.kinds):
        layouts |= _lay_out_group(survey, group, floors, max_log_rows, column_blocks, refusal)
    return tuple(layouts[index] for index in sorted(layouts))


def legs_for(bits: int, log_rows: int) -> int:
    """Return the fewest legs that cover so many bits."""
    return max(MIN_LEGS, math.ceil(bits / math.log2(decomposition_base(log_rows))))


def _lay_out_group(
    survey: Survey, group: list[int], floors: Sequence[Floor], max_log_rows: int, column_blocks: int, refusal: str
) -> dict[int, Layout]:
    blame, problem = group[0], refusal
    for log_rows in range(max(floors[index].log_rows for index in group), max_log_rows + 1):
        chosen = {}
        for index in group:
            layout = survey.layout(log_rows, legs_for(floors[index].bits, log_rows))
            if layout.legs > MAX_LEGS or layout.range_bits > MAX_RANGE_BITS:
                blame = index
                break
            needed = rows_needed(survey.summary(index, layout.legs), column_blocks)
            if needed > usable_rows(log_rows):
                blame = index
                problem = f"needs {needed} rows, and log-rows {log_rows} has {usable_rows(log_rows)}"
                break
            chosen[index] = layout
        if len(chosen) == len(group):
            return chosen
    mend = "cut the model into smaller segments, allow more log-rows, or give smaller calibration inputs"
    raise CircuitRefused(survey.chain.names[blame], problem or f"no range fits log-rows {max_log_rows}", mend)


def rows_needed(summary: SettingsSummary, column_blocks: int) -> int:
    """Return the rows per column when the circuit is folded so often.

    Links, public values and what checks products are not folded; the latter could be, but not for a verifier of a size
    that a chain takes.
    """
    return max(math.ceil(summary.rows / column_blocks), summary.unfolded_rows, summary.product_rows)


def raise_floor(plan: Plan, index: int) -> Floor:
    """Return the next larger demand of a segment whose values left their range."""
    layout = plan.layouts[index]
    if plan.summaries[index].needs_lookups:
        # A lookup's range goes with log-rows, and the failure does not say which range it was.
        return Floor(layout.log_rows + 1, layout.range_bits)
    return Floor(MIN_LOG_ROWS, layout.range_bits + 1)

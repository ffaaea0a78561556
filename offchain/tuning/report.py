"""What the autotuner chose, what it did not, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from offchain.planning.costs import CircuitShape
from offchain.proving.port import FixedPoint, Tuning
from offchain.tuning.bound import AccuracyBound, Measured
from offchain.tuning.chain import Layout


@dataclass(frozen=True)
class Option:
    """One choice of settings for the whole chain, and what it was predicted to cost.

    Args:
        column_blocks: how often rows were allowed to be folded into more columns.
        checks_products: whether products of matrices are claimed, and checked in columns of their own.
        layouts: per segment; empty where none was found.
        prove_seconds: predicted, of all segments together; None where no layout was found.
        prove_bytes: predicted, of the largest segment.
        measured: on held-out data; None where it did not come to that.
        reason: why it was not taken; empty for the one that was.
    """

    fixed_point: FixedPoint
    inner_columns: int
    column_blocks: int
    checks_products: bool
    layouts: tuple[Layout, ...]
    prove_seconds: float | None
    prove_bytes: int | None
    measured: Measured | None
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Return it in plain values."""
        document = asdict(self)
        return document | {"exact": not self.fixed_point.rescales}


@dataclass(frozen=True)
class Price:
    """What one segment of the choice looks like, and its predicted cost."""

    shape: CircuitShape
    prove_seconds: float
    prove_bytes: int
    setup_seconds: float
    key_bytes: int


@dataclass(frozen=True)
class TuningReport:
    """The result of :func:`offchain.tuning.search.autotune`.

    Args:
        tuning: the settings, as :meth:`Prover.tune` gives them; its drift is that on held-out data.
        prices: per segment.
        chosen: the option that was taken.
        rejected: every other one.
        machine: what the predictions are for.
        seconds: how long the search took; ``is_complete`` whether it ended before its time did.
    """

    tuning: Tuning
    bound: AccuracyBound
    prices: tuple[Price, ...]
    chosen: Option
    rejected: tuple[Option, ...]
    machine: str
    seconds: float
    is_complete: bool

    def to_json(self) -> dict[str, Any]:
        """Return it in plain values, without the settings files."""
        segments = []
        for choice, price in zip(self.tuning.segments, self.prices, strict=True):
            shape = asdict(price.shape)
            shape |= {name: shape[name].name.lower() for name in ("input_kind", "output_kind")}
            segments.append(
                shape
                | {
                    "input_scale": choice.input_scale,
                    "output_scale": choice.output_scale,
                    "decomposition_base": choice.decomposition_base,
                    "decomposition_legs": choice.decomposition_legs,
                    "ambiguities": list(choice.ambiguities),
                    "closing_link_is_unique": choice.closing_link_is_unique,
                    "prove_seconds": price.prove_seconds,
                    "prove_bytes": price.prove_bytes,
                    "setup_seconds": price.setup_seconds,
                    "key_bytes": price.key_bytes,
                }
            )
        return {
            "bound": asdict(self.bound),
            "machine": self.machine,
            "segments": segments,
            "chosen": self.chosen.to_json(),
            "rejected": [option.to_json() for option in self.rejected],
            "search_seconds": round(self.seconds, 3),
            "is_complete": self.is_complete,
        }

    def table(self) -> RenderableType:
        """Return it for a terminal."""
        chosen = Table(
            "segment", "scales", "log-rows", "rows", "base × legs", "prove", "memory", "outputs", title="Chosen"
        )
        for index, (choice, price) in enumerate(zip(self.tuning.segments, self.prices, strict=True)):
            chosen.add_row(
                str(index),
                f"{choice.input_scale} → {choice.output_scale}",
                str(choice.log_rows),
                str(choice.rows),
                f"{choice.decomposition_base} × {choice.decomposition_legs}",
                f"{price.prove_seconds:.2f} s",
                f"{price.prove_bytes / 1e6:.0f} MB",
                "one" if choice.exact else "; ".join(choice.ambiguities),
            )
        others = Table("not chosen", "inner columns", "blocks", "products", "log-rows", "prove", "memory", "why not")
        for (reason, *cells), names in _grouped(self.rejected).items():
            others.add_row(", ".join(names), *cells, reason)
        return Group(chosen, _accuracy_line(self.chosen.measured), others, self.machine, self._ending())

    def _ending(self) -> str:
        ending = "" if self.is_complete else "; time was up, and cheaper settings may exist"
        return f"Searched for {self.seconds:.1f} s{ending}"


def _accuracy_line(measured: Measured | None) -> str:
    if measured is None:
        return ""
    labels = ""
    if measured.float_accuracy is not None and measured.fixed_accuracy is not None:
        labels = f"; labels hit {measured.fixed_accuracy:.4f}, in floating point {measured.float_accuracy:.4f}"
    return (
        f"Held out: {measured.samples} samples, {measured.refused} refused; disagreement {measured.disagreement:.4f}, "
        f"drift {measured.drift:.4f}{labels}"
    )


def _grouped(options: Sequence[Option]) -> dict[tuple[str, ...], list[str]]:
    """Return the names of the fixed points that came to the same, by what they came to."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for option in options:
        cells = (
            option.reason,
            str(option.inner_columns),
            str(option.column_blocks),
            "checked" if option.checks_products else "laid out",
            " ".join(str(layout.log_rows) for layout in option.layouts) or "–",
            "–" if option.prove_seconds is None else f"{option.prove_seconds:.2f} s",
            "–" if option.prove_bytes is None else f"{option.prove_bytes / 1e6:.0f} MB",
        )
        groups.setdefault(cells, []).append(str(option.fixed_point))
    return groups

"""A plan as tables for a terminal, and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from offchain.planning.document import (
    Fewer,
    Figures,
    FixedPointChoice,
    HeldOut,
    PlanDocument,
    PlannedModel,
    PlannedSegment,
    Refused,
    Workers,
)
from offchain.planning.plan import Compared, ModelPlan, Plan

_MEBIBYTE = 1 << 20


def render(model: ModelPlan) -> Group:
    """Show every plan, what else was possible, and what cannot be proved."""
    parts: list[RenderableType] = []
    for plan in model.plans:
        parts += [_segments(plan), _boundaries(plan), _summary(plan)]
    if model.unprovable:
        table = Table("where", "what", "why not", title="Cannot be proved", title_justify="left")
        for entry in model.unprovable:
            table.add_row(escape(entry.name), escape(entry.operator), escape(entry.reason))
        parts.append(table)
    return Group(*parts)


def _segments(plan: Plan) -> Table:
    title = "The whole model" if plan.is_whole else _span(plan)
    columns = ("", "operators", "circuit", "prove s", "MiB", "gas", "verifier")
    table = Table(*columns, title=escape(title), title_justify="left")
    for index, segment in enumerate(plan.route.segments):
        circuit = segment.circuit
        width = f" x{circuit.column_blocks}" if circuit.column_blocks > 1 else ""
        table.add_row(
            str(index),
            escape(label(plan, index)),
            f"2^{circuit.log_rows}{width}, {segment.rows:,} rows",
            f"{segment.prove_seconds:.2f}",
            f"{segment.prove_bytes / _MEBIBYTE:,.0f}",
            f"{segment.gas:,}",
            f"{segment.verifier_bytes:,}",
        )
    return table


def _boundaries(plan: Plan) -> Table:
    table = Table("behind", "tensor", "link", "scale", "elements", "what leaves the prover a choice")
    for index, segment in enumerate(plan.route.segments):
        circuit = segment.circuit
        table.add_row(
            str(index),
            escape(plan.stretch.boundaries[circuit.stop].name),
            circuit.output_kind.name.lower(),
            str(circuit.output_scale),
            f"{segment.boundary_elements:,}",
            escape(", ".join(segment.ambiguities) or "nothing"),
        )
    return table


def label(plan: Plan, index: int) -> str:
    """Name the operators of a segment in short."""
    circuit = plan.route.segments[index].circuit
    operators = plan.stretch.operators(circuit.start, circuit.stop)
    if len(operators) <= 5:
        return "-".join(operators)
    return "-".join((*operators[:2], f"{len(operators) - 3} more", operators[-1]))


def _summary(plan: Plan) -> Table:
    table = Table(show_header=False, box=None)
    table.add_row("cut at", escape(", ".join(plan.cuts)) or "nowhere")
    scales = plan.fixed_point
    table.add_row("fraction bits", f"{scales.input_scale} of the input, {scales.param_scale} of weights")
    table.add_row(
        "critical path", f"{plan.critical_seconds:.2f} s, of which executing {plan.route.execute_seconds:.2f}"
    )
    table.add_row("all proofs", f"{plan.route.total_seconds:.2f} s, {plan.route.gas:,} gas")
    table.add_row("largest proof", f"{plan.peak_bytes / _MEBIBYTE:,.0f} MiB")
    if plan.accuracy is not None:
        measured = plan.accuracy
        right = ""
        if measured.float_accuracy is not None:
            right = f", right {measured.float_accuracy:.4f} in floating point and {measured.fixed_accuracy:.4f} here"
        table.add_row(
            "held out", f"drift {measured.drift:.4f}, agreement {measured.agreement:.4f} of {measured.samples}{right}"
        )
    for entry in plan.alternatives:
        what = "impossible" if entry.prove_seconds is None else f"{entry.prove_seconds:.2f} s, {entry.gas:,} gas"
        table.add_row(f"with {entry.segments} segment{'s' if entry.segments > 1 else ''}", what)
    return table


def render_comparison(compared: Sequence[Compared]) -> Table:
    """Show predicted and measured figures side by side."""
    columns = ("segment", "predicted s", "measured s", "ratio", "predicted MiB", "measured MiB", "ratio")
    table = Table(*columns, title="Predicted and measured", title_justify="left")
    for index, entry in enumerate(compared):
        table.add_row(
            str(index),
            f"{entry.predicted.prove_seconds:.2f}",
            f"{entry.measured.prove_seconds:.2f}",
            f"{entry.seconds_ratio:.2f}",
            f"{entry.predicted.prove_bytes / _MEBIBYTE:,.0f}",
            f"{entry.measured.prove_bytes / _MEBIBYTE:,.0f}",
            f"{entry.bytes_ratio:.2f}",
        )
    return table


def _span(plan: Plan) -> str:
    return f"{plan.stretch.boundaries[plan.start].name} to {plan.stretch.boundaries[plan.stop].name}"


def to_json(model: ModelPlan, compared: Sequence[Sequence[Compared]] = ()) -> dict[str, Any]:
    """Return everything that a plan says, as a JSON object; see :mod:`offchain.planning.document` for its fields.

    Args:
        compared: what each plan took, in the order of the plans, where it was run.
    """
    measured = [*compared, *[()] * (len(model.plans) - len(compared))]
    document = PlanDocument(
        format="interlock.plan.v1",
        model_sha256=model.digest,
        workers=tuple(Workers(**vars(group)) for group in model.constraints.workers),
        plans=tuple(_plan(plan, list(run)) for plan, run in zip(model.plans, measured, strict=True)),
        unprovable=tuple(Refused(**vars(entry)) for entry in model.unprovable),
    )
    return document.model_dump(mode="json", by_alias=True)


def _plan(plan: Plan, compared: Sequence[Compared]) -> PlannedModel:
    runs = [*compared, *[None] * (len(plan.route.segments) - len(compared))]
    return PlannedModel(
        opening=plan.stretch.boundaries[plan.start].name,
        closing=plan.stretch.boundaries[plan.stop].name,
        is_whole=plan.is_whole,
        cuts=plan.cuts,
        channel_groups=dict(plan.stretch.groups),
        fixed_point=FixedPointChoice(**vars(plan.fixed_point)),
        critical_seconds=plan.critical_seconds,
        execute_seconds=plan.route.execute_seconds,
        prove_seconds=plan.prove_seconds,
        total_seconds=plan.route.total_seconds,
        peak_bytes=plan.peak_bytes,
        gas=plan.route.gas,
        accuracy=None if plan.accuracy is None else HeldOut(**vars(plan.accuracy)),
        alternatives=tuple(Fewer(**vars(entry)) for entry in plan.alternatives),
        segments=tuple(_segment(plan, index, run) for index, run in enumerate(runs)),
    )


def _segment(plan: Plan, index: int, compared: Compared | None) -> PlannedSegment:
    segment = plan.route.segments[index]
    circuit = segment.circuit
    # Only what the document's format names: more that a planner knows is its own affair.
    known = {**vars(segment), **vars(circuit)}
    fields = {name: value for name, value in known.items() if name in PlannedSegment.model_fields}
    return PlannedSegment(
        **{
            **fields,
            "input_kind": circuit.input_kind.name,
            "output_kind": circuit.output_kind.name,
            "operators": plan.stretch.operators(circuit.start, circuit.stop),
            "measured": None if compared is None else Figures(**vars(compared.measured)),
        }
    )

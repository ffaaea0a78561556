"""A picture of a model with its cuts, as SVG."""

from __future__ import annotations

from html import escape

from offchain.planning.plan import ModelPlan, Plan
from offchain.planning.report import label
from offchain.protocol.links import LinkKind

_WIDTH, _BOX, _GAP, _LINE, _MARGIN = 860, 26, 14, 18, 24
_COLOURS = ("#dbe9f6", "#e6f2dc", "#fdebd3", "#eadff2", "#f9dfe3", "#dff1f0")
_LINKS = {LinkKind.KZG: "#1f5fa8", LinkKind.POSEIDON: "#7a3d9a", LinkKind.PUBLIC: "#b35900"}
_MAX_NAMES = 6


def draw(model: ModelPlan) -> str:
    """Draw the pieces from top to bottom, each segment in its colour, each cut with its link and figures."""
    shapes: list[str] = []
    top = _MARGIN
    for plan in model.plans:
        top = _draw_plan(plan, shapes, top) + _GAP
    if model.unprovable:
        shapes.append(_text(_MARGIN, top + 12, "Cannot be proved", bold=True))
        top += _LINE + 6
        for entry in model.unprovable:
            shapes.append(_text(_MARGIN, top + 8, f"{entry.operator}  {entry.name}: {entry.reason}"[:125], "#a11d1d"))
            top += _LINE
    height = top + _MARGIN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}"'
    style = ' font-family="Helvetica, Arial, sans-serif" font-size="12">'
    background = f'<rect width="{_WIDTH}" height="{height}" fill="white"/>'
    return "\n".join((head + style, background, *shapes, "</svg>", ""))


def _draw_plan(plan: Plan, shapes: list[str], top: int) -> int:
    title = f"critical path {plan.critical_seconds:.1f} s, largest proof {plan.peak_bytes / 2**20:,.0f} MiB"
    shapes.append(_text(_MARGIN, top, f"{plan.stretch.boundaries[plan.start].name}: {title}", bold=True))
    top += _GAP
    for index, segment in enumerate(plan.route.segments):
        circuit = segment.circuit
        first = top
        for at in range(circuit.start, circuit.stop):
            operators = plan.stretch.pieces[at].operators
            more = f" … {len(operators) - _MAX_NAMES} more" if len(operators) > _MAX_NAMES else ""
            box = f'x="{_MARGIN}" y="{top}" width="360" height="{_BOX}" rx="4" fill="{_COLOURS[index % len(_COLOURS)]}"'
            shapes.append(f'<rect {box} stroke="#555"/>')
            shapes.append(_text(_MARGIN + 10, top + 17, ", ".join(operators[:_MAX_NAMES]) + more))
            top += _BOX + 4
        middle = (first + top) // 2
        size = f"2^{circuit.log_rows}" + (f" x{circuit.column_blocks}" if circuit.column_blocks > 1 else "")
        cost = (
            f"{size} rows, {segment.prove_seconds:.1f} s, {segment.prove_bytes / 2**20:,.0f} MiB, {segment.gas:,} gas"
        )
        shapes.append(_text(_MARGIN + 380, middle - 2, f"segment {index}: {label(plan, index)}"[:70], bold=True))
        shapes.append(_text(_MARGIN + 380, middle + 12, cost))
        colour = _LINKS[circuit.output_kind]
        dash = "" if index + 1 == len(plan.route.segments) else ' stroke-dasharray="7 4"'
        line = f'x1="{_MARGIN - 10}" y1="{top + 5}" x2="{_WIDTH - _MARGIN}" y2="{top + 5}"'
        shapes.append(f'<line {line} stroke="{colour}" stroke-width="2"{dash}/>')
        name = plan.stretch.boundaries[circuit.stop].name
        link = f"{circuit.output_kind.name} link, {segment.boundary_elements:,} elements, scale {circuit.output_scale}"
        shapes.append(_text(_MARGIN, top + 20, f"{name}: {link}"[:110], colour))
        top += _BOX + _GAP
    return top


def _text(x: int, y: int, text: str, colour: str = "#222", *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}" fill="{colour}"{weight}>{escape(text)}</text>'

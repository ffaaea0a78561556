"""The audit as a table for people."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from offchain.audit.report import AuditReport, SegmentAudit
from offchain.protocol.types import ZERO_HASH

_ETHER = 10**18


def render(report: AuditReport) -> RenderableType:
    """Draw an audit: a line per segment with its verdict, every failed check by name, and warnings."""
    parts: list[RenderableType] = [_segments(report), _whole(report)]
    if report.failures:
        parts.append(_failures(report))
    parts += [Text(f"WARNING: {warning}", style="bold yellow") for warning in report.warnings]
    colour = "green" if report.is_valid else "red"
    parts.append(Text(f"{report.verdict.upper()}: job 0x{report.job.hex()}", style=f"bold {colour}"))
    return Group(*parts)


def _segments(report: AuditReport) -> Table:
    where = "" if report.block is None else f", chain {report.chain_id} at block {report.block}"
    table = Table(title=f"Audit of job 0x{report.job.hex()[:12]}…{where}", title_justify="left")
    headings = ("segment", "label", "history", "opens with", "closes with", "stake for / total", "checks", "verdict")
    for heading in headings:
        table.add_column(heading, justify="right" if heading == "stake for / total" else "left")
    for segment in report.segments:
        passed = sum(check.ok for check in segment.checks.values())
        table.add_row(
            str(segment.index),
            segment.label,
            ", ".join(segment.history) or "–",
            _short(segment.link_in),
            _short(segment.link_out),
            _stake(segment),
            f"{passed} of {len(segment.checks)}",
            _verdict(segment.is_valid),
        )
    return table


def _whole(report: AuditReport) -> Table:
    table = Table(show_header=False)
    table.add_column("what")
    table.add_column("finding", overflow="fold")
    table.add_column("verdict")
    for name, check in report.checks.items():
        table.add_row(name, escape(check.detail), _verdict(check.ok))
    if report.result is not None:
        for index, values in enumerate(report.outputs):
            name = "result values" if report.batch == 1 else f"result values of input {index}"
            table.add_row(name, ", ".join(f"{value:g}" for value in values), "")
    if report.srs is not None:
        table.add_row("srs origin", f"{escape(report.srs.origin)} (sha256 {escape(report.srs.digest[:12])}…)", "")
    return table


def _failures(report: AuditReport) -> Table:
    table = Table(title="What is wrong", title_justify="left", style="red")
    table.add_column("check")
    table.add_column("expected and found", overflow="fold")
    for name, check in report.failures:
        table.add_row(escape(name), escape(check.detail))
    return table


def _verdict(is_valid: bool) -> str:
    return "[green]valid[/]" if is_valid else "[bold red]INVALID[/]"


def _stake(segment: SegmentAudit) -> str:
    return f"{segment.stake_for / _ETHER:.3f} / {segment.stake_total / _ETHER:.3f} ETH"


def _short(link: bytes) -> str:
    return "–" if link == ZERO_HASH else f"0x{link.hex()[:10]}…"

"""What commands show of models and jobs."""

from __future__ import annotations

from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from offchain.cli.context import console


def progress_bar(*, hidden: bool = False) -> Progress:
    """A progress bar for long steps."""
    columns = (TextColumn("{task.description:<42}"), BarColumn(), TimeElapsedColumn())
    return Progress(*columns, console=console, transient=not console.is_terminal, disable=hidden)


def describe_event(name: str, content: dict[str, Any]) -> str:
    """One line for a progress bar."""
    segment = content.get("segment")
    return name if segment is None else f"{name} (segment {segment})"


def show_model(summary: dict[str, Any]) -> None:
    """Print a model's summary."""
    accuracy = summary["accuracy"]
    columns: tuple[str, ...] = ("segment", "operators", "in", "out", "rows", "outputs", "link out")
    is_planned = any(segment["predicted"] for segment in summary["segments"])
    columns += ("planned s", "planned MiB") if is_planned else ()
    table = Table(*columns, title=escape(summary["name"]), title_justify="left")
    for index, segment in enumerate(summary["segments"]):
        shapes = ("×".join(str(size) for size in segment[side]) for side in ("input_shape", "output_shape"))
        used = f"{segment['rows']} of 2^{segment['log_rows']}"
        link = segment["output_kind"] + ("" if segment["closing_link_is_unique"] else ", one of many")
        outputs = "one" if segment["is_exact"] else escape("; ".join(segment["ambiguities"]))
        cells = (str(index), escape(segment["operators"]), *shapes, used, outputs, link)
        table.add_row(*cells, *_predicted(segment["predicted"]))
    console.print(table)
    if accuracy["float_accuracy"] is not None:
        console.print(
            f"accuracy on {accuracy['samples']} {accuracy['source']} samples: {accuracy['float_accuracy']:.3f} in "
            f"floating point, {accuracy['fixed_accuracy']:.3f} in the circuits' fixed point"
        )
    console.print(
        f"fixed against floating point: same class on {accuracy['agreement']:.1%} of {accuracy['samples']} "
        f"{accuracy['source']} samples, outputs at most {accuracy['max_error']:.3g} apart"
    )
    if summary["srs_origin"] == "insecure-dev":
        console.print(
            "[yellow]SRS: insecure-dev. Whoever made it could forge proofs; use a ceremony's file for money.[/]"
        )
    else:
        console.print(f"SRS: {escape(summary['srs_origin'])}, as the model's owner says")
    if summary["batch"] > 1:
        console.print(f"batch: a job takes up to {summary['batch']} inputs, and one proof per segment covers them")
    console.print(f"model {summary['model']}", soft_wrap=True)


def describe_outputs(summary: dict[str, Any]) -> str:
    """Say in how many of a model's segments one input has one output that proves."""
    exact = [segment["is_exact"] for segment in summary["segments"]]
    return "one" if all(exact) else f"ambiguous in {exact.count(False)} of {len(exact)}"


def _predicted(figures: dict[str, Any] | None) -> tuple[str, ...]:
    return () if figures is None else (f"{figures['seconds']:.2f}", f"{figures['bytes'] / 2**20:,.0f}")


def show_job_table(answer: dict[str, Any]) -> None:
    """Print how a job stands."""
    table = Table(
        "segment", "label", "stake for", "link out", "proved by", title=f"{answer['phase']}", title_justify="left"
    )
    for segment in answer["segments"]:
        total = int(segment["stake_total"]) or 1
        stake = f"{int(segment['stake_for']) / total:.0%} of {int(segment['stake_total']) / 10**18:g}"
        link = (segment["link_out"] or "")[:18]
        index = str(segment["index"]) + (f" (attempt {segment['attempt'] + 1})" if segment["attempt"] else "")
        table.add_row(index, _label(segment), stake, link, (segment["proved_by"] or "")[:12])
    console.print(table)
    if answer["queue"]:
        queue = answer["queue"]
        console.print(
            f"queued: {queue['running']} of {queue['most_running']} jobs of the model run, {queue['waiting']} wait; "
            f"Next: interlock job cancel {answer['job']}",
            soft_wrap=True,
        )
    if answer["reason"]:
        console.print(f"[red]reason[/]: {escape(answer['reason'])}")
    if answer.get("trouble"):
        console.print(f"[yellow]trouble[/]: {escape(answer['trouble'])}")
    if answer["route"]:
        _show_route(answer["route"])
    if answer["result"]:
        _show_result(answer["result"])


def _show_result(result: dict[str, Any]) -> None:
    if result["inputs"] + result["padding"] == 1:
        console.print(f"result: {result['values']}  (largest: index {result['top']})")
        return
    for index, (values, top) in enumerate(zip(result["values"], result["tops"], strict=True)):
        console.print(f"result of input {index}: {values}  (largest: index {top})")
    if result["padding"]:
        console.print(f"{result['padding']} of {result['inputs'] + result['padding']} places of the batch stayed empty")


def _label(segment: dict[str, Any]) -> str:
    """What stands behind a segment, and whatever is unusual about it."""
    votes = [member["vote"] for member in segment["committee"] if member["vote"]]
    marks = ["overturned"] * segment["overturned"] + ["contested"] * segment["is_contested"]
    marks += [f"{votes.count(vote)} voted {vote.replace('_', ' ')}" for vote in sorted(set(votes))]
    return ", ".join([segment["label"], *marks])


def _show_route(route: dict[str, Any]) -> None:
    console.print(f"policy chosen by route {escape(route['cid'])}:", soft_wrap=True)
    if route["reasons"] is None:
        console.print("  [yellow]its document cannot be had now, or is not of this job[/]")
    for reason in route["reasons"] or ():
        console.print(f"  {escape(reason)}", soft_wrap=True, highlight=False)

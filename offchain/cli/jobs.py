"""``interlock job``: submit jobs, look at them, take them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from offchain.cli import context
from offchain.cli.context import console, readable_errors
from offchain.cli.views import describe_event, progress_bar, show_job_table
from offchain.errors import InvalidInputError

job_commands = typer.Typer(no_args_is_help=True, help="Submit jobs, look at them, and take back those that wait.")

Gateway = Annotated[str | None, typer.Option("--gateway", help="URL of a gateway; the local network's if left out.")]

DEFAULT_LATENCY_SECONDS = 1800


@job_commands.command("submit")
def submit(
    model: Annotated[str, typer.Argument(help="A registered model's id.")],
    values: Annotated[
        Path, typer.Argument(metavar="INPUT.json", help='Nested lists, {"input": …} or {"inputs": […]}.')
    ],
    wait: Annotated[bool, typer.Option("--wait", help="Follow the job to its end.")] = False,
    criticality: Annotated[
        str | None,
        typer.Option(help="Have the policy chosen: low, standard or critical. Standard, if others are named."),
    ] = None,
    privacy: Annotated[str | None, typer.Option(help="Likewise: open or split. Open, if others are named.")] = None,
    latency: Annotated[
        int | None, typer.Option(help=f"Likewise: seconds that the job may take. {DEFAULT_LATENCY_SECONDS} otherwise.")
    ] = None,
    committee: Annotated[int | None, typer.Option(help="Workers per segment, where you choose the policy.")] = None,
    proofs: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Segments to prove, in 0.1 %: 1000 is all.")
    ] = None,
    fee_wei: Annotated[
        int | None, typer.Option(help="What the workers share; the most, if a policy is chosen.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="Idempotency key; a fresh one if left out.")] = None,
    gateway: Gateway = None,
) -> None:
    """Submit an input to a model. Name what you demand, or the policy; every segment is proved if you name neither."""
    with readable_errors():
        demand = build_demand(criticality, privacy, latency, proofs)
        if demand is not None and committee is not None:
            raise InvalidInputError("--committee", "the policy is to be chosen for you", "leave it out")
        policy = {"committee_size": committee, "proof_permille": None if demand else proofs}
        client = context.gateway(gateway)
        content, is_batch = read_input_file(values)
        job = client.submit(
            model,
            content,
            is_batch=is_batch,
            policy={name: value for name, value in policy.items() if value is not None},
            demand=demand,
            fee_wei=fee_wei,
            key=key,
        )
        console.print(f"job {job}")
        if not wait:
            console.print(f"Next: interlock job show {job}")
            return
        with progress_bar() as bar:
            task = bar.add_task("waiting for the chain", total=1.0)
            for event in client.events(job):
                bar.update(task, description=describe_event(event.name, event.content), advance=0.0)
            bar.update(task, completed=1.0)
        answer = client.job(job)
        show_job_table(answer)
        if answer["phase"] != "finalised":
            raise typer.Exit(1)
        console.print(f"Next: interlock audit {job}")


@job_commands.command("show")
def show(job: str, as_json: Annotated[bool, typer.Option("--json")] = False, gateway: Gateway = None) -> None:
    """Show how a job stands."""
    with readable_errors():
        answer = context.gateway(gateway).job("0x" + context.read_job_id(job).hex())
        if as_json:
            console.print_json(data=answer)
        else:
            show_job_table(answer)


@job_commands.command("cancel")
def cancel(job: str, gateway: Gateway = None) -> None:
    """Take back a job that waits in the queue; its fee is credited to the gateway's account."""
    with readable_errors():
        show_job_table(context.gateway(gateway).cancel("0x" + context.read_job_id(job).hex()))


def build_demand(
    criticality: str | None, privacy: str | None, latency: int | None, proofs: int | None
) -> dict[str, Any] | None:
    """Make a demand of the options that were given; None if none of them calls for one."""
    if criticality is None and privacy is None and latency is None:
        return None
    demand: dict[str, Any] = {
        "criticality": criticality or "standard",
        "privacy": privacy or "open",
        "latency_seconds": DEFAULT_LATENCY_SECONDS if latency is None else latency,
    }
    return demand if proofs is None else demand | {"proof_permille": proofs}


def read_input_file(path: Path) -> tuple[object, bool]:
    """Read an input file, and say whether it holds several inputs.

    Raises:
        InvalidInputError: it is missing, or not JSON.
    """
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise InvalidInputError("INPUT.json", f"{path} cannot be read ({error.strerror})", "name a file") from error
    except ValueError as error:
        raise InvalidInputError("INPUT.json", f"it is not JSON ({error})", "write nested lists of numbers") from error
    if isinstance(content, dict) and "inputs" in content:
        return content["inputs"], True
    return content["input"] if isinstance(content, dict) and "input" in content else content, False

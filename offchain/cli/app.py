"""Commands of ``interlock``, and what they print."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from offchain.cli import context
from offchain.cli.client import read_file
from offchain.cli.context import console, readable_errors
from offchain.cli.jobs import Gateway, job_commands
from offchain.cli.operators import operator_commands
from offchain.cli.plans import WORKERS, plan, plan_to_register
from offchain.cli.srs import srs_commands
from offchain.cli.tuning import tune
from offchain.cli.views import describe_outputs, progress_bar, show_model
from offchain.errors import InvalidInputError
from offchain.protocol.trials import DEFAULT_TRIALS, MAX_TRIALS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Split neural-network inference that anyone can check: proved, interlocked on chain, audited from outside.",
)
models = typer.Typer(no_args_is_help=True, help="Plan models, register them and list them.")
app.add_typer(models, name="model")
app.add_typer(job_commands, name="job")
app.add_typer(operator_commands, name="operator")
app.add_typer(srs_commands, name="srs")

Rpc = Annotated[str | None, typer.Option("--rpc", help="JSON-RPC of the chain; the local network's if left out.")]
Ipfs = Annotated[str | None, typer.Option("--ipfs", help="HTTP API of an IPFS node; the local network's if left out.")]
JobsAddress = Annotated[
    str | None, typer.Option("--jobs", help="Address of the job contract; the local network's if left out.")
]


@app.command()
def up(
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many worker processes.")] = 9,
    chain: Annotated[str, typer.Option(help="anvil or ganache.")] = "anvil",
    port: Annotated[int, typer.Option(help="The gateway's port; 0 for a free one.")] = 8000,
    srs: Annotated[Path | None, typer.Option(help="SRS file for new models, instead of an insecure one.")] = None,
    srs_origin: Annotated[str | None, typer.Option(help="Where it is from: local-ceremony or ceremony.")] = None,
) -> None:
    """Start the local network (chain, IPFS, contracts, workers, gateway) and keep it up until Ctrl-C."""
    from offchain.network.local import LocalNetwork, NetworkOptions

    with readable_errors():
        if srs is not None and srs_origin not in ("local-ceremony", "ceremony"):
            raise InvalidInputError(
                "--srs-origin", "it is not said where the SRS is from", "add --srs-origin local-ceremony, or ceremony"
            )
        options = NetworkOptions(
            directory=context.network_directory(),
            cache_directory=context.cache_directory(),
            chain=chain,
            workers=workers,
            gateway_port=port,
            srs=(srs.resolve(), srs_origin) if srs is not None and srs_origin is not None else None,
        )
        with LocalNetwork(options, report=lambda step: console.print(f"  {step}")) as network:
            record = network.record
            table = Table("part", "where", title="The network is up", title_justify="left")
            for part, where in (
                ("gateway", f"{record.gateway_url}  (REST; {record.gateway_url}/docs)"),
                ("chain", f"{record.rpc_url}  ({chain}, chain id {network.connection.chain_id})"),
                ("IPFS", record.ipfs_url),
                ("contracts", str(record.deployment)),
                ("workers", f"{workers}, each with {options.stake_wei / 10**18:g} ETH at stake"),
                ("operators", f"interlock operator show {options.directory / 'worker-0' / 'worker.json'}"),
                ("logs", str(options.directory / "logs")),
            ):
                table.add_row(part, where)
            console.print(table)
            console.print(
                "Next: interlock model register FILE.onnx --calibration DATA.npz   (Ctrl-C here stops it all)"
            )
            try:
                while True:
                    network.check()
                    time.sleep(1.0)
            except KeyboardInterrupt:
                console.print("stopping")


@app.command()
def demo(
    keep_cache: Annotated[bool, typer.Option(help="Use circuits and keys from an earlier run.")] = True,
    chain: Annotated[str, typer.Option(help="anvil or ganache.")] = "anvil",
    out: Annotated[Path | None, typer.Option(help="Where it all goes; build/demo if left out.")] = None,
) -> None:
    """Run the main job: two real models, split, executed, proved, settled and audited. Takes a minute or two."""
    from offchain.demo import run_demo

    with readable_errors():
        raise typer.Exit(run_demo(keep_cache=keep_cache, chain=chain, directory=out))


@models.command("register")
def register(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    calibration: Annotated[Path, typer.Option(help="npz with `input` (n, *shape) float32: typical inputs.")],
    segments: Annotated[int | None, typer.Option(min=1, max=16, help="Into how many segments to cut it.")] = None,
    cuts: Annotated[str | None, typer.Option(help="At which tensors instead, separated by commas.")] = None,
    heldout: Annotated[Path | None, typer.Option(help="npz with `input` and `label`, to measure accuracy on.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it; the file's name if left out.")] = None,
    max_drift: Annotated[float, typer.Option(help="How far fixed point may be off, relative to the outputs.")] = 0.05,
    trials: Annotated[
        int, typer.Option(min=0, max=MAX_TRIALS, help="Questions that new workers answer; with none, any may serve.")
    ] = DEFAULT_TRIALS,
    plan_file: Annotated[
        Path | None, typer.Option("--plan", help="What `interlock model plan --json` wrote, in place of --segments.")
    ] = None,
    auto: Annotated[bool, typer.Option("--auto", help="Plan it first, for --workers; needs --heldout.")] = False,
    workers: Annotated[str, typer.Option(help="For --auto: cores, GiB and count; classes separated by ;")] = WORKERS,
    typical: Annotated[bool, typer.Option("--typical", help="For --auto: do not measure this machine first.")] = False,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Search for the fastest settings within --max-drift of --heldout.")
    ] = False,
    search_seconds: Annotated[
        int, typer.Option(min=1, max=600, help="For --thorough: how long the gateway may search.")
    ] = 120,
    batch: Annotated[
        int | None, typer.Option(min=2, max=64, help="How many inputs one job takes, proved together.")
    ] = None,
    gateway: Gateway = None,
) -> None:
    """Cut a model, compile its circuits, measure them, and register it on chain."""
    with readable_errors():
        ways = {"--segments": segments, "--cuts": cuts, "--plan": plan_file, "--auto": auto or None}
        given = [way for way, value in ways.items() if value is not None]
        if len(given) > 1:
            raise InvalidInputError(given[1], f"it does not go with {given[0]}", "give one of the two")
        if thorough and (plan_file or auto):
            raise InvalidInputError("--thorough", "a plan has its own settings", "give --segments or --cuts with it")
        if batch is not None and (plan_file or auto):
            problem = "a plan is of the model as it is"
            raise InvalidInputError("--batch", problem, "give --segments or --cuts with it")
        if heldout is None and (auto or thorough):
            raise InvalidInputError("--heldout", "accuracy has to be bounded on other samples", "name an npz file")
        fields = {"name": name or model.stem, "max_drift": str(max_drift), "trials": str(trials)}
        fields |= {"cuts": cuts} if cuts is not None else {}
        fields |= {"segments": str(segments or 3)} if given in ([], ["--segments"]) else {}
        fields |= {"search_seconds": str(search_seconds)} if thorough else {}
        fields |= {"batch": str(batch)} if batch is not None else {}
        planned = None if plan_file is None else read_file("--plan", plan_file)
        if auto:
            assert heldout is not None
            planned = plan_to_register(model, workers, calibration, heldout, max_drift=max_drift, typical=typical)
        client = context.gateway(gateway)
        with progress_bar() as bar:
            task = bar.add_task("uploading", total=1.0)
            model_id = client.register(
                model,
                calibration,
                heldout=heldout,
                plan=planned,
                fields=fields,
                progress=lambda step, share: bar.update(task, description=step, completed=share),
            )
            bar.update(task, description="registered", completed=1.0)
        show_model(client.model(model_id))


models.command("plan")(plan)
models.command("tune")(tune)


@models.command("list")
def list_models(gateway: Gateway = None) -> None:
    """List the registered models."""
    with readable_errors():
        table = Table("model", "name", "segments", "workers", "outputs")
        for entry in context.gateway(gateway).models():
            cells = (entry["model"], escape(entry["name"]), str(len(entry["segments"])), str(entry["workers"]))
            table.add_row(*cells, describe_outputs(entry))
        console.print(table)


@models.command("show")
def show(model: str, gateway: Gateway = None) -> None:
    """Show one model: its segments, its accuracy, its SRS."""
    with readable_errors():
        show_model(context.gateway(gateway).model(model))


@app.command()
def audit(
    job: Annotated[str, typer.Argument(metavar="ID", help="A job's id.")],
    rederive: Annotated[bool, typer.Option("--rederive", help="Compile every segment again and compare keys.")] = False,
    identity: Annotated[
        Path | None, typer.Option(help="age identity that was granted the model, for --rederive.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    rpc: Rpc = None,
    ipfs: Ipfs = None,
    jobs_address: JobsAddress = None,
) -> None:
    """Check a finished job from the chain and IPFS alone. Leaves with 1 if anything at all is off."""
    from offchain.audit import audit as run_audit
    from offchain.audit import render
    from offchain.storage.sealing import Identity

    with readable_errors():
        job_id = context.read_job_id(job)
        holder = None
        if rederive:
            holder = Identity.load(identity or _local_identity())
        contracts, store, prover = context.chain_and_store(rpc, ipfs, jobs_address)
        with progress_bar(hidden=as_json) as bar:
            task = bar.add_task("reading the chain", total=1.0)
            report = run_audit(
                contracts,
                store,
                prover,
                job_id,
                rederive=holder,
                progress=lambda step, share: bar.update(task, description=step, completed=share),
            )
        if as_json:
            print(json.dumps(report.to_json()))
        else:
            console.print(render(report))
    raise typer.Exit(0 if report.verdict == "valid" else 1)


def _local_identity() -> Path:
    """The first worker's identity on the local network, which every model was granted to."""
    path = context.network_directory() / "worker-0" / "identity.age"
    if not path.exists():
        raise InvalidInputError(
            "--identity", "--rederive opens the model's ONNX", "name an age identity granted the model"
        )
    return path


def main() -> None:
    """Entry point of the ``interlock`` command."""
    app()

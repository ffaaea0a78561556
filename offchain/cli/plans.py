"""``interlock model plan``: how a model could be cut and proved, at what cost, before anything is compiled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from offchain.cli import context
from offchain.cli.context import console, readable_errors
from offchain.errors import InvalidInputError
from offchain.protocol.links import LinkKind

if TYPE_CHECKING:
    from offchain.planning.plan import ModelPlan
    from offchain.planning.planner import Constraints
    from offchain.proving.ezkl_prover import EzklProver

WORKERS = "2c,12g,9"
GATEWAY_LOG_ROWS = 17
"""What a gateway takes unless its configuration says otherwise; see ``GatewayConfig.max_log_rows``."""


def plan(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    workers: Annotated[str, typer.Option(help="Cores, GiB and count; several classes separated by ;")] = WORKERS,
    memory: Annotated[
        float | None, typer.Option(help="GiB that a proof may take, where less than a worker has.")
    ] = None,
    calibration: Annotated[Path | None, typer.Option(help="npz with `input`: what circuits must hold.")] = None,
    heldout: Annotated[Path | None, typer.Option(help="npz with `input`, `label`: to bound accuracy on.")] = None,
    max_drift: Annotated[float, typer.Option(help="How far fixed point may be off, relative to the outputs.")] = 0.05,
    links: Annotated[str, typer.Option(help="Allowed between segments, separated by commas.")] = "kzg,poseidon",
    max_gas: Annotated[int, typer.Option(min=1, help="Of the transaction that proves a segment.")] = 4_000_000,
    max_log_rows: Annotated[int, typer.Option(min=8, max=22, help="The largest circuit.")] = 18,
    max_segments: Annotated[int, typer.Option(min=1, max=16, help="Into how many segments at most.")] = 16,
    typical: Annotated[bool, typer.Option("--typical", help="Guess this machine's speed, not measure it.")] = False,
    measure: Annotated[bool, typer.Option("--measure", help="Prove the plan once here, and compare.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the plan as JSON here.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the graph with its cuts here, as SVG.")] = None,
) -> None:
    """Plan where to cut a model, how to link its segments and what each costs; say what cannot be proved and why."""
    from offchain.inference.calibration import load_samples
    from offchain.planning.measuring import measure_plan
    from offchain.planning.picture import draw
    from offchain.planning.planner import Constraints
    from offchain.planning.report import render, render_comparison, to_json
    from offchain.planning.workers import limit_memory, parse_workers
    from offchain.proving.cache import ArtefactCache
    from offchain.proving.ezkl_prover import EzklProver
    from offchain.proving.srs import insecure_srs

    with readable_errors():
        groups = parse_workers(workers)
        if memory is not None:
            groups = limit_memory(groups, memory)
        prover = EzklProver(ArtefactCache(context.cache_directory()))
        planned, machine = make_plan(
            prover,
            model,
            Constraints(groups, kinds=_kinds(links), max_gas=max_gas, max_segments=max_segments),
            calibration=calibration,
            heldout=heldout,
            max_drift=max_drift,
            max_log_rows=max_log_rows,
            typical=typical,
        )
        console.print(machine)
        console.print(render(planned))
        compared = []
        if measure:
            if heldout is None and calibration is None:
                raise InvalidInputError("--measure", "there is no input to prove", "add --heldout or --calibration")
            sample = load_samples(heldout or calibration or model).inputs[0].ravel().tolist()
            for planned_part in planned.plans:
                top = max(segment.circuit.log_rows for segment in planned_part.route.segments)
                measured = measure_plan(prover, planned_part, insecure_srs(prover, top), sample)
                compared.append(planned_part.compare(measured))
                console.print(render_comparison(compared[-1]))
        if json_file is not None:
            json_file.write_text(json.dumps(to_json(planned, compared), indent=2) + "\n", encoding="utf-8")
        if picture is not None:
            picture.write_text(draw(planned), encoding="utf-8")


def make_plan(
    prover: EzklProver,
    model: Path,
    constraints: Constraints,
    *,
    calibration: Path | None,
    heldout: Path | None,
    max_drift: float,
    max_log_rows: int,
    typical: bool,
) -> tuple[ModelPlan, str]:
    """Plan a model, and show meanwhile what is done; also says which machine it was planned for.

    Raises:
        InvalidInputError: see :func:`offchain.planning.plan.plan_model`.
    """
    from offchain.inference.calibration import load_samples
    from offchain.planning.costs import TypicalMachine
    from offchain.planning.plan import Bound, plan_model
    from offchain.tuning.machine import MachineModel

    with console.status("measuring this machine, once") as status:
        machine = TypicalMachine() if typical else MachineModel.load_or_measure(prover)
        status.update("reading the model")
        planned = plan_model(
            _read(model),
            prover,
            machine,
            constraints,
            calibration=None if calibration is None else load_samples(calibration),
            heldout=None if heldout is None else load_samples(heldout),
            bound=Bound(max_drift=max_drift),
            max_log_rows=max_log_rows,
            report=status.update,
        )
    return planned, "a typical machine" if isinstance(machine, TypicalMachine) else machine.describe()


def plan_to_register(
    model: Path, workers: str, calibration: Path, heldout: Path, *, max_drift: float, typical: bool
) -> bytes:
    """Plan a model for these workers, print the plan, and return its JSON for a registration.

    Raises:
        InvalidInputError: it cannot be proved whole by them.
    """
    from offchain.planning.planner import Constraints
    from offchain.planning.report import render, to_json
    from offchain.planning.workers import parse_workers
    from offchain.proving.cache import ArtefactCache
    from offchain.proving.ezkl_prover import EzklProver

    planned, _ = make_plan(
        EzklProver(ArtefactCache(context.cache_directory())),
        model,
        Constraints(parse_workers(workers), kinds=_kinds("kzg,poseidon")),
        calibration=calibration,
        heldout=heldout,
        max_drift=max_drift,
        max_log_rows=GATEWAY_LOG_ROWS,
        typical=typical,
    )
    console.print(render(planned))
    return json.dumps(to_json(planned)).encode()


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError("model", f"{path} cannot be read ({error.strerror})", "name an ONNX file") from error


def _kinds(text: str) -> tuple[LinkKind, ...]:
    names = {kind.name.lower(): kind for kind in LinkKind if kind is not LinkKind.NONE}
    chosen = [name.strip().lower() for name in text.split(",")]
    for name in chosen:
        if name not in names:
            raise InvalidInputError("--links", f"{name!r} is no kind of link", f"choose from {', '.join(names)}")
    return tuple(dict.fromkeys(names[name] for name in chosen))

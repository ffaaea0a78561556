"""``interlock model tune``: which circuit settings prove a model fastest, within a bound on its accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from offchain.cli import context
from offchain.cli.context import console, readable_errors
from offchain.errors import InvalidInputError
from offchain.protocol.links import LinkKind


def tune(
    model: Annotated[Path, typer.Argument(help="An ONNX file.")],
    calibration: Annotated[Path, typer.Option(help="npz with `input`: what circuits must hold.")],
    heldout: Annotated[Path, typer.Option(help="npz with `input`, `label`: what the bound must hold on.")],
    segments: Annotated[int, typer.Option(min=1, max=16, help="Into how many segments to cut it.")] = 1,
    cuts: Annotated[str | None, typer.Option(help="At which tensors instead, separated by commas.")] = None,
    links: Annotated[str, typer.Option(help="Between segments: kzg, poseidon or public.")] = "kzg",
    bound: Annotated[
        float, typer.Option(min=0.0, help="Share of held-out samples that may be decided otherwise.")
    ] = 0.02,
    max_drift: Annotated[
        float | None, typer.Option(help="How far outputs may be off, relative to the largest.")
    ] = None,
    max_loss: Annotated[float | None, typer.Option(help="Share of held-out labels that may be lost.")] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to search.")] = 120.0,
    memory: Annotated[float | None, typer.Option(help="GiB that proving one segment may take.")] = None,
    max_log_rows: Annotated[int, typer.Option(min=6, max=22, help="The largest circuit.")] = 17,
    ambiguous: Annotated[
        bool, typer.Option("--ambiguous", help="Allow circuits in which one input has several outputs.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report as JSON here.")] = None,
    settings: Annotated[Path | None, typer.Option(help="Write the chosen settings files into this directory.")] = None,
) -> None:
    """Find the circuit settings with the least predicted proving time that keep a model's accuracy on held-out data."""
    from offchain.inference.calibration import load_samples
    from offchain.inference.untrusted import split_model
    from offchain.proving.cache import ArtefactCache
    from offchain.proving.ezkl_prover import EzklProver
    from offchain.tuning.bound import AccuracyBound
    from offchain.tuning.machine import MachineModel
    from offchain.tuning.search import autotune

    with readable_errors():
        kind = _kind(links)
        limit = AccuracyBound(bound, max_drift, max_loss)
        names = tuple(cuts.split(",")) if cuts is not None else None
        parts = split_model(_read(model), cuts=names, segments=None if names else segments)
        prover = EzklProver(ArtefactCache(context.cache_directory()))
        with console.status("measuring this machine, once") as status:
            machine = MachineModel.load_or_measure(prover)
            status.update("searching")
            report = autotune(
                prover,
                [part.onnx for part in parts],
                load_samples(calibration).inputs,
                load_samples(heldout),
                bound=limit,
                machine=machine,
                kinds=(*[kind] * len(parts), LinkKind.PUBLIC),
                seconds=seconds,
                max_bytes=None if memory is None else int(memory * 2**30),
                max_log_rows=max_log_rows,
                exact=not ambiguous,
            )
        console.print(report.table())
        if json_file is not None:
            json_file.write_text(json.dumps(report.to_json(), indent=2) + "\n", encoding="utf-8")
        if settings is not None:
            settings.mkdir(parents=True, exist_ok=True)
            for index, choice in enumerate(report.tuning.segments):
                (settings / f"segment-{index}.json").write_bytes(choice.settings)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidInputError("model", f"{path} cannot be read ({error.strerror})", "name an ONNX file") from error


def _kind(name: str) -> LinkKind:
    kinds = {kind.name.lower(): kind for kind in LinkKind if kind is not LinkKind.NONE}
    if name.lower() not in kinds:
        raise InvalidInputError("--links", f"{name!r} is no kind of link", f"choose from {', '.join(kinds)}")
    return kinds[name.lower()]

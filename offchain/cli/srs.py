"""``interlock srs``: make or convert a structured reference string."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from offchain.cli.context import console, readable_errors

srs_commands = typer.Typer(
    no_args_is_help=True, help="Structured reference strings: a ceremony here, or a file from one."
)


@srs_commands.command("ceremony")
def ceremony(
    directory: Annotated[Path, typer.Argument(help="Where the transcript and the SRS go.")],
    log_rows: Annotated[int, typer.Option(min=1, max=20, help="The largest circuit to serve, as a power of two.")] = 12,
    contributions: Annotated[int, typer.Option(min=1, help="How many secrets are mixed in.")] = 3,
) -> None:
    """Run a powers-of-tau ceremony on this machine, verify it, and convert it.

    Better than the SRS that is made by default, whose secret one process knew; not as good as a public ceremony:
    whoever controls this machine controls every contribution.
    """
    from offchain.proving.ceremony import run_local_ceremony

    with readable_errors():
        with console.status(f"{contributions} contributions at 2^{log_rows} (a minute or two)"):
            result = run_local_ceremony(directory, log_rows, contributions)
        console.print(
            f"SRS        {result.srs.path}\ntranscript {result.transcript}\nSHA-256    {result.srs.digest.hex()}"
        )
        console.print(f"Next: interlock up --srs {result.srs.path} --srs-origin local-ceremony", soft_wrap=True)


@srs_commands.command("import")
def convert(
    transcript: Annotated[Path, typer.Argument(help="A .ptau file of a public ceremony, prepared for phase 2.")],
    target: Annotated[Path, typer.Argument(help="Where the SRS goes.")],
    log_rows: Annotated[int, typer.Option(min=1, max=20, help="The largest circuit to serve, as a power of two.")] = 15,
) -> None:
    """Verify a ceremony's transcript and convert it to the prover's format."""
    from offchain.proving.ceremony import convert_ptau, verify_transcript
    from offchain.proving.srs import load_srs

    with readable_errors():
        with console.status("verifying the transcript"):
            verify_transcript(transcript)
        target.write_bytes(convert_ptau(transcript, log_rows))
        srs = load_srs(target, "ceremony")
        console.print(f"SRS     {target}\nSHA-256 {srs.digest.hex()}")
        console.print(f"Next: interlock up --srs {target} --srs-origin ceremony", soft_wrap=True)

"""Runs the tests with the plugin and compares what they took with what there is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from tools.branches.sites import Compiled, MixedBuildError, Site, read_build

ROOT = Path(__file__).resolve().parents[2]
CONTRACTS = ROOT / "build" / "contracts"
TAKEN = ROOT / "build" / "branches"
REPORT = ROOT / "reports" / "branches.txt"
# Those marked slow run other tools over the contracts; the gas tests play the largest jobs, which takes a tracer
# many minutes; Brownie's commands take no branch that the others do not; forge has no node that could be asked.
_LEFT_OUT = ("test_gas.py", "test_brownie_commands.py", "test_forge.py")
DEFAULT = ("tests/contracts", "-m", "not slow", *(f"--ignore=tests/contracts/{name}" for name in _LEFT_OUT))
JUMPS_IF_TRUE = ("ternary", "||", "require")
FALSE, TRUE, BOTH = 1, 2, 3


def main(tests: Sequence[str], least_percent: float) -> None:
    """Run, report and judge."""
    compiled = _read_whole_build()
    shutil.rmtree(TAKEN, ignore_errors=True)
    pytest = [sys.executable, "-m", "pytest", "-p", "no:pytest-brownie", "-p", "tools.branches.plugin"]
    # Nearly all the time goes into tracing; each process has a chain of its own.
    spread = ["-n", str(os.cpu_count() or 1), "--dist", "worksteal"]
    # Tracing makes single tests many times slower than their time limits foresee.
    options = ["--branches", str(TAKEN), "-q", "-o", "timeout=1200"]
    run = subprocess.run([*pytest, *spread, *options, *(tests or DEFAULT)], cwd=ROOT, check=False)
    if run.returncode != 0 or not TAKEN.is_dir():
        sys.exit(f"the tests did not pass (pytest ended with {run.returncode}): nothing is said about coverage")
    lines, percent = summary(compiled, *read_taken(TAKEN))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    if percent < least_percent:
        sys.exit(f"{percent:.1f} % of the branches were taken, and {least_percent} % are demanded")


def _read_whole_build() -> Compiled:
    """Brownie compiles what changed, and leaves the rest as another run of the compiler left it."""
    try:
        return read_build(CONTRACTS)
    except MixedBuildError as error:
        print(f"{error}: everything is compiled again", flush=True)
        subprocess.run(
            [ROOT / "tools" / "brownie", "compile", "--all"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL
        )
        return read_build(CONTRACTS)


def read_taken(folder: Path) -> tuple[dict[Site, int], int]:
    """What the plugin wrote in every process of pytest: sides by site, and the number of traces."""
    taken: dict[Site, int] = defaultdict(int)
    traces = 0
    for file in folder.glob("*.json"):
        written = json.loads(file.read_text())
        traces += written["traces"]
        for *fields, sides in written["taken"]:
            taken[Site(*fields)] |= sides
    return taken, traces


def summary(compiled: Compiled, taken: Mapping[Site, int], traces: int) -> tuple[list[str], float]:
    """Return the report's lines and the percentage; end the program if nothing was measured.

    A condition has two branches. One that no jump in the bytecode decides (it is constant, or the optimiser merged it)
    counts as not taken, so that it is looked at.
    """
    if not traces or not compiled.sites or not taken:
        sys.exit(f"nothing was measured: {traces} traces, {len(compiled.sites)} conditions, {len(taken)} seen")
    lines = [f"{'file':<34} branches  taken      %"]
    for path in sorted({site.path for site in compiled.sites}):
        sides = [taken.get(site, 0).bit_count() for site in compiled.sites if site.path == path]
        lines.append(f"{path:<34} {2 * len(sides):8} {sum(sides):6} {_percent(sides):6.1f}")
    total = [taken.get(site, 0).bit_count() for site in compiled.sites]
    lines.append(f"{'all':<34} {2 * len(total):8} {sum(total):6} {_percent(total):6.1f}   ({traces} traces)")
    for site in sorted(compiled.sites):
        if taken.get(site, 0) != BOTH:
            lines.append(f"missing: {site} {_missing(site, compiled, taken.get(site, 0))}")
    return lines, _percent(total)


def _percent(sides: Sequence[int]) -> float:
    return 100 * sum(sides) / (2 * len(sides))


def _missing(site: Site, compiled: Compiled, sides: int) -> str:
    if site not in compiled.reachable:
        return "is in no bytecode"
    if sides == 0:
        return "was never reached"
    was_true = (sides == TRUE) == (site.kind in JUMPS_IF_TRUE)
    return "was never false" if was_true else "was never true"

"""Plays mutants against the tests, one after the other, in a copy of the checkout."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offchain import toolchain
from tools.mutation.operators import Mutant, mutants_of

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build" / "mutants"
COPY = WORK / "copy"
RESULTS = WORK / "results.jsonl"
REPORT = ROOT / "reports" / "mutants.md"
ACCEPTED = ROOT / "tests" / "contracts" / "surviving_mutants.md"
EXCLUDED = ("contracts/mocks/", "contracts/interfaces/", "contracts/verifiers/")
PYTEST = (
    f"{sys.executable} -m pytest -p no:pytest-brownie -p no:cacheprovider -x -q tests/contracts -m 'not slow' "
    "--ignore=tests/contracts/test_gas.py --ignore=tests/contracts/test_brownie_commands.py"
)
FORGE = "node_modules/.bin/forge test"
NOTICED, SURVIVED, SAME, INVALID = "noticed", "survived", "same bytecode", "does not compile"

Artefacts = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Build:
    """What the compiler made of the contracts."""

    artefacts: Artefacts
    trees: dict[str, dict[str, Any]]

    @property
    def code(self) -> dict[str, str]:
        """What would be deployed, by contract."""
        return {name: artefact["bytecode"] for name, artefact in self.artefacts.items()}


def read_sources(root: Path) -> dict[str, bytes]:
    """The contracts of a checkout, by their path."""
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted((root / "contracts").rglob("*.sol"))}


def compile_contracts(sources: Mapping[str, bytes]) -> Build:
    """Compile with the settings of ``brownie-config.yaml``, but for the hash of the sources, which would always differ.

    Raises:
        CompilationError: they do not compile.
    """
    selection = {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"], "": ["ast"]}}
    answer = toolchain.solc_standard_json(
        {
            "language": "Solidity",
            "sources": {path: {"content": source.decode()} for path, source in sources.items()},
            "settings": {
                "evmVersion": "shanghai",
                "optimizer": {"enabled": True, "runs": 200},
                "metadata": {"bytecodeHash": "none"},
                "remappings": ["@openzeppelin=node_modules/@openzeppelin"],
                "outputSelection": selection,
            },
        }
    )
    artefacts = {
        name: {
            "abi": contract["abi"],
            "contractName": name,
            "sourcePath": path,
            "bytecode": contract["evm"]["bytecode"]["object"],
            "deployedBytecode": contract["evm"]["deployedBytecode"]["object"],
        }
        for path, contracts in answer["contracts"].items()
        for name, contract in contracts.items()
    }
    return Build(artefacts, {path: source["ast"] for path, source in answer["sources"].items() if path in sources})


def all_mutants(sources: Mapping[str, bytes], build: Build, only: Sequence[str]) -> list[Mutant]:
    """Every mutant of the contracts; ``only`` those whose path contains one of these words, if there are any."""
    paths = [path for path in sources if not path.startswith(EXCLUDED) and any(word in path for word in only or [""])]
    return [mutant for path in paths for mutant in mutants_of(path, sources[path], build.trees[path])]


def sample(mutants: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """Return ``size`` of them (all, if 0), which stay the same where other mutants come and go."""
    drawn = sorted(mutants, key=lambda mutant: hashlib.sha256(f"{seed} {mutant.key}".encode()).digest())
    return drawn[: size or None]


def make_copy() -> str:
    """Copy the files under version control as they are now; return a digest of contracts and tests."""
    shutil.rmtree(COPY, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    digest = hashlib.sha256()
    for name in sorted(filter(None, listed.stdout.split("\0"))):
        source = ROOT / name
        if not source.is_file():
            continue
        (COPY / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, COPY / name)
        if name.startswith(("contracts/", "tests/contracts/", "tests/forge/")) and not name.endswith(".md"):
            digest.update(name.encode() + b"\0" + source.read_bytes())
    for name in ("node_modules", ".venv"):
        (COPY / name).symlink_to(ROOT / name)
    return digest.hexdigest()


def install(source_path: str, source: bytes, artefacts: Artefacts) -> None:
    """Put one file and what was compiled of everything into the copy."""
    (COPY / source_path).write_bytes(source)
    folder = COPY / "build" / "contracts"
    folder.mkdir(parents=True, exist_ok=True)
    for name, artefact in artefacts.items():
        (folder / f"{name}.json").write_text(json.dumps(artefact))


def passes(commands: Sequence[str], seconds: float) -> bool:
    """Whether all commands succeed in the copy, each within its time."""
    return all(_succeeds(command, seconds) for command in commands)


def _succeeds(command: str, seconds: float) -> bool:
    environment = toolchain.environment() | {"HYPOTHESIS_STORAGE_DIRECTORY": str(WORK / "hypothesis")}
    process = subprocess.Popen(
        shlex.split(command),
        cwd=COPY,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return process.wait(seconds) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        # The chains that the tests started are in the same group.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def judge(mutant: Mutant, sources: Mapping[str, bytes], build: Build, commands: Sequence[str], seconds: float) -> str:
    """Play one mutant; leave the copy as it was."""
    changed = mutant.applied(sources[mutant.path])
    try:
        mutated = compile_contracts({**sources, mutant.path: changed})
    except toolchain.CompilationError:
        return INVALID
    if mutated.code == build.code:
        return SAME
    install(mutant.path, changed, mutated.artefacts)
    try:
        return SURVIVED if passes(commands, seconds) else NOTICED
    finally:
        install(mutant.path, sources[mutant.path], build.artefacts)


def known_results(digest: str) -> dict[str, str]:
    """What an earlier run found out about the same contracts and tests."""
    if not RESULTS.is_file():
        return {}
    entries = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    return {entry["key"]: entry["result"] for entry in entries if entry["digest"] == digest}


def play(options: argparse.Namespace) -> tuple[list[Mutant], dict[str, str], set[str]]:
    """Play the sample until it is done or the time is up; return it, the results, and the names of all mutants."""
    digest = make_copy() + " ".join(options.command)
    sources = read_sources(COPY)
    build = compile_contracts(sources)
    every = all_mutants(sources, build, options.only)
    drawn = sample(every, options.sample, options.seed)
    results = known_results(digest)
    install("contracts/Escrow.sol", sources["contracts/Escrow.sol"], build.artefacts)
    print(f"{len(every)} mutants, {len(drawn)} of them drawn, {sum(m.key in results for m in drawn)} known", flush=True)
    begun = time.monotonic()
    if any(mutant.key not in results for mutant in drawn) and not passes(options.command, options.seconds):
        sys.exit("the tests do not pass on the contracts as they are, or take longer than --seconds")
    for mutant in drawn:
        if mutant.key in results:
            continue
        if time.monotonic() - begun > 60 * options.minutes:
            break
        results[mutant.key] = judge(mutant, sources, build, options.command, options.seconds)
        with RESULTS.open("a") as file:
            file.write(json.dumps({"digest": digest, "key": mutant.key, "result": results[mutant.key]}) + "\n")
        print(f"{time.monotonic() - begun:6.0f} s  {results[mutant.key]:16} {mutant.key} {mutant}", flush=True)
    return drawn, results, {mutant.key for mutant in every}


def read_accepted(text: str) -> set[str]:
    """Names of the survivors that have a reason: lines ``- `name` change in `function`: reason``."""
    return set(re.findall(r"^- `([0-9a-f]{12})` .+ in `[^`]*`: \S", text, re.MULTILINE))


def problems_of(drawn: Sequence[Mutant], results: Mapping[str, str], accepted: set[str], every: set[str]) -> list[str]:
    """Compare both ways, so that a reason does not outlive its mutant. ``every`` is empty if only some were made."""
    survivors = [mutant for mutant in drawn if results.get(mutant.key) == SURVIVED]
    found = [f"no test notices `{mutant.key}` {mutant}" for mutant in survivors if mutant.key not in accepted]
    judged = {mutant.key for mutant in drawn if results.get(mutant.key, SURVIVED) != SURVIVED}
    found += [f"`{key}` is noticed now: take out its reason" for key in sorted(accepted & judged)]
    found += [f"`{key}` is no mutant any more: take out its reason" for key in sorted(accepted - every) if every]
    return found


def report(drawn: Sequence[Mutant], results: Mapping[str, str]) -> str:
    """What happened, as Markdown."""
    counts = {kind: sum(results.get(m.key) == kind for m in drawn) for kind in (NOTICED, SURVIVED, SAME, INVALID)}
    lines = ["# Mutants", "", ", ".join(f"{count} {kind}" for kind, count in counts.items())]
    lines += [f"{sum(m.key not in results for m in drawn)} were not played", "", "## Survivors", ""]
    lines += [
        f"- `{m.key}` {m} in `{m.context.split(' | ')[0]}`: " for m in sorted(drawn) if results.get(m.key) == SURVIVED
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Play, report and compare with what has been explained."""
    parser = argparse.ArgumentParser(description="Change the contracts in small ways and see whether a test notices.")
    parser.add_argument("--sample", type=int, default=60, help="how many mutants to play; 0 for all")
    parser.add_argument("--seed", type=int, default=1, help="which ones")
    parser.add_argument("--minutes", type=float, default=45, help="begin no other mutant after so long")
    parser.add_argument(
        "--seconds", type=float, default=400, help="for each command; a mutant that takes longer is noticed"
    )
    parser.add_argument("--only", action="append", default=[], help="part of a path; may be repeated")
    parser.add_argument("--command", action="append", help="a test command, in the copy; may be repeated")
    options = parser.parse_args()
    options.command = options.command or [PYTEST, FORGE]
    # Whoever ends this early ends the tests that are running too: their clean-up is in `finally`.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    drawn, results, every = play(options)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(report(drawn, results))
    print(f"see {REPORT.relative_to(ROOT)}")
    if not any(results.get(mutant.key) in (NOTICED, SURVIVED) for mutant in drawn):
        sys.exit("no mutant was played")
    accepted = read_accepted(ACCEPTED.read_text()) if ACCEPTED.is_file() else set()
    problems = problems_of(drawn, results, accepted, set() if options.only else every)
    if problems:
        sys.exit("\n".join([*problems, f"Add a test, or the reason to {ACCEPTED.relative_to(ROOT)}"]))

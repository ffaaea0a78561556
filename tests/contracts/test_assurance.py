"""The tools that judge the contracts' tests do not pass for having done nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.branches.plugin import Recorder
from tools.branches.report import read_taken, summary
from tools.branches.sites import Compiled, MixedBuildError, Site, read_build
from tools.mutation.campaign import NOTICED, SURVIVED, problems_of, read_accepted
from tools.mutation.operators import Mutant

pytestmark = pytest.mark.unit

SITES = [Site("contracts/A.sol", 10 * index, 5, index, "if") for index in range(2)]
COMPILED = Compiled(frozenset(SITES), (), (), frozenset())
MUTANT = Mutant("contracts/A.sol", 1, 0, 1, "operator", "<", "<=", "f | a < b | 1")


def test_summary__one_side_of_four_missing__is_named() -> None:
    lines, percent = summary(COMPILED, {SITES[0]: 3, SITES[1]: 1}, traces=1)
    assert percent == 75
    assert [line for line in lines if "missing" in line] != []


@pytest.mark.parametrize("traces", [0, 1])
def test_summary__nothing_measured__ends_the_program(traces: int) -> None:
    with pytest.raises(SystemExit):
        summary(COMPILED, {}, traces)


def brownie_artefact(
    name: str, index: int, imported: dict[str, int], listed: dict[str, str], code: str
) -> dict[str, Any]:
    """An artefact of a file whose only condition is at byte 4; its code is a jump on that of file 1.

    Args:
        imported: numbers of syntax trees by the names of the files.
        listed: the files that Brownie found that the code comes from.
    """
    nodes = [
        {"nodeType": "ImportDirective", "absolutePath": f"contracts/{path}.sol", "sourceUnit": unit}
        for path, unit in imported.items()
    ]
    condition = {"nodeType": "IfStatement", "src": f"4:9:{index}"}
    return {
        "sourcePath": f"contracts/{name}.sol",
        "source": f"//{name}\nif (a) b();",
        "ast": {"id": 100 + index, "src": f"0:13:{index}", "nodes": [*nodes, condition]},
        "allSourcePaths": {str(index): f"contracts/{name}.sol", **listed},
        "bytecode": code,
        "deployedBytecode": code,
        "sourceMap": "4:9:1:-:0" if code else "",
        "deployedSourceMap": "4:9:1:-:0" if code else "",
        "abi": [],
    }


def write_build(folder: Path, library_unit: int = 101) -> Path:
    """C is a B, and B uses the library L: Brownie does not list L among the files of C."""
    artefacts = [
        brownie_artefact("B", 0, {"L": library_unit}, {"1": "contracts/L.sol"}, ""),
        brownie_artefact("L", 1, {}, {}, ""),
        brownie_artefact("C", 2, {"B": 100}, {"0": "contracts/B.sol"}, "57"),
    ]
    for item in artefacts:
        (folder / f"{Path(item['sourcePath']).stem}.json").write_text(json.dumps(item))
    return folder


def test_read_build__library_of_an_inherited_contract__is_found_in_the_bytecode(tmp_path: Path) -> None:
    compiled = read_build(write_build(tmp_path))
    assert [site.path for site in sorted(compiled.sites)] == ["contracts/B.sol", "contracts/C.sol", "contracts/L.sol"]
    assert {site.path for site in compiled.reachable} == {"contracts/L.sol"}
    assert [{at: site.path for at, site in code.jumps.items()} for code in compiled.runtime] == [{0: "contracts/L.sol"}]


def test_read_build__files_numbered_in_two_runs_of_the_compiler__is_refused(tmp_path: Path) -> None:
    with pytest.raises(MixedBuildError):
        read_build(write_build(tmp_path, library_unit=555))
    write_build(tmp_path)
    apart = brownie_artefact("Mock", 1, {}, {}, "")
    (tmp_path / "Mock.json").write_text(json.dumps(apart))
    with pytest.raises(MixedBuildError):
        read_build(tmp_path)


def test_read_taken__two_processes__adds_up_what_each_took(tmp_path: Path) -> None:
    for name, sides in (("1", 1), ("2", 2)):
        written = {"traces": 4, "taken": [[*vars(SITES[0]).values(), sides]]}
        (tmp_path / f"{name}.json").write_text(json.dumps(written))
    assert read_taken(tmp_path) == ({SITES[0]: 3}, 8)


def test_begin_test__view_that_showed_nothing_new_before__is_traced_again(monkeypatch: pytest.MonkeyPatch) -> None:
    view = bytes.fromhex("01020304")
    recorder = Recorder(Compiled(frozenset(SITES), (), (), frozenset([view])), views_until_idle=2)
    monkeypatch.setattr("tools.branches.plugin._make_request", lambda *_: {"result": []})

    def look(times: int) -> int:
        for _ in range(times):
            recorder.observe(None, "eth_call", [{"data": "0x" + view.hex()}], {"result": "0x"})  # type: ignore[arg-type]
        return recorder.traces

    assert look(5) == 2
    recorder.begin_test()
    assert look(5) == 4


def test_problems_of__survivor_without_a_reason__is_one() -> None:
    assert problems_of([MUTANT], {MUTANT.key: SURVIVED}, set(), {MUTANT.key}) != []
    accepted = read_accepted(f"- `{MUTANT.key}` {MUTANT} in `f`: equal for all that can be reached\n")
    assert problems_of([MUTANT], {MUTANT.key: SURVIVED}, accepted, {MUTANT.key}) == []


def test_read_accepted__line_without_a_reason__is_none() -> None:
    assert read_accepted(f"- `{MUTANT.key}` {MUTANT} in `f`: \n") == set()


def test_problems_of__reason_for_what_is_noticed_or_gone__is_one() -> None:
    assert problems_of([MUTANT], {MUTANT.key: NOTICED}, {MUTANT.key}, {MUTANT.key}) != []
    assert problems_of([MUTANT], {MUTANT.key: SURVIVED}, {MUTANT.key, "0" * 12}, {MUTANT.key}) != []

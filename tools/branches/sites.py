"""Where the contracts branch: in their sources, and in the bytecode that the compiler made of them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from eth_utils.abi import function_abi_to_4byte_selector

EXCLUDED = ("contracts/mocks/", "contracts/interfaces/", "contracts/verifiers/")
KINDS = {
    "IfStatement": "if",
    "Conditional": "ternary",
    "ForStatement": "for",
    "WhileStatement": "while",
    "DoWhileStatement": "do",
    "TryStatement": "try",
    "YulIf": "if (assembly)",
    "YulForLoop": "for (assembly)",
}
_PUSH0, _PUSH1, _PUSH32, _JUMPI = 0x5F, 0x60, 0x7F, 0x57


class MixedBuildError(Exception):
    """The artefacts are not all of one run of the compiler, which numbers the files anew in each."""


@dataclass(frozen=True, order=True)
class Site:
    """One condition in a source file, with a true and a false side."""

    path: str
    start: int
    length: int
    line: int
    kind: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.kind}"


class Code:
    """The bytecode of one contract, with the conditions that its jumps decide.

    Args:
        code: as the compiler left it, with zeros for immutables.
        jumps: sites by the position of the jump that decides them.
    """

    def __init__(self, code: bytes, jumps: dict[int, Site]) -> None:
        self.code = code
        self.jumps = jumps

    @cached_property
    def _program(self) -> bytes:
        """Without the hash of the metadata: what another contract deploys may have been compiled beside other files.

        Source: https://docs.soliditylang.org/en/v0.8.37/metadata.html (encoding of the metadata hash in the bytecode)
        """
        return self.code[: -2 - int.from_bytes(self.code[-2:], "big")]

    @cached_property
    def _fixed(self) -> list[tuple[int, int]]:
        """Ranges without the immutables, which are pushed as 32 bytes."""
        fixed, begin, end = [], 0, len(self._program)
        for position, operation in _instructions(self._program):
            if operation == _PUSH32 and not any(self.code[position + 1 : position + 33]):
                fixed.append((begin, position + 1))
                begin = position + 33
        return [*fixed, (begin, end)]

    def is_code_of(self, deployed: bytes) -> bool:
        """Whether this is what was deployed, immutables aside."""
        return len(deployed) == len(self.code) and all(deployed[a:b] == self.code[a:b] for a, b in self._fixed)

    def begins(self, initialisation: bytes) -> bool:
        """Whether this is the creation code of what is being deployed; its arguments follow."""
        return initialisation.startswith(self._program)


@dataclass(frozen=True)
class Compiled:
    """All contracts of a build: the sites of their sources, and their code."""

    sites: frozenset[Site]
    runtime: tuple[Code, ...]
    creation: tuple[Code, ...]
    views: frozenset[bytes]
    """Selectors of functions that change nothing."""

    @property
    def reachable(self) -> frozenset[Site]:
        """The sites that some jump decides."""
        return frozenset(site for code in (*self.runtime, *self.creation) for site in code.jumps.values())


def read_build(folder: Path) -> Compiled:
    """Read what Brownie compiled.

    Args:
        folder: of Brownie's artefacts, ``build/contracts``.

    Raises:
        MixedBuildError: they were compiled apart.
    """
    artefacts = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    paths = paths_by_index(artefacts)
    found = {(site.path, site.start, site.length): site for item in artefacts for site in _sites_of(item)}
    deployable = [item for item in artefacts if item["bytecode"]]
    return Compiled(
        frozenset(found.values()),
        tuple(_code(item, "deployedBytecode", "deployedSourceMap", paths, found) for item in deployable),
        tuple(_code(item, "bytecode", "sourceMap", paths, found) for item in deployable),
        frozenset(_view_selectors(artefacts)),
    )


def paths_by_index(artefacts: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The file that each number in a source map stands for.

    Brownie's own list, ``allSourcePaths``, is not enough: it leaves out libraries that a contract uses only through a
    contract that it inherits from, and with them every jump of theirs in its bytecode.

    Args:
        artefacts: as Brownie writes them; each says its own file's number in its syntax tree.

    Raises:
        MixedBuildError: they were compiled apart.
    """
    paths: dict[str, str] = {}
    units = {artefact["sourcePath"]: artefact["ast"]["id"] for artefact in artefacts}
    for artefact in artefacts:
        own = artefact["ast"]["src"].rpartition(":")[2]
        for index, path in [(own, artefact["sourcePath"]), *artefact["allSourcePaths"].items()]:
            if paths.setdefault(index, path) != path:
                raise MixedBuildError(f"file {index} is {paths[index]} as well as {path}")
        for node in artefact["ast"]["nodes"]:
            # A tree of another run has other numbers, also where the files were the same.
            imported = node.get("absolutePath") if node["nodeType"] == "ImportDirective" else None
            if imported in units and units[imported] != node["sourceUnit"]:
                raise MixedBuildError(f"{artefact['sourcePath']} was compiled beside another {imported}")
    return paths


def _sites_of(artefact: dict[str, Any]) -> Iterator[Site]:
    path = artefact["sourcePath"]
    if not path.startswith("contracts/") or path.startswith(EXCLUDED):
        return
    # The compiler counts bytes.
    source = artefact["source"].encode()
    for node in _nodes(artefact["ast"]):
        kind = _kind(node)
        if kind is not None:
            start, length, _ = (int(part) for part in node["src"].split(":"))
            yield Site(path, start, length, source.count(b"\n", 0, start) + 1, kind)


def _kind(node: dict[str, Any]) -> str | None:
    name = node.get("nodeType")
    if name == "BinaryOperation":
        return node["operator"] if node["operator"] in ("&&", "||") else None
    if name == "FunctionCall":
        # assert says that its other side cannot be reached.
        return "require" if node["expression"].get("name") == "require" else None
    if name == "ForStatement" and not node.get("condition"):
        return None
    return KINDS.get(name or "")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        for value in tree.values():
            yield from _nodes(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _nodes(value)


def _instructions(code: bytes) -> Iterator[tuple[int, int]]:
    position = 0
    while position < len(code):
        operation = code[position]
        yield position, operation
        position += 1 + (operation - _PUSH0 if _PUSH1 <= operation <= _PUSH32 else 0)


def _code(
    artefact: dict[str, Any],
    code: str,
    source_map: str,
    paths: Mapping[str, str],
    sites: dict[tuple[str, int, int], Site],
) -> Code:
    """Jumps whose source is exactly a condition: what the compiler adds (overflow, decoding, dispatch) has others."""
    binary = bytes.fromhex(artefact[code].removeprefix("0x"))
    jumps = {}
    located = _locations(artefact[source_map])
    for (position, operation), (start, length, file) in zip(_instructions(binary), located, strict=False):
        site = sites.get((paths.get(str(file), ""), start, length))
        if operation == _JUMPI and site is not None:
            jumps[position] = site
    return Code(binary, jumps)


def _locations(source_map: str) -> Iterator[tuple[int, int, int]]:
    """Each instruction's start, length and file; what is left out is as before.

    Source: https://docs.soliditylang.org/en/v0.8.37/internals/source_mappings.html
    """
    last = ["0", "0", "-1"]
    for entry in source_map.split(";"):
        for index, part in enumerate(entry.split(":")[:3]):
            if part:
                last[index] = part
        yield int(last[0]), int(last[1]), int(last[2])


def _view_selectors(artefacts: list[dict[str, Any]]) -> Iterator[bytes]:
    for artefact in artefacts:
        for entry in artefact["abi"]:
            if entry.get("stateMutability") in ("view", "pure") and entry["type"] == "function":
                yield function_abi_to_4byte_selector(entry)

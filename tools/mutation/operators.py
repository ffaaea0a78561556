"""Small changes of a contract's source, found in the compiler's syntax tree."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SWAPS = {
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "==": ("!=",),
    "!=": ("==",),
    "&&": ("||",),
    "||": ("&&",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "%": ("*",),
    "<<": (">>",),
    ">>": ("<<",),
    "&": ("|",),
    "|": ("&",),
    "^": ("&",),
    "+=": ("-=", "="),
    "-=": ("+=", "="),
    "++": ("--",),
    "--": ("++",),
}


@dataclass(frozen=True, order=True)
class Mutant:
    """One change: bytes ``start`` to ``end`` of a file become ``new``."""

    path: str
    line: int
    start: int
    end: int
    operator: str
    old: str
    new: str
    context: str
    """The function it is in and the line of source, without which equal changes could not be told apart."""

    @property
    def key(self) -> str:
        """A name that survives changes elsewhere in the file."""
        text = "\0".join((self.path, self.operator, self.old, self.new, self.context))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def applied(self, source: bytes) -> bytes:
        """Return the changed file."""
        assert source[self.start : self.end].decode() == self.old
        return source[: self.start] + self.new.encode() + source[self.end :]

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.path}:{self.line} {self.operator}: `{old}` -> `{new or '(nothing)'}`"


def mutants_of(path: str, source: bytes, tree: dict[str, Any]) -> list[Mutant]:
    """Return every change of one file that is known here.

    Args:
        path: as the compiler has it.
        source: the file.
        tree: its syntax tree, as solc writes it.
    """
    seen: dict[tuple[int, int, str], Mutant] = {}
    counted: dict[str, int] = {}
    for function, start, end, operator, new in _changes(source, tree):
        line_start = source.rfind(b"\n", 0, start) + 1
        line = source[line_start : source.find(b"\n", start)].decode().strip()
        old = source[start:end].decode()
        place = f"{function} | {line} | {operator} | {old} | {new}"
        counted[place] = counted.get(place, 0) + 1
        context = f"{function} | {line} | {counted[place]}"
        mutant = Mutant(path, source.count(b"\n", 0, start) + 1, start, end, operator, old, new, context)
        seen.setdefault((start, end, new), mutant)
    return sorted(seen.values())


def _changes(source: bytes, tree: Any, function: str = "-") -> Iterator[tuple[str, int, int, str, str]]:
    """Yield function, start, end, operator and replacement."""
    if isinstance(tree, list):
        for item in tree:
            yield from _changes(source, item, function)
        return
    if not isinstance(tree, dict):
        return
    kind = tree.get("nodeType")
    if kind in ("FunctionDefinition", "ModifierDefinition"):
        function = tree.get("name") or tree.get("kind", "-")
    if kind in _CHANGES:
        for start, end, operator, new in _CHANGES[kind](source, tree):
            yield function, start, end, operator, new
    for name, value in tree.items():
        if name not in ("documentation", "typeDescriptions", "typeName"):
            yield from _changes(source, value, function)


def _span(node: dict[str, Any]) -> tuple[int, int]:
    start, length, _ = (int(part) for part in node["src"].split(":"))
    return start, start + length


def _between(source: bytes, left: dict[str, Any], right: dict[str, Any], symbol: str) -> Iterator[tuple[int, int]]:
    begin, end = _span(left)[1], _span(right)[0]
    at = source.find(symbol.encode(), begin, end)
    if at >= 0:
        yield at, at + len(symbol)


def _binary(source: bytes, node: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    for start, end in _between(source, node["leftExpression"], node["rightExpression"], node["operator"]):
        for new in SWAPS.get(node["operator"], ()):
            yield start, end, "operator", new


def _assignment(source: bytes, node: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    for start, end in _between(source, node["leftHandSide"], node["rightHandSide"], node["operator"]):
        for new in SWAPS.get(node["operator"], ()):
            yield start, end, "operator", new


def _unary(source: bytes, node: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    start, end = _span(node)
    if node["operator"] == "!":
        yield start, start + 1, "negation", ""


def _condition(source: bytes, node: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    start, end = _span(node["condition"])
    for value in ("true", "false"):
        yield start, end, "condition", value


def _statement(source: bytes, node: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    inner = node["expression"]
    start, end = _span(node)
    if inner["nodeType"] in ("FunctionCall", "Assignment", "UnaryOperation"):
        semicolon = source.find(b";", end - 1, end + 1)
        yield start, semicolon if semicolon >= 0 else end, "statement", ""


def _literal(source: bytes, node: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    start, end = _span(node)
    text = source[start:end].decode().replace("_", "")
    if node.get("kind") == "number" and text.isdecimal():
        yield start, end, "number", str(int(text) + 1)
        if int(text) > 1:
            yield start, end, "number", str(int(text) - 1)
    elif node.get("kind") == "bool":
        yield start, end, "truth", "false" if text == "true" else "true"


def _modifier(source: bytes, node: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    if node.get("kind") == "modifierInvocation":
        yield *_span(node), "modifier", ""


def _return(source: bytes, node: dict[str, Any]) -> Iterator[tuple[int, int, str, str]]:
    if not node.get("expression"):
        yield *_span(node), "return", ""


_CHANGES = {
    "BinaryOperation": _binary,
    "Assignment": _assignment,
    "UnaryOperation": _unary,
    "IfStatement": _condition,
    "Conditional": _condition,
    "ExpressionStatement": _statement,
    "Literal": _literal,
    "ModifierInvocation": _modifier,
    "Return": _return,
}

"""Which circuits admit one output only.

The prover's tool divides by letting whoever proves claim a quotient, and checks no more than that it is off by less
than one: rounding down and rounding up both pass. So where a circuit divides, one input has several outputs that prove.
Everything else that a circuit does is listed by the tool; what is known to leave no choice is listed here.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import CircuitRefused
from offchain.proving.settings import RunParameters, read_settings

MAX_SCALE_GAP = 63
"""The tool brings two branches to one scale with a factor of 64 bits, and a larger one wraps in silence."""


def _kinds(names: str) -> frozenset[str]:
    return frozenset(names.split())


_UNAMBIGUOUS = _kinds(
    "INPUT CONST EINSUM CONV ADD SUB MULT NEG POW SUM SUMPOOL ABS LEAKYRELU MIN MAX MAXPOOL IFF GREATER GREATEREQUAL "
    "LESS LESSEQUAL EQUALS AND OR XOR NOT SIGN FLOOR CEIL ROUND ROUNDHALFTOEVEN IDENTITY RESHAPE MOVEAXIS CONCAT SLICE "
    "PAD DOWNSAMPLE GATHER SIGMOID TANH ERF"
)
_PRODUCTS = _kinds("EINSUM MULT")
_SAME_SCALE = _kinds("ADD SUB NEG SUM SUMPOOL ABS MIN MAX MAXPOOL RESHAPE MOVEAXIS CONCAT SLICE PAD DOWNSAMPLE GATHER")
_KIND = re.compile(r"([A-Za-z_]+)")
_WRAPPED = re.compile(r"RESCALED INPUT \((.*)\)")
_SOURCE = re.compile(r"\((\d+), \d+\)")


@dataclass(frozen=True)
class Node:
    """One operation of a circuit.

    Args:
        number: what others refer to it by.
        operation: what it does, in the tool's words.
        scale: fixed-point fractional bits of what it puts out.
        sources: the nodes that it takes.
        aligns: whether its inputs are brought to one scale first.
    """

    number: int
    operation: str
    scale: int
    sources: tuple[int, ...]
    aligns: bool = False

    @property
    def kind(self) -> str:
        """The operation without its arguments, in capitals."""
        found = _KIND.match(self.operation)
        return found[1].upper() if found else self.operation


def read_table(table: str, name: str = "segment") -> tuple[Node, ...]:
    """Read the tool's table of operations.

    Raises:
        CircuitRefused: it is not such a table.
    """
    nodes = []
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) != 5 or cells[0] == "idx":
            continue
        try:
            wrapped = _WRAPPED.fullmatch(cells[1])
            sources = tuple(int(source) for source in _SOURCE.findall(cells[3]))
            operation = wrapped[1] if wrapped else cells[1]
            nodes.append(Node(int(cells[0]), operation, int(cells[2]), sources, wrapped is not None))
        except ValueError as error:
            raise CircuitRefused(name, f"its table of operations is unreadable ({error})", _MEND) from error
    if not nodes:
        raise CircuitRefused(name, "its table of operations is empty", _MEND)
    return tuple(nodes)


_MEND = "check the version of the proving tool"


def find_ambiguities(nodes: Sequence[Node], input_scale: int, output_scale: int, name: str = "segment") -> list[str]:
    """Return why one input has several outputs, each reason once; nothing where it has one.

    The scales are added up again beside the names, so that a division which the table does not show is noticed.

    Raises:
        CircuitRefused: two branches meet at scales too far apart, which the tool would get wrong in silence.
    """
    reasons = []
    scales = {node.number: node.scale for node in nodes}
    for node in nodes:
        taken = [scales[source] for source in node.sources if source in scales]
        if taken and max(taken) - min(taken) > MAX_SCALE_GAP and node.kind not in _PRODUCTS | {"CONV"}:
            problem = f"two branches meet at scales {min(taken)} and {max(taken)}"
            raise CircuitRefused(name, problem, "lower the scales, or cut the model between the branches")
        reasons.append(_doubt(node) or _miscounted(node, taken))
    if scales[nodes[-1].number] != output_scale or nodes[0].scale != input_scale:
        reasons.append("its settings give other scales than its operations")
    return list(dict.fromkeys(reason for reason in reasons if reason))


def _doubt(node: Node) -> str:
    if node.kind == "REBASED":
        return "rescale: the prover may round either way"
    if node.kind == "SUMPOOL" and "normalized=true" in node.operation:
        return "average pool: the prover may round either way"
    if node.kind == "GATHER" and len(node.sources) != 1:
        return "gather: its indices are computed, and bound by a table"
    if "ARGM" in node.kind:
        return "argmax: ties bind no index"
    if node.kind not in _UNAMBIGUOUS:
        return f"{node.kind.lower()}: not known to have one output"
    return ""


def _miscounted(node: Node, taken: Sequence[int]) -> str:
    if not taken:
        return ""
    if node.kind in _PRODUCTS:
        expected = sum(taken)
    elif node.kind == "CONV":
        expected = taken[0] + taken[1]
    elif node.kind in _SAME_SCALE or (node.kind == "LEAKYRELU" and "slope=0)" in node.operation):
        expected = max(taken)
    else:
        return ""
    return "" if node.scale == expected else f"{node.kind.lower()}: its scale is {node.scale} and not {expected}"


def ambiguities_of(
    prover: EzklProver, segments: Sequence[bytes], settings: Sequence[bytes]
) -> tuple[tuple[str, ...], ...]:
    """Return for each segment why one input has several outputs that prove; see :func:`find_ambiguities`.

    It takes the ONNX files and the settings only, so that an auditor gets the same answer.

    Raises:
        CircuitRefused: the tool cannot list a segment's operations, or its scales are too far apart.
    """
    names = [f"segment[{index}]" for index in range(len(segments))]
    with tempfile.TemporaryDirectory() as scratch:
        jobs = []
        for name, onnx, text in zip(names, segments, settings, strict=True):
            path = Path(scratch) / f"{name}.onnx"
            path.write_bytes(onnx)
            run_args = RunParameters.from_settings(text, name).to_run_args()
            jobs.append({"onnx": str(path), "run_args": run_args, "name": name})
        answer = prover.call("node_tables", {"jobs": jobs}, prover.limits.settings_seconds, "model")
    found = []
    for name, table, text in zip(names, answer["tables"], settings, strict=True):
        summary = read_settings(text, name)
        nodes = read_table(table, name)
        found.append(tuple(find_ambiguities(nodes, summary.input_scale, summary.output_scale, name)))
    return tuple(found)

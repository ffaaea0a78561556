"""Lays a model out in a line: pieces between neighbouring cuts, of which a segment is a run.

A model of which a part cannot be proved is not refused. Its *stretches* are what lies between operators that no circuit
is made of, as far as one tensor leads in and one out. Untrusted files are parsed in a killable child process.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from offchain.errors import InvalidInputError
from offchain.inference.onnx_model import MAX_MODEL_BYTES
from offchain.inference.splitting import Cut
from offchain.sandbox import run_limited

if TYPE_CHECKING:
    import onnx

MAX_PIECES = 20
MAX_GROUP_ROWS = 40_960
"""A layer whose circuit would have more is offered in parts: five eighths of 2^15 rows folded once, since each part
carries what the others need."""
ROWS_PER_ACTIVATION = 16
"""Of a ReLU, with its input's range check, two digits each."""
TIMEOUT_SECONDS = 120.0
MEMORY_BYTES = 4 << 30

EXACT_OPERATORS = frozenset(
    {
        "Add",
        "AveragePool",
        "Concat",
        "Constant",
        "Conv",
        "Flatten",
        "Gather",
        "Gemm",
        "Identity",
        "LeakyRelu",
        "MatMul",
        "MaxPool",
    }
    | {"Mul", "Neg", "Pad", "ReduceSum", "Relu", "Reshape", "Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
)
"""Operators whose result needs no rescaling before the next: without it scales add up, and nothing else changes."""
ROUNDED_OPERATORS = frozenset({"AveragePool", "ReduceMean", "GlobalAveragePool", "Div", "BatchNormalization"})
"""Operators that divide by a constant, which the prover may round up or down as it likes."""


@dataclass(frozen=True)
class Unprovable:
    """An operator, or a piece, that no worker can prove.

    Attributes:
        name: of the node, or of the tensors around the piece.
        operator: its type, or those of the piece.
        reason: what forbids it.
    """

    name: str
    operator: str
    reason: str


@dataclass(frozen=True)
class Boundary:
    """A tensor at which a stretch begins, can be cut, or ends."""

    name: str
    elements: int


@dataclass(frozen=True)
class Piece:
    """What lies between two neighbouring boundaries.

    Attributes:
        operators: their types as they are proved, constants left out.
        cost: estimated, in multiply-accumulates.
    """

    operators: tuple[str, ...]
    cost: int


@dataclass(frozen=True)
class Stretch:
    """A part of a model that can be read as a line.

    Attributes:
        onnx: the part as a model of its own.
        boundaries: one more than there are pieces.
        whole: whether it is the whole model.
        groups: layers that were cut by channels, and into how many parts; see :mod:`offchain.inference.channels`.
    """

    onnx: bytes
    boundaries: tuple[Boundary, ...]
    pieces: tuple[Piece, ...]
    whole: bool
    groups: tuple[tuple[str, int], ...] = ()

    def operators(self, start: int, stop: int) -> tuple[str, ...]:
        """The operators of a run of pieces."""
        return tuple(operator for piece in self.pieces[start:stop] for operator in piece.operators)


@dataclass(frozen=True)
class Survey:
    """What of a model can be planned, and what cannot.

    Attributes:
        stretches: in order of execution.
        unprovable: what lies between them.
        wider: the whole model with its widest layers cut by channels, in other ways; none if it is not whole.
    """

    stretches: tuple[Stretch, ...]
    unprovable: tuple[Unprovable, ...]
    wider: tuple[Stretch, ...] = ()


def survey_model(content: bytes, max_pieces: int = MAX_PIECES) -> Survey:
    """Read a model's stretches.

    Args:
        content: an ONNX file.
        max_pieces: of a stretch; the cheapest neighbours are joined until there are no more.

    Raises:
        InvalidInputError: it is no model, or nothing of it could be proved.
        NativeCallFailed: the parser crashed, or reached its limits.
    """
    if len(content) > MAX_MODEL_BYTES:
        problem = f"has {len(content)} bytes, the limit is {MAX_MODEL_BYTES}"
        raise InvalidInputError("model", problem, "plan a smaller model")
    payload = {"content": base64.b64encode(content).decode(), "max_pieces": max_pieces}
    answer = _run("survey_payload", payload)
    return Survey(
        stretches=tuple(map(_read_stretch, answer["stretches"])),
        unprovable=tuple(Unprovable(**entry) for entry in answer["unprovable"]),
        wider=tuple(map(_read_stretch, answer["wider"])),
    )


def _read_stretch(part: dict[str, Any]) -> Stretch:
    return Stretch(
        onnx=base64.b64decode(part["onnx"]),
        boundaries=tuple(Boundary(**boundary) for boundary in part["boundaries"]),
        pieces=tuple(Piece(tuple(piece["operators"]), piece["cost"]) for piece in part["pieces"]),
        whole=part["whole"],
        groups=tuple((name, count) for name, count in part["groups"]),
    )


def write_runs(
    stretch: Stretch, runs: Sequence[tuple[int, int]], directory: Path, *, products: bool = False
) -> dict[tuple[int, int], Path]:
    """Write each run of pieces as an ONNX file; returns the paths.

    Args:
        products: whether large convolutions become products of matrices.
    """
    ending = "-products.onnx" if products else ".onnx"
    paths = {run: directory / f"{run[0]}-{run[1]}{ending}" for run in runs}
    payload = {
        "content": base64.b64encode(stretch.onnx).decode(),
        "cuts": [boundary.name for boundary in stretch.boundaries[1:-1]],
        "runs": [[*run, str(path)] for run, path in paths.items()],
        "products": products,
    }
    _run("write_runs_payload", payload)
    return paths


def _run(function: str, payload: dict[str, Any]) -> dict[str, Any]:
    return run_limited(f"{__name__}:{function}", payload, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=MEMORY_BYTES)


# --- in the child -----------------------------------------------------------------------------------------------


def survey_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """Serve :func:`survey_model` in the child."""
    from offchain.inference.channels import cut_channels
    from offchain.inference.onnx_model import load_model
    from offchain.planning.stretches import find_stretches

    found, unprovable = find_stretches(base64.b64decode(payload["content"]))
    stretches = [_line_up(onnx, whole, payload["max_pieces"]) for onnx, whole in found]
    wider = [
        _line_up(cut_channels(onnx, groups), whole, payload["max_pieces"], groups)
        for onnx, whole in found
        if whole
        for groups in channel_groups(load_model(onnx))
    ]
    return {"stretches": stretches, "unprovable": [vars(entry) for entry in unprovable], "wider": wider}


def channel_groups(model: onnx.ModelProto) -> list[dict[str, int]]:
    """Say in which ways it may pay to cut a loaded model's layers by channels: those whose circuits would be large.

    First only what is channelwise is cut, which leaves scales as they are; then layers too, of which each part adds to
    the scale, where nothing is rescaled.
    """
    from offchain.inference.channels import MAX_GROUPS, wide_layers

    ways: list[dict[str, int]] = []
    layers = wide_layers(model)
    for cuts_layers in (False, True):
        groups: dict[str, int] = {}
        cut: set[str] = set()
        for layer in layers:
            names = {node.output[0] for node in layer.nodes}
            rows = layer.products // 2 + ROWS_PER_ACTIVATION * layer.activations
            count = min(math.ceil(rows / MAX_GROUP_ROWS), layer.channels, MAX_GROUPS)
            if count > 1 and layer.is_layer == cuts_layers and not cut & names:
                groups[layer.name] = count
                cut |= names
        if groups:
            ways.append(groups)
    return ways


def write_runs_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """Serve :func:`write_runs` in the child."""
    from offchain.inference.onnx_model import load_model
    from offchain.inference.rewriting import rewrite_for_proving
    from offchain.inference.splitting import split

    model = load_model(base64.b64decode(payload["content"]))
    names = payload["cuts"]
    for start, stop, path in payload["runs"]:
        around = [names[at - 1] for at in (start, stop) if 0 < at <= len(names)]
        segment = split(model, around)[1 if start else 0]
        Path(path).write_bytes(rewrite_for_proving(segment, products=payload["products"]))
    return {}


def _line_up(
    onnx: bytes, whole: bool, max_pieces: int, groups: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
    from offchain.inference.onnx_model import input_shape, load_model, output_shape
    from offchain.inference.rewriting import rewrite
    from offchain.inference.splitting import find_cuts, split, total_cost
    from offchain.planning.stretches import elements

    model = load_model(onnx)
    total = total_cost(model)
    cuts = _useful(find_cuts(model), total, max_pieces)
    names = [cut.name for cut in cuts]
    parts = [rewrite(load_model(part)) for part in split(model, names)]
    costs = [0, *(cut.cost_before for cut in cuts), total]
    ends = (
        Boundary(model.graph.input[0].name, elements(input_shape(model))),
        *(Boundary(cut.name, cut.elements) for cut in cuts),
        Boundary(model.graph.output[0].name, elements(output_shape(model))),
    )
    pieces = [
        {
            "operators": [node.op_type for node in part.graph.node if node.op_type != "Constant"],
            "cost": after - before,
        }
        for part, before, after in zip(parts, costs[:-1], costs[1:], strict=True)
    ]
    return {
        "onnx": base64.b64encode(onnx).decode(),
        "boundaries": [vars(boundary) for boundary in ends],
        "pieces": pieces,
        "whole": whole,
        "groups": list(groups.items()),
    }


def _useful(cuts: Sequence[Cut], total: int, max_pieces: int) -> list[Cut]:
    """Drop cuts that would part nothing that costs anything, then those beside the cheapest pieces."""
    last_of = {cut.cost_before: cut for cut in cuts if 0 < cut.cost_before < total}
    useful = list(last_of.values())
    while len(useful) >= max_pieces:
        costs = [0, *(cut.cost_before for cut in useful), total]
        # A cut within a layer goes first: its boundary is seldom smaller than the one behind the activation.
        _, at = min(
            (costs[index + 2] - costs[index], index) for index, cut in enumerate(useful) if _may_go(cut, useful)
        )
        del useful[at]
    return useful


def _may_go(cut: Cut, cuts: Sequence[Cut]) -> bool:
    return not cut.ends_layer or all(other.ends_layer for other in cuts)

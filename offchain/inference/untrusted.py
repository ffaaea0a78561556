"""Inspects and splits models that nobody vouches for, in a killable child process."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offchain.errors import InvalidInputError
from offchain.inference.channels import cut_channels
from offchain.inference.onnx_model import MAX_MODEL_BYTES, input_shape, load_model, output_shape
from offchain.inference.rewriting import rewrite_for_proving
from offchain.inference.splitting import Cut, choose_cuts, find_cuts, split, total_cost
from offchain.sandbox import run_limited

TIMEOUT_SECONDS = 60.0
MEMORY_BYTES = 2 * 1024 * 1024 * 1024


@dataclass(frozen=True)
class ModelSummary:
    """What can be said of a model without running it.

    Attributes:
        input_shape, output_shape: with the batch dimension 1.
        operators: of the graph in order, for example ``("Conv", "Relu", "Gemm")``.
        parameters: how many weights.
        cost: estimated, in multiply-accumulates.
        cuts: where it can be cut.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    operators: tuple[str, ...]
    parameters: int
    cost: int
    cuts: tuple[Cut, ...]


@dataclass(frozen=True)
class Segment:
    """One part of a split model.

    Attributes:
        onnx: the file, with input ``input`` and output ``output``, in the operators that it is proved in: see
            :mod:`offchain.inference.rewriting`.
        label: the model's own operators in short, for example ``Conv-Relu``.
        input_shape, output_shape: with the batch dimension 1.
        cost: estimated, in multiply-accumulates.
    """

    onnx: bytes
    label: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    cost: int


def inspect_model(content: bytes) -> ModelSummary:
    """Check a model and summarise it.

    Raises:
        InvalidInputError: it is not a model that Interlock supports.
        NativeCallFailed: the parser crashed, or reached its limits.
    """
    answer = _run("inspect_payload", {"content": _encode(content)})
    return ModelSummary(
        input_shape=tuple(answer["input_shape"]),
        output_shape=tuple(answer["output_shape"]),
        operators=tuple(answer["operators"]),
        parameters=answer["parameters"],
        cost=answer["cost"],
        cuts=tuple(
            Cut(cut["name"], tuple(cut["shape"]), cut["elements"], cut["cost_before"], cut["ends_layer"])
            for cut in answer["cuts"]
        ),
    )


def split_model(
    content: bytes,
    *,
    cuts: Sequence[str] | None = None,
    segments: int | None = None,
    products: Sequence[bool] | None = None,
    groups: Mapping[str, int] | None = None,
) -> tuple[Segment, ...]:
    """Check a model and split it at the given cuts, or into a number of balanced segments.

    Args:
        content: an ONNX file.
        cuts: names of tensors, see :func:`offchain.inference.splitting.split`.
        segments: how many segments instead; exactly one of the two must be given.
        products: for each segment whether its large convolutions become products of matrices; none if left out.
        groups: layers to cut by channels first, see :func:`offchain.inference.channels.cut_channels`.

    Raises:
        InvalidInputError: it is not a model that Interlock supports, or cannot be cut there.
        NativeCallFailed: the parser crashed, or reached its limits.
    """
    if (cuts is None) == (segments is None):
        raise InvalidInputError("cuts", "and segments are not exactly one", "give either cuts or a number of segments")
    payload = {
        "content": _encode(content),
        "cuts": None if cuts is None else list(cuts),
        "segments": segments,
        "products": None if products is None else list(products),
        "groups": dict(groups or {}),
    }
    return tuple(
        Segment(
            base64.b64decode(part["onnx"]),
            part["label"],
            tuple(part["input_shape"]),
            tuple(part["output_shape"]),
            part["cost"],
        )
        for part in _run("split_payload", payload)["segments"]
    )


def _encode(content: bytes) -> str:
    if len(content) > MAX_MODEL_BYTES:
        raise InvalidInputError(
            "model", f"has {len(content)} bytes, the limit is {MAX_MODEL_BYTES}", "register a smaller model"
        )
    return base64.b64encode(content).decode()


def _run(function: str, payload: dict[str, Any]) -> dict[str, Any]:
    return run_limited(f"{__name__}:{function}", payload, timeout_seconds=TIMEOUT_SECONDS, memory_bytes=MEMORY_BYTES)


# --- in the child -----------------------------------------------------------------------------------------------


def inspect_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """Serve :func:`inspect_model` in the child."""
    model = load_model(base64.b64decode(payload["content"]))
    return {
        "input_shape": input_shape(model),
        "output_shape": output_shape(model),
        "operators": [node.op_type for node in model.graph.node],
        "parameters": sum(math.prod(weight.dims) for weight in model.graph.initializer),
        "cost": total_cost(model),
        "cuts": [vars(cut) for cut in find_cuts(model)],
    }


def split_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """Serve :func:`split_model` in the child."""
    model = load_model(cut_channels(base64.b64decode(payload["content"]), payload["groups"]))
    cuts = payload["cuts"]
    names = choose_cuts(model, payload["segments"]) if cuts is None else tuple(cuts)
    products = payload["products"] or [False] * (len(names) + 1)
    if len(products) != len(names) + 1:
        raise InvalidInputError("products", f"{len(products)} for {len(names) + 1} segments", "give one per segment")
    return {"segments": [_describe(*each) for each in zip(split(model, names), products, strict=True)]}


def _describe(content: bytes, products: bool) -> dict[str, Any]:
    segment = load_model(content)
    rewritten = rewrite_for_proving(content, products=products)
    load_model(rewritten)  # so that what is handed on would be accepted
    operators = [node.op_type for node in segment.graph.node if node.op_type != "Constant"]
    return {
        "onnx": base64.b64encode(rewritten).decode(),
        "label": "-".join(_shortened(operators)),
        "input_shape": input_shape(segment),
        "output_shape": output_shape(segment),
        "cost": total_cost(segment),
    }


def _shortened(operators: list[str]) -> list[str]:
    return operators if len(operators) <= 4 else [*operators[:2], f"{len(operators) - 3} more", operators[-1]]

"""Turns torch modules into ONNX files and segments. The only module here that imports torch; workers never do."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import onnx
import torch

from offchain.errors import InvalidInputError
from offchain.inference.onnx_model import load_model
from offchain.inference.splitting import choose_cuts, split

OPSET = 17


def export_module(module: torch.nn.Module, example_input: torch.Tensor) -> bytes:
    """Export a module for inference: the same weights give the same bytes, and submodules lend tensors their names.

    Args:
        module: takes and returns one float32 tensor. Left in the mode (train or eval) in which it came.
        example_input: (1, ...) float32, CPU; only its shape matters.

    Raises:
        InvalidInputError: the module cannot be exported, or uses what Interlock does not support.
    """
    content = _export(module, example_input)
    load_model(content)
    return content


def split_module(
    module: torch.nn.Module,
    example_input: torch.Tensor,
    *,
    cuts: Sequence[str] | None = None,
    segments: int | None = None,
) -> tuple[bytes, ...]:
    """Export a module and split it into ONNX segments.

    Args:
        module: takes and returns one float32 tensor.
        example_input: (1, ...) float32, CPU; only its shape matters.
        cuts: where to cut, in order: the path of a submodule behind whose output to cut (``features.1``), or the
            name of a tensor of the exported graph.
        segments: how many segments to choose instead; exactly one of the two must be given.

    Raises:
        InvalidInputError: the module cannot be exported, or cannot be cut there.
    """
    if (cuts is None) == (segments is None):
        raise InvalidInputError("cuts", "and segments are not exactly one", "give either cuts or a number of segments")
    model = load_model(_export(module, example_input))
    if cuts is not None:
        return split(model, tuple(_output_of(model, cut) for cut in cuts))
    assert segments is not None
    return split(model, choose_cuts(model, segments))


def _export(module: torch.nn.Module, example_input: torch.Tensor) -> bytes:
    if example_input.ndim < 2 or example_input.shape[0] != 1 or example_input.dtype != torch.float32:
        raise InvalidInputError(
            "example_input",
            f"is {example_input.dtype} of the shape {tuple(example_input.shape)}",
            "give a float32 tensor whose first dimension is a batch of 1",
        )
    exported = io.BytesIO()
    with warnings.catch_warnings():
        # The newer exporter, which the warning recommends, fails on models that this one exports.
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            torch.onnx.export(
                module,
                (example_input,),
                exported,  # type: ignore[arg-type]  # this exporter takes any binary file
                opset_version=OPSET,
                dynamo=False,
                input_names=["input"],
                output_names=["output"],
                training=torch.onnx.TrainingMode.EVAL,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError, TypeError) as error:
            cause = str(error).strip().partition("\n")[0][:300]
            raise InvalidInputError(
                "module", f"cannot be exported ({cause})", "use layers with a standard ONNX operator"
            ) from error
    return exported.getvalue()


def _output_of(model: onnx.ModelProto, cut: str) -> str:
    """Resolve the path of a submodule to the name of its output; anything else is taken for a tensor's name."""
    inside = [
        node.output[0] for node in model.graph.node if f"{_submodule_of(node.name)}.".startswith(f"{cut.strip('.')}.")
    ]
    return inside[-1] if inside else cut


def _submodule_of(node_name: str) -> str:
    """Read the path of a submodule from a node's name: ``/block/seq/seq.0/Conv`` belongs to ``block.seq.0``.

    The exporter repeats the name of a sequence in the names of its members.
    """
    path: list[str] = []
    for scope in node_name.split("/")[1:-1]:
        if path and scope.startswith(f"{path[-1]}."):
            path.pop()
        path.append(scope)
    return ".".join(path)

"""Runs a model in floating point: the reference that circuits and segments are compared with."""

from __future__ import annotations

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from offchain.errors import InvalidInputError

_QUIET = 4  # onnxruntime's severity "fatal": failures arrive as exceptions anyway


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    """Prepare a model for execution on one thread, each operator exactly as it is written.

    Args:
        model: an ONNX file that :func:`offchain.inference.onnx_model.load_model` accepts.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Fusing would round the whole model differently from its segments.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.use_deterministic_compute = True
    options.log_severity_level = _QUIET
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_float(model: bytes, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a model on each of some samples.

    Args:
        model: an ONNX file that :func:`offchain.inference.onnx_model.load_model` accepts. One that takes several inputs
            at once is given so many; the last group is filled up with the last sample, and its outputs are dropped.
        inputs: (n, ...) float32, finite, the model's input shape behind the first dimension.

    Returns:
        outputs: (n, ...) float32.

    Raises:
        InvalidInputError: the inputs have another shape or type, or are not finite.
    """
    session = open_session(model)
    declared = session.get_inputs()[0]
    shape = tuple(declared.shape[1:])
    if inputs.ndim < 1 or inputs.shape[1:] != shape or not len(inputs):
        raise InvalidInputError("input", f"has the shape {inputs.shape}", f"send (n, {', '.join(map(str, shape))})")
    if inputs.dtype != np.float32:
        raise InvalidInputError("input", f"has the element type {inputs.dtype}", "send float32")
    if not np.isfinite(inputs).all():
        raise InvalidInputError("input", "holds NaN or infinity", "send finite numbers")
    batch = declared.shape[0] if isinstance(declared.shape[0], int) else 1  # a symbol stands for any number
    filled = np.concatenate([inputs, np.repeat(inputs[-1:], -len(inputs) % batch, axis=0)])
    parts = [session.run(None, {declared.name: filled[at : at + batch]})[0] for at in range(0, len(inputs), batch)]
    return np.concatenate(parts)[: len(inputs)]

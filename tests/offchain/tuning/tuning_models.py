"""Makes the models and the measurements that the tests of tuning share."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from offchain.tuning.machine import Probe

PROBES = (Probe(7, width=4), Probe(8, width=4), Probe(9, width=4))


def pooled(kind: str) -> bytes:
    """Export a convolution with a pool behind it."""
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], kernel_shape=[3, 3], strides=[1, 1]),
        helper.make_node(kind, ["c"], ["y"], kernel_shape=[2, 2], strides=[2, 2]),
    ]
    kernel = np.random.default_rng(0).uniform(-1, 1, size=(1, 1, 3, 3)).astype(np.float32)
    graph = helper.make_graph(
        nodes,
        "pooled",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 6, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 2, 2])],
        [numpy_helper.from_array(kernel, "kernel")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content

"""Another graph under a segment's own settings and keys: the same layer, and its output once more behind itself.

The cells that a KZG link commits to are as many as the circuit has rows, and the circuit says what is in those of the
output alone. So a graph that puts something behind it is proved with the same key, and closes with another commitment.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from offchain import sandbox
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit


def longer(content: bytes) -> bytes:
    """Have a model with an output of (1, n) put it out twice, one behind the other."""
    model = onnx.load_from_string(content)
    graph = model.graph
    output = graph.output[0]
    width = output.type.tensor_type.shape.dim[1].dim_value
    graph.node.append(helper.make_node("Concat", [output.name, output.name], ["twice"], axis=1))
    del graph.output[:]
    graph.output.append(helper.make_tensor_value_info("twice", TensorProto.FLOAT, [1, 2 * width]))
    return bytes(model.SerializeToString())


def longer_circuit(prover: EzklProver, circuit: SegmentCircuit, directory: Path) -> SegmentCircuit:
    """Compile the longer graph under the circuit's settings; everything else, the keys above all, is the circuit's own.

    Args:
        directory: where to put the files; it does not exist.
    """
    directory.mkdir()
    other = replace(circuit, directory=directory)
    for kept in (circuit.settings, circuit.vk, circuit.pk):
        (directory / kept.name).symlink_to(kept)
    other.onnx.write_bytes(longer(circuit.onnx.read_bytes()))
    paths = {"onnx": str(other.onnx), "compiled": str(other.compiled), "settings": str(other.settings)}
    sandbox.run_limited(
        f"{__name__}:compile_graph",
        paths,
        timeout_seconds=prover.limits.build_seconds,
        memory_bytes=prover.limits.memory_bytes,
    )
    return other


def compile_graph(payload: dict[str, Any]) -> dict[str, Any]:
    """Compile without making keys, in a child process."""
    from offchain.proving import native

    native.ezkl.compile_circuit(payload["onnx"], payload["compiled"], payload["settings"])
    return {}

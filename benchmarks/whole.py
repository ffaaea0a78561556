"""A model as one circuit, as ezkl's own calibration lays it out: what splitting is compared with.

Everything here but :func:`measure_whole` runs in a child process that is measured and can be killed.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offchain.proving.settings import canonical_settings, read_settings
from offchain.sandbox import LimitedRun, run_measured

CALIBRATION_SAMPLES = 4
MEMORY_BYTES = 20 << 30


@dataclass(frozen=True)
class Whole:
    """What one circuit took.

    Args:
        prove_bytes: peak memory of the proof.
        fixed: its outputs on the held-out inputs, as real numbers.
    """

    target: str
    log_rows: int
    rows: int
    calibrate_seconds: float
    setup_seconds: float
    setup_bytes: int
    prove_seconds: float
    prove_bytes: int
    verify_seconds: float
    proof_bytes: int
    key_bytes: int
    fixed: tuple[tuple[float, ...], ...]

    def summary(self) -> dict[str, Any]:
        """Without the outputs."""
        return {name: value for name, value in asdict(self).items() if name != "fixed"}


def measure_whole(
    onnx: Path, calibration: NDArray[np.float32], heldout: NDArray[np.float32], target: str, scratch: Path
) -> Whole:
    """Calibrate, set up, prove the first held-out input and verify.

    Args:
        calibration, heldout: (n, *input shape).
        target: ``resources`` or ``accuracy``; see ezkl's ``calibrate_settings``.
        scratch: an empty directory for keys, which may take gigabytes.
    """
    common = {"onnx": str(onnx), "scratch": str(scratch), "target": target}
    flat = calibration[:CALIBRATION_SAMPLES].reshape(-1).tolist()
    calibrated = _call("calibrate", common | {"data": flat}, 3600)
    setup = _call("set_up", common, 1800)
    inputs = heldout.reshape(len(heldout), -1)
    proved = _call("prove", common | {"data": inputs[0].tolist()}, 1800)
    executed = _call("execute", common | {"batch": inputs.tolist()}, 1800)
    summary = read_settings(canonical_settings((scratch / "settings.json").read_bytes()))
    return Whole(
        target=target,
        log_rows=summary.log_rows,
        rows=summary.rows,
        calibrate_seconds=calibrated.seconds,
        setup_seconds=setup.result["seconds"],
        setup_bytes=setup.peak_memory_bytes,
        prove_seconds=proved.result["prove_seconds"],
        prove_bytes=proved.peak_memory_bytes,
        verify_seconds=proved.result["verify_seconds"],
        proof_bytes=proved.result["proof_bytes"],
        key_bytes=(scratch / "pk").stat().st_size,
        fixed=tuple(tuple(row) for row in executed.result["outputs"]),
    )


def _call(function: str, payload: dict[str, Any], seconds: float) -> LimitedRun:
    return run_measured(f"benchmarks.whole:{function}", payload, timeout_seconds=seconds, memory_bytes=MEMORY_BYTES)


# --- in the child --------------------------------------------------------------------------------------------------


def _ezkl() -> Any:
    return importlib.import_module("ezkl")


def calibrate(payload: dict[str, Any]) -> dict[str, Any]:
    """Let ezkl choose, with weights bound in the key as everywhere in this project."""
    ezkl, scratch = _ezkl(), Path(payload["scratch"])
    arguments = ezkl.PyRunArgs()
    arguments.input_visibility, arguments.output_visibility, arguments.param_visibility = "public", "public", "fixed"
    settings = str(scratch / "settings.json")
    ezkl.gen_settings(payload["onnx"], settings, arguments)
    data = scratch / "calibration.json"
    data.write_text(json.dumps({"input_data": [payload["data"]]}))
    ezkl.calibrate_settings(str(data), payload["onnx"], settings, payload["target"])
    return {}


def set_up(payload: dict[str, Any]) -> dict[str, Any]:
    """Compile, and make the SRS and the keys."""
    ezkl, scratch = _ezkl(), Path(payload["scratch"])
    settings = scratch / "settings.json"
    ezkl.compile_circuit(payload["onnx"], str(scratch / "compiled"), str(settings))
    ezkl.gen_srs(str(scratch / "srs"), json.loads(settings.read_text())["run_args"]["logrows"])
    started = time.monotonic()
    ezkl.setup(str(scratch / "compiled"), str(scratch / "vk"), str(scratch / "pk"), str(scratch / "srs"))
    return {"seconds": time.monotonic() - started}


def prove(payload: dict[str, Any]) -> dict[str, Any]:
    """Execute, prove and verify one input."""
    ezkl, scratch = _ezkl(), Path(payload["scratch"])
    data, witness, proof = (str(scratch / name) for name in ("input.json", "witness.json", "proof.json"))
    Path(data).write_text(json.dumps({"input_data": [payload["data"]]}))
    ezkl.gen_witness(data, str(scratch / "compiled"), witness)
    started = time.monotonic()
    ezkl.prove(witness, str(scratch / "compiled"), str(scratch / "pk"), proof, str(scratch / "srs"))
    proved = time.monotonic()
    ezkl.verify(proof, str(scratch / "settings.json"), str(scratch / "vk"), str(scratch / "srs"))
    return {
        "prove_seconds": proved - started,
        "verify_seconds": time.monotonic() - proved,
        "proof_bytes": len(json.loads(Path(proof).read_text())["proof"]),
    }


def execute(payload: dict[str, Any]) -> dict[str, Any]:
    """Execute without proving."""
    ezkl, scratch = _ezkl(), Path(payload["scratch"])
    scale = json.loads((scratch / "settings.json").read_text())["model_output_scales"][0]
    data, witness, outputs = str(scratch / "input.json"), str(scratch / "witness.json"), []
    for values in payload["batch"]:
        Path(data).write_text(json.dumps({"input_data": [values]}))
        ezkl.gen_witness(data, str(scratch / "compiled"), witness)
        elements = json.loads(Path(witness).read_text())["outputs"][0]
        outputs.append([ezkl.felt_to_float(element, scale) for element in elements])
    return {"outputs": outputs}


def prove_segment(payload: dict[str, Any]) -> dict[str, Any]:
    """Execute, prove and verify a segment of this project's, and say how long the latter two took.

    It stands here, since the child's memory counts: this module imports little.
    """
    from offchain.proving.native import _execute

    ezkl = _ezkl()
    with tempfile.TemporaryDirectory() as directory:
        witness, target = Path(directory) / "witness.json", str(Path(directory) / "proof.json")
        witness.write_text(_execute(payload, payload["elements"], directory))
        started = time.monotonic()
        ezkl.prove(str(witness), payload["compiled"], payload["pk"], target, payload["srs"])
        proved = time.monotonic()
        ezkl.verify(target, payload["settings"], payload["vk"], payload["srs"])
        return {"prove_seconds": proved - started, "verify_seconds": time.monotonic() - proved}

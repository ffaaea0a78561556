"""A circuit as ezkl's own calibration lays it out: what splitting and tuning are compared with.

What is behind the line runs in a child process that is measured and can be killed.
"""

from __future__ import annotations

import importlib
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offchain.protocol.field import quantise
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


@dataclass(frozen=True)
class Calibrated:
    """A circuit as ezkl's own calibration lays it out, with its keys in ``scratch``.

    Args:
        rows: that it uses, before they are folded into columns.
        setup_bytes: peak memory of making the keys.
    """

    scratch: Path
    target: str
    log_rows: int
    rows: int
    input_scale: int
    calibrate_seconds: float
    setup_seconds: float
    setup_bytes: int
    key_bytes: int

    def proof_job(self, values: Sequence[float]) -> dict[str, Any]:
        """Return what :func:`prove_segment` needs to prove one input."""
        files = {name: str(self.scratch / name) for name in ("compiled", "vk", "pk", "srs")}
        elements = list(quantise(values, self.input_scale))
        return files | {"settings": str(self.scratch / "settings.json"), "elements": elements}

    def outputs(self, inputs: NDArray[np.float32]) -> tuple[tuple[float, ...], ...]:
        """Execute without proving; what comes out as real numbers."""
        batch = inputs.reshape(len(inputs), -1).tolist()
        executed = _call("execute", {"scratch": str(self.scratch), "batch": batch}, 1800)
        return tuple(tuple(row) for row in executed.result["outputs"])


def calibrate_circuit(
    onnx: Path, calibration: NDArray[np.float32], target: str, scratch: Path, visibility: str = "public"
) -> Calibrated:
    """Let ezkl choose a circuit's settings, and make its keys.

    Args:
        calibration: (n, *input shape); the first ``CALIBRATION_SAMPLES`` are taken.
        target: ``resources`` or ``accuracy``; see ezkl's ``calibrate_settings``.
        scratch: an empty directory for keys, which may take gigabytes.
        visibility: of both ends, as ezkl calls it.
    """
    common = {"onnx": str(onnx), "scratch": str(scratch), "target": target, "visibility": visibility}
    flat = calibration[:CALIBRATION_SAMPLES].reshape(-1).tolist()
    calibrated = _call("calibrate", common | {"data": flat}, 3600)
    setup = _call("set_up", common, 1800)
    summary = read_settings(canonical_settings((scratch / "settings.json").read_bytes()))
    return Calibrated(
        scratch=scratch,
        target=target,
        log_rows=summary.log_rows,
        rows=summary.rows,
        input_scale=summary.input_scale,
        calibrate_seconds=calibrated.seconds,
        setup_seconds=setup.result["seconds"],
        setup_bytes=setup.peak_memory_bytes,
        key_bytes=(scratch / "pk").stat().st_size,
    )


def measure_whole(
    onnx: Path, calibration: NDArray[np.float32], heldout: NDArray[np.float32], target: str, scratch: Path
) -> Whole:
    """Calibrate, set up, prove the first held-out input and verify.

    Args:
        calibration, heldout: (n, *input shape).
        target, scratch: see :func:`calibrate_circuit`.
    """
    circuit = calibrate_circuit(onnx, calibration, target, scratch)
    proved = _call("prove_segment", circuit.proof_job(heldout[0].ravel().tolist()), 1800)
    return Whole(
        target=target,
        log_rows=circuit.log_rows,
        rows=circuit.rows,
        calibrate_seconds=circuit.calibrate_seconds,
        setup_seconds=circuit.setup_seconds,
        setup_bytes=circuit.setup_bytes,
        prove_seconds=proved.result["prove_seconds"],
        prove_bytes=proved.peak_memory_bytes,
        verify_seconds=proved.result["verify_seconds"],
        proof_bytes=proved.result["proof_bytes"],
        key_bytes=circuit.key_bytes,
        fixed=circuit.outputs(heldout),
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
    arguments.input_visibility = arguments.output_visibility = payload["visibility"]
    arguments.param_visibility = "fixed"
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
    """Execute, prove and verify one input, and say how long the latter two took. Returns the proof too.

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
        verified = time.monotonic()
        document = json.loads(Path(target).read_text())
        return {
            "prove_seconds": proved - started,
            "verify_seconds": verified - proved,
            "proof_bytes": len(document["proof"]),
            "proof": bytes(document["proof"]).hex(),
            "instances": [
                int.from_bytes(bytes.fromhex(felt), "little") for column in document["instances"] for felt in column
            ],
        }

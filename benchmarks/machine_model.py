"""What proofs are predicted to cost against what they cost: ``python -m benchmarks.machine_model``.

The machine is measured on its probes, or was before; then segments of the benchmark models, none of them a probe, are
proved one after the other. Figures go to ``build/benchmarks/machine-model.json``.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.models import prepare
from offchain.inference.untrusted import split_model
from offchain.protocol.field import quantise
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import CircuitRefused
from offchain.proving.srs import insecure_srs
from offchain.tuning.machine import MachineModel
from offchain.tuning.shape import shape_of

SEGMENTS = {"digits": 3, "mlp": 5, "lenet": 5, "transformer": 4}
MAX_LOG_ROWS = 17
REPEATS = 2
TARGET = 0.25


@dataclass(frozen=True)
class Compared:
    """One segment; sizes in bytes."""

    segment: str
    log_rows: int
    rows: int
    predicted_seconds: float
    measured_seconds: float
    predicted_bytes: int
    measured_bytes: int
    predicted_key_bytes: int
    key_bytes: int

    @property
    def ratios(self) -> tuple[float, float, float]:
        """Measured over predicted: seconds, memory, key."""
        return (
            self.measured_seconds / self.predicted_seconds,
            self.measured_bytes / self.predicted_bytes,
            self.key_bytes / self.predicted_key_bytes,
        )

    @property
    def is_within(self) -> bool:
        """Whether time and memory are off by no more than the target."""
        return max(abs(ratio - 1) for ratio in self.ratios[:2]) <= TARGET


def compare_model(prover: EzklProver, machine: MachineModel, name: str, max_log_rows: int) -> Iterator[Compared]:
    """Cut a model, choose settings on its calibration inputs, and prove every segment that is not too large."""
    directory = prepare(name)
    segments = [part.onnx for part in split_model((directory / "model.onnx").read_bytes(), segments=SEGMENTS[name])]
    calibration = np.load(directory / "calibration.npz")["input"][:40]
    kinds = [*[LinkKind.KZG] * len(segments), LinkKind.PUBLIC]
    tuning = prover.tune(segments, calibration, kinds=kinds, max_log_rows=MAX_LOG_ROWS)
    elements: Sequence[int] | None = None
    for index, (onnx, tuned) in enumerate(zip(segments, tuning.segments, strict=True)):
        shape = shape_of(tuned.settings)
        if shape.log_rows > max_log_rows:
            return  # what comes behind it needs its output
        circuit = prover.build(onnx, tuned.settings, insecure_srs(prover, shape.log_rows), name=f"{name}[{index}]")
        if elements is None:
            elements = quantise(calibration[0].reshape(-1).tolist(), circuit.input_scale)
        payload = {
            "compiled": str(circuit.compiled),
            "pk": str(circuit.pk),
            "vk": str(circuit.vk),
            "srs": str(circuit.srs.path),
            "elements": list(elements),
        }
        runs = [prover.call("measure_proof", payload, prover.limits.prove_seconds, name) for _ in range(REPEATS)]
        yield Compared(
            segment=f"{name}[{index}]",
            log_rows=shape.log_rows,
            rows=shape.rows,
            predicted_seconds=machine.prove_seconds(shape),
            measured_seconds=statistics.median(run["seconds"] for run in runs),
            predicted_bytes=machine.prove_bytes(shape),
            measured_bytes=max(run["peak_bytes"] for run in runs),
            predicted_key_bytes=machine.key_bytes(shape),
            key_bytes=circuit.pk.stat().st_size,
        )
        elements = prover.activations([circuit], [elements])[0][0]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, segment by segment; fails where a model is off by more than the target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "models", nargs="*", metavar="MODEL", help=f"out of {', '.join(SEGMENTS)}; all if none is named"
    )
    parser.add_argument("--max-log-rows", type=int, default=16, help="leave a model where a segment is larger")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    chosen = parser.parse_args(arguments)
    prover = EzklProver(ArtefactCache(chosen.out / "cache"))
    machine = MachineModel.load_or_measure(prover, progress=lambda what, _: print(what, flush=True))
    print(machine.describe())
    report: dict[str, Any] = {"machine": machine.machine, "probes_off": machine.error, "segments": []}
    within = {}
    for name in chosen.models or SEGMENTS:
        compared = []
        try:
            for each in compare_model(prover, machine, name, chosen.max_log_rows):
                compared.append(each)
                _show(each)
                report["segments"].append(asdict(each) | {"ratios": each.ratios})
        except CircuitRefused as error:
            print(f"{name}: not measured, {error}")
        within[name] = all(each.is_within for each in compared) if compared else None
        report["within"] = within
        (chosen.out / "machine-model.json").write_text(json.dumps(report, indent=2) + "\n")
    print(f"all segments within {TARGET:.0%} in time and memory: {within}")
    return 0 if all(within.values()) else 1


def _show(each: Compared) -> None:
    seconds, memory, key = each.ratios
    print(
        f"{each.segment:15} 2^{each.log_rows} {each.rows:7,} rows: {each.predicted_seconds:6.2f} s predicted, "
        f"{each.measured_seconds:6.2f} s measured ({seconds:.2f}); {each.predicted_bytes >> 20:5} MiB, "
        f"{each.measured_bytes >> 20:5} MiB ({memory:.2f}); key {key:.3f}",
        flush=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())

"""Proving a model in linked segments against proving it whole: ``python -m benchmarks.splitting MODEL``.

One run measures, one after the other and each in a process of its own: the model as one circuit under ezkl's own
calibration (for each ``--target``), and cut into segments under this project's settings, with links and without. It
prints the ratios that matter, and writes everything to ``--out``. Compare times within one run only.

*critical path*: the slowest segment, as if each worker were alone on a machine like this one. *total*: all segments.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import prepare
from benchmarks.whole import Whole, measure_whole
from offchain.inference.execution import run_float
from offchain.inference.untrusted import split_model
from offchain.protocol.field import dequantise, quantise
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit
from offchain.proving.srs import insecure_srs
from offchain.sandbox import run_measured

HELDOUT_SAMPLES = 40
REPEATS = 3


@dataclass(frozen=True)
class Segment:
    """What one segment took; times are medians of ``REPEATS`` proofs."""

    log_rows: int
    rows: int
    setup_seconds: float
    prove_seconds: float
    prove_bytes: int
    verify_seconds: float
    proof_bytes: int
    key_bytes: int


@dataclass(frozen=True)
class Chain:
    """A model in segments."""

    kinds: tuple[LinkKind, ...]
    segments: tuple[Segment, ...]
    fixed: tuple[tuple[float, ...], ...]

    def summary(self) -> dict[str, Any]:
        """As JSON, without the outputs."""
        return {"kinds": [kind.name for kind in self.kinds], "segments": [vars(it) for it in self.segments]}


def measure_chain(
    prover: EzklProver,
    segments: Sequence[bytes],
    calibration: NDArray[np.float32],
    heldout: NDArray[np.float32],
    kinds: Sequence[LinkKind],
    max_log_rows: int,
) -> Chain:
    """Choose settings on the calibration inputs, set up, and prove the first held-out input segment by segment."""
    tuning = prover.tune(segments, calibration, kinds=kinds, max_log_rows=max_log_rows)
    srs = insecure_srs(prover, tuning.log_rows)
    circuits, setups = [], []
    for onnx, tuned in zip(segments, tuning.segments, strict=True):
        started = time.monotonic()
        circuits.append(prover.build(onnx, tuned.settings, srs))
        setups.append(time.monotonic() - started)
    batch = [quantise(row.tolist(), circuits[0].input_scale) for row in heldout.reshape(len(heldout), -1)]
    activations = prover.activations(circuits, batch)
    inputs = [batch[0], *activations[0][:-1]]
    measured = tuple(map(_measure, circuits, inputs, setups))
    fixed = tuple(tuple(dequantise(it[-1], circuits[-1].output_scale)) for it in activations)
    return Chain(tuple(kinds), measured, fixed)


def _measure(circuit: SegmentCircuit, elements: Sequence[int], setup_seconds: float) -> Segment:
    payload = {
        "compiled": str(circuit.compiled),
        "settings": str(circuit.settings),
        "vk": str(circuit.vk),
        "pk": str(circuit.pk),
        "srs": str(circuit.srs.path),
        "elements": list(elements),
    }
    runs = [
        run_measured("benchmarks.whole:prove_segment", payload, timeout_seconds=900, memory_bytes=20 << 30)
        for _ in range(REPEATS)
    ]
    return Segment(
        log_rows=circuit.log_rows,
        rows=circuit.rows,
        setup_seconds=setup_seconds,
        prove_seconds=statistics.median(run.result["prove_seconds"] for run in runs),
        prove_bytes=max(run.peak_memory_bytes for run in runs),
        verify_seconds=statistics.median(run.result["verify_seconds"] for run in runs),
        proof_bytes=circuit.proof_bytes,
        key_bytes=circuit.pk.stat().st_size,
    )


def compare(whole: Whole, linked: Chain, unlinked: Chain | None) -> dict[str, float]:
    """The ratios: below one is better than the whole."""
    times = [segment.prove_seconds for segment in linked.segments]
    ratios = {
        "critical path": max(times) / whole.prove_seconds,
        "total work": sum(times) / whole.prove_seconds,
        "peak memory": max(segment.prove_bytes for segment in linked.segments) / whole.prove_bytes,
        "setup, slowest": max(segment.setup_seconds for segment in linked.segments) / whole.setup_seconds,
    }
    pairs = zip(linked.segments, () if unlinked is None else unlinked.segments, strict=False)
    # A link costs what it costs only where the circuits are of one size.
    alike = [(one, other) for one, other in pairs if one.log_rows == other.log_rows]
    if alike:
        with_links, without = (sum(each.prove_seconds for each in side) for side in zip(*alike, strict=True))
        ratios[f"links ({len(alike)} segments of one size)"] = with_links / without
    return ratios


def describe_machine() -> dict[str, Any]:
    """What the figures are of."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="see benchmarks.models")
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--cuts", help="tensors to cut at, separated by commas, in place of --segments")
    parser.add_argument("--target", action="append", choices=("resources", "accuracy"))
    parser.add_argument("--max-log-rows", type=int, default=17)
    parser.add_argument("--no-links", action="store_true", help="measure the segments without links too")
    parser.add_argument("--out", type=Path, default=Path("build/benchmarks"))
    chosen = parser.parse_args(arguments)

    directory = prepare(chosen.model)
    calibration = np.load(directory / "calibration.npz")["input"]
    stored = np.load(directory / "heldout.npz")
    heldout = stored["input"][:HELDOUT_SAMPLES]
    labels = stored["label"][:HELDOUT_SAMPLES] if "label" in stored else None
    model = (directory / "model.onnx").read_bytes()
    reference = run_float(model, heldout).reshape(len(heldout), -1)
    cache = tempfile.TemporaryDirectory(dir=_scratch(chosen.out))  # empty, so that setting up is measured as well
    prover = EzklProver(ArtefactCache(Path(cache.name)))
    cuts = None if chosen.cuts is None else tuple(chosen.cuts.split(","))
    parts = split_model(model, cuts=cuts, segments=None if cuts else chosen.segments)
    segments = [segment.onnx for segment in parts]

    kinds = [LinkKind.KZG] * len(segments) + [LinkKind.PUBLIC]
    linked = measure_chain(prover, segments, calibration, heldout, kinds, chosen.max_log_rows)
    unlinked = None
    if chosen.no_links:
        public = [LinkKind.PUBLIC] * (len(segments) + 1)
        unlinked = measure_chain(prover, segments, calibration, heldout, public, chosen.max_log_rows)
    report: dict[str, Any] = {
        "model": chosen.model,
        "machine": describe_machine(),
        "linked": linked.summary(),
        "unlinked": None if unlinked is None else unlinked.summary(),
        "accuracy": {
            "float": _accuracy(reference, reference, labels),
            "split": _accuracy(linked.fixed, reference, labels),
        },
        "whole": [],
        "ratios": {},
    }
    for target in chosen.target or ("resources",):
        with tempfile.TemporaryDirectory(dir=_scratch(chosen.out)) as scratch:
            whole = measure_whole(directory / "model.onnx", calibration, heldout, target, Path(scratch))
        report["whole"].append(whole.summary())
        report["accuracy"][f"whole, {target}"] = _accuracy(whole.fixed, reference, labels)
        report["ratios"][target] = compare(whole, linked, unlinked)
    path = chosen.out / f"splitting-{chosen.model}-{len(segments)}.json"
    path.write_text(json.dumps(report, indent=2) + "\n")
    _show(report, path)
    cache.cleanup()
    return 0


def _scratch(out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    return out


def _accuracy(outputs: Any, reference: NDArray[np.float32], labels: NDArray[Any] | None) -> dict[str, float | None]:
    fixed = np.asarray(outputs, dtype=np.float64).reshape(len(reference), -1)
    return {
        "agreement": float((fixed.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        "labels": None if labels is None else float((fixed.argmax(axis=1) == labels).mean()),
        "largest_error": float(np.abs(fixed - reference).max()),
    }


def _show(report: dict[str, Any], path: Path) -> None:
    machine = report["machine"]
    print(f"{report['model']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB")
    for name in ("linked", "unlinked"):
        for index, it in enumerate((report[name] or {"segments": []})["segments"]):
            print(
                f"  {name} segment {index}: 2^{it['log_rows']} rows, setup {it['setup_seconds']:.1f} s, prove "
                f"{it['prove_seconds']:.2f} s, {it['prove_bytes'] >> 20} MiB, verify {it['verify_seconds']:.3f} s"
            )
    for it in report["whole"]:
        print(
            f"  whole ({it['target']}): 2^{it['log_rows']} rows, setup {it['setup_seconds']:.1f} s, prove "
            f"{it['prove_seconds']:.2f} s, {it['prove_bytes'] >> 20} MiB, verify {it['verify_seconds']:.3f} s"
        )
    for target, ratios in report["ratios"].items():
        print(f"  against {target}: " + ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    print(f"  held-out: {report['accuracy']}")
    print(f"  written to {path}")


if __name__ == "__main__":
    raise SystemExit(main())

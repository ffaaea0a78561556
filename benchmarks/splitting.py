"""Proving a model in linked segments against proving it whole: ``python -m benchmarks.splitting MODEL``.

One run measures, one after the other and each in a process of its own: the model as one circuit under ezkl's own
calibration (for each ``--target``), and cut into segments under this project's settings, with links and, with
``--no-links``, the same circuits without. It prints the ratios that matter, and writes everything to ``--out``. Compare
times within one run only.

*critical path*: the slowest segment, as if each worker were alone on a machine like this one. *total*: all segments.

``--how`` says who chooses: ``tune`` takes the quick choice of settings for ``--segments`` balanced segments or for
``--cuts``, ``autotune`` searches for the fastest settings for the same segments, and ``plan`` lets the planner choose
cuts, links and settings for ``--workers`` workers like this machine: the fewer there are, the larger its segments.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.links import measure_links
from benchmarks.measuring import (
    OUT,
    Benchmark,
    Division,
    accuracy,
    autotune_cheapest,
    build,
    describe_machine,
    errors_of,
    load_benchmark,
    proof_job,
    prove_in_turns,
    scratch_in,
    tell_machine,
    verdict,
    write_report,
)
from benchmarks.whole import Whole, measure_whole
from offchain.inference.calibration import Samples
from offchain.inference.rewriting import rewrite_for_proving
from offchain.inference.untrusted import split_model
from offchain.planning.plan import Bound, plan_model
from offchain.planning.planner import Constraints
from offchain.planning.workers import WorkerClass
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.tuning.bound import AccuracyBound
from offchain.tuning.machine import MachineModel

REPEATS = 3
TARGETS = {"critical path": 0.25, "total work": 0.7, "peak memory": 0.25}
MAX_DRIFT = 0.05
WORKERS = 9

__all__ = ["Chain", "Segment", "compare", "describe_machine", "measure_chain", "measure_division"]


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
    division = Division(tuple(segments), tuple(each.settings for each in tuning.segments))
    return measure_division(prover, division, heldout)


def measure_division(
    prover: EzklProver, division: Division, heldout: NDArray[np.float32], repeats: int = REPEATS
) -> Chain:
    """Set up, and prove the first held-out input segment by segment."""
    built = build(prover, division)
    inputs, outputs = built.execute(prover, heldout)
    jobs = map(proof_job, built.circuits, inputs)
    proofs = [prove_in_turns([job], repeats)[0] for job in jobs]
    measured = tuple(
        Segment(
            log_rows=circuit.log_rows,
            rows=circuit.rows,
            setup_seconds=setup_seconds,
            prove_seconds=proof.prove_seconds,
            prove_bytes=proof.prove_bytes,
            verify_seconds=proof.verify_seconds,
            proof_bytes=circuit.proof_bytes,
            key_bytes=circuit.pk.stat().st_size,
        )
        for circuit, proof, setup_seconds in zip(built.circuits, proofs, built.setup_seconds, strict=True)
    )
    return Chain(division.kinds, measured, tuple(map(tuple, outputs.tolist())))


def compare(whole: Whole, chain: Chain) -> dict[str, float]:
    """The ratios: below one is better than the whole."""
    times = [segment.prove_seconds for segment in chain.segments]
    return {
        "critical path": max(times) / whole.prove_seconds,
        "total work": sum(times) / whole.prove_seconds,
        "peak memory": max(segment.prove_bytes for segment in chain.segments) / whole.prove_bytes,
        "setup, slowest": max(segment.setup_seconds for segment in chain.segments) / whole.setup_seconds,
    }


def divide(data: Benchmark, chosen: argparse.Namespace, prover: EzklProver) -> Division:
    """Cut a model and choose settings, as the command line says."""
    # What this machine was measured to do is kept; circuits are made anew, so that setting up is measured as well.
    keeper = EzklProver(ArtefactCache(chosen.cache))
    if chosen.how == "plan":
        return _planned(data, chosen, prover, MachineModel.load_or_measure(keeper))
    names = tuple(chosen.cuts.split(",")) if chosen.cuts else None
    parts = split_model(data.onnx, cuts=names, segments=None if names else chosen.segments)
    segments = tuple(part.onnx for part in parts)
    kinds = [LinkKind.KZG] * len(segments) + [LinkKind.PUBLIC]
    if chosen.how == "tune":
        tuning = prover.tune(segments, data.calibration, kinds=kinds, max_log_rows=chosen.max_log_rows)
    else:
        as_products = tuple(rewrite_for_proving(segment, products=True) for segment in segments)
        segments, report = autotune_cheapest(
            prover,
            [segments, as_products],
            data.calibration,
            Samples(data.heldout, data.labels),
            bound=AccuracyBound(max_drift=MAX_DRIFT, max_disagreement=0.02),
            machine=MachineModel.load_or_measure(keeper),
            kinds=kinds,
            seconds=chosen.seconds,
            max_log_rows=chosen.max_log_rows,
        )
        tuning = report.tuning
    return Division(segments, tuple(each.settings for each in tuning.segments))


def _planned(data: Benchmark, chosen: argparse.Namespace, prover: EzklProver, machine: MachineModel) -> Division:
    workers = WorkerClass(machine.cores, int(machine.machine["memory_bytes"]), chosen.workers)
    [plan] = plan_model(
        data.onnx,
        prover,
        machine,
        Constraints((workers,), kinds=(LinkKind.KZG, LinkKind.POSEIDON), max_segments=chosen.max_segments),
        calibration=Samples(data.calibration, None),
        heldout=Samples(data.heldout, data.labels),
        bound=Bound(max_drift=MAX_DRIFT),
        max_log_rows=chosen.max_log_rows,
    ).plans
    predicted = tuple((each.prove_seconds, float(each.prove_bytes)) for each in plan.route.segments)
    return Division(plan.segments, plan.settings, predicted)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="see benchmarks.models; one that can be proved whole")
    parser.add_argument("--how", choices=("tune", "autotune", "plan"), default="tune")
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--cuts", help="tensors to cut at, separated by commas, in place of --segments")
    parser.add_argument("--workers", type=int, default=WORKERS, help="that are planned for, with --how plan")
    parser.add_argument("--max-segments", type=int, default=9, help="with --how plan")
    parser.add_argument("--seconds", type=float, default=120.0, help="of searching, with --how autotune")
    parser.add_argument("--target", action="append", choices=("resources", "accuracy"))
    parser.add_argument("--max-log-rows", type=int, default=17)
    parser.add_argument("--repeats", type=int, default=REPEATS, help="proofs of each segment; the whole is proved once")
    parser.add_argument("--no-links", action="store_true", help="measure the same segments without links too")
    parser.add_argument("--cache", type=Path, default=OUT / "cache", help="keeps what this machine was measured to do")
    parser.add_argument("--keep", type=Path, help="a directory that does not exist yet, to keep the circuits in")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)
    if chosen.keep is not None and chosen.keep.exists():
        parser.error(f"--keep: {chosen.keep} exists, and setting up is measured only where circuits are made anew")

    data = load_benchmark(chosen.model)
    reference = data.reference
    report: dict[str, Any] = {"model": chosen.model, "how": chosen.how, "machine": describe_machine()}
    report |= {"workers": chosen.workers} if chosen.how == "plan" else {}
    with tempfile.TemporaryDirectory(dir=scratch_in(chosen.out)) as scratch:
        prover = EzklProver(ArtefactCache(chosen.keep or Path(scratch)))
        division = divide(data, chosen, prover)
        linked = measure_division(prover, division, data.heldout, chosen.repeats)
        links = measure_links(prover, division, data.heldout[:1], chosen.repeats) if chosen.no_links else None
    report |= {"linked": linked.summary(), "links": links, "whole": [], "ratios": {}}
    if division.predicted:
        measured = [(each.prove_seconds, float(each.prove_bytes)) for each in linked.segments]
        report["predicted"] = {"segments": division.predicted, "errors": errors_of(division.predicted, measured)}
    report["accuracy"] = {
        "float": accuracy(reference, reference, data.labels),
        "split": accuracy(linked.fixed, reference, data.labels),
    }
    for target in dict.fromkeys(chosen.target or ("resources",)):
        with tempfile.TemporaryDirectory(dir=chosen.out) as scratch:
            whole = measure_whole(data.path, data.calibration, data.heldout, target, Path(scratch))
        report["whole"].append(whole.summary())
        report["accuracy"][f"whole, {target}"] = accuracy(whole.fixed, reference, data.labels)
        report["ratios"][target] = compare(whole, linked)
    path = write_report(chosen.out, f"splitting-{chosen.model}-{len(division.segments)}", report)
    _show(report, path)
    return 0


def _show(report: dict[str, Any], path: Path) -> None:
    print(f"{report['model']}, {report['how']}: {tell_machine(report['machine'])}")
    named = {f"segment {index}": it for index, it in enumerate(report["linked"]["segments"])}
    named |= {f"whole ({it['target']})": it for it in report["whole"]}
    for name, it in named.items():
        print(
            f"  {name}: 2^{it['log_rows']} rows, setup {it['setup_seconds']:.1f} s, prove "
            f"{it['prove_seconds']:.2f} s, {it['prove_bytes'] >> 20} MiB, verify {it['verify_seconds']:.3f} s"
        )
    if "predicted" in report:
        errors = report["predicted"]["errors"]
        print("  predictions are off by " + ", ".join(f"{name} {error:+.0%}" for name, error in errors.items()))
    for target, ratios in report["ratios"].items():
        told = [verdict(ratio, TARGETS[name]) if name in TARGETS else f"{ratio:.2f}" for name, ratio in ratios.items()]
        print(f"  against {target}: " + ", ".join(map(" ".join, zip(ratios, told, strict=True))))
    if report["links"]:
        print(f"  with links over without: {report['links']['ratios']['total']:.2f}, kinds {report['links']['kinds']}")
    print(f"  held-out: {report['accuracy']}")
    print(f"  written to {path}")


if __name__ == "__main__":
    raise SystemExit(main())

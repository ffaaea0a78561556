"""What a link costs: ``python -m benchmarks.links MODEL``.

Segments with KZG links, and the very same segments with public boundaries: the same log-rows, columns, scales and
decomposition, only the visibility differs. They are proved in turns in one run, and medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measuring import (
    OUT,
    Division,
    Proved,
    build,
    describe_machine,
    equal_pair,
    load_benchmark,
    proof_job,
    prove_in_turns,
    scratch_in,
    tell_machine,
    verdict,
    write_report,
)
from offchain.inference.untrusted import split_model
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver

TARGET = 1.10


def ratios(linked: Sequence[Proved], public: Sequence[Proved]) -> dict[str, float]:
    """Compare segments with links to the same ones without: below one is better with."""
    each = [one.prove_seconds / other.prove_seconds for one, other in zip(linked, public, strict=True)]
    total = sum(one.prove_seconds for one in linked) / sum(one.prove_seconds for one in public)
    memory = max(one.prove_bytes for one in linked) / max(one.prove_bytes for one in public)
    return {"total": total, "median segment": statistics.median(each), "worst segment": max(each), "memory": memory}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="see benchmarks.models; one that can be proved whole")
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--cuts", help="tensors to cut at, separated by commas, in place of --segments")
    parser.add_argument("--repeats", type=int, default=5, help="proofs of each circuit, besides a first one")
    parser.add_argument("--max-log-rows", type=int, default=18)
    parser.add_argument("--cache", type=Path, help="where circuits are kept; nowhere if it is not given")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)

    data = load_benchmark(chosen.model)
    names = tuple(chosen.cuts.split(",")) if chosen.cuts else None
    parts = split_model(data.onnx, cuts=names, segments=None if names else chosen.segments)
    segments = tuple(part.onnx for part in parts)
    with tempfile.TemporaryDirectory(dir=scratch_in(chosen.out)) as scratch:
        prover = EzklProver(ArtefactCache(chosen.cache or Path(scratch)))
        kinds = [LinkKind.KZG] * len(segments) + [LinkKind.PUBLIC]
        tuning = prover.tune(segments, data.calibration, kinds=kinds, max_log_rows=chosen.max_log_rows)
        linked = Division(segments, tuple(each.settings for each in tuning.segments))
        report = {
            "model": chosen.model,
            "machine": describe_machine(),
            "target": TARGET,
            "repeats": chosen.repeats,
            **measure_links(prover, linked, data.heldout[:1], chosen.repeats),
        }
    path = write_report(chosen.out, f"links-{chosen.model}-{len(segments)}", report)
    _show(report, path)
    return 0


def measure_links(prover: EzklProver, linked: Division, sample: Any, repeats: int) -> dict[str, Any]:
    """Prove a division with its links and without, in turns.

    Args:
        sample: (1, *input shape) float32.
    """
    built, other = (build(prover, each) for each in equal_pair(prover, linked))
    inputs, _ = built.execute(prover, sample)
    with_links, public, rows = [], [], []
    for one, two, elements in zip(built.circuits, other.circuits, inputs, strict=True):
        jobs = [proof_job(one, elements), proof_job(two, elements)]
        measured = prove_in_turns(jobs, repeats, warm_up=True)
        with_links.append(measured[0])
        public.append(measured[1])
        rows.append({"log_rows": one.log_rows, "linked": one.rows, "public": two.rows})
    return {
        "kinds": [kind.name for kind in linked.kinds],
        "rows": rows,
        "linked": with_links,
        "public": public,
        "ratios": ratios(with_links, public),
    }


def _show(report: dict[str, Any], path: Path) -> None:
    print(f"{report['model']}: {tell_machine(report['machine'])}; links {', '.join(report['kinds'])}")
    for index, (rows, one, two) in enumerate(zip(report["rows"], report["linked"], report["public"], strict=True)):
        told = [
            f"{name} {it.prove_seconds:.3f} s ({it.least_seconds:.3f} to {it.most_seconds:.3f}), "
            f"{it.prove_bytes >> 20} MiB"
            for name, it in (("linked", one), ("public", two))
        ]
        print(f"  segment {index}: 2^{rows['log_rows']} rows, " + "; ".join(told))
    found = report["ratios"]
    print(f"  with links over without: {verdict(found['total'], report['target'])}; " + _listed(found))
    print(f"  written to {path}")


def _listed(found: dict[str, float]) -> str:
    return ", ".join(f"{name} {ratio:.2f}" for name, ratio in found.items() if name != "total")


if __name__ == "__main__":
    raise SystemExit(main())

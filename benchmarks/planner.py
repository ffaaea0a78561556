"""The planner's word against the clock: ``python -m benchmarks.planner [MODEL ...]``.

Predictions: each model is planned for workers like this machine, and its plan is proved here, a segment at a time. A
model counts as predicted where the longest proof, the sum of proofs and the peak memory are all within 25 %.

``--enumerate MODEL`` instead: every plan of a small model under the same constraints is listed and priced. The
planner's own and the ones that are predicted to be soonest are proved in turns, and the longest proofs are compared.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.autotune import take_part
from benchmarks.measuring import (
    HELDOUT_SAMPLES,
    OUT,
    Benchmark,
    Division,
    build,
    describe_machine,
    errors_of,
    load_benchmark,
    proof_job,
    scratch_in,
    tell_machine,
    verdict,
    write_report,
)
from benchmarks.models import MAKERS
from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.planning.estimates import Estimator
from offchain.planning.layouts import Layouts
from offchain.planning.pieces import survey_model
from offchain.planning.plan import FIXED_POINTS, Bound, Plan, plan_model
from offchain.planning.planner import Constraints, Route, enumerate_routes, find_route, prove_makespan
from offchain.planning.workers import WorkerClass
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.tuning.machine import MachineModel

SHARE = 0.25
MODELS_TARGET = 4
PLAN_TARGET = 1.10
KINDS = (LinkKind.KZG, LinkKind.POSEIDON)
WORKERS = 9


def is_predicted(errors: dict[str, float]) -> bool:
    """Whether all are within the share that is asked for."""
    return max(map(abs, errors.values())) <= SHARE


def constraints_of(machine: MachineModel, memory_gib: float | None, max_segments: int) -> Constraints:
    """Workers like this machine, each of which may give a proof so much memory."""
    memory = int(machine.machine["memory_bytes"]) if memory_gib is None else int(memory_gib * 2**30)
    return Constraints((WorkerClass(machine.cores, memory, WORKERS),), kinds=KINDS, max_segments=max_segments)


def measure(prover: EzklProver, divisions: Sequence[Division], sample: Any, repeats: int) -> list[list[dict[str, Any]]]:
    """Prove the segments of several divisions in turns; for each division and segment the seconds and bytes.

    As the machine's model was measured: a process that executes and proves.

    Args:
        sample: (1, *input shape) float32.
    """
    jobs = []
    for division in divisions:
        built = build(prover, division)
        inputs, _ = built.execute(prover, sample)
        jobs.append([proof_job(*each) for each in zip(built.circuits, inputs, strict=True)])
    limit = prover.limits.prove_seconds
    rounds = [
        [[prover.call("measure_proof", job, limit, "segment") for job in each] for each in jobs] for _ in range(repeats)
    ]
    return [
        [
            {
                "seconds": statistics.median(run["seconds"] for run in runs),
                "bytes": max(run["peak_bytes"] for run in runs),
            }
            for runs in zip(*division, strict=True)
        ]
        for division in zip(*rounds, strict=True)
    ]


def check_model(
    prover: EzklProver, machine: MachineModel, data: Benchmark, chosen: argparse.Namespace
) -> dict[str, Any]:
    """Plan a model and prove its plan; of a model that fits in part, the last part that does."""
    planned = plan_model(
        data.onnx,
        prover,
        machine,
        constraints_of(machine, chosen.memory, chosen.max_segments),
        calibration=Samples(data.calibration, None),
        heldout=Samples(data.heldout, data.labels),
        bound=Bound(),
        max_log_rows=chosen.max_log_rows,
    )
    plan = planned.plans[-1]
    sample = _sample_of(data, plan)
    [measured] = measure(prover, [Division(plan.segments, plan.settings)], sample, chosen.repeats)
    predicted = [(each.prove_seconds, float(each.prove_bytes)) for each in plan.route.segments]
    errors = errors_of(predicted, [(each["seconds"], each["bytes"]) for each in measured])
    return {
        "model": data.name,
        "cuts": plan.cuts,
        "segments": [
            {
                "log_rows": estimate.circuit.log_rows,
                "rows": estimate.rows,
                "kinds": [estimate.circuit.input_kind.name, estimate.circuit.output_kind.name],
                "predicted": {"seconds": estimate.prove_seconds, "bytes": estimate.prove_bytes},
                "measured": run,
            }
            for estimate, run in zip(plan.route.segments, measured, strict=True)
        ],
        "left_out": [f"{each.name} ({each.operator}): {each.reason}"[:200] for each in planned.unprovable],
        "errors": errors,
        "is_predicted": is_predicted(errors),
    }


def _sample_of(data: Benchmark, plan: Plan) -> Any:
    if plan.stretch.whole and plan.start == 0:
        return data.heldout[:1]
    _, part = take_part(data, 1, None)
    if plan.start or part.onnx != plan.stretch.onnx:
        raise InvalidInputError("plan", "its last part does not begin where data is at hand", "allow more memory")
    return part.heldout[:1]


def check_plans(
    prover: EzklProver, machine: MachineModel, data: Benchmark, chosen: argparse.Namespace
) -> dict[str, Any]:
    """List every plan of a model, and prove the planner's own and the soonest others."""
    constraints = constraints_of(machine, chosen.memory, chosen.max_segments)
    [stretch] = survey_model(data.onnx).stretches
    with tempfile.TemporaryDirectory() as scratch:
        layouts = Layouts(prover, stretch, FIXED_POINTS[0], constraints.end_kinds, Path(scratch))
        layouts.survey()
        estimator = Estimator(layouts, machine, max_log_rows=chosen.max_log_rows)
        count = len(stretch.pieces)
        own = _settled(estimator, constraints, count)
        timed = []
        for route in enumerate_routes(estimator, constraints, 0, count):
            seconds = prove_makespan(route, constraints.workers, machine.cores)
            if seconds is not None:
                timed.append((seconds, route))
        timed.sort(key=lambda each: (each[0], each[1].total_seconds))
        others = [route for _, route in timed if _names(route) != _names(own)]
        routes = [own, *_unlike(others, chosen.top)]
        divisions = [_division(estimator, route) for route in routes]
        measured = measure(prover, divisions, data.heldout[:1], chosen.repeats)
    longest = [max(run["seconds"] for run in runs) for runs in measured]
    return {
        "model": data.name,
        "plans": len(timed),
        "predicted": {"own": own.longest_seconds, "best": timed[0][0]},
        "proved": [
            {"segments": _names(route), "predicted": route.longest_seconds, "measured": seconds}
            for route, seconds in zip(routes, longest, strict=True)
        ],
        "ratio": longest[0] / min(longest),
    }


def _settled(estimator: Estimator, constraints: Constraints, count: int) -> Route:
    for _ in range(12):
        route = find_route(estimator, constraints, 0, count)
        if estimator.settle(route.segments)[1]:
            return route
    raise InvalidInputError("model", "its settings still differ from what was predicted", "plan fewer segments")


def _unlike(routes: Sequence[Route], most: int) -> list[Route]:
    """Take the first routes that are cut or linked differently: one size more is no other plan."""
    found: dict[Any, Route] = {}
    for route in routes:
        circuits = [each.circuit for each in route.segments]
        found.setdefault(tuple((each.start, each.stop, each.output_kind) for each in circuits), route)
    return list(found.values())[:most]


def _names(route: Route) -> list[str]:
    circuits = [each.circuit for each in route.segments]
    return [f"{it.start}:{it.stop} 2^{it.log_rows} x{it.column_blocks} {it.output_kind.name}" for it in circuits]


def _division(estimator: Estimator, route: Route) -> Division:
    settings, _ = estimator.settle(route.segments)
    runs = [each.circuit for each in route.segments]
    return Division(tuple(estimator.layouts.segment(run.start, run.stop) for run in runs), settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the planner."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="see benchmarks.models; all if none is named")
    parser.add_argument("--enumerate", metavar="MODEL", help="list all plans of this model, and prove the best")
    parser.add_argument("--top", type=int, default=4, help="with --enumerate: how many plans to prove besides its own")
    parser.add_argument("--memory", type=float, help="GiB that a proof may take; all if it is not given")
    parser.add_argument("--max-segments", type=int, help="9; with --enumerate 3")
    parser.add_argument("--max-log-rows", type=int, help="17; with --enumerate 12")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=OUT / "cache", help="keeps what this machine was measured to do")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)
    chosen.max_segments = chosen.max_segments or (3 if chosen.enumerate else 9)
    chosen.max_log_rows = chosen.max_log_rows or (12 if chosen.enumerate else 17)
    machine = MachineModel.load_or_measure(EzklProver(ArtefactCache(chosen.cache)))
    report: dict[str, Any] = {"machine": describe_machine(), "machine_model": machine.describe()}
    print(tell_machine(report["machine"]), machine.describe(), sep="\n")
    if chosen.enumerate:
        with tempfile.TemporaryDirectory(dir=scratch_in(chosen.out)) as scratch:
            prover = EzklProver(ArtefactCache(Path(scratch)))
            report |= check_plans(prover, machine, load_benchmark(chosen.enumerate), chosen)
        _show_plans(report)
        print(f"written to {write_report(chosen.out, f'planner-{chosen.enumerate}', report)}")
        return 0
    report |= {"models": [], "failed": {}}
    for name in chosen.models or MAKERS:
        with tempfile.TemporaryDirectory(dir=scratch_in(chosen.out)) as scratch:
            prover = EzklProver(ArtefactCache(Path(scratch)))
            try:
                found = check_model(prover, machine, load_benchmark(name, HELDOUT_SAMPLES), chosen)
            except InvalidInputError as error:  # one model must not cost the others' figures
                report["failed"][name] = str(error)
                print(f"{name}: {error}")
                continue
        report["models"].append(found)
        _show_model(found)
    met = sum(each["is_predicted"] for each in report["models"])
    tried = len(report["models"]) + len(report["failed"])
    print(f"predicted within {SHARE:.0%}: {met} of {tried} models (at least {MODELS_TARGET} of {len(MAKERS)} wanted)")
    print(f"written to {write_report(chosen.out, 'planner', report)}")
    return 0


def _show_model(found: dict[str, Any]) -> None:
    print(f"{found['model']}: {len(found['segments'])} segments, {len(found['left_out'])} parts left out")
    for index, it in enumerate(found["segments"]):
        predicted, measured = it["predicted"], it["measured"]
        print(
            f"  {index}: 2^{it['log_rows']} {'-'.join(it['kinds'])}, predicted {predicted['seconds']:.2f} s "
            f"{predicted['bytes'] / 2**20:.0f} MiB, measured {measured['seconds']:.2f} s "
            f"{measured['bytes'] / 2**20:.0f} MiB"
        )
    told = ", ".join(f"{name} {error:+.0%}" for name, error in found["errors"].items())
    print(f"  predictions are off by {told}: {'within' if found['is_predicted'] else 'NOT within'} {SHARE:.0%}")


def _show_plans(report: dict[str, Any]) -> None:
    predicted = report["predicted"]
    print(
        f"{report['model']}: {report['plans']} plans; its own is predicted to take {predicted['own']:.3f} s, "
        f"the best of all {predicted['best']:.3f} s"
    )
    for name, each in zip(("own", *["other"] * len(report["proved"])), report["proved"], strict=False):
        told = ", ".join(each["segments"])
        print(f"  {name}: predicted {each['predicted']:.3f} s, measured {each['measured']:.3f} s: {told}")
    print(f"  its plan over the best that was measured: {verdict(report['ratio'], PLAN_TARGET)}")


if __name__ == "__main__":
    raise SystemExit(main())

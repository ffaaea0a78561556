"""An autotuned segment against ezkl's own calibration of the same segment: ``python -m benchmarks.autotune MODEL``.

Both have the same ends (public, or KZG with ``--links kzg``), and are as accurate on held-out data: the autotuner's
bound is tightened until the model with its circuit hits as many labels as with ezkl's; without labels, until its
outputs are as close to floating point. ezkl gets the segment in the model's own operators. All are proved in turns in
one run.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.measuring import (
    HELDOUT_SAMPLES,
    OUT,
    Benchmark,
    Built,
    Division,
    Proved,
    accuracy,
    autotune_cheapest,
    build,
    describe_machine,
    load_benchmark,
    proof_job,
    prove_in_turns,
    scratch_in,
    tell_machine,
    verdict,
    write_report,
)
from benchmarks.whole import Calibrated, calibrate_circuit
from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.inference.execution import open_session, run_float
from offchain.inference.onnx_model import load_model
from offchain.inference.rewriting import rewrite_for_proving
from offchain.inference.splitting import choose_cuts, split, total_cost
from offchain.planning.pieces import survey_model
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import FixedPoint
from offchain.tuning.bound import AccuracyBound
from offchain.tuning.machine import MachineModel
from offchain.tuning.report import TuningReport
from offchain.tuning.search import FIXED_POINTS

TARGET = 0.3
BOUNDS = (0.05, 0.02, 0.01, 0.003, 0.001, 0.0003, 0.0001)
"""Of the drift, one after the other until accuracy is equal."""
COARSE = 0.005
"""Below such a drift, fine scales are tried first: the first ones are sure to be tried before time is up."""
FINE = tuple(FixedPoint(scale, scale, rescales=False) for scale in (14, 12, 10))
VISIBILITY = {LinkKind.PUBLIC: "public", LinkKind.KZG: "polycommit"}


@dataclass(frozen=True)
class Part:
    """One segment of a model, with what goes in and what is made of what comes out.

    Attributes:
        onnx: in the model's own operators.
        calibration, heldout: (n, *input shape) float32, as the model makes them in floating point.
        rest: the segments behind it; empty where nothing behind it can be run by itself.
        labels: of ``heldout``.
    """

    onnx: bytes
    calibration: NDArray[np.float32]
    heldout: NDArray[np.float32]
    rest: tuple[bytes, ...]
    labels: NDArray[np.int64] | None

    @property
    def reference(self) -> NDArray[np.float32]:
        """What this segment puts out in floating point."""
        return run_float(self.onnx, self.heldout)

    def judge(self, outputs: Any) -> dict[str, Any]:
        """Compare this segment's outputs, and the model's with them, with floating point."""
        reference = self.reference
        values = np.asarray(outputs, dtype=np.float32).reshape(reference.shape)
        own = accuracy(values, reference.reshape(len(reference), -1), None)
        final = self._finish(reference)
        of_model = accuracy(self._finish(values), final, self.labels)
        return {"drift": own["drift"], "labels": of_model["labels"], "agreement": of_model["agreement"]}

    def _finish(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        for onnx_file in self.rest:
            values = run_float(onnx_file, values)
        return values.reshape(len(values), -1)


def is_equal(ours: dict[str, Any], theirs: dict[str, Any]) -> bool:
    """Whether one circuit is as accurate as another: by labels where there are any, by drift elsewhere."""
    if ours["labels"] is None:
        return bool(ours["drift"] <= theirs["drift"])
    return bool(ours["labels"] >= theirs["labels"])


def take_part(data: Benchmark, segments: int, index: int | None) -> tuple[int, Part]:
    """Return a segment of a model; of a model that fits in part, its last stretch that does.

    Args:
        index: which one; the dearest if None.
    """
    try:
        model = load_model(data.onnx)
    except InvalidInputError:
        return 0, _last_stretch(data)
    parts = split(model, choose_cuts(model, segments))
    if index is None:
        index = max(range(len(parts)), key=lambda at: total_cost(load_model(parts[at])))
    inputs = [data.calibration, data.heldout]
    for part in parts[:index]:
        inputs = [run_float(part, values) for values in inputs]
    return index, Part(parts[index], inputs[0], inputs[1], parts[index + 1 :], data.labels)


def _last_stretch(data: Benchmark) -> Part:
    stretch = survey_model(data.onnx).stretches[-1]
    shape = [dimension.dim_value for dimension in load_model(stretch.onnx).graph.input[0].type.tensor_type.shape.dim]
    tensor = stretch.boundaries[0].name
    sides = [_tensor(data.onnx, tensor, values).reshape(-1, *shape[1:]) for values in (data.calibration, data.heldout)]
    return Part(stretch.onnx, sides[0], sides[1], (), data.labels)


def _tensor(model: bytes, name: str, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a model in floating point up to a tensor."""
    document = onnx.load_from_string(model)
    del document.graph.output[:]
    document.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    session = open_session(document.SerializeToString())
    source = session.get_inputs()[0].name
    return np.concatenate([session.run([name], {source: inputs[at : at + 1]})[0] for at in range(len(inputs))])


@dataclass(frozen=True)
class Tuned:
    """What the autotuner came to, and how accurate it is."""

    report: TuningReport
    built: Built
    elements: tuple[int, ...]
    judged: dict[str, Any]
    bound: float
    key_bytes: int


def tune_to(
    prover: EzklProver,
    machine: MachineModel,
    part: Part,
    target: Sequence[dict[str, Any]],
    kind: LinkKind,
    seconds: float,
    max_log_rows: int,
) -> Tuned:
    """Tighten the bound until a circuit is as accurate as every one of ``target``.

    Raises:
        InvalidInputError: no bound is enough.
    """
    forms = [(rewrite_for_proving(part.onnx, products=products),) for products in (False, True)]
    has_labels = all(each["labels"] is not None for each in target)
    for bound in BOUNDS if has_labels else (min(each["drift"] for each in target),):
        (segment,), report = autotune_cheapest(
            prover,
            forms,
            part.calibration,
            Samples(part.heldout, None),
            bound=AccuracyBound(max_drift=bound),
            machine=machine,
            kinds=(kind, kind),
            seconds=seconds,
            max_log_rows=max_log_rows,
            fixed_points=(*FIXED_POINTS, *FINE) if bound > COARSE else (*FINE, *FIXED_POINTS),
        )
        built = build(prover, Division((segment,), (report.tuning.segments[0].settings,)))
        inputs, outputs = built.execute(prover, part.heldout)
        judged = part.judge(outputs)
        if all(is_equal(judged, each) for each in target):
            key_bytes = built.circuits[0].pk.stat().st_size  # now: the circuit is in a scratch directory
            return Tuned(report, built, tuple(inputs[0]), judged, bound, key_bytes)
    raise InvalidInputError("bound", f"nothing is as accurate as ezkl's calibration ({target})", "allow larger scales")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure one segment."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="see benchmarks.models")
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--segment", type=int, help="which one; the dearest if it is not given")
    parser.add_argument("--target", action="append", choices=("resources", "accuracy"), help="both if none is given")
    parser.add_argument("--links", choices=("public", "kzg"), default="public", help="both ends, on both sides")
    parser.add_argument("--seconds", type=float, default=120.0, help="of searching, for each bound")
    parser.add_argument("--heldout", type=int, default=HELDOUT_SAMPLES)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--max-log-rows", type=int, default=18)
    parser.add_argument("--cache", type=Path, default=OUT / "cache", help="keeps what this machine was measured to do")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)

    index, part = take_part(load_benchmark(chosen.model, chosen.heldout), chosen.segments, chosen.segment)
    kind = LinkKind[chosen.links.upper()]
    machine = MachineModel.load_or_measure(EzklProver(ArtefactCache(chosen.cache)))
    calibrated: dict[str, Calibrated] = {}
    with tempfile.TemporaryDirectory(dir=scratch_in(chosen.out)) as scratch:
        for target in dict.fromkeys(chosen.target or ("resources", "accuracy")):
            directory = Path(scratch) / target
            directory.mkdir()
            (directory / "model.onnx").write_bytes(part.onnx)
            model = directory / "model.onnx"
            calibrated[target] = calibrate_circuit(model, part.calibration, target, directory, VISIBILITY[kind])
        judged = {target: part.judge(circuit.outputs(part.heldout)) for target, circuit in calibrated.items()}
        prover = EzklProver(ArtefactCache(Path(scratch) / "cache"))
        targets = list(judged.values())
        tuned = tune_to(prover, machine, part, targets, kind, chosen.seconds, chosen.max_log_rows)
        sample = part.heldout[0].ravel().tolist()
        jobs = [circuit.proof_job(sample) for circuit in calibrated.values()]
        proofs = prove_in_turns([proof_job(tuned.built.circuits[0], tuned.elements), *jobs], chosen.repeats)
    report = {
        "model": chosen.model,
        "segment": index,
        "segments": chosen.segments,
        "links": chosen.links,
        "machine": describe_machine(),
        "target": TARGET,
        "tuned": _tuned_report(tuned, proofs[0]),
        "calibrated": {
            target: _calibrated_report(circuit, judged[target], proof)
            for (target, circuit), proof in zip(calibrated.items(), proofs[1:], strict=True)
        },
    }
    report["ratios"] = {target: compare(report["tuned"], it) for target, it in report["calibrated"].items()}
    path = write_report(chosen.out, f"autotune-{chosen.model}-{index}", report)
    _show(report, path)
    return 0


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
    """The ratios: below one is better than ezkl's calibration."""
    return {name: ours["proof"][name] / theirs["proof"][name] for name in ("prove_seconds", "prove_bytes")}


def _tuned_report(tuned: Tuned, proved: Proved) -> dict[str, Any]:
    circuit = tuned.built.circuits[0]
    return {
        "log_rows": circuit.log_rows,
        "rows": circuit.rows,
        "fixed_point": str(tuned.report.tuning.fixed_point),
        "exact": tuned.report.tuning.exact,
        "checks_products": tuned.report.chosen.checks_products,
        "bound": tuned.bound,
        "heldout": tuned.judged,
        "setup_seconds": tuned.built.setup_seconds[0],
        "key_bytes": tuned.key_bytes,
        "proof": vars(proved),
        "predicted_seconds": tuned.report.prices[0].prove_seconds,
        "predicted_bytes": tuned.report.prices[0].prove_bytes,
        "search_seconds": tuned.report.seconds,
        "machine_model": tuned.report.machine,
    }


def _calibrated_report(circuit: Calibrated, judged: dict[str, Any], proved: Proved) -> dict[str, Any]:
    return {
        "log_rows": circuit.log_rows,
        "rows": circuit.rows,
        "input_scale": circuit.input_scale,
        "heldout": judged,
        "calibrate_seconds": circuit.calibrate_seconds,
        "setup_seconds": circuit.setup_seconds,
        "key_bytes": circuit.key_bytes,
        "proof": vars(proved),
    }


def _show(report: dict[str, Any], path: Path) -> None:
    print(f"{report['model']}, segment {report['segment']} of {report['segments']}, {report['links']} ends")
    print(f"  {tell_machine(report['machine'])}")
    for name, it in {f"autotuned, {report['tuned']['fixed_point']}": report["tuned"], **report["calibrated"]}.items():
        proof, heldout = it["proof"], it["heldout"]
        labels = "no labels" if heldout["labels"] is None else f"labels hit {heldout['labels']:.3f}"
        print(
            f"  {name}: 2^{it['log_rows']} rows ({it['rows']} used), prove {proof['prove_seconds']:.2f} s, "
            f"{proof['prove_bytes'] >> 20} MiB, setup {it['setup_seconds']:.1f} s; held out: {labels}, "
            f"agreement {heldout['agreement']:.3f}, drift {heldout['drift']:.5f}"
        )
    for target, ratios in report["ratios"].items():
        met = verdict(ratios["prove_seconds"], report["target"])
        print(f"  against {target}: time {met}, memory {ratios['prove_bytes']:.2f}")
    print(f"  written to {path}")


if __name__ == "__main__":
    raise SystemExit(main())

"""Proves in segments what is larger than memory as one circuit: ``python -m benchmarks.larger_than_memory``.

Both are laid out by the planner: once as one circuit, whatever it takes, and once under ``--memory``. Then both are
really proved, each proof in a process of its own that gets that much memory from the system (``RLIMIT_DATA``). The keys
of the segments are made under the same limit; those of the one circuit are not, for it would not come to a proof.
Exits with 1 unless the one circuit fails for lack of memory, every segment's proof is made and verified under the
limit, and neighbours show the same link.

The default, four dense layers with weights drawn at random, takes less than a minute. ``--model lenet --memory 1.1``
is a model of this repository's; any ONNX file does with ``--calibration``.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measuring import OUT, describe_machine, markdown, tell_machine, write_report
from benchmarks.models import prepare
from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples, load_samples
from offchain.inference.torch_export import export_module
from offchain.planning.costs import CostModel, TypicalMachine
from offchain.planning.plan import Plan, plan_model
from offchain.planning.planner import Constraints
from offchain.planning.workers import WorkerClass
from offchain.protocol.field import quantise
from offchain.protocol.links import links_of_proof
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver, Limits
from offchain.proving.port import Proof, SegmentCircuit
from offchain.proving.service import ProverService
from offchain.proving.srs import insecure_srs
from offchain.sandbox import NativeCallFailed, run_measured
from offchain.tuning.machine import MachineModel

MIB = 1 << 20
UNLIMITED = 1 << 40
WIDTHS = (32, 160, 160, 160, 10)
MEMORY_GIB = 0.25


@dataclass(frozen=True)
class Attempt:
    """What became of one circuit's proof.

    Attributes:
        admission: why a worker with this memory would not take it; empty if it would.
        failure: why there is no proof; empty if there is one, which was verified.
        measured_bytes: peak memory of the proof; None if there is none.
    """

    name: str
    log_rows: int
    predicted_bytes: int
    admission: str
    failure: str
    measured_bytes: int | None
    opening: str = ""
    closing: str = ""


@dataclass(frozen=True)
class Shown:
    """What the demonstration found."""

    memory_bytes: int
    whole: Attempt
    segments: tuple[Attempt, ...]

    @property
    def are_linked(self) -> bool:
        """Whether each segment opens with what the one before it closes with."""
        pairs = zip(self.segments, self.segments[1:], strict=False)
        return all(ours.closing == theirs.opening != "" for ours, theirs in pairs)

    @property
    def holds(self) -> bool:
        """Whether the model is proved under the limit, and could not be as one circuit."""
        is_killed = "memory" in self.whole.failure
        under = [it.measured_bytes is not None and it.measured_bytes <= self.memory_bytes for it in self.segments]
        return is_killed and len(self.segments) > 1 and all(under) and self.are_linked


def demonstrate(
    onnx: bytes, calibration: Samples, memory_bytes: int, cache: ArtefactCache, machine: CostModel | None = None
) -> Shown:
    """Try to prove a model as one circuit and in segments, under the same limit.

    Args:
        machine: predicts memory; this machine as measured if None.

    Raises:
        InvalidInputError: no plan keeps to the limit.
        ProverFailed: the segments' keys cannot be made under it.
    """
    limited, unlimited = EzklProver(cache, Limits(memory_bytes=memory_bytes)), EzklProver(cache)
    machine = machine or MachineModel.load_or_measure(unlimited)

    def plan(limit: int, most: int) -> Plan:
        constraints = Constraints((WorkerClass(machine.cores, limit, 16),), max_segments=most)
        planned = plan_model(onnx, unlimited, machine, constraints, calibration=calibration, max_log_rows=20)
        if not planned.plans[0].is_whole:
            reasons = "; ".join(f"{it.name}: {it.reason}" for it in planned.unprovable)
            raise InvalidInputError("memory", f"not all of the model can be proved in it ({reasons})", "allow more")
        return planned.plans[0]

    whole, parts = plan(UNLIMITED, 1), plan(memory_bytes, 16)
    values = calibration.inputs[0].ravel().tolist()
    (tried,) = _prove(unlimited, limited, whole, values, "one circuit")
    return Shown(memory_bytes, tried, _prove(limited, limited, parts, values, "segment"))


def _prove(
    builder: EzklProver, prover: EzklProver, plan: Plan, values: Sequence[float], name: str
) -> tuple[Attempt, ...]:
    srs = insecure_srs(builder, max(segment.circuit.log_rows for segment in plan.route.segments))
    elements = quantise(values, plan.fixed_point.input_scale)
    attempts = []
    for index, (onnx, settings) in enumerate(zip(plan.segments, plan.settings, strict=True)):
        circuit = builder.build(onnx, settings, srs, name=f"segment[{index}]")
        label = name if len(plan.segments) == 1 else f"{name} {index}"
        attempts.append(_attempt(prover, circuit, elements, label, plan.route.segments[index].prove_bytes))
        if index + 1 < len(plan.segments):
            elements = prover.witness(circuit, elements).outputs
    return tuple(attempts)


def _attempt(
    prover: EzklProver, circuit: SegmentCircuit, elements: Sequence[int], name: str, predicted_bytes: int
) -> Attempt:
    """Prove and verify under the prover's limit."""
    limit, admission = prover.limits.memory_bytes, ""
    try:
        ProverService(prover, memory_bytes=limit).check_fits(circuit, name)
    except InvalidInputError as refused:
        admission = str(refused)
    payload: dict[str, Any] = {key: str(getattr(circuit, key)) for key in ("compiled", "settings", "vk", "pk")}
    payload |= {"srs": str(circuit.srs.path), "elements": list(elements)}
    function, seconds = "offchain.proving.native:prove_elements", prover.limits.prove_seconds
    try:
        run = run_measured(function, payload, timeout_seconds=seconds, memory_bytes=limit)
    except NativeCallFailed as failed:
        return Attempt(name, circuit.log_rows, predicted_bytes, admission, str(failed), None)
    proof = Proof(bytes.fromhex(run.result["proof"]), tuple(run.result["instances"]))
    prover.verify(circuit.verifying_key(), circuit.srs, proof)
    links = links_of_proof(
        proof.proof, proof.instances, circuit.input_kind, circuit.output_kind, math.prod(circuit.input_shape)
    )
    shown = (link.hex() for link in links)
    return Attempt(name, circuit.log_rows, predicted_bytes, admission, "", run.peak_memory_bytes, *shown)


def dense_network() -> bytes:
    """Four dense layers with ReLUs between them, the same each time: nothing is learnt that memory depends on."""
    torch.manual_seed(1)
    layers: list[torch.nn.Module] = []
    for wide, narrow in zip(WIDTHS, WIDTHS[1:], strict=False):
        layers += [torch.nn.Linear(wide, narrow), torch.nn.ReLU()]
    return export_module(torch.nn.Sequential(*layers[:-1]), torch.zeros(1, WIDTHS[0]))


def render(shown: Shown) -> str:
    """As a table, with the verdict."""
    rows = [
        (
            it.name,
            it.log_rows,
            f"{it.predicted_bytes / MIB:.0f}",
            "-" if it.measured_bytes is None else f"{it.measured_bytes / MIB:.0f}",
            it.failure or f"proved and verified, links {it.opening[:8]} → {it.closing[:8]}",
        )
        for it in (shown.whole, *shown.segments)
    ]
    header = ("circuit", "log-rows", "predicted MiB", "peak MiB", f"under {shown.memory_bytes // MIB} MiB")
    table = markdown(header, rows)
    refused = f"a worker with this memory says: {shown.whole.admission}\n" if shown.whole.admission else ""
    verdict = "holds" if shown.holds else "does NOT hold"
    return f"{table}{refused}larger than memory, and proved in {len(shown.segments)} segments: {verdict}\n"


def _read(chosen: argparse.Namespace) -> tuple[bytes, Samples]:
    if chosen.calibration is not None:
        return Path(chosen.model).read_bytes(), load_samples(chosen.calibration)
    if chosen.model != "dense":
        directory = prepare(chosen.model)
        return (directory / "model.onnx").read_bytes(), load_samples(directory / "calibration.npz")
    drawn = np.random.default_rng(1).uniform(-1, 1, (32, WIDTHS[0])).astype(np.float32)
    return dense_network(), Samples(drawn, None)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="dense", help="`dense`, a benchmark model's name, or an ONNX file")
    parser.add_argument("--calibration", type=Path, help="npz with `input`, for an ONNX file")
    parser.add_argument("--memory", type=float, default=MEMORY_GIB, help="GiB that a proof may take")
    parser.add_argument("--typical", action="store_true", help="guess this machine's costs, not measure them")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)
    machine = describe_machine()
    print(tell_machine(machine), flush=True)
    onnx, calibration = _read(chosen)
    with tempfile.TemporaryDirectory() as directory:
        model = TypicalMachine() if chosen.typical else None
        memory_bytes = int(chosen.memory * (1 << 30))
        shown = demonstrate(onnx, calibration, memory_bytes, ArtefactCache(Path(directory)), model)
    print(render(shown))
    report: dict[str, Any] = {"machine": machine, "model": chosen.model, **asdict(shown), "holds": shown.holds}
    print(write_report(chosen.out, f"larger_than_memory_{Path(chosen.model).stem}", report))
    return 0 if shown.holds else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""What the benchmarks share: data, circuits, proofs taken in turns, and the machine that they were made on."""

from __future__ import annotations

import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.models import prepare
from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.inference.execution import run_float
from offchain.protocol.field import dequantise, quantise
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit
from offchain.proving.settings import RunParameters, read_settings
from offchain.proving.srs import insecure_srs
from offchain.sandbox import run_measured
from offchain.tuning.chain import Chain
from offchain.tuning.report import TuningReport
from offchain.tuning.search import autotune
from offchain.tuning.shape import shape_of

HELDOUT_SAMPLES = 40
PROVE_SECONDS = 1800.0
MEMORY_BYTES = 20 << 30
OUT = Path("build/benchmarks")

Reals = NDArray[np.float32]


@dataclass(frozen=True)
class Benchmark:
    """A model with its data.

    Attributes:
        calibration, heldout: (n, *input shape) float32.
        labels: of ``heldout``; None where there are none.
    """

    name: str
    path: Path
    onnx: bytes
    calibration: Reals
    heldout: Reals
    labels: NDArray[np.int64] | None

    @property
    def reference(self) -> Reals:
        """(n, outputs): what the model makes of ``heldout`` in floating point."""
        return run_float(self.onnx, self.heldout).reshape(len(self.heldout), -1)


def load_benchmark(name: str, samples: int = HELDOUT_SAMPLES) -> Benchmark:
    """Return one of :mod:`benchmarks.models`, made if it is not there, with so many held-out samples."""
    directory = prepare(name)
    stored = np.load(directory / "heldout.npz")
    return Benchmark(
        name=name,
        path=directory / "model.onnx",
        onnx=(directory / "model.onnx").read_bytes(),
        calibration=np.load(directory / "calibration.npz")["input"],
        heldout=stored["input"][:samples],
        labels=stored["label"][:samples] if "label" in stored else None,
    )


@dataclass(frozen=True)
class Proved:
    """What proving one circuit took, over several proofs.

    Attributes:
        prove_seconds, verify_seconds: medians.
        least_seconds, most_seconds: of the proofs.
        prove_bytes: the most that a proof's process held at once.
    """

    prove_seconds: float
    verify_seconds: float
    least_seconds: float
    most_seconds: float
    prove_bytes: int
    proof_bytes: int


def proof_job(circuit: SegmentCircuit, elements: Sequence[int]) -> dict[str, Any]:
    """Return what :func:`benchmarks.whole.prove_segment` needs to prove one input of a circuit."""
    return {
        "compiled": str(circuit.compiled),
        "settings": str(circuit.settings),
        "vk": str(circuit.vk),
        "pk": str(circuit.pk),
        "srs": str(circuit.srs.path),
        "elements": list(elements),
    }


def prove_in_turns(jobs: Sequence[dict[str, Any]], repeats: int, *, warm_up: bool = False) -> tuple[Proved, ...]:
    """Prove each job ``repeats`` times, each proof in a process of its own, first one of each, then the next of each.

    So whatever else the machine does falls on all of them alike.

    Args:
        warm_up: prove each once before, which does not count: keys are read from the disk then.
    """
    for job in jobs if warm_up else ():
        _prove(job)
    rounds = [[_prove(job) for job in jobs] for _ in range(repeats)]
    return tuple(map(_summarise, zip(*rounds, strict=True)))


def _prove(job: dict[str, Any]) -> dict[str, Any]:
    function = "benchmarks.whole:prove_segment"
    run = run_measured(function, job, timeout_seconds=PROVE_SECONDS, memory_bytes=MEMORY_BYTES)
    return run.result | {"prove_bytes": run.peak_memory_bytes}


def _summarise(runs: Sequence[Mapping[str, Any]]) -> Proved:
    times = [run["prove_seconds"] for run in runs]
    return Proved(
        prove_seconds=statistics.median(times),
        verify_seconds=statistics.median(run["verify_seconds"] for run in runs),
        least_seconds=min(times),
        most_seconds=max(times),
        prove_bytes=max(run["prove_bytes"] for run in runs),
        proof_bytes=max(run["proof_bytes"] for run in runs),
    )


@dataclass(frozen=True)
class Division:
    """A model in segments, and the settings of each.

    Attributes:
        predicted: seconds and bytes of each segment's proof, where a plan said them.
    """

    segments: tuple[bytes, ...]
    settings: tuple[bytes, ...]
    predicted: tuple[tuple[float, float], ...] = ()

    @property
    def kinds(self) -> tuple[LinkKind, ...]:
        """Link kind of each boundary, one more than segments."""
        read = [read_settings(settings) for settings in self.settings]
        return (read[0].input_kind, *(each.output_kind for each in read))


@dataclass(frozen=True)
class Built:
    """The circuits of a division, and how long each took to compile and to make keys for."""

    circuits: tuple[SegmentCircuit, ...]
    setup_seconds: tuple[float, ...]

    def execute(self, prover: EzklProver, inputs: Reals) -> tuple[list[tuple[int, ...]], NDArray[np.float64]]:
        """Run the chain on real inputs, without proving.

        Returns:
            What each segment takes for the first input, and the outputs for all: (n, outputs).
        """
        first, last = self.circuits[0], self.circuits[-1]
        batch = [quantise(row.tolist(), first.input_scale) for row in inputs.reshape(len(inputs), -1)]
        activations = prover.activations(self.circuits, batch)
        outputs = np.asarray([dequantise(each[-1], last.output_scale) for each in activations])
        return [batch[0], *activations[0][:-1]], outputs


def build(prover: EzklProver, division: Division) -> Built:
    """Compile every segment and make its keys, unless the prover's cache holds them."""
    srs = insecure_srs(prover, max(read_settings(settings).log_rows for settings in division.settings))
    circuits, seconds = [], []
    for onnx, settings in zip(division.segments, division.settings, strict=True):
        started = time.monotonic()
        circuits.append(prover.build(onnx, settings, srs))
        seconds.append(time.monotonic() - started)
    return Built(tuple(circuits), tuple(seconds))


def with_kinds(prover: EzklProver, division: Division, kinds: Sequence[LinkKind], *, taller: int = 0) -> Division:
    """Return the same circuits with other links: scales, decomposition and widths stay.

    Args:
        kinds: of each boundary, one more than segments.
        taller: by how much log-rows grow.

    Raises:
        RuntimeError: the tool laid one out with other scales.
    """
    with tempfile.TemporaryDirectory() as scratch:
        chain = Chain(prover, division.segments, Path(scratch), tuple(kinds))
        choices = []
        for index, it in enumerate(division.settings):
            was = RunParameters.from_settings(it)
            one, other = kinds[index : index + 2]
            choices.append((index, replace(was, input_kind=one, output_kind=other, log_rows=was.log_rows + taller)))
        settings = tuple(chain.generate(choices))
    for index, pair in enumerate(zip(division.settings, settings, strict=True)):
        before, after = map(read_settings, pair)
        for name in ("input_scale", "output_scale", "decomposition_base", "decomposition_legs"):
            if getattr(before, name) != getattr(after, name):
                raise RuntimeError(f"segment {index}: {name} {getattr(before, name)} became {getattr(after, name)}")
    return Division(division.segments, settings)


def equal_pair(prover: EzklProver, linked: Division) -> tuple[Division, Division]:
    """Return a division with its links, and with public boundaries, each circuit as tall and as wide as its twin.

    A public value takes a row of the circuit, and a committed one does not. Where that makes one of them a block of
    columns wider, both are made taller.
    """
    public_kinds = (LinkKind.PUBLIC,) * len(linked.kinds)
    for taller in range(4):
        one = with_kinds(prover, linked, linked.kinds, taller=taller)
        other = with_kinds(prover, linked, public_kinds, taller=taller)
        if all(_are_equal(*pair) for pair in zip(one.settings, other.settings, strict=True)):
            return one, other
    raise RuntimeError("no log-rows give circuits of equal size with links and without")


def _are_equal(one: bytes, other: bytes) -> bool:
    left, right = shape_of(one), shape_of(other)
    return (left.log_rows, left.column_blocks) == (right.log_rows, right.column_blocks)


def autotune_cheapest(
    prover: EzklProver, forms: Iterable[Sequence[bytes]], calibration: Reals, heldout: Samples, **options: Any
) -> tuple[tuple[bytes, ...], TuningReport]:
    """Autotune the same segments in each of several forms, and return those that are predicted to prove soonest.

    Circuits that leave the prover no choice of output come first; only where there are none, others are taken.

    Args:
        forms: segments that compute the same; see :func:`offchain.inference.rewriting.rewrite_for_proving`.
        options: of :func:`offchain.tuning.search.autotune`.

    Raises:
        InvalidInputError: no form keeps the bound.
    """
    refused = InvalidInputError("forms", "there are none", "give at least one")
    for exact in (True, False):
        found = []
        for segments in dict.fromkeys(map(tuple, forms)):
            try:
                report = autotune(prover, segments, calibration, heldout, exact=exact, **options)
                found.append((segments, report))
            except InvalidInputError as error:
                refused = error
        if found:
            return min(found, key=lambda each: sum(price.prove_seconds for price in each[1].prices))
    raise refused


def accuracy(outputs: Any, reference: Reals, labels: NDArray[Any] | None) -> dict[str, float | None]:
    """Compare the outputs of held-out inputs with those in floating point.

    Returns:
        ``agreement``: share of samples of the same class; ``labels``: share of labels hit, None without any;
        ``largest_error``, and ``drift``, the same relative to the largest output in floating point.
    """
    fixed = np.asarray(outputs, dtype=np.float64).reshape(len(reference), -1)
    error = float(np.abs(fixed - reference).max())
    return {
        "agreement": float((fixed.argmax(axis=1) == reference.argmax(axis=1)).mean()),
        "labels": None if labels is None else float((fixed.argmax(axis=1) == labels).mean()),
        "largest_error": error,
        "drift": error / max(float(np.abs(reference).max()), 1e-9),
    }


def errors_of(predicted: Sequence[tuple[float, float]], measured: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Compare pairs of seconds and bytes, one per segment.

    Returns:
        How far each prediction is off, relative to what was measured.
    """
    ends = {
        "longest": [max(seconds for seconds, _ in each) for each in (predicted, measured)],
        "total": [sum(seconds for seconds, _ in each) for each in (predicted, measured)],
        "memory": [max(size for _, size in each) for each in (predicted, measured)],
    }
    return {name: guess / truth - 1.0 for name, (guess, truth) in ends.items()}


def verdict(value: float, target: float) -> str:
    """Say whether a figure is at most its target."""
    return f"{value:.2f} (at most {target:g}: {'met' if value <= target else 'MISSED'})"


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


def tell_machine(machine: Mapping[str, Any]) -> str:
    """Say the same in a line."""
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, load {machine['load']:.1f}"


def write_report(out: Path, name: str, report: Mapping[str, Any]) -> Path:
    """Write a report as JSON."""
    path = scratch_in(out) / f"{name}.json"
    path.write_text(json.dumps(report, indent=2, default=_plain) + "\n")
    return path


def scratch_in(out: Path) -> Path:
    """Make a directory that is to hold results, and return it."""
    out.mkdir(parents=True, exist_ok=True)
    return out


def _plain(value: Any) -> Any:
    return value.name if isinstance(value, LinkKind) else asdict(value)


def markdown(header: Sequence[str], rows: Iterable[Sequence[Any]], form: Callable[[Any], str] = str) -> str:
    """Return a table."""
    lines = [header, ["---"] * len(header), *([form(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"

"""What proving costs on this machine: measured once on small circuits, fitted, and kept.

How many columns a circuit has of each kind follows from its settings (:func:`offchain.planning.costs.columns_of`), and
so does what a prover does with them: it reads the key, commits to columns and transforms them. What each of these costs
is what is measured.
"""

from __future__ import annotations

import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from offchain.planning.costs import CircuitShape, columns_of
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import FixedPoint
from offchain.proving.srs import insecure_srs
from offchain.tuning.chain import Chain, Layout
from offchain.tuning.shape import shape_of

MODEL_FORMAT = "machine-3"
REPEATS = 2
"""Proofs per circuit. The faster one counts: what else runs on a machine only ever adds."""
MAX_REPEATED_LOG_ROWS = 13
Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class Probe:
    """A small circuit that is proved to learn what one costs: a layer and an activation.

    Args:
        width: of the layer.
        activation: ``Relu`` (range checks), ``Sigmoid`` (a lookup), ``Softmax`` (a lookup, a division and a sort), or
            ``Norm`` (division by the root of the mean square).
        kind: of both boundaries.
        rescales: whether the product is divided, which takes another table of a range check.
        tokens: rows of the input; with more than one, products of matrices are checked in columns of their own.
    """

    log_rows: int
    width: int = 8
    activation: str = "Relu"
    kind: LinkKind = LinkKind.KZG
    inner_columns: int = 2
    rescales: bool = False
    tokens: int = 1


PROBES = (
    Probe(9),
    Probe(12),
    Probe(12, kind=LinkKind.PUBLIC),
    Probe(12, kind=LinkKind.POSEIDON),
    Probe(10, width=48),
    Probe(13, width=112),
    Probe(11, width=24, inner_columns=4),
    Probe(12, inner_columns=1, tokens=16),
    Probe(14, width=16, inner_columns=1, tokens=32),
    Probe(12, width=40, activation="Sigmoid", rescales=True),
    Probe(13, width=32, activation="Softmax", rescales=True),
    Probe(14, width=64, activation="Norm", rescales=True),
    Probe(15, width=224),
    Probe(15, width=96, activation="Softmax", rescales=True),
    Probe(16, width=336),
)
"""From almost empty circuits to full ones, of one to three column blocks, and as large as segments are."""


@dataclass(frozen=True)
class Measurement:
    """What one probe took.

    Args:
        setup_seconds: of compiling and of making both keys and the verifier.
    """

    shape: CircuitShape
    prove_seconds: float
    prove_bytes: int
    setup_seconds: float
    key_bytes: int


@dataclass(frozen=True)
class MachineModel:
    """Predicts the cost of a circuit on the machine that it was measured on; a :class:`CostModel`.

    Args:
        machine: what it was measured on.
        seconds, memory, setup: what each feature of a circuit costs, in seconds or bytes; see :func:`_work`,
            :func:`_space` and :func:`_making`.
        error: median relative error of the predicted seconds over the measured circuits.
    """

    machine: dict[str, str | int]
    seconds: tuple[float, ...]
    memory: tuple[float, ...]
    setup: tuple[float, ...]
    error: float

    @property
    def cores(self) -> int:
        """Processors that a proof used."""
        return int(self.machine["threads"])

    def prove_seconds(self, shape: CircuitShape) -> float:
        """How long one proof takes, alone on the machine."""
        return float(np.dot(self.seconds, _work(shape)))

    def prove_bytes(self, shape: CircuitShape) -> int:
        """Peak memory of proving."""
        return int(np.dot(self.memory, _space(shape)))

    def setup_seconds(self, shape: CircuitShape) -> float:
        """How long compiling and making both keys takes."""
        return float(np.dot(self.setup, _making(shape)))

    def key_bytes(self, shape: CircuitShape) -> int:
        """Size of the proving key, which its columns tell exactly."""
        return columns_of(shape).key_bytes(shape.log_rows)

    def describe(self) -> str:
        """Say in one line what was measured."""
        known = self.machine
        return (
            f"{known['cpu']}, {known['threads']} of {known['cores']} cores, {int(known['memory_bytes']) >> 30} GiB, "
            f"{known['tool']}; predicted seconds are {self.error:.0%} off in the median"
        )

    @classmethod
    def fit(cls, machine: dict[str, str | int], measured: Sequence[Measurement]) -> MachineModel:
        """Fit what each feature costs; relative errors count, so that large circuits do not drown small ones."""
        shapes = [entry.shape for entry in measured]
        work, space, making = (np.array([list(of(shape)) for shape in shapes]) for of in (_work, _space, _making))
        seconds = np.array([entry.prove_seconds for entry in measured])
        fitted = _fit(work, seconds)
        return cls(
            machine=machine,
            seconds=fitted,
            memory=_fit(space, np.array([entry.prove_bytes for entry in measured], dtype=float)),
            setup=_fit(making, np.array([entry.setup_seconds for entry in measured])),
            error=round(float(np.median(np.abs(work @ np.array(fitted) / seconds - 1))), 4),
        )

    @classmethod
    def measure(
        cls, prover: EzklProver, probes: Sequence[Probe] = PROBES, progress: Progress | None = None
    ) -> MachineModel:
        """Prove the probes and fit what they took. Takes about a minute and a half.

        Raises:
            ProverFailed: a limit on time or memory was hit.
        """
        measured = []
        for number, probe in enumerate(probes):
            if progress is not None:
                progress(f"measuring this machine (log-rows {probe.log_rows})", number / len(probes))
            measured.append(measure_probe(prover, probe))
        return cls.fit(machine_of(prover), measured)

    @classmethod
    def load_or_measure(
        cls, prover: EzklProver, probes: Sequence[Probe] | None = None, progress: Progress | None = None
    ) -> MachineModel:
        """Return the model of this machine, measured on first use and kept in the prover's cache."""

        probes = PROBES if probes is None else probes

        def make(directory: Path) -> None:
            model = cls.measure(prover, probes, progress)
            (directory / "machine.json").write_text(json.dumps(asdict(model), sort_keys=True))

        entry = prover.cache.get_or_make(MODEL_FORMAT, machine_of(prover) | {"probes": repr(tuple(probes))}, make)
        document: dict[str, Any] = json.loads((entry / "machine.json").read_text())
        prices = {name: tuple(document[name]) for name in ("seconds", "memory", "setup")}
        return cls(machine=document["machine"], error=document["error"], **prices)


def machine_of(prover: EzklProver) -> dict[str, str | int]:
    """Return what the cost of a proof depends on besides the circuit."""
    cores = len(os.sched_getaffinity(0))
    return {
        "cpu": _processor(),
        "cores": cores,
        "threads": min(prover.threads or cores, cores),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "tool": prover.version,
    }


def measure_probe(prover: EzklProver, probe: Probe) -> Measurement:
    """Build a probe's circuit from nothing and prove it.

    Raises:
        ProverFailed: a limit on time or memory was hit.
    """
    srs = insecure_srs(prover, probe.log_rows)
    with tempfile.TemporaryDirectory() as scratch:
        model = probe_model(probe)
        chain = Chain(prover, [model], Path(scratch), (probe.kind, probe.kind))
        layout = Layout(probe.log_rows, _legs(probe), probe.inner_columns, probe.tokens > 1)
        plan = chain.plan(FixedPoint(7, 7, probe.rescales), [layout])
        fresh = EzklProver(ArtefactCache(Path(scratch) / "cache"), prover.limits, prover.threads)
        started = time.monotonic()
        circuit = fresh.build(model, plan.settings[0], srs, name="probe")
        setup_seconds = time.monotonic() - started
        payload = {
            "compiled": str(circuit.compiled),
            "pk": str(circuit.pk),
            "vk": str(circuit.vk),
            "srs": str(srs.path),
            "elements": [1] * circuit.input_elements,
        }
        repeats = REPEATS if probe.log_rows <= MAX_REPEATED_LOG_ROWS else 1
        runs = [prover.call("measure_proof", payload, prover.limits.prove_seconds, "probe") for _ in range(repeats)]
        return Measurement(
            shape=shape_of(plan.settings[0]),
            prove_seconds=min(run["seconds"] for run in runs),
            prove_bytes=max(run["peak_bytes"] for run in runs),
            setup_seconds=setup_seconds,
            key_bytes=circuit.pk.stat().st_size,
        )


def probe_model(probe: Probe) -> bytes:
    """Return a dense layer with an activation as ONNX bytes, the same each time."""
    drawn = np.random.default_rng(probe.width).uniform(-1, 1, size=(probe.width, probe.width)) / probe.width
    weights = {"weight": drawn.astype(np.float32), "bit": np.full(1, 2.0**-6, dtype=np.float32)}
    shape = [probe.tokens, probe.width]
    activation = [helper.make_node(probe.activation, ["product"], ["y"])]
    if probe.activation == "Norm":
        activation = [
            helper.make_node("Mul", ["product", "product"], ["squares"]),
            helper.make_node("ReduceMean", ["squares"], ["mean"], axes=[-1], keepdims=1),
            helper.make_node("Add", ["mean", "bit"], ["positive"]),
            helper.make_node("Sqrt", ["positive"], ["root"]),
            helper.make_node("Div", ["product", "root"], ["y"]),
        ]
    used = {name for node in activation for name in node.input} | {"weight"}
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["product"]), *activation],
        "probe",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(values, name) for name, values in weights.items() if name in used],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


def _legs(probe: Probe) -> int:
    return 3 if probe.log_rows < 13 else 2


def _work(shape: CircuitShape) -> tuple[float, ...]:
    """Features of proving time: points to commit to, the key that is read and weighted, values on the extended domain.

    All are per log-rows: sums of points take fewer operations per point the more points there are (Pippenger), and
    small circuits keep the cores less busy. Of some hundreds of choices of features these are among those that predict
    a probe best from the others: 8 % off in the root mean square, 16 % at worst, which flatters what was so chosen.
    """
    columns = columns_of(shape)
    height = float(1 << shape.log_rows) / shape.log_rows
    return (
        1.0,
        height * (columns.proved + columns.degree),
        columns.key_bytes(shape.log_rows) / shape.log_rows,
        height * columns.extension * columns.proved,
    )


def _space(shape: CircuitShape) -> tuple[float, ...]:
    """Features of peak memory: the reference string, the key, and values on the extended domain."""
    columns = columns_of(shape)
    height = float(1 << shape.log_rows)
    return 1.0, height, float(columns.key_bytes(shape.log_rows)), height * columns.extension * columns.proved


def _making(shape: CircuitShape) -> tuple[float, ...]:
    """Features of setting up: the reference string, the key, and the columns that it commits to."""
    columns = columns_of(shape)
    height = float(1 << shape.log_rows)
    return 1.0, height, float(columns.key_bytes(shape.log_rows)), height * (columns.fixed + columns.permuted)


def _fit(table: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, ...]:
    """Return least-squares prices, none negative: whatever a circuit has more of makes it dearer."""
    weighted = table / values[:, None]
    used = [place for place in range(table.shape[1]) if np.any(table[:, place])]
    while used:
        scale = np.abs(weighted[:, used]).max(axis=0)
        found = np.linalg.lstsq(weighted[:, used] / scale, np.ones(len(values)), rcond=None)[0] / scale
        if (found >= 0).all():
            break
        used.pop(int(np.argmin(found * scale)))
    prices = np.zeros(table.shape[1])
    prices[used] = found if used else []
    return tuple(float(price) for price in prices)


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()

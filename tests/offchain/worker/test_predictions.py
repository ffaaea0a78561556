"""What a worker predicts of proofs, with this machine's model and without."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from offchain.planning.costs import CircuitShape
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import ProverFailed, SegmentCircuit
from offchain.proving.service import predicted_bytes
from offchain.tuning.machine import MachineModel
from offchain.worker.predictions import Predictions, predicted_seconds
from tests.harness import prepared_model, test_prover
from tests.models import mlp


class Model:
    """A machine's model that says what it is told."""

    def __init__(self, seconds: float = 7.0, memory: int = 0) -> None:
        self.seconds, self.memory, self.machine = seconds, memory, {"threads": 2}
        self.cores = 2
        self.asked: list[CircuitShape] = []

    def prove_seconds(self, shape: CircuitShape) -> float:
        self.asked.append(shape)
        return self.seconds

    def prove_bytes(self, shape: CircuitShape) -> int:
        return self.memory

    def describe(self) -> str:
        return "a machine"


@pytest.fixture(scope="module")
def circuit() -> SegmentCircuit:
    return prepared_model(mlp((4, 6, 5, 3), seed=3), "predicted", test_prover()).circuits[0]


def test_predicted_seconds__each_doubling_of_the_rows__takes_twice_as_long() -> None:
    assert predicted_seconds(12) == 4 * predicted_seconds(10)


@pytest.mark.integration
def test_predictions__nothing_measured__go_by_rows_and_key(circuit: SegmentCircuit) -> None:
    predictions = Predictions()
    assert predictions.prove_seconds(circuit) == predicted_seconds(circuit.log_rows)
    assert predictions.prove_bytes(circuit) == predicted_bytes(circuit)


@pytest.mark.integration
def test_predictions__machine_measured__go_by_the_circuit_s_shape(circuit: SegmentCircuit) -> None:
    model: Any = Model(seconds=7.5)
    assert Predictions(model).prove_seconds(circuit) == 7.5
    assert [shape.log_rows for shape in model.asked] == [circuit.log_rows]


@pytest.mark.integration
@pytest.mark.parametrize("more", [-1, 1])
def test_prove_bytes__model_and_key_differ__is_the_larger(circuit: SegmentCircuit, more: int) -> None:
    by_key = predicted_bytes(circuit)
    model: Any = Model(memory=by_key + more)
    assert Predictions(model).prove_bytes(circuit) == max(by_key, by_key + more)


@pytest.mark.unit
def test_learn__never_measured_and_not_allowed__measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from offchain.proving.cache import ArtefactCache

    measured: list[object] = []
    monkeypatch.setattr("offchain.tuning.machine.measure_probe", lambda prover, probe: measured.append(probe))
    predictions, prover = Predictions(), EzklProver(ArtefactCache(tmp_path))
    predictions.learn(prover, may_measure=False).join()
    assert not predictions.are_measured
    assert measured == []
    assert list((tmp_path / "entries").iterdir()) == []


@pytest.mark.unit
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [ProverFailed("probe", "memory", "out of it"), ValueError("odd")])
def test_learn__measuring_fails__leaves_the_rules_of_thumb(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(MachineModel, "load_or_measure", fail)
    predictions = Predictions()
    predictions.learn(test_prover(), may_measure=True).join()
    assert not predictions.are_measured


@pytest.mark.integration
def test_learn__measuring_takes_its_time__predicts_meanwhile(
    circuit: SegmentCircuit, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = threading.Event()

    def measure(prover: EzklProver, progress: Any) -> Model:
        progress("measuring", 0.0)
        done.wait(30)
        return Model(seconds=7.5)

    monkeypatch.setattr(MachineModel, "load_or_measure", measure)
    predictions = Predictions()
    thread = predictions.learn(test_prover(), may_measure=True)
    assert predictions.prove_seconds(circuit) == predicted_seconds(circuit.log_rows)
    done.set()
    thread.join()
    assert predictions.prove_seconds(circuit) == 7.5

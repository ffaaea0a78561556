"""What proving is predicted to cost on a machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tuning_models import PROBES

from offchain.planning.costs import CircuitShape
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.tuning.machine import MachineModel, Measurement, Probe, machine_of, measure_probe

SHAPE = CircuitShape(9, 100, 1, 0, 2, False, LinkKind.PUBLIC, LinkKind.PUBLIC)
SHAPES = [
    SHAPE,
    replace(SHAPE, log_rows=11),
    replace(SHAPE, log_rows=13),
    replace(SHAPE, log_rows=11, column_blocks=3),
    replace(SHAPE, log_rows=12, inner_columns=6),
    replace(SHAPE, log_rows=11, input_kind=LinkKind.KZG, output_kind=LinkKind.KZG),
    replace(SHAPE, log_rows=11, input_kind=LinkKind.POSEIDON),
]


TRUTH = MachineModel({"threads": 2}, (0.1, 2e-6, 3e-8, 4e-6), (5e7, 200.0, 1.2, 40.0), (0.3, 1e-5, 1e-8, 2e-6), 0.0)


def measured(shape: CircuitShape) -> Measurement:
    """What a circuit takes on a machine that follows the model exactly."""
    figures = TRUTH.prove_seconds(shape), TRUTH.prove_bytes(shape), TRUTH.setup_seconds(shape)
    return Measurement(shape, *figures, TRUTH.key_bytes(shape))


@pytest.mark.unit
def test_fit__costs_that_follow_the_model__are_found_and_predicted_beyond() -> None:
    model = MachineModel.fit({"threads": 2}, [measured(shape) for shape in SHAPES])
    larger = replace(SHAPE, log_rows=16, column_blocks=2, input_kind=LinkKind.KZG)
    assert model.prove_seconds(larger) == pytest.approx(TRUTH.prove_seconds(larger), rel=1e-6)
    assert model.prove_bytes(larger) == pytest.approx(TRUTH.prove_bytes(larger), rel=1e-3)
    assert model.setup_seconds(larger) == pytest.approx(TRUTH.setup_seconds(larger), rel=1e-6)
    assert model.error == pytest.approx(0, abs=1e-6)
    assert model.cores == 2


@pytest.mark.unit
def test_fit__costs_that_fall_as_circuits_grow__never_make_more_cheaper() -> None:
    rng = np.random.default_rng(0)
    random = [Measurement(shape, rng.uniform(0.5, 1.5), 10**6, 1.0, 1000) for shape in SHAPES]
    model = MachineModel.fit({"threads": 2}, random)
    assert min(*model.seconds, *model.memory, *model.setup) >= 0


@pytest.mark.integration
def test_load_or_measure__second_time__measures_nothing(
    prover: EzklProver, machine: MachineModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("offchain.tuning.machine.measure_probe", None)
    assert MachineModel.load_or_measure(prover, PROBES) == machine
    assert machine.machine == machine_of(prover)
    assert str(machine.machine["tool"]) in machine.describe()
    with pytest.raises(TypeError):
        MachineModel.load_or_measure(prover, PROBES[:1])


@pytest.mark.integration
@pytest.mark.parametrize(
    "probe",
    [
        Probe(8, width=4),
        Probe(9, width=24, inner_columns=1),
        Probe(8, width=28),
        Probe(9, width=4, kind=LinkKind.POSEIDON),
        Probe(9, width=4, kind=LinkKind.PUBLIC, inner_columns=4),
        Probe(10, width=4, inner_columns=1, tokens=8),
        Probe(11, width=8, inner_columns=2, tokens=8),
        Probe(11, width=4, activation="Sigmoid", rescales=True),
        Probe(12, width=4, activation="Softmax", rescales=True),
    ],
    ids=["plain", "blocks", "two blocks", "hashed", "wide", "products", "wide products", "lookup", "sorted"],
)
def test_measure_probe__any_kind_of_column__makes_a_key_of_the_size_that_its_settings_tell(
    prover: EzklProver, probe: Probe
) -> None:
    found = measure_probe(prover, probe)
    assert found.shape.log_rows == probe.log_rows
    assert (found.shape.product_rows > 0) == (probe.tokens > 1)
    assert TRUTH.key_bytes(found.shape) == pytest.approx(found.key_bytes, rel=0.01)
    assert min(found.prove_seconds, found.setup_seconds) > 0
    assert found.prove_bytes > 10 << 20

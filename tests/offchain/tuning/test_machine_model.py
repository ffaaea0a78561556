"""What proving is predicted to cost on a machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tuning_models import PROBES

from offchain.planning.costs import CircuitShape
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.tuning.machine import MachineModel, Measurement, machine_of, measure_probe

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


def cost(shape: CircuitShape) -> float:
    """A machine that follows the model exactly."""
    columns = shape.column_blocks * shape.inner_columns
    links = [shape.input_kind, shape.output_kind]
    height = 2**shape.log_rows
    return 0.1 + height * (3e-5 * columns + 1e-5 * links.count(LinkKind.KZG) + 8e-5 * links.count(LinkKind.POSEIDON))


@pytest.mark.unit
def test_fit__costs_that_follow_the_model__are_found_and_predicted_beyond() -> None:
    measured = [Measurement(shape, cost(shape), int(1e9 * cost(shape)), cost(shape), 1000) for shape in SHAPES]
    model = MachineModel.fit({"threads": 2}, measured)
    larger = replace(SHAPE, log_rows=16, column_blocks=2, input_kind=LinkKind.KZG)
    assert model.prove_seconds(larger) == pytest.approx(cost(larger), rel=1e-6)
    assert model.prove_bytes(larger) == pytest.approx(1e9 * cost(larger), rel=1e-3)
    assert model.error == pytest.approx(0, abs=1e-6)
    assert model.cores == 2


@pytest.mark.unit
def test_fit__costs_that_fall_as_circuits_grow__never_make_more_cheaper() -> None:
    rng = np.random.default_rng(0)
    measured = [Measurement(shape, rng.uniform(0.5, 1.5), 10**6, 1.0, 1000) for shape in SHAPES]
    model = MachineModel.fit({"threads": 2}, measured)
    assert min(*model.seconds, *model.memory, *model.setup, *model.key) >= 0


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
def test_measure_probe__taller_circuit__has_the_shape_asked_for_and_larger_keys(prover: EzklProver) -> None:
    small, tall = measure_probe(prover, PROBES[0]), measure_probe(prover, PROBES[2])
    assert (small.shape.log_rows, tall.shape.log_rows) == (7, 9)
    assert 2 * small.key_bytes < tall.key_bytes
    assert min(small.prove_seconds, small.setup_seconds) > 0
    assert small.prove_bytes > 10 << 20

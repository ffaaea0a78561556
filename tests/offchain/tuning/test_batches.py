"""A batch is answered, and proved, as its inputs are alone; and what it costs is told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from offchain.inference.batching import with_batch
from offchain.inference.calibration import Samples
from offchain.inference.untrusted import split_model
from offchain.models.preparation import measure
from offchain.protocol.field import quantise
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit
from offchain.proving.srs import insecure_srs
from offchain.tuning.batches import checks_products, cost_of_batch, tune_either, warn_of, weigh
from offchain.tuning.chain import group_rows, ungroup_rows
from tests.models import tiny_mlp

SIZE = 3
SCALED = [(0.5, -1.0, 0.25, 1.5), (-0.25, 0.75, 1.0, -1.25), (1.5, 1.5, -0.5, 0.0)]


@pytest.fixture(scope="module")
def calibration() -> np.ndarray:
    return np.random.default_rng(7).uniform(-2, 2, (16, 4)).astype(np.float32)


def circuits_of(prover: EzklProver, model: bytes, calibration: np.ndarray) -> list[SegmentCircuit]:
    parts = [part.onnx for part in split_model(model, segments=2)]
    tuning = prover.tune(parts, calibration)
    srs = insecure_srs(prover, tuning.log_rows)
    bounds = (tuning.input_bound, None)
    return [
        prover.build(onnx, tuned.settings, srs, input_bound=bound)
        for onnx, tuned, bound in zip(parts, tuning.segments, bounds, strict=True)
    ]


@pytest.fixture(scope="module")
def batched(prover: EzklProver, calibration: np.ndarray) -> list[SegmentCircuit]:
    return circuits_of(prover, with_batch(tiny_mlp(5), SIZE), calibration)


@pytest.mark.integration
def test_prove__batch_of_three__answers_as_three_single_runs(
    prover: EzklProver, batched: list[SegmentCircuit], calibration: np.ndarray
) -> None:
    single = circuits_of(prover, tiny_mlp(5), calibration)
    assert single[0].input_scale == batched[0].input_scale
    inputs = [quantise(row, single[0].input_scale) for row in SCALED]
    alone = [outputs[-1] for outputs in prover.activations(single, inputs)]
    elements: tuple[int, ...] = tuple(element for row in inputs for element in row)
    for circuit in batched:
        witness = prover.witness(circuit, elements)
        proof = prover.prove(circuit, witness)
        prover.verify(circuit.verifying_key(), circuit.srs, proof)
        elements = witness.outputs
    assert elements == tuple(element for row in alone for element in row)
    assert proof.instances[-len(elements) :] == elements


@pytest.mark.integration
def test_measure__batched_circuits__counts_single_samples(
    prover: EzklProver, batched: list[SegmentCircuit], calibration: np.ndarray
) -> None:
    # Seven samples are two batches and a third, and one of them is beyond the circuits' bound.
    samples = Samples(np.vstack([calibration[:6], np.full((1, 4), 100, dtype=np.float32)]), np.arange(7) % 3)
    found = measure(tiny_mlp(5), batched, prover, samples, "held-out")
    assert found.samples == 7
    assert found.agreement == pytest.approx(6 / 7, abs=1e-3)
    assert found == measure(with_batch(tiny_mlp(5), SIZE), batched, prover, samples, "held-out")


@pytest.mark.integration
def test_cost_of_batch__of_one_and_of_three__is_told_per_input(prover: EzklProver, calibration: np.ndarray) -> None:
    alone, batch = (
        cost_of_batch(prover, tiny_mlp(5), size, calibration, segments=1, max_log_rows=12) for size in (1, SIZE)
    )
    assert batch.rows_per_input * SIZE == weigh(batch.tuning)
    assert warn_of(alone, alone) == warn_of(replace(batch, size=1000), alone) == ""
    dearer = warn_of(replace(batch, size=1), replace(alone, size=SIZE))
    assert f"{weigh(batch.tuning):,.0f} rows" in dearer
    assert f"against {weigh(alone.tuning) / SIZE:,.0f}" in dearer


@pytest.mark.integration
def test_tune_either__products_with_many_rows__are_checked(prover: EzklProver) -> None:
    chance = np.random.default_rng(3)
    wide = with_batch(dense(160), 8)
    samples = chance.uniform(-1, 1, (4, 160)).astype(np.float32)
    chosen = tune_either(prover, [wide], samples, max_drift=0.5)
    assert checks_products(chosen.segments[0].settings)


def dense(width: int) -> bytes:
    from offchain.tuning.machine import Probe, probe_model

    return probe_model(Probe(8, width=width))


@pytest.mark.unit
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_group_rows__any_count__comes_apart_again(count: int) -> None:
    rows = np.arange(count * 2).reshape(count, 2)
    groups = group_rows(rows, SIZE)
    assert groups.shape == (-(-count // SIZE), SIZE * 2)
    assert groups[-1, -2:].tolist() == rows[-1].tolist()
    assert ungroup_rows(groups, SIZE, count).tolist() == rows.tolist()

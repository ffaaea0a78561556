"""The choice of settings on real models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from proving_circuits import export, two_segments

from offchain.errors import InvalidInputError
from offchain.protocol.field import FIELD_MODULUS, quantise
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import BoundaryMismatch, CircuitRefused, SegmentCircuit, Tuning
from offchain.proving.settings import read_settings
from offchain.proving.srs import insecure_srs

pytestmark = pytest.mark.integration


def test_tune__twice__gives_the_same_bytes(
    prover: EzklProver, segments: tuple[bytes, bytes], calibration: np.ndarray, tuning: Tuning
) -> None:
    assert prover.tune(segments, calibration) == tuning
    for choice in tuning.segments:
        assert json.loads(choice.settings)["timestamp"] == 0


def test_tune__small_network__is_small_and_accurate(tuning: Tuning) -> None:
    assert tuning.log_rows <= 8  # the tool's own calibration takes 15
    assert {segment.log_rows for segment in tuning.segments} == {tuning.log_rows}
    assert tuning.kinds == (LinkKind.KZG, LinkKind.KZG, LinkKind.PUBLIC)
    assert tuning.scales == (7, 14, 21)
    assert tuning.exact
    assert 0 < tuning.drift.relative <= 0.05
    assert all(segment.column_blocks == 1 for segment in tuning.segments)


def test_tune__bound__is_accepted_at_every_corner(
    prover: EzklProver, circuits: tuple[SegmentCircuit, ...], tuning: Tuning, calibration: np.ndarray
) -> None:
    bound = tuning.input_bound
    assert bound == pytest.approx(2 * np.abs(calibration).max())
    edge = quantise([bound], tuning.scales[0])[0] - 1
    corners = [[edge if bits >> place & 1 else FIELD_MODULUS - edge for place in range(4)] for bits in range(16)]
    assert len(prover.activations(circuits, corners)) == 16


def test_tune__more_column_blocks__lower_log_rows_and_still_prove(
    prover: EzklProver, segments: tuple[bytes, bytes], calibration: np.ndarray, tuning: Tuning
) -> None:
    folded = prover.tune(segments, calibration, column_blocks=4)
    assert folded.log_rows < tuning.log_rows
    srs = insecure_srs(prover, folded.log_rows)
    elements = quantise(calibration[0].tolist(), folded.scales[0])
    link = None
    for onnx, choice in zip(segments, folded.segments, strict=True):
        circuit = prover.build(onnx, choice.settings, srs)
        witness = prover.witness(circuit, elements)
        proof = prover.prove(circuit, witness)
        prover.verify(circuit.verifying_key(), srs, proof)
        assert link in (None, proof.proof[:64])
        link, elements = proof.proof[64:128], witness.outputs


def test_tune__drift_bound__raises_the_scale_or_is_refused(
    prover: EzklProver, segments: tuple[bytes, bytes], calibration: np.ndarray, tuning: Tuning
) -> None:
    finer = prover.tune(segments, calibration, max_drift=tuning.drift.relative / 4)
    assert finer.scales[0] > 7
    assert finer.exact
    assert finer.candidates[0].refusal.startswith("drift")
    with pytest.raises(InvalidInputError, match="max_drift: not met .exact 7/7: drift .* rescaled 7/7: drift"):
        prover.tune(segments, calibration, max_drift=1e-9, scales=(7,))


def test_tune__wide_values__take_more_range(prover: EzklProver, segments: tuple[bytes, bytes], tuning: Tuning) -> None:
    samples = np.full((1, 4), 1e9, dtype=np.float32)
    wide = prover.tune(segments, samples)
    assert wide.candidates[0].refusal.startswith("segment[0]: a wide input leaves the range")
    assert wide.segments[0].decomposition_legs > tuning.segments[0].decomposition_legs


def test_tune__too_few_log_rows__names_the_segment_and_its_rows(
    prover: EzklProver, segments: tuple[bytes, bytes], calibration: np.ndarray
) -> None:
    with pytest.raises(CircuitRefused, match=r"segment\[0\]: needs \d+ rows, and log-rows 7 has 120"):
        prover.tune(segments, calibration, max_log_rows=7)


def test_tune__shapes_that_do_not_join__are_refused(prover: EzklProver, calibration: np.ndarray) -> None:
    first, second = two_segments(seed=1)[0], export(torch.nn.Linear(2, 3), 1, 3, 2)
    with pytest.raises((BoundaryMismatch, InvalidInputError), match=r"segment\[[01]\]"):
        prover.tune([first, second], calibration)


def test_tune__malformed_model__names_the_segment(
    prover: EzklProver, segments: tuple[bytes, bytes], calibration: np.ndarray
) -> None:
    with pytest.raises(CircuitRefused, match=r"segment\[1\]\.model"):
        prover.tune([segments[0], b"junk"], calibration)


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        (np.zeros((0, 4)), "has shape"),
        (np.zeros((3, 5)), "has shape"),
        (np.full((1, 4), np.nan), "not finite"),
        (np.zeros((2, 4)), "every value is zero"),
    ],
)
def test_tune__bad_calibration__is_refused(
    prover: EzklProver, segments: tuple[bytes, bytes], samples: np.ndarray, problem: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"calibration: .*{problem}"):
        prover.tune(segments, samples.astype(np.float32))


def test_tune__sigmoid__fits_a_lookup_table_and_proves(prover: EzklProver, calibration: np.ndarray) -> None:
    torch.manual_seed(5)
    onnx = export(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Sigmoid()), 1, 4)
    tuned = prover.tune([onnx], calibration)
    assert read_settings(tuned.segments[0].settings).needs_lookups
    circuit = prover.build(onnx, tuned.segments[0].settings, insecure_srs(prover, tuned.log_rows))
    proof = prover.prove(circuit, prover.witness(circuit, quantise(calibration[0].tolist(), tuned.scales[0])))
    assert len(proof.instances) == 3

"""The search for the settings that prove fastest, on real models."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tuning_models import PROBES, pooled
from typer.testing import CliRunner

from offchain.cli.app import app
from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.protocol.field import quantise
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import FixedPoint
from offchain.proving.srs import insecure_srs
from offchain.tuning.bound import AccuracyBound
from offchain.tuning.machine import MachineModel
from offchain.tuning.search import autotune

pytestmark = pytest.mark.integration
EXACT, COARSE = FixedPoint(7, 7, rescales=False), FixedPoint(3, 2, rescales=False)
RESCALED = FixedPoint(7, 7, rescales=True)
ONE_WIDTH = ((2, 1),)


def test_autotune__two_segments__chain_their_scales_and_prove(
    prover: EzklProver, layer: bytes, calibration: np.ndarray, heldout: Samples, machine: MachineModel
) -> None:
    report = autotune(
        prover,
        [layer, layer],
        calibration,
        heldout,
        bound=AccuracyBound(max_drift=0.1),
        machine=machine,
        fixed_points=(EXACT, RESCALED),
        widths=((2, 1), (4, 1)),
    )
    tuning = report.tuning
    assert tuning.scales == (7, 14, 21)
    assert tuning.exact
    assert [segment.closing_link_is_unique for segment in tuning.segments] == [False, True]
    assert report.chosen.prove_seconds == sum(price.prove_seconds for price in report.prices)
    assert {entry.fixed_point for entry in report.rejected} == {EXACT, RESCALED}
    assert all(entry.reason for entry in report.rejected)
    elements = quantise(heldout.inputs[0].tolist(), tuning.scales[0])
    srs = insecure_srs(prover, tuning.log_rows)
    link = None
    for choice in tuning.segments:
        circuit = prover.build(layer, choice.settings, srs)
        proof = prover.prove(circuit, witness := prover.witness(circuit, elements))
        assert link in (None, proof.proof[:64])
        link, elements = proof.proof[64:128], witness.outputs


def test_autotune__accuracy__is_that_of_the_held_out_data(
    prover: EzklProver, layer: bytes, calibration: np.ndarray, heldout: Samples, machine: MachineModel
) -> None:
    strict = AccuracyBound(max_drift=0.03)
    options = {"bound": strict, "machine": machine, "fixed_points": (COARSE, EXACT), "widths": ONE_WIDTH}
    report = autotune(prover, [layer], calibration, heldout, **options)
    assert report.tuning.fixed_point == EXACT
    [coarse] = report.rejected
    assert coarse.fixed_point == COARSE
    assert coarse.reason.startswith("drift ")
    # Multiples of an eighth lose nothing, so that the coarse numbers would pass on such a calibration set alone.
    whole = np.round(calibration * 8) / 8
    again = autotune(prover, [layer], whole.astype(np.float32), heldout, **options)
    assert again.tuning.fixed_point == EXACT
    # Twice the calibration is the bound: what is beyond is refused, and counts against the accuracy.
    outside = Samples(heldout.inputs * np.float32(100), None)
    with pytest.raises(InvalidInputError, match="disagreement 1 over 0.5 on held-out data"):
        autotune(prover, [layer], calibration, outside, **options | {"bound": AccuracyBound(max_disagreement=0.5)})


def test_autotune__ambiguous_operation__is_taken_only_where_allowed(prover: EzklProver, machine: MachineModel) -> None:
    model = pooled("AveragePool")
    inputs = np.random.default_rng(1).uniform(-1, 1, size=(6, 1, 6, 6)).astype(np.float32)
    options = {
        "bound": AccuracyBound(max_drift=0.1),
        "machine": machine,
        "fixed_points": (EXACT,),
        "widths": ONE_WIDTH,
    }
    with pytest.raises(InvalidInputError, match="ambiguous: average pool"):
        autotune(prover, [model], inputs, Samples(inputs, None), **options)
    report = autotune(prover, [model], inputs, Samples(inputs, None), exact=False, **options)
    assert report.tuning.segments[0].ambiguities == ("average pool: the prover may round either way",)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"max_bytes": 1000}, "predicted to take more than 0 MB"),
        ({"max_verifier_bytes": 1000}, "verifier of about "),
        ({"max_log_rows": 6}, "needs .* rows, and log-rows 6 has 56"),
    ],
)
def test_autotune__limit_of_the_worker_or_the_chain__refuses_by_name(
    prover: EzklProver,
    layer: bytes,
    calibration: np.ndarray,
    heldout: Samples,
    machine: MachineModel,
    limit: dict[str, int],
    reason: str,
) -> None:
    bound = AccuracyBound(max_drift=0.1)
    with pytest.raises(InvalidInputError, match=reason):
        autotune(
            prover,
            [layer],
            calibration,
            heldout,
            bound=bound,
            machine=machine,
            fixed_points=(EXACT,),
            widths=ONE_WIDTH,
            **limit,
        )


def test_autotune__everything_tried__nothing_rejected_is_predicted_cheaper(
    prover: EzklProver, layer: bytes, calibration: np.ndarray, heldout: Samples, machine: MachineModel
) -> None:
    report = autotune(
        prover,
        [layer],
        calibration,
        heldout,
        bound=AccuracyBound(max_drift=0.1),
        machine=machine,
        seconds=3600.0,
        exact=False,
        fixed_points=(RESCALED, EXACT),
        widths=((6, 1), (4, 1), (2, 1)),
    )
    assert report.is_complete
    assert all(option.prove_seconds is None or option.prove_seconds > 0 for option in report.rejected)
    cheapest = min(option.prove_seconds for option in report.rejected if option.reason == "predicted to be no cheaper")
    assert report.chosen.prove_seconds is not None
    assert report.chosen.prove_seconds <= cheapest
    # Only the first is tried out of turn, so that nothing else can be overtaken.
    assert [option.reason for option in report.rejected].count("a cheaper one keeps the bound too") <= 1
    text = Console(width=200, record=True, file=io.StringIO())
    text.print(report.table())
    assert "predicted to be no cheaper" in text.export_text()
    assert json.loads(json.dumps(report.to_json()))["chosen"]["exact"] is True


def test_model_tune__command__writes_report_and_settings(
    layer: bytes, calibration: np.ndarray, heldout: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERLOCK_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("offchain.tuning.machine.PROBES", PROBES)
    (tmp_path / "model.onnx").write_bytes(layer)
    np.savez(tmp_path / "c.npz", input=calibration)
    np.savez(tmp_path / "h.npz", input=heldout.inputs)
    files = [str(tmp_path / name) for name in ("model.onnx", "c.npz", "h.npz", "report.json", "out")]
    arguments = ["model", "tune", files[0], "--calibration", files[1], "--heldout", files[2], "--json", files[3]]
    answer = CliRunner().invoke(app, [*arguments, "--settings", files[4], "--bound", "0.2", "--seconds", "4"])
    assert answer.exit_code == 0, answer.output
    report = json.loads((tmp_path / "report.json").read_text())
    settings = json.loads((tmp_path / "out" / "segment-0.json").read_text())
    assert settings["run_args"]["logrows"] == report["segments"][0]["log_rows"]
    refused = CliRunner().invoke(app, [*arguments, "--links", "none"])
    assert refused.exit_code == 2
    assert "no kind of link" in refused.output

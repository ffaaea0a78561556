"""Whole plans of a tiny network: run and compared, reported, drawn, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from planning_machines import ROOMY, perceptron
from rich.console import Console
from typer.testing import CliRunner

from offchain.cli.app import app
from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.planning.costs import MAX_VERIFIER_BYTES, TypicalMachine, verifier_bytes
from offchain.planning.measuring import measure_plan
from offchain.planning.picture import draw
from offchain.planning.plan import Bound, Measured, ModelPlan, plan_model
from offchain.planning.planner import Constraints
from offchain.planning.report import render, to_json
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.srs import insecure_srs
from offchain.proving.verifier import compile_verifiers
from offchain.tuning.shape import shape_of

pytestmark = pytest.mark.integration

SAMPLES = Samples(np.random.default_rng(3).uniform(-1, 1, size=(12, 8)).astype(np.float32), None)


@pytest.fixture(scope="module")
def planned(prover: EzklProver) -> ModelPlan:
    constraints = Constraints(ROOMY, slack=0.0, max_segments=2)
    return plan_model(perceptron(8, 24, 4), prover, TypicalMachine(), constraints, calibration=SAMPLES, heldout=SAMPLES)


def test_plan_model__tiny_network__is_accurate_and_says_what_else_there_was(planned: ModelPlan) -> None:
    [plan] = planned.plans
    assert plan.is_whole
    assert len(plan.route.segments) == 2
    assert plan.accuracy is not None
    assert plan.accuracy.drift < 0.05
    [whole] = plan.alternatives
    assert whole.prove_seconds is not None
    assert whole.prove_seconds >= plan.prove_seconds


def test_measure_plan__tiny_network__is_proved_as_planned(planned: ModelPlan, prover: EzklProver) -> None:
    [plan] = planned.plans
    srs = insecure_srs(prover, max(segment.circuit.log_rows for segment in plan.route.segments))
    compared = plan.compare(measure_plan(prover, plan, srs, SAMPLES.inputs[0].tolist()))
    assert [entry.predicted for entry in compared] == list(plan.route.segments)
    assert all(entry.measured.prove_bytes > 1 << 20 for entry in compared)


def test_verifier_bytes__built_circuit__is_the_contracts_size(planned: ModelPlan, prover: EzklProver) -> None:
    [plan] = planned.plans
    srs = insecure_srs(prover, max(segment.circuit.log_rows for segment in plan.route.segments))
    sources, predicted = {}, {}
    for index, (onnx, settings) in enumerate(zip(plan.segments, plan.settings, strict=True)):
        name = f"Verifier{index}"
        sources[name] = prover.solidity_verifier(prover.build(onnx, settings, srs), name)
        predicted[name] = verifier_bytes(shape_of(settings))
        assert predicted[name] == plan.route.segments[index].verifier_bytes
    for name, compiled in compile_verifiers(sources, prover.cache).items():
        assert abs(len(compiled.runtime_code) - predicted[name]) < 0.01 * predicted[name]
        assert len(compiled.runtime_code) <= MAX_VERIFIER_BYTES


def test_compare__a_quarter_off__is_within_a_quarter(planned: ModelPlan) -> None:
    [plan] = planned.plans
    figures = [Measured(segment.prove_seconds * 1.2, segment.prove_bytes) for segment in plan.route.segments]
    compared = plan.compare(figures)
    assert all(entry.within(0.25) and not entry.within(0.1) for entry in compared)
    with pytest.raises(ValueError):
        plan.compare(figures[:1])


def test_plan_model__no_accuracy_is_enough__is_refused_with_what_was_reached(prover: EzklProver) -> None:
    with pytest.raises(InvalidInputError) as caught:
        plan_model(
            perceptron(8, 24, 4), prover, TypicalMachine(), Constraints(ROOMY), heldout=SAMPLES, bound=Bound(0.0, 0.0)
        )
    assert caught.value.field == "heldout"
    assert "drift" in caught.value.problem


def test_plan_model__circuits_too_large__says_so_of_each_piece(prover: EzklProver) -> None:
    with pytest.raises(InvalidInputError, match="needs about [0-9,]+ rows"):
        plan_model(perceptron(200, 100), prover, TypicalMachine(), Constraints(ROOMY), max_log_rows=8)


def test_to_json__plan__can_be_written_and_holds_every_segment(planned: ModelPlan) -> None:
    [plan] = planned.plans
    document = json.loads(json.dumps(to_json(planned, [plan.compare([Measured(1.0, 1)] * 2)])))
    [written] = document["plans"]
    assert [segment["gas"] for segment in written["segments"]] == [segment.gas for segment in plan.route.segments]
    assert written["segments"][0]["measured"] == {"prove_seconds": 1.0, "prove_bytes": 1}
    assert written["cuts"] == list(plan.cuts)


def test_draw__plan__is_xml_with_a_line_per_cut(planned: ModelPlan) -> None:
    root = ElementTree.fromstring(draw(planned))
    lines = root.findall("{http://www.w3.org/2000/svg}line")
    boxes = [box for box in root.findall("{http://www.w3.org/2000/svg}rect") if box.get("stroke")]
    assert len(lines) == len(planned.plans[0].route.segments)
    assert len(boxes) == len(planned.plans[0].stretch.pieces)


def test_render__plan__names_every_cut(planned: ModelPlan) -> None:
    console = Console(width=160, record=True)
    console.print(render(planned))
    text = console.export_text()
    assert all(text.count(cut) == 2 for cut in planned.plans[0].cuts)  # where it is cut, and how it is linked


def test_plan__command__writes_json_and_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERLOCK_HOME", str(tmp_path / "home"))
    model, plan, picture = tmp_path / "model.onnx", tmp_path / "plan.json", tmp_path / "plan.svg"
    model.write_bytes(perceptron(8, 24, 4))
    arguments = ["model", "plan", str(model), "--typical", "--json", str(plan), "--picture", str(picture)]
    answer = CliRunner().invoke(app, arguments)
    assert answer.exit_code == 0, answer.output
    assert json.loads(plan.read_text())["plans"][0]["is_whole"]
    assert picture.read_text().startswith("<svg")
    refused = CliRunner().invoke(app, [*arguments, "--links", "rope"])
    assert refused.exit_code != 0

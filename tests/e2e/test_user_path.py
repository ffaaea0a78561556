"""What the README tells a newcomer to type: register, submit, show, audit. Every step is the real command."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest

from offchain.protocol.types import JobId, Phase
from tests.live_network import MODEL, VALUES, LiveNetwork, hexadecimal, run_float
from tests.models import cnn

pytestmark = pytest.mark.e2e

AUDIT_KEYS = ["verdict", "job", "model", "result", "segments", "srs"]
SEGMENT_KEYS = ["index", "label", "link_in", "link_out", "proof_cid", "stake_for", "stake_total", "checks"]


@pytest.fixture(scope="module")
def submitted(live: LiveNetwork) -> subprocess.CompletedProcess[str]:
    """A job, submitted and followed to its end by the command."""
    path = live.home / "files" / "input.json"
    path.write_text(json.dumps({"input": list(VALUES)}))
    return live.interlock("job", "submit", live.model, path, "--wait")


@pytest.fixture(scope="module")
def job(submitted: subprocess.CompletedProcess[str]) -> str:
    """Its id, as it was printed."""
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    found = re.search(r"^job (0x[0-9a-f]{64})$", submitted.stdout, re.MULTILINE)
    assert found
    return found[1]


def test_register__onnx_never_seen_before__shows_segments_accuracy_and_the_insecure_srs(live: LiveNetwork) -> None:
    assert live.registration is not None
    printed = live.registration.stdout
    assert [printed.count(f"│ {index} ") for index in range(4)] == [1, 1, 1, 0]
    assert "same class on" in printed
    assert "insecure-dev" in printed


def test_model_list__registered_model__is_listed(live: LiveNetwork) -> None:
    listed = live.interlock("model", "list")
    assert listed.returncode == 0
    assert live.model in listed.stdout
    assert "never-seen" in listed.stdout


def test_submit__wait__shows_the_result_and_the_next_command(
    submitted: subprocess.CompletedProcess[str], job: str
) -> None:
    assert "finalised" in submitted.stdout
    assert submitted.stdout.count("proved") >= 3
    assert f"interlock audit {job}" in submitted.stdout


def test_job_show__finished_job__answers_what_floating_point_answers(live: LiveNetwork, job: str) -> None:
    shown = live.interlock("job", "show", job, "--json")
    assert shown.returncode == 0
    answer = json.loads(shown.stdout)
    assert (answer["phase"], answer["job"], answer["model"]) == ("finalised", job, live.model)
    expected = run_float(MODEL, VALUES)
    np.testing.assert_allclose(np.ravel(answer["result"]["values"]), expected, rtol=0, atol=live.drift)
    assert answer["result"]["top"] == expected.argmax()
    table = live.interlock("job", "show", job)
    assert (table.returncode, table.stdout.count("proved")) == (0, 4)  # thrice, and in the heading


def test_committees__nine_workers_and_three_segments__are_disjoint(live: LiveNetwork, job: str) -> None:
    view = live.ended(JobId(hexadecimal(job)), Phase.FINALISED)
    committees = [{member.operator for member in round_.members} for round_ in view.rounds]
    assert [len(committee) for committee in committees] == [3, 3, 3]
    assert set().union(*committees) == set(live.network.operators)


def test_audit__finished_job__is_valid_and_shows_a_line_per_segment(live: LiveNetwork, job: str) -> None:
    audited = live.interlock("audit", job)
    assert audited.returncode == 0, audited.stdout + audited.stderr
    assert f"VALID: job {job}" in audited.stdout
    assert "INVALID" not in audited.stdout
    assert "insecure-dev" in audited.stdout


def test_audit__json__has_the_promised_schema(live: LiveNetwork, job: str) -> None:
    audited = live.interlock("audit", job, "--json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    report = json.loads(audited.stdout)
    assert list(report)[: len(AUDIT_KEYS)] == AUDIT_KEYS
    assert (report["verdict"], report["job"], report["model"]) == ("valid", job, live.model)
    np.testing.assert_allclose(report["result"], run_float(MODEL, VALUES), rtol=0, atol=live.drift)
    assert report["srs"]["origin"] == "insecure-dev"
    for index, segment in enumerate(report["segments"]):
        assert list(segment) == SEGMENT_KEYS
        assert (segment["index"], segment["label"]) == (index, "proved")
        assert segment["stake_for"] == segment["stake_total"] == 3 * live.network.options.stake_wei
        assert all(check["ok"] for check in segment["checks"].values())
    links = [(segment["link_in"], segment["link_out"]) for segment in report["segments"]]
    assert [opening for opening, _ in links[1:]] == [closing for _, closing in links[:-1]]


def test_audit__rederive__compiles_every_segment_to_its_registered_key(live: LiveNetwork, job: str) -> None:
    audited = live.interlock("audit", job, "--rederive", "--json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    for segment in json.loads(audited.stdout)["segments"]:
        assert segment["checks"]["rederived_key"]["ok"]


def test_audit__gateway_killed__is_still_valid(live: LiveNetwork, job: str) -> None:
    live.network.programs["gateway"].kill()
    try:
        audited = live.interlock("audit", job)
        shown = live.interlock("job", "show", job)
    finally:
        live.network.restart("gateway")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    # It was really away.
    assert shown.returncode == 2
    assert "no gateway answers" in shown.stderr


def test_audit__addresses_given__needs_no_network_record(live: LiveNetwork, job: str) -> None:
    record = live.network.record
    named = ("--rpc", record.rpc_url, "--ipfs", record.ipfs_url, "--jobs", live.contracts.jobs.address)
    audited = live.interlock("audit", job, *named, home=live.home / "elsewhere")
    assert audited.returncode == 0, audited.stdout + audited.stderr


def test_audit__job_that_nobody_requested__is_invalid_and_leaves_with_1(live: LiveNetwork) -> None:
    audited = live.interlock("audit", "ab" * 32, "--json")
    assert audited.returncode == 1
    assert json.loads(audited.stdout)["verdict"] == "invalid"


def test_register__convolutional_network_in_two_segments__runs_beside_the_first_model(live: LiveNetwork) -> None:
    onnx = cnn((1, 2, 2), side=4, classes=2, seed=5)
    samples = np.random.default_rng(9).uniform(-1, 1, (16, 1, 4, 4)).astype(np.float32)
    model = live.register(onnx, samples, "own-cnn", 2)
    assert model != live.model
    path = live.home / "files" / "image.json"
    path.write_text(json.dumps(samples[3].tolist()))
    done = live.interlock("job", "submit", model, path, "--wait")
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^job (0x[0-9a-f]{64})$", done.stdout, re.MULTILINE)
    assert found
    audited = live.interlock("audit", found[1], "--json")
    assert audited.returncode == 0, audited.stdout + audited.stderr
    report = json.loads(audited.stdout)
    assert [segment["label"] for segment in report["segments"]] == ["proved", "proved"]
    exact = [run_float(onnx, sample) for sample in samples]
    drift = 0.05 * float(max(np.abs(answer).max() for answer in exact))
    np.testing.assert_allclose(report["result"], exact[3], rtol=0, atol=drift)

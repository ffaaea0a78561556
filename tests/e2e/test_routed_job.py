"""A person says what a job demands, and reads why it is run as it is; then an operator goes."""

from __future__ import annotations

import json
import re

import pytest

from offchain.protocol.route_document import MAX_ROUTE_BYTES, parse_route_document
from offchain.protocol.types import JobId, Phase
from offchain.storage.cid import digest_to_cid
from offchain.storage.ipfs import IpfsStore
from offchain.worker.config import WorkerConfig
from offchain.worker.progress import read_progress
from tests.live_network import VALUES, LiveNetwork, hexadecimal

pytestmark = pytest.mark.e2e

LATENCY_SECONDS = 1500


def submit(live: LiveNetwork, *options: object) -> JobId:
    path = live.home / "files" / "routed.json"
    path.write_text(json.dumps(list(VALUES)))
    done = live.interlock("job", "submit", live.model, path, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.search(r"^job (0x[0-9a-f]{64})$", done.stdout, re.MULTILINE)
    assert found
    return JobId(hexadecimal(found[1]))


def test_submit__standard_and_split__is_run_by_the_route_and_shown(live: LiveNetwork) -> None:
    job = submit(live, "--criticality", "standard", "--privacy", "split", "--latency", LATENCY_SECONDS)
    live.seen(job, lambda it: it.phase in (Phase.CHALLENGEABLE, Phase.FINALISED), "its rounds and proofs")
    live.jump(LATENCY_SECONDS)
    view = live.ended(job)
    store = IpfsStore(live.network.ipfs_url, 20.0)
    document = parse_route_document(store.get(digest_to_cid(view.job.route_cid), max_bytes=MAX_ROUTE_BYTES))
    assert (document.route.policy, document.route.fee_wei) == (view.job.policy, view.job.fee_wei)
    committees = [member.operator for round_ in view.rounds for member in round_.members]
    assert len(committees) == len(set(committees)) == 9  # split: nobody sees two segments

    shown = live.interlock("job", "show", job.hex())
    assert shown.returncode == 0, shown.stderr
    assert f"policy chosen by route {digest_to_cid(view.job.route_cid)}:" in shown.stdout
    for reason in document.route.reasons:
        assert reason in shown.stdout
    assert "finalised" in shown.stdout


def test_submit__latency_that_cannot_be_had__is_refused_with_the_mend(live: LiveNetwork) -> None:
    path = live.home / "files" / "routed.json"
    path.write_text(json.dumps(list(VALUES)))
    done = live.interlock("job", "submit", live.model, path, "--criticality", "critical", "--latency", 10)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("demand.latency_seconds: 10 s are too few: 3 segments at 15 s a turn")
    assert re.search(r"→ allow \d+ s", done.stderr)


def test_cancel__job_that_runs__is_refused(live: LiveNetwork) -> None:
    job = live.submit(proof_permille=0, challenge_seconds=5)
    view = live.seen(job, lambda it: it.phase is not Phase.NONE, "the job on the chain")
    done = live.interlock("job", "cancel", job.hex())
    assert done.returncode == 2
    assert done.stderr.startswith("job: the job is ")
    assert "a job that has started runs to its end" in done.stderr
    assert view.job.frozen_block > 0
    live.ended(job)


def test_operator__show_of_a_worker__has_its_stake_and_its_model(live: LiveNetwork) -> None:
    name = live.names[0]
    shown = live.interlock("operator", "show", live.network.worker_configs[name])
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.splitlines()[0] == f"operator {live.operator_of(name)}"
    active = live.contracts.staking.active_of(live.operator_of(name))
    assert active % 10**18 == 0
    assert f"stake: {active // 10**18} ETH active, 0 ETH unbonding" in shown.stdout
    assert live.model in shown.stdout
    state = WorkerConfig.load(live.network.worker_configs[name]).state_directory
    assert read_progress(state) is not None  # it writes from its start, with or without proofs

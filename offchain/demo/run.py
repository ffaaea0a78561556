"""``interlock demo``: runs the main job as a user would, through the gateway, and reports what it took."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from rich.table import Table

from offchain import toolchain
from offchain.audit import audit, render
from offchain.chain.contracts import Contracts
from offchain.cli.client import GatewayClient
from offchain.cli.context import console
from offchain.cli.views import describe_event, progress_bar, show_job_table, show_model
from offchain.demo.measuring import Stopwatch, gas_by_kind
from offchain.errors import InterlockError
from offchain.network.local import LocalNetwork, NetworkOptions
from offchain.protocol.types import JobId, ModelId
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.storage.ipfs import IpfsStore
from offchain.storage.sealing import Identity

WORKERS = 9


@dataclass(frozen=True)
class Example:
    """A model that the demo trains, registers and runs."""

    name: str
    module: str
    asks: str
    classes: tuple[str, ...]


EXAMPLES = (
    Example("breast-cancer", "examples.breast_cancer", "Is this sample malignant?", ("malignant", "benign")),
    Example("digits", "examples.digits", "Which digit is this 8×8 image?", tuple("0123456789")),
)


def run_demo(*, keep_cache: bool, chain: str, directory: Path | None = None) -> int:
    """Run the main job and write ``report.json``; returns the exit code.

    Args:
        keep_cache: use circuits and keys from an earlier run.
        chain: ``anvil`` or ``ganache``.
        directory: where models, network, cache and report go; ``build/demo`` if None.

    Raises:
        InterlockError: the network did not come up, or a job could not be submitted.
    """
    build = (directory or toolchain.project_root() / "build" / "demo").absolute()
    if not keep_cache:
        shutil.rmtree(build / "cache", ignore_errors=True)
    build.mkdir(parents=True, exist_ok=True)
    watch = Stopwatch()
    reports: list[dict[str, Any]] = []
    for example in EXAMPLES:
        _train(example, build, watch)
    options = NetworkOptions(build / "network", build / "cache", chain=chain, workers=WORKERS)
    console.rule("A local network")
    network = LocalNetwork(options, report=lambda step: console.print(f"  {step}"))
    with watch.step("start the network"):
        network.__enter__()
    try:
        contracts = network.contracts
        for example in EXAMPLES:
            console.rule(f"{example.name}: {example.asks}")
            reports.append(_run_example(example, build, network, watch))
        gas = gas_by_kind(contracts, contracts.deployment.block, contracts.connection.block_number())
    finally:
        network.stop()
    is_valid = all(report["audit"]["verdict"] == "valid" for report in reports)
    console.rule("What it took")
    _show(watch, gas, reports)
    path = build / "report.json"
    path.write_text(json.dumps(_document(watch, gas, reports, chain, is_valid), indent=2) + "\n")
    root = toolchain.project_root()
    shown = path.relative_to(root) if path.is_relative_to(root) else path
    if is_valid:
        console.print(f"[green]Both jobs finalised, all segments proved, both audits valid.[/] Report: {shown}")
    else:
        console.print(f"[red]Not everything is as it should be; see above and {shown}.[/]")
    return 0 if is_valid else 1


def _train(example: Example, build: Path, watch: Stopwatch) -> None:
    out = build / "models" / example.name
    if (out / "about.json").exists():
        return
    with watch.step(f"train {example.name}"), console.status(f"training {example.name} (PyTorch, seeded)"):
        done = subprocess.run(
            [sys.executable, "-m", example.module, "--out", str(out)],
            cwd=toolchain.project_root(),
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise InterlockError(f"training {example.name} failed:\n{done.stderr[-2000:]}")


def _run_example(example: Example, build: Path, network: LocalNetwork, watch: Stopwatch) -> dict[str, Any]:
    files = build / "models" / example.name
    client = GatewayClient(network.gateway_url)
    with watch.step(f"register {example.name}"), progress_bar() as bar:
        task = bar.add_task("uploading", total=1.0)
        model = client.register(
            files / "model.onnx",
            files / "calibration.npz",
            heldout=files / "heldout.npz",
            fields={"name": example.name, "segments": "3"},
            progress=lambda step, share: bar.update(task, description=step, completed=share),
        )
    summary = client.model(model)
    show_model(summary)
    with watch.step(f"workers load {example.name}"), console.status("workers fetch, compile and compare the model"):
        network.wait_until_served(ModelId(bytes.fromhex(model.removeprefix("0x"))))

    values = json.loads((files / "input.json").read_text())["input"]
    job = _run_job(client, model, values, example.name, watch)
    answer = client.job(job)
    show_job_table(answer)
    expected = json.loads((files / "about.json").read_text())["example"]["label"]
    if answer["result"]:
        given = example.classes[answer["result"]["top"]]
        console.print(f"{example.asks} The network says {given}; the label says {example.classes[expected]}.")

    report = _audit(job, network, build, watch, example.name)
    return {
        "model": summary,
        "job": answer,
        "expected_class": expected,
        "receipt": client.receipt(job),
        "audit": report,
        "proof_bytes": _proof_bytes(network.contracts, job),
    }


def _run_job(client: GatewayClient, model: str, values: object, name: str, watch: Stopwatch) -> str:
    """Submit a job and follow it; executing and proving are measured apart."""
    with progress_bar() as bar:
        task = bar.add_task("submitting", total=1.0)
        with watch.step(f"execute {name}"):
            job = client.submit(model, values, policy={}, fee_wei=None, key=None)
            events = client.events(job)
            for event in events:
                bar.update(task, description=describe_event(event.name, event.content))
                if event.name in ("ProverDrawn", "JobFailed"):
                    break
        with watch.step(f"prove and finalise {name}"):
            for event in events:
                bar.update(task, description=describe_event(event.name, event.content))
        bar.update(task, completed=1.0)
    return job


def _audit(job: str, network: LocalNetwork, build: Path, watch: Stopwatch, name: str) -> dict[str, Any]:
    """Audit from the chain and IPFS alone, with a cache of its own that starts empty."""
    scratch = build / "auditor"
    shutil.rmtree(scratch, ignore_errors=True)
    prover = EzklProver(ArtefactCache(scratch))
    store = IpfsStore(network.ipfs_url, 20.0)
    contracts = Contracts.connect(network.connection, network.contracts.deployment)
    job_id = JobId(bytes.fromhex(job.removeprefix("0x")))
    with watch.step(f"audit {name}"), console.status("auditing from the chain and IPFS alone"):
        report = audit(contracts, store, prover, job_id)
    holder = Identity.load(network.options.directory / "worker-0" / "identity.age")
    with watch.step(f"audit {name} --rederive"), console.status("compiling every segment again"):
        rederived = audit(contracts, store, prover, job_id, rederive=holder)
    console.print(render(rederived))
    answer: dict[str, Any] = rederived.to_json()
    if report.verdict != "valid":
        answer = report.to_json()
    return answer


def _proof_bytes(contracts: Contracts, job: str) -> list[int]:
    model_id = contracts.jobs.job_of(JobId(bytes.fromhex(job.removeprefix("0x")))).model_id
    count = contracts.registry.segment_count(model_id)
    return [contracts.registry.segment_of(model_id, index).proof_bytes for index in range(count)]


def _show(watch: Stopwatch, gas: dict[str, dict[str, int]], reports: list[dict[str, Any]]) -> None:
    steps = Table("step", "seconds", "peak memory, all processes", "largest process", title="Time and memory")
    for step in watch.steps:
        sizes = (f"{size / 2**20:,.0f} MB" for size in (step.peak_memory_bytes, step.peak_child_bytes))
        steps.add_row(step.name, f"{step.seconds:.1f}", *sizes)
    console.print(steps)
    kinds = Table("transaction", "count", "gas, least", "gas, most", title="Gas")
    for kind, figures in gas.items():
        kinds.add_row(kind, str(figures["count"]), f"{figures['min']:,}", f"{figures['max']:,}")
    console.print(kinds)
    proofs = Table("model", "proof bytes per segment", "accuracy, float", "accuracy, fixed", title="Proofs")
    for report in reports:
        accuracy = report["model"]["accuracy"]
        lengths = ", ".join(f"{size:,}" for size in report["proof_bytes"])
        shares = (f"{accuracy[kind]:.3f}" for kind in ("float_accuracy", "fixed_accuracy"))
        proofs.add_row(report["model"]["name"], lengths, *shares)
    console.print(proofs)


def _document(
    watch: Stopwatch, gas: dict[str, dict[str, int]], reports: list[dict[str, Any]], chain: str, is_valid: bool
) -> dict[str, Any]:
    return {
        "verdict": "valid" if is_valid else "invalid",
        "machine": {
            "cores": psutil.cpu_count(),
            "memory_bytes": psutil.virtual_memory().total,
            "system": platform.platform(),
            "python": platform.python_version(),
        },
        "chain": chain,
        "workers": WORKERS,
        "steps": [vars(step) for step in watch.steps],
        "gas": gas,
        "jobs": reports,
    }

"""What a verifier sees of each model: ``python -m benchmarks.quality [MODEL ...]``.

Per segment the time to verify off chain, the bytes of the proof, and the gas of a transaction that verifies it in the
generated contract on a local chain (Anvil); per model the held-out accuracy in floating and in fixed point. A model
that fits in part stands with the part that does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from web3 import Web3
from web3.types import TxParams

from benchmarks.autotune import take_part
from benchmarks.measuring import (
    MEMORY_BYTES,
    OUT,
    PROVE_SECONDS,
    Benchmark,
    Division,
    build,
    describe_machine,
    load_benchmark,
    markdown,
    proof_job,
    scratch_in,
    tell_machine,
    write_report,
)
from benchmarks.models import MAKERS
from benchmarks.splitting import divide
from offchain.errors import InvalidInputError
from offchain.inference.onnx_model import load_model
from offchain.inference.rewriting import rewrite_for_proving
from offchain.models.verifiers import compile_segment_verifiers
from offchain.network.processes import free_port, start_chain
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit
from offchain.sandbox import run_measured

DEPLOYMENT_GAS = 12_000_000
VERIFICATION_GAS = 8_000_000


@contextmanager
def local_chain(directory: Path) -> Iterator[Web3]:
    """Run Anvil meanwhile."""
    running, connection = start_chain("anvil", free_port(), directory / "chain.log")
    try:
        yield connection.web3
    finally:
        running.stop()


def verify_on_chain(web3: Web3, prover: EzklProver, circuit: SegmentCircuit, run: dict[str, Any]) -> dict[str, Any]:
    """Deploy a circuit's verifier, and verify a proof in a transaction.

    Returns:
        ``verifier_bytes``, ``deployment_gas``, ``gas`` of the transaction; or ``refused``, why it cannot be deployed.
    """
    try:
        [verifier] = compile_segment_verifiers([circuit], prover)
    except InvalidInputError as error:
        return {"refused": error.problem}
    sender = web3.eth.accounts[0]
    contract = web3.eth.contract(abi=verifier.abi, bytecode=verifier.creation_code)
    deployed = web3.eth.wait_for_transaction_receipt(
        contract.constructor().transact({"from": sender, "gas": DEPLOYMENT_GAS})
    )
    verify = web3.eth.contract(address=deployed["contractAddress"], abi=verifier.abi).functions.verifyProof(
        bytes.fromhex(run["proof"]), run["instances"]
    )
    options: TxParams = {"from": sender, "gas": VERIFICATION_GAS}
    if verify.call(options) is not True:
        raise RuntimeError("the contract refuses a proof that verifies off chain")
    receipt = web3.eth.wait_for_transaction_receipt(verify.transact(options))
    if receipt["status"] != 1:
        raise RuntimeError("the contract's transaction was reverted")
    return {
        "verifier_bytes": len(verifier.runtime_code),
        "deployment_gas": deployed["gasUsed"],
        "gas": receipt["gasUsed"],
    }


def measure_quality(
    web3: Web3, prover: EzklProver, division: Division, heldout: Any
) -> tuple[list[dict[str, Any]], Any]:
    """Prove the first held-out input, and verify each proof off chain and on.

    Returns:
        The segments' figures, and the outputs of all held-out inputs.
    """
    built = build(prover, division)
    inputs, outputs = built.execute(prover, heldout)
    segments = []
    for circuit, elements in zip(built.circuits, inputs, strict=True):
        job = proof_job(circuit, elements)
        function = "benchmarks.whole:prove_segment"
        run = run_measured(function, job, timeout_seconds=PROVE_SECONDS, memory_bytes=MEMORY_BYTES)
        segments.append(
            {
                "log_rows": circuit.log_rows,
                "links": [circuit.input_kind.name, circuit.output_kind.name],
                "instances": circuit.instance_count,
                "prove_seconds": run.result["prove_seconds"],
                "verify_seconds": run.result["verify_seconds"],
                "proof_bytes": run.result["proof_bytes"],
                **verify_on_chain(web3, prover, circuit, run.result),
            }
        )
    return segments, outputs


def measure_model(web3: Web3, prover: EzklProver, data: Benchmark, chosen: argparse.Namespace) -> dict[str, Any]:
    """Measure one model, or the part of it that fits."""
    try:
        load_model(data.onnx)
    except InvalidInputError as error:
        return _measure_part(web3, prover, data, chosen) | {"left_out": f"{error.field} {error.problem}"[:200]}
    division = divide(data, chosen, prover)
    segments, outputs = measure_quality(web3, prover, division, data.heldout)
    _, whole = take_part(data, 1, 0)
    return {"model": data.name, "segments": segments, "accuracy": _accuracy(whole, outputs)}


def _measure_part(web3: Web3, prover: EzklProver, data: Benchmark, chosen: argparse.Namespace) -> dict[str, Any]:
    _, part = take_part(data, 1, None)
    segment = rewrite_for_proving(part.onnx)
    kinds = (LinkKind.KZG, LinkKind.PUBLIC)
    tuning = prover.tune([segment], part.calibration, kinds=kinds, max_log_rows=chosen.max_log_rows)
    division = Division((segment,), (tuning.segments[0].settings,))
    segments, outputs = measure_quality(web3, prover, division, part.heldout)
    return {"model": data.name, "segments": segments, "accuracy": _accuracy(part, outputs)}


def _accuracy(part: Any, outputs: Any) -> dict[str, Any]:
    exact = part.judge(part.reference)
    fixed = part.judge(outputs)
    return {
        "samples": len(part.heldout),
        "float_labels": exact["labels"],
        "fixed_labels": fixed["labels"],
        "agreement": fixed["agreement"],
        "drift": fixed["drift"],
    }


def rows_of(models: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return the cells of the table, a row per model: sums over segments, but the slowest verification."""
    rows = []
    for it in models:
        segments, found = it["segments"], it["accuracy"]
        refused = sum("refused" in each for each in segments)
        gas = sum(each.get("gas", 0) for each in segments)
        labels = [found["float_labels"], found["fixed_labels"]]
        rows.append(
            [
                it["model"] + (" (in part)" if "left_out" in it else ""),
                str(len(segments)),
                f"{max(each['verify_seconds'] for each in segments):.3f}",
                " + ".join(f"{each['proof_bytes']:,}" for each in segments),
                f"{gas:,}" + (f", {refused} too large to deploy" if refused else ""),
                *("–" if share is None else f"{share:.3f}" for share in labels),
                f"{found['agreement']:.3f}",
                f"{found['drift']:.5f}",
            ]
        )
    return rows


HEADER = (
    "model",
    "segments",
    "verify, s (slowest)",
    "proof bytes",
    "gas of all",
    "labels hit, float",
    "fixed",
    "agreement",
    "drift",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the models that are named, or all."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL", help="see benchmarks.models; all if none is named")
    parser.add_argument("--how", choices=("tune", "autotune", "plan"), default="tune", help="see benchmarks.splitting")
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--cuts", help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=9, help="that are planned for, with --how plan")
    parser.add_argument("--max-segments", type=int, default=9, help="with --how plan")
    parser.add_argument("--seconds", type=float, default=120.0, help="of searching, with --how autotune")
    parser.add_argument("--circuits", type=Path, help="made by benchmarks.splitting --keep, or to be kept here")
    parser.add_argument("--heldout", type=int, default=100)
    parser.add_argument("--max-log-rows", type=int, default=17)
    parser.add_argument("--cache", type=Path, default=OUT / "cache", help="keeps what this machine was measured to do")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)
    report: dict[str, Any] = {"machine": describe_machine(), "how": chosen.how, "models": [], "failed": {}}
    for name in chosen.models or MAKERS:
        with tempfile.TemporaryDirectory(dir=scratch_in(chosen.out)) as scratch, local_chain(Path(scratch)) as web3:
            prover = EzklProver(ArtefactCache(chosen.circuits or Path(scratch) / "cache"))
            try:
                report["models"].append(measure_model(web3, prover, load_benchmark(name, chosen.heldout), chosen))
            except InvalidInputError as error:  # one model must not cost the others' figures
                report["failed"][name] = str(error)
    path = write_report(chosen.out, "quality", report)
    table = markdown(HEADER, rows_of(report["models"]))
    (chosen.out / "quality.md").write_text(table)
    print(tell_machine(report["machine"]), table, sep="\n\n")
    for name, problem in report["failed"].items():
        print(f"{name}: {problem}")
    print(f"written to {path}")
    return 1 if report["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())

"""What an input costs in a batch, against alone: ``python -m benchmarks.batching MODEL --prove``.

The model is cut in the same way for each size of batch, and its settings are chosen anew, with products of matrices
laid out or checked, whichever is cheaper. With ``--prove`` circuits are built and proved, in turns, each proof in a
process of its own; times are medians. *gas*: of a transaction per segment that verifies its proof, without what the job
contract adds.
"""

from __future__ import annotations

import argparse
import re
import select
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from web3 import Web3

from benchmarks.measuring import (
    OUT,
    Benchmark,
    Division,
    build,
    describe_machine,
    load_benchmark,
    markdown,
    proof_job,
    prove_in_turns,
    scratch_in,
    tell_machine,
    write_report,
)
from offchain import toolchain
from offchain.errors import InvalidInputError
from offchain.models.verifiers import compile_segment_verifiers
from offchain.protocol.field import quantise
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Proof
from offchain.proving.settings import read_settings
from offchain.proving.verifier import CompiledVerifier
from offchain.tuning.batches import BatchCost, cost_of_batch
from offchain.tuning.chain import group_rows

SIZES = (1, 2, 4, 8)
HEADER = ("batch", "products", "log-rows", "rows", "cells of products", "rows of circuits per input")
MEASURED = ("prove s per input", "peak MiB per input", "verify gas per input", "largest verifier B")


def measure(
    prover: EzklProver, benchmark: Benchmark, costs: Sequence[BatchCost], repeats: int, web3: Web3
) -> list[dict[str, Any]]:
    """Prove a full batch at each size, segment by segment, and check that every input is answered as alone."""
    built = [
        build(prover, Division(cost.segments, tuple(it.settings for it in cost.tuning.segments))) for cost in costs
    ]
    jobs, places = [], []
    for cost, chain in zip(costs, built, strict=True):
        inputs = benchmark.heldout[: cost.size].reshape(cost.size, -1)
        [values] = group_rows(inputs, cost.size).tolist()
        elements = quantise(values, chain.circuits[0].input_scale)
        [activations] = prover.activations(chain.circuits, [elements])
        for circuit, taken in zip(chain.circuits, [elements, *activations[:-1]], strict=True):
            jobs.append(proof_job(circuit, taken))
            places.append((cost.size, circuit, taken))
    proved = prove_in_turns(jobs, repeats)
    rows = []
    for cost, chain in zip(costs, built, strict=True):
        mine = [it for it, (size, _, _) in zip(proved, places, strict=True) if size == cost.size]
        given = [taken for size, _, taken in places if size == cost.size]
        verifiers = compile_segment_verifiers(chain.circuits, prover)
        gas = [
            verify_gas(web3, verifier, prover.prove(circuit, prover.witness(circuit, taken)))
            for verifier, circuit, taken in zip(verifiers, chain.circuits, given, strict=True)
        ]
        rows.append(
            {
                "prove_seconds_per_input": sum(it.prove_seconds for it in mine) / cost.size,
                "prove_bytes": max(it.prove_bytes for it in mine),
                "prove_bytes_per_input": max(it.prove_bytes for it in mine) / cost.size,
                "verify_gas_per_input": sum(gas) / cost.size,
                "verify_gas": gas,
                "verifier_bytes": [len(verifier.runtime_code) for verifier in verifiers],
                "setup_seconds": chain.setup_seconds,
                "segments": mine,
            }
        )
    return rows


def verify_gas(web3: Web3, verifier: CompiledVerifier, proof: Proof) -> int:
    """Deploy a verifier and return the gas that one proof takes it."""
    account = web3.eth.accounts[0]
    factory = web3.eth.contract(abi=list(verifier.abi), bytecode=verifier.creation_code)
    receipt = web3.eth.wait_for_transaction_receipt(factory.constructor().transact({"from": account}))
    contract = web3.eth.contract(address=receipt["contractAddress"], abi=list(verifier.abi))
    spent = contract.functions.verifyProof(proof.proof, list(proof.instances)).transact({"from": account})
    done = web3.eth.wait_for_transaction_receipt(spent)
    if done["status"] != 1:
        raise RuntimeError("the verifier refuses an honest proof")
    return int(done["gasUsed"])


@contextmanager
def local_chain() -> Iterator[Web3]:
    """Run Anvil, without a limit on the size of a contract: a verifier that is too large is to be seen in figures."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "log"
        command = [str(toolchain.anvil_path()), "--port", "0", "--hardfork", "shanghai", "--code-size-limit", "65536"]
        with log.open("w") as output, subprocess.Popen(command, stdout=output) as anvil:
            while not (found := re.search(r"^Listening on (\S+)$", log.read_text(), re.MULTILINE)):
                if anvil.poll() is not None:
                    raise RuntimeError(log.read_text())
                select.select([], [], [], 0.02)
            yield Web3(Web3.HTTPProvider(f"http://{found[1]}"))
            anvil.terminate()


def describe(cost: BatchCost) -> dict[str, Any]:
    """A batch as its settings tell it."""
    read = [read_settings(tuned.settings) for tuned in cost.tuning.segments]
    return {
        "size": cost.size,
        "checks_products": cost.is_checked,
        "log_rows": [it.log_rows for it in read],
        "rows": [it.rows for it in read],
        "product_rows": [it.product_rows for it in read],
        "rows_per_input": cost.rows_per_input,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare sizes of batch for one model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", help="see benchmarks.models")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="of a batch, separated by commas")
    parser.add_argument("--segments", type=int, default=3)
    parser.add_argument("--max-log-rows", type=int, default=18)
    parser.add_argument("--prove", action="store_true", help="build and prove, and do not only predict")
    parser.add_argument("--repeats", type=int, default=3, help="proofs of each circuit")
    parser.add_argument("--out", type=Path, default=OUT)
    chosen = parser.parse_args(arguments)

    sizes = [int(size) for size in chosen.sizes.split(",")]
    benchmark = load_benchmark(chosen.model, max(sizes))
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(dir=scratch_in(chosen.out)) as scratch:
        prover = EzklProver(ArtefactCache(Path(scratch)))
        costs = []
        for size in sizes:
            limits = {"segments": chosen.segments, "max_log_rows": chosen.max_log_rows}
            try:
                costs.append(cost_of_batch(prover, benchmark.onnx, size, benchmark.calibration, **limits))
            except InvalidInputError as error:
                print(f"  batch {size}: {error}")
        rows = [describe(cost) for cost in costs]
        if chosen.prove:
            with local_chain() as web3:
                for row, measured in zip(rows, measure(prover, benchmark, costs, chosen.repeats, web3), strict=True):
                    row.update(measured)
    report = {"model": chosen.model, "machine": describe_machine(), "batches": rows}
    path = write_report(chosen.out, f"batching-{chosen.model}-{chosen.segments}", report)
    print(f"{chosen.model}: {tell_machine(report['machine'])}\n\n{table(rows)}\nwritten to {path}")
    return 0


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The figures for readers; what several segments have is joined by commas."""
    is_proved = bool(rows) and "verify_gas" in rows[0]
    lines = []
    for row in rows:
        line = [
            str(row["size"]),
            "checked" if row["checks_products"] else "laid out",
            *(", ".join(map(str, row[name])) for name in ("log_rows", "rows", "product_rows")),
            f"{row['rows_per_input']:,.0f}",
        ]
        if is_proved:
            line += [
                f"{row['prove_seconds_per_input']:.2f}",
                f"{row['prove_bytes_per_input'] / 2**20:,.0f}",
                f"{row['verify_gas_per_input']:,.0f}",
                f"{max(row['verifier_bytes']):,}",
            ]
        lines.append(line)
    return markdown((*HEADER, *(MEASURED if is_proved else ())), lines)


if __name__ == "__main__":
    raise SystemExit(main())

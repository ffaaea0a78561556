"""Measuring the main job: wall-clock time, memory of all our processes, and gas as the chain counted it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psutil
from eth_utils.abi import function_abi_to_4byte_selector

from offchain.chain.connection import CONTRACTS, artefact
from offchain.chain.contracts import Contracts

SAMPLE_SECONDS = 0.1
VIEWS = ("ValidationRegistry", "VerifiedInference")
"""Deployed beside the contracts; nothing of a job goes through them."""


@dataclass
class Step:
    """One step of the demo.

    Args:
        seconds: wall-clock time.
        peak_memory_bytes: the most that this process and all its descendants held at once (proportional set size
            is not used: it costs too much to sample; pages that processes share count once for each of them).
        peak_child_bytes: the most that any single process held.
    """

    name: str
    seconds: float = 0.0
    peak_memory_bytes: int = 0
    peak_child_bytes: int = 0


@dataclass
class Stopwatch:
    """Measures steps one after another, and samples memory meanwhile."""

    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Measure what happens inside."""
        step = Step(name)
        stop = threading.Event()
        sampler = threading.Thread(target=_sample, args=(step, stop), daemon=True)
        started = time.monotonic()
        sampler.start()
        try:
            yield step
        finally:
            step.seconds = time.monotonic() - started
            stop.set()
            sampler.join()
            self.steps.append(step)


def _sample(step: Step, stop: threading.Event) -> None:
    me = psutil.Process()
    while True:
        sizes = []
        with suppress(psutil.Error):
            for process in (me, *me.children(recursive=True)):
                with suppress(psutil.Error):
                    sizes.append(process.memory_info().rss)
        step.peak_memory_bytes = max(step.peak_memory_bytes, sum(sizes))
        step.peak_child_bytes = max(step.peak_child_bytes, *sizes, 0)
        if stop.wait(SAMPLE_SECONDS):
            return


def gas_by_kind(contracts: Contracts, first_block: int, last_block: int) -> dict[str, dict[str, int]]:
    """Count the gas of every transaction in a range of blocks, by the function called.

    Returns:
        Per kind: ``count``, ``min``, ``max`` and ``total``, in units of gas.
    """
    names = _selectors(contracts)
    kinds: dict[str, list[int]] = {}
    web3 = contracts.connection.web3
    for number in range(first_block, last_block + 1):
        with contracts.connection.translated("eth_getBlockByNumber"):
            block: Any = web3.eth.get_block(number, full_transactions=True)
            for transaction in block["transactions"]:
                receipt = web3.eth.get_transaction_receipt(transaction["hash"])
                kinds.setdefault(_kind(transaction, receipt, names), []).append(int(receipt["gasUsed"]))
    return {
        kind: {"count": len(gas), "min": min(gas), "max": max(gas), "total": sum(gas)}
        for kind, gas in sorted(kinds.items())
    }


def _selectors(contracts: Contracts) -> dict[tuple[str, bytes], str]:
    addresses = {
        "Registry": contracts.registry.address,
        "Staking": contracts.staking.address,
        "Verifier": contracts.verifier.address,
        "Jobs": contracts.jobs.address,
    }
    return {
        (addresses[name], bytes(function_abi_to_4byte_selector(entry))): f"{name}.{entry['name']}"
        for name in CONTRACTS
        for entry in artefact(name)["abi"]
        if entry["type"] == "function"
    }


def _kind(transaction: Any, receipt: Any, names: dict[tuple[str, bytes], str]) -> str:
    data = bytes(transaction["input"])
    if transaction.get("to") is None:
        codes = {artefact(name)["bytecode"].removeprefix("0x")[:400]: name for name in (*CONTRACTS, *VIEWS)}
        return f"deploy {codes.get(data.hex()[:400], 'segment verifier')}"
    kind = names.get((transaction["to"], data[:4]), "transfer" if not data else "other")
    return kind if receipt["status"] == 1 else f"{kind} (reverted)"

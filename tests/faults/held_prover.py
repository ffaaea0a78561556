"""A worker whose proofs take as long as one likes: ``python -m tests.faults.held_prover CONFIG.json``.

A proof that has its place in the prover is held before the native call, until there is a file ``let-go`` two
directories above the configuration's. Then it is made as always.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from offchain.network.local import LocalNetwork
from offchain.proving.port import Proof, ProverFailed
from offchain.worker.__main__ import run
from offchain.worker.daemon import Worker

LET_GO = "let-go"


def let_go(network: LocalNetwork) -> None:
    """End the waiting of all that network's workers."""
    (network.options.directory / LET_GO).touch()


class HeldNetwork(LocalNetwork):
    """A network of such workers."""

    def add_worker(self, name: str, funder: Any, module: str = "tests.faults.held_prover") -> Any:
        """Add one that waits."""
        return super().add_worker(name, funder, module)


class HeldWorker(Worker):
    """Honest, and slow to prove."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        prover = self._executor._service._prover
        prove, gate = prover.prove_elements, Path(sys.argv[1]).parents[1] / LET_GO

        def held(circuit: Any, elements: Any, *, name: str, cancellation: Any) -> Proof:
            while not gate.exists():
                if cancellation.is_cancelled:
                    raise ProverFailed(name, "cancelled", "it is not wanted any more")
                time.sleep(0.02)
            return prove(circuit, elements, name=name, cancellation=cancellation)

        prover.prove_elements = held  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), HeldWorker))

"""Deploy the views: the record of jobs, read as two draft standards want it read."""

from __future__ import annotations

from migrations.ledger import Ledger
from offchain.errors import UnrecoverableError

VIEWS = {"verified_inference": "VerifiedInference", "validation_registry": "ValidationRegistry"}


def migrate(ledger: Ledger) -> None:
    """Deploy ``VerifiedInference`` and ``ValidationRegistry``, unless the chain has them."""
    jobs = ledger.deployed("jobs")
    if jobs is None:
        raise UnrecoverableError("the jobs are not deployed on this chain: run m02_jobs first")
    for key, name in VIEWS.items():
        if ledger.deployed(key) is None:
            ledger.record(**{key: ledger.deploy(name, jobs).contract})


def main() -> None:
    """Entry point of ``brownie run m03_views``."""
    from migrations.brownie_entry import run

    run(migrate)

"""All migrations in their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from migrations import m01_registry, m02_jobs, m03_views
from migrations.ledger import Ledger, parameters, record_path
from offchain.chain.deployment import Deployment
from offchain.chain.sender import Sender

STEPS = (m01_registry.migrate, m02_jobs.migrate, m03_views.migrate)


def migrate_all(sender: Sender, path: Path | None = None, inputs: dict[str, Any] | None = None) -> Deployment:
    """Run every step that a chain still lacks, and return where the contracts lie.

    Args:
        sender: who deploys.
        path: the deployment record; ``migrations/deployments/<chain id>.json`` if None.
        inputs: what the contracts are deployed with; ``migrations/config/local.json`` if None.
    """
    ledger = Ledger(sender, path or record_path(sender.connection.chain_id), inputs or parameters())
    for step in STEPS:
        step(ledger)
    return ledger.deployment()


def main() -> None:
    """Entry point of ``brownie run steps``: every migration, in order."""
    from migrations.brownie_entry import run

    run(*STEPS)

"""Deploy the registry of models and the adapter to their verifiers. Neither has parameters."""

from __future__ import annotations

from migrations.ledger import Ledger


def migrate(ledger: Ledger) -> None:
    """Deploy ``Registry`` and ``Verifier``, unless the chain has them."""
    if ledger.deployed("registry") is None:
        receipt = ledger.deploy("Registry")
        # Every later address depends on this one: what a vanished chain left behind is dropped with it.
        ledger.path.unlink(missing_ok=True)
        ledger.record(registry=receipt.contract, block=receipt.block_number)
    if ledger.deployed("verifier") is None:
        ledger.record(verifier=ledger.deploy("Verifier", ledger.deployed("registry")).contract)


def main() -> None:
    """Entry point of ``brownie run m01_registry``."""
    from migrations.brownie_entry import run

    run(migrate)

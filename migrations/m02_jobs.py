"""Deploy the job contract, which deploys the staking contract that only it can slash."""

from __future__ import annotations

from migrations.ledger import Ledger
from offchain.errors import UnrecoverableError


def migrate(ledger: Ledger) -> None:
    """Deploy ``Jobs`` and with it ``Staking``, unless the chain has them."""
    if ledger.deployed("jobs") is not None:
        return
    registry, verifier = ledger.deployed("registry"), ledger.deployed("verifier")
    if registry is None or verifier is None:
        raise UnrecoverableError("the registry is not deployed on this chain: run m01_registry first")
    names = (
        "minimum_stake_wei",
        "unbonding_seconds",
        "minimum_fee_wei",
        "minimum_window_seconds",
        "max_running_jobs",
        "miss_penalty_bps",
        "contradiction_penalty_bps",
        "prover_share_bps",
        "fault_share_bps",
        "challenger_share_bps",
        "requester_share_bps",
    )
    parameters = tuple(int(ledger.parameters[name]) for name in names)
    receipt = ledger.deploy("Jobs", registry, verifier, parameters)
    assert receipt.contract is not None
    jobs = ledger.connection.contract("Jobs", receipt.contract)
    with ledger.connection.translated("staking"):
        staking = jobs.functions.staking().call()
    ledger.record(jobs=receipt.contract, staking=staking)


def main() -> None:
    """Entry point of ``brownie run m02_jobs``."""
    from migrations.brownie_entry import run

    run(migrate)

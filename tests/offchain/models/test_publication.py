"""Who is granted a model."""

from __future__ import annotations

import pytest

from offchain.chain.contracts import Contracts
from offchain.models.publication import announced_keys
from offchain.storage.sealing import Identity
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration


def test_announced_keys__of_operators_without_the_minimum_at_stake__are_left_out(
    chain: LocalChain, contracts: Contracts
) -> None:
    bonded, stranger, poor = (chain.instant(f"publication {name}") for name in ("bonded", "stranger", "poor"))
    keys = {sender: Identity.generate().encryption_key for sender in (bonded, stranger, poor)}
    minimum = contracts.staking.minimum_stake()
    contracts.staking.bond(bonded, minimum)
    contracts.staking.bond(poor, minimum - 1)
    for sender, key in keys.items():
        contracts.staking.set_encryption_key(sender, key)

    announced = announced_keys(contracts)

    assert keys[bonded] in announced
    assert keys[stranger] not in announced
    assert keys[poor] not in announced

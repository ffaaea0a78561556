"""Workers spread over a sum tree of the greatest height: where drawing and slashing cost the most."""

from __future__ import annotations

from collections.abc import Sequence

from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.protocol.types import ModelId
from tests.contracts.stage import Stage

LEAVES = 1 << 16
HEIGHT = 16


def fill_tallest_tree(stage: Stage, model: ModelId, stakes_wei: Sequence[int]) -> None:
    """Let a worker per stake serve, spread over a tree of the greatest height, the first at the highest leaves.

    Leaves between them are passed over by setting their number, as if 2^16 accounts had come and gone.
    """
    stage.workers = tuple(stage.chain.instant(f"spread {index}") for index in range(len(stakes_wei)))
    for worker, stake_wei in zip(stage.workers, stakes_wei, strict=True):
        stage.chain.fund(worker.address, 2 * stake_wei + 10**24)
    *stakes, first = stakes_wei
    stage.join(stage.workers[-1], first, model)
    place = leaf_counter(stage, model)
    # Each step of height copies the sum of the one before, so every height has to be passed through.
    heights = [1 << height for height in range(HEIGHT)]
    apart = LEAVES // len(stakes_wei)
    spread = [leaf for leaf in range(3, LEAVES, apart) if leaf not in heights]
    leaves = sorted([*heights, *spread[len(spread) - (len(stakes) - len(heights)) :]])
    for worker, stake_wei, leaf in zip(reversed(stage.workers[:-1]), reversed(stakes), leaves, strict=True):
        stage.chain.rpc("anvil_setStorageAt", stage.contracts.staking.address, hex(place), f"0x{leaf:064x}")
        stage.join(worker, stake_wei, model)
    assert stage.contracts.staking._read("leafCount", model) > LEAVES - 2 * apart


def leaf_counter(stage: Stage, model: ModelId) -> int:
    """Where the number of leaves of a model's tree is stored, found by what it must hold.

    Source: Solidity documentation, "Layout of State Variables in Storage".
    """
    staking = stage.contracts.staking
    for slot in range(8):
        place = int.from_bytes(keccak(encode(["bytes32", "uint256"], [model, slot])), "big") + 1
        stored = stage.chain.rpc("eth_getStorageAt", staking.address, hex(place), "latest")
        if int(stored, 16) == staking._read("leafCount", model) != 0:
            return place
    raise AssertionError("the trees are in none of the first slots")

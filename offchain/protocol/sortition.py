"""Drawing committees and provers by stake, so that anyone can recompute what the contracts drew."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.protocol.hashing import DRAW_TAG, PROVER_TAG
from offchain.protocol.types import Address, Link, Member


def draw(
    weights: Sequence[tuple[Address, int]], seed: bytes, count: int, excluded: Collection[Address] = ()
) -> tuple[tuple[Address, int], ...]:
    """Draw up to ``count`` distinct operators in proportion to stake, as ``Staking.draw`` does.

    Draw i falls at ``keccak256(abi.encode(DRAW_TAG, seed, i)) mod remaining weight`` on the line on which the weights
    of all operators still in the draw lie end to end, in the order of their leaves.

    Args:
        weights: operator and weight (wei) by leaf, as they stood at the end of the frozen block.
        excluded: operators to leave out.

    Returns:
        The drawn operators with their weights; fewer than ``count`` where fewer have weight.
    """
    left = [(operator, weight) for operator, weight in weights if operator not in excluded and weight]
    drawn: list[tuple[Address, int]] = []
    while left and len(drawn) < count:
        number = int.from_bytes(keccak(encode(["bytes32", "bytes32", "uint256"], [DRAW_TAG, seed, len(drawn)])), "big")
        drawn.append(left.pop(_index_at(left, number % sum(weight for _, weight in left))))
    return tuple(drawn)


def draw_committee(
    weights: Sequence[tuple[Address, int]], seed: bytes, count: int, earlier: Collection[Address]
) -> tuple[tuple[Address, int], ...]:
    """Draw a segment's committee as ``Jobs.draw`` does: apart from earlier ones, if workers suffice."""
    committee = draw(weights, seed, count, earlier)
    return committee if len(committee) == count else draw(weights, seed, count)


def is_sampled(sample: bytes, proof_permille: int) -> bool:
    """Whether a segment with this sample seed must be proved."""
    return int.from_bytes(sample, "big") % 1000 < proof_permille


def draw_prover(members: Sequence[Member], link: Link, sample: bytes) -> Address:
    """Draw the member that must prove, in proportion to stake among those that revealed ``link``."""
    supporters = [(member.operator, member.weight) for member in members if member.link == link]
    number = int.from_bytes(keccak(encode(["bytes32", "bytes32"], [PROVER_TAG, sample])), "big")
    return supporters[_index_at(supporters, number % sum(weight for _, weight in supporters))][0]


def _index_at(line: Sequence[tuple[Address, int]], point: int) -> int:
    for index, (_, weight) in enumerate(line):
        if point < weight:
            return index
        point -= weight
    raise ValueError("the point lies past the end of the line")

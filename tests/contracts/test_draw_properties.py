"""``Staking.draw`` beside ``offchain.protocol.sortition.draw``, over random histories."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from eth_hash.auto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from offchain.chain.events import read_events
from offchain.protocol import sortition
from offchain.protocol.types import Address
from tests.contracts.stage import Stage
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

OPERATORS = 9
MOVES = st.tuples(
    st.sampled_from(["bond", "unbond", "serve", "stop"]),
    st.integers(0, OPERATORS - 1),
    st.sampled_from([1, ETHER // 2, ETHER, ETHER + 1, 3 * ETHER]),
)
DRAWS = st.tuples(
    st.binary(min_size=32, max_size=32),
    st.integers(0, OPERATORS + 2),
    st.lists(st.integers(-1, OPERATORS - 1), max_size=6),
    st.integers(0, 30),
)


@dataclass
class Operator:
    """What the model knows of an operator."""

    sender: InstantSender
    active: int = 0
    serving: bool = False
    leaf: int | None = None

    @property
    def weight(self) -> int:
        return self.active if self.serving and self.active >= ETHER else 0


class Reference:
    """Stakes and memberships in plain Python, with the weights as they stood at the end of every block."""

    def __init__(self, stage: Stage, name: str) -> None:
        self.stage = stage
        self.model = stage.register_segments(1, name)
        self.operators = [Operator(stage.chain.instant(f"operator {index}")) for index in range(OPERATORS)]
        for operator in self.operators:
            stage.contracts.staking.set_encryption_key(operator.sender, keccak(b"key"))
        self.first_block = stage.chain.connection.block_number()
        self.history: dict[int, list[tuple[Address, int]]] = {self.first_block: []}

    def apply(self, move: str, index: int, amount: int) -> None:
        """Do what can be done, here and on the chain."""
        staking, operator = self.stage.contracts.staking, self.operators[index]
        if move == "bond":
            operator.active += amount
            staking.bond(operator.sender, amount)
        elif move == "unbond" and operator.active >= amount:
            operator.active -= amount
            staking.start_unbonding(operator.sender, amount)
        elif move == "serve" and not operator.serving and operator.active >= ETHER:
            operator.serving = True
            if operator.leaf is None:
                operator.leaf = sum(other.leaf is not None for other in self.operators)
            staking.serve(operator.sender, self.model)
        elif move == "stop" and operator.serving:
            operator.serving = False
            staking.stop_serving(operator.sender, self.model)
        else:
            return
        self.history[self.stage.chain.connection.block_number()] = self.weights()

    def weights(self) -> list[tuple[Address, int]]:
        members = [operator for operator in self.operators if operator.leaf is not None]
        return [
            (Address(operator.sender.address), operator.weight)
            for operator in sorted(members, key=lambda operator: operator.leaf or 0)
        ]

    def at(self, block: int) -> list[tuple[Address, int]]:
        return self.history[max(number for number in self.history if number <= block)]

    def check(self, block: int, seed: bytes, count: int, excluded: list[str]) -> None:
        """Compare one draw."""
        staking = self.stage.contracts.staking
        expected = sortition.draw(self.at(block), seed, count, [Address(address) for address in excluded])
        assert staking.draw(self.model, block, seed, count, excluded) == expected
        assert staking.total_weight_at(self.model, block) == sum(weight for _, weight in self.at(block))


@given(moves=st.lists(MOVES, min_size=10, max_size=50), draws=st.lists(DRAWS, min_size=4, max_size=8))
@settings(max_examples=12, deadline=None, derandomize=True)
def test_draw__random_history__is_what_python_draws(
    shared_stage: Stage, moves: list[tuple[str, int, int]], draws: list[tuple[bytes, int, list[int], int]]
) -> None:
    with shared_stage.chain.isolated():
        reference = Reference(Stage(**vars(shared_stage)), "history")
        for index in range(OPERATORS):
            reference.apply("bond", index, (index + 1) * ETHER)
            if index % 3:
                reference.apply("serve", index, 0)
        for move in moves:
            reference.apply(*move)
        last = shared_stage.chain.connection.block_number()
        shared_stage.chain.mine()
        for seed, count, excluded_indices, back in draws:
            # Repetitions count once; somebody who never served counts for nothing.
            excluded = [
                shared_stage.requester.address if index < 0 else reference.operators[index].sender.address
                for index in excluded_indices
            ]
            reference.check(max(reference.first_block, last - back), seed, count, excluded)


def test_draw__past_block__stands_still_whatever_happens_later(stage: Stage) -> None:
    reference = Reference(stage, "frozen")
    for index in range(4):
        reference.apply("bond", index, (index + 2) * ETHER)
        reference.apply("serve", index, 0)
    frozen = stage.chain.connection.block_number()
    stage.chain.mine()
    staking, seeds = stage.contracts.staking, [keccak(b"%d" % number) for number in range(5)]
    before = [staking.draw(reference.model, frozen, seed, 3, []) for seed in seeds]
    # Joining (twice over the capacity, so that the tree grows), leaving, coming back, bonding and unbonding.
    for index in range(4, 9):
        reference.apply("bond", index, 50 * ETHER)
        reference.apply("serve", index, 0)
    reference.apply("stop", 0, 0)
    reference.apply("serve", 0, 0)
    reference.apply("unbond", 1, 3 * ETHER)
    reference.apply("bond", 2, 7 * ETHER)
    reference.apply("stop", 3, 0)
    stage.chain.mine()
    assert [staking.draw(reference.model, frozen, seed, 3, []) for seed in seeds] == before
    newcomers = [operator.sender.address for operator in reference.operators[4:]]
    assert [staking.draw(reference.model, frozen, seed, 3, newcomers) for seed in seeds] == before
    assert before == [sortition.draw(reference.at(frozen), seed, 3) for seed in seeds]


def test_draw__within_one_block__only_the_end_of_the_block_counts(stage: Stage) -> None:
    worker, staking = stage.workers[0], stage.contracts.staking
    before = staking.active_of(worker.address)
    stage.chain.rpc("evm_setAutomine", False)
    try:
        for call, value in (
            (staking.contract.functions.stopServing(stage.model), 0),
            (staking.contract.functions.serve(stage.model), 0),
            (staking.contract.functions.bond(), 5),
        ):
            fields = {"from": worker.address, "to": staking.address, "value": hex(value), "gas": hex(1_000_000)}
            stage.chain.rpc("eth_sendTransaction", fields | {"data": call._encode_transaction_data()})
        stage.chain.mine()
    finally:
        stage.chain.rpc("evm_setAutomine", True)
    block = stage.chain.connection.block_number()
    stage.chain.mine()
    assert dict(staking.draw(stage.model, block, keccak(b"seed"), 3, []))[Address(worker.address)] == before + 5


def test_draw__shares__follow_the_stakes(stage: Stage) -> None:
    # Not a proof of fairness, but a tree that mixes its branches up does not pass.
    reference = Reference(stage, "shares")
    for index in range(5):
        reference.apply("bond", index, (1 + 3 * index) * ETHER)
        reference.apply("serve", index, 0)
    block = stage.chain.connection.block_number()
    stage.chain.mine()
    weights = reference.at(block)
    counted = dict.fromkeys([address for address, _ in weights], 0)
    for number in range(2000):
        ((drawn, _),) = sortition.draw(weights, keccak(b"%d" % number), 1)
        counted[drawn] += 1
        if number < 100:
            seed = keccak(b"%d" % number)
            assert stage.contracts.staking.draw(reference.model, block, seed, 1, [])[0][0] == drawn
    total = sum(weight for _, weight in weights)
    for address, weight in weights:
        assert abs(counted[address] / 2000 - weight / total) < 0.04


def test_weight_changed__replayed__rebuilds_every_draw(stage: Stage) -> None:
    reference = Reference(stage, "replayed")
    for index in range(6):
        reference.apply("bond", index, (index + 1) * ETHER)
        reference.apply("serve", index, 0)
    reference.apply("stop", 2, 0)
    reference.apply("unbond", 4, 5 * ETHER)
    block = stage.chain.connection.block_number()
    stage.chain.mine()
    leaves: dict[int, tuple[Address, int]] = {}
    for event in read_events(stage.contracts, reference.first_block, block):
        if event.name == "WeightChanged" and event.arguments["modelId"] == reference.model:
            leaves[event.arguments["leaf"]] = (event.arguments["operator"], event.arguments["weight"])
    assert [leaves[leaf] for leaf in sorted(leaves)] == reference.at(block)

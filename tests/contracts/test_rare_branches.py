"""Branches of the contracts that only a rare state takes; `make coverage` found no other test that does."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.protocol.types import ZERO_ADDRESS, Phase, Reason
from tests.contracts.record import failure, penalties
from tests.contracts.stage import FEE, Play, Stage, refused, with_policy
from tests.contracts.tall_tree import HEIGHT, LEAVES, fill_tallest_tree, leaf_counter
from tests.local_chain import ETHER

pytestmark = pytest.mark.integration


def sampled_in_part(stage: Stage) -> Play:
    """A job of which some segments are to be proved, but not all."""
    for _ in range(20):
        play = stage.request(with_policy(proof_permille=500)).to_sampling()
        play.draw()
        if play.phase is Phase.PROVING and any(play.round(segment).prover == ZERO_ADDRESS for segment in range(3)):
            return play
    raise AssertionError("the chain's draws fall alike in every run: begin at another time")


def test_expire__segment_that_was_not_sampled__penalises_the_drawn_provers_alone(stage: Stage) -> None:
    play = sampled_in_part(stage)
    provers = [(segment, play.round(segment).prover) for segment in range(3)]
    play.lapse()
    play.expire()
    drawn = [(segment, prover, Reason.MISSED_PROOF) for segment, prover in provers if prover != ZERO_ADDRESS]
    assert 0 < len(drawn) < 3
    assert [tuple(penalty[:3]) for penalty in penalties(play)] == drawn
    assert failure(play) == (Reason.TIMED_OUT, FEE)


def test_serve__tree_of_the_greatest_height_is_full__is_refused(stage: Stage) -> None:
    model = stage.register_segments(1, "full")
    fill_tallest_tree(stage, model, [ETHER] * (HEIGHT + 2))
    staking = stage.contracts.staking
    last, late = stage.chain.instant("last"), stage.chain.instant("late")
    counter = hex(leaf_counter(stage, model))
    stage.chain.rpc("anvil_setStorageAt", staking.address, counter, f"0x{LEAVES - 1:064x}")
    stage.join(last, ETHER, model)
    assert staking._read("leafCount", model) == LEAVES
    staking.bond(late, ETHER)
    staking.set_encryption_key(late, keccak(b"key"))
    with refused("TreeFull", capacity=LEAVES):
        staking.serve(late, model)
    assert not staking.is_serving(late.address, model)

"""Row 5: stake on its way out can be slashed for as long as any job that it was drawn for is open."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from eth_hash.auto import keccak

from offchain.protocol.types import Link
from tests.attacks.mutant import Change, Mutant, build_stage
from tests.contracts.stage import STAKES, Play, Stage, refused, with_policy
from tests.local_chain import ETHER, InstantSender, LocalChain

pytestmark = pytest.mark.integration

LIE = Link(keccak(b"a lie"))
JOB_SECONDS = 7 * 24 * 3600
CONTRADICTION_BPS = 5_000  # migrations/config/local.json

ANY_DELAY = Mutant(
    Change(
        "jobs/JobRecord.sol",
        "if (parameters.unbondingSeconds < Policies.JOB_SECONDS) {",
        "if (parameters.maxRunningJobs == 0) {",
    )
)
UNBONDING_IS_SAFE = Mutant(
    Change(
        "Staking.sol",
        "uint256 fromUnbonding = rest < operator.unbonding ? rest : operator.unbonding;",
        "uint256 fromUnbonding = 0 * rest;",
    )
)


def quorum_lies_and_leaves(stage: Stage) -> tuple[Play, tuple[InstantSender, ...], InstantSender]:
    """Three of four lie, and start to unbond everything as soon as they have."""
    *liars, honest = stage.workers
    play = stage.request(with_policy(committee_size=4, proof_permille=0, challenge_seconds=3600)).to_committing()
    play.play_round({liar.address: LIE for liar in liars})
    for liar in liars:
        stage.contracts.staking.start_unbonding(liar, stage.contracts.staking.active_of(liar.address))
    return play, tuple(liars), honest


STAKES_OF_FOUR = (*STAKES, 2 * ETHER)


def test_unbonding__defence_removed__liars_are_gone_before_the_proof(build: Callable[..., Stage]) -> None:
    stage = build(ANY_DELAY, segments=1, stakes=STAKES_OF_FOUR, unbonding_seconds=60)
    play, liars, honest = quorum_lies_and_leaves(stage)
    stage.chain.advance(60)
    for liar in liars:
        stage.contracts.staking.withdraw(liar)
    play.challenge(0, honest)
    assert play.round(0).overturned
    assert stage.credits()[honest.address] == 0
    assert stage.chain.connection.balance(stage.contracts.staking.address) == STAKES_OF_FOUR[3]


def test_unbonding__shorter_than_a_job__refused_when_deployed(build: Callable[..., Stage], theatre: LocalChain) -> None:
    with refused("UnbondingTooShort", actualSeconds=JOB_SECONDS - 1, longestJobSeconds=JOB_SECONDS):
        build_stage(theatre, unbonding_seconds=JOB_SECONDS - 1)


def test_unbonding_stake__defence_removed__is_out_of_reach_at_once(build: Callable[..., Stage]) -> None:
    stage = build(UNBONDING_IS_SAFE, segments=1, stakes=STAKES_OF_FOUR)
    play, liars, honest = quorum_lies_and_leaves(stage)
    play.challenge(0, honest)
    assert [stage.contracts.staking.unbonding_of(liar.address)[0] for liar in liars] == list(STAKES)


def test_unbonding_stake__is_slashed_and_its_withdrawal_refused_until_later(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=STAKES_OF_FOUR)
    staking = stage.contracts.staking
    play, liars, honest = quorum_lies_and_leaves(stage)
    stage.chain.move_to(play.record.deadline - 60)
    for liar in liars:
        amount, release_at = staking.unbonding_of(liar.address)
        now = stage.chain.head()[1] + 1
        with refused("StillUnbonding", releaseAt=release_at, now_=now):
            staking.withdraw(liar)
        assert release_at > play.record.ends_at
    play.challenge(0, honest)
    left = [stake - stake * CONTRADICTION_BPS // 10_000 for stake in STAKES]
    assert [staking.unbonding_of(liar.address)[0] for liar in liars] == left


def test_unbonding__in_the_very_block_of_the_request__is_released_after_the_job(build: Callable[..., Stage]) -> None:
    """The draw still counts it then, so it has to stay as long as the job may."""
    stage = build(segments=1)
    with stage.chain.isolated():
        ends_at = stage.request().record.ends_at
    stage.contracts.staking.start_unbonding(stage.workers[2], STAKES[2])
    assert stage.contracts.staking.unbonding_of(stage.workers[2].address)[1] > ends_at

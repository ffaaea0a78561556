"""Row 44, and what it costs: one honest proof overturns any quorum, and nobody can make money out of its own fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from eth_hash.auto import keccak

from offchain.protocol.types import ZERO_ADDRESS, Link, Phase
from tests.attacks.mutant import Change, Mutant, build_stage
from tests.contracts.stage import FEE, Play, Stage, refused, with_policy
from tests.local_chain import ETHER, InstantSender, LocalChain

pytestmark = pytest.mark.integration

LIE = Link(keccak(b"a lie"))
BPS = 10_000
CONTRADICTION, CHALLENGER, REQUESTER = 5_000, 3_000, 1_000  # migrations/config/local.json

QUORUM_IS_FINAL = Mutant(
    Change("jobs/JobProofs.sol", "link == before || (before == 0 && !isContested)", "link == before || !isContested")
)
ALL_COMES_BACK = Mutant(
    Change("jobs/JobRecord.sol", "_requireShare(parameters.challengerShareBps, BPS / 2);"),
    Change(
        "jobs/JobRecord.sol", "_requireShare(parameters.challengerShareBps + parameters.requesterShareBps, BPS / 2);"
    ),
    Change("Staking.sol", "(returnedBps < BPS / 2 ? returnedBps : BPS / 2)", "returnedBps"),
)


def stakes_of(size: int) -> tuple[int, ...]:
    """Odd, so that every share is rounded."""
    return tuple(2 * ETHER + 2 * place + 1 for place in range(size))


def all_but_one_lie(stage: Stage) -> tuple[Play, tuple[InstantSender, ...], InstantSender]:
    """A job whose committee says one thing with one voice, but for one member."""
    *liars, honest = stage.workers
    play = stage.request(with_policy(committee_size=len(stage.workers), proof_permille=0)).to_committing()
    play.play_round({liar.address: LIE for liar in liars})
    assert (play.phase, play.round(0).settled_link) == (Phase.CHALLENGEABLE, LIE)
    return play, tuple(liars), honest


@pytest.mark.parametrize("size", [3, 7, 21])
def test_collusion__defence_removed__the_lie_is_the_result(build: Callable[..., Stage], size: int) -> None:
    stage = build(QUORUM_IS_FINAL, segments=1, stakes=stakes_of(size))
    play, liars, honest = all_but_one_lie(stage)
    with refused("NothingToChallenge", jobId=play.job, segment=0, caller=honest.address):
        play.challenge(0, honest)
    play.lapse()
    play.finalise()
    assert play.round(0).settled_link == LIE
    assert all(stage.credits()[liar.address] > 0 for liar in liars)
    assert stage.credits()[honest.address] == 0


@pytest.mark.parametrize("size", [3, 7, 21])
def test_collusion__overturned_by_one_proof_and_paid_for_to_the_wei(build: Callable[..., Stage], size: int) -> None:
    stakes = stakes_of(size)
    stage = build(segments=1, stakes=stakes)
    play, liars, honest = all_but_one_lie(stage)
    burnt = stage.chain.connection.balance(ZERO_ADDRESS)
    play.challenge(0, honest)

    assert (play.round(0).settled_link, play.round(0).overturned) == (play.truth(0), True)
    taken = [stake * CONTRADICTION // BPS for stake in stakes[:-1]]
    staking = stage.contracts.staking
    assert [staking.active_of(liar.address) for liar in liars] == [
        stake - part for stake, part in zip(stakes[:-1], taken, strict=True)
    ]
    assert all(staking.reputation_of(liar.address, stage.model) == 0 for liar in liars)
    returned = sum(part * (CHALLENGER + REQUESTER) // BPS for part in taken)
    reward = returned * CHALLENGER // (CHALLENGER + REQUESTER)
    assert stage.credits()[honest.address] == reward
    assert stage.credits()[stage.requester.address] == returned - reward
    assert stage.chain.connection.balance(ZERO_ADDRESS) == burnt + sum(taken) - returned

    play.finalise()
    assert stage.credits()[honest.address] == reward + FEE
    assert all(stage.credits()[liar.address] == 0 for liar in liars)


def test_collusion__in_the_middle__what_was_built_on_the_lie_is_done_again(build: Callable[..., Stage]) -> None:
    stage = build(segments=3, stakes=stakes_of(3))
    *liars, honest = stage.workers
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    play.play_round({liar.address: LIE for liar in liars})
    play.play_round({worker.address: Link(keccak(b"what follows from the lie")) for worker in stage.workers})
    play.challenge(0, honest)
    assert (play.record.segment, play.attempt(1), play.phase) == (1, 1, Phase.COMMITTING)
    for _ in range(2):
        play.play_round()
    play.lapse()
    play.finalise()
    assert [play.round(segment).settled_link for segment in range(3)] == [play.truth(s) for s in range(3)]


def test_collusion__of_everybody__is_what_no_proof_of_a_member_can_undo(build: Callable[..., Stage]) -> None:
    """What is left: one honest member is needed. Nobody from outside the committee may challenge."""
    stage = build(segments=1, stakes=(*stakes_of(3), 2 * ETHER))
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    inside = {member.operator for member in play.round(0).members}
    play.play_round(dict.fromkeys(inside, LIE))
    (outsider,) = (worker for worker in stage.workers if worker.address not in inside)
    with refused("NotMember", jobId=play.job, segment=0, caller=outsider.address):
        play.challenge(0, outsider)


# --- what a coalition gets of its own stake ---------------------------------------------------------------------------


def wealth(stage: Stage, coalition: Iterable[InstantSender]) -> int:
    """Everything that the contracts hold for these accounts, in wei."""
    staking, jobs = stage.contracts.staking, stage.contracts.jobs
    return sum(
        staking.active_of(who.address) + staking.unbonding_of(who.address)[0] + jobs.credit_of(who.address)
        for who in coalition
    )


def overturns_itself(stage: Stage) -> tuple[int, int]:
    """Requester, liars and challenger are one: what they lost together, and what was slashed."""
    coalition = (stage.requester, *stage.workers)
    before = wealth(stage, coalition) + FEE
    bonds = sum(stage.contracts.staking.active_of(worker.address) for worker in stage.workers)
    play, _, challenger = all_but_one_lie(stage)
    play.challenge(0, challenger)
    play.finalise()
    left = sum(stage.contracts.staking.active_of(worker.address) for worker in stage.workers)
    return before - wealth(stage, coalition), bonds - left


def test_coalition__defence_removed__gets_its_stake_out_at_once_and_whole(build: Callable[..., Stage]) -> None:
    stage = build(
        ALL_COMES_BACK,
        segments=1,
        stakes=stakes_of(3),
        contradiction_penalty_bps=10_000,
        challenger_share_bps=9_000,
        requester_share_bps=1_000,
    )
    lost, slashed = overturns_itself(stage)
    assert (lost, slashed) == (0, sum(stakes_of(3)[:2]))


@pytest.mark.parametrize(
    ("penalty", "challenger", "requester"),
    [
        (5_000, 3_000, 1_000),
        (5_000, 5_000, 0),
        (5_000, 0, 5_000),
        (10_000, 2_500, 2_500),
        (10_000, 4_999, 1),
        (3_333, 1_667, 3_331),
        (1, 5_000, 0),
    ],
)
def test_coalition__loses_at_least_half_of_what_is_slashed(
    build: Callable[..., Stage], penalty: int, challenger: int, requester: int
) -> None:
    stage = build(
        segments=1,
        stakes=stakes_of(3),
        contradiction_penalty_bps=penalty,
        challenger_share_bps=challenger,
        requester_share_bps=requester,
    )
    lost, slashed = overturns_itself(stage)
    assert slashed == sum(stake * penalty // BPS for stake in stakes_of(3)[:2]) > 0
    assert 2 * lost >= slashed


def test_coalition__in_a_contested_segment__loses_at_least_half_too(build: Callable[..., Stage]) -> None:
    """No quorum is needed for a proof to pay: the same bound holds where the others only disagree."""
    stage = build(segments=1, stakes=stakes_of(3), challenger_share_bps=5_000, requester_share_bps=0)
    first, second, challenger = stage.workers
    coalition = (stage.requester, *stage.workers)
    before = wealth(stage, coalition) + FEE
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    play.play_round({first.address: LIE, second.address: Link(keccak(b"another lie"))})
    assert play.phase is Phase.CONTESTED
    play.challenge(0, challenger)
    play.finalise()
    slashed = sum(stake * CONTRADICTION // BPS for stake in stakes_of(3)[:2])
    assert 2 * (before - wealth(stage, coalition)) >= slashed


@pytest.mark.parametrize(("challenger", "requester"), [(5_001, 0), (2_500, 2_501), (0, 5_001), (10_000, 0)])
def test_coalition__shares_over_one_half__refused_when_deployed(
    build: Callable[..., Stage], theatre: LocalChain, challenger: int, requester: int
) -> None:
    with refused("ShareOutOfRange", actualBps=challenger if challenger > BPS // 2 else challenger + requester):
        build_stage(theatre, challenger_share_bps=challenger, requester_share_bps=requester)

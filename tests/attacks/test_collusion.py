"""Row 44, and what it costs: one honest proof overturns any quorum, and nobody can make money out of its own fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from eth_hash.auto import keccak

from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_ADDRESS, Link, Phase
from tests.attacks.mutant import Change, Mutant, build_stage
from tests.contracts.record import compensations, release_all
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
)
VOTES_END_AT_ONCE = Mutant(
    Change(
        "jobs/JobRounds.sol",
        "if (!hasOutput && segment == 0) return _failWithoutOutput(jobId, job);",
        "if (!hasOutput) return _failWithoutOutput(jobId, job);",
    )
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
    play.finalise()
    assert stage.credits()[honest.address] == FEE
    assert all(stage.credits()[liar.address] == 0 for liar in liars)
    # They have a day to prove what they said.
    assert (stage.chain.connection.balance(ZERO_ADDRESS), compensations(stage)) == (burnt, {})
    release_all(play)
    reward, back = (sum(part * bps // BPS for part in taken) for bps in (CHALLENGER, REQUESTER))
    assert compensations(stage) == {honest.address: reward, stage.requester.address: back}
    assert stage.chain.connection.balance(ZERO_ADDRESS) == burnt + sum(taken) - reward - back


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


# --- a lie that the next committee cannot work on ---------------------------------------------------------------------


def next_committee_votes(stage: Stage, vote: Link) -> tuple[Play, tuple[InstantSender, ...], InstantSender]:
    """A lie settles; the next committee cannot have it, or not work on it, and says so before anybody has a proof."""
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    *liars, honest = play.members()
    play.play_round({liar.address: LIE for liar in liars})
    play.announce(0, honest)
    play.play_round({member.address: vote for member in play.members()})
    return play, tuple(liars), honest


VOTES = pytest.mark.parametrize("vote", [UNAVAILABLE, BAD_INPUT], ids=["unavailable", "bad input"])


@VOTES
def test_votes_behind_a_lie__defence_removed__end_the_job_before_anybody_can_prove_it(
    build: Callable[..., Stage], vote: Link
) -> None:
    stage = build(VOTES_END_AT_ONCE, segments=2, stakes=stakes_of(6))
    play, liars, honest = next_committee_votes(stage, vote)
    with refused("WrongPhase", jobId=play.job, actual=Phase.FAILED):
        play.challenge(0, honest, announced=True)
    bonds = {worker.address: stage.contracts.staking.active_of(worker.address) for worker in stage.workers}
    stakes = {worker.address: stake for worker, stake in zip(stage.workers, stakes_of(6), strict=True)}
    cost = {liar.address: stakes[liar.address] - bonds[liar.address] for liar in liars}
    if vote == BAD_INPUT:
        assert set(cost.values()) == {0}
        assert stage.credits()[stage.requester.address] < FEE, "the requester pays for their lie"
    else:
        assert all(lost * 50 < stakes[liar] for liar, lost in cost.items())


@VOTES
def test_votes_behind_a_lie__leave_time_to_prove_it(build: Callable[..., Stage], vote: Link) -> None:
    stage = build(segments=2, stakes=stakes_of(6))
    play, liars, honest = next_committee_votes(stage, vote)
    assert play.phase is Phase.CONTESTED
    play.challenge(0, honest, announced=True)
    staking = stage.contracts.staking
    for worker, stake in zip(stage.workers, stakes_of(6), strict=True):
        lost = stake * CONTRADICTION // BPS if worker in liars else 0
        assert staking.active_of(worker.address) == stake - lost
    play.play_on()
    assert play.phase is Phase.FINALISED
    assert sum(stage.credits().values()) == FEE
    assert all(stage.credits()[liar.address] == 0 for liar in liars if liar not in play.members(1))


# --- what a coalition gets of its own stake ---------------------------------------------------------------------------


def wealth(stage: Stage, coalition: Iterable[InstantSender]) -> int:
    """Everything that the contracts hold for these accounts, in wei."""
    staking, jobs = stage.contracts.staking, stage.contracts.jobs
    return sum(
        staking.active_of(who.address)
        + staking.unbonding_of(who.address)[0]
        + staking.compensation_of(who.address)
        + jobs.credit_of(who.address)
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
    release_all(play)
    left = sum(stage.contracts.staking.active_of(worker.address) for worker in stage.workers)
    return before - wealth(stage, coalition), bonds - left


def test_coalition__defence_removed__gets_its_stake_out_early_and_whole(build: Callable[..., Stage]) -> None:
    stage = build(
        ALL_COMES_BACK,
        segments=1,
        stakes=stakes_of(3),
        contradiction_penalty_bps=10_000,
        challenger_share_bps=9_000,
        requester_share_bps=1_000,
    )
    lost, slashed = overturns_itself(stage)
    assert slashed == sum(stakes_of(3)[:2])
    assert lost <= 2, "a wei of each of the two, by rounding"


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
    release_all(play)
    slashed = sum(stake * CONTRADICTION // BPS for stake in stakes_of(3)[:2])
    assert slashed > before - wealth(stage, coalition) >= slashed / 2


@pytest.mark.parametrize(("challenger", "requester"), [(5_001, 0), (2_500, 2_501), (0, 5_001), (10_000, 0)])
def test_coalition__shares_over_one_half__refused_when_deployed(
    build: Callable[..., Stage], theatre: LocalChain, challenger: int, requester: int
) -> None:
    with refused("ShareOutOfRange", actualBps=challenger if challenger > BPS // 2 else challenger + requester):
        build_stage(theatre, challenger_share_bps=challenger, requester_share_bps=requester)

"""Rows 6 and 7: who is drawn cannot be chosen, by joining or leaving in time, by waiting, or by being many."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import count

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.chain.events import job_events
from offchain.protocol import hashing, sortition
from offchain.protocol.hashing import DRAW_TAG
from offchain.protocol.types import Address, Link, ModelId, Phase
from tests.attacks.mutant import Change, Mutant
from tests.contracts.stage import STAKES, Play, Stage, with_policy
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

LIE = Link(keccak(b"a lie"))
SIX = (*STAKES, 2 * ETHER + 3, 3 * ETHER + 5, 2 * ETHER + 7)

NOT_FROZEN = Mutant(
    Change(
        "jobs/JobRounds.sol",
        "staking.draw(job.modelId, job.frozenBlock, seed, size, _earlierMembers",
        "staking.draw(job.modelId, uint48(block.number - 1), seed, size, _earlierMembers",
    )
)
NO_NEW_SEED = Mutant(Change("jobs/JobRounds.sol", "if (entropy == 0) return _setSeedBlock(jobId, job);"))
ONE_SEAT_EACH = Mutant(
    Change(
        "Staking.sol",
        "uint208 weight = active < minimumStake || !_memberships[modelId][account].admitted ? 0 : active;",
        "uint208 weight = active < minimumStake || !_memberships[modelId][account].admitted ? 0 : 1;",
    )
)
DUST_COUNTS = Mutant(Change("Staking.sol", "uint208 weight = active < minimumStake || ", "uint208 weight = "))


def committee(play: Play, segment: int = 0) -> list[str]:
    return [member.operator for member in play.round(segment).members]


def foreseen(stage: Stage, play: Play, entropy: bytes, size: int = 3) -> list[str]:
    """The first committee, worked out from the weights as they stood when the job started."""
    connection = stage.contracts.connection
    seed = hashing.committee_seed(connection.chain_id, play.jobs.address, play.job, 0, entropy)  # type: ignore[arg-type]
    weights = [(Address(worker.address), stake) for worker, stake in zip(stage.workers, SIX, strict=True)]
    return [operator for operator, _ in sortition.draw(weights, seed, size)]


# --- row 6: joining, leaving and bonding once the seed is known -------------------------------------------------------


def join_when_the_seed_is_known(stage: Stage, play: Play) -> InstantSender:
    """A newcomer that bonds whatever it takes to be drawn; the whole committee leaves."""
    newcomer = stage.chain.instant("newcomer")
    stage.workers = (*stage.workers, newcomer)
    stage.join(newcomer, 9_000 * ETHER)
    entropy = stage.contracts.connection.block_hash(play.record.seed_block)
    for address in foreseen_before(stage, play, entropy):
        stage.contracts.staking.stop_serving(stage.by_address(address), stage.model)
    return newcomer


def foreseen_before(stage: Stage, play: Play, entropy: bytes) -> list[str]:
    workers, stage.workers = stage.workers, stage.workers[: len(SIX)]
    try:
        return foreseen(stage, play, entropy)
    finally:
        stage.workers = workers


def test_joining_after_the_seed__defence_removed__newcomer_is_drawn(build: Callable[..., Stage]) -> None:
    stage = build(NOT_FROZEN, segments=1, stakes=SIX)
    play = stage.request()
    newcomer = join_when_the_seed_is_known(stage, play)
    play.draw()
    assert committee(play)[0] == newcomer.address


def test_joining_after_the_seed__gains_nothing_because_the_draw_is_frozen(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=SIX)
    play = stage.request()
    entropy = stage.contracts.connection.block_hash(play.record.seed_block)
    expected = foreseen(stage, play, entropy)
    join_when_the_seed_is_known(stage, play)
    play.draw()
    assert committee(play) == expected


def test_bonding_after_the_seed__gains_nothing_because_the_draw_is_frozen(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=SIX)
    play = stage.request()
    expected = foreseen(stage, play, stage.contracts.connection.block_hash(play.record.seed_block))
    outsider = next(worker for worker in stage.workers if worker.address not in expected)
    stage.contracts.staking.bond(outsider, 9_000 * ETHER)
    play.draw()
    assert committee(play) == expected
    assert [member.weight for member in play.round(0).members] == [
        SIX[stage.workers.index(stage.by_address(address))] for address in expected
    ]


# --- row 6: a seed block that nobody can read any more ----------------------------------------------------------------


def wait_for_a_job_of_ones_own(stage: Stage, accomplices: Sequence[InstantSender]) -> Play:
    """Request jobs until the draw without entropy falls on accomplices alone, and let the seed block get too old."""
    wanted = {worker.address for worker in accomplices}
    with_no_entropy = bytes(32)
    for _ in range(200):
        play = stage.request(with_policy(proof_permille=0))
        if set(foreseen(stage, play, with_no_entropy)) == wanted:
            stage.chain.mine(257)
            return play
    raise AssertionError("no draw fell on the accomplices: 200 misses at 1 in 20 each happen once in 28,000 runs")


def test_missed_seed_block__defence_removed__requester_chooses_the_committee(build: Callable[..., Stage]) -> None:
    stage = build(NO_NEW_SEED, segments=1, stakes=SIX, max_running_jobs=1_000)
    accomplices = stage.workers[3:]
    play = wait_for_a_job_of_ones_own(stage, accomplices)
    play.draw()
    assert set(committee(play)) == {worker.address for worker in accomplices}


def test_missed_seed_block__gains_nothing_because_another_takes_its_place(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=SIX, max_running_jobs=1_000)
    play = wait_for_a_job_of_ones_own(stage, stage.workers[3:])
    before = play.record.deadline
    play.draw()
    head = stage.contracts.connection.block_number()
    (event,) = job_events(stage.contracts, play.job, head, head)
    assert (event.name, play.phase, committee(play)) == ("SeedBlockSet", Phase.REQUESTED, [])
    assert (play.record.seed_block, play.record.deadline) == (head, before)
    play.draw()
    assert committee(play) == foreseen(stage, play, stage.contracts.connection.block_hash(head))


# --- row 7: being many ------------------------------------------------------------------------------------------------

ATTACKERS_WEI, HONEST_WEI = 6, (3, 2, 1)
"""So small that every point of the line can be tried; the deployment's least stake is one wei."""
EVERY_SPLIT = ((6,), (3, 3), (2, 2, 2), (4, 1, 1), (1, 1, 1, 1, 1, 1))


def seed_for(points: Sequence[tuple[int, int]]) -> bytes:
    """A seed whose draw i falls on the given point of a line of the given length."""
    for number in count():
        seed = number.to_bytes(32, "big")
        if all(
            int.from_bytes(keccak(encode(["bytes32", "bytes32", "uint256"], [DRAW_TAG, seed, index])), "big") % length
            == point
            for index, (point, length) in enumerate(points)
        ):
            return seed
    raise AssertionError("unreachable")


def split(build: Callable[..., Stage], parts: Sequence[int], mutant: Mutant | None = None) -> Stage:
    return build(mutant, segments=1, stakes=(*parts, *HONEST_WEI), minimum_stake_wei=1)


def drawn(stage: Stage, seed: bytes, size: int) -> tuple[tuple[Address, int], ...]:
    at_block = stage.contracts.connection.block_number() - 1
    return stage.contracts.staking.draw(ModelId(stage.model), at_block, seed, size, ())


def expected_share(stage: Stage, attackers: Sequence[InstantSender], size: int) -> Fraction:
    """The attackers' expected share of a committee's stake: the mean over every point that every draw may fall on."""
    stage.chain.mine(2)
    total = stage.contracts.staking.total_weight_at(ModelId(stage.model), stage.contracts.connection.block_number() - 1)
    mine = {worker.address for worker in attackers}

    def mean(points: tuple[tuple[int, int], ...], left: int) -> Fraction:
        if len(points) == size:
            found = drawn(stage, seed_for(points), size)
            return Fraction(sum(w for who, w in found if who in mine), sum(w for _, w in found))
        share = Fraction(0)
        for point in range(left):
            here = (*points, (point, left))
            (*_, (_, weight)) = drawn(stage, seed_for(here), len(here))
            share += mean(here, left - weight) / left
        return share

    return mean((), total)


def test_split_stake__defence_removed__many_small_ones_outnumber_the_honest(build: Callable[..., Stage]) -> None:
    stage = split(build, (6,), ONE_SEAT_EACH)
    assert expected_share(stage, stage.workers[:1], 1) == Fraction(1, 4)
    stage = split(build, (1, 1, 1, 1, 1, 1), ONE_SEAT_EACH)
    assert expected_share(stage, stage.workers[:6], 1) == Fraction(6, 9)


@pytest.mark.parametrize("parts", EVERY_SPLIT)
def test_split_stake__gains_nothing_because_the_draw_is_by_stake(
    build: Callable[..., Stage], parts: Sequence[int]
) -> None:
    """One seat: exactly the share of the stake, however it is split, point by point of the line."""
    stage = split(build, parts)
    attackers = stage.workers[: len(parts)]
    assert expected_share(stage, attackers, 1) == Fraction(ATTACKERS_WEI, ATTACKERS_WEI + sum(HONEST_WEI))


def test_split_stake__over_a_committee__gains_nothing_and_loses(build: Callable[..., Stage]) -> None:
    """Two seats: the parts share what the whole had, and are drawn with the weight of a part."""
    whole = split(build, (6,))
    share_of_one = expected_share(whole, whole.workers[:1], 2)
    thirds = split(build, (2, 2, 2))
    assert share_of_one > expected_share(thirds, thirds.workers[:3], 2)


# --- row 7: dust ------------------------------------------------------------------------------------------------------


def dust_in_the_second_committee(stage: Stage) -> Play:
    """Three operators bond the least, serve, and take all but a wei out again; a job needs two committees of three."""
    staking = stage.contracts.staking
    for dust in stage.workers[3:]:
        staking.start_unbonding(dust, staking.active_of(dust.address) - 1)
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    return play.play_round({})


def test_dust__defence_removed__three_wei_decide_the_result(build: Callable[..., Stage]) -> None:
    stage = build(DUST_COUNTS, segments=2, stakes=tuple(100 * stake for stake in STAKES) + (ETHER,) * 3)
    dust = stage.workers[3:]
    play = dust_in_the_second_committee(stage)
    assert set(committee(play, 1)) == {worker.address for worker in dust}
    play.play_round({worker.address: LIE for worker in dust})
    assert (play.round(1).settled_link, play.round(1).total_weight) == (LIE, 3)


def test_dust__refused_any_weight_below_the_least_stake(build: Callable[..., Stage]) -> None:
    stage = build(segments=2, stakes=tuple(100 * stake for stake in STAKES) + (ETHER,) * 3)
    play = dust_in_the_second_committee(stage)
    assert set(committee(play, 1)) == {worker.address for worker in stage.workers[:3]}
    head = stage.contracts.connection.block_number() - 1
    total = stage.contracts.staking.total_weight_at(ModelId(stage.model), head)
    assert total == sum(100 * stake for stake in STAKES)

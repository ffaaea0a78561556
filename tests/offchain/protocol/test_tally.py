from __future__ import annotations

import pytest
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from offchain.protocol import sortition
from offchain.protocol.tally import has_output, is_quorum, is_short, leading, participation
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_HASH, Address, Link, Member, is_output

pytestmark = pytest.mark.unit

LINKS = [Link(ZERO_HASH), UNAVAILABLE, BAD_INPUT, *(Link(keccak(bytes([number]))) for number in range(3))]


def members_of(votes: list[tuple[int, Link]]) -> tuple[Member, ...]:
    return tuple(
        Member(Address(f"0x{index:040x}"), weight, ZERO_HASH, link, ZERO_HASH)
        for index, (weight, link) in enumerate(votes)
    )


VOTES = st.lists(st.tuples(st.integers(1, 2**100), st.sampled_from(LINKS)), max_size=8).map(members_of)


@given(members=VOTES)
def test_leading__any_votes__no_output_has_more(members: tuple[Member, ...]) -> None:
    link, weight = leading(members)
    sums = {candidate: sum(member.weight for member in members if member.link == candidate) for candidate in LINKS[1:]}
    assert weight == max(sums.values())
    assert link == (ZERO_HASH if not weight else next(m.link for m in members if sums.get(m.link) == weight))


@given(members=VOTES, quorum_bps=st.integers(5001, 10_000))
def test_is_quorum__above_one_half__holds_for_one_output_at_most(members: tuple[Member, ...], quorum_bps: int) -> None:
    total = sum(member.weight for member in members)
    winners = [
        link
        for link in LINKS[1:]
        if (weight := sum(member.weight for member in members if member.link == link))
        and is_quorum(weight, total, quorum_bps)
    ]
    assert len(winners) <= 1
    assert all(link == leading(members)[0] for link in winners)


@pytest.mark.parametrize(
    ("weight", "total", "quorum_bps", "expected"),
    [
        (2, 3, 6666, True),
        (2, 3, 6667, False),
        (3, 4, 7500, True),
        (3 * 10**30 - 1, 4 * 10**30, 7500, False),
        (5, 5, 10_000, True),
        (4, 5, 10_000, False),
        (0, 1, 5001, False),
    ],
)
def test_is_quorum__boundaries__are_exact(weight: int, total: int, quorum_bps: int, expected: bool) -> None:
    assert is_quorum(weight, total, quorum_bps) is expected


@given(st.lists(st.sampled_from(["silent", "committed", "revealed"]), max_size=5))
def test_participation__any_members__says_whether_anybody_did_it(votes: list[str]) -> None:
    members = [
        Member(
            Address(f"0x{index:040x}"),
            1,
            ZERO_HASH if vote == "silent" else keccak(b"commitment"),
            UNAVAILABLE if vote == "revealed" else Link(ZERO_HASH),
            ZERO_HASH,
        )
        for index, vote in enumerate(votes)
    ]
    assert participation(members) == (bool({"committed", "revealed"} & set(votes)), "revealed" in votes)


@pytest.mark.parametrize(
    ("number", "expected"), [(0, False), (1, False), (2, False), (3, True), (2**248, True), (2**256 - 1, True)]
)
def test_is_output__votes_and_nothing__are_none(number: int, expected: bool) -> None:
    assert is_output(number.to_bytes(32, "big")) is expected
    assert ((1).to_bytes(32, "big"), (2).to_bytes(32, "big")) == (UNAVAILABLE, BAD_INPUT)


@given(members=VOTES)
def test_has_output__any_votes__is_whether_one_revealed_more_than_a_vote(members: tuple[Member, ...]) -> None:
    assert has_output(members) is any(member.link in LINKS[3:] for member in members)


@given(commits=st.lists(st.tuples(st.integers(1, 2**100), st.booleans()), min_size=1, max_size=8), data=st.data())
def test_is_short__any_commits__is_whether_no_output_could_have_a_quorum(
    commits: list[tuple[int, bool]], data: st.DataObject
) -> None:
    quorum_bps = data.draw(st.integers(5001, 10_000))
    members = [
        Member(Address(f"0x{index:040x}"), weight, keccak(b"c") if committed else ZERO_HASH, LINKS[0], ZERO_HASH)
        for index, (weight, committed) in enumerate(commits)
    ]
    committed = sum(weight for weight, has_committed in commits if has_committed)
    assert is_short(members, quorum_bps) is not is_quorum(committed, sum(w for w, _ in commits), quorum_bps)


def test_is_short__exactly_the_quorum__is_enough() -> None:
    members = [
        Member(Address(f"0x{index:040x}"), weight, keccak(b"c") if weight == 3 else ZERO_HASH, LINKS[0], ZERO_HASH)
        for index, weight in enumerate((3, 1))
    ]
    assert not is_short(members, 7500)
    assert is_short(members, 7501)


WEIGHTS = st.lists(st.integers(0, 2**70), max_size=9).map(
    lambda weights: [(Address(f"0x{index:040x}"), weight) for index, weight in enumerate(weights)]
)


@given(weights=WEIGHTS, seed=st.binary(min_size=32, max_size=32), count=st.integers(0, 12), data=st.data())
def test_draw__any_line__draws_distinct_members_of_weight(
    weights: list[tuple[Address, int]], seed: bytes, count: int, data: st.DataObject
) -> None:
    excluded = data.draw(st.lists(st.sampled_from([address for address, _ in weights] or [Address("0x")])))
    drawn = sortition.draw(weights, seed, count, excluded)
    eligible = {(address, weight) for address, weight in weights if weight and address not in excluded}
    assert len(set(drawn)) == len(drawn) == min(count, len(eligible))
    assert set(drawn) <= eligible
    assert sortition.draw(weights, seed, count, [*excluded, *excluded]) == drawn
    assert drawn[:-1] == sortition.draw(weights, seed, max(len(drawn) - 1, 0), excluded)


@given(weights=WEIGHTS, seed=st.binary(min_size=32, max_size=32), count=st.integers(1, 4), data=st.data())
def test_draw_committee__earlier_members__are_left_out_if_that_leaves_enough(
    weights: list[tuple[Address, int]], seed: bytes, count: int, data: st.DataObject
) -> None:
    earlier = data.draw(st.lists(st.sampled_from([address for address, _ in weights] or [Address("0x")])))
    committee = sortition.draw_committee(weights, seed, count, earlier)
    eligible = [address for address, weight in weights if weight]
    fresh = [address for address in eligible if address not in earlier]
    assert len(committee) == min(count, len(eligible))
    if len(fresh) >= count:
        assert {address for address, _ in committee} <= set(fresh)


@given(members=VOTES, sample=st.binary(min_size=32, max_size=32))
def test_draw_prover__any_votes__is_a_supporter(members: tuple[Member, ...], sample: bytes) -> None:
    link, weight = leading(members)
    if weight:
        prover = sortition.draw_prover(members, link, sample)
        assert prover in {member.operator for member in members if member.link == link}


def test_is_sampled__rate__is_a_share_of_a_thousand() -> None:
    for number in (0, 499, 500, 999, 1499, 1500):
        sample = number.to_bytes(32, "big")
        assert sortition.is_sampled(sample, 500) is (number % 1000 < 500)
        assert sortition.is_sampled(sample, 1000)
        assert not sortition.is_sampled(sample, 0)

from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.chain import events as events_module
from offchain.chain.contracts import Contracts
from offchain.chain.events import Event, EventFollower, job_events, read_events
from offchain.chain.sender import Sender
from tests.local_chain import LocalChain

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("isolation")]


@pytest.fixture
def start(chain: LocalChain, isolation: None) -> int:
    """A block behind which, as far as a follower looks back, there is nothing of other tests on the same chain."""
    chain.mine(20)
    return chain.connection.block_number()


def bonds(events: tuple[Event, ...] | list[Event]) -> list[int]:
    """The amounts bonded, in order."""
    return [event.arguments["amount"] for event in events if event.name == "Bonded"]


def test_read_events__range__is_whole_and_in_order(
    chain: LocalChain, contracts: Contracts, deployer: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = chain.connection.block_number() + 1
    for amount in range(1, 8):
        contracts.staking.bond(deployer, amount)
    last = chain.connection.block_number()
    whole = list(read_events(contracts, first, last))
    assert bonds(whole) == list(range(1, 8))
    assert bonds(list(read_events(contracts, first + 2, last - 1))) == [3, 4, 5, 6]
    monkeypatch.setattr(events_module, "MAX_BLOCKS_PER_QUERY", 3)
    assert list(read_events(contracts, first, last)) == whole
    assert list(read_events(contracts, last + 1, last)) == []


def test_read_events__one_event__says_where_it_was(chain: LocalChain, contracts: Contracts, deployer: Sender) -> None:
    receipt = contracts.staking.bond(deployer, 9)
    (event,) = read_events(contracts, receipt.block_number, receipt.block_number)
    assert event == Event(
        name="Bonded",
        arguments={"operator": deployer.address, "amount": 9, "active": 9},
        address=contracts.staking.address,
        block_number=receipt.block_number,
        block_hash=chain.connection.block_hash(receipt.block_number),
        transaction_hash=receipt.transaction_hash,
        log_index=0,
    )


def test_job_events__unknown_job__is_empty(chain: LocalChain, contracts: Contracts, deployer: Sender) -> None:
    contracts.staking.bond(deployer, 9)
    assert job_events(contracts, keccak(b"none"), 0, chain.connection.block_number()) == ()


def test_poll__until_it_is_advanced__gives_the_same_again(contracts: Contracts, deployer: Sender, start: int) -> None:
    contracts.staking.bond(deployer, 1)
    follower = EventFollower(contracts, cursor=start)
    events, cursor = follower.poll()
    assert bonds(events) == [1]
    assert follower.poll() == (events, cursor)
    follower.advance(cursor)
    assert follower.cursor == cursor


def test_poll__restart_at_the_stored_cursor__misses_none(
    chain: LocalChain, contracts: Contracts, deployer: Sender, start: int
) -> None:
    contracts.staking.bond(deployer, 1)
    follower = EventFollower(contracts, cursor=start, overlap_blocks=3)
    events, stored = follower.poll()
    assert bonds(events) == [1]
    # It dies before it stored the cursor of its next poll; meanwhile more happens, and much of it.
    contracts.staking.bond(deployer, 2)
    EventFollower(contracts, stored, overlap_blocks=3).poll()
    chain.mine(20)
    contracts.staking.bond(deployer, 3)
    restarted = EventFollower(contracts, stored, overlap_blocks=3)
    events, cursor = restarted.poll()
    assert bonds(events)[-2:] == [2, 3]
    restarted.advance(cursor)
    assert bonds(restarted.poll()[0]) == [3], "only the overlap is read again"


def test_poll__block_was_replaced__gives_what_took_its_place(
    chain: LocalChain, contracts: Contracts, deployer: Sender, start: int
) -> None:
    contracts.staking.bond(deployer, 1)
    follower = EventFollower(contracts, cursor=start)
    before, cursor = follower.poll()
    follower.advance(cursor)
    (old,) = [event for event in before if event.name == "Bonded"]
    # The block that held the event is replaced by an empty one, and the event comes back in a later block.
    chain.rpc("anvil_reorg", 2, [])
    after, _ = follower.poll()
    assert bonds(after) == []
    assert contracts.staking.active_of(deployer.address) == 0
    contracts.staking.bond(deployer, 1)
    again, _ = follower.poll()
    (new,) = [event for event in again if event.name == "Bonded"]
    assert new.arguments == old.arguments
    assert new.block_hash != old.block_hash


def test_poll__reorganisation_of_ten_blocks__is_seen_whole(
    chain: LocalChain, contracts: Contracts, deployer: Sender, start: int
) -> None:
    for amount in range(1, 10):
        contracts.staking.bond(deployer, amount)
    follower = EventFollower(contracts, cursor=start)
    events, cursor = follower.poll()
    follower.advance(cursor)
    assert bonds(events) == list(range(1, 10))
    chain.rpc("anvil_reorg", 9, [])
    assert bonds(follower.poll()[0]) == []


def test_poll__chain_shorter_than_the_cursor__follows_it_back(contracts: Contracts, deployer: Sender) -> None:
    contracts.staking.bond(deployer, 4)
    head = contracts.connection.block_number()
    follower = EventFollower(contracts, cursor=head + 8)
    events, cursor = follower.poll()
    assert (bonds(events), cursor) == ([4], head + 1)

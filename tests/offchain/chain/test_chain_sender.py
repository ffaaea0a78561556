"""Sending under bad conditions, on a real chain that mines only when it is told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from eth_hash.auto import keccak

from migrations.steps import migrate_all
from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.chain.errors import ChainUnreachable, TransactionNotMined, TransactionRefused
from offchain.chain.sender import Receipt, Sender
from tests.local_chain import LocalChain, running_anvil

pytestmark = pytest.mark.integration

KEY = keccak(b"key")


@pytest.fixture(scope="module")
def slow() -> Iterator[tuple[LocalChain, Contracts]]:
    """A chain of its own with the contracts on it, on which nothing is mined any more."""
    with running_anvil() as anvil:
        chain = LocalChain(Connection(anvil.url))
        contracts = Contracts.connect(chain.connection, migrate_all(chain.sender("deployer"), Path(_record())))
        chain.rpc("evm_setAutomine", False)
        yield chain, contracts


def _record() -> str:
    import tempfile

    return tempfile.mkdtemp() + "/record.json"


def waiting(chain: LocalChain) -> list[str]:
    """Hashes of the transactions that no block has taken."""
    pool = chain.rpc("txpool_content")["pending"]
    return [transaction["hash"] for by_nonce in pool.values() for transaction in by_nonce.values()]


def when(condition: Callable[[], bool], act: Callable[[], None]) -> threading.Thread:
    """Act once a condition holds."""

    def watch() -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.usefixtures("isolation")
def test_send__accepted__returns_and_records_the_receipt(chain: LocalChain, contracts: Contracts) -> None:
    recorded: list[Receipt] = []
    sender = Sender(chain.connection, chain.account("recorded"), record=recorded.append)
    receipt = contracts.staking.set_encryption_key(sender, KEY)
    assert recorded == [receipt]
    assert (receipt.function, receipt.contract) == ("setEncryptionKey", None)
    assert receipt.block_number == chain.connection.block_number()
    assert 21_000 < receipt.gas_used < 100_000
    assert contracts.staking.encryption_key_of(sender.address) == KEY


@pytest.mark.usefixtures("isolation")
def test_send__refused_in_the_simulation__sends_nothing(chain: LocalChain, contracts: Contracts) -> None:
    sender = chain.sender("refused")
    height, balance = chain.connection.block_number(), chain.connection.balance(sender.address)
    with pytest.raises(TransactionRefused) as caught:
        contracts.staking.set_encryption_key(sender, bytes(32))
    assert (caught.value.error, caught.value.function) == ("EncryptionKeyIsZero", "setEncryptionKey")
    assert (chain.connection.block_number(), chain.connection.balance(sender.address)) == (height, balance)


@pytest.mark.usefixtures("isolation")
def test_send__from_many_threads__uses_every_nonce_once(chain: LocalChain, contracts: Contracts) -> None:
    sender = chain.sender("threads")
    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(lambda amount: contracts.staking.bond(sender, amount), range(1, 25)))
    assert len({receipt.transaction_hash for receipt in receipts}) == 24
    assert contracts.staking.active_of(sender.address) == sum(range(1, 25))
    assert chain.connection.web3.eth.get_transaction_count(sender.address) == 24  # type: ignore[arg-type]


def test_send__stuck__is_replaced_at_a_higher_fee_and_mined_once(slow: tuple[LocalChain, Contracts]) -> None:
    chain, contracts = slow
    with chain.isolated():
        sender = Sender(chain.connection, chain.account("stuck"), stuck_seconds=0.2)
        seen: list[str] = []

        def replaced_twice() -> bool:
            for transaction_hash in waiting(chain):
                if transaction_hash not in seen:
                    seen.append(transaction_hash)
            return len(seen) >= 3

        miner = when(replaced_twice, chain.mine)
        receipt = contracts.staking.bond(sender, 5)
        miner.join()
        mined = chain.connection.web3.eth.get_transaction(receipt.transaction_hash)  # type: ignore[arg-type]
        assert receipt.transaction_hash not in seen[:2]
        assert mined["maxPriorityFeePerGas"] >= 1_000_000_000 * 25 // 16
        assert mined["nonce"] == 0
        assert contracts.staking.active_of(sender.address) == 5
        assert waiting(chain) == []


def test_send__never_mined__names_every_version_and_the_last_may_still_come(
    slow: tuple[LocalChain, Contracts],
) -> None:
    chain, contracts = slow
    with chain.isolated():
        sender = Sender(chain.connection, chain.account("cap"), stuck_seconds=0.1, max_replacements=3)
        with pytest.raises(TransactionNotMined) as caught:
            contracts.staking.bond(sender, 5)
        assert len(set(caught.value.hashes)) == 4
        assert waiting(chain) == [caught.value.hashes[-1]]
        chain.mine()
        assert contracts.staking.active_of(sender.address) == 5


def test_send__mined_while_the_fee_was_raised__is_not_sent_twice(slow: tuple[LocalChain, Contracts]) -> None:
    chain, contracts = slow
    with chain.isolated():
        sender = Sender(chain.connection, chain.account("late"), stuck_seconds=0.05, max_replacements=20)
        # Mined between two looks of the sender: its next version has a nonce that is used already.
        miner = when(lambda: bool(waiting(chain)), chain.mine)
        contracts.staking.bond(sender, 5)
        miner.join()
        chain.mine()
        assert contracts.staking.active_of(sender.address) == 5
        assert chain.connection.web3.eth.get_transaction_count(sender.address) == 1  # type: ignore[arg-type]


def test_send__lost_race__is_named_like_a_refusal(slow: tuple[LocalChain, Contracts]) -> None:
    chain, contracts = slow
    with chain.isolated():
        # Any contract may stand as a verifier here; nobody proves anything.
        verifier = contracts.registry.address
        code_hash = keccak(bytes(chain.connection.web3.eth.get_code(verifier)))  # type: ignore[arg-type]
        spec = (KEY, code_hash, 1, 3, 7, 7, 256, [3], [3])

        def register(sender: Sender) -> str:
            try:
                contracts.registry.register_model(sender, KEY, KEY, [spec], [verifier])
            except TransactionRefused as refused:
                return refused.error
            return "registered"

        senders = [chain.sender("first"), chain.sender("second")]
        miner = when(lambda: len(waiting(chain)) == 2, chain.mine)
        with ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(register, senders))
        miner.join()
        assert sorted(outcomes) == ["ModelAlreadyRegistered", "registered"]


def test_send__node_dies_while_waiting__is_unreachable() -> None:
    with running_anvil() as anvil:
        chain = LocalChain(Connection(anvil.url))
        contracts = Contracts.connect(chain.connection, migrate_all(chain.sender("deployer"), Path(_record())))
        chain.rpc("evm_setAutomine", False)
        sender = Sender(chain.connection, chain.account("orphan"), stuck_seconds=30)
        killer = when(lambda: bool(waiting(chain)), anvil.process.kill)
        with pytest.raises(ChainUnreachable):
            contracts.staking.bond(sender, 5)
        killer.join()


def test_send__earlier_transaction_waits__is_sent_only_after_it(slow: tuple[LocalChain, Contracts]) -> None:
    chain, contracts = slow
    account = chain.account("in order")
    with ThreadPoolExecutor(2) as threads:
        earlier = threads.submit(contracts.staking.set_encryption_key, Sender(chain.connection, account), KEY)
        when(lambda: len(waiting(chain)) == 1, lambda: None).join()
        later = threads.submit(contracts.staking.set_encryption_key, Sender(chain.connection, account), keccak(b"2"))
        time.sleep(0.5)  # what must not happen takes time to not happen
        assert len(waiting(chain)) == 1
        chain.mine()
        assert earlier.result(30).block_number < chain.connection.block_number() + 1
        when(lambda: len(waiting(chain)) == 1, chain.mine).join()
        assert later.result(30).block_number > earlier.result().block_number
    assert contracts.staking.encryption_key_of(account.address) == keccak(b"2")


def test_send__earlier_transaction_is_stuck__replaces_it(slow: tuple[LocalChain, Contracts]) -> None:
    chain, contracts = slow
    account = chain.account("stuck for good")
    given_up = Sender(chain.connection, account, stuck_seconds=0.1, max_replacements=0)
    with pytest.raises(TransactionNotMined) as caught:
        contracts.staking.set_encryption_key(given_up, KEY)
    (stuck,) = caught.value.hashes
    mining = when(lambda: bool(waiting(chain)) and stuck not in waiting(chain), chain.mine)
    contracts.staking.set_encryption_key(Sender(chain.connection, account, stuck_seconds=0.3), keccak(b"3"))
    mining.join()
    assert contracts.staking.encryption_key_of(account.address) == keccak(b"3")
    assert waiting(chain) == []

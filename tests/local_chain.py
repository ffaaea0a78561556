"""A local development chain for tests: a real Anvil, controlled through its own RPC methods."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address
from web3.contract.contract import ContractConstructor

from offchain.chain.connection import Connection, artefact
from offchain.chain.sender import Receipt, Sender
from offchain.errors import UnrecoverableError
from offchain.network.processes import ANVIL_OPTIONS
from offchain.toolchain import anvil_path

ETHER = 10**18
GAS_CAP = 16_777_216
"""EIP-7825: what a transaction may use at most. Anvil does not enforce it by itself."""


@dataclass(frozen=True)
class Anvil:
    """A running Anvil."""

    url: str
    process: subprocess.Popen[str]


@contextmanager
def running_anvil(*options: str, port: int = 0) -> Iterator[Anvil]:
    """Start an Anvil on a loopback port (a free one, if 0), and stop it at the end."""
    history = () if "--prune-history" in options else ANVIL_OPTIONS
    process = subprocess.Popen(
        [str(anvil_path()), "--host", "127.0.0.1", "--port", str(port), "--auto-impersonate", *history, *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield Anvil(f"http://127.0.0.1:{_listening_port(process)}", process)
    finally:
        process.terminate()
        process.communicate()


def _listening_port(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        listening = re.search(r"Listening on [\d.]+:(\d+)", line)
        if listening:
            # Whoever is never read blocks once the pipe is full.
            _drain(process)
            return int(listening[1])
    raise UnrecoverableError("Anvil did not start: " + "".join(printed))


def _drain(process: subprocess.Popen[str]) -> None:
    def read() -> None:
        assert process.stdout is not None
        try:
            for _ in process.stdout:
                pass
        except ValueError:  # closed while being read
            pass

    threading.Thread(target=read, daemon=True).start()


class LocalChain:
    """Control over a development chain."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def rpc(self, method: str, *parameters: Any) -> Any:
        """Call a method of the node, for what web3 has no name for."""
        answer = self.connection.web3.provider.make_request(method, list(parameters))  # type: ignore[arg-type]
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return answer["result"]

    def head(self) -> tuple[int, int]:
        """Number and time of the newest block, without what web3 makes of a block."""
        block = self.rpc("eth_getBlockByNumber", "latest", False)
        return int(block["number"], 16), int(block["timestamp"], 16)

    def mine(self, blocks: int = 1) -> None:
        """Mine empty blocks."""
        self.rpc("anvil_mine", hex(blocks))

    def advance(self, seconds: int) -> None:
        """Mine a block that is later than the last by (at least) so many seconds."""
        self.move_to(self.head()[1] + seconds)

    def move_to(self, timestamp: int) -> None:
        """Mine a block at exactly this time."""
        self.rpc("evm_setNextBlockTimestamp", timestamp)
        self.mine()

    def fund(self, address: str, amount_wei: int) -> None:
        """Set an account's balance."""
        self.rpc("anvil_setBalance", address, hex(amount_wei))

    @contextmanager
    def isolated(self) -> Iterator[None]:
        """Take back every change at the end."""
        snapshot = self.rpc("evm_snapshot")
        try:
            yield
        finally:
            self.rpc("evm_revert", snapshot)

    def account(self, name: str) -> LocalAccount:
        """A funded account whose key is the hash of its name."""
        account: LocalAccount = Account.from_key(keccak(name.encode()))
        self.fund(account.address, 10_000 * ETHER)
        return account

    def sender(self, name: str) -> Sender:
        """A funded sender that signs for itself, as in production."""
        return Sender(self.connection, self.account(name))

    def instant(self, name: str) -> InstantSender:
        """A funded sender for tests of contracts: many times faster, because the node signs and answers at once."""
        return InstantSender(self, self.account(name))

    def deploy(self, sender: Sender, name: str, *arguments: Any, value_wei: int = 0) -> str:
        """Deploy a compiled contract and return its address."""
        compiled = artefact(name)
        factory = self.connection.web3.eth.contract(abi=compiled["abi"], bytecode=compiled["bytecode"])
        deployed = sender.send(factory.constructor(*arguments), value_wei).contract
        assert deployed is not None
        return deployed


class InstantSender(Sender):
    """Simulates like its parent, and then has the node send and wait in one call.

    ``at`` fixes the time of the one block that takes the next transaction; the simulation runs at that time as well.
    """

    def __init__(self, chain: LocalChain, account: LocalAccount) -> None:
        super().__init__(chain.connection, account)
        self._chain = chain
        self.at: int | None = None

    def send(self, call: Any, value_wei: int = 0, gas: int | None = None) -> Receipt:
        name = getattr(call, "fn_name", "constructor")
        transaction: dict[str, Any] = {"from": self.address, "value": hex(value_wei)}
        if gas is not None:
            transaction["gas"] = hex(gas)
        if isinstance(call, ContractConstructor):
            transaction["data"] = call.data_in_transaction
        else:
            transaction |= {"to": call.address, "data": call._encode_transaction_data()}
        return self.send_raw(name, transaction)

    def send_raw(self, name: str, transaction: dict[str, Any]) -> Receipt:
        """Simulate, send and wait for a transaction whose fields are already as JSON-RPC wants them."""
        transaction = {"gas": hex(GAS_CAP), **transaction}
        at, self.at = self.at, None
        number, timestamp = self._chain.head()
        at = timestamp + 1 if at is None else at
        with self.connection.translated(name):
            self.connection.web3.manager.request_blocking(
                "eth_call", [transaction, "latest", {}, {"time": hex(at), "number": hex(number + 1)}]
            )
        self._chain.rpc("evm_setNextBlockTimestamp", at)
        mined = self._chain.rpc("eth_sendTransactionSync", transaction)
        assert int(mined["status"], 16) == 1, f"{name} passed its simulation and reverted on chain"
        return Receipt(
            transaction_hash=mined["transactionHash"],
            block_number=int(mined["blockNumber"], 16),
            gas_used=int(mined["gasUsed"], 16),
            function=name,
            contract=mined["contractAddress"] and to_checksum_address(mined["contractAddress"]),
        )

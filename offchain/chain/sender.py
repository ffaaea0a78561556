"""Sending transactions from one account: simulated first, signed here, replaced with a higher fee if they get stuck."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from eth_account.signers.local import LocalAccount
from web3 import Web3
from web3.exceptions import ContractLogicError, TransactionNotFound, Web3RPCError

from offchain.chain.connection import Connection
from offchain.chain.errors import TransactionNotMined, TransactionRefused

GAS_HEADROOM = 600_000
"""Over the estimate: a block later the same call may have to start new checkpoints in a sum tree, which an estimate
made in a block that had them already does not count. What is not used costs nothing."""
ESTIMATES = 5
MAX_GAS = 16_777_216
"""EIP-7825: no transaction may use more."""


@dataclass(frozen=True)
class Receipt:
    """A mined transaction. Gas in units of gas, ``contract`` only for deployments."""

    transaction_hash: str
    block_number: int
    gas_used: int
    function: str
    contract: str | None = None


class Sender:
    """The only sender of one account, so that its nonces never collide.

    Args:
        connection: the chain.
        account: the key that signs.
        stuck_seconds: how long to wait for a block before the fee is raised.
        max_replacements: how often the fee may be raised (by a quarter each time).
        record: called with every receipt, for whoever keeps account of gas.
    """

    def __init__(
        self,
        connection: Connection,
        account: LocalAccount,
        *,
        stuck_seconds: float = 20.0,
        max_replacements: int = 6,
        record: Any = None,
    ) -> None:
        self.connection = connection
        self.account = account
        self.address: str = account.address
        self.stuck_seconds = stuck_seconds
        self.max_replacements = max_replacements
        self._record = record
        self._block_gas: int | None = None
        self._lock = threading.Lock()

    def send(self, call: Any, value_wei: int = 0, gas: int | None = None) -> Receipt:
        """Simulate a call, send it, and wait until it is mined.

        Args:
            call: a bound web3 contract function or constructor.
            value_wei: what to send along.
            gas: the limit, where it is known; the simulation then runs the call once instead of searching for it.

        Raises:
            TransactionRefused: the contract refuses it, in the simulation or on chain.
            TransactionNotMined: no block took it, at any fee within the cap.
            InsufficientFunds: the account cannot pay.
            ChainUnreachable: the endpoint is down.
        """
        name = getattr(call, "fn_name", "constructor")
        with self._lock:
            nonce = self._next_nonce(name)
            with self.connection.translated(name):
                limit = self._simulate(call, value_wei, gas)
                transaction: dict[str, Any] = call.build_transaction(
                    {
                        "from": self.address,
                        "value": value_wei,
                        "chainId": self.connection.chain_id,
                        "gas": limit,
                        "nonce": nonce,
                        **self._fees(),
                    }
                )
            mined = self._send_until_mined(name, transaction)
        if mined["status"] != 1:
            raise self._why_reverted(name, transaction, mined)
        receipt = Receipt(
            transaction_hash="0x" + bytes(mined["transactionHash"]).hex(),
            block_number=mined["blockNumber"],
            gas_used=mined["gasUsed"],
            function=name,
            contract=mined["contractAddress"],
        )
        if self._record is not None:
            self._record(receipt)
        return receipt

    def _simulate(self, call: Any, value_wei: int, gas: int | None) -> int:
        """Run a call without sending it, so that what the contract refuses is never sent; returns its gas limit."""
        options = {"from": self.address, "value": value_wei}
        most = self._most_gas()
        if gas is not None:
            call.call({**options, "gas": min(gas, most)})
            return min(gas, most)
        for attempt in range(ESTIMATES):
            try:
                return min(int(call.estimate_gas(options)) * 5 // 4 + GAS_HEADROOM, most)
            except ContractLogicError:
                raise
            except Web3RPCError:
                # Anvil estimates against a block that others are filling meanwhile, and may run out of gas in it.
                if attempt + 1 == ESTIMATES:
                    raise
                time.sleep(0.1 * (attempt + 1))
        raise AssertionError("unreachable")

    def _most_gas(self) -> int:
        """What a transaction may ask for: no chain takes one that may use more than a block."""
        if self._block_gas is None:
            self._block_gas = int(self.connection.web3.eth.get_block("latest")["gasLimit"])
        return min(MAX_GAS, self._block_gas)

    def transfer(self, recipient: str, amount_wei: int) -> str:
        """Send plain currency and wait until it is mined; returns the transaction's hash.

        Raises:
            InsufficientFunds, TransactionNotMined, ChainUnreachable: as :meth:`send`.
        """
        with self._lock:
            nonce = self._next_nonce("transfer")
            with self.connection.translated("transfer"):
                transaction: dict[str, Any] = {
                    "from": self.address,
                    "to": Web3.to_checksum_address(recipient),
                    "value": amount_wei,
                    "gas": 21_000,
                    "chainId": self.connection.chain_id,
                    "nonce": nonce,
                    **self._fees(),
                }
            mined = self._send_until_mined("transfer", transaction)
        return "0x" + bytes(mined["transactionHash"]).hex()

    def _next_nonce(self, name: str) -> int:
        """The nonce after the last mined one, once nothing that this account sent before is waiting.

        What was sent may not be seen by a simulation yet, and would be sent twice. If it stays stuck, it is replaced.
        """
        address = Web3.to_checksum_address(self.address)
        deadline = time.monotonic() + self.stuck_seconds
        while True:
            with self.connection.translated(name):
                mined = self.connection.web3.eth.get_transaction_count(address, "latest")
                pending = self.connection.web3.eth.get_transaction_count(address, "pending")
            if pending <= mined or time.monotonic() >= deadline:
                return mined
            time.sleep(0.1)

    def _fees(self) -> dict[str, int]:
        base = self.connection.web3.eth.get_block("latest").get("baseFeePerGas")
        if base is None:
            return {"gasPrice": self.connection.web3.eth.gas_price}
        tip = 1_000_000_000
        return {"maxPriorityFeePerGas": tip, "maxFeePerGas": 2 * base + tip}

    def _send_until_mined(self, name: str, transaction: dict[str, Any]) -> Any:
        hashes: list[str] = []
        for _ in range(self.max_replacements + 1):
            signed = self.account.sign_transaction(transaction)
            hashes.append("0x" + signed.hash.hex())
            with self.connection.translated(name):
                try:
                    self.connection.web3.eth.send_raw_transaction(signed.raw_transaction)
                except Web3RPCError as error:
                    # A version that was sent before may have been mined meanwhile, or be waiting already.
                    if not _is_known(error):
                        raise
            mined = self._wait(name, hashes)
            if mined is not None:
                return mined
            for field in ("gasPrice", "maxFeePerGas", "maxPriorityFeePerGas"):
                if field in transaction:
                    transaction[field] = transaction[field] * 5 // 4
        raise TransactionNotMined(name, tuple(hashes))

    def _wait(self, name: str, hashes: list[str]) -> Any:
        deadline = time.monotonic() + self.stuck_seconds
        pause = 0.02
        while time.monotonic() < deadline:
            for transaction_hash in reversed(hashes):
                # The order matters: what is not found yet must not count as an error of the endpoint.
                with self.connection.translated(name), suppress(TransactionNotFound):
                    return self.connection.web3.eth.get_transaction_receipt(transaction_hash)  # type: ignore[arg-type]
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)
        return None

    def _why_reverted(self, name: str, transaction: dict[str, Any], mined: Any) -> TransactionRefused:
        """Run the transaction again on the block that refused it, to learn the error's name."""
        keys = ("from", "to", "data", "value", "gas")
        call = {key: transaction[key] for key in keys if key in transaction}
        try:
            with self.connection.translated(name):
                self.connection.web3.eth.call(call, mined["blockNumber"])  # type: ignore[arg-type]
        except TransactionRefused as refused:
            return refused
        return TransactionRefused(name, "unknown", {"transaction": bytes(mined["transactionHash"])})


_KNOWN = ("already known", "nonce too low", "already imported", "known transaction", "underpriced")


def _is_known(error: Web3RPCError) -> bool:
    message = str(error).lower()
    return any(part in message for part in _KNOWN)

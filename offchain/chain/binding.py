"""A typed class over one deployed contract: what all of them share."""

from __future__ import annotations

from typing import Any, Literal

from web3.contract import Contract
from web3.types import BlockIdentifier

from offchain.chain.connection import Connection
from offchain.chain.sender import Receipt, Sender
from offchain.protocol.types import Address

LATEST: Literal["latest"] = "latest"


class Bound:
    """A contract at an address on a chain."""

    name: str

    def __init__(self, connection: Connection, address: str) -> None:
        self.connection = connection
        self.address = Address(address)
        self.contract: Contract = connection.contract(self.name, address)

    def _read(self, function: str, *arguments: Any, block: BlockIdentifier = LATEST) -> Any:
        with self.connection.translated(function):
            return self.contract.functions[function](*arguments).call(block_identifier=block)

    def _write(
        self, sender: Sender, function: str, *arguments: Any, value_wei: int = 0, gas: int | None = None
    ) -> Receipt:
        return sender.send(self.contract.functions[function](*arguments), value_wei, gas)

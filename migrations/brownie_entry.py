"""Runs migrations under Brownie: ``brownie run steps``, ``brownie run m01_registry``; in its console ``run("steps")``.

On a development network ``accounts[0]`` pays, for which the node itself signs. On a live network the key must be
Brownie's: ``brownie accounts new NAME`` stores it, ``BROWNIE_ACCOUNT=NAME`` chooses it; Brownie asks for the password.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from eth_account import Account

from migrations.ledger import Ledger, parameters, record_path
from offchain.chain.connection import Connection
from offchain.chain.errors import TransactionNotMined
from offchain.chain.sender import Sender
from offchain.errors import InvalidInputError

ACCOUNT_VARIABLE = "BROWNIE_ACCOUNT"
CONTAINERS = {
    "registry": "Registry",
    "verifier": "Verifier",
    "staking": "Staking",
    "jobs": "Jobs",
    "verified_inference": "VerifiedInference",
    "validation_registry": "ValidationRegistry",
}


class NodeSender(Sender):
    """A sender for an account whose key only the development node has.

    Args:
        connection: the chain.
        account: a Brownie account; only its address is used.
    """

    def _send_until_mined(self, name: str, transaction: dict[str, Any]) -> Any:
        with self.connection.translated(name):
            sent = "0x" + bytes(self.connection.web3.eth.send_transaction(transaction)).hex()  # type: ignore[arg-type]
        mined = self._wait(name, [sent])
        if mined is None:
            raise TransactionNotMined(name, (sent,))
        return mined


def run(*steps: Callable[[Ledger], None]) -> dict[str, str]:
    """Run migrations on the network that Brownie is connected to, and tell Brownie's containers what lies where.

    Args:
        steps: in their order; what a chain already has is left alone.

    Returns:
        The addresses by name, as the deployment record holds them.

    Raises:
        InvalidInputError: on a live network no account is named.
    """
    connection = Connection(_web3().provider.endpoint_uri)
    ledger = Ledger(_sender(connection), record_path(connection.chain_id), parameters())
    for step in steps:
        step(ledger)
    addresses = {key: address for key in CONTAINERS if (address := ledger.deployed(key)) is not None}
    for key, address in addresses.items():
        print(f"  {CONTAINERS[key]} at {address}")
    register_deployment(addresses)
    return addresses


def register_deployment(addresses: dict[str, str]) -> None:
    """Add deployed contracts to Brownie's containers, so that ``Jobs[-1]`` is the one just deployed."""
    project = _brownie().project.get_loaded_projects()[0]
    for key, address in addresses.items():
        container = getattr(project, CONTAINERS[key])
        if not len(container) or container[-1].address != address:
            container.at(address)


def _sender(connection: Connection) -> Sender:
    brownie = _brownie()
    if brownie._config.CONFIG.network_type == "development":
        payer = brownie.accounts[0]
    else:
        name = os.environ.get(ACCOUNT_VARIABLE)
        if name is None:
            raise InvalidInputError(
                ACCOUNT_VARIABLE,
                "it is not set, and a live network needs an account",
                "store one with `brownie accounts new NAME` and set it to that name",
            )
        payer = brownie.accounts.load(name)
    key = getattr(payer, "private_key", None)
    return NodeSender(connection, payer) if key is None else Sender(connection, Account.from_key(key))


def _brownie() -> Any:
    # Imported here: it reads the user's settings and opens a database as it is imported.
    import brownie

    return brownie


def _web3() -> Any:
    return _brownie().web3

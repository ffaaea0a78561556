"""What the migrations share: a ledger of what was deployed, and the deployment of one contract, once.

A step looks its contract up in the ledger and, if the chain still has code there, leaves it alone: so every step may be
run again, on a chain where all, some or none of them ran.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offchain.chain.connection import Connection, artefact
from offchain.chain.deployment import Deployment
from offchain.chain.sender import Receipt, Sender
from offchain.errors import InvalidInputError
from offchain.toolchain import project_root

MIGRATIONS = project_root() / "migrations"


@dataclass(frozen=True)
class Ledger:
    """The deployment record of one chain, while it is being made.

    Args:
        sender: who deploys.
        path: the record; ``migrations/deployments/<chain id>.json`` unless a network keeps its own.
        parameters: what the contracts are deployed with; see ``migrations/config``.
    """

    sender: Sender
    path: Path
    parameters: dict[str, Any]

    @property
    def connection(self) -> Connection:
        """The chain that is deployed to."""
        return self.sender.connection

    def entries(self) -> dict[str, Any]:
        """What the record holds so far; nothing, if it is of another chain that had the same id."""
        if not self.path.exists():
            return {}
        entries: dict[str, Any] = json.loads(self.path.read_text())
        return entries if entries.get("chain_id") == self.connection.chain_id else {}

    def deployed(self, key: str) -> str | None:
        """The address recorded under ``key``, if the chain has code there."""
        address = self.entries().get(key)
        if address is None:
            return None
        with self.connection.translated("eth_getCode"):
            has_code = bool(self.connection.web3.eth.get_code(address))
        return str(address) if has_code else None

    def record(self, **entries: Any) -> None:
        """Add entries, whole or not at all."""
        everything = {"chain_id": self.connection.chain_id, **self.entries(), **entries}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text(json.dumps(everything, indent=2, sort_keys=True) + "\n")
        temporary.replace(self.path)

    def deploy(self, name: str, *arguments: Any) -> Receipt:
        """Deploy a compiled contract."""
        compiled = artefact(name)
        factory = self.connection.web3.eth.contract(abi=compiled["abi"], bytecode=compiled["bytecode"])
        return self.sender.send(factory.constructor(*arguments))

    def deployment(self) -> Deployment:
        """The finished record.

        Raises:
            InvalidInputError: a step is missing.
        """
        return Deployment.load(self.path)


def parameters(network: str = "local") -> dict[str, Any]:
    """Read the inputs of a network from ``migrations/config``."""
    path = MIGRATIONS / "config" / f"{network}.json"
    if not path.exists():
        raise InvalidInputError("network", f"{path.name} is not in migrations/config", "add it, or name one that is")
    read: dict[str, Any] = json.loads(path.read_text())
    return read


def record_path(chain_id: int) -> Path:
    """Where the deployment record of a chain lies by default."""
    return MIGRATIONS / "deployments" / f"{chain_id}.json"

"""What a worker process is told when it starts."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount

from offchain.errors import InvalidInputError


@dataclass(frozen=True)
class WorkerConfig:
    """Configuration of one worker, from one JSON file. Secrets are named by path, never written into it.

    Args:
        name: for logs.
        rpc_url, ipfs_url: the chain's JSON-RPC and the IPFS node's HTTP API.
        deployment: record of where the contracts lie.
        keystore, password_file: the operator's key (Web3 Secret Storage, version 3) and what opens it.
        identity: age identity file to which activations are sealed; made if it is missing.
        state_directory: what must survive a restart; one process at a time.
        cache_directory: circuits and keys; may be shared by processes.
        stake_wei: bonded when the operator has no bond yet.
        models: ids (hex) to serve; everything that the operator is granted if empty.
        poll_seconds: how often the chain is asked for a new block.
        turn_seconds: how long housekeeping waits for each account whose turn comes first.
        claim_above_wei: credit is claimed once it exceeds this.
        prover_threads: processor threads of one proof; all if None.
    """

    name: str
    rpc_url: str
    ipfs_url: str
    deployment: Path
    keystore: Path
    password_file: Path
    identity: Path
    state_directory: Path
    cache_directory: Path
    stake_wei: int
    models: tuple[str, ...] = ()
    poll_seconds: float = 0.3
    turn_seconds: float = 4.0
    claim_above_wei: int = 10**16
    prover_threads: int | None = None

    @classmethod
    def load(cls, path: Path) -> WorkerConfig:
        """Read a configuration file; relative paths are relative to it.

        Raises:
            InvalidInputError: naming the field that is missing, unknown or of the wrong kind.
        """
        try:
            raw: dict[str, Any] = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise InvalidInputError(str(path), f"it cannot be read ({error})", "name a worker's JSON file") from error
        known = {field.name: field for field in fields(cls)}
        for name in raw:
            if name not in known:
                raise InvalidInputError(name, "it is not a setting of a worker", f"use one of {', '.join(known)}")
        for name, field in known.items():
            if name in raw and "Path" in str(field.type):
                raw[name] = (path.parent / raw[name]).resolve()
        raw["models"] = tuple(raw.get("models", ()))
        try:
            return cls(**raw)
        except TypeError as error:
            raise InvalidInputError(str(path), str(error), "add the setting that is missing") from error

    def save(self, path: Path) -> None:
        """Write the configuration file."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        path.write_text(json.dumps(record, indent=2, default=str) + "\n")


def open_keystore(keystore: Path, password_file: Path) -> LocalAccount:
    """Open a keystore file with the password in another file.

    Raises:
        InvalidInputError: a file is missing, others may read the password, or it does not open the keystore.
    """
    try:
        encrypted = keystore.read_text()
        if password_file.stat().st_mode & 0o077:
            raise InvalidInputError("password_file", "others than its owner may read it", f"chmod 600 {password_file}")
        password = password_file.read_text().strip()
    except OSError as error:
        raise InvalidInputError("keystore", f"it cannot be read ({error})", "name an existing file") from error
    try:
        account: LocalAccount = Account.from_key(Account.decrypt(encrypted, password))
    except (ValueError, TypeError, KeyError):  # not chained: the cause may quote secrets
        raise InvalidInputError("keystore", "the password does not open it", "check both files") from None
    return account


def create_keystore(keystore: Path, password_file: Path) -> LocalAccount:
    """Make a fresh key, encrypted in a keystore file with a random password in another file of its own."""
    import os
    import secrets

    account: LocalAccount = Account.create()
    password = secrets.token_urlsafe(24)
    # The password is random and as strong as the key, so stretching it further would only slow every start down.
    encrypted = Account.encrypt(account.key, password, kdf="scrypt", iterations=2**12)
    for path, content in ((keystore, json.dumps(encrypted)), (password_file, password)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(content)
    return account

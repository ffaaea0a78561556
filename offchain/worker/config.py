"""What a worker process is told when it starts."""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import dataclass, fields
from pathlib import Path

from eth_account import Account
from eth_account.signers.local import LocalAccount

from offchain.configuration import read_configuration
from offchain.errors import InvalidInputError

_MODEL_ID = re.compile("(0x)?[0-9a-fA-F]{64}")


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
        models: ids to serve, in hex with 0x or without, kept without; everything that the operator is granted if empty.
        poll_seconds: how often the chain is asked for a new block.
        turn_seconds: how long housekeeping waits for each account whose turn comes first.
        claim_above_wei: credit is claimed once it exceeds this.
        prover_threads: processor threads of one proof; all if None.
        prover_memory_bytes: what all proofs under way may take together; others wait.
        prover_slots: how many proofs may be made at once.
        early_proofs: how many proofs of what was executed may be under way that nobody has asked for yet; 0 for none.
            One that is due takes their place.
        early_proof_permille: the least chance of being asked for a proof at which it is begun early. Of a committee of
            three equal stakes, one in three is, where all segments are proved.
        measure_machine: whether to measure at the start, beside the jobs and once per machine, what proofs take here;
            what was measured before is used in any case, and rules of thumb where nothing was.
        trusted_srs: SHA-256 digests (hex) of the structured reference strings to stake on; any if empty, which is for
            development: whoever knows the secret behind one can forge proofs and take this stake.
        least_prove_seconds: jobs that may ask for a proof in less are answered with a vote that they cannot be done.
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
    prover_memory_bytes: int = 12 << 30
    prover_slots: int = 1
    least_prove_seconds: int = 0
    early_proofs: int = 1
    early_proof_permille: int = 300
    measure_machine: bool = False
    trusted_srs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for index, model in enumerate(self.models):
            if not _MODEL_ID.fullmatch(model):
                raise InvalidInputError(
                    f"models[{index}]",
                    f"{model!r} is no model id",
                    "give 32 bytes in hex, as `interlock model list` does",
                )
        for index, digest in enumerate(self.trusted_srs):
            if not re.fullmatch("[0-9a-f]{64}", digest):
                raise InvalidInputError(
                    f"trusted_srs[{index}]", f"{digest!r} is no digest", "give 64 digits of lower-case hex"
                )
        object.__setattr__(self, "models", tuple(model.removeprefix("0x").lower() for model in self.models))

    @classmethod
    def load(cls, path: Path) -> WorkerConfig:
        """Read a configuration file; relative paths are relative to it.

        Raises:
            InvalidInputError: naming the field that is missing, unknown or of the wrong kind.
        """
        return read_configuration(cls, path, "a worker")

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
    account: LocalAccount = Account.create()
    password = secrets.token_urlsafe(24)
    # The password is random and as strong as the key, so stretching it further would only slow every start down.
    encrypted = Account.encrypt(account.key, password, kdf="scrypt", iterations=2**12)
    for path, content in ((keystore, json.dumps(encrypted)), (password_file, password)):
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(content)
    return account

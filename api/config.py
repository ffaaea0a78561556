"""What a gateway process is told when it starts."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path

from offchain.configuration import read_configuration
from offchain.errors import InvalidInputError
from offchain.protocol.manifest import SRS_ORIGINS
from offchain.requester.conditions import Declared


@dataclass(frozen=True)
class GatewayConfig:
    """Configuration of a gateway, from one JSON file. Secrets are named by path, never written into it.

    Args:
        rpc_url, ipfs_url: the chain's JSON-RPC and the IPFS node's HTTP API.
        deployment: record of where the contracts lie.
        keystore, password_file: the paying account's key (Web3 Secret Storage, version 3) and what opens it.
        identity: age identity file to which results are sealed; made if it is missing.
        state_directory: what must survive a restart; one process at a time.
        cache_directory: circuits and keys; may be shared by processes.
        port: on loopback; 0 chooses a free one.
        srs: a structured reference string for new models; one is made, and marked insecure, if None.
        srs_origin: where it comes from; see ``SRS_ORIGINS``.
        default_fee_wei, max_fee_wei: of a job that names no fee, and the most that a job may name. A job that says what
            it demands pays at most this, and what its route comes to.
        max_body_bytes: of a job.
        max_model_bytes: of a model and, each, of its samples.
        max_log_rows: the largest circuit that a model may need, and that workers are taken to prove.
        poll_seconds: how often the chain is asked for a new block.
        turn_seconds, proving_seconds, proof_cost_wei, cost_wei, collusion_bps, going_fee_wei: what demands are routed
            by; see :class:`offchain.requester.conditions.Declared`.
    """

    rpc_url: str
    ipfs_url: str
    deployment: Path
    keystore: Path
    password_file: Path
    identity: Path
    state_directory: Path
    cache_directory: Path
    port: int = 0
    srs: Path | None = None
    srs_origin: str = "insecure-dev"
    default_fee_wei: int = 10**16
    max_fee_wei: int = 10**17
    max_body_bytes: int = 4 << 20
    max_model_bytes: int = 64 << 20
    max_log_rows: int = 17
    poll_seconds: float = 0.3
    turn_seconds: int = Declared.turn_seconds
    proving_seconds: tuple[int, ...] = Declared.proving_seconds
    proof_cost_wei: int = Declared.proof_cost_wei
    cost_wei: int = Declared.cost_wei
    collusion_bps: int = Declared.collusion_bps
    going_fee_wei: int = Declared.going_fee_wei

    def __post_init__(self) -> None:
        for name in ("default_fee_wei", "max_fee_wei", "max_body_bytes", "max_model_bytes", "max_log_rows"):
            if getattr(self, name) <= 0:
                raise InvalidInputError(name, f"{getattr(self, name)} is not above 0", "use a positive number")
        if not 0 <= self.port <= 65_535:
            raise InvalidInputError("port", f"{self.port} is no port", "use 0 to 65535")
        if self.default_fee_wei > self.max_fee_wei:
            raise InvalidInputError("default_fee_wei", "it is above max_fee_wei", "lower it, or raise max_fee_wei")
        if self.srs_origin not in SRS_ORIGINS:
            raise InvalidInputError("srs_origin", f"{self.srs_origin!r} is unknown", f"use one of {SRS_ORIGINS}")
        _ = self.declared  # checks its numbers

    @property
    def declared(self) -> Declared:
        """What demands are routed by, beside what the chain says."""
        return Declared(**{field.name: getattr(self, field.name) for field in fields(Declared)})

    @classmethod
    def load(cls, path: Path) -> GatewayConfig:
        """Read a configuration file; relative paths are relative to it.

        Raises:
            InvalidInputError: naming the field that is missing, unknown or of the wrong kind.
        """
        return read_configuration(cls, path, "a gateway")

    def save(self, path: Path) -> None:
        """Write the configuration file."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        path.write_text(json.dumps(record, indent=2, default=str) + "\n")

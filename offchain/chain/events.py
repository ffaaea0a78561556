"""Events of the contracts, followed from a stored block so that a restart misses none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from eth_hash.auto import keccak
from eth_utils.abi import event_abi_to_log_topic
from web3._utils.events import get_event_data

from offchain.chain.connection import CONTRACTS, Connection, artefact
from offchain.chain.contracts import Contracts

MAX_BLOCKS_PER_QUERY = 2_000
_POLICY = "(uint8,uint16,uint16,uint32,uint32,uint32,uint32,uint32)"
JOB_REQUESTED = (
    "0x" + keccak(f"JobRequested(bytes32,address,bytes32,bytes32,bytes32,bytes32,uint256,{_POLICY})".encode()).hex()
)
"""Topic of ``IJobs.JobRequested``."""


@dataclass(frozen=True)
class Event:
    """One decoded event. It is identified by its content and place, never by its index in a list."""

    name: str
    arguments: dict[str, Any]
    address: str
    block_number: int
    block_hash: bytes
    transaction_hash: str
    log_index: int


@lru_cache(maxsize=1)
def _event_abis() -> dict[bytes, dict[str, Any]]:
    abis = {}
    for name in CONTRACTS:
        for entry in artefact(name)["abi"]:
            if entry["type"] == "event":
                abis[bytes(event_abi_to_log_topic(entry))] = entry
    return abis


def read_events(
    contracts: Contracts,
    first_block: int,
    last_block: int,
    *,
    topics: Sequence[Any] | None = None,
) -> Iterator[Event]:
    """Read the events of all our contracts in a range of blocks, both ends included, in order.

    Args:
        topics: as in ``eth_getLogs``: an entry per topic, None for any.

    Raises:
        ChainUnreachable: the endpoint is down.
    """
    connection: Connection = contracts.connection
    addresses = [
        contract.address for contract in (contracts.registry, contracts.staking, contracts.verifier, contracts.jobs)
    ]
    for start in range(first_block, last_block + 1, MAX_BLOCKS_PER_QUERY):
        query: dict[str, Any] = {
            "address": addresses,
            "fromBlock": start,
            "toBlock": min(start + MAX_BLOCKS_PER_QUERY - 1, last_block),
        }
        if topics is not None:
            query["topics"] = list(topics)
        with connection.translated("eth_getLogs"):
            logs = connection.web3.eth.get_logs(query)  # type: ignore[arg-type]
        for log in logs:
            event = _decode(connection, log)
            if event is not None:
                yield event


def job_events(contracts: Contracts, job: bytes, first_block: int, last_block: int) -> tuple[Event, ...]:
    """Every event of one job, in order."""
    return tuple(read_events(contracts, first_block, last_block, topics=[None, "0x" + bytes(job).hex()]))


class EventFollower:
    """Reads events in order, a few blocks behind the head, and again over the last blocks in case they were replaced.

    The caller moves the cursor after it has acted on what it was given: a failure in between gives the same events
    again, so handling one twice must be harmless.

    Args:
        contracts: whose events.
        cursor: the first block that was never read.
        overlap_blocks: how many blocks before the cursor are read again: the depth of reorganisation to survive.
    """

    def __init__(self, contracts: Contracts, cursor: int, overlap_blocks: int = 10) -> None:
        self._contracts = contracts
        self._overlap_blocks = overlap_blocks
        self.cursor = cursor

    def poll(self) -> tuple[tuple[Event, ...], int]:
        """Read what is new, and what may have changed, and say what to :meth:`advance` to once it is handled."""
        head = self._contracts.connection.block_number()
        first = max(self._contracts.deployment.block, self.cursor - self._overlap_blocks)
        return tuple(read_events(self._contracts, first, head)), head + 1

    def advance(self, cursor: int) -> None:
        """Count everything before ``cursor`` as handled."""
        self.cursor = cursor


def _decode(connection: Connection, log: Any) -> Event | None:
    abi = _event_abis().get(bytes(log["topics"][0])) if log["topics"] else None
    if abi is None:
        return None
    decoded = get_event_data(connection.web3.codec, abi, log)
    return Event(
        name=decoded["event"],
        arguments=dict(decoded["args"]),
        address=decoded["address"],
        block_number=decoded["blockNumber"],
        block_hash=bytes(decoded["blockHash"]),
        transaction_hash="0x" + bytes(decoded["transactionHash"]).hex(),
        log_index=decoded["logIndex"],
    )

"""What the chain says of a job, read at one block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from eth_hash.auto import keccak

from offchain.audit.report import CheckFailed
from offchain.chain.contracts import Contracts
from offchain.chain.events import Event, job_events, read_events
from offchain.protocol.types import Address, Job, JobId, Phase, Round

_WEIGHT_CHANGED = "0x" + keccak(b"WeightChanged(bytes32,address,uint256,uint256)").hex()


@dataclass(frozen=True)
class ChainRecord:
    """A job as one block shows it, with everything that led there.

    Args:
        rounds: of all segments.
        events: of the job, in order, up to the block.
    """

    contracts: Contracts
    block_number: int
    block_hash: bytes
    job: Job
    phase: Phase
    rounds: tuple[Round, ...]
    events: tuple[Event, ...]

    @property
    def chain_id(self) -> int:
        """The chain that was read."""
        return self.contracts.connection.chain_id

    @property
    def jobs(self) -> Address:
        """The job contract."""
        return self.contracts.jobs.address

    def all(self, name: str, segment: int | None = None) -> tuple[Event, ...]:
        """The job's events of this name and, if given, segment."""
        return tuple(
            event
            for event in self.events
            if event.name == name and (segment is None or event.arguments["segment"] == segment)
        )

    def one(self, name: str, segment: int | None = None) -> Event:
        """The one event of this name.

        Raises:
            CheckFailed: there is none, or more than one.
        """
        found = self.all(name, segment)
        if len(found) != 1:
            raise CheckFailed(f"events {name}", "exactly one", len(found))
        return found[0]

    def opening_link(self, segment: int) -> bytes:
        """What a segment's proof has to open with: the link its predecessor settled on, or the input's."""
        return self.job.input_link if segment == 0 else self.rounds[segment - 1].settled_link


def read_record(contracts: Contracts, job_id: JobId) -> ChainRecord:
    """Read a job, its rounds and its events at the newest block.

    Raises:
        TransactionRefused: ``UnknownJob``.
        ChainUnreachable: the endpoint does not answer.
    """
    connection = contracts.connection
    number = connection.block_number()
    job = contracts.jobs.job_of(job_id, number)
    first = max(contracts.deployment.block, job.frozen_block)
    return ChainRecord(
        contracts=contracts,
        block_number=number,
        block_hash=connection.block_hash(number),
        job=job,
        phase=contracts.jobs.phase_of(job_id, number),
        rounds=tuple(contracts.jobs.round_of(job_id, segment, number) for segment in range(job.segments)),
        events=job_events(contracts, job_id, first, number),
    )


def frozen_weights(record: ChainRecord) -> tuple[tuple[Address, int], ...]:
    """Rebuild the weights (wei) of a model's operators at the end of the job's frozen block, by leaf, from events."""
    leaves: dict[int, tuple[Address, int]] = {}
    topics = [_WEIGHT_CHANGED, "0x" + record.job.model_id.hex()]
    contracts = record.contracts
    for event in read_events(contracts, contracts.deployment.block, record.job.frozen_block, topics=topics):
        if event.address == contracts.staking.address:
            leaves[event.arguments["leaf"]] = (Address(event.arguments["operator"]), event.arguments["weight"])
    return tuple(leaves[leaf] for leaf in sorted(leaves))


def calldata_of(record: ChainRecord, event: Event, function: str) -> dict[str, Any] | None:
    """The arguments with which a function was called that emitted an event; None if another contract made the call."""
    connection, jobs = record.contracts.connection, record.contracts.jobs
    with connection.translated("eth_getTransactionByHash"):
        transaction = connection.web3.eth.get_transaction(event.transaction_hash)  # type: ignore[arg-type]
    if transaction.get("to") != jobs.address:
        return None
    called, arguments = jobs.contract.decode_function_input(transaction["input"])
    return dict(arguments) if called.fn_name == function else None


def read_number(record: ChainRecord, function: str) -> int:
    """Read one of the job contract's fixed numbers."""
    with record.contracts.connection.translated(function):
        return int(record.contracts.jobs.contract.functions[function]().call())


def ordered_before(event: Event) -> Callable[[Event], bool]:
    """Tell whether another event came before this one."""
    place = (event.block_number, event.log_index)
    return lambda other: (other.block_number, other.log_index) < place

"""What the chain says of a job, read at one block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from eth_hash.auto import keccak

from offchain.audit.report import CheckFailed
from offchain.chain.contracts import Contracts
from offchain.chain.events import Event, job_events, read_events
from offchain.protocol.types import Address, Job, JobId, Phase, Round

_WEIGHT_CHANGED = "0x" + keccak(b"WeightChanged(bytes32,address,uint256,uint256)").hex()
_REPUTATION_CHANGED = "0x" + keccak(b"ReputationChanged(bytes32,address,uint256)").hex()
MAX_ATTEMPTS = 64
"""More attempts at a segment than any history leads to: two for every redraw and every segment overturned before it."""


@dataclass(frozen=True)
class ChainRecord:
    """A job as one block shows it, with everything that led there.

    Args:
        attempts: per segment, every attempt at it, the one that counts last.
        events: of the job, in order, up to the block.
    """

    contracts: Contracts
    block_number: int
    block_hash: bytes
    job: Job
    phase: Phase
    attempts: tuple[tuple[Round, ...], ...]
    events: tuple[Event, ...]
    _times: dict[int, int] = field(default_factory=dict, compare=False)
    _logs: dict[int, tuple[Event, ...]] = field(default_factory=dict, compare=False)

    @property
    def rounds(self) -> tuple[Round, ...]:
        """Of each segment, the attempt that counts."""
        return tuple(attempts[-1] for attempts in self.attempts)

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

    def time_of(self, block_number: int) -> int:
        """When a block was made, in seconds since the epoch."""
        if block_number not in self._times:
            connection = self.contracts.connection
            with connection.translated("eth_getBlockByNumber"):
                self._times[block_number] = int(connection.web3.eth.get_block(block_number)["timestamp"])
        return self._times[block_number]

    def transaction_of(self, event: Event) -> tuple[Event, ...]:
        """Everything that our contracts said in the transaction that an event comes from, in order."""
        number = event.block_number
        if number not in self._logs:
            self._logs[number] = tuple(read_events(self.contracts, number, number))
        return tuple(log for log in self._logs[number] if log.transaction_hash == event.transaction_hash)


def read_record(contracts: Contracts, job_id: JobId) -> ChainRecord:
    """Read a job, all its rounds and its events at the newest block.

    Raises:
        TransactionRefused: ``UnknownJob``.
        ChainUnreachable: the endpoint does not answer.
        CheckFailed: it claims more attempts at a segment than there can be.
    """
    connection, jobs = contracts.connection, contracts.jobs
    number = connection.block_number()
    job = jobs.job_of(job_id, number)
    if max(job.attempts, default=0) >= MAX_ATTEMPTS:
        raise CheckFailed("attempts at a segment", f"fewer than {MAX_ATTEMPTS}", max(job.attempts))
    return ChainRecord(
        contracts=contracts,
        block_number=number,
        block_hash=connection.block_hash(number),
        job=job,
        phase=jobs.phase_of(job_id, number),
        attempts=tuple(
            tuple(jobs.round_at(job_id, segment, attempt, number) for attempt in range(job.attempts[segment] + 1))
            for segment in range(job.segments)
        ),
        # A job may have waited before it started: nothing on chain says in which block it was requested.
        events=job_events(contracts, job_id, contracts.deployment.block, number),
    )


@dataclass(frozen=True)
class Standings:
    """How the weights and the reputations of a model's operators came about, in order."""

    events: tuple[Event, ...]

    def weights_at(self, block_number: int) -> tuple[tuple[Address, int], ...]:
        """The weights (wei) of all operators at the end of a block, by leaf."""
        leaves: dict[int, tuple[Address, int]] = {}
        for event in self.events:
            if event.name == "WeightChanged" and event.block_number <= block_number:
                leaves[event.arguments["leaf"]] = (Address(event.arguments["operator"]), event.arguments["weight"])
        return tuple(leaves[leaf] for leaf in sorted(leaves))

    def reputation_before(self, operator: str, event: Event) -> int:
        """An operator's reputation as it stood just before an event."""
        is_earlier = ordered_before(event)
        values = [
            each.arguments["reputation"]
            for each in self.events
            if each.name == "ReputationChanged" and each.arguments["operator"] == operator and is_earlier(each)
        ]
        return int(values[-1]) if values else 0


def read_standings(record: ChainRecord) -> Standings:
    """Read every change of a weight or a reputation in the job's model, up to the record's block."""
    contracts = record.contracts
    topics = [[_WEIGHT_CHANGED, _REPUTATION_CHANGED], "0x" + record.job.model_id.hex()]
    events = read_events(contracts, contracts.deployment.block, record.block_number, topics=topics)
    return Standings(tuple(event for event in events if event.address == contracts.staking.address))


def calldata_of(record: ChainRecord, event: Event, function: str, contract: str = "jobs") -> dict[str, Any] | None:
    """The arguments with which a function was called that emitted an event; None if another contract made the call."""
    connection, called_contract = record.contracts.connection, getattr(record.contracts, contract)
    with connection.translated("eth_getTransactionByHash"):
        transaction = connection.web3.eth.get_transaction(event.transaction_hash)  # type: ignore[arg-type]
    if transaction.get("to") != called_contract.address:
        return None
    called, arguments = called_contract.contract.decode_function_input(transaction["input"])
    return dict(arguments) if called.fn_name == function else None


def read_number(record: ChainRecord, function: str, contract: str = "jobs") -> int:
    """Read one of a contract's fixed numbers."""
    with record.contracts.connection.translated(function):
        return int(getattr(record.contracts, contract).contract.functions[function]().call())


def ordered_before(event: Event) -> Callable[[Event], bool]:
    """Tell whether another event came before this one."""
    place = (event.block_number, event.log_index)
    return lambda other: (other.block_number, other.log_index) < place

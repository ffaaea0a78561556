"""The contracts on a chain beside ``offchain.protocol.machine``: one move on both, and then everything is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any

from eth_abi.abi import decode
from eth_hash.auto import keccak
from eth_utils.address import to_checksum_address
from web3._utils.abi import map_abi_data
from web3._utils.method_formatters import log_entry_formatter
from web3._utils.normalizers import BASE_RETURN_NORMALIZERS

from offchain.chain.connection import Connection, artefact
from offchain.chain.contracts import Contracts
from offchain.chain.errors import TransactionRefused
from offchain.chain.events import _decode as decode_log
from offchain.chain.jobs import Jobs
from offchain.chain.sender import Receipt
from offchain.protocol.machine import Block, Domain, Machine, Model, Parameters, Refused
from offchain.protocol.machine.events import Event
from offchain.protocol.types import ZERO_ADDRESS, Address, JobId, ModelId, Phase
from tests.local_chain import GAS_CAP, InstantSender, LocalChain


class Comparison:
    """Both sides, and what both know of.

    Attributes:
        accounts: everybody whose credits and bonds are compared.
        in_same_block: whether the next moves come in the newest block, and not in one of their own. It is for what is
            to be refused there, since that can be simulated.
        refusals, events, phases: what was met.
    """

    def __init__(self, chain: LocalChain, contracts: Contracts, parameters: Parameters) -> None:
        self.chain = chain
        self.contracts = contracts
        connection = contracts.connection
        domain = Domain(connection.chain_id, contracts.jobs.address, contracts.staking.address)
        self.machine = Machine(domain, parameters)
        self.accounts: list[Mover] = []
        self.models: list[ModelId] = []
        self.jobs: list[JobId] = []
        self.in_same_block = False
        self.refusals: set[str] = set()
        self.events: set[str] = set()
        self.phases: set[Phase] = set()
        self._head: Block | None = None
        self.burnt_before = connection.balance(ZERO_ADDRESS)

    def copy(self) -> Comparison:
        """The same, for another course of moves from here on; what was seen is shared."""
        other: Comparison = object.__new__(Comparison)
        vars(other).update(vars(self))
        other.machine = Machine(self.machine.domain, self.machine.parameters)
        other.machine.state = self.machine.state.copy()
        other.jobs = list(self.jobs)
        return other

    def register(self, model_id: ModelId, model: Model) -> None:
        """Tell the machine of a model that the registry has."""
        self.machine.register(model_id, model)
        self.models.append(model_id)

    @property
    def head(self) -> Block:
        """The newest block."""
        if self._head is None:
            self._head = Block(*self.chain.head())
        return self._head

    def look_again(self) -> None:
        """Find the newest block again, after blocks that no move made."""
        self._head = None

    def blockhash(self, number: int) -> bytes:
        """The hash of a block of the chain."""
        return bytes.fromhex(self.chain.rpc("eth_getBlockByNumber", hex(number), False)["hash"][2:])

    # --- moves --------------------------------------------------------------------------------------------------------

    def move(self, sender: Mover, name: str, *arguments: Any, machine: tuple[Any, ...] | None = None) -> bool:
        """Make a move on both sides; both take it, with the same events, or refuse it, with the same error.

        Args:
            name: of the method, here and there.
            machine: the machine's arguments, where they are others than the contract's.

        Returns:
            Whether it was taken.
        """
        state, block = self.machine.state.copy(), self.head
        if not self.in_same_block:
            block = Block(block.number + 1, block.timestamp + 1)
        rule = getattr(self.machine, name)
        expected: tuple[Event, ...] | Refused
        try:
            expected = rule(Address(sender.address), block, *(arguments if machine is None else machine))
        except Refused as error:
            expected = error
        sender.block, sender.expects_refusal = block, isinstance(expected, Refused)
        contract = self.contracts.jobs if hasattr(Jobs, name) else self.contracts.staking
        seen = self._send(sender, lambda: getattr(contract, name)(sender, *arguments))
        wanted = _as_refusal(expected) if isinstance(expected, Refused) else [_as_event(event) for event in expected]
        assert seen == wanted, f"{name}{arguments}: the chain {seen}, the machine {wanted}"
        if isinstance(expected, Refused):
            assert self.machine.state == state, f"{name} was refused, and changed something"
            self.refusals.add(expected.error)
            return False
        self._head = block
        self.events.update(type(event).__name__ for event in expected)
        self.compare()
        return True

    def together(self, *moves: tuple[Mover, str, tuple[Any, ...]]) -> None:
        """Make moves of several accounts, all of which are taken, in one block and in this order."""
        block = Block(self.head.number + 1, self.head.timestamp + 1)
        wanted = []
        self.chain.rpc("evm_setAutomine", False)
        try:
            for sender, name, arguments in moves:
                events = getattr(self.machine, name)(Address(sender.address), block, *arguments)
                wanted.append([_as_event(event) for event in events])
                sender.waits = False
                contract = self.contracts.jobs if hasattr(Jobs, name) else self.contracts.staking
                getattr(contract, name)(sender, *arguments)
                sender.waits = True
            self.chain.mine()
        finally:
            self.chain.rpc("evm_setAutomine", True)
        mined = [self.chain.rpc("eth_getTransactionReceipt", sender.sent) for sender, _, _ in moves]
        assert [[_seen_event(self.contracts.connection, log) for log in receipt["logs"]] for receipt in mined] == wanted
        self._head = block
        self.compare()

    def move_to(self, timestamp: int) -> None:
        """Mine a block at this time; nothing changes but the phases."""
        self.chain.move_to(timestamp)
        self.look_again()
        self.compare()

    def mine(self, blocks: int) -> None:
        """Mine so many blocks, a second each."""
        self.chain.mine(blocks)
        self.look_again()
        self.compare()

    def move_end(self, job_id: JobId, ends_at: int) -> None:
        """Change when a job ends: in the second slot of its record, behind two other numbers of 48 bits."""
        job, address = self.machine.job_of(job_id), self.contracts.jobs.address
        places = (number.to_bytes(32, "big") for number in range(16))  # the mapping of jobs lies at one of them
        firsts = (int.from_bytes(keccak(job_id + place), "big") for place in places)
        first = next(slot for slot in firsts if self._word(slot) & (1 << 160) - 1 == int(job.requester, 16))
        word = self._word(first + 1) & ~(0xFFFFFFFFFFFF << 96) | ends_at << 96
        self.chain.rpc("anvil_setStorageAt", address, hex(first + 1), f"0x{word:064x}")
        self.machine.state.jobs[job_id] = replace(job, ends_at=ends_at)
        self.mine(1)

    def _word(self, slot: int) -> int:
        return int(self.chain.rpc("eth_getStorageAt", self.contracts.jobs.address, hex(slot), "latest"), 16)

    def _send(self, sender: Mover, call: Callable[[], object]) -> Any:
        try:
            call()
        except TransactionRefused as error:
            return error.error, [_plain(value) for value in error.arguments.values()]
        return [_seen_event(self.contracts.connection, log) for log in sender.logs]

    # --- what is compared ---------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Everything that the contracts tell of their state is what the machine says, and they hold what they owe."""
        views, balances = self._views(), self._balances()
        requests = [
            ("eth_call", [{"to": contract.address, "data": _encoded(contract, function, arguments)}, "latest"])
            for contract, function, arguments, _, _ in views
        ]
        requests += [("eth_getBalance", [address, "latest"]) for address in balances]
        block, *answers = self._ask([("eth_getBlockByNumber", ["latest", False]), *requests])
        assert Block(int(block["number"], 16), int(block["timestamp"], 16)) == self.head
        for view, answer in zip(views, answers[: len(views)], strict=True):
            contract, function, arguments, expected, convert = view
            seen = convert(_decoded(contract.name, function, answer))
            assert seen == expected, f"{contract.name}.{function}{arguments}: the chain {seen}, the machine {expected}"
        held = dict(zip(balances, (int(answer, 16) for answer in answers[len(views) :]), strict=True))
        assert held == balances

    def _ask(self, requests: list[Any]) -> list[Any]:
        """Make many requests in one."""
        answers: Any = self.contracts.connection.web3.provider.make_batch_request(requests)  # type: ignore[attr-defined]
        return [answer["result"] for answer in sorted(answers, key=lambda answer: answer["id"])]

    def _views(self) -> list[tuple[Any, str, tuple[Any, ...], Any, Callable[[Any], Any]]]:
        machine, head = self.machine, self.head
        jobs, staking = self.contracts.jobs, self.contracts.staking
        views: list[Any] = []
        for job_id in self.jobs:
            phase = machine.phase_of(job_id, head.timestamp)
            self.phases.add(phase)
            job = machine.job_of(job_id)
            views.append((jobs, "phaseOf", (job_id,), phase, _same))
            views.append((jobs, "jobOf", (job_id,), job, _convert(Jobs.job_of, job_id)))
            for segment in range(job.segments):
                views.append((jobs, "labelOf", (job_id, segment), machine.label_of(job_id, segment), _same))
                for attempt in range(job.attempts[segment] + 1):
                    where = (job_id, segment, attempt)
                    views.append((jobs, "roundAt", where, machine.round_at(*where), _convert(Jobs.round_at, *where)))
        for account in self.accounts:
            operator = Address(account.address)
            bond = machine.bond_of(operator)
            views.append((jobs, "creditOf", (operator,), machine.credit_of(operator), _same))
            views.append((staking, "creditOf", (operator,), machine.compensation_of(operator), _same))
            views.append((staking, "activeOf", (operator,), bond.active, _same))
            views.append((staking, "unbondingOf", (operator,), (bond.unbonding, bond.release_at), tuple))
            for model_id in self.models:
                membership, both = machine.membership_of(operator, model_id), (operator, model_id)
                views.append((staking, "isServing", both, membership.serving, _same))
                views.append((staking, "isAdmitted", both, membership.admitted, _same))
                views.append((staking, "reputationOf", both, machine.reputation_of(*both), _same))
        for model_id in self.models:
            views.append((jobs, "loadOf", (model_id,), machine.load_of(model_id), tuple))
            total = sum(weight for _, weight in machine.weights_at(model_id, head.number))
            views.append((staking, "totalWeightAt", (model_id, head.number), total, _same))
            for trial in range(len(machine.state.models[model_id].trials)):
                answered_at = machine.state.answered_at.get((model_id, trial), 0)
                views.append((staking, "trialAnsweredAt", (model_id, trial), answered_at, _same))
        return views

    def _balances(self) -> dict[str, int]:
        """What the contracts hold, to the last wei, and what is burnt: it arrives where nobody has a key."""
        state = self.machine.state
        fees = sum(job.fee_wei for job in state.jobs.values() if not job.phase.is_terminal)
        return {
            self.contracts.jobs.address: fees + sum(state.credits.values()),
            self.contracts.staking.address: (
                sum(bond.active + bond.unbonding for bond in state.bonds.values())
                + sum(hold.amount for hold in state.holds)
                + sum(state.compensations.values())
            ),
            ZERO_ADDRESS: self.burnt_before + state.burnt_wei,
        }


class Mover(InstantSender):
    """Sends what is expected to be taken at once, and only simulates what is not: one request a move.

    Its transactions go into ``block``; ``logs`` are those of the last one, as the node hands them out. Where it does
    not wait, ``sent`` is the hash of what it sent.
    """

    block = Block(0, 0)
    expects_refusal = False
    waits = True
    sent = ""
    logs: tuple[Any, ...] = ()

    def send_raw(self, name: str, transaction: dict[str, Any]) -> Receipt:
        """Send, or simulate."""
        transaction = {"gas": hex(GAS_CAP), **transaction}
        if not self.waits:  # two of these have to fit into a block
            self.sent = self._chain.rpc("eth_sendTransaction", transaction | {"gas": hex(GAS_CAP // 2)})
            return Receipt(self.sent, self.block.number, 0, name)
        mined: Any = {}
        if not self.expects_refusal:
            mined = self._chain.rpc("eth_sendTransactionSync", transaction)
        if int(mined.get("status", "0x0"), 16) == 0:
            overrides = {"time": hex(self.block.timestamp), "number": hex(self.block.number)}
            with self.connection.translated(name):
                self.connection.web3.manager.request_blocking("eth_call", [transaction, "latest", {}, overrides])
            raise AssertionError(f"{name} was to be refused, or reverted on chain alone")
        self.logs = tuple(mined["logs"])
        return Receipt(mined["transactionHash"], int(mined["blockNumber"], 16), int(mined["gasUsed"], 16), name)


class _Answered(Jobs):
    """Reads nothing but the one answer that it was made with: for the conversions of the typed class."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def _read(self, function: str, *arguments: Any, block: Any = None) -> Any:
        return self.answer


def _convert(read: Callable[..., Any], *arguments: Any) -> Callable[[Any], Any]:
    return lambda answer: read(_Answered(answer), *arguments)


def _same(answer: Any) -> Any:
    return answer


@lru_cache(maxsize=100_000)
def _encoded(contract: Any, function: str, arguments: tuple[Any, ...]) -> str:
    return contract.contract.functions[function](*arguments)._encode_transaction_data()


@lru_cache(maxsize=1000)
def _output_types(contract: str, function: str) -> list[str]:
    entries = [entry for entry in artefact(contract)["abi"] if entry.get("name") == function]
    return [_collapsed(output) for output in entries[0]["outputs"]]


def _collapsed(output: dict[str, Any]) -> str:
    if not output["type"].startswith("tuple"):
        return str(output["type"])
    inside = ",".join(_collapsed(component) for component in output["components"])
    return f"({inside}){output['type'].removeprefix('tuple')}"


@lru_cache(maxsize=100_000)
def _decoded(contract: str, function: str, answer: str) -> Any:
    types = _output_types(contract, function)
    values = map_abi_data(BASE_RETURN_NORMALIZERS, types, decode(types, bytes.fromhex(answer[2:])))
    return values[0] if len(values) == 1 else values


def _seen_event(connection: Connection, log: Any) -> tuple[str, dict[str, Any]]:
    event = decode_log(connection, log_entry_formatter(log))
    assert event is not None
    return event.name, {name: _plain(value) for name, value in event.arguments.items()}


def _as_refusal(refused: Refused) -> tuple[str, list[Any]]:
    return refused.error, [_plain(value) for value in refused.arguments]


def _as_event(event: Event) -> tuple[str, dict[str, Any]]:
    assert is_dataclass(event)
    return type(event).__name__, {_camel(each.name): _plain(getattr(event, each.name)) for each in fields(event)}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _plain(value: Any) -> Any:
    """One form for the values of both sides."""
    if is_dataclass(value) and not isinstance(value, type):
        return astuple(value)
    if isinstance(value, Mapping):  # a struct
        return tuple(_plain(each) for each in value.values())
    if isinstance(value, (list, tuple)):
        return tuple(_plain(each) for each in value)
    if isinstance(value, str) and value.startswith("0x") and len(value) == len(ZERO_ADDRESS):
        return to_checksum_address(value)
    return bytes(value) if isinstance(value, (bytes, bytearray)) else value

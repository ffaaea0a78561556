"""``interlock operator``: an operator's stake, credits and reputation, by its worker's configuration file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import typer
from eth_hash.auto import keccak
from rich.markup import escape
from rich.table import Table

from offchain.chain.connection import Connection
from offchain.chain.contracts import Contracts
from offchain.chain.deployment import Deployment
from offchain.chain.errors import InsufficientFunds, TransactionRefused
from offchain.chain.events import read_events
from offchain.chain.sender import Receipt, Sender
from offchain.chain.staking import SLASH_HELD, hold_of
from offchain.cli.context import console, readable_errors
from offchain.errors import InvalidInputError
from offchain.protocol.types import Hold, ModelId
from offchain.worker.config import WorkerConfig, open_keystore
from offchain.worker.progress import read_progress

operator_commands = typer.Typer(
    no_args_is_help=True, help="An operator's stake, credits and reputation. CONFIG is its worker's JSON file."
)

Config = Annotated[Path, typer.Argument(metavar="CONFIG", help="The worker's configuration file.")]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="In ether, for example 1.5; or in wei: 10wei.")]

ETHER = 10**18
SERVING_STARTED = "0x" + keccak(b"ServingStarted(bytes32,address,uint256)").hex()
"""Topic of ``IStaking.ServingStarted``."""
_AMOUNT = re.compile(r"(?:(?P<ether>\d{1,20}(?:\.\d{1,18})?)(?:eth)?|(?P<wei>\d{1,38})wei)", re.ASCII)


@dataclass(frozen=True)
class Operator:
    """An operator's account, and the contracts that it staked in."""

    contracts: Contracts
    sender: Sender

    @property
    def address(self) -> str:
        """The account."""
        return self.sender.address

    @classmethod
    def load(cls, path: Path) -> Operator:
        """Open the account that a worker's configuration names.

        Raises:
            InvalidInputError: the file, or something that it names, is missing or wrong.
        """
        config = WorkerConfig.load(path)
        account = open_keystore(config.keystore, config.password_file)
        connection = Connection(config.rpc_url)
        return cls(Contracts.connect(connection, Deployment.load(config.deployment)), Sender(connection, account))

    def models(self) -> tuple[ModelId, ...]:
        """Every model that the operator serves or has served, the first one first."""
        topics = [SERVING_STARTED, None, "0x" + bytes.fromhex(self.address[2:]).rjust(32, b"\0").hex()]
        first, head = self.contracts.deployment.block, self.contracts.connection.block_number()
        events = read_events(self.contracts, first, head, topics=topics)
        return tuple(dict.fromkeys(ModelId(bytes(event.arguments["modelId"])) for event in events))

    def holds(self) -> tuple[Hold, ...]:
        """Stake that challenges took and that is neither given back nor released, of this operator or for it."""
        first, head = self.contracts.deployment.block, self.contracts.connection.block_number()
        holds = (hold_of(event.arguments) for event in read_events(self.contracts, first, head, topics=[SLASH_HELD]))
        mine = (hold for hold in holds if self.address in (hold.operator, hold.challenger))
        return tuple(hold for hold in mine if self.contracts.staking.is_held(hold))


@operator_commands.command("show")
def show(config: Config) -> None:
    """Show stake, credit, what each model's draws and reputation are, and how far the worker's proofs are."""
    with readable_errors():
        operator = Operator.load(config)
        console.print(f"operator {operator.address}")
        balance_wei = operator.contracts.connection.balance(operator.address)
        console.print(f"balance {format_wei(balance_wei)}, to claim {format_wei(_credit(operator))}")
        _show_stake(operator)
        for hold in operator.holds():
            _show_hold(operator, hold)
        table = Table("model", "in draws", "reputation")
        for model in operator.models():
            table.add_row("0x" + model.hex(), _standing(operator, model), str(_reputation(operator, model)))
        console.print(table if table.row_count else "no model served yet")
        _show_proofs(WorkerConfig.load(config).state_directory)


@operator_commands.command("bond")
def bond(config: Config, amount: Amount) -> None:
    """Put more at stake."""
    with readable_errors():
        amount_wei, operator = read_amount(amount), Operator.load(config)
        with _refusals("AMOUNT"):
            receipt = operator.contracts.staking.bond(operator.sender, amount_wei)
        console.print(f"bonded {format_wei(amount_wei)} in {receipt.transaction_hash}", soft_wrap=True)
        _show_stake(operator)


@operator_commands.command("unbond")
def unbond(config: Config, amount: Amount) -> None:
    """Take part of the stake out of the draws, to be withdrawn once nothing that it stood behind can be challenged."""
    with readable_errors():
        amount_wei, operator = read_amount(amount), Operator.load(config)
        _start_unbonding(operator, amount_wei)
        _show_stake(operator)


@operator_commands.command("withdraw")
def withdraw(config: Config) -> None:
    """Pay out what has finished unbonding."""
    with readable_errors():
        operator = Operator.load(config)
        amount_wei, _ = operator.contracts.staking.unbonding_of(operator.address)
        with _refusals():
            receipt = operator.contracts.staking.withdraw(operator.sender)
        console.print(f"withdrew {format_wei(amount_wei)} in {receipt.transaction_hash}", soft_wrap=True)
        _show_stake(operator)


@operator_commands.command("claim")
def claim(config: Config) -> None:
    """Pay out what jobs have credited, and what challenges brought."""
    with readable_errors():
        operator = Operator.load(config)
        jobs, staking = operator.contracts.jobs, operator.contracts.staking
        compensation_wei = staking.compensation_of(operator.address)
        credit_wei = jobs.credit_of(operator.address)
        with _refusals():
            if compensation_wei:
                _say_claimed(compensation_wei, staking.claim_compensation(operator.sender))
            if credit_wei or not compensation_wei:
                _say_claimed(credit_wei, jobs.claim(operator.sender))


@operator_commands.command("release")
def release(config: Config) -> None:
    """Have stake that challenges took, and that nobody appealed for in time, shared and burnt: what is due of it."""
    with readable_errors():
        operator = Operator.load(config)
        held = operator.holds()
        due = [hold for hold in held if hold.release_at <= operator.contracts.connection.timestamp()]
        for hold in due:
            with _refusals():
                receipt = operator.contracts.staking.release(operator.sender, hold)
            console.print(f"released {format_wei(hold.amount)} in {receipt.transaction_hash}", soft_wrap=True)
        if not due:
            console.print(f"nothing is due; {len(held)} held")


@operator_commands.command("leave")
def leave(config: Config) -> None:
    """Leave every model's draws and unbond everything. Let the worker finish its jobs, or it loses stake."""
    with readable_errors():
        operator = Operator.load(config)
        staking = operator.contracts.staking
        for model in operator.models():
            if staking.is_serving(operator.address, model):
                with _refusals():
                    staking.stop_serving(operator.sender, model)
                console.print(f"left the draws of 0x{model.hex()}", soft_wrap=True)
        active_wei = staking.active_of(operator.address)
        if active_wei:
            _start_unbonding(operator, active_wei)
        _show_stake(operator)


def read_amount(text: str) -> int:
    """Read an amount of ether, or of wei where it says so; in wei.

    Raises:
        InvalidInputError: it is neither, or zero.
    """
    found = _AMOUNT.fullmatch(text.strip().lower())
    amount_wei = 0
    if found:
        amount_wei = int(found["wei"]) if found["wei"] else int(Decimal(found["ether"]).scaleb(18))
    if not amount_wei:
        raise InvalidInputError(
            "AMOUNT", f"{text!r} is no amount", "give ether with at most 18 decimals, for example 1.5, or wei as 10wei"
        )
    return amount_wei


def format_wei(amount_wei: int) -> str:
    """Write an amount in ether, exactly."""
    whole, rest = divmod(amount_wei, ETHER)
    decimals = f".{rest:018}".rstrip("0") if rest else ""
    return f"{whole}{decimals} ETH"


def format_time(seconds: int) -> str:
    """Write a point in time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _start_unbonding(operator: Operator, amount_wei: int) -> None:
    before_wei, _ = operator.contracts.staking.unbonding_of(operator.address)
    with _refusals():
        receipt = operator.contracts.staking.start_unbonding(operator.sender, amount_wei)
    console.print(f"unbonding {format_wei(amount_wei)} in {receipt.transaction_hash}", soft_wrap=True)
    if before_wei:
        console.print(f"[yellow]the time of {format_wei(before_wei)} that were unbonding starts again[/]")


def _show_stake(operator: Operator) -> None:
    staking = operator.contracts.staking
    unbonding_wei, release_at = staking.unbonding_of(operator.address)
    when = f", to be withdrawn from {format_time(release_at)} ({release_at})" if unbonding_wei else ""
    active_wei = staking.active_of(operator.address)
    console.print(
        f"stake: {format_wei(active_wei)} active, {format_wei(unbonding_wei)} unbonding{when}", soft_wrap=True
    )
    minimum_wei = staking.minimum_stake()
    if active_wei < minimum_wei:
        console.print(f"[yellow]below {format_wei(minimum_wei)}, the least that counts in draws[/]")


def _show_hold(operator: Operator, hold: Hold) -> None:
    where = f"job 0x{hold.job_id.hex()}, segment {hold.segment}"
    whose = "of this stake" if hold.operator == operator.address else f"of {hold.operator}"
    then = "the worker appeals" if hold.operator == operator.address else "shared then"
    held = f"{format_wei(hold.amount)} {whose} held until {format_time(hold.release_at)}"
    console.print(f"{held}: {where}; {then}", soft_wrap=True)


def _say_claimed(amount_wei: int, receipt: Receipt) -> None:
    console.print(f"claimed {format_wei(amount_wei)} in {receipt.transaction_hash}", soft_wrap=True)


def _standing(operator: Operator, model: ModelId) -> str:
    staking = operator.contracts.staking
    if not staking.is_serving(operator.address, model):
        return "no"
    if not staking.is_admitted(operator.address, model):
        return "candidate, trial not passed"
    return "yes" if staking.active_of(operator.address) >= staking.minimum_stake() else "no, stake too low"


def _reputation(operator: Operator, model: ModelId) -> int:
    return operator.contracts.staking.reputation_of(operator.address, model)


def _credit(operator: Operator) -> int:
    contracts = operator.contracts
    return contracts.jobs.credit_of(operator.address) + contracts.staking.compensation_of(operator.address)


@contextmanager
def _refusals(paid: str = "balance") -> Iterator[None]:
    """Say what the contracts refuse in the words of these commands.

    Args:
        paid: what to call it if the account cannot pay.
    """
    try:
        yield
    except InsufficientFunds as error:
        raise InvalidInputError(paid, "the account cannot pay for it and for gas", "send the account more") from error
    except TransactionRefused as refused:
        raise _explain(refused) from refused


def _explain(refused: TransactionRefused) -> Exception:
    arguments = refused.arguments
    if refused.error == "InsufficientStake":
        available = format_wei(int(str(arguments["available"])))
        return InvalidInputError("AMOUNT", f"only {available} are active", f"give at most {available}")
    if refused.error == "StillUnbonding":
        when = format_time(int(str(arguments["releaseAt"])))
        return InvalidInputError("unbonding", f"it is not over until {when}", "withdraw then")
    if refused.error == "NothingToWithdraw":
        return InvalidInputError("unbonding", "nothing is", "take stake out first: `interlock operator unbond`")
    if refused.error == "NothingToClaim":
        return InvalidInputError("credit", "there is none", "wait until a job that the operator worked on is finalised")
    return refused


def _show_proofs(state_directory: Path) -> None:
    """Say what the worker's proofs were at when it last wrote that down."""
    statuses = read_progress(state_directory)
    if statuses is None or not statuses.proofs:
        console.print("no proof waits or is made")
        return
    table = Table("proof", "state", "for", "predicted", "memory", "due")
    for it in statuses.proofs:
        due = "not asked for yet" if it.due_seconds is None else f"in {it.due_seconds:,.0f} s"
        times = (f"{seconds:,.1f} s" for seconds in (it.seconds, it.predicted_seconds))
        table.add_row(escape(it.name), it.state, *times, f"{it.predicted_bytes >> 20:,} MiB", due)
    console.print(table)
    if statuses.is_silent:
        seen = datetime.fromtimestamp(statuses.written_at, UTC).isoformat(" ", "seconds")
        console.print(f"[yellow]nothing was heard of these since {seen}: is the worker running?[/]")

"""The frame of a transaction, and money that waits for its owner (``Escrow.sol``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from offchain.protocol.machine.errors import Refused
from offchain.protocol.machine.events import Claimed, Credited, Event
from offchain.protocol.machine.limits import Parameters
from offchain.protocol.machine.state import Block, Domain, Model, State
from offchain.protocol.types import ZERO_ADDRESS, Address, ModelId

P = ParamSpec("P")
L = TypeVar("L", bound="Ledger")


def entry_point(
    rule: Callable[Concatenate[L, P], None],
) -> Callable[Concatenate[L, Address, Block, P], tuple[Event, ...]]:
    """Make a rule a transaction: called with the caller and the block first, it happens as a whole or not at all.

    The rule itself finds them as ``self.caller`` and ``self.block``, as Solidity finds ``msg.sender`` and ``block``.
    """

    @wraps(rule)
    def transact(machine: L, caller: Address, block: Block, *arguments: P.args, **named: P.kwargs) -> tuple[Event, ...]:
        before = machine.state.copy()
        machine.caller, machine.block, machine.events = caller, block, []
        try:
            rule(machine, *arguments, **named)
        except Refused:
            machine.state = before
            raise
        return tuple(machine.events)

    return transact


class Ledger:
    """The state of all contracts, the transaction under way, and the credits of accounts.

    Args:
        domain: what the hashes are bound to.
        parameters: what the contracts are deployed with.

    Raises:
        Refused: a parameter is out of its bounds.
    """

    def __init__(self, domain: Domain, parameters: Parameters) -> None:
        parameters.validate()
        self.domain = domain
        self.parameters = parameters
        self.state = State()
        self.caller = ZERO_ADDRESS
        self.block = Block(0, 0)
        self.events: list[Event] = []

    def register(self, model_id: ModelId, model: Model) -> None:
        """Make a model known, as ``Registry.registerModel`` does with one that it accepts."""
        self.state.models[model_id] = model

    def credit_of(self, account: Address) -> int:
        """What the account may claim, in wei."""
        return self.state.credits.get(account, 0)

    @entry_point
    def claim(self) -> None:
        """Pay the caller all that is credited to it."""
        amount = self.credit_of(self.caller)
        if amount == 0:
            raise Refused("NothingToClaim", self.caller)
        self.state.credits[self.caller] = 0
        self.emit(Claimed(self.caller, amount))

    def emit(self, event: Event) -> None:
        """Record an event of the transaction under way."""
        self.events.append(event)

    def credit(self, account: Address, amount: int) -> None:
        """Let the account claim so much more."""
        if amount:
            self.state.credits[account] = self.credit_of(account) + amount
            self.emit(Credited(account, amount))

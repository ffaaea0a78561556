"""The protocol as a program: every rule of the contracts, once more and in plain Python.

:class:`Machine` holds the whole state of ``Jobs`` and ``Staking``, and of ``Registry`` what the two ask it. It has one
method per entry point of the contracts, and knows neither a chain nor a clock: who calls, in which block, and what a
block's hash or a proof is worth, are arguments. A method returns the events that the contracts emit, in their order,
or raises :class:`Refused` with the custom error that they revert with, and then changes nothing.

``tests/contracts/test_jobs_stateful.py`` makes the same random moves here and on a chain, and compares both after each.
"""

from offchain.protocol.machine.errors import Refused
from offchain.protocol.machine.jobs import Machine
from offchain.protocol.machine.limits import Parameters
from offchain.protocol.machine.proofs import Proof
from offchain.protocol.machine.queue import Request
from offchain.protocol.machine.state import Block, Domain, Model, State

__all__ = ["Block", "Domain", "Machine", "Model", "Parameters", "Proof", "Refused", "Request", "State"]

"""The contracts as a Brownie user meets them; every case is tested in ``tests/contracts``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from brownie import VerifierMock, accounts, chain, web3
from brownie.test import given, strategy
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from offchain.protocol.hashing import model_id
from tests.brownie.conftest import refused

KEY = "0x" + "11" * 32
HASH = b"\x22" * 32
NOTHING = bytes(32)
ETHER = 10**18
WORKERS = st.integers(0, 2)
AMOUNTS = st.integers(1, 3 * ETHER)


@pytest.fixture
def model(deployed: SimpleNamespace, isolated: None) -> bytes:
    """A model of one segment whose verifier is a mock."""
    verifier = accounts[0].deploy(VerifierMock, 0, 0)
    code_hash = web3.keccak(web3.eth.get_code(verifier.address))
    spec = (HASH, bytes(code_hash), 1, 3, 7, 7, 256, [1, 3], [1, 3])
    transaction = deployed.registry.registerModel(HASH, HASH, [spec], [verifier], [], {"from": accounts[0]})
    registered = bytes(transaction.events["ModelRegistered"]["modelId"])
    assert registered == model_id(HASH, HASH, [spec])
    return registered


def serve(deployed: SimpleNamespace, model: bytes, worker: object) -> None:
    """Bond and join."""
    deployed.staking.bond({"from": worker, "value": 2 * ETHER})
    deployed.staking.setEncryptionKey(KEY, {"from": worker})
    deployed.staking.serve(model, {"from": worker})


def test_migrations__deployed__know_each_other(deployed: SimpleNamespace) -> None:
    assert deployed.jobs.registry() == deployed.registry.address
    assert deployed.jobs.verifier() == deployed.verifier.address
    assert deployed.jobs.staking() == deployed.staking.address
    assert deployed.staking.slasher() == deployed.jobs.address


def test_serve__without_a_bond__is_refused_by_name(deployed: SimpleNamespace, model: bytes) -> None:
    with refused("EncryptionKeyMissing"):
        deployed.staking.serve(model, {"from": accounts[1]})
    deployed.staking.setEncryptionKey(KEY, {"from": accounts[1]})
    with refused("InsufficientStake"):
        deployed.staking.serve(model, {"from": accounts[1]})


def test_request__nobody_answers__is_refunded(deployed: SimpleNamespace, model: bytes) -> None:
    serve(deployed, model, accounts[1])
    chain.mine()
    jobs, policy = deployed.jobs, (1, 6000, 1000, 60, 60, 60, 60, 60)
    transaction = jobs.request((model, HASH, HASH, HASH, NOTHING, policy), {"from": accounts[2], "value": 10**9})
    job = transaction.events["JobRequested"]["jobId"]
    with refused("WrongPhase"):
        jobs.expire(job, {"from": accounts[3]})
    jobs.draw(job, {"from": accounts[3]})
    assert jobs.roundOf(job, 0)[8][0][0] == accounts[1]
    chain.sleep(61)
    jobs.expire(job, {"from": accounts[3]})
    before = accounts[2].balance()
    jobs.claim({"from": accounts[2]})
    # The one that waited for the input has a fifth of the fee.
    assert accounts[2].balance() == before + 8 * 10**8
    assert jobs.creditOf(accounts[1]) == 2 * 10**8
    with refused("NothingToClaim"):
        jobs.claim({"from": accounts[2]})


@given(amount=strategy("uint256", min_value=1, max_value=100 * ETHER))
@settings(max_examples=10, deadline=None)
def test_bond__any_amount__is_active(deployed: SimpleNamespace, amount: int) -> None:
    before = deployed.staking.activeOf(accounts[4])
    deployed.staking.bond({"from": accounts[4], "value": amount})
    assert deployed.staking.activeOf(accounts[4]) == before + amount


class Bonds(RuleBasedStateMachine):
    """Bonds and unbonding beside plain dictionaries.

    Brownie's own ``state_machine`` raises TypeError in this version (it is compiled); this is what it is made of.
    """

    staking: Any

    def __init__(self) -> None:
        super().__init__()
        chain.snapshot()
        self.held = self.staking.balance()
        self.active = dict.fromkeys(accounts[5:8], 0)
        self.unbonding = dict.fromkeys(accounts[5:8], 0)

    def teardown(self) -> None:
        chain.revert()

    @rule(index=WORKERS, value=AMOUNTS)
    def bond(self, index: int, value: int) -> None:
        worker = accounts[5 + index]
        self.staking.bond({"from": worker, "value": value})
        self.active[worker] += value

    @rule(index=WORKERS, value=AMOUNTS)
    def unbond(self, index: int, value: int) -> None:
        worker = accounts[5 + index]
        if value > self.active[worker]:
            with refused("InsufficientStake"):
                self.staking.startUnbonding(value, {"from": worker})
            return
        self.staking.startUnbonding(value, {"from": worker})
        self.active[worker] -= value
        self.unbonding[worker] += value

    @rule(index=WORKERS)
    def withdraw_too_early(self, index: int) -> None:
        worker = accounts[5 + index]
        with refused("StillUnbonding" if self.unbonding[worker] else "NothingToWithdraw"):
            self.staking.withdraw({"from": worker})

    @invariant()
    def balance_is_what_is_owed(self) -> None:
        assert self.staking.balance() == self.held + sum(self.active.values()) + sum(self.unbonding.values())
        for worker, amount in self.active.items():
            assert self.staking.activeOf(worker) == amount


def test_bonds__any_order__balance_is_what_is_owed(deployed: SimpleNamespace, isolated: None) -> None:
    machine = type("BondsOnChain", (Bonds,), {"staking": deployed.staking})
    run_state_machine_as_test(machine, settings=settings(max_examples=4, stateful_step_count=8, deadline=None))

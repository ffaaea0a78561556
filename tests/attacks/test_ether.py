"""Rows 22 and 24: a receiver that calls back, ether that nobody sent for, and the wei that rounding leaves over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.chain.errors import TransactionRefused
from offchain.chain.jobs import JobRequest
from offchain.protocol import hashing
from offchain.protocol.types import Link, ModelId, Phase
from tests.attacks.mutant import Change, Mutant
from tests.contracts.record import release_all
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, commitment_link, with_policy
from tests.local_chain import ETHER

pytestmark = pytest.mark.integration

REENTER = 2
UNGUARDED = (
    Change("Escrow.sol", "function claim() external nonReentrant {", "function claim() external {"),
    Change("Staking.sol", "function withdraw() external nonReentrant {", "function withdraw() external {"),
)
NO_GUARD = Mutant(*UNGUARDED)
NO_GUARD_AND_NO_ORDER = Mutant(
    *UNGUARDED,
    Change("Escrow.sol", "        _credits[msg.sender] = 0;\n"),
    Change(
        "Escrow.sol",
        "if (!ok) revert ClaimFailed(msg.sender, amount);",
        "if (!ok) revert ClaimFailed(msg.sender, amount);\n        _credits[msg.sender] = 0;",
    ),
    Change("Staking.sol", "        operator.unbonding = 0;\n"),
    Change("Staking.sol", "_send(msg.sender, amount);", "_send(msg.sender, amount);\n        operator.unbonding = 0;"),
)
FEE_BY_BALANCE = Mutant(Change("jobs/JobQueue.sol", "job.feeWei = msg.value;", "job.feeWei = address(this).balance;"))
REST_IS_LOST = Mutant(Change("Jobs.sol", "_credit(job.requester, job.feeWei - paid); // what rounding left over"))


# --- row 22 -----------------------------------------------------------------------------------------------------------


def account_of(stage: Stage) -> Any:
    """An account with code, which calls back whoever pays it."""
    return stage.chain.connection.contract("AccountMock", stage.chain.deploy(stage.owner, "AccountMock"))


def execute(stage: Stage, account: Any, call: Any, value_wei: int = 0) -> None:
    stage.owner.send(account.functions.execute(call.address, call._encode_transaction_data()), value_wei)


def request_as(stage: Stage, account: Any) -> Play:
    """A job that the account asks for."""
    jobs = stage.contracts.jobs
    what = JobRequest(
        ModelId(stage.model), commitment_link(stage._boundary(0)), keccak(b"key"), keccak(b"salt"), POLICY
    )
    fields = (what.model_id, what.input_link, what.result_key, what.salt, what.route_cid, tuple(vars(POLICY).values()))
    execute(stage, account, jobs.contract.functions.request(fields), FEE)
    job = hashing.job_id(stage.contracts.connection.chain_id, jobs.address, account.address, what.salt)
    return Play(stage, job, stage.owner)


def claims_again(stage: Stage) -> Any:
    """An account that is owed a fee, beside two fees of others, and claims it again while it is being paid."""
    jobs = stage.contracts.jobs
    account = account_of(stage)
    play = request_as(stage, account)
    for _ in range(2):
        stage.request()
    play.lapse()
    play.expire()
    claim = jobs.contract.functions.claim()
    stage.owner.send(account.functions.setManner(REENTER, claim._encode_transaction_data()))
    execute(stage, account, claim)
    return account


def withdraws_again(stage: Stage) -> Any:
    """The same with a bond that has finished unbonding, beside the bonds of others."""
    staking = stage.contracts.staking.contract.functions
    account = account_of(stage)
    execute(stage, account, staking.bond(), ETHER)
    execute(stage, account, staking.startUnbonding(ETHER))
    stage.chain.move_to(stage.contracts.staking.unbonding_of(account.address)[1])
    stage.owner.send(account.functions.setManner(REENTER, staking.withdraw()._encode_transaction_data()))
    execute(stage, account, staking.withdraw())
    return account


def claims_compensation_again(stage: Stage) -> tuple[Any, int]:
    """An account that is owed a share of a liar's stake, beside the bonds of others; and what it is owed."""
    account = account_of(stage)
    play = request_as(stage, account)
    play.draw()
    execute(stage, account, play.jobs.contract.functions.provideInput(play.job, keccak(b"input")))
    *liars, honest = stage.workers
    play.play_round({liar.address: Link(keccak(b"a lie")) for liar in liars})
    play.challenge(0, honest)
    release_all(play)
    claim = stage.contracts.staking.contract.functions.claim()
    owed = stage.contracts.staking.compensation_of(account.address)
    stage.owner.send(account.functions.setManner(REENTER, claim._encode_transaction_data()))
    execute(stage, account, claim)
    return account, owed


def test_reentrancy__defence_removed__takes_the_bonds_of_others(build: Callable[..., Stage]) -> None:
    stage = build(NO_GUARD_AND_NO_ORDER, segments=1)
    account, owed = claims_compensation_again(stage)
    assert stage.chain.connection.balance(account.address) > 10 * owed
    assert stage.chain.connection.balance(stage.contracts.staking.address) < owed


def test_reentrancy__of_compensation__refused_by_the_guard(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    account, owed = claims_compensation_again(stage)
    assert account.functions.answer().call() == keccak(b"ReentrancyGuardReentrantCall()")[:4]
    assert stage.chain.connection.balance(account.address) == owed > 0


def test_reentrancy__defence_removed__empties_both_contracts(build: Callable[..., Stage]) -> None:
    stage = build(NO_GUARD_AND_NO_ORDER, segments=1, stakes=(ETHER, 2 * ETHER))
    balance = stage.chain.connection.balance
    assert balance(claims_again(stage).address) == 3 * FEE
    assert balance(stage.contracts.jobs.address) == 0
    assert balance(withdraws_again(stage).address) == 4 * ETHER
    assert balance(stage.contracts.staking.address) == 0


def test_reentrancy__without_the_guard__gains_nothing_because_of_the_order(build: Callable[..., Stage]) -> None:
    """The guard is the second fence."""
    stage = build(NO_GUARD, segments=1, stakes=(ETHER,))
    claimer, withdrawer = claims_again(stage), withdraws_again(stage)
    for account, error, owed in (
        (claimer, "NothingToClaim(address)", FEE),
        (withdrawer, "NothingToWithdraw(address)", ETHER),
    ):
        assert not account.functions.reentered().call()
        assert account.functions.answer().call()[:4] == keccak(error.encode())[:4]
        assert stage.chain.connection.balance(account.address) == owed


def test_reentrancy__refused_by_the_guard(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=(ETHER,))
    for account, owed in ((claims_again(stage), FEE), (withdraws_again(stage), ETHER)):
        assert not account.functions.reentered().call()
        assert account.functions.answer().call() == keccak(b"ReentrancyGuardReentrantCall()")[:4]
        assert stage.chain.connection.balance(account.address) == owed
    assert stage.chain.connection.balance(stage.contracts.jobs.address) == 2 * FEE
    assert stage.chain.connection.balance(stage.contracts.staking.address) == ETHER


# --- row 24 -----------------------------------------------------------------------------------------------------------


def force_ether(stage: Stage, target: str, amount_wei: int) -> None:
    """Self-destruct upon it: no code of the receiver runs. ``PUSH20 target SELFDESTRUCT``."""
    stage.owner.send_raw(
        "force", {"from": stage.owner.address, "data": "0x73" + target[2:] + "ff", "value": hex(amount_wei)}
    )


def request_beside_others(stage: Stage) -> int:
    """What a requester is credited whose job is over, where the contract holds another's fee and ether of nobody's."""
    stage.request(requester=stage.owner)
    force_ether(stage, stage.contracts.jobs.address, ETHER)
    play = stage.request()
    play.lapse()
    play.expire()
    return stage.credits()[stage.requester.address]


def test_forced_ether__defence_removed__counts_as_a_fee_together_with_others(build: Callable[..., Stage]) -> None:
    stage = build(FEE_BY_BALANCE, segments=1)
    assert request_beside_others(stage) == 2 * FEE + ETHER
    stage.contracts.jobs.claim(stage.requester)
    assert stage.chain.connection.balance(stage.contracts.jobs.address) == 0


def test_forced_ether__gains_nothing_and_is_nobodys(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    assert request_beside_others(stage) == FEE
    force_ether(stage, stage.contracts.staking.address, ETHER)
    stage.contracts.jobs.claim(stage.requester)
    assert stage.chain.connection.balance(stage.contracts.jobs.address) == FEE + ETHER
    assert stage.chain.connection.balance(stage.contracts.staking.address) == sum(STAKES) + ETHER
    assert sum(stage.credits().values()) == 0


def test_plain_ether__refused_by_every_contract(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    contracts = stage.contracts
    sent = {"from": stage.owner.address, "value": hex(1)}
    for target in (contracts.registry, contracts.verifier, contracts.staking, contracts.jobs):
        with pytest.raises(TransactionRefused):
            stage.owner.send_raw("send", {**sent, "to": target.address})


def finalised(stage: Stage) -> int:
    """What of a fee is left in the contract when everybody has claimed."""
    play = stage.request(with_policy(proof_permille=0)).to_sampling()
    play.lapse()
    play.finalise()
    assert play.phase is Phase.FINALISED
    for address, credit in stage.credits().items():
        if credit:
            stage.contracts.jobs.claim(next(who for who in (stage.requester, *stage.workers) if who.address == address))
    return stage.chain.connection.balance(stage.contracts.jobs.address)


def test_rounding__defence_removed__leaves_wei_that_nobody_can_claim(build: Callable[..., Stage]) -> None:
    assert finalised(build(REST_IS_LOST)) > 0


def test_rounding__every_wei_is_somebodys(build: Callable[..., Stage]) -> None:
    assert finalised(build()) == 0

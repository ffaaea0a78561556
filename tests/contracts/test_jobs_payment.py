from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from eth_hash.auto import keccak
from hypothesis import given, settings
from hypothesis import strategies as st

from offchain.chain.events import job_events
from offchain.chain.jobs import JobRequest
from offchain.protocol import hashing
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, ZERO_ADDRESS, JobId, Link, Phase
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, refused, with_policy
from tests.contracts.test_jobs_rounds import WRONG
from tests.contracts.test_jobs_timeouts import miss

pytestmark = pytest.mark.integration

PROVER_SHARE_BPS = 5000


def expected_credits(play: Play) -> dict[str, int]:
    """Who is owed what for a finalised job, worked out apart from the contract."""
    record = play.record
    owed: dict[str, int] = {}
    segment_fee = record.fee_wei // record.segments
    for segment in range(record.segments):
        round_ = play.round(segment)
        for_prover = segment_fee * PROVER_SHARE_BPS // 10_000 if round_.proof_hash != bytes(32) else 0
        if for_prover:
            owed[round_.proved_by] = owed.get(round_.proved_by, 0) + for_prover
        for member in round_.supporters:
            share = Fraction(segment_fee - for_prover) * member.weight / round_.settled_weight
            owed[member.operator] = owed.get(member.operator, 0) + int(share)
    rest = record.fee_wei - sum(owed.values())
    assert rest >= 0
    owed[record.requester] = owed.get(record.requester, 0) + rest
    return owed


@pytest.mark.parametrize("fee_wei", [10**9, 10**9 + 1, FEE, 7 * 10**18 + 11])
@pytest.mark.parametrize("permille", [0, 1000])
def test_finalise__any_fee__is_paid_out_to_the_last_wei(stage: Stage, fee_wei: int, permille: int) -> None:
    held = stage.chain.connection.balance(stage.contracts.jobs.address)
    play = stage.request(with_policy(proof_permille=permille), fee_wei=fee_wei)
    play.to_sampling()
    if permille:
        play.draw()
        for segment in range(3):
            play.prove(segment)
    else:
        play.pass_challenges()
    play.finalise()
    credits = {address: credit for address, credit in stage.credits().items() if credit}
    assert credits == expected_credits(play)
    assert sum(credits.values()) == fee_wei
    for sender in (stage.requester, *stage.workers):
        if credits.get(sender.address):
            stage.contracts.jobs.claim(sender)
    assert stage.chain.connection.balance(stage.contracts.jobs.address) == held


def test_finalise__outvoted_member__earns_nothing(stage: Stage) -> None:
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    liar = stage.workers[0]
    for _ in range(3):
        play.play_round({liar.address: WRONG})
    play.pass_challenges().finalise()
    assert stage.credits()[liar.address] == 0
    assert sum(stage.credits().values()) == FEE


def test_finalise__twice__is_refused(stage: Stage) -> None:
    play = stage.request().to_finalisable()
    play.finalise()
    with refused("WrongPhase", jobId=play.job, actual=Phase.FINALISED):
        play.finalise()
    assert sum(stage.credits().values()) == FEE


@pytest.mark.parametrize("permille", [0, 500, 1000])
def test_finalise__evidence_root__is_what_anybody_can_recompute(stage: Stage, permille: int) -> None:
    play = stage.request(with_policy(proof_permille=permille)).to_sampling()
    if permille:
        play.draw()
        for segment in range(3):
            if play.round(segment).prover != "0x" + "00" * 20:
                play.prove(segment)
    if play.phase is Phase.CHALLENGEABLE:
        play.pass_challenges()
    play.finalise()
    root = play.record.evidence_root
    rounds = [play.round(segment) for segment in range(3)]
    chain_id, jobs = stage.contracts.connection.chain_id, play.jobs.address
    assert root == hashing.evidence_root(chain_id, jobs, play.record, rounds)
    head = stage.contracts.connection.block_number()
    (event,) = [event for event in job_events(stage.contracts, play.job, head, head) if event.name == "JobFinalised"]
    assert event.arguments == {"jobId": play.job, "resultLink": play.truth(2), "evidenceRoot": root}


def test_claim__everything__is_paid_once(stage: Stage) -> None:
    jobs, connection = stage.contracts.jobs, stage.chain.connection
    with refused("NothingToClaim", account=stage.requester.address):
        jobs.claim(stage.requester)
    play = stage.request()
    play.lapse()
    play.expire()
    before = connection.balance(stage.requester.address)
    receipt = jobs.claim(stage.requester)
    mined = connection.web3.eth.get_transaction_receipt(receipt.transaction_hash)  # type: ignore[arg-type]
    spent = mined["gasUsed"] * mined["effectiveGasPrice"]
    assert connection.balance(stage.requester.address) == before + FEE - spent
    with refused("NothingToClaim", account=stage.requester.address):
        jobs.claim(stage.requester)


def requesting_contract(stage: Stage) -> tuple[Any, JobId]:
    """A contract that requested a job which then expired: it is owed the fee."""
    jobs = stage.contracts.jobs
    account = stage.chain.connection.contract("AccountMock", stage.chain.deploy(stage.owner, "AccountMock"))
    what = JobRequest(stage.model, Link(keccak(b"in")), keccak(b"key"), keccak(b"salt"), POLICY)
    fields = (what.model_id, what.input_link, what.result_key, what.salt, bytes(32), tuple(vars(POLICY).values()))
    data = jobs.contract.functions.request(fields)._encode_transaction_data()
    stage.owner.send(account.functions.execute(jobs.address, data), FEE)
    job = hashing.job_id(stage.contracts.connection.chain_id, jobs.address, account.address, what.salt)
    stage.chain.move_to(jobs.job_of(job).deadline)
    jobs.expire(stage.owner, job)
    assert jobs.credit_of(account.address) == FEE
    return account, job


def test_claim__receiver_that_claims_again__gets_its_credit_once(stage: Stage) -> None:
    account, _ = requesting_contract(stage)
    stage.request(requester=stage.owner)  # somebody else's fee to steal
    jobs = stage.contracts.jobs
    held = stage.chain.connection.balance(jobs.address)
    claim = jobs.contract.functions.claim()._encode_transaction_data()
    stage.owner.send(account.functions.setManner(2, claim))
    stage.owner.send(account.functions.execute(jobs.address, claim))
    assert not account.functions.reentered().call()
    assert account.functions.answer().call() == keccak(b"ReentrancyGuardReentrantCall()")[:4]
    assert stage.chain.connection.balance(account.address) == FEE
    assert stage.chain.connection.balance(jobs.address) == held - FEE


def test_claim__receiver_that_refuses_ether__keeps_its_credit(stage: Stage) -> None:
    account, _ = requesting_contract(stage)
    jobs = stage.contracts.jobs
    claim = jobs.contract.functions.claim()._encode_transaction_data()
    stage.owner.send(account.functions.setManner(1, b""))
    with refused("ClaimFailed", account=account.address, amount=FEE):
        stage.owner.send(account.functions.execute(jobs.address, claim))
    assert jobs.credit_of(account.address) == FEE


def test_job__forced_ether__changes_nothing(stage: Stage) -> None:
    jobs, staking = stage.contracts.jobs, stage.contracts.staking
    for target in (jobs.address, staking.address):
        # PUSH20 target, SELFDESTRUCT: runs no code of the receiver.
        code = "0x73" + target[2:] + "ff"
        stage.owner.send_raw("force", {"from": stage.owner.address, "data": code, "value": hex(10**18)})
    held = stage.chain.connection.balance(jobs.address)
    assert held >= 10**18
    play = stage.request().to_finalisable()
    play.finalise()
    assert sum(stage.credits().values()) == FEE
    assert stage.chain.connection.balance(jobs.address) == held + FEE


LINKS = {"truth": None, "wrong": WRONG, "unavailable": UNAVAILABLE, "bad input": BAD_INPUT, "commits only": None}
VOTES = st.lists(st.sampled_from([*LINKS, "silent"]), min_size=3, max_size=3)


def play_out(play: Play, votes: list[str]) -> bool:
    """Have the members do as they voted, and then time go on until the job is closed; return whether it was redrawn."""
    members = play.members()
    for worker, vote in zip(members, votes, strict=True):
        if vote != "silent":
            play.commit(worker, LINKS[vote])
    if "silent" in votes:
        play.lapse()
    if play.phase is Phase.DRAWING:  # too few: and from the next committee nobody is heard of
        play.draw()
        play.lapse()
        play.expire()
        return True
    for worker, vote in zip(members, votes, strict=True):
        if vote not in ("commits only", "silent"):
            play.reveal(worker)
    if play.phase is Phase.REVEALING:
        # Where nobody revealed, the lapsed commit phase may still be what is stored.
        waits = POLICY.reveal_seconds if play.record.phase is Phase.COMMITTING else 0
        play.stage.chain.move_to(play.record.deadline + waits)
        play.settle()
    if play.phase is Phase.CHALLENGEABLE:
        play.pass_challenges().finalise()
    if play.phase is Phase.CONTESTED:
        play.lapse()
        play.expire()
    return False


@given(votes=VOTES, quorum_bps=st.integers(5001, 10_000), fee_wei=st.integers(10**9, 10**19))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_job__any_votes_in_its_only_segment__every_wei_is_credited(
    shared_stage: Stage, votes: list[str], quorum_bps: int, fee_wei: int
) -> None:
    with shared_stage.chain.isolated():
        stage = Stage(**vars(shared_stage))
        model = stage.register_segments(1, "votes")
        for worker in stage.workers:
            stage.contracts.staking.serve(worker, model)
        jobs, staking = stage.contracts.jobs, stage.contracts.staking
        held = stage.chain.connection.balance(jobs.address)
        burnt = stage.chain.connection.balance(ZERO_ADDRESS)
        play = stage.request(with_policy(quorum_bps=quorum_bps, proof_permille=0), fee_wei, model_id=model)
        play.to_committing()
        members = play.members()
        redrawn = play_out(play, votes)
        assert play.phase in (Phase.FINALISED, Phase.FAILED)
        # A miss counts where somebody else did it: a commitment, where the committee was replaced; else an output.
        fined = {"silent", "commits only"} if {"truth", "wrong"} & set(votes) else set()
        if redrawn:
            fined = {"silent"} if set(votes) != {"silent"} else set()
        lost = sum(
            miss(STAKES[stage.workers.index(worker)])
            for worker, vote in zip(members, votes, strict=True)
            if vote in fined
        )
        assert sum(staking.active_of(worker.address) for worker in stage.workers) == sum(STAKES) - lost
        assert sum(stage.credits().values()) == fee_wei
        assert stage.chain.connection.balance(jobs.address) == held + fee_wei
        assert stage.chain.connection.balance(staking.address) == sum(STAKES) - lost
        assert stage.chain.connection.balance(ZERO_ADDRESS) == burnt + lost
        assert jobs.load_of(model) == (0, 0)

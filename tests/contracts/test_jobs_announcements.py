"""Proofs that lie open in the mempool: whoever copies one has not announced it."""

from __future__ import annotations

import pytest
from eth_hash.auto import keccak

from offchain.protocol import hashing
from offchain.protocol.types import ZERO_HASH, Link, Phase
from tests.contracts.record import newest_events, penalties
from tests.contracts.stage import Play, Stage, refused, with_policy
from tests.local_chain import InstantSender

pytestmark = pytest.mark.integration

WRONG = Link(keccak(b"wrong"))


def two_minorities(stage: Stage) -> tuple[Play, InstantSender, InstantSender]:
    """A contested segment whose true output two members revealed: each may prove it, and the first is paid for it."""
    play = stage.request(with_policy(quorum_bps=9000)).to_committing()
    play.play_round({stage.workers[2].address: WRONG})
    assert play.phase is Phase.CONTESTED
    return play, stage.workers[0], stage.workers[1]


def expected(play: Play, segment: int, worker: InstantSender) -> bytes:
    return play.announcement(segment, worker, hashing.proof_hash(*play.proof(segment)))


def test_announce__member__is_kept_with_its_block_and_the_last_one_counts(stage: Stage) -> None:
    play, prover, _ = two_minorities(stage)
    for word in (keccak(b"first"), keccak(b"second")):
        play.jobs.announce(prover, play.job, 0, word)
        member = play.round(0).member(prover.address)
        assert member is not None
        assert (member.announcement, member.announced_block) == (word, stage.chain.connection.block_number())
        announced = {"jobId": play.job, "segment": 0, "operator": prover.address, "announcement": word}
        assert newest_events(stage) == [("ProofAnnounced", announced)]


def test_announce__outsider_nothing_or_elsewhere__is_refused(stage: Stage) -> None:
    play, prover, _ = two_minorities(stage)
    word = keccak(b"word")
    with refused("NotMember", jobId=play.job, segment=0, caller=stage.owner.address):
        play.jobs.announce(stage.owner, play.job, 0, word)
    with refused("ValueIsZero", field="announcement"):
        play.jobs.announce(prover, play.job, 0, ZERO_HASH)
    for segment in (2, 3, 15):  # not drawn yet, or none
        with refused("NotMember", jobId=play.job, segment=segment, caller=prover.address):
            play.jobs.announce(prover, play.job, segment, word)


def test_announcement_of__contract__agrees_with_python(stage: Stage) -> None:
    play, prover, other = two_minorities(stage)
    digest = hashing.proof_hash(*play.proof(0))
    announced = play.jobs.contract.functions.announcementOf
    assert bytes(announced(play.job, 0, 0, prover.address, digest).call()) == expected(play, 0, prover)
    alike = {(0, 0, prover.address), (1, 0, prover.address), (0, 1, prover.address), (0, 0, other.address)}
    assert len({bytes(announced(play.job, *place, digest).call()) for place in alike}) == 4


def test_challenge__not_announced__is_refused(stage: Stage) -> None:
    play, prover, _ = two_minorities(stage)
    refusal = {"jobId": play.job, "segment": 0, "caller": prover.address}
    with refused("ProofNotAnnounced", **refusal, expected=expected(play, 0, prover)):
        play.challenge(0, prover, announced=True)
    play.announce(1, prover)  # of another segment
    with refused("ProofNotAnnounced", **refusal, expected=expected(play, 0, prover)):
        play.challenge(0, prover, announced=True)
    proof, instances = play.proof(0)
    play.announce(0, prover, proof=proof[:-1] + b"\2")  # of another proof of the same
    with refused("ProofNotAnnounced", **refusal, expected=expected(play, 0, prover)):
        play.challenge(0, prover, announced=True)
    play.announce(0, prover, instances=(*instances, 1))
    with refused("ProofNotAnnounced", **refusal, expected=expected(play, 0, prover)):
        play.challenge(0, prover, announced=True)


def test_challenge__copied_from_the_mempool__is_refused_and_the_prover_is_not(stage: Stage) -> None:
    play, prover, copier = two_minorities(stage)
    play.announce(0, prover)
    # The copier sees the announcement, and then the proof; it sends both as its own, and pays more.
    seen = play.round(0).member(prover.address)
    assert seen is not None
    refusal = {"jobId": play.job, "segment": 0, "caller": copier.address}
    with refused("ProofNotAnnounced", **refusal, expected=expected(play, 0, copier)):
        play.challenge(0, copier, announced=True)
    play.jobs.announce(copier, play.job, 0, seen.announcement)
    with refused("ProofNotAnnounced", **refusal, expected=expected(play, 0, copier)):
        play.challenge(0, copier, announced=True)
    play.challenge(0, prover, announced=True)
    assert play.round(0).proved_by == prover.address
    assert penalties(play)[0][1] == stage.workers[2].address


def test_challenge__announced_in_the_same_block__is_too_fresh(stage: Stage) -> None:
    # What a copier does that sees a proof in the mempool: it announces and proves before it, in one block.
    play, _, copier = two_minorities(stage)
    jobs, rpc = play.jobs, stage.chain.rpc
    proof, instances = play.proof(0)
    calls = (
        jobs.contract.functions.announce(play.job, 0, expected(play, 0, copier)),
        jobs.contract.functions.challenge(play.job, 0, proof, list(instances), keccak(b"proof")),
    )
    fields = {"from": copier.address, "to": jobs.address, "gas": hex(8_000_000)}
    rpc("evm_setAutomine", False)
    try:
        sent = [rpc("eth_sendTransaction", fields | {"data": call._encode_transaction_data()}) for call in calls]
        stage.chain.mine()
    finally:
        rpc("evm_setAutomine", True)
    receipts = [rpc("eth_getTransactionReceipt", transaction) for transaction in sent]
    assert [receipt["status"] for receipt in receipts] == ["0x1", "0x0"]
    block = int(receipts[0]["blockNumber"], 16)
    assert receipts[0]["blockNumber"] == receipts[1]["blockNumber"]
    assert play.phase is Phase.CONTESTED
    data = calls[1]._encode_transaction_data()
    with refused("AnnouncementTooFresh", announcedBlock=block, current=block):
        with stage.chain.connection.translated("challenge"):
            stage.chain.connection.web3.manager.request_blocking(
                "eth_call", [fields | {"data": data}, "latest", {}, {"number": hex(block)}]
            )
    play.challenge(0, copier, announced=True)  # a block later it is as good as any


def test_prove__drawn_prover_in_its_own_time__need_not_announce(stage: Stage) -> None:
    play = stage.request().to_proving()
    play.prove(0)
    prover = stage.by_address(play.round(1).prover)
    prover.at = play.record.deadline - play.record.policy.prove_seconds - 1
    play.prove(1)
    assert play.round(1).proved_by == prover.address


def test_prove__drawn_prover_when_its_time_is_over__may_not_copy_either(stage: Stage) -> None:
    play = stage.request().to_proving()
    prover = stage.by_address(play.round(0).prover)
    helper = next(worker for worker in stage.workers if worker != prover)
    play.announce(0, helper)
    prover.at = play.record.deadline - play.record.policy.prove_seconds
    with refused(
        "ProofNotAnnounced", jobId=play.job, segment=0, caller=prover.address, expected=expected(play, 0, prover)
    ):
        play.prove(0, prover)
    play.to_open_window()
    play.prove(0, helper)
    assert play.round(0).proved_by == helper.address


def test_prove__other_supporter_in_the_open_time__has_to_announce(stage: Stage) -> None:
    play = stage.request().to_proving()
    helper = next(worker for worker in stage.workers if worker.address != play.round(0).prover)
    play.to_open_window()
    with refused(
        "ProofNotAnnounced", jobId=play.job, segment=0, caller=helper.address, expected=expected(play, 0, helper)
    ):
        play.prove(0, helper)
    play.announce(0, helper)
    play.prove(0, helper)


def test_prove__announced_before_the_segment_was_even_sampled__counts(stage: Stage) -> None:
    # What binds it is that nobody had seen the proof.
    play = stage.request().to_committing().play_round()
    for worker in stage.workers:
        play.announce(0, worker)
    play.play_round().play_round().draw()
    helper = next(worker for worker in stage.workers if worker.address != play.round(0).prover)
    play.to_open_window()
    play.prove(0, helper)


def test_challenge__announced_for_the_attempt_before__does_not_count(stage: Stage) -> None:
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    challenger, *liars = stage.workers
    wrong = {worker.address: WRONG for worker in liars}
    play.play_round(wrong).play_round(wrong)
    play.announce(1, challenger)
    play.challenge(0, challenger)
    play.play_round(wrong)
    assert play.record.attempts[1] == 1
    with refused(
        "ProofNotAnnounced",
        jobId=play.job,
        segment=1,
        caller=challenger.address,
        expected=expected(play, 1, challenger),
    ):
        play.challenge(1, challenger, announced=True)
    play.challenge(1, challenger)

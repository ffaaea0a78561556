"""Rows 1 and 3: what lies in the mempool for all to see is worth nothing to whoever copies it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.protocol import hashing
from offchain.protocol.types import ZERO_HASH, Link, Phase
from tests.attacks.mutant import Change, Mutant, calldata, mined_together, pending, why_reverted
from tests.contracts.record import compensations, release_all
from tests.contracts.stage import STAKES, Play, Stage, refused, with_policy
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

LIE = Link(keccak(b"a lie"))
POLICY = with_policy(committee_size=5, proof_permille=0)
LIARS_AND_TWO_HONEST = (*STAKES, 2 * ETHER, 2 * ETHER)
"""The first three hold more than 60 % of the stake, and lie."""

UNANNOUNCED = Mutant(
    Change(
        "jobs/JobProofs.sol",
        "if (member.announcement != expected) revert ProofNotAnnounced(jobId, segment, msg.sender, expected);",
    )
)
FRESH = Mutant(
    Change(
        "jobs/JobProofs.sol",
        "if (member.announcedBlock >= block.number) revert AnnouncementTooFresh(member.announcedBlock, block.number);",
    )
)
ANYBODYS_ANNOUNCEMENT = Mutant(
    Change(
        "jobs/JobRecord.sol",
        "abi.encode(PROOF_TAG, block.chainid, address(this), jobId, segment, attempt, operator, proofHash)",
        "abi.encode(PROOF_TAG, block.chainid, address(this), jobId, segment, attempt, proofHash)",
    )
)
ANYBODYS_COMMITMENT = Mutant(
    Change(
        "jobs/JobRecord.sol",
        "abi.encode(COMMIT_TAG, block.chainid, address(this), jobId, segment, attempt, operator, link, salt)",
        "abi.encode(COMMIT_TAG, block.chainid, address(this), jobId, segment, attempt, link, salt)",
    )
)


# --- row 1: a challenge -----------------------------------------------------------------------------------------------


def outvoted(stage: Stage) -> tuple[Play, InstantSender, InstantSender]:
    """A job whose quorum lied, an honest member that can prove it, and another that revealed the same."""
    liars, (honest, copier) = stage.workers[:3], stage.workers[3:]
    play = stage.request(POLICY).to_committing()
    play.play_round({liar.address: LIE for liar in liars})
    assert play.round(0).settled_link == LIE
    return play, honest, copier


def rewarded(play: Play) -> list[InstantSender]:
    """The workers that get something of the liars' stake, once the time for appeals is over."""
    release_all(play)
    owed = compensations(play.stage)
    return [worker for worker in play.stage.workers if worker.address in owed]


def front_run_challenge(stage: Stage, play: Play, honest: InstantSender, copier: InstantSender) -> None:
    play.announce(0, honest)
    seen = pending(stage.chain, lambda: play.challenge(0, honest, announced=True))
    copier.send_raw("challenge", {"from": copier.address, **seen})


def test_copied_challenge__defence_removed__copier_takes_the_reward(build: Callable[..., Stage]) -> None:
    stage = build(UNANNOUNCED, segments=1, stakes=LIARS_AND_TWO_HONEST)
    play, honest, copier = outvoted(stage)
    front_run_challenge(stage, play, honest, copier)
    with refused("WrongPhase", jobId=play.job, actual=Phase.FINALISABLE):
        play.challenge(0, honest, announced=True)
    assert rewarded(play) == [copier]


def test_copied_challenge__refused_because_the_copier_announced_nothing(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=LIARS_AND_TWO_HONEST)
    play, honest, copier = outvoted(stage)
    expected = play.announcement(0, copier, hashing.proof_hash(*play.proof(0)))
    with refused("ProofNotAnnounced", jobId=play.job, segment=0, caller=copier.address, expected=expected):
        front_run_challenge(stage, play, honest, copier)
    play.challenge(0, honest, announced=True)
    assert rewarded(play) == [honest]


def copy_announcement_too(stage: Stage, play: Play, honest: InstantSender, copier: InstantSender) -> None:
    """The copier sends the announcement again as well, at the same time as the honest member does."""
    hashed = hashing.proof_hash(*play.proof(0))
    function = play.jobs.contract.functions.announcementOf
    announcement = function(play.job, 0, 0, honest.address, hashed).call()
    for sender in (honest, copier):
        play.jobs.announce(sender, play.job, 0, announcement)
    play.challenge(0, copier, announced=True)


def test_copied_announcement__defence_removed__copier_takes_the_reward(build: Callable[..., Stage]) -> None:
    stage = build(ANYBODYS_ANNOUNCEMENT, segments=1, stakes=LIARS_AND_TWO_HONEST)
    play, honest, copier = outvoted(stage)
    copy_announcement_too(stage, play, honest, copier)
    assert rewarded(play) == [copier]


def test_copied_announcement__refused_because_the_operator_is_inside(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=LIARS_AND_TWO_HONEST)
    play, honest, copier = outvoted(stage)
    expected = play.announcement(0, copier, hashing.proof_hash(*play.proof(0)))
    with refused("ProofNotAnnounced", jobId=play.job, segment=0, caller=copier.address, expected=expected):
        copy_announcement_too(stage, play, honest, copier)
    play.challenge(0, honest, announced=True)


def announce_and_challenge_at_once(
    stage: Stage, play: Play, honest: InstantSender, copier: InstantSender
) -> list[dict[str, Any]]:
    """In one block: the copier's announcement and challenge, bought to the front, and the honest challenge behind."""
    proof, instances = play.proof(0)
    play.announce(0, honest)
    functions = play.jobs.contract.functions
    announcement = play.announcement(0, copier, hashing.proof_hash(proof, instances))
    challenge = calldata(functions.challenge(play.job, 0, proof, list(instances), keccak(b"proof")))
    return mined_together(
        stage.chain,
        [
            {"from": copier.address, **calldata(functions.announce(play.job, 0, announcement))},
            {"from": copier.address, **challenge},
            {"from": honest.address, **challenge},
        ],
    )


def test_announced_at_once__defence_removed__copier_takes_the_reward(build: Callable[..., Stage]) -> None:
    stage = build(FRESH, segments=1, stakes=LIARS_AND_TWO_HONEST)
    play, honest, copier = outvoted(stage)
    receipts = announce_and_challenge_at_once(stage, play, honest, copier)
    assert [receipt["status"] for receipt in receipts] == ["0x1", "0x1", "0x0"]
    assert rewarded(play) == [copier]


def test_announced_at_once__refused_because_an_earlier_block_is_needed(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=LIARS_AND_TWO_HONEST)
    play, honest, copier = outvoted(stage)
    receipts = announce_and_challenge_at_once(stage, play, honest, copier)
    assert [receipt["status"] for receipt in receipts] == ["0x1", "0x0", "0x1"]
    block = int(receipts[0]["blockNumber"], 16)
    reason = ("AnnouncementTooFresh", {"announcedBlock": block, "current": block})
    assert why_reverted(stage.chain, receipts[1]) == reason
    assert rewarded(play) == [honest]


# --- row 1: a proof in the open window --------------------------------------------------------------------------------


def late_prover(stage: Stage) -> tuple[Play, InstantSender, InstantSender, InstantSender]:
    """A job whose drawn prover let its time go by; an honest supporter with a proof, another one, and the prover."""
    play = stage.request(with_policy(committee_size=3)).to_proving()
    prover = stage.by_address(play.round(0).prover)
    honest, copier = (worker for worker in stage.workers if worker.address != prover.address)
    play.lapse(spare_seconds=POLICY.prove_seconds)
    return play, honest, copier, prover


def front_run_proof(play: Play, honest: InstantSender, copier: InstantSender) -> None:
    play.announce(0, honest)
    seen = pending(play.stage.chain, lambda: play.prove(0, honest))
    copier.send_raw("prove", {"from": copier.address, **seen})


def test_copied_proof__defence_removed__copier_is_paid(build: Callable[..., Stage]) -> None:
    stage = build(UNANNOUNCED, segments=1)
    play, honest, copier, _ = late_prover(stage)
    front_run_proof(play, honest, copier)
    assert play.round(0).proved_by == copier.address
    with refused("WrongPhase", jobId=play.job, actual=Phase.FINALISABLE):
        play.prove(0, honest)


def test_copied_proof__refused_because_the_copier_announced_nothing(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play, honest, copier, _ = late_prover(stage)
    expected = play.announcement(0, copier, hashing.proof_hash(*play.proof(0)))
    with refused("ProofNotAnnounced", jobId=play.job, segment=0, caller=copier.address, expected=expected):
        front_run_proof(play, honest, copier)
    play.prove(0, honest)
    assert play.round(0).proved_by == honest.address


def test_copied_proof__by_the_late_prover__refused_because_it_announced_nothing(build: Callable[..., Stage]) -> None:
    """Or it would never compute a proof: it would wait for somebody else's, and lose nothing."""
    stage = build(segments=1)
    play, honest, _, prover = late_prover(stage)
    expected = play.announcement(0, prover, hashing.proof_hash(*play.proof(0)))
    with refused("ProofNotAnnounced", jobId=play.job, segment=0, caller=prover.address, expected=expected):
        front_run_proof(play, honest, prover)
    bond = stage.contracts.staking.active_of(prover.address)
    play.prove(0, honest)
    assert play.round(0).proved_by == honest.address
    assert stage.contracts.staking.active_of(prover.address) < bond


def test_copied_proof__by_a_stranger__refused(build: Callable[..., Stage]) -> None:
    """Even a second proof of one's own is for members of that round alone."""
    stage = build(segments=1)
    play, honest, _, _ = late_prover(stage)
    with refused("NotMember", jobId=play.job, segment=0, caller=stage.owner.address):
        front_run_proof(play, honest, stage.owner)


# --- row 3: a commitment ----------------------------------------------------------------------------------------------


def copy_commitment(stage: Stage) -> tuple[Play, InstantSender]:
    """A member that computes nothing sends another's commitment again, and then what that one reveals."""
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    *honest, copier = play.members()
    link, salt = play.truth(0), keccak(b"salt of an honest member")
    commitment = play.jobs.contract.functions.commitmentOf(play.job, 0, 0, honest[0].address, link, salt).call()
    play.jobs.commit(honest[0], play.job, *play.under_way, commitment)
    play.commit(honest[1])
    play.jobs.commit(copier, play.job, *play.under_way, commitment)
    play.jobs.reveal(honest[0], play.job, link, salt, keccak(b"activation"))
    play.jobs.reveal(copier, play.job, link, salt, keccak(b"activation"))
    return play, copier


def test_copied_commitment__defence_removed__copier_is_paid_for_anothers_work(build: Callable[..., Stage]) -> None:
    stage = build(ANYBODYS_COMMITMENT, segments=1)
    play, copier = copy_commitment(stage)
    play.lapse()
    play.settle()
    play.lapse()
    play.finalise()
    assert stage.credits()[copier.address] > 0


def test_copied_commitment__refused_when_it_is_revealed(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    *honest, copier = play.members()
    for member in honest:
        play.commit(member)
    link, salt = play.secrets[0, 0, honest[0].address]
    stolen = play.round(0).members[0].commitment
    play.jobs.commit(copier, play.job, *play.under_way, stolen)
    play.reveal(honest[0])
    actual = play.commitment(copier, 0, link, salt)
    with refused("CommitmentMismatch", expected=stolen, actual=actual):
        play.jobs.reveal(copier, play.job, link, salt, keccak(b"activation"))
    play.reveal(honest[1])
    play.lapse()
    play.settle()
    play.lapse()
    play.finalise()
    assert stage.credits()[copier.address] == 0
    assert play.round(0).members[2].link == ZERO_HASH

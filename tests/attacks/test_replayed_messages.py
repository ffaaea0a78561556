"""Rows 2 and 10: what was true of one job, segment or chain is worth nothing in another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from eth_hash.auto import keccak

from offchain.chain.errors import TransactionRefused
from offchain.protocol.types import ZERO_HASH, Link, Phase
from tests.attacks.mutant import Change, Mutant, pending
from tests.contracts.stage import Play, Stage, commitment_link, refused, with_policy
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

OTHER_ACTIVATION = keccak(b"another x") + keccak(b"another y")

UNLINKED = Mutant(
    Change("jobs/JobProofs.sol", "if (linkIn != opening) revert OpeningLinkMismatch(segment, opening, linkIn);")
)
UNCLOSED = Mutant(
    Change("jobs/JobProofs.sol", "if (linkOut != closing) revert ClosingLinkMismatch(segment, closing, linkOut);")
)
NEVER_CONSUMED = Mutant(
    Change(
        "jobs/JobProofs.sol",
        "if (round.prover == address(0)) revert ProofNotDue(jobId, segment);\n"
        "        if (round.proofHash != 0) revert AlreadyProved(jobId, segment);",
        "if (round.prover == address(0)) revert ProofNotDue(jobId, segment);",
    )
)
ANY_ROUND = Mutant(
    Change(
        "jobs/JobRounds.sol",
        "if (segment != job.segment || attempt != _attempt(job, segment)) {",
        "(segment, attempt) = (job.segment, _attempt(job, job.segment));\n        if (segment > 99) {",
    )
)

COMMITMENT = "abi.encode(COMMIT_TAG, block.chainid, address(this), jobId, segment, attempt, operator, link, salt)"
ANY_CHAIN = Mutant(
    Change("jobs/JobRecord.sol", COMMITMENT, COMMITMENT.replace("block.chainid", "uint256(31337)"))  # Anvil's own
)
ANY_JOB = Mutant(Change("jobs/JobRecord.sol", COMMITMENT, COMMITMENT.replace("jobId", "bytes32(0)")))


# --- another job ------------------------------------------------------------------------------------------------------


def answer_of_another_job(stage: Stage) -> Play:
    """A job over another input, whose committee answers what it found in a job before, and has that one's proof."""
    play = stage.request(input_link=commitment_link(OTHER_ACTIVATION))
    return play.to_proving()


def test_proof_of_another_job__defence_removed__old_answer_counts_as_proved(build: Callable[..., Stage]) -> None:
    stage = build(UNLINKED, segments=1)
    play = answer_of_another_job(stage)
    play.prove(0)
    play.finalise()
    assert play.phase is Phase.FINALISED
    assert play.round(0).proof_hash != ZERO_HASH


def test_proof_of_another_job__refused_because_it_opens_with_another_input(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play = answer_of_another_job(stage)
    expected, actual = commitment_link(OTHER_ACTIVATION), commitment_link(stage._boundary(0))
    with refused("OpeningLinkMismatch", segment=0, expected=expected, actual=actual):
        play.prove(0)


# --- two honest jobs, spliced -----------------------------------------------------------------------------------------


def spliced(stage: Stage) -> Play:
    """Segment 0 settled on one activation, segment 1 on what another job made of another one."""
    play = stage.request().to_committing()
    ours = {worker.address: commitment_link(OTHER_ACTIVATION) for worker in stage.workers}
    play.play_round(ours)
    play.play_round()
    play.play_round()
    play.draw()
    opening = play.stage._boundary(0)
    proof = (opening + OTHER_ACTIVATION).ljust(256, b"\1")
    play.prove(0, proof=proof)
    return play


def test_spliced_segments__defence_removed__result_of_another_input_is_proved(build: Callable[..., Stage]) -> None:
    stage = build(UNLINKED)
    play = spliced(stage)
    play.prove(1)
    play.prove(2)
    play.finalise()
    assert play.round(0).settled_link != commitment_link(stage._boundary(1))
    assert play.round(2).settled_link == play.truth(2)


def test_spliced_segments__refused_because_the_links_differ(build: Callable[..., Stage]) -> None:
    stage = build()
    play = spliced(stage)
    expected, actual = commitment_link(OTHER_ACTIVATION), commitment_link(stage._boundary(1))
    with refused("OpeningLinkMismatch", segment=1, expected=expected, actual=actual):
        play.prove(1)
    play.prove(2)
    assert play.round(1).proof_hash == ZERO_HASH


def result_that_nobody_computed(stage: Stage) -> tuple[Play, Link]:
    """A committee that lies with one voice, and an honest proof."""
    lie = Link(keccak(b"a lie"))
    play = stage.request().to_committing()
    play.play_round({worker.address: lie for worker in stage.workers})
    play.draw()
    return play, lie


def test_proof_of_another_result__defence_removed__lie_counts_as_proved(build: Callable[..., Stage]) -> None:
    play, lie = result_that_nobody_computed(build(UNCLOSED, segments=1))
    play.prove(0)
    play.finalise()
    assert (play.round(0).settled_link, play.phase) == (lie, Phase.FINALISED)


def test_proof_of_another_result__refused_because_it_closes_with_another_link(build: Callable[..., Stage]) -> None:
    play, lie = result_that_nobody_computed(build(segments=1))
    with refused("ClosingLinkMismatch", segment=0, expected=lie, actual=play.truth(0)):
        play.prove(0)


# --- the same proof again ---------------------------------------------------------------------------------------------


def test_proof_sent_again__defence_removed__stands_for_all_the_others(build: Callable[..., Stage]) -> None:
    stage = build(NEVER_CONSUMED)
    play = stage.request().to_proving()
    for _ in range(3):
        play.prove(0)
    assert play.phase is Phase.CHALLENGEABLE
    assert [play.round(segment).proof_hash == ZERO_HASH for segment in range(3)] == [False, True, True]
    play.lapse()
    play.finalise()


def test_proof_sent_again__refused_because_it_was_consumed(build: Callable[..., Stage]) -> None:
    stage = build()
    play = stage.request().to_proving()
    play.prove(0)
    with refused("AlreadyProved", jobId=play.job, segment=0):
        play.prove(0)
    assert (play.phase, play.record.proofs_due) == (Phase.PROVING, 2)


# --- commitments of another chain, and of another job -----------------------------------------------------------------


@contextmanager
def forked(stage: Stage) -> Iterator[None]:
    """A fork of the chain has every job of it, with all that was committed to."""
    here = stage.contracts.connection.chain_id
    stage.chain.rpc("anvil_setChainId", here + 1)
    try:
        yield
    finally:
        stage.chain.rpc("anvil_setChainId", here)


def commitment_on_chain(play: Play, member: InstantSender) -> bytes:
    """What the contract takes a member's link and salt for, here and now."""
    link, salt = play.secrets[0, 0, member.address]
    return bytes(play.jobs.contract.functions.commitmentOf(play.job, 0, 0, member.address, link, salt).call())


def test_commitment_of_one_chain__defence_removed__counts_on_another(build: Callable[..., Stage]) -> None:
    stage = build(ANY_CHAIN, segments=1)
    play = stage.request().to_committing().to_revealing()
    member = play.members()[0]
    with forked(stage):
        play.reveal(member)
    assert play.round(0).members[0].link == play.truth(0)


def test_commitment_of_one_chain__refused_on_another(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play = stage.request().to_committing().to_revealing()
    member = play.members()[0]
    with forked(stage):
        actual = commitment_on_chain(play, member)
        with refused("CommitmentMismatch", expected=play.round(0).members[0].commitment, actual=actual):
            play.reveal(member)
    play.reveal(member)


def committed_to_another_job(stage: Stage) -> Play:
    """The same input, model, committee and answer; nobody may have worked for the second job."""
    unproved = with_policy(proof_permille=0)
    first, second = (stage.request(unproved).to_committing() for _ in range(2))
    for member in stage.workers:
        first.commit(member)
        second.jobs.commit(member, second.job, *second.under_way, commitment_on_chain(first, member))
    second.secrets = first.secrets
    return second


def test_commitment_of_one_job__defence_removed__pays_for_another(build: Callable[..., Stage]) -> None:
    stage = build(ANY_JOB, segments=1)
    play = committed_to_another_job(stage)
    for member in stage.workers:
        play.reveal(member)
    play.lapse()
    play.finalise()
    assert all(stage.credits()[member.address] > 0 for member in stage.workers)


def test_commitment_of_one_job__refused_in_another(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play = committed_to_another_job(stage)
    for member, recorded in zip(play.members(), play.round(0).members, strict=True):
        with refused("CommitmentMismatch", expected=recorded.commitment, actual=commitment_on_chain(play, member)):
            play.reveal(member)


# --- a round that a proof has overtaken -------------------------------------------------------------------------------

SIX = tuple(3 * ETHER + odd for odd in (1, 3, 5, 7, 11, 13))


def overtaken(stage: Stage) -> tuple[Play, InstantSender]:
    """A member's commitment was on its way when the segment before it was overturned; it lands in the round after."""
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    *liars, challenger = play.members()
    play.play_round({liar.address: Link(keccak(b"a lie")) for liar in liars})
    late = play.members()[0]
    waiting = pending(stage.chain, lambda: play.commit(late))
    play.challenge(0, challenger)
    assert (play.record.segment, play.attempt(1)) == (1, 1)
    late.send_raw("commit", {"from": late.address, **waiting})
    return play, late


def test_overtaken_commitment__defence_removed__honest_member_cannot_reveal_and_pays(
    build: Callable[..., Stage],
) -> None:
    stage = build(ANY_ROUND, segments=2, stakes=SIX)
    play, late = overtaken(stage)
    with refused("AlreadyCommitted", jobId=play.job, segment=1, operator=late.address):
        play.commit(late)
    bond = stage.contracts.staking.active_of(late.address)
    for other in play.members()[1:]:
        play.commit(other)
    for other in play.members()[1:]:
        play.reveal(other)
    play.lapse()
    play.settle()
    assert stage.contracts.staking.active_of(late.address) < bond


def test_overtaken_commitment__refused_because_it_names_its_round(build: Callable[..., Stage]) -> None:
    stage = build(segments=2, stakes=SIX)
    with pytest.raises(TransactionRefused) as caught:
        overtaken(stage)
    named = {name: caught.value.arguments[name] for name in ("segment", "attempt")}
    assert (caught.value.error, named) == ("WrongRound", {"segment": 1, "attempt": 1})

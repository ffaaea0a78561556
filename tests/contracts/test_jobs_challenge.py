"""Overturning what a quorum agreed on: when, by whom, against whom, and how the job goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from eth_hash.auto import keccak

from offchain.protocol import hashing
from offchain.protocol.types import (
    UNAVAILABLE,
    ZERO_ADDRESS,
    ZERO_HASH,
    Label,
    Link,
    Phase,
    Reason,
)
from tests.contracts.record import (
    CHALLENGER_SHARE_BPS,
    CONTRADICTION_BPS,
    REQUESTER_SHARE_BPS,
    compensations,
    events_of,
    penalties,
    release_all,
    share,
    stakes_of,
)
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, commitment_link, refused, with_policy
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

OTHER = keccak(b"other x") + keccak(b"other y")
"""The commitment of an output that nobody honest has."""
WRONG = commitment_link(OTHER)
THIRD = Link(keccak(b"a third output"))
UNPROVED = with_policy(proof_permille=0)


def lies(workers: Sequence[InstantSender], link: Link = WRONG) -> dict[str, Link]:
    """What these workers reveal."""
    return {worker.address: link for worker in workers}


def begin(stage: Stage, permille: int = 1000) -> Play:
    """A job whose first segment two of three settled wrongly; the third is `stage.workers[0]`."""
    play = stage.request(with_policy(proof_permille=permille)).to_committing()
    play.play_round(lies(stage.workers[1:]))
    assert play.round(0).settled_link == WRONG
    return play


def commit_two(play: Play) -> None:
    for worker in play.members()[:2]:
        play.commit(worker)


def reveal_two(play: Play) -> None:
    for worker in play.members()[:2]:
        play.reveal(worker)
    play.lapse()


def contest(play: Play) -> None:
    play.play_round({worker.address: Link(keccak(worker.address.encode())) for worker in play.members()})


REACH: dict[str, tuple[Callable[[Play], object], Phase, tuple[int, ...]]] = {
    "committing": (lambda play: None, Phase.COMMITTING, (0, 1, 0)),
    "drawing": (lambda play: play.commit_all(), Phase.DRAWING, (0, 1, 0)),
    "drawing, lapsed": (lambda play: (commit_two(play), play.lapse()), Phase.DRAWING, (0, 1, 0)),
    "redrawing": (lambda play: (play.lapse(), play.draw()), Phase.DRAWING, (0, 1, 0)),
    "revealing": (lambda play: play.to_revealing(), Phase.REVEALING, (0, 1, 1)),
    "settling": (lambda play: reveal_two(play.to_revealing()), Phase.SETTLING, (0, 1, 1)),
    "contested": (contest, Phase.CONTESTED, (0, 1, 1)),
    "last committing": (lambda play: play.play_round(), Phase.COMMITTING, (0, 1, 1)),
    "last revealing": (lambda play: play.play_round().commit_all(), Phase.REVEALING, (0, 1, 1)),
    "last revealing, lapsed": (
        lambda play: (commit_two(play.play_round()), play.lapse()),
        Phase.REVEALING,
        (0, 1, 1),
    ),
    "last settling": (lambda play: reveal_two(play.play_round().commit_all()), Phase.SETTLING, (0, 1, 1)),
    "last contested": (lambda play: contest(play.play_round()), Phase.CONTESTED, (0, 1, 1)),
    "sampling": (lambda play: play.play_round().play_round(), Phase.SAMPLING, (0, 1, 1)),
    "proving": (lambda play: play.play_round().play_round().draw(), Phase.PROVING, (0, 1, 1)),
}


@pytest.mark.parametrize("reach", REACH)
def test_challenge__first_segment_in_any_later_phase__is_overturned_and_done_again_from_there(
    stage: Stage, reach: str
) -> None:
    go, phase, attempts = REACH[reach]
    play, challenger = begin(stage), stage.workers[0]
    committee = [(member.operator, member.weight) for member in play.round(1).members]
    go(play)
    assert play.phase is phase
    redrawn = reach == "redrawing"
    before = play.record.attempts
    play.challenge(0, challenger)

    record, overturned = play.record, play.round(0)
    assert (overturned.settled_link, overturned.settled_weight) == (play.truth(0), STAKES[0])
    assert (overturned.overturned, overturned.label, overturned.proved_by) == (True, Label.PROVED, challenger.address)
    assert overturned.proof_hash == hashing.proof_hash(*play.proof(0))
    assert play.jobs._read("labelOf", play.job, 0) == Label.PROVED
    assert (record.segment, record.proofs_due, record.attempts) == (1, 0, attempts)
    assert play.round(2).members == ()
    if redrawn:  # it was to have another committee in any case
        assert (before, play.phase, play.round(1).members) == ((0, 1, 0), Phase.DRAWING, ())
        assert record.seed_block == stage.chain.connection.block_number()
    else:
        assert play.phase is Phase.COMMITTING
        window = POLICY.input_seconds + POLICY.commit_seconds  # the challenger may have to seal its output again
        assert record.deadline == stage.chain.connection.timestamp() + window
        assert record.seed_block == 0
        again = play.round(1)
        assert [(member.operator, member.weight) for member in again.members] == committee
        assert {(m.commitment, m.link, m.activation_cid) for m in again.members} == {(ZERO_HASH,) * 3}
        assert again.total_weight == sum(weight for _, weight in committee)
    play.play_on()
    assert play.phase is Phase.FINALISED
    assert [play.round(segment).label for segment in range(3)] == [Label.PROVED] * 3


def test_challenge__time_for_challenges__ends_with_the_deadline(stage: Stage) -> None:
    play, challenger = begin(stage, permille=0), stage.workers[0]
    play.play_round().play_round()
    play.announce(0, challenger)
    deadline = play.record.deadline
    assert play.phase is Phase.CHALLENGEABLE
    with stage.chain.isolated():
        challenger.at = deadline - 1
        play.challenge(0, challenger, announced=True)
        assert (play.phase, play.record.segment) == (Phase.COMMITTING, 1)
    challenger.at = deadline
    with refused("WrongPhase", jobId=play.job, actual=Phase.FINALISABLE):
        play.challenge(0, challenger, announced=True)
    play.lapse()
    with refused("WrongPhase", jobId=play.job, actual=Phase.FINALISABLE):
        play.announce(0, challenger)
    play.finalise()
    with refused("WrongPhase", jobId=play.job, actual=Phase.FINALISED):
        play.challenge(0, challenger, announced=True)


def test_challenge__expired_or_failed__is_refused(stage: Stage) -> None:
    play, challenger = begin(stage), stage.workers[0]
    play.commit_all()
    play.announce(0, challenger)
    play.lapse()
    with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
        play.challenge(0, challenger, announced=True)
    play.expire()
    with refused("WrongPhase", jobId=play.job, actual=Phase.FAILED):
        play.challenge(0, challenger, announced=True)


def test_challenge__least_stake_against_the_most__wins(stage: Stage) -> None:
    small = stage.chain.instant("small")
    for worker in stage.workers:
        stage.contracts.staking.bond(worker, 1000 * ETHER)
    stage.join(small, ETHER)
    stage.workers += (small,)
    policy = with_policy(committee_size=4, proof_permille=0, quorum_bps=9990)
    play = stage.request(policy).to_committing()
    play.play_round(lies(stage.workers[:3]))
    stake_against = play.round(0).settled_weight
    assert play.round(0).settled_link == WRONG
    play.challenge(0, small)
    (overturned,) = events_of(play, "SegmentOverturned")
    assert overturned.arguments == {
        "jobId": play.job,
        "segment": 0,
        "challenger": small.address,
        "before": WRONG,
        "proved": play.truth(0),
        "stakeAgainst": stake_against,
    }
    assert (play.round(0).settled_weight, play.round(0).total_weight) == (ETHER, stake_against + ETHER)
    assert len(penalties(play)) == 3


def test_challenge__whoever_has_nothing_to_challenge__is_refused(stage: Stage) -> None:
    play = stage.request(with_policy(committee_size=2, quorum_bps=5001)).to_committing()
    members = play.members()
    (outsider,) = [worker for worker in stage.workers if worker not in members]
    refusal = {"jobId": play.job, "caller": members[0].address}
    play.announce(0, members[0])
    with refused("NothingToChallenge", segment=0, **refusal):  # nothing revealed, nothing settled
        play.challenge(0, members[0], announced=True)
    with refused("NothingToChallenge", segment=1, **refusal):  # of the future
        play.challenge(1, members[0], announced=True)
    with refused("NothingToChallenge", segment=2**200, **refusal):
        play.jobs.challenge(members[0], play.job, 2**200, b"", (), keccak(b"proof"))
    play.play_round()
    with refused("NothingToChallenge", segment=0, **refusal):  # a supporter
        play.challenge(0, members[0])
    with refused("NotMember", jobId=play.job, segment=0, caller=outsider.address):
        play.challenge(0, outsider, announced=True)


def test_challenge__revealed_output_of_a_segment_under_way__waits_until_it_is_settled(stage: Stage) -> None:
    play = stage.request().to_committing().to_revealing(lies(stage.workers[1:]))
    play.reveal(stage.workers[0])
    with refused("NothingToChallenge", jobId=play.job, segment=0, caller=stage.workers[0].address):
        play.challenge(0, stage.workers[0])


def test_challenge__member_that_voted_or_was_silent__has_no_output_to_prove(stage: Stage) -> None:
    play = stage.request().to_committing()
    voter = stage.workers[0]
    play.play_round(lies(stage.workers[1:]) | {voter.address: UNAVAILABLE})
    with refused("NothingToChallenge", jobId=play.job, segment=0, caller=voter.address):
        play.challenge(0, voter)
    commit_all_but(play, voter, lies(stage.workers[1:]))
    assert play.round(1).settled_link == WRONG
    with refused("NothingToChallenge", jobId=play.job, segment=1, caller=voter.address):
        play.challenge(1, voter)


def commit_all_but(play: Play, silent: InstantSender, votes: dict[str, Link]) -> None:
    """One round in which one member does nothing."""
    others = [worker for worker in play.members() if worker != silent]
    for worker in others:
        play.commit(worker, votes[worker.address])
    play.lapse()
    play.draw()
    play.draw()
    for worker in others:
        play.reveal(worker)


def test_challenge__proved_segment__is_refused(stage: Stage) -> None:
    play = stage.request().to_committing()
    liar = stage.workers[0]
    play.play_round(lies([liar]))
    play.play_round().play_round().draw()
    play.prove(0)
    with refused("AlreadyProved", jobId=play.job, segment=0):
        play.challenge(0, liar)


def test_challenge__overturned_segment__cannot_be_challenged_again(stage: Stage) -> None:
    play = stage.request().to_committing()
    play.play_round(lies(stage.workers[1:2]) | lies(stage.workers[2:], WRONG))
    play.challenge(0, stage.workers[0])
    for worker in stage.workers:
        with refused("AlreadyProved", jobId=play.job, segment=0):
            play.challenge(0, worker)


def test_challenge__proof_that_does_not_fit__changes_nothing(stage: Stage) -> None:
    play, challenger = begin(stage), stage.workers[0]
    proof, instances = play.proof(0)
    spliced = OTHER + proof[64:]
    with refused("OpeningLinkMismatch", segment=0, expected=play.record.input_link, actual=commitment_link(OTHER)):
        play.challenge(0, challenger, proof=spliced)
    # It has to be what the challenger itself revealed.
    forged = proof[:64] + OTHER + proof[128:]
    with refused("ClosingLinkMismatch", segment=0, expected=play.truth(0), actual=WRONG):
        play.challenge(0, challenger, proof=forged)
    with refused("ValueIsZero", field="proofCid"):
        play.challenge(0, challenger, proof_cid=ZERO_HASH)
    with refused("ProofLengthMismatch", segment=0, expected=256, actual=255):
        play.challenge(0, challenger, proof=proof[:-1])
    assert (play.round(0).settled_link, play.round(0).proof_hash, penalties(play)) == (WRONG, ZERO_HASH, [])
    play.challenge(0, challenger, proof=proof, instances=instances)


def test_challenge__verifier_that_says_no__changes_nothing(stage: Stage) -> None:
    model = stage.register_segments(2, "strict", answer=1)
    for worker in stage.workers:
        stage.contracts.staking.serve(worker, model)
    play = stage.request(model_id=model).to_committing().play_round(lies(stage.workers[1:]))
    with refused("ProofRejected", modelId=model, segment=0):
        play.challenge(0, stage.workers[0])
    assert not play.round(0).overturned


def test_challenge__behind_a_wrong_segment__has_to_open_with_what_that_settled_on(stage: Stage) -> None:
    play, challenger = begin(stage), stage.workers[0]
    play.play_round(lies(stage.workers[1:], THIRD))
    with refused("OpeningLinkMismatch", segment=1, expected=WRONG, actual=play.truth(0)):
        play.challenge(1, challenger)
    play.challenge(0, challenger)
    assert play.record.attempts == (0, 1, 1)


def compensation(taken: Sequence[int]) -> tuple[int, int, int]:
    """For the challenger, for the requester, burnt."""
    challenger, requester = (
        sum(share(amount, bps) for amount in taken) for bps in (CHALLENGER_SHARE_BPS, REQUESTER_SHARE_BPS)
    )
    return challenger, requester, sum(taken) - challenger - requester


@pytest.mark.parametrize("third", [False, True], ids=["two outputs", "three outputs"])
def test_challenge__stakes_it_took__are_held_and_then_shared_to_the_wei(stage: Stage, third: bool) -> None:
    if third:  # whoever revealed a third output contradicts the proof too
        odd = stage.chain.instant("odd")
        stage.join(odd, ETHER + 3)
        stage.workers += (odd,)
    play = stage.request(with_policy(committee_size=3 + third, quorum_bps=5001)).to_committing()
    challenger, *liars = stage.workers
    play.play_round(lies(liars[:2]) | lies(liars[2:], THIRD))
    jobs, staking, connection = stage.contracts.jobs, stage.contracts.staking, stage.chain.connection
    play.announce(0, challenger)
    balances = {address: connection.balance(address) for address in (jobs.address, staking.address, ZERO_ADDRESS)}
    bonds = stakes_of(stage)
    play.challenge(0, challenger, announced=True)
    taken = {worker.address: share(weight_of(play, worker), CONTRADICTION_BPS) for worker in liars}
    assert {(segment, operator, reason, amount) for segment, operator, reason, amount in penalties(play)} == {
        (0, operator, Reason.CONTRADICTED_PROOF, amount) for operator, amount in taken.items()
    }
    # Nobody has anything of it yet, and it is in no bond any more.
    assert {address: connection.balance(address) for address in balances} == balances
    assert (set(stage.credits().values()), compensations(stage)) == ({0}, {})
    assert stakes_of(stage) == bonds - sum(taken.values())
    # The fee is still there, and pays those who stand by the outputs.
    play.play_on()
    assert play.phase is Phase.FINALISED
    assert sum(stage.credits().values()) == FEE

    assert {hold.operator: hold.amount for hold in release_all(play)} == taken
    for_challenger, for_requester, burnt = compensation(list(taken.values()))
    assert burnt * 2 >= sum(taken.values())
    assert compensations(stage) == {challenger.address: for_challenger, stage.requester.address: for_requester}
    assert sum(stage.credits().values()) == FEE
    assert {address: connection.balance(address) - before for address, before in balances.items()} == {
        jobs.address: 0,
        staking.address: -burnt,
        ZERO_ADDRESS: burnt,
    }


def weight_of(play: Play, worker: InstantSender) -> int:
    member = play.round(0).member(worker.address)
    assert member is not None
    return member.weight


def test_challenge__liars_with_nothing_left__bring_nothing_and_the_job_goes_on(stage: Stage) -> None:
    play, staking = begin(stage), stage.contracts.staking
    stage.chain.fund(stage.contracts.jobs.address, 10 * ETHER)
    for worker in stage.workers[1:]:
        data = staking.contract.functions.slash(worker.address, 10 * ETHER, stage.model)
        stage.owner.send_raw(
            "slash",
            {
                "from": stage.contracts.jobs.address,
                "to": staking.address,
                "data": data._encode_transaction_data(),
            },
        )
    play.challenge(0, stage.workers[0])
    assert [amount for *_, amount in penalties(play)] == [0, 0]
    assert play.round(0).overturned
    release_all(play)
    assert (set(stage.credits().values()), compensations(stage)) == ({0}, {})


def test_challenge__own_accomplices__cost_more_than_they_bring(stage: Stage) -> None:
    # Whoever is requester, challenger and liar at once gets less than half of what it loses.
    play = begin(stage)
    before = stakes_of(stage)
    play.challenge(0, stage.workers[0])
    release_all(play)
    assert 0 < sum(compensations(stage).values()) * 2 <= before - stakes_of(stage)

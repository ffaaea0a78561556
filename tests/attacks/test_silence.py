"""Rows 8 and 9: whoever says nothing, or keeps what it owes to others, pays for it and stops nobody."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offchain.chain.events import job_events
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, Phase
from tests.attacks.mutant import Change, Mutant
from tests.contracts.stage import STAKES, Play, Stage, refused, with_policy
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

MISS_BPS = 100  # migrations/config/local.json
SIX = tuple(3 * ETHER + odd for odd in (1, 3, 5, 7, 11, 13))
"""Any two of a committee of three hold a quorum of 60 %."""

SILENCE_IS_FREE = Mutant(Change("jobs/JobRounds.sol", "if (hasOutput) _penaliseSilent(jobId, segment, round);"))
NOBODY_SETTLES = Mutant(
    Change("jobs/JobRecord.sol", "if (stored == Phase.Revealing && late == 0) return Phase.Settling;")
)
NO_REDRAW = Mutant(
    Change("jobs/JobRounds.sol", "if (_isShort(job, round)) {", "if (_isShort(job, round) && segment > 99) {")
)
WITHHOLDING_IS_FREE = Mutant(
    Change("jobs/JobRounds.sol", "_penaliseMiss(jobId, segment - 1, before.members[i], Reason.WithheldActivation);")
)
VOTES_ARE_FINAL = Mutant(
    Change(
        "jobs/JobRounds.sol",
        "if (!hasOutput && segment == 0) return _failWithoutOutput(jobId, job);",
        "(bytes32 most,) = Tally.leading(members);"
        " if (!hasOutput || !Tally.isOutput(most)) return _failWithoutOutput(jobId, job);",
    )
)


def bonds(stage: Stage) -> list[int]:
    return [stage.contracts.staking.active_of(worker.address) for worker in stage.workers]


def events_of(stage: Stage, play: Play) -> list[tuple[str, dict[str, object]]]:
    head = stage.contracts.connection.block_number()
    return [(event.name, event.arguments) for event in job_events(stage.contracts, play.job, head, head)]


# --- row 8 ------------------------------------------------------------------------------------------------------------


def one_never_reveals(stage: Stage) -> tuple[Play, InstantSender]:
    """A member commits, waits to see what the others say, and says nothing."""
    play = stage.request(with_policy(proof_permille=0)).to_committing().to_revealing()
    silent = stage.workers[0]
    for worker in stage.workers[1:]:
        play.reveal(worker)
    play.lapse()
    return play, silent


def test_no_reveal__defence_removed__silence_is_free(build: Callable[..., Stage]) -> None:
    stage = build(SILENCE_IS_FREE, segments=1)
    play, _ = one_never_reveals(stage)
    play.settle()
    assert bonds(stage) == list(STAKES)


def test_no_reveal__costs_stake_and_stops_nobody(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play, silent = one_never_reveals(stage)
    with refused("WrongPhase", jobId=play.job, actual=Phase.SETTLING):
        play.reveal(silent)
    play.settle()
    assert bonds(stage) == [STAKES[0] - STAKES[0] * MISS_BPS // 10_000, *STAKES[1:]]
    play.lapse()
    play.finalise()
    assert stage.credits()[silent.address] == 0


def test_no_reveal__defence_removed__one_of_three_undoes_the_others_work(build: Callable[..., Stage]) -> None:
    stage = build(NOBODY_SETTLES, segments=1)
    play, _ = one_never_reveals(stage)
    with refused("WrongPhase", jobId=play.job, actual=Phase.EXPIRED):
        play.settle()
    play.expire()
    assert stage.credits()[stage.workers[1].address] == 0


def most_never_commit(stage: Stage) -> Play:
    """Two of the first committee are silent from the beginning."""
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    play.commit(play.members()[0])
    play.lapse()
    return play


def test_no_commit__defence_removed__two_of_six_workers_stop_the_job(build: Callable[..., Stage]) -> None:
    stage = build(NO_REDRAW, segments=2, stakes=SIX)
    play = most_never_commit(stage)
    play.draw()
    play.draw()
    play.reveal(play.members()[0])
    assert play.phase is Phase.CONTESTED
    play.lapse()
    play.expire()
    assert play.phase is Phase.FAILED


def test_no_commit__another_committee_does_it_and_the_silent_pay(build: Callable[..., Stage]) -> None:
    stage = build(segments=2, stakes=SIX)
    play = most_never_commit(stage)
    first = play.members()
    before = bonds(stage)
    play.draw()
    play.to_committing()
    assert not {worker.address for worker in play.members()} & {worker.address for worker in first}
    assert sum(after < bond for after, bond in zip(bonds(stage), before, strict=True)) == 2
    play.play_round().play_round()
    play.lapse()
    play.finalise()
    assert play.phase is Phase.FINALISED


# --- row 9 ------------------------------------------------------------------------------------------------------------


def activation_withheld(stage: Stage) -> Play:
    """The first committee settles and pins nothing: the second cannot work, and says so."""
    play = stage.request(with_policy(proof_permille=0)).to_committing().play_round()
    play.play_round({worker.address: UNAVAILABLE for worker in stage.workers})
    # Nobody shows in time that what is missing was a lie.
    play.lapse()
    play.expire()
    return play


def test_withheld_activation__defence_removed__costs_nothing(build: Callable[..., Stage]) -> None:
    stage = build(WITHHOLDING_IS_FREE, segments=2)
    play = activation_withheld(stage)
    assert (play.phase, bonds(stage)) == (Phase.FAILED, list(STAKES))


def test_withheld_activation__costs_those_who_kept_it(build: Callable[..., Stage]) -> None:
    stage = build(segments=2, stakes=SIX)
    play = activation_withheld(stage)
    kept = {member.operator for member in play.round(0).members}
    expected = [
        stake - stake * MISS_BPS // 10_000 if worker.address in kept else stake
        for worker, stake in zip(stage.workers, SIX, strict=True)
    ]
    assert bonds(stage) == expected
    assert events_of(stage, play)[-1][0] == "JobFailed"
    assert stage.credits()[stage.requester.address] == play.record.fee_wei


def falsely_unavailable(stage: Stage) -> tuple[Play, InstantSender]:
    """Two of the second committee say that they got nothing; one did the work."""
    play = stage.request(with_policy(proof_permille=0)).to_committing().play_round()
    *liars, honest = play.members()
    play.play_round({liar.address: UNAVAILABLE for liar in liars})
    return play, honest


def test_false_vote__defence_removed__those_who_did_their_part_lose_stake(build: Callable[..., Stage]) -> None:
    stage = build(VOTES_ARE_FINAL, segments=2, stakes=SIX)
    play, _ = falsely_unavailable(stage)
    assert play.phase is Phase.FAILED
    assert sum(after < stake for after, stake in zip(bonds(stage), SIX, strict=True)) == 3


def test_false_vote__is_overruled_by_one_proof(build: Callable[..., Stage]) -> None:
    stage = build(segments=2, stakes=SIX)
    play, honest = falsely_unavailable(stage)
    assert play.phase is Phase.CONTESTED
    play.challenge(1, honest)
    assert play.round(1).settled_link == play.truth(1)
    assert bonds(stage) == list(SIX)
    play.lapse()
    play.finalise()
    voters = {member.operator for member in play.round(1).members if member.operator != honest.address}
    assert all(stage.credits()[voter] == 0 for voter in voters)


def test_false_vote__of_bad_input__is_overruled_by_one_proof_too(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play = stage.request(with_policy(proof_permille=0)).to_committing()
    *liars, honest = play.members()
    play.play_round({liar.address: BAD_INPUT for liar in liars})
    play.challenge(0, honest)
    play.finalise()
    assert (play.phase, bonds(stage)) == (Phase.FINALISED, list(STAKES))

"""Row 42: a requester that wastes its committee's time pays for it, and cannot make it lose anything."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import pytest
from eth_hash.auto import keccak

from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, Link, ModelId, Phase
from tests.attacks.mutant import Change, Mutant
from tests.contracts.stage import FEE, POLICY, STAKES, Play, Stage, refused, with_policy
from tests.local_chain import ETHER, InstantSender

pytestmark = pytest.mark.integration

FAULT_BPS = 2_000  # migrations/config/local.json
MINIMUM_WINDOW, MAXIMUM_WINDOW = 5, 3_600

SILENT_REQUESTER_IS_FREE = Mutant(
    Change(
        "Jobs.sol",
        "if (job.phase == Phase.AwaitingInput && hadTime) {",
        "if (job.phase == Phase.None && hadTime) {",
    )
)
WITHHOLDING_REQUESTER_IS_FREE = Mutant(
    Change(
        "jobs/JobRounds.sol",
        "if (segment == 0) return _chargeRequester(jobId, job, Reason.InputUnavailable, vote, weight);",
        "if (segment == 0) return _fail(jobId, job, Reason.InputUnavailable, job.feeWei);",
    )
)
GARBAGE_IS_FREE = Mutant(
    Change(
        "jobs/JobRounds.sol",
        "if (vote == Tally.BAD_INPUT) return _chargeRequester(jobId, job, Reason.BadInput, vote, weight);",
        "if (vote == Tally.BAD_INPUT) return _fail(jobId, job, Reason.BadInput, job.feeWei);",
    )
)
ANY_WINDOW = Mutant(Change("libraries/Policies.sol", "if (window < minimum || window", "if (window"))
SLOTS_STAY_TAKEN = Mutant(Change("jobs/JobRecord.sol", "if (job.phase != Phase.Queued) --_running[job.modelId];"))


def paid_to_workers(stage: Stage) -> int:
    return sum(stage.credits()[worker.address] for worker in stage.workers)


def bonds(stage: Stage) -> list[int]:
    return [stage.contracts.staking.active_of(worker.address) for worker in stage.workers]


def shared_by_stake(amount: int) -> list[int]:
    return [amount * stake // sum(STAKES) for stake in STAKES]


# --- withholds its input ----------------------------------------------------------------------------------------------


def never_seals(stage: Stage) -> Play:
    play = stage.request()
    play.draw()
    play.lapse()
    play.expire()
    return play


def test_input_never_sealed__defence_removed__committee_waited_for_nothing(build: Callable[..., Stage]) -> None:
    stage = build(SILENT_REQUESTER_IS_FREE, segments=1)
    never_seals(stage)
    assert (paid_to_workers(stage), stage.credits()[stage.requester.address]) == (0, FEE)


def test_input_never_sealed__is_charged_to_the_requester(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    play = never_seals(stage)
    share = FEE * FAULT_BPS // 10_000
    assert [stage.credits()[worker.address] for worker in stage.workers] == shared_by_stake(share)
    assert stage.credits()[stage.requester.address] == FEE - sum(shared_by_stake(share))
    assert (play.phase, bonds(stage)) == (Phase.FAILED, list(STAKES))


@pytest.mark.parametrize(
    ("mutant", "vote"),
    [
        pytest.param(WITHHOLDING_REQUESTER_IS_FREE, UNAVAILABLE, id="named and not pinned"),
        pytest.param(GARBAGE_IS_FREE, BAD_INPUT, id="garbage"),
    ],
)
def test_bad_input__defence_removed__committee_looked_for_nothing(
    build: Callable[..., Stage], mutant: Mutant, vote: Link
) -> None:
    stage = build(mutant, segments=1)
    stage.request().to_committing().play_round({worker.address: vote for worker in stage.workers})
    assert (paid_to_workers(stage), stage.credits()[stage.requester.address]) == (0, FEE)


@pytest.mark.parametrize("vote", [UNAVAILABLE, BAD_INPUT], ids=["named and not pinned", "garbage"])
def test_bad_input__is_charged_to_the_requester(build: Callable[..., Stage], vote: Link) -> None:
    stage = build(segments=1)
    play = stage.request().to_committing().play_round({worker.address: vote for worker in stage.workers})
    share = FEE * FAULT_BPS // 10_000
    assert [stage.credits()[worker.address] for worker in stage.workers] == shared_by_stake(share)
    assert sum(stage.credits().values()) == FEE
    assert (play.phase, bonds(stage)) == (Phase.FAILED, list(STAKES))


def test_bad_input__that_shows_late__pays_nobody_who_may_have_made_it_bad(build: Callable[..., Stage]) -> None:
    """Or a committee could settle on garbage, and be paid for it as soon as the next one says so."""
    stage = build(segments=2, stakes=tuple(3 * ETHER + odd for odd in range(6)))
    play = stage.request().to_committing()
    before = {member.operator for member in play.round(0).members}
    play.play_round(dict.fromkeys(before, Link(keccak(b"garbage"))))
    play.play_round({worker.address: BAD_INPUT for worker in play.members()})
    assert (play.phase, paid_to_workers(stage)) == (Phase.CONTESTED, 0)
    play.lapse()
    play.expire()
    share = FEE * FAULT_BPS // 10_000 // 2
    assert share - 3 <= paid_to_workers(stage) <= share
    assert [stage.credits()[address] for address in before] == [0, 0, 0]
    assert (play.phase, sum(stage.credits().values())) == (Phase.FAILED, FEE)


# --- windows that nobody can keep -------------------------------------------------------------------------------------


def only_the_accomplice_was_ready(stage: Stage) -> InstantSender:
    """Two seconds to commit: only who knows the input beforehand can be in time, and the others lose stake."""
    play = stage.request(with_policy(commit_seconds=2)).to_committing()
    accomplice = play.members()[0]
    play.commit(accomplice)
    play.lapse()
    play.draw()
    return accomplice


def test_impossible_windows__defence_removed__honest_members_lose_stake(build: Callable[..., Stage]) -> None:
    stage = build(ANY_WINDOW, segments=1)
    accomplice = only_the_accomplice_was_ready(stage)
    harmed = [after < stake for after, stake in zip(bonds(stage), STAKES, strict=True)]
    assert harmed == [worker.address != accomplice.address for worker in stage.workers]


def test_impossible_windows__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    windows = [field for field in vars(POLICY) if field.endswith("_seconds")]
    assert len(windows) == 5
    for window, seconds in product(windows, (0, MINIMUM_WINDOW - 1, MAXIMUM_WINDOW + 1)):
        with refused("WindowOutOfRange", actualSeconds=seconds, minimum=MINIMUM_WINDOW, maximum=MAXIMUM_WINDOW):
            stage.request(with_policy(**{window: seconds}))


# --- jobs that rot where others wait ----------------------------------------------------------------------------------


def rotting_job(stage: Stage) -> tuple[Play, Play]:
    """The only slot is taken by a job that its requester forgot, and an honest one waits behind it."""
    rotten = stage.request(requester=stage.owner)
    waiting = stage.request()
    assert waiting.phase is Phase.QUEUED
    with refused("NothingToAdmit", modelId=stage.model, running=1, queued=1):
        stage.contracts.jobs.admit(stage.owner, stage.model)
    rotten.lapse()
    rotten.expire()
    return rotten, waiting


def test_rotting_jobs__defence_removed__model_is_lost_for_ever(build: Callable[..., Stage]) -> None:
    stage = build(SLOTS_STAY_TAKEN, segments=1, max_running_jobs=1)
    rotting_job(stage)
    with refused("NothingToAdmit", modelId=stage.model, running=1, queued=1):
        stage.contracts.jobs.admit(stage.owner, stage.model)


def test_rotting_jobs__make_room_after_one_window_by_anybodys_hand(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, max_running_jobs=1)
    _, waiting = rotting_job(stage)
    stage.contracts.jobs.admit(stage.workers[0], stage.model)
    assert waiting.phase is Phase.REQUESTED
    waiting.to_finalisable().finalise()


def test_rotting_jobs__do_not_hold_up_whoever_offers_more(build: Callable[..., Stage]) -> None:
    """A queue full of cheap jobs costs its owner their fees' escrow, and an honest one nothing but a higher fee."""
    stage = build(segments=1, max_running_jobs=1)
    rotten, *others = (stage.request(requester=stage.owner) for _ in range(5))
    honest = stage.request(fee_wei=2 * FEE)
    rotten.lapse()
    rotten.expire()
    stage.contracts.jobs.admit(stage.workers[0], stage.model)
    assert honest.phase is Phase.REQUESTED
    assert {other.phase for other in others} == {Phase.QUEUED}


# --- a verifier, a model, a fee of one's own --------------------------------------------------------------------------


def test_unregistered_model__refused(build: Callable[..., Stage]) -> None:
    """Its verifiers would be the requester's own. What is registered, and served, is what workers have looked at."""
    stage = build(segments=1, stakes=())
    unknown = ModelId(keccak(b"nobody's model"))
    with refused("UnknownModel", modelId=unknown):
        stage.request(model_id=unknown)


def test_fee__below_the_least__refused(build: Callable[..., Stage]) -> None:
    stage = build(segments=1, stakes=())
    with refused("FeeTooLow", required=10**9, actual=10**9 - 1):
        stage.request(fee_wei=10**9 - 1)


def test_model_that_nobody_serves__ends_without_harm(build: Callable[..., Stage]) -> None:
    stage = build(segments=1)
    own = stage.register_segments(1, "own", answer=1)
    play = stage.request(model_id=own)
    play.draw()
    assert (play.phase, stage.credits()[stage.requester.address]) == (Phase.FAILED, FEE)

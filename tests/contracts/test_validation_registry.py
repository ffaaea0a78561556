"""ERC-8004: what a job's evidence comes to, as a validation of the model that did it."""

from __future__ import annotations

from typing import Any

import pytest
from eth_utils.abi import function_abi_to_4byte_selector

from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Phase
from tests.contracts.stage import STAKES, Stage, commitment_link, refused
from tests.contracts.views import ALONE, LIE, UNKNOWN, UNPROVED, Views, finish, number

pytestmark = pytest.mark.integration

OTHER_LIE = commitment_link(b"another lie")


def test_get_validation_status__every_segment_proved__is_a_hundred(stage: Stage, views: Views) -> None:
    job = finish(stage).record
    assert job.evidence_root != ZERO_HASH
    assert views.status(job) == {
        "response": 100,
        "tag": "proved",
        "evidence": job.evidence_root,
        "updated": stage.chain.head()[1],
    }


def test_get_validation_status__unanimous__is_no_proof(stage: Stage, views: Views) -> None:
    job = finish(stage, UNPROVED).record
    assert views.status(job) == {
        "response": 99,
        "tag": "agreed",
        "evidence": job.evidence_root,
        "updated": job.closed_at,
    }


@pytest.mark.parametrize("overturned", [(0, 1), (1, 2), (0, 2)])
def test_get_validation_status__one_segment_agreed__is_agreed(
    stage: Stage, views: Views, overturned: tuple[int, ...]
) -> None:
    status = views.status(finish(stage, UNPROVED, overturned=overturned).record)
    assert (status["response"], status["tag"]) == (99, "agreed")


@pytest.mark.parametrize("segments", [(0,), (1,), (2,), (0, 1), (1, 2)])
def test_get_validation_status__dissent__is_the_least_share(
    stage: Stage, views: Views, segments: tuple[int, ...]
) -> None:
    dissenters = ((stage.workers[0], STAKES[0]), (stage.workers[2], STAKES[2]))
    votes, against = {}, 0
    for segment, (dissenter, stake_wei) in zip(segments, dissenters, strict=False):
        votes[segment] = {dissenter.address: OTHER_LIE}
        against = stake_wei  # the second costs the agreement more
    play = finish(stage, UNPROVED, votes)
    share = 99 * (sum(STAKES) - against) // sum(STAKES)
    status = views.status(play.record)
    assert (status["response"], status["tag"]) == (share, "agreed")


def test_get_validation_status__one_members_word__is_zero(stage: Stage, views: Views) -> None:
    job = finish(stage, ALONE).record
    assert views.status(job) == {
        "response": 0,
        "tag": "unproved",
        "evidence": job.evidence_root,
        "updated": job.closed_at,
    }


def test_get_validation_status__overturned__follows_the_new_attempt(stage: Stage, views: Views) -> None:
    play = stage.request(UNPROVED).to_committing()
    honest, *liars = stage.workers
    play.play_round({liar.address: LIE for liar in liars}).play_round({honest.address: LIE}).play_round()
    assert play.phase is Phase.CHALLENGEABLE
    play.challenge(0, honest)
    for _ in range(2):
        if play.phase is Phase.DRAWING:
            play.draw()
        play.play_round()
    play.lapse()
    play.finalise()
    assert play.record.attempts == (0, 1, 1)
    status = views.status(play.record)
    # In the first attempt at segment 1 the first worker's stake stood against its output.
    assert (status["response"], status["tag"]) == (99, "agreed")
    assert status["evidence"] == play.record.evidence_root


def test_get_validation_status__not_finalised__is_zero_and_says_why(stage: Stage, views: Views) -> None:
    def nothing(tag: str, updated: int = 0) -> dict[str, Any]:
        return {"response": 0, "tag": tag, "evidence": ZERO_HASH, "updated": updated}

    play = stage.request(UNPROVED)
    assert views.status(play.record) == nothing("pending")
    play.to_committing()
    for _ in range(3):
        play.play_round()
        assert views.status(play.record) == nothing("pending")
    play.lapse()
    assert play.phase is Phase.FINALISABLE
    assert views.status(play.record) == nothing("pending")

    late = stage.request()
    late.lapse()
    assert views.status(late.record) == nothing("expired")
    late.expire()
    assert views.status(late.record) == nothing("failed", stage.chain.head()[1])


def test_get_validation_status__unknown_request__is_refused(views: Views) -> None:
    with refused("UnknownJob", jobId=UNKNOWN):
        views.ask(views.validations, "getValidationStatus", UNKNOWN)


def test_validations__writes_and_lists__are_refused(stage: Stage, views: Views) -> None:
    job, model, jobs = stage.request().job, number(stage.model), stage.contracts.jobs.address
    with refused("RequestThroughJobs", jobs=jobs):
        views.ask(views.validations, "validationRequest", jobs, model, "", job)
    with refused("ResponseIsDerived", requestHash=job):
        views.ask(views.validations, "validationResponse", job, 100, "", ZERO_HASH, "")
    for function, arguments in (
        ("getSummary", (model, [], "")),
        ("getAgentValidations", (model,)),
        ("getValidatorRequests", (jobs,)),
    ):
        with refused("NotEnumerable"):
            views.ask(views.validations, function, *arguments)
    assert views.ask(views.validations, "getIdentityRegistry") == ZERO_ADDRESS


@pytest.mark.parametrize(
    ("function", "selector"),
    [
        ("validationRequest", "aaf400c4"),
        ("validationResponse", "3d659a96"),
        ("getValidationStatus", "ff2febfc"),
        ("getSummary", "1b7cabd6"),
        ("getAgentValidations", "8d5d0c2d"),
        ("getValidatorRequests", "4bf3158c"),
        ("getIdentityRegistry", "bc4d861b"),
    ],
)
def test_validation_registry__selectors__are_those_of_the_draft(views: Views, function: str, selector: str) -> None:
    # Source: the draft's reference implementation, erc-8004/erc-8004-contracts at 27caef9.
    abi = views.validations.get_function_by_name(function).abi
    assert bytes(function_abi_to_4byte_selector(abi)).hex() == selector

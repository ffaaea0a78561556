"""Workers that hang: the others go on without them, or, if too many hang, the requester gets the fee back."""

from __future__ import annotations

from functools import partial

import pytest

from offchain.protocol.duties import JobView
from offchain.protocol.machine.limits import MAX_REDRAWS
from offchain.protocol.types import ZERO_HASH, Phase, Reason
from tests.live_network import LiveNetwork

pytestmark = pytest.mark.e2e


def test_worker__silent_in_the_commit_phase__is_penalised_and_the_others_settle(mended: LiveNetwork) -> None:
    live, silent = mended, "worker-4"
    live.freeze(silent)
    job = live.submit()

    def waits_for_it(view: JobView) -> bool:
        missing = [member.operator for member in view.round.members if member.commitment == ZERO_HASH]
        return view.phase is Phase.COMMITTING and missing == [live.operator_of(silent)]

    waiting = live.seen(job, waits_for_it, "two commitments of three")
    live.jump(waiting.job.policy.commit_seconds)
    view = live.ended(job)
    assert live.penalties(job) == [(silent, Reason.MISSED_COMMIT)]
    assert len(view.rounds[waiting.job.segment].supporters) == 2
    live.thaw()
    live.assert_right(job)


def test_workers__all_silent__job_fails_and_is_refunded(mended: LiveNetwork) -> None:
    """Committee after committee: nobody showed that the work could be done at all, so nobody is charged for it."""
    live = mended
    stakes, credit = live.stakes(), live.contracts.jobs.credit_of(live.gateway_account)
    live.freeze(*live.names)
    job = live.submit()
    for attempt in range(MAX_REDRAWS + 1):
        view = live.seen(job, partial(_is_committing, attempt=attempt), f"commit phase {attempt}")
        live.jump(view.job.policy.commit_seconds)
    ended = live.ended(job, Phase.FAILED)
    (failed,) = (event for event in live.events(job) if event.name == "JobFailed")
    assert failed.arguments["reason"] == Reason.TOO_FEW_ACTED
    assert live.contracts.jobs.credit_of(live.gateway_account) == credit + ended.job.fee_wei
    assert (live.penalties(job), live.stakes()) == ([], stakes)


@pytest.mark.slow
def test_prover__silent__is_replaced_and_penalised(mended: LiveNetwork) -> None:
    live = mended
    job = live.submit(prove_seconds=3600)
    view = live.seen(job, lambda it: it.phase >= Phase.PROVING, "the draw of the provers")
    due = [index for index, round_ in enumerate(view.rounds) if round_.proof_hash == ZERO_HASH]
    assert due, "every proof came before the provers could be stopped"
    late = live.name_of(view.rounds[due[-1]].prover)
    live.network.programs[late].kill()
    live.seen(job, lambda it: _is_missing_only(it, due[-1]), "the other proofs")
    live.jump(3600)
    ended = live.ended(job)
    assert ended.rounds[due[-1]].proved_by in {member.operator for member in view.rounds[due[-1]].supporters}
    assert live.name_of(ended.rounds[due[-1]].proved_by) != late
    assert live.penalties(job) == [(late, Reason.MISSED_PROOF)]
    live.assert_right(job)


def _is_committing(view: JobView, attempt: int) -> bool:
    return view.phase is Phase.COMMITTING and view.job.attempts[0] == attempt


def _is_missing_only(view: JobView, segment: int) -> bool:
    missing = [index for index, round_ in enumerate(view.rounds) if round_.proof_hash == ZERO_HASH]
    return missing == [segment]

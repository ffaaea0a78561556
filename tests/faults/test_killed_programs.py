"""Programs that die in the middle of a job, as by a power cut, and come back: no job is lost, and no stake."""

from __future__ import annotations

from collections import Counter

import pytest

from migrations.ledger import parameters
from offchain.protocol.types import Phase
from tests.faults.dying_worker import BEFORE_PROVING, PROVING, plan
from tests.live_network import LiveNetwork, until

pytestmark = pytest.mark.e2e


def test_workers__killed_at_every_state__finish_the_job_and_lose_nothing(mended: LiveNetwork) -> None:
    """Nine workers, of which each dies once before proving, and the drawn provers twice more."""
    live, network = mended, mended.network
    directory, stakes, deaths = network.options.directory, live.stakes(), Counter[str]()
    for index, name in enumerate(live.names):
        network.programs[name].stop()
        plan(directory / name, (BEFORE_PROVING[index % len(BEFORE_PROVING)], *PROVING))
        network.start_worker(name, "tests.faults.dying_worker")
    job = live.submit()

    def revive_until_over() -> bool:
        for name in live.names:
            if not network.programs[name].is_alive():
                assert network.programs[name].process.returncode == -9, network.programs[name].last_words()
                deaths[name] += 1
                network.start_worker(name, "tests.faults.dying_worker")
        view = live.view(job)
        return view is not None and view.phase.is_terminal

    try:
        until(revive_until_over, "the end of the job", 200)
    finally:
        for name in live.names:
            plan(directory / name, ())
    view = live.ended(job)
    provers = {live.name_of(round_.prover) for round_ in view.rounds}
    # The end of the job may come before the last death is seen.
    expected = {name: 1 + len(PROVING) * (name in provers) for name in live.names}
    assert sum((Counter(expected) - deaths).values()) <= 1
    assert sum((deaths - Counter(expected)).values()) == 0
    assert live.penalties(job) == []
    assert live.stakes() == stakes
    assert [round_.proved_by for round_ in view.rounds] == [round_.prover for round_ in view.rounds]
    sent = Counter((event.name, event.arguments.get("segment")) for event in live.events(job))
    for segment in range(3):
        counts = [sent[name, segment] for name in ("Committed", "Revealed", "SegmentProved")]
        assert counts == [3, 3, 1]
    live.assert_right(job)


def test_gateway__killed_again_and_again__goes_on_with_its_job(mended: LiveNetwork) -> None:
    live, network = mended, mended.network
    job = live.submit()
    network.programs["gateway"].kill()  # it has promised, and perhaps not sent anything yet
    network.restart("gateway")
    for condition in (lambda view: view.phase >= Phase.COMMITTING, lambda view: view.job.segment > 0):
        live.seen(job, condition, "the job going on")
        network.programs["gateway"].kill()
        network.restart("gateway")
    live.ended(job)
    assert live.penalties(job) == []
    live.assert_right(job)


@pytest.mark.slow
def test_gateway__killed_for_good__workers_finish_what_needs_no_input(mended: LiveNetwork) -> None:
    live = mended
    job = live.submit()
    live.seen(job, lambda view: view.phase >= Phase.COMMITTING, "the input")
    live.network.programs["gateway"].kill()
    live.ended(job)
    live.network.restart("gateway")
    # The result was sealed to the gateway's identity, which is on its disk.
    live.assert_right(job)


def test_ipfs__killed_mid_job__job_waits_and_goes_on(mended: LiveNetwork) -> None:
    live, network = mended, mended.network
    job = live.submit()
    live.seen(job, lambda view: view.phase is Phase.COMMITTING, "the first commit phase")
    network.programs["ipfs"].kill()
    _blocks_pass(live, 5)
    view = live.view(job)
    # No output can be passed on: the first segment cannot settle.
    assert view is not None
    assert (view.job.segment, view.round.settled_link) == (0, bytes(32))
    assert not view.phase.is_terminal
    network.restart("ipfs")
    live.ended(job)
    assert live.penalties(job) == []
    live.assert_right(job)


def test_ipfs__away_for_too_long__job_expires_and_the_committee_is_paid_for_waiting(mended: LiveNetwork) -> None:
    """The gateway cannot hand the input out in time, and pays a segment's part of a share of the fee for that."""
    live, network = mended, mended.network
    stakes, credit = live.stakes(), live.contracts.jobs.credit_of(live.gateway_account)
    network.programs["ipfs"].kill()
    job = live.submit()
    view = live.seen(job, lambda it: it.phase is Phase.AWAITING_INPUT, "the first draw")
    _blocks_pass(live, 3)
    live.jump(view.job.policy.input_seconds)
    ended = live.ended(job, Phase.FAILED)
    fee, members = ended.job.fee_wei, ended.rounds[0].members
    share = fee * parameters()["fault_share_bps"] // 10_000 // ended.job.segments
    total = sum(member.weight for member in members)
    paid = sum(share * member.weight // total for member in members)
    assert live.contracts.jobs.credit_of(live.gateway_account) == credit + fee - paid
    assert (live.penalties(job), live.stakes()) == ([], stakes)


def _blocks_pass(live: LiveNetwork, count: int) -> None:
    first = live.network.connection.block_number()
    until(lambda: live.network.connection.block_number() >= first + count, f"{count} blocks")

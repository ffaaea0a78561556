"""A worker process that lies costs itself its stake, and nobody else anything."""

from __future__ import annotations

import pytest

from offchain.protocol.types import Reason
from tests.live_network import LiveNetwork

pytestmark = pytest.mark.e2e

LIAR = "worker-8"


def test_dishonest_worker__one_of_three__is_outvoted_and_slashed(mended: LiveNetwork) -> None:
    live, network = mended, mended.network
    network.programs[LIAR].stop()
    network.start_worker(LIAR, "tests.faults.dishonest_worker")
    try:
        # Nine workers and three committees of three: it is in one of them.
        job = live.submit()
        view = live.ended(job)
    finally:
        network.restart(LIAR)
    (lied,) = (round_ for round_ in view.rounds if round_.member(live.operator_of(LIAR)))
    lie = lied.member(live.operator_of(LIAR))
    assert lie is not None
    assert lie.link not in (lied.settled_link, bytes(32))
    assert len(lied.supporters) == 2
    assert live.penalties(job) == [(LIAR, Reason.CONTRADICTED_PROOF)]
    stake = network.options.stake_wei
    assert live.stakes() == dict.fromkeys(live.names, stake) | {LIAR: stake // 2}
    live.assert_right(job)

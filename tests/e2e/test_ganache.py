"""Ganache as well as Anvil: deployment, registration and a whole proved job, each committee one worker."""

from __future__ import annotations

import pytest

from tests.live_network import running_network

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_network__on_ganache__finishes_a_proved_job(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_network(tmp_path_factory.mktemp("on-ganache"), chain="ganache", workers=3) as live:
        assert "Ganache" in live.network.connection.web3.client_version
        job = live.submit(committee_size=1)
        view = live.ended(job)
        committees = [[member.operator for member in round_.members] for round_ in view.rounds]
        assert sorted(sum(committees, [])) == sorted(live.network.operators)
        assert live.penalties(job) == []
        live.assert_right(job)

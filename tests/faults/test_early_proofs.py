"""One job's proofs are made while its later segments are executed, by real workers on a real network."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from offchain.protocol.types import JobId, Phase
from tests.faults.held_prover import HeldNetwork, let_go
from tests.live_network import LiveNetwork, running_network

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def early(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """A network whose workers prove early, and whose proofs are not made before they are let go."""
    home = tmp_path_factory.mktemp("early")
    with running_network(home, early_proofs=1, network_class=HeldNetwork) as live:
        yield live


def moments(live: LiveNetwork, job: JobId, what: str) -> dict[str, list[str]]:
    """When each worker logged something about a job: date and time, as text that sorts by time."""
    pattern = re.compile(rf"^(\S+ \S+) \w+ \S+ (?=.*{job.hex()[:8]}).*{what}", re.MULTILINE)
    logs = {name: live.network.options.directory / "logs" / f"{name}.log" for name in live.names}
    found = {name: pattern.findall(log.read_text()) for name, log in logs.items()}
    return {name: times for name, times in found.items() if times}


def test_proofs__of_one_job__are_under_way_while_later_segments_are_executed(early: LiveNetwork) -> None:
    live = early
    job = live.submit(proof_permille=1000, challenge_seconds=5)
    view = live.seen(job, lambda it: it.phase is Phase.PROVING, "all segments settled, and provers drawn")

    # No proof can have been made yet, so whatever was begun before something else was under way then.
    assert moments(live, job, "made in") == {}
    begun = [moments(live, job, rf"proof of segment\[{segment}\] .*begun \(early") for segment in range(3)]
    committed = [moments(live, job, f"committed to segment {segment}") for segment in range(3)]
    for segment in (0, 1):
        first_begun = min(min(times) for times in begun[segment].values())
        last_commit = max(max(times) for times in committed[segment + 1].values())
        assert first_begun < last_commit
    assert min(min(times) for times in begun[0].values()) < min(min(times) for times in committed[2].values())
    # Each is made by members of its own committee, all at once.
    for segment, round_ in enumerate(view.rounds):
        assert set(begun[segment]) <= {live.name_of(member.operator) for member in round_.members}
    assert len({name for names in begun for name in names}) >= 3

    let_go(live.network)
    view = live.ended(job)
    live.assert_right(job)
    assert live.penalties(job) == []
    for segment, round_ in enumerate(view.rounds):
        # Who was drawn went on with the proof that it had begun.
        prover = live.name_of(round_.prover)
        assert round_.proved_by == round_.prover
        assert len(moments(live, job, rf"proof of segment\[{segment}\] .*begun")[prover]) == 1
        assert prover in begun[segment]

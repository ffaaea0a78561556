"""One honest worker against all the others of its committees: real processes, real proofs, and the right result.

THREATS 44. Prints the gas and the blocks that it took (``pytest -s``).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from offchain.chain.staking import hold_of
from offchain.protocol.machine.limits import APPEAL_SECONDS
from offchain.protocol.types import Label, Reason
from tests.live_network import LiveNetwork, running_network, until

pytestmark = [pytest.mark.e2e]

HONEST = "worker-0"


@pytest.fixture(scope="module")
def surrounded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveNetwork]:
    """Three workers, so that every committee is all of them, and two of them lie alike."""
    home: Path = tmp_path_factory.mktemp("collusion")
    with running_network(home, workers=3) as live:
        for name in live.names:
            if name != HONEST:
                live.network.programs[name].stop()
                live.network.start_worker(name, "tests.faults.dishonest_worker")
        yield live


def test_collusion__two_of_three_in_every_committee__is_overturned_slashed_and_the_right_result_finalised(
    surrounded: LiveNetwork,
) -> None:
    live = surrounded
    honest = live.operator_of(HONEST)
    stake = live.network.options.stake_wei
    job = live.submit()
    view = live.ended(job)
    ended_at = live.network.connection.block_number()

    assert [round_.label for round_ in view.rounds] == [Label.PROVED] * 3
    for segment, round_ in enumerate(view.rounds):
        assert round_.overturned, f"segment {segment} was not settled on the lie first"
        assert round_.proved_by == honest
        assert [member.operator for member in round_.supporters] == [honest]
        lies = {member.link for member in round_.members if member.operator != honest}
        assert len(lies) == 1, "the liars did not agree: nothing was overturned that had a quorum"
    assert {reason for _, reason in live.penalties(job)} == {Reason.CONTRADICTED_PROOF}
    assert HONEST not in {name for name, _ in live.penalties(job)}
    # Half of what each was drawn with, three times, or what was left.
    assert live.stakes() == {name: stake if name == HONEST else 0 for name in live.names}
    live.assert_right(job)

    # A day later nobody could show that a lie follows as well: the honest worker, unasked, has its share paid.
    holds = [hold_of(event.arguments) for event in live.events(job) if event.name == "SlashHeld"]
    assert {hold.challenger for hold in holds} == {honest}
    staking, before = live.contracts.staking, live.network.connection.balance(honest)
    live.jump(APPEAL_SECONDS)
    until(lambda: not any(staking.is_held(hold) for hold in holds), "the end of what is held")
    until(lambda: staking.compensation_of(honest) == 0, "the claim")
    bps = staking.contract.functions.challengerShareBps().call()
    shares = sum(hold.amount * bps // 10_000 for hold in holds)
    assert live.network.connection.balance(honest) > before + shares * 9 // 10, "less than its shares, but for gas"

    events = live.events(job)
    gas: dict[str, int] = {}
    for transaction in {event.transaction_hash for event in events}:
        receipt = live.network.connection.web3.eth.get_transaction_receipt(transaction)  # type: ignore[arg-type]
        sent = live.network.connection.web3.eth.get_transaction(transaction)  # type: ignore[arg-type]
        if sent["to"] != live.contracts.jobs.address:
            continue
        called, _ = live.contracts.jobs.contract.decode_function_input(sent["input"])
        gas[called.fn_name] = max(gas.get(called.fn_name, 0), receipt["gasUsed"])
    blocks = ended_at - events[0].block_number
    print(f"\ncollusion of two of three overturned three times in {blocks} blocks; most gas by function: {gas}")

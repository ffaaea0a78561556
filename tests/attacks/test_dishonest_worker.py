"""One dishonest worker of three is outvoted, loses stake when the proof lands, and changes nothing in the result."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offchain.chain.contracts import Contracts
from offchain.protocol.links import link_of_values
from offchain.protocol.types import Phase
from tests.harness import Elements, Play

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("cheated", [0, 1, 2])
def test_wrong_output__of_one_worker_of_three__is_outvoted_and_slashed(
    contracts: Contracts, proving: Play, cheated: int, isolation: None
) -> None:
    honest = replace(proving).run()

    def answer(segment: int, place: int, outputs: Elements) -> Elements:
        return (outputs[0] + 1, *outputs[1:]) if (segment, place) == (cheated, 0) else outputs

    play = replace(proving, answer=answer, job=b"", salt=bytes(31) + b"\7", inputs=[]).run(until=Phase.PROVING)
    cheat, *others = (member.operator for member in play.view().rounds[cheated].members)
    bonds = {operator: contracts.staking.active_of(operator) for operator in play.workers}
    drawn_with = play.view().rounds[cheated].members[0].weight
    reward = contracts.jobs.credit_of(cheat)

    play.run()
    view = play.view()
    assert view.phase is Phase.FINALISED
    assert play.inputs == honest.inputs
    assert view.rounds[-1].settled_link == link_of_values(honest.inputs[3])
    assert {member.operator for member in view.rounds[cheated].supporters} == set(others)

    taken = drawn_with * 5_000 // 10_000  # migrations/config/local.json: contradiction_penalty_bps
    after = {operator: contracts.staking.active_of(operator) for operator in play.workers}
    assert after == bonds | {cheat: bonds[cheat] - taken}
    assert contracts.jobs.credit_of(cheat) == reward


def test_wrong_output__of_one_worker_without_proofs__is_outvoted_and_unpaid(
    contracts: Contracts, proving: Play, isolation: None
) -> None:
    """Consensus alone settles the right output as well; only the penalty needs a proof."""

    def answer(segment: int, place: int, outputs: Elements) -> Elements:
        return tuple(0 for _ in outputs) if (segment, place) == (1, 2) else outputs

    unproved = replace(proving.policy, proof_permille=0)
    play = replace(proving, answer=answer, policy=unproved, job=b"", salt=bytes(31) + b"\6", inputs=[]).run(
        until=Phase.FINALISABLE
    )
    cheat = play.view().rounds[1].members[2].operator
    credit = contracts.jobs.credit_of(cheat)
    play.run()
    assert play.inputs == proving.inputs
    assert contracts.jobs.credit_of(cheat) == credit

"""Row 44 the other way round, with real proofs: one that has another prover overturns the others, and gains nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offchain.chain.contracts import Contracts
from offchain.chain.events import job_events
from offchain.chain.staking import hold_of
from offchain.protocol.field import signed
from offchain.protocol.types import Hold, Label, Phase
from offchain.proving.port import Proof
from offchain.storage.cid import cid_to_digest
from tests.attacks.other_prover import OtherProver
from tests.harness import Elements, Play, Worker, test_prover
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration

SEGMENT, ATTACKER = 2, 2
"""Where the attacker is, and its place in that committee. Not every output has a fraction to drop: that one has."""


@pytest.fixture(scope="session")
def second(proving: Play) -> tuple[Elements, Proof]:
    """What the other prover puts out for the same input, and its proof, which it has checked as we check ours."""
    prover, circuit = OtherProver(test_prover().cache), proving.model.circuits[SEGMENT]
    witness = prover.witness(circuit, proving.inputs[SEGMENT])
    return witness.outputs, prover.prove(circuit, witness)


def overturned_by_the_other_prover(play: Play, second: tuple[Elements, Proof]) -> tuple[Play, Worker, list[Hold]]:
    """One of three rounds otherwise and is outvoted; then it proves what it said."""
    outputs, proof = second

    def answer(segment: int, place: int, honest: Elements) -> Elements:
        return outputs if (segment, place) == (SEGMENT, ATTACKER) else honest

    policy = replace(play.policy, proof_permille=0)
    again = replace(play, answer=answer, policy=policy, job=b"", salt=bytes(31) + b"\x2d", inputs=[])
    play = again.run(until=Phase.CHALLENGEABLE)
    member = play.view().rounds[SEGMENT].members[ATTACKER]
    attacker, contracts = play.workers[member.operator], play.contracts
    assert play.view().rounds[SEGMENT].settled_link == play.link_of(SEGMENT, play.inputs[SEGMENT + 1]) != member.link
    play.announce(SEGMENT, attacker, proof)
    cid = cid_to_digest(play.store.put(proof.to_json()))
    contracts.jobs.challenge(attacker.sender, play.job, SEGMENT, proof.proof, proof.instances, cid)
    head = contracts.connection.block_number()
    events = job_events(contracts, play.job, contracts.deployment.block, head)
    return play, attacker, [hold_of(event.arguments) for event in events if event.name == "SlashHeld"]


def test_second_output__off_by_one_in_places__is_proved_between_the_same_links(
    proving: Play, second: tuple[Elements, Proof]
) -> None:
    outputs, proof = second
    honest = proving.proof(SEGMENT)
    assert proof.proof[:64] == honest.proof[:64], "both open with the same commitment"
    assert (proof.instances, honest.instances) == (outputs, proving.inputs[SEGMENT + 1])
    apart = [abs(signed(one) - signed(other)) for one, other in zip(proof.instances, honest.instances, strict=True)]
    assert max(apart) == 1


def test_second_output__proved_with_another_prover__costs_the_others_nothing(
    contracts: Contracts, proving: Play, second: tuple[Elements, Proof], isolation: None
) -> None:
    staking = contracts.staking
    bonds = {operator: staking.active_of(operator) for operator in proving.workers}
    play, attacker, holds = overturned_by_the_other_prover(proving, second)
    round_ = play.view().rounds[SEGMENT]
    others = {member.operator for member in round_.members} - {attacker.address}
    assert (round_.overturned, round_.label) == (True, Label.PROVED)
    assert {hold.operator for hold in holds} == others
    assert all(staking.active_of(operator) < bonds[operator] for operator in others)

    proof = play.proof(SEGMENT)
    for hold in holds:
        staking.appeal(play.workers[hold.operator].sender, hold, proof.proof, proof.instances)
    assert {operator: staking.active_of(operator) for operator in play.workers} == bonds
    LocalChain(contracts.connection).move_to(max(hold.release_at for hold in holds))
    assert not [hold for hold in holds if staking.is_held(hold)]
    assert staking.compensation_of(attacker.address) == staking.compensation_of(play.requester.address) == 0

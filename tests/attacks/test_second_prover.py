"""Row 44 the other way round, with real proofs: one that has another prover overturns the others, and gains nothing."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from offchain.chain.contracts import Contracts
from offchain.chain.events import job_events
from offchain.chain.sender import Sender
from offchain.chain.staking import hold_of
from offchain.protocol.field import signed
from offchain.protocol.types import Address, Hold, Label, Phase, Policy
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Proof
from offchain.storage.cid import cid_to_digest
from offchain.storage.ipfs import IpfsStore
from tests.attacks.conftest import OTHER_VALUES
from tests.attacks.other_prover import OtherProver
from tests.harness import ALL_PROVED, Elements, Play, ReadyModel, Worker, enroll, execute, prove, ready_model
from tests.local_chain import LocalChain
from tests.models import mlp

pytestmark = pytest.mark.integration

SEGMENT, ATTACKER = 0, 2
"""Where the attacker is, and its place in that committee."""


@pytest.fixture(scope="session")
def rounding_model(prover: EzklProver, store: IpfsStore, contracts: Contracts, deployer: Sender) -> ReadyModel:
    """A network that ends in probabilities: the prover takes it only with a rescaling behind each layer."""
    model = onnx.load_from_string(mlp((4, 6, 5, 3), seed=3))
    model.graph.node[-1].output[0] = "logits"
    model.graph.node.append(helper.make_node("Softmax", ["logits"], ["y"], axis=1))
    return ready_model(model.SerializeToString(), "rounding", prover, store, contracts, deployer)


@pytest.fixture(scope="session")
def rounding_workers(chain: LocalChain, contracts: Contracts, rounding_model: ReadyModel) -> dict[Address, Worker]:
    """As many as three disjoint committees of three take."""
    return enroll(chain, contracts, rounding_model, 9, "rounding worker")


@pytest.fixture(scope="session")
def honest(prover: EzklProver, rounding_model: ReadyModel) -> tuple[Elements, Proof]:
    """What goes into the segment, and what everybody proves who has our prover."""
    elements = rounding_model.quantise(OTHER_VALUES)
    return elements, prove(prover, rounding_model.circuits[SEGMENT], elements)


@pytest.fixture(scope="session")
def second(prover: EzklProver, rounding_model: ReadyModel, honest: tuple[Elements, Proof]) -> tuple[Elements, Proof]:
    """What the other prover puts out for the same, and its proof, which was checked as ours are."""
    other, circuit = OtherProver(prover.cache), rounding_model.circuits[SEGMENT]
    witness = other.witness(circuit, honest[0])
    return witness.outputs, other.prove(circuit, witness)


@pytest.fixture
def play(
    contracts: Contracts,
    store: IpfsStore,
    prover: EzklProver,
    rounding_model: ReadyModel,
    rounding_workers: dict[Address, Worker],
    requester: Worker,
    second: tuple[Elements, Proof],
    isolation: None,
) -> Play:
    """A job in which one of three rounds otherwise, and is outvoted."""

    def answer(segment: int, place: int, outputs: Elements) -> Elements:
        return second[0] if (segment, place) == (SEGMENT, ATTACKER) else outputs

    policy = Policy(**vars(ALL_PROVED) | {"proof_permille": 0})
    place = (contracts, store, prover, rounding_model, rounding_workers, requester)
    return Play(*place, OTHER_VALUES, policy, answer).run(until=Phase.CHALLENGEABLE)


def overturn(play: Play, proof: Proof) -> tuple[Worker, list[Hold]]:
    """The one that was outvoted proves what it said."""
    contracts, member = play.contracts, play.view().rounds[SEGMENT].members[ATTACKER]
    attacker = play.workers[member.operator]
    play.announce(SEGMENT, attacker, proof)
    cid = cid_to_digest(play.store.put(proof.to_json()))
    contracts.jobs.challenge(attacker.sender, play.job, SEGMENT, proof.proof, proof.instances, cid)
    head = contracts.connection.block_number()
    events = job_events(contracts, play.job, contracts.deployment.block, head)
    return attacker, [hold_of(event.arguments) for event in events if event.name == "SlashHeld"]


def test_second_output__one_unit_off__is_proved_behind_the_same_link(
    prover: EzklProver,
    rounding_model: ReadyModel,
    honest: tuple[Elements, Proof],
    second: tuple[Elements, Proof],
) -> None:
    (elements, ours), (outputs, theirs), circuit = honest, second, rounding_model.circuits[SEGMENT]
    expected = execute(prover, circuit, elements).outputs
    assert max(abs(signed(one) - signed(other)) for one, other in zip(outputs, expected, strict=True)) == 1
    assert theirs.proof[:64] == ours.proof[:64] == prover.commit(elements, circuit), "both open with the same link"
    assert theirs.proof[64:128] == prover.commit(outputs, circuit)
    assert ours.proof[64:128] == prover.commit(expected, circuit)


def test_second_output__proved_with_another_prover__costs_the_others_nothing(
    play: Play, honest: tuple[Elements, Proof], second: tuple[Elements, Proof]
) -> None:
    staking = play.contracts.staking
    bonds = {operator: staking.active_of(operator) for operator in play.workers}
    members = {member.operator for member in play.view().rounds[SEGMENT].members}
    attacker, holds = overturn(play, second[1])
    round_ = play.view().rounds[SEGMENT]
    assert (round_.overturned, round_.label) == (True, Label.PROVED)
    others = members - {attacker.address}
    assert {hold.operator for hold in holds} == others
    assert all(staking.active_of(operator) < bonds[operator] for operator in others)

    for hold in holds:
        staking.appeal(play.workers[hold.operator].sender, hold, honest[1].proof, honest[1].instances)
    assert {operator: staking.active_of(operator) for operator in play.workers} == bonds
    assert not [hold for hold in holds if staking.is_held(hold)]
    assert staking.compensation_of(attacker.address) == staking.compensation_of(play.requester.address) == 0

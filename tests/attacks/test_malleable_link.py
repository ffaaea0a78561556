"""Row 44 once more, with real proofs: one output and any number of KZG links, so that a proof denies who is right.

A circuit says what the cells of its output are, and a KZG link commits to the cells behind them as well. Whoever puts
something there has the same output under the same key, and another closing link: see :mod:`tests.attacks.longer_graph`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from offchain.audit import audit
from offchain.chain.contracts import Contracts
from offchain.chain.events import job_events
from offchain.chain.staking import hold_of
from offchain.protocol.links import LinkKind, link_of_commitment
from offchain.protocol.types import UNAVAILABLE, ZERO_HASH, Hold, Link, Phase
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import CircuitRefused, Proof, ProofRejected
from offchain.proving.srs import insecure_srs
from offchain.storage.cid import cid_to_digest
from offchain.storage.ipfs import IpfsStore
from offchain.storage.sealing import Identity
from offchain.worker import daemon
from offchain.worker.executor import NoUsableInput
from tests.attacks.conftest import VALUES
from tests.attacks.longer_graph import longer_circuit
from tests.attacks.mutant import Change, Mutant, deploy
from tests.attacks.test_withheld_blocks import (
    MISS_BPS,
    bonds,
    close_what_time_decided,
    run_out_of_time,
    try_once,
    worker_at,
)
from tests.contracts.stage import refused
from tests.harness import NONE_PROVED, Elements, Play, Worker, enroll, prepared_model, ready_model
from tests.local_chain import LocalChain
from tests.models import mlp

pytestmark = pytest.mark.integration
__all__ = ["worker_at"]  # a fixture

ATTACKER = 2
"""The attacker's place in its committee."""
CONTRADICTION, CHALLENGER, BPS = 5_000, 3_000, 10_000  # migrations/config/local.json
CYCLES = 600  # after which a worker is given up
LOG_ROWS = 10
SCALES = {"input_scale": 7, "param_scale": 7}
WITH_ROOM = SCALES | {
    "input_visibility": "polycommit",
    "param_visibility": "fixed",
    "logrows": LOG_ROWS,
    "decomp_base": 256,
    "decomp_legs": 4,
}
"""Settings under which no graph is refused for want of rows."""
CLOSING = {
    LinkKind.KZG: {"output_visibility": "polycommit"},
    LinkKind.POSEIDON: {"output_visibility": "hashed"},
    LinkKind.PUBLIC: {"output_visibility": "public"},
}
NO_APPEAL = Mutant(Change("Staking.sol", "APPEAL_SECONDS = 1 days;", "APPEAL_SECONDS = 0;"))


WorkerAt = Callable[[Play, int, IpfsStore], daemon.Worker]


@dataclass(frozen=True)
class Forged:
    """A proof of a segment's longer graph: what that put out, and the link that it closes with."""

    segment: int
    outputs: Elements
    proof: Proof
    link: Link

    @property
    def output(self) -> Elements:
        """What the segment puts out."""
        return self.outputs[: len(self.outputs) // 2]


@pytest.fixture(scope="session")
def forged(prover: EzklProver, proving: Play, tmp_path_factory: pytest.TempPathFactory) -> tuple[Forged, ...]:
    """Of the first two segments, made from the input of the job that is played, with the keys that everybody has."""

    def forge(segment: int) -> Forged:
        directory = tmp_path_factory.mktemp("forged") / "circuit"
        circuit = longer_circuit(prover, proving.model.circuits[segment], directory)
        witness = prover.witness(circuit, proving.inputs[segment])
        proof = prover.prove(circuit, witness)
        return Forged(segment, witness.outputs, proof, Link(link_of_commitment(proof.proof[64:128])))

    return forge(0), forge(1)


@dataclass
class Overturned:
    """A job of which one member has just overturned what the two others had settled."""

    play: Play
    attacker: Worker
    holds: list[Hold]


def overturned(
    template: Play,
    forged: Forged,
    *,
    handed_on: Elements = (),
    at_work: Callable[[Play], Sequence[daemon.Worker]] = lambda play: (),
) -> Overturned:
    """One of three reveals another link of the same output, is outvoted, and proves it.

    Args:
        handed_on: what it seals to the next committee.
        at_work: starts the workers of those that do not act through the play.
    """
    segment = forged.segment

    def answer(at: int, place: int, honest: Elements) -> Elements:
        return forged.outputs if (at, place) == (segment, ATTACKER) else honest

    new = {"job": b"", "salt": bytes(31) + b"\x2e", "inputs": [], "_reveals": {}}
    play = replace(template, policy=NONE_PROVED, answer=answer, **new)  # type: ignore[arg-type]
    play.request()
    while (view := play.view()).phase is not Phase.COMMITTING or view.job.segment != segment:
        play.step(view)
    workers = at_work(play)
    try_once(*workers)
    while (view := play.view()).phase is not Phase.COMMITTING or view.job.segment == segment:
        play.step(view)
        for operator, (link, salt, _) in play._reveals.items():
            if link == forged.link:
                play._reveals[operator] = (link, salt, handed_on)
        for worker in (*workers, *workers):  # one may draw the committee that the others wait for
            worker.cycle()
    play.inputs[segment + 1 :] = [forged.output]
    round_ = view.rounds[segment]
    assert round_.settled_link == play.link_of(segment, forged.output) != forged.link
    assert len(round_.supporters) == 2
    return challenged(play, forged)


def challenged(play: Play, forged: Forged) -> Overturned:
    """The attacker proves what it said."""
    segment, proof, contracts = forged.segment, forged.proof, play.contracts
    round_ = play.view().rounds[segment]
    attacker = play.workers[round_.members[ATTACKER].operator]
    play.announce(segment, attacker, proof)
    cid = cid_to_digest(play.store.put(proof.to_json()))
    contracts.jobs.challenge(attacker.sender, play.job, segment, proof.proof, proof.instances, cid)
    overruled, now = round_.supporters, play.view().rounds[segment]
    assert (now.overturned, now.settled_link) == (True, forged.link)
    events = job_events(contracts, play.job, contracts.deployment.block, contracts.connection.block_number())
    holds = [hold_of(event.arguments) for event in events if event.name == "SlashHeld"]
    assert {hold.operator for hold in holds} == {member.operator for member in overruled}
    return Overturned(play, attacker, holds)


# --- the limit --------------------------------------------------------------------------------------------------------


def test_malleable_link__verifier_on_chain__accepts_the_same_output_under_another_link(
    contracts: Contracts, proving: Play, forged: tuple[Forged, ...]
) -> None:
    """What the circuits do not rule out, and the contracts have to live with."""
    verify, model, proof = contracts.verifier.verify_segment, proving.model.id, forged[0].proof
    honest, view = proving.proof(0), proving.view()
    settled = (view.job.input_link, view.rounds[0].settled_link)
    assert verify(model, 0, honest.proof, honest.instances) == settled
    assert verify(model, 0, proof.proof, proof.instances) == (settled[0], forged[0].link)
    assert forged[0].link != settled[1]
    assert forged[0].outputs == 2 * proving.inputs[1]
    # It does look at what the proof closes with.
    spliced = honest.proof[:64] + proof.proof[64:128] + honest.proof[128:]
    with refused("ProofRejected", modelId=model, segment=0):
        verify(model, 0, spliced, honest.instances)


def prove_both(prover: EzklProver, kind: LinkKind, directory: Path) -> tuple[Proof, Proof]:
    """Prove a layer and its longer graph, under settings that close it with a link of some kind."""
    layer = prepared_model(mlp((4, 6, 5, 3), seed=3), "attacked", prover).circuits[0].onnx.read_bytes()
    (directory.parent / "layer.onnx").write_bytes(layer)
    job = {"onnx": str(directory.parent / "layer.onnx"), "run_args": WITH_ROOM | CLOSING[kind], "name": "layer"}
    [settings] = prover.call("generate_settings", {"jobs": [job]}, prover.limits.settings_seconds, "layer")["settings"]
    circuit = prover.build(layer, settings.encode(), insecure_srs(prover, LOG_ROWS))
    elements = tuple(range(1, 5))
    honest = prover.prove(circuit, prover.witness(circuit, elements))
    other = longer_circuit(prover, circuit, directory)
    return honest, prover.prove(other, prover.witness(other, elements))


def test_malleable_link__of_commitment__is_proved(prover: EzklProver, tmp_path: Path) -> None:
    honest, other = prove_both(prover, LinkKind.KZG, tmp_path / "longer")
    assert honest.proof[:64] == other.proof[:64]
    assert honest.proof[64:128] != other.proof[64:128]


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        (LinkKind.POSEIDON, ProofRejected, "constraint system is not satisfied"),
        (LinkKind.PUBLIC, CircuitRefused, "synthesis error"),
    ],
    ids=["poseidon", "public"],
)
def test_malleable_link__of_hash_or_values__cannot_be_proved(
    prover: EzklProver, tmp_path: Path, kind: LinkKind, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        prove_both(prover, kind, tmp_path / "longer")


# --- the theft --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def without_appeals(theatre: LocalChain, prover: EzklProver, store: IpfsStore) -> Play:
    """The same model with its verifiers, and workers, at contracts that leave no time for an appeal."""
    contracts, owner = deploy(theatre, NO_APPEAL), theatre.instant("malleable owner")
    model = ready_model(mlp((4, 6, 5, 3), seed=3), "attacked", prover, store, contracts, owner)
    workers = enroll(theatre, contracts, model, 9, "malleable worker")
    requester = Worker(theatre.instant("malleable requester"), Identity.generate())
    return Play(contracts, store, prover, model, workers, requester, VALUES)


def test_malleable_link__defence_removed__takes_the_stake_of_an_honest_quorum(
    without_appeals: Play, theatre: LocalChain, forged: tuple[Forged, ...]
) -> None:
    with theatre.isolated():
        before = bonds(without_appeals)
        case = overturned(without_appeals, forged[1])
        staking, proof = case.play.contracts.staking, case.play.proof(1)
        for hold in case.holds:
            with refused("AppealOver", releaseAt=hold.release_at, now_=theatre.head()[1] + 1):
                staking.appeal(case.play.workers[hold.operator].sender, hold, proof.proof, proof.instances)
            staking.release(case.attacker.sender, hold)
        taken = {hold.operator: before[hold.operator] * CONTRADICTION // BPS for hold in case.holds}
        assert bonds(case.play) == {it: bond - taken.get(it, 0) for it, bond in before.items()}
        gained = staking.compensation_of(case.attacker.address)
        assert gained == sum(part * CHALLENGER // BPS for part in taken.values())
        # Far more than it loses when nobody can go on from what it proved; see below.
        assert gained > 10 * before[case.attacker.address] * MISS_BPS // BPS


def test_malleable_link__workers_of_an_honest_quorum__get_everything_back_and_nobody_is_paid(
    proving: Play,
    contracts: Contracts,
    chain: LocalChain,
    store: IpfsStore,
    forged: tuple[Forged, ...],
    isolation: None,
    worker_at: WorkerAt,
) -> None:
    """They commit, reveal and appeal by themselves."""
    before, staking = bonds(proving), contracts.staking
    workers: list[daemon.Worker] = []

    def at_work(play: Play) -> Sequence[daemon.Worker]:
        workers.extend(worker_at(play, place, store) for place in range(ATTACKER))
        return workers

    case = overturned(proving, forged[1], at_work=at_work)
    taken = {hold.operator: before[hold.operator] * CONTRADICTION // BPS for hold in case.holds}
    assert bonds(case.play) == {it: bond - taken.get(it, 0) for it, bond in before.items()}
    for _ in range(CYCLES):
        for worker in workers:
            worker.cycle()
        if not any(staking.is_held(hold) for hold in case.holds):
            break
        time.sleep(0.05)
    assert bonds(case.play) == before

    chain.move_to(max(hold.release_at for hold in case.holds))
    for hold in case.holds:
        with refused("NotHeld", jobId=case.play.job, segment=1, operator=hold.operator):
            staking.release(case.attacker.sender, hold)
    assert staking.compensation_of(case.attacker.address) == staking.compensation_of(proving.requester.address) == 0


# --- what becomes of the job ------------------------------------------------------------------------------------------


def run_to_its_end(case: Overturned, worker_at: WorkerAt, store: IpfsStore) -> None:
    """The honest appeal, and the workers of the next committee do what they can with what the attacker handed on."""
    play = case.play
    proof = play.proof(0)
    for hold in case.holds:
        play.contracts.staking.appeal(play.workers[hold.operator].sender, hold, proof.proof, proof.instances)
    workers = [worker_at(play, place, store) for place in range(3)]
    for worker in workers:
        with pytest.raises(NoUsableInput):
            worker.execute(play.view(), 1)
    try_once(*workers)
    assert all(member.commitment == ZERO_HASH for member in play.view().rounds[1].members)
    run_out_of_time(play)
    for _ in ("commit", "reveal"):
        for worker in workers:
            worker.cycle()
        if play.view().phase is Phase.DRAWING:
            play.step(play.view())
    # Nobody has a proof that the work could be done.
    assert play.view().phase is Phase.CONTESTED
    play.lapse(play.view())
    close_what_time_decided(play)


@pytest.mark.parametrize("copies", [1, 2], ids=["the output", "all that is committed to"])
def test_malleable_link__of_an_overturned_segment__nobody_can_go_on_from_it_and_the_attacker_pays(
    proving: Play, store: IpfsStore, forged: tuple[Forged, ...], isolation: None, worker_at: WorkerAt, copies: int
) -> None:
    before, credit_of = bonds(proving), proving.contracts.jobs.credit_of
    credits = {it: credit_of(it) for it in (*proving.workers, proving.requester.address)}
    case = overturned(proving, forged[0], handed_on=copies * forged[0].output)
    run_to_its_end(case, worker_at, store)
    view, attacker, requester = case.play.view(), case.attacker.address, proving.requester.address
    assert [member.link for member in view.rounds[1].members] == [UNAVAILABLE] * 3
    assert view.phase is Phase.FAILED
    # The attacker alone loses, the requester has its fee back, and the honest have done one segment for nothing.
    assert bonds(case.play) == before | {attacker: before[attacker] - before[attacker] * MISS_BPS // BPS}
    assert {it: credit_of(it) for it in credits} == credits | {requester: credits[requester] + case.play.fee_wei}


def test_malleable_link__audited__both_links_are_told_of(
    contracts: Contracts,
    prover: EzklProver,
    proving: Play,
    store: IpfsStore,
    forged: tuple[Forged, ...],
    isolation: None,
    worker_at: WorkerAt,
) -> None:
    case = overturned(proving, forged[0], handed_on=forged[0].output)
    run_to_its_end(case, worker_at, store)
    report = audit(contracts, store, prover, case.play.job)
    # Nothing but that the job came to no end.
    assert {name for name, _ in report.failures} == {"phase", "segments[1].settled", "segments[2].settled"}
    first = report.segments[0]
    assert (first.label, first.history) == ("proved", ("overturned",))
    penalties = first.checks["penalties"].detail
    assert penalties.count("CONTRADICTED_PROOF, held") == penalties.count("this circuit admits both") == 2
    assert f"{case.attacker.address} WITHHELD_ACTIVATION" in penalties

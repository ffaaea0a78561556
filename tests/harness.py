"""Plays whole jobs on a real chain, a real IPFS node and real proofs, step by step and without worker processes.

Every account acts through the same typed contract classes as in production, so that a test may stop a job anywhere, or
replace any step of it by something dishonest.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from offchain.chain.contracts import Contracts, read_job
from offchain.chain.jobs import JobRequest
from offchain.chain.sender import Receipt, Sender
from offchain.inference.calibration import Samples
from offchain.models.preparation import PreparedModel, prepare
from offchain.models.publication import publish
from offchain.models.recipe import Recipe
from offchain.protocol import hashing
from offchain.protocol.duties import JobView
from offchain.protocol.field import decode_elements, encode_elements, quantise
from offchain.protocol.links import LinkKind, link_of_commitment, link_of_values
from offchain.protocol.manifest import Manifest
from offchain.protocol.types import Address, JobId, Link, ModelId, Phase, Policy, is_output
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Proof, SegmentCircuit, Witness
from offchain.storage.cid import Cid, cid_to_digest, digest_to_cid
from offchain.storage.ipfs import IpfsStore
from offchain.storage.node import start_node
from offchain.storage.port import ContentStore
from offchain.storage.sealing import EncryptionKey, Identity, encryption_key, seal, unseal
from offchain.toolchain import project_root
from tests.local_chain import ETHER, LocalChain

Elements = tuple[int, ...]
Answer = Callable[[int, int, Elements], Elements]
"""What a member puts out: called with the segment, its place in the committee, and the honest output."""

TEST_CACHE = project_root() / "build" / "test-cache"
MAX_SEALED_BYTES = 1 << 20
FEE_WEI = ETHER // 7  # no multiple of anything, so that rounding shows
MORE_THAN_HALF = 5_001
ALL_PROVED = Policy(3, MORE_THAN_HALF, 1_000, 600, 600, 600, 600, 600)
NONE_PROVED = Policy(3, MORE_THAN_HALF, 0, 600, 600, 600, 600, 600)


def honest(segment: int, place: int, outputs: Elements) -> Elements:
    """Answer what the segment computes."""
    return outputs


def test_prover() -> EzklProver:
    """A prover whose cache outlives the run, so that second runs are quick."""
    return EzklProver(ArtefactCache(TEST_CACHE))


test_prover.__test__ = False  # type: ignore[attr-defined]


@contextmanager
def running_store(directory: Path) -> Iterator[IpfsStore]:
    """A real IPFS node of one's own; missing content is given up after half a second."""
    with start_node(directory, fetch_timeout_seconds=0.5) as node:
        yield IpfsStore(node.api_url, timeout_seconds=60)


@dataclass(frozen=True)
class ReadyModel:
    """A registered model, with what only its owner and its workers hold."""

    id: ModelId
    prepared: PreparedModel
    onnx: bytes

    @property
    def manifest(self) -> Manifest:
        """What the model is."""
        return self.prepared.manifest

    @property
    def circuits(self) -> tuple[SegmentCircuit, ...]:
        """Its compiled segments."""
        return self.prepared.circuits

    def quantise(self, values: Sequence[float]) -> Elements:
        """Turn a real input into field elements at the model's scale."""
        return quantise(values, self.manifest.segments[0].input_scale)


@dataclass(frozen=True)
class Worker:
    """An operator's account and the identity to which activations are sealed for it."""

    sender: Sender
    identity: Identity

    @property
    def address(self) -> Address:
        """Its account."""
        return Address(self.sender.address)


def prepared_model(
    onnx: bytes, name: str, prover: EzklProver, *, segments: int = 3, width: int = 4, trials: int = 0
) -> PreparedModel:
    """Prepare a model, or take it from the cache if neither it nor our code has changed.

    Without trials, whoever bonds may serve it.
    """
    calibration = Samples(np.random.default_rng(7).uniform(-2, 2, (16, width)).astype(np.float32), None)
    recipe = Recipe(name, segments=segments, max_log_rows=11, trials=trials)

    def make(directory: Path) -> None:
        (directory / "prepared").write_bytes(pickle.dumps(prepare(onnx, recipe, calibration, prover)))

    inputs = {
        "onnx": hashlib.sha256(onnx).hexdigest(),
        "name": name,
        "segments": segments,
        "trials": trials,
        "tool": prover.version,
        "code": _digest_of_code("models", "proving", "protocol", "inference", "storage"),
    }
    prepared: PreparedModel = pickle.loads(
        (prover.cache.get_or_make("test-model", inputs, make) / "prepared").read_bytes()
    )
    return prepared


def ready_model(
    onnx: bytes,
    name: str,
    prover: EzklProver,
    store: ContentStore,
    contracts: Contracts,
    owner: Sender,
    *,
    segments: int = 3,
    width: int = 4,
    trials: int = 0,
) -> ReadyModel:
    """Prepare a tiny model, cut in segments, and publish it. Its name makes it another model than any other test's."""
    prepared = prepared_model(onnx, name, prover, segments=segments, width=width, trials=trials)
    return ReadyModel(publish(prepared, store, contracts, owner), prepared, onnx)


def enroll(chain: LocalChain, contracts: Contracts, model: ReadyModel, count: int, name: str) -> dict[Address, Worker]:
    """Have so many workers announce a key, bond between 1 and 2 ether, and serve a model."""
    workers = {}
    for index in range(count):
        worker = Worker(chain.instant(f"{name} {index}"), Identity.generate())
        contracts.staking.set_encryption_key(worker.sender, worker.identity.encryption_key)
        contracts.staking.bond(worker.sender, ETHER + index * ETHER // 10)
        contracts.staking.serve(worker.sender, model.id)
        workers[worker.address] = worker
    return workers


_proved: dict[tuple[Path, Elements], tuple[Witness, Proof | None]] = {}


def execute(prover: EzklProver, circuit: SegmentCircuit, elements: Elements) -> Witness:
    """Execute a segment, once per session."""
    key = (circuit.directory, elements)
    if key not in _proved:
        _proved[key] = (prover.witness(circuit, elements), None)
    return _proved[key][0]


def prove(prover: EzklProver, circuit: SegmentCircuit, elements: Elements) -> Proof:
    """Prove a segment over these inputs, once per session."""
    witness = execute(prover, circuit, elements)
    proof = _proved[circuit.directory, elements][1] or prover.prove(circuit, witness)
    _proved[circuit.directory, elements] = (witness, proof)
    return proof


@dataclass
class Play:
    """A job on its way, with everybody who has a part in it.

    Args:
        values: the input, as real numbers.
        answer: what members put out; see :data:`Answer`.
        silent: segment and place in its first committee of members that do not commit; time has to lapse without them.
        mute: likewise of members that commit and do not reveal.
        votes: likewise what members reveal in place of an output.
        inputs: per segment, the elements that go in: the input, then what each segment settled on.
    """

    contracts: Contracts
    store: ContentStore
    prover: EzklProver
    model: ReadyModel
    workers: dict[Address, Worker]
    requester: Worker
    values: tuple[float, ...]
    policy: Policy = ALL_PROVED
    answer: Answer = honest
    silent: frozenset[tuple[int, int]] = frozenset()
    mute: frozenset[tuple[int, int]] = frozenset()
    votes: dict[tuple[int, int], Link] = field(default_factory=dict)
    route_cid: bytes = bytes(32)
    fee_wei: int = FEE_WEI
    salt: bytes = field(default_factory=lambda: os.urandom(32))
    inputs: list[Elements] = field(default_factory=list)
    job: JobId = JobId(b"")
    _reveals: dict[Address, tuple[Link, bytes, Elements]] = field(default_factory=dict)

    def view(self) -> JobView:
        """The job as the newest block shows it."""
        return read_job(self.contracts, self.job)

    def run(self, until: Phase = Phase.FINALISED) -> Play:
        """Take steps until the job is in a phase; the request first, if it was not made yet."""
        if not self.job:
            self.request()
        while (view := self.view()).phase is not until:
            assert not view.phase.is_terminal, f"the job is {view.phase.name}, and {until.name} was never seen"
            self.step(view)
        return self

    def step(self, view: JobView) -> None:
        """Do whatever the phase asks for; where only time is left to pass, let it pass."""
        if view.phase in (Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING):
            self.contracts.jobs.draw(self.requester.sender, self.job)
        elif view.phase is Phase.AWAITING_INPUT:
            self.provide_input()
        elif view.phase is Phase.COMMITTING:
            self.commit(view)
        elif view.phase is Phase.REVEALING:
            self.reveal(view)
        elif view.phase is Phase.SETTLING:
            self.contracts.jobs.settle(self.requester.sender, self.job)
            self._follow(view.job.segment)
        elif view.phase is Phase.CONTESTED:
            if any(is_output(member.link) for member in view.round.members):
                self.challenge(view.job.segment)
            else:
                self.lapse(view)
        elif view.phase is Phase.PROVING:
            due = [index for index, it in enumerate(view.rounds) if int(it.prover, 16) and it.proof_hash == bytes(32)]
            self.prove(due[0])
        elif view.phase is Phase.CHALLENGEABLE:
            self.lapse(view)
        elif view.phase is Phase.EXPIRED:
            self.contracts.jobs.expire(self.requester.sender, self.job)
        elif view.phase is Phase.FINALISABLE:
            self.contracts.jobs.finalise(self.requester.sender, self.job)
        else:
            raise AssertionError(f"nothing to be done in {view.phase.name}")

    def lapse(self, view: JobView) -> None:
        """Let the time of the phase pass."""
        LocalChain(self.contracts.connection).move_to(view.job.deadline)

    def request(self) -> JobId:
        """Commit to the input and escrow the fee."""
        self.inputs = [self.model.quantise(self.values)]
        link = link_of_commitment(self.prover.commit(self.inputs[0], self.model.circuits[0]))
        key = self.requester.identity.encryption_key
        what = JobRequest(self.model.id, Link(link), key, self.salt, self.policy, self.route_cid)
        self.contracts.jobs.request(self.requester.sender, what, self.fee_wei)
        chain_id, jobs = self.contracts.connection.chain_id, self.contracts.jobs
        self.job = hashing.job_id(chain_id, jobs.address, self.requester.address, self.salt)
        return self.job

    def provide_input(self) -> None:
        """Seal the input to the first committee."""
        cid = self.store.put(seal(encode_elements(self.inputs[0]), self._keys(0)))
        self.contracts.jobs.provide_input(self.requester.sender, self.job, cid_to_digest(cid))

    def commit(self, view: JobView) -> None:
        """Have every member open its input, execute the segment and commit to what it answers."""
        segment, attempt = view.job.segment, view.job.attempts[view.job.segment]
        if attempt and segment:
            self.reseal(view)
        waiting = [
            (place, member)
            for place, member in enumerate(view.round.members)
            if member.commitment == bytes(32) and (attempt or (segment, place) not in self.silent)
        ]
        if not waiting:
            return self.lapse(view)
        received = self._received(self.view(), segment)
        for place, member in waiting:
            worker = self.workers[member.operator]
            opened = decode_elements(unseal(self.store.get(received, max_bytes=MAX_SEALED_BYTES), worker.identity))
            assert opened == self.inputs[segment]
            outputs = self.answer(segment, place, execute(self.prover, self.model.circuits[segment], opened).outputs)
            vote = None if attempt else self.votes.get((segment, place))
            link, salt = vote or self.link_of(segment, outputs), os.urandom(32)
            self._reveals[worker.address] = (link, salt, () if vote else outputs)
            committed = self.commitment(segment, worker.address, link, salt)
            attempt = self.contracts.jobs.job_of(self.job).attempts[segment]
            self.contracts.jobs.commit(worker.sender, self.job, segment, attempt, committed)
        return None

    def reseal(self, view: JobView) -> None:
        """Have every supporter of the segment before seal its output to the committee that was drawn anew."""
        segment = view.job.segment
        cid = cid_to_digest(self.store.put(seal(encode_elements(self.inputs[segment]), self._keys(segment))))
        for member in view.rounds[segment - 1].supporters:
            if member.sealed_for < view.job.attempts[segment]:
                self.contracts.jobs.reseal(self.workers[member.operator].sender, self.job, cid)

    def reveal(self, view: JobView) -> None:
        """Have every member open its commitment and pass its output on, sealed."""
        segment, attempt = view.job.segment, view.job.attempts[view.job.segment]
        keys, revealed = self._keys(segment + 1), 0
        for place, member in enumerate(view.round.members):
            is_mute = not attempt and (segment, place) in self.mute
            if member.commitment == bytes(32) or member.link != bytes(32) or is_mute:
                continue
            link, salt, outputs = self._reveals[member.operator]
            cid = cid_to_digest(self.store.put(seal(encode_elements(outputs), keys))) if is_output(link) else bytes(32)
            self.contracts.jobs.reveal(self.workers[member.operator].sender, self.job, link, salt, cid)
            revealed += 1
        if not revealed:
            self.lapse(view)
        self._follow(segment)

    def _follow(self, segment: int) -> None:
        """What a segment settled on goes into the next one."""
        settled = self.view().rounds[segment].settled_link
        self.inputs[segment + 1 :] = [outputs for link, _, outputs in self._reveals.values() if link == settled][:1]

    def announce(self, segment: int, worker: Worker, proof: Proof | None = None) -> Receipt:
        """Bind a worker to a proof: the honest one, unless another is given."""
        proof, connection, jobs = proof or self.proof(segment), self.contracts.connection, self.contracts.jobs
        attempt, hashed = jobs.job_of(self.job).attempts[segment], hashing.proof_hash(proof.proof, proof.instances)
        bound = (segment, attempt, worker.address, hashed)
        content = hashing.announcement(connection.chain_id, jobs.address, self.job, *bound)
        return jobs.announce(worker.sender, self.job, segment, content)

    def challenge(self, segment: int, worker: Worker | None = None) -> Receipt:
        """Have a member announce and prove what it revealed: the first honest one, unless another is given."""
        proof = self.proof(segment)
        outputs = execute(self.prover, self.model.circuits[segment], self.inputs[segment]).outputs
        truth, members = self.link_of(segment, outputs), self.view().rounds[segment].members
        worker = worker or next(self.workers[it.operator] for it in members if it.link == truth)
        self.announce(segment, worker, proof)
        cid = cid_to_digest(self.store.put(proof.to_json()))
        self.inputs[segment + 1 :] = [outputs]
        return self.contracts.jobs.challenge(worker.sender, self.job, segment, proof.proof, proof.instances, cid)

    def prove(self, segment: int, proof: Proof | None = None, sender: Sender | None = None) -> Receipt:
        """Have the drawn prover send a proof: the honest one, unless another is given; announced, if it has to be."""
        view, is_own = self.view(), proof is None
        proof, sender = proof or self.proof(segment), sender or self.prover_of(segment).sender
        worker = self.workers.get(Address(sender.address))
        if is_own and worker and view.timestamp + self.policy.prove_seconds + 2 >= view.job.deadline:
            self.announce(segment, worker, proof)
        cid = cid_to_digest(self.store.put(proof.to_json()))
        return self.contracts.jobs.prove(sender, self.job, segment, proof.proof, proof.instances, cid)

    def proof(self, segment: int) -> Proof:
        """The honest proof of a segment of this job."""
        return prove(self.prover, self.model.circuits[segment], self.inputs[segment])

    def prover_of(self, segment: int) -> Worker:
        """Whoever was drawn to prove a segment."""
        return self.workers[self.view().rounds[segment].prover]

    def link_of(self, segment: int, outputs: Elements) -> Link:
        """The link of an output of a segment, be it honest or not."""
        circuit = self.model.circuits[segment]
        if circuit.output_kind is LinkKind.PUBLIC:
            return Link(link_of_values(outputs))
        # An output commits as the next segment's input does: their circuits were tuned to commit alike.
        return Link(link_of_commitment(self.prover.commit(outputs, circuit)))

    def commitment(self, segment: int, operator: Address, link: Link, salt: bytes) -> bytes:
        """What a member commits to."""
        connection, jobs = self.contracts.connection, self.contracts.jobs
        attempt = jobs.job_of(self.job).attempts[segment]
        return hashing.commitment(connection.chain_id, jobs.address, self.job, segment, attempt, operator, link, salt)

    def _keys(self, segment: int) -> list[EncryptionKey]:
        """To whom the input of a segment is sealed; behind the last segment stands the requester."""
        view = self.view()
        if segment == view.job.segments:
            return [encryption_key(view.job.result_key)]
        members = view.rounds[segment].members
        return [encryption_key(self.contracts.staking.encryption_key_of(member.operator)) for member in members]

    def _received(self, view: JobView, segment: int) -> Cid:
        if segment == 0:
            return digest_to_cid(view.job.input_cid)
        attempt = view.job.attempts[segment]
        sealed = [member for member in view.rounds[segment - 1].supporters if member.sealed_for == attempt]
        return digest_to_cid(sealed[0].activation_cid)


def _digest_of_code(*packages: str) -> str:
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted((project_root() / "offchain" / package).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()

"""Row 9: blocks of an activation that are gone from the IPFS nodes, or are not what their CIDs say.

The blocks are those of real nodes, changed where Kubo keeps them: it hashes nothing that it reads.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import base58
import pytest

from offchain.chain.contracts import Contracts
from offchain.protocol.duties import JobView
from offchain.protocol.field import encode_elements
from offchain.protocol.types import UNAVAILABLE, ZERO_HASH, Address, JobId, ModelId, Phase
from offchain.proving.port import SegmentCircuit
from offchain.proving.service import ProverService
from offchain.storage import ipfs
from offchain.storage.cid import Cid, cid_of, digest_to_cid
from offchain.storage.ipfs import IpfsStore
from offchain.storage.local import CachedStore
from offchain.storage.port import ContentCorrupt, ContentUnavailable
from offchain.storage.sealing import encryption_key, seal
from offchain.worker import executor
from offchain.worker.daemon import Settings, Worker
from offchain.worker.executions import Executions
from offchain.worker.executor import Executor, NoUsableInput
from offchain.worker.memory import Memory
from tests.harness import MAX_SEALED_BYTES, Play, running_store
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration

SEGMENT = 1
MISS_BPS = 100  # migrations/config/local.json
NO_MODELS = ("none",)


class Serving(Executor):
    """What executes in a worker that has loaded its model already."""

    served: tuple[SegmentCircuit, ...]

    def circuits(self, model_id: ModelId) -> tuple[SegmentCircuit, ...]:
        return self.served


class Anything(str):
    """Equal to whatever it is compared with."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = None  # type: ignore[assignment]


def without_the_cid_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have stores take for content whatever the node gives."""
    monkeypatch.setattr(ipfs, "cid_of", lambda content: Anything(cid_of(content)))


def without_the_link_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers take for their input whatever the circuit takes."""
    monkeypatch.setattr(executor, "input_link", lambda *arguments: Anything())


@dataclass(frozen=True)
class Node:
    """An IPFS node in hands that reach into its repository."""

    repository: Path
    store: IpfsStore

    def drop(self, cid: Cid) -> None:
        """Lose a block."""
        self._block(cid).unlink()

    def forge(self, cid: Cid, content: bytes) -> Cid:
        """Keep the block of other content in its place; returns that one's CID."""
        other = self.store.put(content)
        self._block(cid).parent.mkdir(exist_ok=True)
        self._block(cid).write_bytes(self._block(other).read_bytes())
        return other

    def _block(self, cid: Cid) -> Path:
        # Source: go-ds-flatfs, shard function next-to-last/2; keys are unpadded base32 multihashes.
        key = base64.b32encode(base58.b58decode(cid)).decode("ascii").rstrip("=")
        return self.repository / "blocks" / key[-3:-1] / f"{key}.data"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, store: IpfsStore) -> Iterator[Node]:
    """A second node, which gets from the first one what it does not have."""
    repository = tmp_path_factory.mktemp("altered")
    with running_store(repository) as running:
        running.connect_peer(store.health().addresses[0])
        yield Node(repository, running)


@pytest.fixture
def begin(proving: Play, isolation: None) -> Callable[[IpfsStore], Play]:
    """Play a job on some store until its segment 1 waits for commitments."""

    def run(store: IpfsStore) -> Play:
        play = replace(proving, store=store, job=JobId(b""), salt=bytes(31) + b"\x09", inputs=[], _reveals={})
        play.request()
        while (view := play.view()).phase is not Phase.COMMITTING or view.job.segment != SEGMENT:
            play.step(view)
        return play

    return run


@pytest.fixture
def worker_at(tmp_path: Path, contracts: Contracts) -> Iterator[Callable[[Play, int, IpfsStore], Worker]]:
    """Start the worker of a member of segment 1, by its place in the committee, at an IPFS node."""
    with_threads: list[Executions] = []

    def start(play: Play, place: int, store: IpfsStore) -> Worker:
        member = play.workers[play.view().rounds[SEGMENT].members[place].operator]
        directory = tmp_path / str(place)
        directory.mkdir()
        cached = CachedStore(store, directory)
        settings = Settings(0, NO_MODELS, 0.0, 0.0, 10**30)
        service = ProverService(play.prover, memory_bytes=1 << 30)
        serving = Serving(contracts, cached, play.prover, service, member.identity)
        serving.served = play.model.circuits
        memory = Memory(directory / "memory.sqlite")
        worker = Worker(contracts, member.sender, cached, serving, memory, member.identity, settings)
        with_threads.append(worker._executions)
        return worker

    yield start
    for executions in with_threads:
        executions.stop()


def copies(view: JobView) -> tuple[Cid, ...]:
    """The copies of the activation that goes into segment 1."""
    return tuple(digest_to_cid(member.activation_cid) for member in view.rounds[SEGMENT - 1].supporters)


def forge_all(node: Node, play: Play) -> tuple[int, ...]:
    """Put in the place of every copy an activation that is another job's, sealed as it should be."""
    view, staking = play.view(), play.contracts.staking
    elements = (play.inputs[SEGMENT][0] + 1, *play.inputs[SEGMENT][1:])
    keys = [encryption_key(staking.encryption_key_of(member.operator)) for member in view.rounds[SEGMENT].members]
    for cid in copies(view):
        node.forge(cid, seal(encode_elements(elements), keys))
    return elements


def try_once(*workers: Worker) -> None:
    """Have workers try to have the input, and learn how it went."""
    for worker in workers:
        worker.cycle()
    for worker in workers:
        worker._executions.wait()
        worker.cycle()


def run_out_of_time(play: Play) -> None:
    """Move to where a worker says that it has no input, rather than nothing."""
    job = play.view().job
    LocalChain(play.contracts.connection).move_to(job.deadline - job.policy.commit_seconds // 2)


def bonds(play: Play) -> dict[Address, int]:
    return {operator: play.contracts.staking.active_of(operator) for operator in play.workers}


# --- altered ----------------------------------------------------------------------------------------------------------


def served_by(play: Play, worker: Worker) -> Play:
    """The member at place 0 works from its own node, the others from a sound one; then every segment is proved."""
    try_once(worker)
    if play.view().rounds[SEGMENT].members[0].commitment == ZERO_HASH:
        run_out_of_time(play)
        worker.cycle()
    play.step(play.view())
    play.run(until=Phase.REVEALING)
    worker.cycle()
    return play.run()


def test_altered_blocks__defence_removed__an_honest_worker_votes_for_another_input_and_is_slashed(
    node: Node,
    begin: Callable[[IpfsStore], Play],
    worker_at: Callable[[Play, int, IpfsStore], Worker],
    store: IpfsStore,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    play = begin(store)
    forged, before = forge_all(node, play), bonds(play)
    without_the_cid_check(monkeypatch)
    without_the_link_check(monkeypatch)
    worker = worker_at(play, 0, node.store)
    served_by(play, worker)
    round_ = play.view().rounds[SEGMENT]
    wrong = play.link_of(SEGMENT, play.prover.witness(play.model.circuits[SEGMENT], forged).outputs)
    assert round_.members[0].link == wrong
    assert wrong != round_.settled_link
    victim = round_.members[0].operator
    assert {operator for operator, bond in bonds(play).items() if bond < before[operator]} == {victim}


def test_altered_blocks__refused_because_they_hash_to_another_cid(
    node: Node,
    begin: Callable[[IpfsStore], Play],
    worker_at: Callable[[Play, int, IpfsStore], Worker],
    store: IpfsStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    play = begin(store)
    forge_all(node, play)
    before = bonds(play)
    served_by(play, worker_at(play, 0, node.store))
    view = play.view()
    for cid in copies(view):
        with pytest.raises(ContentCorrupt) as caught:
            node.store.get(cid, max_bytes=MAX_SEALED_BYTES)
        assert caught.value.cid == cid != caught.value.actual
        assert str(caught.value) in caplog.text
    # What it cannot have costs it nothing; and the two who have the input settle on the right output.
    assert view.rounds[SEGMENT].members[0].link == UNAVAILABLE
    assert (bonds(play), view.phase) == (before, Phase.FINALISED)


@pytest.mark.parametrize(
    ("remove", "reason"),
    [
        pytest.param(without_the_link_check, "is corrupt: what came is", id="the CID"),
        pytest.param(without_the_cid_check, "does not match the link", id="the link"),
    ],
)
def test_altered_blocks__one_of_two_defences_left__refused(
    node: Node,
    begin: Callable[[IpfsStore], Play],
    worker_at: Callable[[Play, int, IpfsStore], Worker],
    store: IpfsStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    remove: Callable[[pytest.MonkeyPatch], None],
    reason: str,
) -> None:
    play = begin(store)
    forge_all(node, play)
    remove(monkeypatch)
    worker = worker_at(play, 0, node.store)
    with pytest.raises(NoUsableInput):
        worker.execute(play.view(), SEGMENT)
    assert caplog.text.count(reason) == 3


def test_altered_block__defence_removed__is_taken_for_content(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the hash it is the node that says what the content is."""
    cid, other = cid_of(b"an activation"), b"what somebody liked better"
    node.forge(cid, other)
    without_the_cid_check(monkeypatch)
    assert node.store.get(cid, max_bytes=100) == other


# --- dropped ----------------------------------------------------------------------------------------------------------


def test_dropped_block__defence_removed__one_member_stops_the_work(
    node: Node,
    begin: Callable[[IpfsStore], Play],
    worker_at: Callable[[Play, int, IpfsStore], Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The defence: every supporter keeps a copy of its own. Here a worker asks for the first one alone."""
    play = begin(node.store)
    view = play.view()
    node.drop(copies(view)[0])
    monkeypatch.setattr(executor, "_input_cids", lambda view, segment: copies(view)[:1])
    with pytest.raises(NoUsableInput):
        worker_at(play, 0, node.store).execute(view, SEGMENT)


def test_dropped_block__of_one_member__another_copy_is_taken(
    node: Node, begin: Callable[[IpfsStore], Play], worker_at: Callable[[Play, int, IpfsStore], Worker]
) -> None:
    play = begin(node.store)
    view = play.view()
    first, second, _ = copies(view)
    node.drop(first)
    node.forge(second, b"and another is altered")
    work = worker_at(play, 0, node.store).execute(view, SEGMENT)
    assert work.inputs == play.inputs[SEGMENT]


def starve(node: Node, play: Play, worker_at: Callable[[Play, int, IpfsStore], Worker]) -> list[Worker]:
    """Lose every copy; returns the workers that have looked for one, with half of their time gone."""
    for cid in copies(play.view()):
        node.drop(cid)
    with pytest.raises(ContentUnavailable):
        node.store.get(copies(play.view())[0], max_bytes=MAX_SEALED_BYTES)
    workers = [worker_at(play, place, node.store) for place in range(3)]
    try_once(*workers)
    assert all(member.commitment == ZERO_HASH for member in play.view().rounds[SEGMENT].members)
    run_out_of_time(play)
    return workers


def test_dropped_blocks__defence_removed__keeping_an_activation_back_is_free(
    node: Node,
    begin: Callable[[IpfsStore], Play],
    worker_at: Callable[[Play, int, IpfsStore], Worker],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Workers that only wait, and say nothing."""
    play = begin(node.store)
    before = bonds(play)
    monkeypatch.setattr(Executions, "answer", lambda self, view, segment, *rest: self._try(view, segment))
    for worker in starve(node, play, worker_at):
        worker.cycle()
    while not (view := play.view()).phase.is_terminal:
        play.lapse(view)
        close_what_time_decided(play)
    assert (play.view().phase, bonds(play)) == (Phase.FAILED, before)


def close_what_time_decided(play: Play) -> None:
    """What anybody may do where the members do nothing."""
    phase, jobs, anybody = play.view().phase, play.contracts.jobs, play.requester.sender
    if phase is Phase.DRAWING:
        jobs.draw(anybody, play.job)
    elif phase is Phase.EXPIRED:
        jobs.expire(anybody, play.job)


def test_dropped_blocks__are_voted_unavailable_and_charged_to_those_who_kept_them(
    node: Node, begin: Callable[[IpfsStore], Play], worker_at: Callable[[Play, int, IpfsStore], Worker]
) -> None:
    play = begin(node.store)
    before, credit = bonds(play), play.contracts.jobs.credit_of(play.requester.address)
    workers = starve(node, play, worker_at)
    for _ in ("commit", "reveal"):
        for worker in workers:
            worker.cycle()
        if play.view().phase is Phase.DRAWING:
            play.step(play.view())
    # Nobody has a proof that the work could be done. Not the workers: they would close the tests' other job as well.
    assert play.view().phase is Phase.CONTESTED
    play.lapse(play.view())
    close_what_time_decided(play)
    view = play.view()
    kept = {member.operator: member.weight for member in view.rounds[SEGMENT - 1].supporters}
    assert [member.link for member in view.rounds[SEGMENT].members] == [UNAVAILABLE] * 3
    assert view.phase is Phase.FAILED
    assert bonds(play) == {it: bond - kept.get(it, 0) * MISS_BPS // 10_000 for it, bond in before.items()}
    assert play.contracts.jobs.credit_of(play.requester.address) == credit + play.fee_wei

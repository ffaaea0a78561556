"""A stage for tests of the contracts: a registered model with mock verifiers, workers that serve it, and jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.chain.contracts import Contracts
from offchain.chain.errors import TransactionRefused
from offchain.chain.jobs import JobRequest
from offchain.chain.sender import Receipt, Sender
from offchain.protocol import hashing
from offchain.protocol.field import encode_elements
from offchain.protocol.links import LinkKind
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Job, JobId, Link, ModelId, Phase, Policy, Round, is_output
from tests.local_chain import ETHER, InstantSender, LocalChain

PROOF_BYTES = 256
OUTPUT = (7, 8, 9)
POLICY = Policy(
    committee_size=3,
    quorum_bps=6000,
    proof_permille=1000,
    input_seconds=1000,
    commit_seconds=200,
    reveal_seconds=300,
    prove_seconds=400,
    challenge_seconds=500,
)
FEE = 3 * 10**15 + 7
STAKES = (2 * ETHER + 1, 3 * ETHER + 7, 3 * ETHER + 13)
"""Odd, so that every share is rounded; none of them alone holds a quorum, and any two together do."""
TRUE = 0
_salts = count(1)


def spec(verifier_code_hash: bytes, **changes: Any) -> dict[str, Any]:
    """The fields of ``SegmentSpec`` by name, for a segment between two KZG links of three elements each."""
    fields: dict[str, Any] = {
        "verification_key_digest": keccak(b"key"),
        "verifier_code_hash": verifier_code_hash,
        "input_kind": LinkKind.KZG,
        "output_kind": LinkKind.KZG,
        "input_scale": 7,
        "output_scale": 7,
        "proof_bytes": PROOF_BYTES,
        "input_shape": [1, 3],
        "output_shape": [1, 3],
    }
    assert changes.keys() <= fields.keys()
    return fields | changes


def as_abi(specs: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """Specs as the contract takes them."""
    return [tuple(fields.values()) for fields in specs]


@dataclass
class Stage:
    """Contracts, one model of ``segments`` segments, and the workers that serve it."""

    chain: LocalChain
    contracts: Contracts
    requester: InstantSender
    owner: InstantSender
    workers: tuple[InstantSender, ...] = ()
    verifiers: tuple[str, ...] = ()
    model: ModelId = ModelId(b"")

    def mock(self, answer: int = TRUE, circuit: int = 0) -> tuple[str, bytes]:
        """Deploy a mock verifier; return its address and code hash."""
        address = self.chain.deploy(self.owner, "VerifierMock", answer, circuit)
        return address, keccak(bytes(self.chain.connection.web3.eth.get_code(address)))

    def register(
        self,
        specs: Sequence[Mapping[str, Any]],
        verifiers: Sequence[str],
        name: str = "model",
        trials: Sequence[bytes] = (),
    ) -> ModelId:
        """Register a model."""
        manifest_hash, manifest_cid = keccak(name.encode()), keccak(b"cid" + name.encode())
        content = (manifest_hash, manifest_cid, as_abi(specs))
        self.contracts.registry.register_model(self.owner, *content, verifiers, trials)
        return ModelId(hashing.model_id(*content, trials))

    def register_segments(
        self, segments: int, name: str = "model", answer: int = TRUE, trials: Sequence[bytes] = ()
    ) -> ModelId:
        """Register a model of so many segments in a row, the last with a public output."""
        mocks = [self.mock(answer, circuit) for circuit in range(segments)]
        specs = [spec(code_hash) for _, code_hash in mocks]
        specs[-1]["output_kind"] = LinkKind.PUBLIC
        self.verifiers = tuple(address for address, _ in mocks)
        return self.register(specs, self.verifiers, name, trials)

    def join(self, worker: Sender, stake_wei: int, model: ModelId | None = None) -> None:
        """Bond and serve."""
        staking = self.contracts.staking
        staking.bond(worker, stake_wei)
        staking.set_encryption_key(worker, keccak(worker.address.encode()))
        staking.serve(worker, model or self.model)

    def request(
        self, policy: Policy = POLICY, fee_wei: int = FEE, requester: Sender | None = None, **changes: Any
    ) -> Play:
        """Open a job."""
        sender = requester or self.requester
        salt = next(_salts).to_bytes(32, "big")
        fields: dict[str, Any] = {
            "model_id": self.model,
            "input_link": commitment_link(self._boundary(0)),
            "result_key": keccak(b"result key"),
            "salt": salt,
            "policy": policy,
        }
        self.contracts.jobs.request(sender, JobRequest(**fields | changes), fee_wei)
        job = hashing.job_id(
            self.contracts.connection.chain_id,
            self.contracts.jobs.address,
            sender.address,
            (changes or fields).get("salt", salt),  # type: ignore[arg-type]
        )
        return Play(self, job, sender)

    def _boundary(self, index: int) -> bytes:
        return keccak(b"x%d" % index) + keccak(b"y%d" % index)

    def by_address(self, address: str) -> InstantSender:
        """The worker with this address."""
        return next(worker for worker in self.workers if worker.address == address)

    def credits(self) -> dict[str, int]:
        """What is credited to everybody on the stage."""
        everybody = (self.requester, self.owner, *self.workers)
        return {sender.address: self.contracts.jobs.credit_of(sender.address) for sender in everybody}


def commitment_link(commitment: bytes) -> Link:
    """The link of a KZG commitment."""
    return Link(keccak(commitment))


@dataclass
class Play:
    """One job on the stage, with the moves that its members can make."""

    stage: Stage
    job: JobId
    requester: Sender
    secrets: dict[tuple[int, int, str], tuple[Link, bytes]] = field(default_factory=dict)

    @property
    def jobs(self) -> Any:
        return self.stage.contracts.jobs

    @property
    def phase(self) -> Phase:
        return self.jobs.phase_of(self.job)

    @property
    def record(self) -> Job:
        return self.jobs.job_of(self.job)

    def round(self, segment: int | None = None) -> Round:
        return self.jobs.round_of(self.job, self.record.segment if segment is None else segment)

    def members(self, segment: int | None = None) -> list[InstantSender]:
        """The committee, in the order of the draw."""
        return [self.stage.by_address(member.operator) for member in self.round(segment).members]

    def truth(self, segment: int) -> Link:
        """The link that the mock proofs of this segment close with."""
        if segment + 1 == self.record.segments:
            return Link(keccak(encode_elements(OUTPUT)))
        return commitment_link(self.stage._boundary(segment + 1))

    def draw(self) -> Receipt:
        return self.jobs.draw(self.stage.owner, self.job)

    def provide_input(self) -> Receipt:
        return self.jobs.provide_input(self.requester, self.job, keccak(b"input"))

    def commit(self, worker: Sender, link: Link | None = None) -> Receipt:
        segment = self.record.segment
        link = self.truth(segment) if link is None else link
        attempt = self.attempt(segment)
        salt = keccak(worker.address.encode() + bytes([segment, attempt]))
        self.secrets[segment, attempt, worker.address] = (link, salt)
        committed = self.commitment(worker, segment, link, salt)
        return self.jobs.commit(worker, self.job, segment, self.attempt(segment), committed)

    def commitment(self, worker: Sender, segment: int, link: Link, salt: bytes) -> bytes:
        connection = self.stage.contracts.connection
        return hashing.commitment(
            connection.chain_id,
            self.jobs.address,
            self.job,
            segment,
            self.attempt(segment),
            worker.address,  # type: ignore[arg-type]
            link,
            salt,
        )

    @property
    def under_way(self) -> tuple[int, int]:
        """The round under way: its segment and attempt."""
        record = self.record
        return record.segment, record.attempts[record.segment]

    def attempt(self, segment: int) -> int:
        """The attempt at a segment that counts."""
        return self.record.attempts[segment]

    def reveal(self, worker: Sender) -> Receipt:
        segment = self.record.segment
        link, salt = self.secrets[segment, self.attempt(segment), worker.address]
        cid = keccak(b"activation" + worker.address.encode()) if is_output(link) else ZERO_HASH
        return self.jobs.reveal(worker, self.job, link, salt, cid)

    def reseal(self, worker: Sender) -> Receipt:
        return self.jobs.reseal(worker, self.job, keccak(b"resealed" + worker.address.encode()))

    def settle(self) -> Receipt:
        return self.jobs.settle(self.stage.owner, self.job)

    def expire(self) -> Receipt:
        return self.jobs.expire(self.stage.owner, self.job)

    def finalise(self) -> Receipt:
        return self.jobs.finalise(self.stage.owner, self.job)

    def proof(self, segment: int, opening: bytes | None = None) -> tuple[bytes, tuple[int, ...]]:
        """What the mock verifiers take for a proof between the links that everybody honest agrees on.

        Args:
            opening: the commitment that it opens with, if it is another one.
        """
        opening = opening or self.stage._boundary(segment)
        if segment + 1 == self.record.segments:
            return opening.ljust(PROOF_BYTES, b"\1"), OUTPUT
        return (opening + self.stage._boundary(segment + 1)).ljust(PROOF_BYTES, b"\1"), ()

    def prove(self, segment: int, worker: Sender | None = None, **changes: Any) -> Receipt:
        proof, instances = self.proof(segment)
        worker = worker or self.stage.by_address(self.round(segment).prover)
        fields = {"proof": proof, "instances": instances, "proof_cid": keccak(b"proof")} | changes
        return self.jobs.prove(worker, self.job, segment, fields["proof"], fields["instances"], fields["proof_cid"])

    def announce(self, segment: int, worker: Sender, **changes: Any) -> Receipt:
        """Bind a worker to the proof that :meth:`prove` or :meth:`challenge` would send for it."""
        proof, instances = self.proof(segment)
        fields = {"proof": proof, "instances": instances} | changes
        hashed = hashing.proof_hash(fields["proof"], fields["instances"])
        return self.jobs.announce(worker, self.job, segment, self.announcement(segment, worker, hashed))

    def announcement(self, segment: int, worker: Sender, hashed: bytes) -> bytes:
        connection = self.stage.contracts.connection
        return hashing.announcement(
            connection.chain_id,
            self.jobs.address,
            self.job,
            segment,
            self.attempt(segment),
            worker.address,  # type: ignore[arg-type]
            hashed,
        )

    def challenge(self, segment: int, worker: Sender, *, announced: bool = False, **changes: Any) -> Receipt:
        """Announce, unless that is done, and challenge."""
        proof, instances = self.proof(segment)
        fields = {"proof": proof, "instances": instances, "proof_cid": keccak(b"proof")} | changes
        if not announced:
            self.announce(segment, worker, proof=fields["proof"], instances=fields["instances"])
        arguments = (fields["proof"], fields["instances"], fields["proof_cid"])
        return self.jobs.challenge(worker, self.job, segment, *arguments)

    # --- whole stretches ---

    def to_committing(self) -> Play:
        """Through the first draw and the input."""
        self.draw()
        self.provide_input()
        return self

    def commit_all(self, votes: Mapping[str, Link] | None = None) -> Play:
        """Everybody commits: what ``votes`` says, or the truth."""
        for worker in self.members():
            self.commit(worker, (votes or {}).get(worker.address))
        return self

    def to_revealing(self, votes: Mapping[str, Link] | None = None) -> Play:
        """Through the commits, and the next draw where there is one."""
        self.commit_all(votes)
        if self.phase is Phase.DRAWING:
            self.draw()
        return self

    def play_round(self, votes: Mapping[str, Link] | None = None) -> Play:
        """Through one whole segment, with everybody taking part."""
        self.to_revealing(votes)
        for worker in self.members():
            self.reveal(worker)
        return self

    def to_sampling(self) -> Play:
        """Through all segments."""
        self.to_committing()
        for _ in range(self.record.segments):
            self.play_round()
        return self

    def to_proving(self) -> Play:
        """Up to the drawn proofs."""
        self.to_sampling().draw()
        return self

    def to_finalisable(self) -> Play:
        """Through all proofs."""
        self.to_proving()
        for segment in range(self.record.segments):
            self.prove(segment)
        return self

    def to_challengeable(self) -> Play:
        """To the end of a job without proofs: only a challenge can change it any more."""
        self.to_sampling()
        assert self.phase is Phase.CHALLENGEABLE
        return self

    def pass_challenges(self) -> Play:
        """Let the time for challenges pass."""
        assert self.phase is Phase.CHALLENGEABLE
        self.lapse()
        return self

    def play_on(self, votes: Mapping[str, Link] | None = None) -> Play:
        """Everybody does what is due, until the job is closed or only time can close it.

        Args:
            votes: as in :meth:`commit_all`.
        """
        steps = 0
        while self._step(votes or {}):
            steps += 1
            assert steps < 200, self.phase
        return self

    def _step(self, votes: Mapping[str, Link]) -> bool:
        phase = self.phase
        if phase in (Phase.REQUESTED, Phase.DRAWING, Phase.SAMPLING):
            self.draw()
        elif phase is Phase.AWAITING_INPUT:
            self.provide_input()
        elif phase is Phase.COMMITTING:
            for member in self.round().members:
                if member.commitment == ZERO_HASH:
                    self.commit(self.stage.by_address(member.operator), votes.get(member.operator))
        elif phase is Phase.REVEALING:
            for member in self.round().members:
                if member.commitment != ZERO_HASH and member.link == ZERO_HASH:
                    self.reveal(self.stage.by_address(member.operator))
        elif phase is Phase.PROVING:
            for segment in range(self.record.segments):
                round_ = self.round(segment)
                if round_.prover != ZERO_ADDRESS and round_.proof_hash == ZERO_HASH:
                    self.prove(segment)
        elif phase is Phase.CHALLENGEABLE:
            self.lapse()
        elif phase is Phase.FINALISABLE:
            self.finalise()
        else:
            return False
        return True

    def to_open_window(self) -> Play:
        """To the time in which every supporter may prove, and not the drawn prover alone."""
        self.stage.chain.move_to(self.record.deadline - self.record.policy.prove_seconds)
        return self

    def lapse(self, spare_seconds: int = 0) -> None:
        """Move to the end of the present deadline (or so many seconds before it)."""
        self.stage.chain.move_to(self.record.deadline - spare_seconds)


def refused(error: str, **arguments: Any) -> Any:
    """Expect a contract to refuse with exactly this custom error and these arguments."""
    return _Refusal(error, arguments)


class _Refusal:
    def __init__(self, error: str, arguments: Mapping[str, Any]) -> None:
        self._error, self._arguments = error, arguments
        self._raises = pytest.raises(TransactionRefused)

    def __enter__(self) -> None:
        self._caught = self._raises.__enter__()

    def __exit__(self, *exception: Any) -> bool | None:
        swallowed = self._raises.__exit__(*exception)
        if swallowed:
            seen = {name: _plain(value) for name, value in self._caught.value.arguments.items()}
            expected = {name: _plain(value) for name, value in self._arguments.items()}
            assert (self._caught.value.error, seen) == (self._error, expected)
        return swallowed


def _plain(value: Any) -> Any:
    return value.lower() if isinstance(value, str) and value.startswith("0x") else value


def with_policy(**changes: Any) -> Policy:
    """The usual policy, but for some fields."""
    return replace(POLICY, **changes)

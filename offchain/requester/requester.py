"""Requesting jobs and seeing them through, from an account of one's own. Nobody in between has to be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from offchain.chain.contracts import Contracts
from offchain.chain.errors import TransactionRefused
from offchain.chain.events import JOB_REQUESTED, read_events
from offchain.chain.jobs import JobRequest
from offchain.chain.sender import Receipt, Sender
from offchain.errors import InvalidInputError, RecoverableError
from offchain.models.loading import fetch_manifest, fetch_srs, fetch_verifying_key
from offchain.protocol import hashing
from offchain.protocol.duties import Action, JobView, duties_of
from offchain.protocol.field import decode_elements, dequantise, encode_elements
from offchain.protocol.links import LinkKind, link_of_commitment, link_of_values
from offchain.protocol.manifest import Manifest
from offchain.protocol.types import ZERO_HASH, Address, JobId, Link, ModelId, Phase, Policy
from offchain.proving.ezkl_prover import EzklProver
from offchain.storage.cid import cid_to_digest, digest_to_cid
from offchain.storage.port import ContentStore
from offchain.storage.sealing import Identity, seal_to_usable, unseal

MAX_MEMBERS = 192
"""Of all committees of a job; ``MAX_MEMBERS`` in ``Policies.sol``."""

_RACES = frozenset({"WrongPhase", "SeedNotReady", "JobAlreadyRequested", "NothingToAdmit"})

ROOM_BLOCKS = 100_000
"""How far back a queued job's requester looks for jobs that ran out of time and still hold a place."""
ROOM_SECONDS = 30
"""How often it does, by the chain's time."""


MAX_COUNTED = 64
"""How many of a model's workers are looked at one by one."""


@dataclass(frozen=True)
class Standing:
    """Who can be drawn for a model.

    Args:
        workers: how many; at least so many, where there are :data:`MAX_COUNTED` or more.
        largest_weight_wei: of the heaviest of them; where not all were looked at, no less than it.
    """

    workers: int
    largest_weight_wei: int


@dataclass(frozen=True)
class Result:
    """What a model answered.

    Args:
        elements: field elements, as they stand behind the recorded link.
        values: the same as real numbers, row-major.
        shape: of the output tensor.
    """

    elements: tuple[int, ...]
    values: tuple[float, ...]
    shape: tuple[int, ...]


class Requester:
    """One account that requests jobs.

    Args:
        contracts, store, prover: the outside; the prover only commits to inputs here.
        sender: who pays.
        identity: results are sealed to it.
    """

    def __init__(
        self, contracts: Contracts, store: ContentStore, prover: EzklProver, sender: Sender, identity: Identity
    ) -> None:
        self._contracts = contracts
        self._store = store
        self._prover = prover
        self._sender = sender
        self._identity = identity
        self._manifests: dict[ModelId, Manifest] = {}
        self._looked_at: dict[ModelId, int] = {}

    @property
    def address(self) -> Address:
        """The account that pays."""
        return Address(self._sender.address)

    def manifest(self, model_id: ModelId) -> Manifest:
        """A registered model's manifest, checked against its id.

        Raises:
            InvalidInputError: the model is not registered.
        """
        if model_id not in self._manifests:
            if not self._contracts.registry.is_registered(model_id):
                raise InvalidInputError(
                    "model", f"{model_id.hex()} is not registered", "register it, or use the id of a registered model"
                )
            self._manifests[model_id] = fetch_manifest(self._contracts, self._store, model_id)
        return self._manifests[model_id]

    def link_of_input(self, model_id: ModelId, elements: Sequence[int]) -> Link:
        """The link that the first proof of a job on this input must open with."""
        manifest = self.manifest(model_id)
        first = manifest.segments[0]
        if first.input_kind is LinkKind.PUBLIC:
            return Link(link_of_values(elements))
        if first.input_kind is not LinkKind.KZG:
            raise InvalidInputError("model", "its input link kind is not supported", "register it with a KZG input")
        srs = fetch_srs(manifest, self._store, self._prover.cache)
        key = fetch_verifying_key(0, first, self._store)
        return Link(link_of_commitment(self._prover.commit_under(elements, key, srs)))

    def job_id(self, salt: bytes) -> JobId:
        """The id that a job requested with this salt has or will have."""
        return hashing.job_id(self._contracts.connection.chain_id, self._contracts.jobs.address, self.address, salt)

    def check_policy(self, model_id: ModelId, policy: Policy) -> None:
        """Refuse early what the contracts would refuse, by their own parameters.

        Raises:
            InvalidInputError: naming the field of the policy.
        """
        least = self._contracts.jobs.minimum_window_seconds()
        for name in ("input_seconds", "commit_seconds", "reveal_seconds", "prove_seconds", "challenge_seconds"):
            if getattr(policy, name) < least:
                problem = f"{getattr(policy, name)} is less than these contracts allow"
                raise InvalidInputError(f"policy.{name}", problem, f"use at least {least}")
        segments = len(self.manifest(model_id).segments)
        if policy.committee_size * segments > MAX_MEMBERS:
            raise InvalidInputError(
                "policy.committee_size",
                f"{policy.committee_size} members in each of {segments} segments are too many for one job",
                f"use at most {MAX_MEMBERS // segments}",
            )

    def check_workers(self, model_id: ModelId, policy: Policy) -> None:
        """Refuse early what no draw could staff.

        Raises:
            InvalidInputError: the model has fewer workers than a committee needs.
        """
        drawn = self._draw(model_id, policy.committee_size)
        if len(drawn) < policy.committee_size:
            raise InvalidInputError(
                "policy.committee_size",
                f"{policy.committee_size} workers are asked for and {len(drawn)} serve the model",
                "wait for workers to join, or ask for a smaller committee",
            )

    def standing(self, model_id: ModelId) -> Standing:
        """Count a model's workers and find the heaviest, by one free draw of more than there are.

        A draw that all of them fit into lists every one. Beyond that, all the weight that was not looked at might be
        one operator's: that bound is true, and errs towards higher quorums.
        """
        weights = [weight for _, weight in self._draw(model_id, MAX_COUNTED)]
        largest = max(weights, default=0)
        if len(weights) == MAX_COUNTED:
            before, staking = self._contracts.connection.block_number() - 1, self._contracts.staking
            drawn = staking.draw(model_id, before, bytes(32), MAX_COUNTED, [])
            looked_at = [weight for _, weight in drawn]
            largest = max(*weights, *looked_at, staking.total_weight_at(model_id, before) - sum(looked_at))
        return Standing(len(weights), largest)

    def _draw(self, model_id: ModelId, count: int) -> tuple[tuple[Address, int], ...]:
        """Draw as a job requested now would: from the stakes at the end of the newest block."""
        head, staking = self._contracts.connection.block_number(), self._contracts.staking
        try:
            return staking.draw(model_id, head, bytes(32), count, [], block="pending")
        except TransactionRefused as refused:
            if refused.error != "BlockNotOver":
                raise
        # Not every node runs a pending call in the next block.
        return staking.draw(model_id, head - 1, bytes(32), count, [])

    def request(
        self,
        model_id: ModelId,
        input_link: Link,
        policy: Policy,
        salt: bytes,
        fee_wei: int,
        route_cid: bytes = ZERO_HASH,
    ) -> Receipt | None:
        """Escrow the fee and open a job; None if the same request was made before.

        Args:
            route_cid: digest inside the CID of the document that says why this policy was chosen.

        Raises:
            TransactionRefused: the contract refuses the policy or the fee.
            InsufficientFunds: the account cannot pay.
        """
        request = JobRequest(model_id, input_link, self._identity.encryption_key, salt, policy, route_cid)
        try:
            return self._contracts.jobs.request(self._sender, request, fee_wei)
        except TransactionRefused as refused:
            if refused.error == "JobAlreadyRequested":
                return None
            raise

    def advance(self, view: JobView, elements: Sequence[int]) -> Action | None:
        """Do what is due from the requester, if anything is.

        Args:
            view: the job now.
            elements: its input.

        Returns:
            What was done; None if nothing was due or somebody else was faster.
        """
        jobs, job = self._contracts.jobs, view.job.id
        for duty in duties_of(view, self.address):
            try:
                if duty.action is Action.ADMIT:
                    if not self._admit(view):
                        continue
                elif duty.action is Action.DRAW:
                    jobs.draw(self._sender, job)
                elif duty.action is Action.PROVIDE_INPUT:
                    jobs.provide_input(self._sender, job, cid_to_digest(self._store.put(self._sealed(view, elements))))
                elif duty.action is Action.SETTLE:
                    jobs.settle(self._sender, job)
                elif duty.action is Action.FINALISE:
                    jobs.finalise(self._sender, job)
                elif duty.action is Action.EXPIRE:
                    jobs.expire(self._sender, job)
                else:
                    continue
            except TransactionRefused as refused:
                if refused.error in _RACES:
                    return None
                raise
            return duty.action
        return None

    def cancel(self, job: JobId) -> Receipt:
        """Take a queued job back; its fee is credited.

        Raises:
            TransactionRefused: ``WrongPhase`` if it has started, ``NotRequester`` if it is somebody else's.
        """
        return self._contracts.jobs.cancel(self._sender, job)

    def _admit(self, view: JobView) -> bool:
        """Have the next job of a model started, whosever it is, after closing one that ran out of time if none may."""
        jobs, model_id = self._contracts.jobs, view.job.model_id
        running, _ = jobs.load_of(model_id)
        if running >= jobs.max_running_jobs() and not self._make_room(view):
            return False
        jobs.admit(self._sender, model_id)
        return True

    def _make_room(self, view: JobView) -> bool:
        """Close a job of the same model that ran out of time, if there is one; looked for every now and then only."""
        model_id = view.job.model_id
        if view.timestamp < self._looked_at.get(model_id, 0) + ROOM_SECONDS:
            return False
        self._looked_at[model_id] = view.timestamp
        jobs, first = self._contracts.jobs, max(self._contracts.deployment.block, view.block_number - ROOM_BLOCKS)
        topics = [JOB_REQUESTED, None, None, "0x" + model_id.hex()]
        for event in read_events(self._contracts, first, view.block_number, topics=topics):
            job = JobId(bytes(event.arguments["jobId"]))
            if jobs.phase_of(job) is Phase.EXPIRED:
                jobs.expire(self._sender, job)
                del self._looked_at[model_id]  # there may be more of them
                return True
        return False

    def open_result(self, view: JobView) -> Result:
        """Fetch and open the result of a job whose last segment is settled, and check it against the recorded link.

        Raises:
            InvalidInputError: the job has no result.
            RecoverableError: no copy of it can be had now.
        """
        last = view.rounds[-1]
        if view.phase is Phase.FAILED or not last.supporters:
            raise InvalidInputError("job", "it has no result", "see the job's phase and events")
        segment = self.manifest(view.job.model_id).segments[-1]
        for member in last.supporters:
            try:
                sealed = self._store.get(digest_to_cid(member.activation_cid), max_bytes=1 << 24)
                elements = decode_elements(unseal(sealed, self._identity))
            except (RecoverableError, InvalidInputError, ValueError):
                continue
            if link_of_values(elements) == last.settled_link:
                return Result(elements, dequantise(elements, segment.output_scale), segment.output_shape)
        raise RecoverableError("no copy of the result can be fetched and opened now")

    def _sealed(self, view: JobView, elements: Sequence[int]) -> bytes:
        keys = [self._contracts.staking.encryption_key_of(member.operator) for member in view.rounds[0].members]
        return seal_to_usable(encode_elements(elements), keys)

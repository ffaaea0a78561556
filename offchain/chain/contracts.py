"""One typed class per contract. Reads are pinned to a block where several must agree; writes go through a sender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any, Literal

from web3 import Web3
from web3.contract import Contract
from web3.types import BlockIdentifier

from offchain.chain.connection import Connection
from offchain.chain.deployment import Deployment
from offchain.chain.errors import WrongChain
from offchain.chain.sender import Receipt, Sender
from offchain.protocol.duties import JobView
from offchain.protocol.links import LinkKind
from offchain.protocol.types import ZERO_HASH, Address, Job, JobId, Link, Member, ModelId, Phase, Policy, Round

LATEST: Literal["latest"] = "latest"
PROOF_GAS = 16_000_000
"""Limit of a proof's transaction: the adapter sets 4M aside for the verifier, whatever that uses of it, and a whole
committee but its prover may have to be slashed."""


@dataclass(frozen=True)
class RegisteredSegment:
    """A segment as the registry keeps it."""

    verifier: Address
    input_kind: LinkKind
    output_kind: LinkKind
    proof_bytes: int
    verifier_code_hash: bytes
    verification_key_digest: bytes
    input_elements: int
    output_elements: int


@dataclass(frozen=True)
class JobRequest:
    """See ``Request`` in ``IJobs.sol``."""

    model_id: ModelId
    input_link: Link
    result_key: bytes
    salt: bytes
    policy: Policy
    route_cid: bytes = ZERO_HASH


class _Bound:
    """A contract at an address on a chain."""

    name: str

    def __init__(self, connection: Connection, address: str) -> None:
        self.connection = connection
        self.address = Address(address)
        self.contract: Contract = connection.contract(self.name, address)

    def _read(self, function: str, *arguments: Any, block: BlockIdentifier = LATEST) -> Any:
        with self.connection.translated(function):
            return self.contract.functions[function](*arguments).call(block_identifier=block)

    def _write(
        self, sender: Sender, function: str, *arguments: Any, value_wei: int = 0, gas: int | None = None
    ) -> Receipt:
        return sender.send(self.contract.functions[function](*arguments), value_wei, gas)


class Registry(_Bound):
    """Models and the verifiers of their segments; see ``IRegistry.sol``."""

    name = "Registry"

    def register_model(
        self,
        sender: Sender,
        manifest_hash: bytes,
        manifest_cid: bytes,
        specs: Sequence[tuple[object, ...]],
        verifiers: Sequence[str],
        trials: Sequence[bytes] = (),
    ) -> Receipt:
        """Register a model. ``specs`` are ``SegmentRecord.spec()``; ``manifest_cid`` is the digest inside the CID."""
        content = (manifest_hash, manifest_cid, list(specs), list(verifiers), list(trials))
        return self._write(sender, "registerModel", *content)

    def grant_access(self, sender: Sender, model_id: ModelId, grant_cid: bytes) -> Receipt:
        """Announce where the model's secret key lies, sealed to workers."""
        return self._write(sender, "grantAccess", model_id, grant_cid)

    def is_registered(self, model_id: ModelId) -> bool:
        """Whether the model is registered."""
        return bool(self._read("isRegistered", model_id))

    def segment_count(self, model_id: ModelId) -> int:
        """Number of segments; zero for an unknown model."""
        return int(self._read("segmentCount", model_id))

    def trials_of(self, model_id: ModelId) -> tuple[bytes, ...]:
        """Hashes of the answers that new workers have to find; none for an unknown model."""
        count = int(self._read("trialCount", model_id))
        return tuple(bytes(self._read("trialOf", model_id, index)) for index in range(count))

    def manifest_of(self, model_id: ModelId) -> tuple[bytes, bytes]:
        """The manifest's hash and the digest inside its CID."""
        manifest_hash, manifest_cid = self._read("manifestOf", model_id)
        return bytes(manifest_hash), bytes(manifest_cid)

    def segment_of(self, model_id: ModelId, index: int) -> RegisteredSegment:
        """One registered segment."""
        raw = self._read("segmentOf", model_id, index)
        return RegisteredSegment(
            verifier=Address(raw[0]),
            input_kind=LinkKind(raw[1]),
            output_kind=LinkKind(raw[2]),
            proof_bytes=raw[3],
            verifier_code_hash=bytes(raw[4]),
            verification_key_digest=bytes(raw[5]),
            input_elements=raw[6],
            output_elements=raw[7],
        )


class Verifier(_Bound):
    """The adapter between jobs and the generated verifiers; see ``IVerifier.sol``."""

    name = "Verifier"

    def verify_segment(
        self, model_id: ModelId, segment: int, proof: bytes, instances: Sequence[int]
    ) -> tuple[Link, Link]:
        """Verify a proof by a free call and return its opening and closing links."""
        opening, closing = self._read("verifySegment", model_id, segment, proof, list(instances))
        return Link(bytes(opening)), Link(bytes(closing))


class Staking(_Bound):
    """Bonds of operators and the draw of committees; see ``IStaking.sol``."""

    name = "Staking"

    def set_encryption_key(self, sender: Sender, key: bytes) -> Receipt:
        """Publish the X25519 key (32 bytes) to which activations are sealed for the sender."""
        return self._write(sender, "setEncryptionKey", key)

    def bond(self, sender: Sender, amount_wei: int) -> Receipt:
        """Add to the sender's active bond."""
        return self._write(sender, "bond", value_wei=amount_wei)

    def start_unbonding(self, sender: Sender, amount_wei: int) -> Receipt:
        """Move part of the sender's bond to unbonding."""
        return self._write(sender, "startUnbonding", amount_wei)

    def withdraw(self, sender: Sender) -> Receipt:
        """Pay out what has finished unbonding."""
        return self._write(sender, "withdraw")

    def serve(self, sender: Sender, model_id: ModelId) -> Receipt:
        """Enter the sender into a model's draws."""
        return self._write(sender, "serve", model_id)

    def stop_serving(self, sender: Sender, model_id: ModelId) -> Receipt:
        """Take the sender out of a model's future draws."""
        return self._write(sender, "stopServing", model_id)

    def refresh_weights(self, sender: Sender, operator: str) -> Receipt:
        """Have an operator's weight follow its bond in the draws of every model that it serves; anyone may."""
        return self._write(sender, "refreshWeights", operator)

    def commit_trial(self, sender: Sender, model_id: ModelId, trial: int, commitment: bytes) -> Receipt:
        """Commit to the answer to one of a model's trials; see :func:`offchain.protocol.hashing.trial_commitment`."""
        return self._write(sender, "commitTrial", model_id, trial, commitment)

    def pass_trial(self, sender: Sender, model_id: ModelId, answer: bytes, salt: bytes) -> Receipt:
        """Show the answer that was committed to in an earlier block."""
        return self._write(sender, "passTrial", model_id, answer, salt)

    def report_equivocation(
        self,
        sender: Sender,
        job: JobId,
        segment: int,
        attempt: int,
        operator: str,
        links: tuple[Link, Link],
        signatures: tuple[bytes, bytes],
    ) -> Receipt:
        """Penalise a member that signed two results, or one and revealed another (then with an empty signature)."""
        evidence = (job, segment, attempt, operator, list(links), list(signatures))
        return self._write(sender, "reportEquivocation", *evidence)

    def is_admitted(self, operator: str, model_id: ModelId) -> bool:
        """Whether the operator's bond counts in the model's draws while it serves it."""
        return bool(self._read("isAdmitted", operator, model_id))

    def trial_answered_at(self, model_id: ModelId, trial: int) -> int:
        """The block in which a trial's answer was first shown; zero until then."""
        return int(self._read("trialAnsweredAt", model_id, trial))

    def reputation_of(self, operator: str, model_id: ModelId) -> int:
        """Settled segments that the operator stood behind since its last contradiction; a miss halves it."""
        return int(self._read("reputationOf", operator, model_id))

    def minimum_stake(self) -> int:
        """The least active bond (wei) that counts in draws."""
        return int(self._read("minimumStake"))

    def active_of(self, operator: str) -> int:
        """Active bond, in wei."""
        return int(self._read("activeOf", operator))

    def unbonding_of(self, operator: str) -> tuple[int, int]:
        """Bond on its way out (wei), and when it may be withdrawn (seconds since the epoch)."""
        amount, release_at = self._read("unbondingOf", operator)
        return int(amount), int(release_at)

    def encryption_key_of(self, operator: str) -> bytes:
        """The key to which activations are sealed for an operator; zero if it has set none."""
        return bytes(self._read("encryptionKeyOf", operator))

    def is_serving(self, operator: str, model_id: ModelId) -> bool:
        """Whether the operator serves the model now."""
        return bool(self._read("isServing", operator, model_id))

    def draw(
        self,
        model_id: ModelId,
        at_block: int,
        seed: bytes,
        count: int,
        excluded: Sequence[str],
        block: BlockIdentifier = LATEST,
    ) -> tuple[tuple[Address, int], ...]:
        """Draw as a job would; see ``offchain.protocol.sortition.draw`` for the same in Python."""
        operators, weights = self._read("draw", model_id, at_block, seed, count, list(excluded), block=block)
        return tuple((Address(operator), int(weight)) for operator, weight in zip(operators, weights, strict=True))

    def total_weight_at(self, model_id: ModelId, block_number: int) -> int:
        """Sum of a model's weights at the end of a past block, in wei."""
        return int(self._read("totalWeightAt", model_id, block_number))


class Jobs(_Bound):
    """Jobs from request to payment; see ``IJobs.sol``."""

    name = "Jobs"

    def request(self, sender: Sender, what: JobRequest, fee_wei: int) -> Receipt:
        """Escrow the fee and open a job; its id is :func:`offchain.protocol.hashing.job_id`."""
        policy = astuple(what.policy)
        arguments = (what.model_id, what.input_link, what.result_key, what.salt, what.route_cid, policy)
        return self._write(sender, "request", arguments, value_wei=fee_wei)

    def admit(self, sender: Sender, model_id: ModelId) -> Receipt:
        """Start the queued job of a model whose turn it is."""
        return self._write(sender, "admit", model_id)

    def cancel(self, sender: Sender, job: JobId) -> Receipt:
        """Take a queued job back."""
        return self._write(sender, "cancel", job)

    def draw(self, sender: Sender, job: JobId) -> Receipt:
        """Make the draw that is due."""
        return self._write(sender, "draw", job)

    def provide_input(self, sender: Sender, job: JobId, input_cid: bytes) -> Receipt:
        """Say where the sealed input lies."""
        return self._write(sender, "provideInput", job, input_cid)

    def reseal(self, sender: Sender, job: JobId, activation_cid: bytes) -> Receipt:
        """Say where an output lies, sealed to a committee that was drawn anew."""
        return self._write(sender, "reseal", job, activation_cid)

    def commit(self, sender: Sender, job: JobId, segment: int, attempt: int, commitment: bytes) -> Receipt:
        """Commit to an output, in the round that it was computed for."""
        return self._write(sender, "commit", job, segment, attempt, commitment)

    def reveal(self, sender: Sender, job: JobId, link: Link, salt: bytes, activation_cid: bytes) -> Receipt:
        """Open a commitment."""
        return self._write(sender, "reveal", job, link, salt, activation_cid)

    def settle(self, sender: Sender, job: JobId) -> Receipt:
        """Settle a segment whose time to reveal is over."""
        return self._write(sender, "settle", job)

    def prove(
        self, sender: Sender, job: JobId, segment: int, proof: bytes, instances: Sequence[int], proof_cid: bytes
    ) -> Receipt:
        """Prove a segment that was drawn for it."""
        return self._write(sender, "prove", job, segment, proof, list(instances), proof_cid, gas=PROOF_GAS)

    def announce(self, sender: Sender, job: JobId, segment: int, announcement: bytes) -> Receipt:
        """Bind the sender to a proof; see :func:`offchain.protocol.hashing.announcement`."""
        return self._write(sender, "announce", job, segment, announcement)

    def challenge(
        self, sender: Sender, job: JobId, segment: int, proof: bytes, instances: Sequence[int], proof_cid: bytes
    ) -> Receipt:
        """Decide a contested segment, or overturn a settled one, with a proof that was announced."""
        return self._write(sender, "challenge", job, segment, proof, list(instances), proof_cid, gas=PROOF_GAS)

    def finalise(self, sender: Sender, job: JobId) -> Receipt:
        """Pay everybody, by credit, and close the job."""
        return self._write(sender, "finalise", job)

    def expire(self, sender: Sender, job: JobId) -> Receipt:
        """Close a job that ran out of time."""
        return self._write(sender, "expire", job)

    def claim(self, sender: Sender) -> Receipt:
        """Pay the sender what is credited to it."""
        return self._write(sender, "claim")

    def address_of(self, part: str) -> Address:
        """The contract that this one uses as its ``registry``, ``verifier`` or ``staking``, fixed when deployed."""
        return Address(self._read(part))

    def credit_of(self, account: str) -> int:
        """What the account may claim, in wei."""
        return int(self._read("creditOf", account))

    def load_of(self, model_id: ModelId) -> tuple[int, int]:
        """How many jobs of a model run, and how many entries its queue has (cancelled ones included)."""
        running, queued = self._read("loadOf", model_id)
        return int(running), int(queued)

    def max_running_jobs(self) -> int:
        """How many jobs of one model may run at a time."""
        return int(self._read("maxRunningJobs"))

    def minimum_fee(self) -> int:
        """The least fee of a job, in wei."""
        return int(self._read("minimumFeeWei"))

    def minimum_window_seconds(self) -> int:
        """The least length of each of a job's windows."""
        return int(self._read("minimumWindowSeconds"))

    def phase_of(self, job: JobId, block: BlockIdentifier = LATEST) -> Phase:
        """The phase that holds at the block, time included."""
        return Phase(self._read("phaseOf", job, block=block))

    def job_of(self, job: JobId, block: BlockIdentifier = LATEST) -> Job:
        """The job as stored.

        Raises:
            TransactionRefused: ``UnknownJob``.
        """
        raw = self._read("jobOf", job, block=block)
        segments, attempts = raw[3], raw[18]
        return Job(
            id=job,
            requester=Address(raw[0]),
            phase=Phase(raw[1]),
            segment=raw[2],
            segments=segments,
            proofs_due=raw[4],
            redraws=raw[5],
            frozen_block=raw[6],
            seed_block=raw[7],
            deadline=raw[8],
            ends_at=raw[9],
            closed_at=raw[10],
            model_id=ModelId(bytes(raw[11])),
            input_link=Link(bytes(raw[12])),
            input_cid=bytes(raw[13]),
            result_key=bytes(raw[14]),
            route_cid=bytes(raw[15]),
            fee_wei=raw[16],
            policy=Policy(*raw[17]),
            attempts=tuple((attempts >> (16 * segment)) & 0xFFFF for segment in range(segments)),
            evidence_root=bytes(raw[19]),
        )

    def round_of(self, job: JobId, segment: int, block: BlockIdentifier = LATEST) -> Round:
        """The attempt at a segment that counts; empty until its committee is drawn."""
        return _round(self._read("roundOf", job, segment, block=block))

    def round_at(self, job: JobId, segment: int, attempt: int, block: BlockIdentifier = LATEST) -> Round:
        """Any attempt at a segment; attempts are numbered from zero."""
        return _round(self._read("roundAt", job, segment, attempt, block=block))


def _round(raw: Any) -> Round:
    return Round(
        total_weight=raw[0],
        settled_link=Link(bytes(raw[1])),
        settled_weight=raw[2],
        prover=Address(raw[3]),
        proved_by=Address(raw[4]),
        overturned=raw[5],
        proof_hash=bytes(raw[6]),
        proof_cid=bytes(raw[7]),
        members=tuple(
            Member(
                operator=Address(member[0]),
                announced_block=member[1],
                sealed_for=member[2],
                weight=member[3],
                commitment=bytes(member[4]),
                link=Link(bytes(member[5])),
                activation_cid=bytes(member[6]),
                announcement=bytes(member[7]),
            )
            for member in raw[8]
        ),
    )


@dataclass(frozen=True)
class Contracts:
    """All contracts of a deployment on one connection."""

    connection: Connection
    deployment: Deployment
    registry: Registry
    staking: Staking
    verifier: Verifier
    jobs: Jobs

    @classmethod
    def connect(cls, connection: Connection, deployment: Deployment) -> Contracts:
        """Bind every contract of a deployment.

        Raises:
            WrongChain: the deployment is of another chain, or a contract is not there.
        """
        if deployment.chain_id != connection.chain_id:
            raise WrongChain(
                f"{connection.rpc_url} serves chain {connection.chain_id}, the deployment is of chain "
                f"{deployment.chain_id}; give the RPC of that chain"
            )
        jobs = Jobs(connection, deployment.jobs)
        for name in ("registry", "verifier", "staking"):
            claimed, actual = getattr(deployment, name), jobs.address_of(name)
            if claimed != actual:
                raise WrongChain(
                    f"the deployment names {claimed} as its {name}, the job contract uses {actual}; "
                    "use the record of this deployment"
                )
        return cls(
            connection,
            deployment,
            Registry(connection, deployment.registry),
            Staking(connection, deployment.staking),
            Verifier(connection, deployment.verifier),
            jobs,
        )

    @classmethod
    def of_jobs(cls, connection: Connection, address: str) -> Contracts:
        """Bind every contract of a deployment from the job contract's address alone; events are read from block 0.

        Raises:
            WrongChain: there is no contract at the address.
        """
        jobs = Jobs(connection, Web3.to_checksum_address(address))
        parts = {name: jobs.address_of(name) for name in ("registry", "verifier", "staking")}
        return cls.connect(connection, Deployment(connection.chain_id, 0, jobs=jobs.address, **parts))


def read_job(contracts: Contracts, job: JobId) -> JobView:
    """Read a job whole, at one block, so that its parts agree.

    Raises:
        TransactionRefused: ``UnknownJob``.
        ChainUnreachable: try again.
    """
    connection = contracts.connection
    with connection.translated("eth_getBlockByNumber"):
        block = connection.web3.eth.get_block("latest")
    number = int(block["number"])
    stored = contracts.jobs.job_of(job, number)
    return JobView(
        job=stored,
        phase=contracts.jobs.phase_of(job, number),
        rounds=tuple(contracts.jobs.round_of(job, segment, number) for segment in range(stored.segments)),
        block_number=number,
        timestamp=int(block["timestamp"]),
    )

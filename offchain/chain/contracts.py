"""All contracts of a deployment, one typed class each. Reads are pinned to a block where several must agree; writes go
through a sender."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from web3 import Web3

from offchain.chain.binding import Bound
from offchain.chain.connection import Connection
from offchain.chain.deployment import Deployment
from offchain.chain.errors import WrongChain
from offchain.chain.jobs import Jobs
from offchain.chain.sender import Receipt, Sender
from offchain.chain.staking import Staking
from offchain.protocol.duties import JobView
from offchain.protocol.links import LinkKind
from offchain.protocol.types import Address, JobId, Link, ModelId


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


class Registry(Bound):
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


class Verifier(Bound):
    """The adapter between jobs and the generated verifiers; see ``IVerifier.sol``."""

    name = "Verifier"

    def verify_segment(
        self, model_id: ModelId, segment: int, proof: bytes, instances: Sequence[int]
    ) -> tuple[Link, Link]:
        """Verify a proof by a free call and return its opening and closing links."""
        opening, closing = self._read("verifySegment", model_id, segment, proof, list(instances))
        return Link(bytes(opening)), Link(bytes(closing))


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

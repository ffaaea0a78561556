"""Doing a segment's work: find the input, execute, seal the output, prove."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Collection, Sequence

from offchain.chain.contracts import Contracts
from offchain.errors import InvalidInputError, RecoverableError
from offchain.models.loading import ModelMismatch, fetch_manifest, find_identity, load_circuits
from offchain.protocol.duties import JobView
from offchain.protocol.field import decode_elements, encode_elements
from offchain.protocol.links import LinkKind
from offchain.protocol.types import Link, ModelId
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.links import input_link, link_of, output_link
from offchain.proving.port import InputOutOfRange, Proof, SegmentCircuit
from offchain.proving.service import ProverService
from offchain.sandbox import Cancellation
from offchain.storage.cid import Cid, digest_to_cid
from offchain.storage.port import ContentStore
from offchain.storage.sealing import Identity, seal_to_usable, unseal
from offchain.worker.memory import Work
from offchain.worker.predictions import Predictions

_log = logging.getLogger(__name__)

SEAL_OVERHEAD_BYTES = 16_384
"""More than age adds for the largest committee and activation that the protocol allows."""


class NotGranted(RecoverableError):
    """The model's key was not sealed to this worker, or not yet."""


class NoUsableInput(RecoverableError):
    """None of the copies of an input could be fetched, opened and matched with its link."""


class BadInput(RecoverableError):
    """The input that the opening link stands for is one that the segment's circuit cannot take."""


class Executor:
    """Executes and proves segments of the models that the worker was granted.

    Args:
        contracts, store, prover: the outside.
        service: where proofs are made.
        identity: opens what is sealed to this worker.
        trusted_srs: digests (hex) of the structured reference strings to work under; any if empty. Whoever knows the
            secret behind one can forge proofs, and have this worker slashed for its honest work.
        predictions: of what proofs take here.
    """

    def __init__(
        self,
        contracts: Contracts,
        store: ContentStore,
        prover: EzklProver,
        service: ProverService,
        identity: Identity,
        trusted_srs: Collection[str] = (),
        predictions: Predictions | None = None,
    ) -> None:
        self._predictions = predictions or Predictions()
        self._trusted_srs = trusted_srs
        self._contracts = contracts
        self._store = store
        self._prover = prover
        self._service = service
        self._identity = identity
        self._circuits: dict[ModelId, tuple[SegmentCircuit, ...]] = {}

    def circuits(self, model_id: ModelId) -> tuple[SegmentCircuit, ...]:
        """Load a model: fetched, opened, compiled and compared with what is registered.

        Raises:
            NotGranted: the model's key was not sealed to this worker.
            ModelMismatch: the model is not what it is registered as.
            InvalidInputError: a proof of it would need more memory than the prover has.
        """
        if model_id not in self._circuits:
            manifest = fetch_manifest(self._contracts, self._store, model_id)
            if self._trusted_srs and manifest.srs.digest not in self._trusted_srs:
                raise ModelMismatch("srs.digest", f"{manifest.srs.digest} is not trusted", "add it to `trusted_srs`")
            identity = find_identity(self._contracts, self._store, model_id, manifest, self._identity)
            if identity is None:
                raise NotGranted(f"model {model_id.hex()} was not granted to this worker")
            circuits = load_circuits(manifest, self._store, self._prover, identity)
            for index, circuit in enumerate(circuits):
                self._service.check_fits(circuit, f"segment[{index}]")
            self._circuits[model_id] = circuits
        return self._circuits[model_id]

    def prove_seconds(self, view: JobView) -> tuple[float, ...] | None:
        """What the proof of each of a job's segments is predicted to take; None if its model is not loaded."""
        circuits = self._circuits.get(view.job.model_id)
        return None if circuits is None else tuple(self._predictions.prove_seconds(circuit) for circuit in circuits)

    def execute(self, view: JobView, segment: int) -> Work:
        """Execute a segment on the input that its opening link stands for.

        Raises:
            NoUsableInput: no copy of the input could be had; try again.
            BadInput: the input can be had, and the circuit does not take it.
        """
        circuit = self.circuits(view.job.model_id)[segment]
        expected = view.opening(segment)
        for cid in _input_cids(view, segment):
            elements = self._fetch(cid, circuit)
            if elements is None:
                continue
            try:
                witness = self._prover.witness(circuit, elements, name=f"segment[{segment}]")
            except InputOutOfRange as error:
                # Whoever voted for the right link can still hand on anything: another copy may be the right one.
                _log.warning("the activation at %s cannot be executed: %s", cid, error)
                if self._link_of(circuit, elements) == expected:
                    raise BadInput(str(error)) from error
                continue
            if input_link(circuit, witness, elements) != expected:
                _log.warning("the activation at %s does not match the link that it was revealed with", cid)
                continue
            link = output_link(circuit, witness)
            where = (view.job.id, segment, view.job.attempts[segment], expected)
            return Work(*where, elements, witness.outputs, link, secrets.token_bytes(32))
        raise NoUsableInput(f"no copy of the input of segment {segment} of job {view.job.id.hex()} can be used")

    def seal_output(self, view: JobView, work: Work) -> Cid:
        """Seal an output to whoever needs it next, and pin it: the next committee, or at the end the requester."""
        if work.segment + 1 == view.job.segments:
            recipients = [view.job.result_key]
        else:
            members = view.rounds[work.segment + 1].members
            recipients = [self._contracts.staking.encryption_key_of(member.operator) for member in members]
        return self._store.put(seal_to_usable(encode_elements(work.outputs), recipients))

    def prove(self, model_id: ModelId, work: Work, deadline: float, cancellation: Cancellation) -> Proof:
        """Prove a segment that was executed before, once the proofs that are more urgent are made.

        Args:
            deadline: on the monotonic clock; infinite if nobody has asked for the proof yet.
            cancellation: ends the proof, or the waiting for it, with ProverFailed.

        Raises:
            ProverFailed: it took too long or too much memory; try again.
        """
        circuit = self.circuits(model_id)[work.segment]
        name = f"segment[{work.segment}] of job {work.job.hex()[:8]}"
        return self._service.prove(circuit, work.inputs, deadline=deadline, cancellation=cancellation, name=name)

    def hasten(self, cancellation: Cancellation, deadline: float) -> None:
        """Give the proof that was asked for with ``cancellation`` another deadline, on the monotonic clock."""
        self._service.hasten(cancellation, deadline)

    def _link_of(self, circuit: SegmentCircuit, elements: Sequence[int]) -> Link:
        """The link of elements that the circuit may not take, without executing it."""
        commitment = None if circuit.input_kind is LinkKind.PUBLIC else self._prover.commit(elements, circuit)
        return link_of(circuit.input_kind, commitment, elements)

    def _fetch(self, cid: Cid, circuit: SegmentCircuit) -> tuple[int, ...] | None:
        """Fetch and open one copy; None if it cannot be had or is nonsense: another copy may do."""
        limit = 32 * circuit.input_elements + SEAL_OVERHEAD_BYTES
        try:
            elements = decode_elements(unseal(self._store.get(cid, max_bytes=limit), self._identity))
        except (RecoverableError, InvalidInputError, ValueError) as error:
            _log.warning("the activation at %s cannot be used: %s", cid, error)
            return None
        return elements if len(elements) == circuit.input_elements else None


def _input_cids(view: JobView, segment: int) -> tuple[Cid, ...]:
    if segment == 0:
        return (digest_to_cid(view.job.input_cid),)
    return tuple(digest_to_cid(member.activation_cid) for member in view.rounds[segment - 1].supporters)

"""Checking what the evidence is made of: the model as registered, its keys and SRS, the proofs and the result.

Every function returns what it found, or raises what is wrong.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from eth_hash.auto import keccak

from offchain.audit.record import ChainRecord
from offchain.audit.report import CheckFailed, require_equal
from offchain.chain.contracts import RegisteredSegment
from offchain.chain.events import Event
from offchain.protocol import hashing
from offchain.protocol.field import dequantise
from offchain.protocol.links import instance_count, link_of_values, links_of_proof
from offchain.protocol.manifest import Manifest, SegmentRecord
from offchain.protocol.types import Round
from offchain.proving.port import MAX_PROOF_BYTES, Proof
from offchain.storage.cid import Cid, cid_of, digest_to_cid
from offchain.storage.port import ContentCorrupt, ContentReader, ContentTooLarge


class CheckedStore:
    """A content store that is not believed: whatever it hands out is hashed here once more.

    Args:
        inner: the store.
    """

    def __init__(self, inner: ContentReader) -> None:
        self._inner = inner

    def get(self, cid: Cid, *, max_bytes: int) -> bytes:
        """Fetch content; see :meth:`ContentReader.get <offchain.storage.port.ContentReader.get>`."""
        content = self._inner.get(cid, max_bytes=max_bytes)
        if len(content) > max_bytes:
            raise ContentTooLarge(cid, max_bytes)
        actual = cid_of(content)
        if actual != cid:
            raise ContentCorrupt(cid, actual)
        return content


@dataclass(frozen=True)
class ProofFacts:
    """A proof with the links that its own bytes carry."""

    proof: Proof
    opening: bytes
    closing: bytes


def check_registered(registered: RegisteredSegment, segment: SegmentRecord) -> str:
    """The registry holds for this segment what the manifest says."""
    for name, claimed, stored in (
        ("verification key digest", bytes.fromhex(segment.verification_key_digest), registered.verification_key_digest),
        ("verifier code hash", bytes.fromhex(segment.verifier_code_hash), registered.verifier_code_hash),
        ("input kind", segment.input_kind.name, registered.input_kind.name),
        ("output kind", segment.output_kind.name, registered.output_kind.name),
        ("proof bytes", segment.proof_bytes, registered.proof_bytes),
        ("input elements", math.prod(segment.input_shape), registered.input_elements),
        ("output elements", math.prod(segment.output_shape), registered.output_elements),
    ):
        require_equal(f"registered {name}", claimed, stored)
    return f"key 0x{segment.verification_key_digest}"


def check_verifier_code(record: ChainRecord, registered: RegisteredSegment, segment: SegmentRecord | None) -> str:
    """The verifier contract still has the code that was registered."""
    connection = record.contracts.connection
    with connection.translated("eth_getCode"):
        code = bytes(connection.web3.eth.get_code(registered.verifier, record.block_number))  # type: ignore[arg-type]
    if not code:
        raise CheckFailed(f"code of verifier {registered.verifier}", "some", "none")
    require_equal(f"code hash of verifier {registered.verifier}", registered.verifier_code_hash, keccak(code))
    if segment is not None:
        require_equal("code hash in the manifest", bytes.fromhex(segment.verifier_code_hash), keccak(code))
    return f"{len(code)} bytes at {registered.verifier}"


@dataclass(frozen=True)
class ProvedAttempt:
    """An attempt at a segment that was proved.

    Args:
        counts: whether it is the attempt that counts, and no later one took its place.
        opening: what its proof has to open with.
        event: ``SegmentProved``; None if there is none.
    """

    segment: int
    round: Round
    counts: bool
    opening: bytes
    event: Event | None

    @property
    def announced(self) -> dict[str, Any]:
        """What the chain said of it.

        Raises:
            CheckFailed: nothing.
        """
        if self.event is None:
            raise CheckFailed("events SegmentProved", "exactly one", 0)
        return self.event.arguments


def fetch_proof(attempt: ProvedAttempt, store: ContentReader) -> Proof:
    """Fetch a proof by the CID on chain."""
    encoded = store.get(digest_to_cid(attempt.round.proof_cid), max_bytes=3 * MAX_PROOF_BYTES)
    return Proof.from_json(encoded)


def check_proof_hash(attempt: ProvedAttempt, proof: Proof) -> str:
    """The fetched proof is the one that the chain verified, and the chain announced the same."""
    round_, said = attempt.round, attempt.announced
    actual = hashing.proof_hash(proof.proof, proof.instances)
    require_equal("proof hash", round_.proof_hash, actual)
    announced = (said["proofHash"], said["proofCid"], said["prover"])
    require_equal("announced proof", announced, (round_.proof_hash, round_.proof_cid, round_.proved_by))
    return "0x" + actual.hex()


def read_links(proof: Proof, registered: RegisteredSegment) -> ProofFacts:
    """Read the opening and the closing link out of a proof's bytes."""
    opening, closing = links_of_proof(
        proof.proof,
        proof.instances,
        registered.input_kind,
        registered.output_kind,
        registered.input_elements,
    )
    return ProofFacts(proof, opening, closing)


def check_link_in(attempt: ProvedAttempt, facts: ProofFacts) -> str:
    """The proof opens with what the segment before settled on, or with the job's input."""
    source = "the job's input link" if attempt.segment == 0 else f"the link of segment {attempt.segment - 1}"
    require_equal(f"opening link ({source})", attempt.opening, facts.opening)
    return f"equals {source}" + ("" if attempt.counts else " at that time")


def check_link_out(attempt: ProvedAttempt, facts: ProofFacts) -> str:
    """The proof closes with what its own segment settled on."""
    require_equal("closing link (the settled one)", attempt.round.settled_link, facts.closing)
    said = attempt.announced
    require_equal("announced links", (said["linkIn"], said["linkOut"]), (facts.opening, facts.closing))
    return "equals the settled link"


def check_on_chain(record: ChainRecord, segment: int, facts: ProofFacts) -> str:
    """The registered verifier contract accepts the proof once more, by a free call, and reads the same links."""
    links = record.contracts.verifier.verify_segment(
        record.job.model_id, segment, facts.proof.proof, facts.proof.instances
    )
    require_equal("links read on chain", (facts.opening, facts.closing), links)
    return "accepted by the registered verifier"


def read_result(record: ChainRecord, manifest: Manifest, proof: Proof) -> tuple[float, ...]:
    """Read the result out of the last proof, and compare it with the recorded link."""
    last = manifest.segments[-1]
    outputs = proof.instances[instance_count(last.input_kind, math.prod(last.input_shape)) :]
    require_equal("elements of the result", math.prod(last.output_shape), len(outputs))
    require_equal("link of the result", record.rounds[-1].settled_link, link_of_values(outputs))
    return dequantise(outputs, last.output_scale)

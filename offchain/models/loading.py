"""Loading a registered model from chain and IPFS, trusting neither what a node hands out nor whoever registered it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from eth_hash.auto import keccak

from offchain.chain.contracts import Contracts
from offchain.chain.events import read_events
from offchain.errors import InvalidInputError
from offchain.models.verifiers import foreign_verifiers
from offchain.protocol.links import instance_count
from offchain.protocol.manifest import MAX_MANIFEST_BYTES, Manifest, SegmentRecord, model_id_of, parse_manifest
from offchain.protocol.types import ModelId
from offchain.proving.boundary import check_boundaries
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit, Srs, VerifyingKey
from offchain.proving.srs import load_srs, srs_file_bytes
from offchain.storage.cid import digest_to_cid
from offchain.storage.port import ContentCorrupt, ContentReader, ContentUnavailable
from offchain.storage.sealing import Identity, NotARecipient, SealBroken, unseal

MAX_SETTINGS_BYTES = 4 << 20
MAX_KEY_BYTES = 64 << 20
MAX_SEALED_ONNX_BYTES = 256 << 20
MAX_GRANT_BYTES = 1 << 20
MAX_FETCHED_LOG_ROWS = 20
"""An SRS of 128 MiB. Whoever registers a model names its SRS, and whoever meets the model fetches it."""


class ModelMismatch(InvalidInputError):
    """What was fetched is not what the chain says the model is."""


def fetch_manifest(contracts: Contracts, store: ContentReader, model_id: ModelId) -> Manifest:
    """Fetch a model's manifest and derive the model's id from it again.

    Raises:
        TransactionRefused: ``UnknownModel``.
        ModelMismatch: the manifest is another's.
        InvalidInputError: the manifest is not one.
        ContentUnavailable, StoreUnreachable, ChainUnreachable: try again.
    """
    manifest_hash, manifest_cid = contracts.registry.manifest_of(model_id)
    content = store.get(digest_to_cid(manifest_cid), max_bytes=MAX_MANIFEST_BYTES)
    if keccak(content) != manifest_hash:
        raise ModelMismatch("manifest", "its hash is not the registered one", "ask the owner to register it again")
    manifest = parse_manifest(content)
    if model_id_of(content, manifest_cid, manifest) != model_id:
        raise ModelMismatch("manifest", "it is another model's", "ask the owner to register it again")
    return manifest


def fetch_srs(manifest: Manifest, store: ContentReader, cache: ArtefactCache) -> Srs:
    """Fetch the structured reference string that a model's keys were made with, once per cache."""
    record = manifest.srs
    if not 1 <= record.log_rows <= MAX_FETCHED_LOG_ROWS:
        raise ModelMismatch("srs.log_rows", f"{record.log_rows} is out of range", f"use at most {MAX_FETCHED_LOG_ROWS}")

    def make(directory: Path) -> None:
        content = store.get(record.cid, max_bytes=srs_file_bytes(record.log_rows))  # type: ignore[arg-type]
        _check_digest("srs", content, record.digest)
        (directory / "srs").write_bytes(content)

    entry = cache.get_or_make("fetched-srs-1", {"digest": record.digest}, make)
    srs = load_srs(entry / "srs", record.origin)  # type: ignore[arg-type]
    if srs.log_rows != record.log_rows or srs.digest.hex() != record.digest:
        raise ModelMismatch("srs", "the file is not the one that the manifest names", "ask the owner to register again")
    return srs


def fetch_verifying_key(index: int, segment: SegmentRecord, store: ContentReader) -> VerifyingKey:
    """Fetch what checking a segment's proofs takes, besides the SRS."""
    key = store.get(segment.verification_key_cid, max_bytes=MAX_KEY_BYTES)  # type: ignore[arg-type]
    _check_digest(f"segments[{index}].verification_key", key, segment.verification_key_digest)
    settings = store.get(segment.settings_cid, max_bytes=MAX_SETTINGS_BYTES)  # type: ignore[arg-type]
    instances = sum(
        instance_count(kind, _elements(shape))
        for kind, shape in (
            (segment.input_kind, segment.input_shape),
            (segment.output_kind, segment.output_shape),
        )
    )
    return VerifyingKey(settings, key, segment.proof_bytes, instances)


def find_identity(
    contracts: Contracts, store: ContentReader, model_id: ModelId, manifest: Manifest, holder: Identity
) -> Identity | None:
    """Find a model's secret key among what was granted to ``holder``; None if nothing was.

    What does not open, or opens to something other than the key in the manifest, is passed over: anyone may announce
    anything.

    Raises:
        ContentUnavailable, ContentCorrupt: no grant opened, and one could not be fetched; try again.
    """
    contracts_head = contracts.connection.block_number()
    topics = [None, "0x" + model_id.hex()]
    grants = [
        event.arguments["grantCid"]
        for event in read_events(contracts, contracts.deployment.block, contracts_head, topics=topics)
        if event.name == "AccessGranted"
    ]
    missing: ContentUnavailable | ContentCorrupt | None = None
    for digest in reversed(grants):
        try:
            secret = unseal(store.get(digest_to_cid(digest), max_bytes=MAX_GRANT_BYTES), holder)
            identity = Identity(secret.decode("ascii"))
        except (ContentUnavailable, ContentCorrupt) as error:
            # Whoever announces what nobody has must not keep anybody from the grants before it.
            missing = missing or error
            continue
        except (NotARecipient, SealBroken, InvalidInputError, UnicodeDecodeError):
            continue
        if identity.encryption_key.hex() == manifest.model_key:
            return identity
    if missing is not None:
        raise missing
    return None


def open_onnx(index: int, segment: SegmentRecord, store: ContentReader, identity: Identity) -> bytes:
    """Fetch and open a segment's ONNX file."""
    sealed = store.get(segment.onnx_sealed_cid, max_bytes=MAX_SEALED_ONNX_BYTES)  # type: ignore[arg-type]
    onnx = unseal(sealed, identity)
    _check_digest(f"segments[{index}].onnx", onnx, segment.onnx_digest)
    return onnx


def load_circuits(
    manifest: Manifest, store: ContentReader, prover: EzklProver, identity: Identity
) -> tuple[SegmentCircuit, ...]:
    """Compile every segment of a model, and compare keys, boundaries and verifier contracts with the manifest.

    Whoever serves a model stakes on its proofs: with a verifier that accepts anything, or circuits that commit
    differently, honest work could be punished.

    Raises:
        ModelMismatch: a segment, or its verifier, is not what the manifest says.
        BoundaryMismatch: neighbouring segments cannot link.
        CircuitRefused: a segment cannot be compiled.
    """
    srs = fetch_srs(manifest, store, prover.cache)
    circuits = []
    for index, segment in enumerate(manifest.segments):
        settings = store.get(segment.settings_cid, max_bytes=MAX_SETTINGS_BYTES)  # type: ignore[arg-type]
        onnx = open_onnx(index, segment, store, identity)
        circuit = prover.build(
            onnx,
            settings,
            srs,
            input_bound=manifest.input_bound if index == 0 else None,
            name=f"segment[{index}]",
        )
        check_circuit(index, segment, circuit)
        circuits.append(circuit)
    check_boundaries(circuits)
    for index in foreign_verifiers(manifest, circuits, prover):
        raise ModelMismatch(
            f"segments[{index}].verifier_code_hash", "its key gives another contract", "do not serve this model"
        )
    return tuple(circuits)


def check_circuit(index: int, segment: SegmentRecord, circuit: SegmentCircuit) -> None:
    """Compare a compiled segment with its record in the manifest, field by field.

    Raises:
        ModelMismatch: naming the field.
    """
    if circuit.vk_digest.hex() != segment.verification_key_digest:
        raise ModelMismatch(
            f"segments[{index}].verification_key_digest", "the ONNX compiles to another key", "do not serve this model"
        )
    for field in ("input_kind", "output_kind", "input_scale", "output_scale", "input_shape", "output_shape"):
        compiled, claimed = getattr(circuit, field), getattr(segment, field)
        if compiled != claimed:
            raise ModelMismatch(
                f"segments[{index}].{field}", f"{claimed} is claimed, {compiled} compiled", "do not serve this model"
            )
    if circuit.proof_bytes != segment.proof_bytes:
        raise ModelMismatch(f"segments[{index}].proof_bytes", "proofs have another length", "do not serve this model")


def _check_digest(field: str, content: bytes, digest: str) -> None:
    if hashlib.sha256(content).hexdigest() != digest:
        raise ModelMismatch(field, "its digest is not the one in the manifest", "ask the owner to register it again")


def _elements(shape: Sequence[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product

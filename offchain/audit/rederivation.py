"""Deriving a model's keys and verifier contracts again, from the ONNX files that only its workers may open."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from offchain.audit.report import CheckFailed, Checklist, require_equal
from offchain.chain.contracts import Contracts
from offchain.models.loading import MAX_SETTINGS_BYTES, check_circuit, find_identity, open_onnx
from offchain.models.verifiers import code_hash, compile_segment_verifiers
from offchain.protocol.manifest import Manifest, SegmentRecord
from offchain.protocol.types import ModelId
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit, Srs
from offchain.storage.port import ContentReader
from offchain.storage.sealing import Identity
from offchain.tuning.exactness import ambiguities_of


def model_identity(
    contracts: Contracts, store: ContentReader, model_id: ModelId, manifest: Manifest, holder: Identity
) -> Identity:
    """Get at a model's secret key: the holder's own, or what was granted to it.

    Raises:
        CheckFailed: it is neither the model's key nor was anything granted to it.
    """
    if holder.encryption_key.hex() == manifest.model_key:
        return holder
    identity = find_identity(contracts, store, model_id, manifest, holder)
    if identity is None:
        raise CheckFailed("identity", "the model's own, or one that was granted access", "a stranger's")
    return identity


def rederive(
    index: int,
    segment: SegmentRecord,
    manifest: Manifest,
    srs: Srs,
    store: ContentReader,
    prover: EzklProver,
    identity: Identity,
    checks: Checklist,
) -> None:
    """Derive a segment from nothing, and compare with what is registered.

    That is its key, its form, its verifier's code, and whether one input has one output that proves.
    """

    def derive(directory: Path) -> SegmentCircuit:
        onnx = open_onnx(index, segment, store, identity)
        settings = store.get(segment.settings_cid, max_bytes=MAX_SETTINGS_BYTES)  # type: ignore[arg-type]
        # A cache of its own, which starts empty: nothing that was made before is taken over.
        fresh = EzklProver(ArtefactCache(directory), prover.limits)
        bound = manifest.input_bound if index == 0 else None
        circuit = fresh.build(onnx, settings, srs, input_bound=bound, name=f"segment[{index}]")
        check_circuit(index, segment, circuit)
        return circuit

    def compare_code(circuit: SegmentCircuit, directory: Path) -> str:
        (compiled,) = compile_segment_verifiers([circuit], prover, ArtefactCache(directory))
        require_equal("code hash of the verifier", bytes.fromhex(segment.verifier_code_hash), code_hash(compiled))
        return f"{len(compiled.runtime_code)} bytes of equal code"

    def compare_exactness(circuit: SegmentCircuit) -> str:
        # Of what was compiled to the registered key just now: other settings would have other operations.
        (found,) = ambiguities_of(prover, [circuit.onnx.read_bytes()], [circuit.settings.read_bytes()])
        require_equal("what gives one input several outputs", _operations(segment.ambiguities), _operations(found))
        return "; ".join(found) or "one input has one output"

    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        circuit = checks.obtain("rederived_key", lambda: derive(directory), lambda it: f"key 0x{it.vk_digest.hex()}")
        if circuit is not None:
            found = circuit
            checks.check("rederived_verifier", lambda: compare_code(found, directory))
            checks.check("rederived_exactness", lambda: compare_exactness(found))


def _operations(reasons: Sequence[str]) -> list[str]:
    """What reasons are about; the rest of each is explained to readers, and may be worded otherwise some day."""
    return sorted({reason.partition(":")[0] for reason in reasons})

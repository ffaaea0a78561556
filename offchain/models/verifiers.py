"""The verifier contracts of a model's segments, made from their circuits and compared with what a manifest says."""

from __future__ import annotations

from collections.abc import Sequence

from eth_hash.auto import keccak

from offchain.protocol.manifest import Manifest
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import CircuitRefused, SegmentCircuit
from offchain.proving.verifier import CompiledVerifier, compile_verifiers
from offchain.toolchain import CompilationError


def compile_segment_verifiers(
    circuits: Sequence[SegmentCircuit], prover: EzklProver, cache: ArtefactCache | None = None
) -> tuple[CompiledVerifier, ...]:
    """Generate and compile the verifier of each circuit.

    Each contract is named by its key, so that no two share a name and equal circuits share a contract.

    Args:
        cache: where compiled contracts are kept; the prover's own if None.

    Raises:
        CircuitRefused: the compiler does not take what the prover generated for these circuits.
    """
    names = [f"SegmentVerifier_{circuit.vk_digest.hex()[:16]}" for circuit in circuits]
    sources = {name: prover.solidity_verifier(circuit, name) for name, circuit in zip(names, circuits, strict=True)}
    try:
        compiled = compile_verifiers(sources, cache or prover.cache)
    except CompilationError as error:
        # The model's fault, which may be anybody's: it must not end the process as a broken compiler would.
        first = error.messages[0].strip().splitlines()[0]
        raise CircuitRefused(
            "verifier", f"it does not compile ({first})", "cut the model into smaller segments"
        ) from error
    return tuple(compiled[name] for name in names)


def code_hash(verifier: CompiledVerifier) -> bytes:
    """Keccak-256 of a verifier's runtime code, as ``address.codehash`` gives it on chain."""
    return keccak(verifier.runtime_code)


def foreign_verifiers(manifest: Manifest, circuits: Sequence[SegmentCircuit], prover: EzklProver) -> tuple[int, ...]:
    """Find the segments whose verifier in the manifest is not the one that their key gives.

    A contract with other code may accept what no key accepts.
    """
    verifiers = compile_segment_verifiers(circuits, prover)
    return tuple(
        index
        for index, (segment, verifier) in enumerate(zip(manifest.segments, verifiers, strict=True))
        if bytes.fromhex(segment.verifier_code_hash) != code_hash(verifier)
    )

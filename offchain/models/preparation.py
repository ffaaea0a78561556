"""Preparing a model for registration: cut, compile, make keys and verifiers, and measure what the fixed point costs."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offchain import toolchain
from offchain.inference.calibration import Samples
from offchain.inference.untrusted import Segment
from offchain.models.recipe import Recipe, choose_settings, cut
from offchain.models.trials import check_count, make_trials
from offchain.models.verifiers import code_hash, compile_segment_verifiers
from offchain.protocol.field import dequantise, quantise
from offchain.protocol.manifest import Accuracy, Manifest, SegmentRecord, SrsRecord, check_manifest
from offchain.proving.boundary import check_boundaries
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit, Srs, TunedSegment, Tuning
from offchain.proving.srs import insecure_srs
from offchain.proving.verifier import CompiledVerifier
from offchain.sandbox import run_limited
from offchain.storage.cid import cid_of
from offchain.storage.sealing import Identity, seal
from offchain.tuning.chain import group_rows, ungroup_rows

Progress = Callable[[str, float], None]
"""Called with the step under way and the share of the whole that is done, 0 to 1."""

MAX_MEASURED = 200
FLOAT_SECONDS = 60.0
FLOAT_MEMORY_BYTES = 2 << 30


def no_progress(step: str, share: float) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class PreparedModel:
    """A model that is ready to be published.

    Args:
        manifest: what it is.
        identity: the secret that opens its sealed segments.
        circuits, verifiers: per segment, in order.
        contents: everything to be pinned, by CID, the manifest included.
        tuning: which settings were chosen and which were refused.
    """

    manifest: Manifest
    identity: Identity
    circuits: tuple[SegmentCircuit, ...]
    verifiers: tuple[CompiledVerifier, ...]
    contents: Mapping[str, bytes]
    tuning: Tuning


def prepare(
    model: bytes,
    recipe: Recipe,
    calibration: Samples,
    prover: EzklProver,
    *,
    heldout: Samples | None = None,
    srs: Srs | None = None,
    identity: Identity | None = None,
    progress: Progress = no_progress,
) -> PreparedModel:
    """Cut a model, compile its segments and describe the result in a manifest.

    Args:
        model: an ONNX file; it is only ever parsed in a killable child process.
        calibration: (n, *shape) float32 inputs that are typical for the model, at the edge of their range too.
        heldout: what accuracy is measured on; the calibration itself if None, and the manifest says so.
        srs: a structured reference string; one is made here, and marked insecure, if None.
        identity: the model's own key; a fresh one if None.

    Raises:
        InvalidInputError: the model, the samples or the SRS cannot be used as they are.
        NativeCallFailed: a tool crashed or reached its limits.
    """
    check_count(recipe.trials)
    progress("cutting", 0.0)
    segments = cut(model, recipe)
    progress("choosing settings", 0.05)
    batch = segments[0].input_shape[0]
    tuning = choose_settings([segment.onnx for segment in segments], recipe, calibration, heldout, prover, batch)
    srs = srs or insecure_srs(prover, tuning.log_rows)
    circuits = []
    for index, (segment, tuned) in enumerate(zip(segments, tuning.segments, strict=True)):
        progress(f"making keys of segment {index}", 0.2 + 0.5 * index / len(segments))
        bound = tuning.input_bound if index == 0 else None
        circuits.append(prover.build(segment.onnx, tuned.settings, srs, input_bound=bound, name=f"segment[{index}]"))
    check_boundaries(circuits)
    progress("compiling verifiers", 0.7)
    verifiers = compile_segment_verifiers(circuits, prover)
    progress("measuring accuracy", 0.8)
    accuracy = measure(model, circuits, prover, heldout or calibration, "held-out" if heldout else "calibration")
    progress("answering trials", 0.9)
    trials = make_trials(circuits, calibration.inputs, recipe.trials, prover)

    identity = identity or Identity.generate()
    contents: dict[str, bytes] = {}

    def pin(content: bytes) -> str:
        cid = cid_of(content)
        contents[cid] = content
        return cid

    manifest = Manifest(
        name=recipe.name,
        model_key=identity.encryption_key.hex(),
        input_bound=tuning.input_bound,
        tools={"prover": prover.version, "solc": toolchain.SOLC_VERSION},
        srs=SrsRecord(srs.digest.hex(), pin(srs.path.read_bytes()), srs.log_rows, srs.origin),
        accuracy=accuracy,
        trials=trials,
        segments=tuple(
            _record(segment, circuit, tuned, verifier, identity, pin)
            for segment, circuit, tuned, verifier in zip(segments, circuits, tuning.segments, verifiers, strict=True)
        ),
    )
    check_manifest(manifest)
    pin(manifest.to_bytes())
    progress("prepared", 1.0)
    return PreparedModel(manifest, identity, tuple(circuits), verifiers, contents, tuning)


def measure(
    model: bytes, circuits: Sequence[SegmentCircuit], prover: EzklProver, samples: Samples, source: str
) -> Accuracy:
    """Run a model in floating point and its circuits in fixed point on the same samples, and compare input by input.

    Samples with a value beyond the circuit's input bound are refused by it, and count as wrong. Circuits that take a
    batch are given so many samples; the last batch is filled up with the last sample.
    """
    inputs = samples.inputs[:MAX_MEASURED]
    labels = None if samples.labels is None else samples.labels[:MAX_MEASURED]
    exact = _run_float(model, inputs).reshape(len(inputs), -1)
    bound = circuits[0].input_bound
    flat = inputs.reshape(len(inputs), -1)
    within = np.ones(len(inputs), bool) if bound is None else np.abs(flat).max(axis=1) <= bound
    size = circuits[0].input_shape[0]
    batches = [quantise(row.tolist(), circuits[0].input_scale) for row in group_rows(flat[within], size)]
    outputs = prover.activations(circuits, batches)
    answers = np.array([dequantise(sample[-1], circuits[-1].output_scale) for sample in outputs])
    fixed = ungroup_rows(answers, size, int(within.sum()))
    chosen, predicted = exact.argmax(axis=1), fixed.argmax(axis=1)
    agrees = predicted == chosen[within]
    return Accuracy(
        samples=len(inputs),
        float_accuracy=None if labels is None else round(float((chosen == labels).mean()), 4),
        fixed_accuracy=None if labels is None else round(float((predicted == labels[within]).sum() / len(inputs)), 4),
        agreement=round(float(agrees.sum() / len(inputs)), 4),
        max_error=round(float(np.abs(fixed - exact[within]).max()), 6),
        source=source,
    )


def _record(
    segment: Segment,
    circuit: SegmentCircuit,
    tuned: TunedSegment,
    verifier: CompiledVerifier,
    identity: Identity,
    pin: Callable[[bytes], str],
) -> SegmentRecord:
    return SegmentRecord(
        operators=segment.label,
        input_kind=circuit.input_kind,
        output_kind=circuit.output_kind,
        input_scale=circuit.input_scale,
        output_scale=circuit.output_scale,
        input_shape=circuit.input_shape,
        output_shape=circuit.output_shape,
        proof_bytes=circuit.proof_bytes,
        log_rows=circuit.log_rows,
        rows=circuit.rows,
        verification_key_digest=circuit.vk_digest.hex(),
        verification_key_cid=pin(circuit.vk.read_bytes()),
        verifier_code_hash=code_hash(verifier).hex(),
        settings_cid=pin(circuit.settings.read_bytes()),
        onnx_digest=hashlib.sha256(segment.onnx).hexdigest(),
        onnx_sealed_cid=pin(seal(segment.onnx, [identity.encryption_key])),
        ambiguities=tuned.ambiguities,
        closing_link_is_unique=tuned.closing_link_is_unique,
    )


def _run_float(model: bytes, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run an untrusted model in a killable child process."""
    payload = {"model": base64.b64encode(model).decode(), "inputs": _encode(inputs)}
    answer = run_limited(
        f"{__name__}:run_float_payload", payload, timeout_seconds=FLOAT_SECONDS, memory_bytes=FLOAT_MEMORY_BYTES
    )
    return _decode(answer["outputs"])


def run_float_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """Serve :func:`_run_float` in the child."""
    from offchain.inference.execution import run_float

    return {"outputs": _encode(run_float(base64.b64decode(payload["model"]), _decode(payload["inputs"])))}


def _encode(array: NDArray[np.float32]) -> str:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return base64.b64encode(buffer.getvalue()).decode()


def _decode(text: str) -> NDArray[np.float32]:
    decoded: NDArray[np.float32] = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return decoded

"""The manifest: what a model is, as canonical JSON whose hash goes into the model's id.

The bytes are pinned on IPFS and never reformatted: whoever reads a manifest hashes the bytes as they are. Weights do
not appear: the ONNX segments are sealed to the model's own key, and the manifest names the digests of the plain text.
The verification keys, which fix the weights, the settings and the SRS are public. Compiled circuits are not named:
whoever may read the ONNX compiles it, and compares the verification key.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from eth_hash.auto import keccak

from offchain.errors import InvalidInputError
from offchain.protocol import hashing
from offchain.protocol.canonical import canonical_json
from offchain.protocol.links import LinkKind
from offchain.protocol.trials import Trials, check_trials
from offchain.protocol.types import ModelId

FORMAT = "interlock.manifest.v3"
MAX_MANIFEST_BYTES = 1 << 20
MAX_AMBIGUITIES = 32
MAX_AMBIGUITY = 200
_HASH = re.compile("[0-9a-f]{64}")
SRS_ORIGINS = ("ceremony", "local-ceremony", "insecure-dev")


@dataclass(frozen=True)
class SrsRecord:
    """The structured reference string that every segment's keys were made with.

    Args:
        digest: SHA-256 of the file, hex.
        cid: where it is pinned.
        log_rows: its size, as the power of two.
        origin: ``ceremony``, ``local-ceremony``, or ``insecure-dev`` if whoever made it could forge any proof.
    """

    digest: str
    cid: str
    log_rows: int
    origin: str


@dataclass(frozen=True)
class Accuracy:
    """Floating point against the circuit's fixed point, on samples that neither training nor calibration saw.

    Args:
        samples: how many were measured.
        float_accuracy, fixed_accuracy: share of correct classes; None without labels.
        agreement: share of samples on which both choose the same class (the largest output).
        max_error: largest absolute difference of any output.
        source: ``held-out`` or, where the owner gave none, ``calibration``.
    """

    samples: int
    float_accuracy: float | None
    fixed_accuracy: float | None
    agreement: float
    max_error: float
    source: str


@dataclass(frozen=True)
class SegmentRecord:
    """One segment. Digests are hex; CIDs of sealed content end in ``_sealed_cid``.

    Args:
        operators: its operators in short, for readers.
        input_scale, output_scale: fixed-point fractional bits at each boundary.
        input_shape, output_shape: tensor dimensions, batch first.
        verification_key_digest: SHA-256 of the verification key.
        verifier_code_hash: Keccak-256 of the verifier contract's runtime code.
        log_rows: the circuit has two to this power rows, of which ``rows`` are used.
        ambiguities: why one input has several outputs that prove; empty where it has one. Derived from ONNX and
            settings, so that whoever may open the ONNX finds out whether it is true.
        closing_link_is_unique: whether equal outputs have one link. A KZG link has any number of them.
    """

    operators: str
    input_kind: LinkKind
    output_kind: LinkKind
    input_scale: int
    output_scale: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    proof_bytes: int
    log_rows: int
    rows: int
    verification_key_digest: str
    verification_key_cid: str
    verifier_code_hash: str
    settings_cid: str
    onnx_digest: str
    onnx_sealed_cid: str
    ambiguities: tuple[str, ...]
    closing_link_is_unique: bool

    def spec(self) -> tuple[object, ...]:
        """The fields of ``SegmentSpec`` in ``IRegistry.sol``, in order."""
        return (
            bytes.fromhex(self.verification_key_digest),
            bytes.fromhex(self.verifier_code_hash),
            int(self.input_kind),
            int(self.output_kind),
            self.input_scale,
            self.output_scale,
            self.proof_bytes,
            list(self.input_shape),
            list(self.output_shape),
        )


@dataclass(frozen=True)
class Manifest:
    """A model, whole.

    Args:
        name: what its owner calls it.
        model_key: X25519 public key (hex) to which its ONNX segments are sealed.
        input_bound: largest absolute value that an input may have, as a real number.
        tools: versions of what made the artefacts.
        trials: what a new worker has to answer before its stake counts.
    """

    name: str
    model_key: str
    input_bound: float
    tools: Mapping[str, str]
    srs: SrsRecord
    accuracy: Accuracy
    trials: Trials
    segments: tuple[SegmentRecord, ...]

    @property
    def batch(self) -> int:
        """How many inputs one job takes: the first dimension of input and output, which the model id binds."""
        taken, given = self.segments[0].input_shape, self.segments[-1].output_shape
        return taken[0] if len(taken) > 1 and taken[0] == given[0] else 1

    def to_bytes(self) -> bytes:
        """Encode as canonical JSON: sorted keys, no white space, ASCII."""
        record = {"format": FORMAT, **asdict(self)}
        for segment in record["segments"]:
            for side in ("input_kind", "output_kind"):
                segment[side] = LinkKind(segment[side]).name.lower()
        return canonical_json(record)


def model_id_of(content: bytes, cid: bytes, manifest: Manifest) -> ModelId:
    """The id of the model whose manifest has exactly these bytes.

    Args:
        content: the manifest as it is pinned.
        cid: the SHA-256 digest inside its CIDv0.
        manifest: the same, parsed.
    """
    specs = [segment.spec() for segment in manifest.segments]
    return ModelId(hashing.model_id(keccak(content), cid, specs, manifest.trials.answer_hashes()))


def parse_manifest(content: bytes) -> Manifest:
    """Read a manifest and check that it is one: canonical, complete, and equal on both sides of every boundary.

    Raises:
        InvalidInputError: naming the field that is wrong.
    """
    if len(content) > MAX_MANIFEST_BYTES:
        raise InvalidInputError("manifest", f"{len(content)} bytes are too many", f"keep to {MAX_MANIFEST_BYTES}")
    try:
        record = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError("manifest", f"it is not JSON ({error})", "use the manifest as it was pinned") from error
    if not isinstance(record, dict) or record.pop("format", None) != FORMAT:
        raise InvalidInputError("manifest.format", f"it is not {FORMAT}", "use a manifest of this version")
    try:
        manifest = Manifest(
            **{
                **record,
                "srs": SrsRecord(**record["srs"]),
                "accuracy": Accuracy(**record["accuracy"]),
                "trials": _parse_trials(record["trials"]),
                "segments": tuple(_parse_segment(segment) for segment in record["segments"]),
            }
        )
        canonical = manifest.to_bytes()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInputError(
            "manifest", f"fields are wrong ({error})", "use the manifest as it was pinned"
        ) from error
    if canonical != content:
        raise InvalidInputError("manifest", "its bytes are not canonical", "use the manifest as it was pinned")
    _check_values(manifest)
    check_manifest(manifest)
    for index, segment in enumerate(manifest.segments):
        _check_uniqueness(index, segment)
    return manifest


def check_manifest(manifest: Manifest) -> None:
    """Check the rules that the registry enforces too: a model that breaks one cannot be registered.

    Raises:
        InvalidInputError: naming the segment and the rule.
    """
    if not manifest.segments:
        raise InvalidInputError("segments", "there is none", "cut the model into at least one segment")
    check_trials(manifest.trials)
    if manifest.srs.origin not in SRS_ORIGINS:
        raise InvalidInputError("srs.origin", f"{manifest.srs.origin!r} is unknown", f"use one of {SRS_ORIGINS}")
    for index, segment in enumerate(manifest.segments):
        if LinkKind.NONE in (segment.input_kind, segment.output_kind):
            raise InvalidInputError(f"segments[{index}]", "a link kind is missing", "give both ends a link kind")
    for index, (before, after) in enumerate(zip(manifest.segments, manifest.segments[1:], strict=False), start=1):
        for name in ("scale", "shape", "kind"):
            closing, opening = getattr(before, f"output_{name}"), getattr(after, f"input_{name}")
            if closing != opening:
                raise InvalidInputError(
                    f"segments[{index}].input_{name}",
                    f"it is {opening}, but segment {index - 1} puts out {closing}",
                    "compile both segments with the same boundary: links compare elements, not their meaning",
                )
    if manifest.segments[-1].output_kind is not LinkKind.PUBLIC:
        raise InvalidInputError("segments[-1].output_kind", "the last output must be public", "use link kind public")


_DIGESTS = ("verification_key_digest", "verifier_code_hash", "onnx_digest")
_NUMBERS = ("input_scale", "output_scale", "proof_bytes", "log_rows", "rows")


def _check_values(manifest: Manifest) -> None:
    """Refuse values of the wrong kind, which canonical JSON alone would let through."""
    digests = [("model_key", manifest.model_key), ("srs.digest", manifest.srs.digest)]
    for index, segment in enumerate(manifest.segments):
        digests += [(f"segments[{index}].{name}", getattr(segment, name)) for name in _DIGESTS]
        for name in _NUMBERS:
            if type(getattr(segment, name)) is not int or getattr(segment, name) < 0:
                raise InvalidInputError(f"segments[{index}].{name}", "it is no count", "use the manifest as pinned")
        if any(size < 1 for size in (*segment.input_shape, *segment.output_shape)):
            raise InvalidInputError(f"segments[{index}]", "a dimension is empty", "use the manifest as pinned")
    for field, value in digests:
        if not isinstance(value, str) or not _HASH.fullmatch(value):
            raise InvalidInputError(field, "it is not 32 bytes in lower-case hex", "use the manifest as pinned")


def _check_uniqueness(index: int, segment: SegmentRecord) -> None:
    """Refuse ambiguities that are no list of lines, and a link that is said to be unique and cannot be, or is not."""
    reasons = segment.ambiguities
    if len(reasons) > MAX_AMBIGUITIES or len(set(reasons)) < len(reasons):
        raise InvalidInputError(
            f"segments[{index}].ambiguities", "they are repeated or too many", "use the manifest as pinned"
        )
    for reason in reasons:
        if not 1 <= len(reason) <= MAX_AMBIGUITY or not reason.isprintable():
            raise InvalidInputError(f"segments[{index}].ambiguities", "one is no line", "use the manifest as pinned")
    if segment.closing_link_is_unique is not (segment.output_kind is not LinkKind.KZG):
        raise InvalidInputError(
            f"segments[{index}].closing_link_is_unique",
            f"it is {segment.closing_link_is_unique}, and its output is {segment.output_kind.name.lower()}",
            "say true exactly where the output is no KZG link",
        )


def _parse_trials(record: dict[str, Any]) -> Trials:
    return Trials(**{**record, "answers": tuple(record["answers"])})


def _parse_segment(record: dict[str, Any]) -> SegmentRecord:
    return SegmentRecord(
        **{
            **record,
            "input_kind": LinkKind[str(record["input_kind"]).upper()],
            "output_kind": LinkKind[str(record["output_kind"]).upper()],
            "input_shape": tuple(int(size) for size in record["input_shape"]),
            "output_shape": tuple(int(size) for size in record["output_shape"]),
            "ambiguities": _parse_reasons(record["ambiguities"]),
        }
    )


def _parse_reasons(entries: object) -> tuple[str, ...]:
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise ValueError("ambiguities are no list of texts")
    return tuple(entries)

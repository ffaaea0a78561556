"""What the rest of Interlock knows about proving: values, errors and the :class:`Prover` port."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from offchain.errors import InterlockError, InvalidInputError, RecoverableError
from offchain.protocol.field import ELEMENT_BYTES, FIELD_MODULUS
from offchain.protocol.links import LinkKind
from offchain.protocol.types import Link

SrsOrigin = Literal["insecure-dev", "local-ceremony", "ceremony"]
COMMITMENT_BYTES = 64
MAX_PROOF_BYTES = 1 << 20
_HEX = re.compile(r"(?:[0-9a-f]{2})*")


class ProofRejected(InterlockError):
    """A proof does not verify against the key, the settings and the SRS that it was checked with."""


class ProverFailed(RecoverableError):
    """The prover ran out of time or memory, or died; the same call may succeed on a quieter machine.

    Args:
        step: what was being done.
        kind: ``timeout``, ``memory``, ``crash`` or ``cancelled``.
        message: one line about the cause.
    """

    def __init__(self, step: str, kind: str, message: str) -> None:
        super().__init__(f"{step}: {kind}: {message}")
        self.step = step
        self.kind = kind


class CircuitRefused(InvalidInputError):
    """The prover cannot turn this model, these settings or this key material into a circuit."""


class InputOutOfRange(InvalidInputError):
    """An activation is outside the range that a segment's circuit covers."""


class BoundaryMismatch(InvalidInputError):
    """Two neighbouring segments do not mean the same thing by the elements between them."""


@dataclass(frozen=True)
class Srs:
    """A structured reference string.

    Attributes:
        log_rows: the largest circuit that it serves; it serves every smaller one too.
        digest: SHA-256 of the file.
        origin: who could know the secret behind it; ``insecure-dev`` means whoever made it.
    """

    path: Path
    log_rows: int
    digest: bytes
    origin: SrsOrigin


@dataclass(frozen=True)
class VerifyingKey:
    """All that checking a proof takes, besides the SRS.

    Attributes:
        settings: canonical settings file.
        key: the key file; its SHA-256 is what a manifest names.
        proof_bytes: the only accepted length of a proof. The native verifier would ignore appended bytes.
        instance_count: the only accepted number of public instances.
    """

    settings: bytes
    key: bytes
    proof_bytes: int
    instance_count: int


@dataclass(frozen=True)
class SegmentCircuit:
    """A compiled segment with its keys: immutable files in the artefact cache, and what they say.

    Attributes:
        vk_digest: SHA-256 of the verification key file.
        input_scale, output_scale: fixed-point fractional bits.
        input_shape, output_shape: tensor shapes, the batch dimension of 1 included.
        rows: rows that the circuit uses, before it is folded into columns.
        commitment_probe: commitment of the one-element vector 0 under this circuit. Circuits commit alike exactly
            when their probes are equal: same SRS, same log-rows, same number of blinding rows.
        input_bound: the largest absolute real input that is accepted, or None where nothing was declared.
    """

    directory: Path
    srs: Srs
    vk_digest: bytes
    input_kind: LinkKind
    output_kind: LinkKind
    input_scale: int
    output_scale: int
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    log_rows: int
    rows: int
    proof_bytes: int
    instance_count: int
    commitment_probe: bytes
    input_bound: float | None = None

    @property
    def onnx(self) -> Path:
        """The segment's ONNX file."""
        return self.directory / "model.onnx"

    @property
    def settings(self) -> Path:
        """The canonical settings file."""
        return self.directory / "settings.json"

    @property
    def compiled(self) -> Path:
        """The compiled circuit; its bytes differ from one compilation to the next."""
        return self.directory / "circuit.ezkl"

    @property
    def vk(self) -> Path:
        """The verification key file."""
        return self.directory / "vk.key"

    @property
    def pk(self) -> Path:
        """The proving key file."""
        return self.directory / "pk.key"

    @property
    def verifier_source(self) -> Path:
        """The Solidity verifier as it was generated."""
        return self.directory / "verifier.sol"

    @property
    def input_elements(self) -> int:
        """How many field elements go in."""
        return math.prod(self.input_shape)

    @property
    def output_elements(self) -> int:
        """How many field elements come out."""
        return math.prod(self.output_shape)

    def verifying_key(self) -> VerifyingKey:
        """Read what a verifier needs from the cache."""
        return VerifyingKey(self.settings.read_bytes(), self.vk.read_bytes(), self.proof_bytes, self.instance_count)


@dataclass(frozen=True)
class Witness:
    """The assignment that a proof is made from. It holds the activations in the clear: never store or send it.

    Attributes:
        document: the native witness file.
        outputs: the exact field elements that the segment puts out.
        input_commitment, output_commitment: for a KZG link the 64 bytes ``x || y``, big-endian, that the proof
            carries; for a Poseidon link the 32-byte hash; None for a public boundary.
    """

    document: bytes
    outputs: tuple[int, ...]
    input_commitment: bytes | None
    output_commitment: bytes | None


@dataclass(frozen=True)
class Proof:
    """A proof and its public instances, in the order input, output."""

    proof: bytes
    instances: tuple[int, ...]

    def to_json(self) -> bytes:
        """Encode canonically: equal proofs give equal bytes, and only these bytes decode."""
        document = {
            "format": "interlock-proof-1",
            "instances": [element.to_bytes(ELEMENT_BYTES, "big").hex() for element in self.instances],
            "proof": self.proof.hex(),
        }
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, encoded: bytes) -> Proof:
        """Invert :meth:`to_json`.

        Raises:
            InvalidInputError: the bytes are not the canonical encoding of a proof.
        """
        mend = "send the bytes exactly as the prover wrote them"
        if len(encoded) > 3 * MAX_PROOF_BYTES:
            raise InvalidInputError("proof", f"{len(encoded)} bytes are too many", mend)
        try:
            document: Any = json.loads(encoded)
            proof = cls(_unhex(document["proof"]), tuple(_element(word) for word in document["instances"]))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InvalidInputError("proof", f"not a proof document ({type(error).__name__})", mend) from error
        if proof.to_json() != encoded:
            raise InvalidInputError("proof", "not the canonical encoding", mend)
        return proof


def _unhex(text: object) -> bytes:
    if not isinstance(text, str) or not _HEX.fullmatch(text):
        raise ValueError("not lower-case hexadecimal")
    return bytes.fromhex(text)


def _element(text: object) -> int:
    word = _unhex(text)
    element = int.from_bytes(word, "big")
    if len(word) != ELEMENT_BYTES or element >= FIELD_MODULUS:
        raise ValueError("not a field element")
    return element


EXACT_MULTIPLIER = 100
"""A rebase multiplier that no scale within the tool's integers reaches."""


@dataclass(frozen=True)
class FixedPoint:
    """How a chain of segments represents real numbers.

    Attributes:
        input_scale: fractional bits of the first input.
        param_scale: fractional bits of the weights.
        rescales: whether products are divided back to the input's scale. The quotient's rounding is the prover's
            choice, so that a circuit which rescales admits several outputs. Without, scales add up along the chain,
            and each boundary has its own.
    """

    input_scale: int
    param_scale: int
    rescales: bool

    @property
    def rebase_multiplier(self) -> int:
        """The tool's name for the choice."""
        return 1 if self.rescales else EXACT_MULTIPLIER

    def __str__(self) -> str:
        return f"{'rescaled' if self.rescales else 'exact'} {self.input_scale}/{self.param_scale}"


@dataclass(frozen=True)
class TunedSegment:
    """The choice for one segment.

    Attributes:
        settings: canonical settings file, to be pinned: generating it again need not give the same bytes under
            another version of the tool.
        input_scale, output_scale: fixed-point fractional bits at its two boundaries.
        decomposition_base, decomposition_legs: a range check covers ``base ** legs`` values.
        column_blocks: how many times the rows had to be folded to fit under ``2 ** log_rows``.
        ambiguities: why one input has several outputs that prove; empty when the circuit is exact.
        closing_link_is_unique: whether equal outputs have one link. A KZG link also commits to rows behind the
            output that no constraint touches.
    """

    settings: bytes
    input_scale: int
    output_scale: int
    log_rows: int
    rows: int
    decomposition_base: int
    decomposition_legs: int
    column_blocks: int
    ambiguities: tuple[str, ...]
    closing_link_is_unique: bool

    @property
    def exact(self) -> bool:
        """Whether one input has one output that proves."""
        return not self.ambiguities


@dataclass(frozen=True)
class Candidate:
    """One choice that was tried, and why it was not taken (empty when it was)."""

    fixed_point: FixedPoint
    log_rows: tuple[int, ...]
    decomposition_legs: tuple[int, ...]
    refusal: str


@dataclass(frozen=True)
class Drift:
    """How far the fixed-point outputs are from the floating-point ones, over the calibration inputs.

    Attributes:
        largest: largest absolute difference.
        relative: the same, over the largest absolute floating-point output.
        agreement: share of inputs whose largest output is at the same index.
    """

    largest: float
    relative: float
    agreement: float


@dataclass(frozen=True)
class Tuning:
    """Settings for every segment of a chain.

    Attributes:
        kinds: link kind of each boundary, one more than segments.
        fixed_point: what all segments share.
        input_bound: the largest absolute input for which witnesses were made; larger ones are to be refused.
    """

    segments: tuple[TunedSegment, ...]
    kinds: tuple[LinkKind, ...]
    fixed_point: FixedPoint
    input_bound: float
    drift: Drift
    candidates: tuple[Candidate, ...]

    @property
    def log_rows(self) -> int:
        """The largest log-rows of all segments: what the SRS must serve."""
        return max(segment.log_rows for segment in self.segments)

    @property
    def scales(self) -> tuple[int, ...]:
        """Fixed-point fractional bits of each boundary, one more than segments."""
        return (self.segments[0].input_scale, *(segment.output_scale for segment in self.segments))

    @property
    def exact(self) -> bool:
        """Whether every segment has one output that proves."""
        return all(segment.exact for segment in self.segments)


class Prover(Protocol):
    """Compiles segments, makes witnesses and proofs, and checks them.

    Every method that does native work raises ProverFailed when a limit on time or memory is hit.
    """

    @property
    def version(self) -> str:
        """Name and version of the proving tool, for manifests."""

    def tune(
        self,
        segments: Sequence[bytes],
        calibration: NDArray[np.float32],
        *,
        kinds: Sequence[LinkKind] | None = None,
        max_log_rows: int = 17,
        max_drift: float = 0.05,
        scales: Sequence[int] = (7, 8, 10),
        column_blocks: int = 1,
        checks_products: bool = False,
    ) -> Tuning:
        """Choose the cheapest settings under which a chain of segments stays accurate and in range.

        Settings that do not rescale come first: their outputs are unambiguous, and they are nearly always cheaper.

        Args:
            segments: ONNX files in order of execution.
            calibration: (n, \\*input shape) float32, typical inputs; n at least 1.
            kinds: link kind of each boundary, ``len(segments) + 1``; KZG everywhere and a public output if None.
            max_log_rows: refuse rather than exceed this.
            max_drift: bound on :attr:`Drift.relative`.
            scales: fixed-point scales to try, in order; all of them without rescaling before any with.
            column_blocks: how often a segment may be folded into more columns to lower log-rows. More blocks
                prove faster in less memory, and cost more proof bytes, gas and verifier code.
            checks_products: whether products of matrices are checked with random challenges, in columns of their own,
                and not laid out; it pays where both matrices have many rows and columns.

        Raises:
            CircuitRefused: a segment cannot be compiled, or not within ``max_log_rows``.
            BoundaryMismatch: neighbouring segments disagree in shape or scale.
            InvalidInputError: the calibration does not fit, or no scale meets ``max_drift``.
        """

    def build(
        self, onnx: bytes, settings: bytes, srs: Srs, *, input_bound: float | None = None, name: str = "segment"
    ) -> SegmentCircuit:
        """Compile a segment and make its keys, once per cache.

        Args:
            name: what errors call this segment.

        Raises:
            CircuitRefused: the model, the settings and the SRS do not make a circuit.
        """

    def rederive_vk(self, onnx: bytes, settings: bytes, srs: Srs, *, name: str = "segment") -> bytes:
        """Compile again from nothing, never from the cache, and return the verification key's SHA-256."""

    def commit(self, elements: Sequence[int], circuit: SegmentCircuit) -> bytes:
        """Return the 64-byte KZG commitment that proofs of this circuit carry for these elements."""

    def witness(self, circuit: SegmentCircuit, elements: Sequence[int], *, name: str = "segment") -> Witness:
        """Execute a segment exactly.

        Raises:
            InvalidInputError: the number of elements is wrong, or one is outside the field.
            InputOutOfRange: an element is over ``input_bound``, or a value inside leaves the circuit's range.
        """

    def activations(
        self, circuits: Sequence[SegmentCircuit], batch: Sequence[Sequence[int]]
    ) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Execute a chain on many inputs: for each input, the output elements of each segment in order.

        Raises: as :meth:`witness`.
        """

    def closing_links(
        self, circuits: Sequence[SegmentCircuit], batch: Sequence[Sequence[int]]
    ) -> tuple[tuple[Link, ...], ...]:
        """Execute a chain on many inputs: for each input, the closing link of each segment in order.

        Raises: as :meth:`witness`.
        """

    def prove(self, circuit: SegmentCircuit, witness: Witness, *, name: str = "segment") -> Proof:
        """Prove, and check the proof before it is returned.

        Raises:
            ProofRejected: the witness does not satisfy the circuit.
        """

    def verify(self, verifying_key: VerifyingKey, srs: Srs, proof: Proof) -> None:
        """Accept in silence.

        Raises:
            ProofRejected: in every other case.
        """

    def solidity_verifier(self, circuit: SegmentCircuit, contract_name: str) -> str:
        """Return the source of a contract that verifies this circuit's proofs on chain."""

"""The :class:`~offchain.proving.port.Prover` over ezkl, every call in a killable child process."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from offchain import sandbox
from offchain.errors import InvalidInputError
from offchain.protocol.field import FIELD_MODULUS, signed
from offchain.protocol.links import LinkKind
from offchain.protocol.types import Link
from offchain.proving.cache import ArtefactCache
from offchain.proving.links import link_of
from offchain.proving.points import decompress
from offchain.proving.port import (
    CircuitRefused,
    InputOutOfRange,
    Proof,
    ProofRejected,
    ProverFailed,
    SegmentCircuit,
    Srs,
    Tuning,
    VerifyingKey,
    Witness,
)
from offchain.proving.settings import read_settings

BUILD_FORMAT = "build-1"
MAX_ELEMENT_BITS = 126
"""No value of a circuit is larger: the tool computes in 128-bit integers, signed."""
_CONTRACT_NAME = re.compile(r"[A-Z][A-Za-z0-9_]{0,63}")
# The tool tries to download a compiler after writing a verifier. Nothing listens on port 9 of this host.
_OFFLINE = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")


@dataclass(frozen=True)
class Limits:
    """What one native call may take. Proving is known to deadlock, so no limit may be left out."""

    settings_seconds: float = 120.0
    build_seconds: float = 900.0
    witness_seconds: float = 300.0
    prove_seconds: float = 900.0
    verify_seconds: float = 120.0
    memory_bytes: int = 12 << 30


class EzklProver:
    """Drives ezkl.

    Args:
        cache: where circuits and keys are kept; several processes may share it.
        limits: time and memory per native call.
        threads: how many processor threads a native call may use; all if None.
    """

    def __init__(self, cache: ArtefactCache, limits: Limits | None = None, threads: int | None = None) -> None:
        self.cache = cache
        self.limits = limits or Limits()
        self.threads = threads
        self._environment = dict(_OFFLINE)
        if threads is not None:
            self._environment["RAYON_NUM_THREADS"] = str(threads)

    @property
    def version(self) -> str:
        """Name and version of the proving tool."""
        return f"ezkl {importlib.metadata.version('ezkl')}"

    def call(
        self,
        function: str,
        payload: dict[str, Any],
        seconds: float,
        name: str,
        cancellation: sandbox.Cancellation | None = None,
    ) -> dict[str, Any]:
        """Run one function of :mod:`offchain.proving.native` under limits.

        Raises:
            ProverFailed: it ran out of time or memory, died, or was cancelled.
            CircuitRefused: it refused a model, raised or panicked; ``field`` is ``name`` or more exact.
        """
        try:
            return sandbox.run_limited(
                f"offchain.proving.native:{function}",
                payload,
                timeout_seconds=seconds,
                memory_bytes=self.limits.memory_bytes,
                environment=self._environment,
                cancellation=cancellation,
            )
        except InvalidInputError as error:
            raise CircuitRefused(error.field, error.problem, error.mend) from error
        except sandbox.NativeCallFailed as error:
            if error.kind in ("timeout", "memory", "crash", "cancelled"):
                raise ProverFailed(f"{function} of {name}", error.kind, error.message) from error
            mend = "see which operators the prover supports, or cut the model elsewhere"
            raise CircuitRefused(name, f"the prover refused to {function} it ({error.message})", mend) from error

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
        """Choose settings; see :meth:`Prover.tune <offchain.proving.port.Prover.tune>`."""
        from offchain.tuning.tune import tune

        return tune(
            self,
            segments,
            calibration,
            kinds=kinds,
            max_log_rows=max_log_rows,
            max_drift=max_drift,
            scales=scales,
            column_blocks=column_blocks,
            checks_products=checks_products,
        )

    def build(
        self, onnx: bytes, settings: bytes, srs: Srs, *, input_bound: float | None = None, name: str = "segment"
    ) -> SegmentCircuit:
        """Compile a segment and make its keys, once per cache."""
        summary = read_settings(settings, name)
        check_srs(srs, summary.log_rows)

        def make(directory: Path) -> None:
            circuit_files = {
                "onnx": directory / "model.onnx",
                "settings": directory / "settings.json",
                "compiled": directory / "circuit.ezkl",
                "vk": directory / "vk.key",
                "pk": directory / "pk.key",
                "verifier": directory / "verifier.sol",
            }
            circuit_files["onnx"].write_bytes(onnx)
            circuit_files["settings"].write_bytes(settings)
            payload = {key: str(path) for key, path in circuit_files.items()} | {
                "srs": str(srs.path),
                "name": name,
            }
            description = self.call("build", payload, self.limits.build_seconds, name)
            (directory / "description.json").write_text(json.dumps(description, sort_keys=True))

        entry = self.cache.get_or_make(BUILD_FORMAT, self._build_inputs(onnx, settings, srs), make)
        description = json.loads((entry / "description.json").read_text())
        return SegmentCircuit(
            directory=entry,
            srs=srs,
            vk_digest=bytes.fromhex(description["vk_digest"]),
            input_kind=summary.input_kind,
            output_kind=summary.output_kind,
            input_scale=summary.input_scale,
            output_scale=summary.output_scale,
            input_shape=tuple(description["input_shape"]),
            output_shape=tuple(description["output_shape"]),
            log_rows=summary.log_rows,
            rows=summary.rows,
            proof_bytes=description["proof_bytes"],
            instance_count=description["instance_count"],
            commitment_probe=bytes.fromhex(description["commitment_probe"]),
            input_bound=input_bound,
        )

    def _build_inputs(self, onnx: bytes, settings: bytes, srs: Srs) -> dict[str, str | int]:
        return {
            "tool": self.version,
            "onnx": hashlib.sha256(onnx).hexdigest(),
            "settings": hashlib.sha256(settings).hexdigest(),
            "srs": srs.digest.hex(),
        }

    def rederive_vk(self, onnx: bytes, settings: bytes, srs: Srs, *, name: str = "segment") -> bytes:
        """Compile again from nothing, never from the cache, and return the verification key's SHA-256."""
        check_srs(srs, read_settings(settings, name).log_rows)
        with tempfile.TemporaryDirectory() as directory:
            paths = Path(directory) / "model.onnx", Path(directory) / "settings.json"
            for path, content in zip(paths, (onnx, settings), strict=True):
                path.write_bytes(content)
            payload = {"onnx": str(paths[0]), "settings": str(paths[1]), "srs": str(srs.path)}
            answer = self.call("derive_key", payload, self.limits.build_seconds, name)
        return bytes.fromhex(answer["vk_digest"])

    def commit(self, elements: Sequence[int], circuit: SegmentCircuit) -> bytes:
        """Return the 64-byte KZG commitment that proofs of this circuit carry for these elements."""
        _check_field("elements", elements)
        answer = self.call(
            "commit", _files(circuit) | {"elements": list(elements)}, self.limits.witness_seconds, "elements"
        )
        return bytes.fromhex(answer["commitment"])

    def commit_under(self, elements: Sequence[int], verifying_key: VerifyingKey, srs: Srs) -> bytes:
        """Return the same commitment as :meth:`commit`, for whoever holds the verification key but not the circuit."""
        _check_field("elements", elements)
        with tempfile.TemporaryDirectory() as directory:
            settings, key = Path(directory) / "settings.json", Path(directory) / "vk.key"
            settings.write_bytes(verifying_key.settings)
            key.write_bytes(verifying_key.key)
            payload = {"settings": str(settings), "vk": str(key), "srs": str(srs.path), "elements": list(elements)}
            answer = self.call("commit", payload, self.limits.witness_seconds, "elements")
        return bytes.fromhex(answer["commitment"])

    def witness(self, circuit: SegmentCircuit, elements: Sequence[int], *, name: str = "segment") -> Witness:
        """Execute a segment exactly."""
        check_input(circuit, elements, f"{name}.input")
        payload = _files(circuit) | {"elements": list(elements)}
        try:
            answer = self.call("witness", payload, self.limits.witness_seconds, name)
        except CircuitRefused as error:
            raise _out_of_range(name, error.problem) from error
        return Witness(
            document=answer["document"].encode(),
            outputs=tuple(answer["outputs"]),
            input_commitment=_read_link(circuit.input_kind, answer["input_link"]),
            output_commitment=_read_link(circuit.output_kind, answer["output_link"]),
        )

    def activations(
        self, circuits: Sequence[SegmentCircuit], batch: Sequence[Sequence[int]]
    ) -> tuple[tuple[tuple[int, ...], ...], ...]:
        """Execute a chain on many inputs: for each input, the output elements of each segment in order."""
        for index, elements in enumerate(batch):
            check_input(circuits[0], elements, f"input[{index}]")
        answer = self.run_chain([circuit.compiled for circuit in circuits], batch)
        _check_ran(answer)
        return tuple(tuple(tuple(outputs) for outputs in sample) for sample in answer["activations"])

    def closing_links(
        self, circuits: Sequence[SegmentCircuit], batch: Sequence[Sequence[int]]
    ) -> tuple[tuple[Link, ...], ...]:
        """Execute a chain on many inputs: for each input, the closing link of each segment in order."""
        for index, elements in enumerate(batch):
            check_input(circuits[0], elements, f"input[{index}]")
        payload = {
            "compiled": [str(circuit.compiled) for circuit in circuits],
            "keys": [{"vk": str(circuit.vk), "srs": str(circuit.srs.path)} for circuit in circuits],
            "batch": [list(elements) for elements in batch],
        }
        try:
            answer = self.call("run_chain", payload, self.limits.witness_seconds * max(1, len(batch)), "model")
        except CircuitRefused as error:  # a panic, which is how the tool refuses some inputs
            raise _out_of_range("model", error.problem) from error
        _check_ran(answer)
        return tuple(
            tuple(
                link_of(circuit.output_kind, _read_link(circuit.output_kind, link), outputs)
                for circuit, link, outputs in zip(circuits, links, activations, strict=True)
            )
            for links, activations in zip(answer["links"], answer["activations"], strict=True)
        )

    def run_chain(self, compiled: Sequence[Path], batch: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Execute compiled segments in order; see :func:`offchain.proving.native.run_chain`."""
        payload = {"compiled": [str(path) for path in compiled], "batch": [list(elements) for elements in batch]}
        return self.call("run_chain", payload, self.limits.witness_seconds, "model")

    def prove(self, circuit: SegmentCircuit, witness: Witness, *, name: str = "segment") -> Proof:
        """Prove, and check the proof before it is returned."""
        payload = _proving_files(circuit) | {"witness": witness.document.decode()}
        return _read_proof(circuit, self.call("prove", payload, self.limits.prove_seconds, name), name)

    def prove_elements(
        self,
        circuit: SegmentCircuit,
        elements: Sequence[int],
        *,
        name: str = "segment",
        cancellation: sandbox.Cancellation | None = None,
    ) -> Proof:
        """Execute and prove in one native call; see :meth:`witness` and :meth:`prove`.

        Args:
            cancellation: ends the call early, with ProverFailed.
        """
        check_input(circuit, elements, f"{name}.input")
        payload = _proving_files(circuit) | {"elements": list(elements)}
        seconds = self.limits.witness_seconds + self.limits.prove_seconds
        answer = self.call("prove_elements", payload, seconds, name, cancellation)
        if "out_of_range" in answer:
            raise _out_of_range(name, answer["out_of_range"])
        return _read_proof(circuit, answer, name)

    def verify(self, verifying_key: VerifyingKey, srs: Srs, proof: Proof) -> None:
        """Accept in silence."""
        _check_form(verifying_key.proof_bytes, verifying_key.instance_count, proof)
        if not srs.path.is_file():
            raise InvalidInputError("srs", f"no file at {srs.path}", "fetch it or make it")
        with tempfile.TemporaryDirectory() as directory:
            settings, key = Path(directory) / "settings.json", Path(directory) / "vk.key"
            settings.write_bytes(verifying_key.settings)
            key.write_bytes(verifying_key.key)
            payload = {
                "settings": str(settings),
                "vk": str(key),
                "srs": str(srs.path),
                "proof": proof.proof.hex(),
                "instances": list(proof.instances),
            }
            try:
                refusal = self.call("verify", payload, self.limits.verify_seconds, "proof")["refusal"]
            except CircuitRefused as error:  # a panic: whatever broke, it did not verify
                raise ProofRejected(error.problem) from error
        if refusal:
            raise ProofRejected(refusal)

    def solidity_verifier(self, circuit: SegmentCircuit, contract_name: str) -> str:
        """Return the source of a contract that verifies this circuit's proofs on chain."""
        if not _CONTRACT_NAME.fullmatch(contract_name):
            raise InvalidInputError("contract_name", f"{contract_name!r} is no contract name", "use CapWords")
        source = circuit.verifier_source.read_text()
        renamed, count = re.subn(r"\bHalo2Verifier\b", contract_name, source)
        if count != 1:
            raise CircuitRefused("verifier", f"{count} contracts named Halo2Verifier", "check the version of the tool")
        header = f"// Generated by {self.version}; never edit.\n// Verification key: sha256 {circuit.vk_digest.hex()}\n"
        licence, _, rest = renamed.partition("\n")
        return f"{licence}\n{header}{rest}"


def check_input(circuit: SegmentCircuit, elements: Sequence[int], field: str) -> None:
    """Refuse elements that the segment's circuit was never meant to take.

    Raises:
        InvalidInputError: the number of elements is wrong, or one is outside the field.
        InputOutOfRange: one is over the circuit's ``input_bound``, or beyond the tool's integers.
    """
    if len(elements) != circuit.input_elements:
        mend = f"give a tensor of shape {circuit.input_shape}"
        raise InvalidInputError(field, f"{len(elements)} values instead of {circuit.input_elements}", mend)
    _check_field(field, elements)
    for index, element in enumerate(elements):
        # Circuits do not check this where the input is committed to, and the tool computes in 128-bit integers.
        if abs(signed(element)) >> MAX_ELEMENT_BITS:
            mend = "send the elements exactly as the segment before put them out"
            raise InputOutOfRange(f"{field}[{index}]", f"over {MAX_ELEMENT_BITS} bits", mend)
    if circuit.input_bound is None:
        return
    for index, element in enumerate(elements):
        value = signed(element) / (1 << circuit.input_scale)
        if abs(value) > circuit.input_bound:
            problem = f"{value:g} is outside ±{circuit.input_bound:g}"
            raise InputOutOfRange(f"{field}[{index}]", problem, "scale inputs as the model's calibration data was")


def check_srs(srs: Srs, log_rows: int) -> None:
    """Refuse an SRS that is too small, or is not the file that it was."""
    if srs.log_rows < log_rows:
        raise InvalidInputError("srs", f"serves log-rows {srs.log_rows}, not {log_rows}", "give a larger SRS")
    if not srs.path.is_file():
        raise InvalidInputError("srs", f"no file at {srs.path}", "fetch it or make it")


def _check_field(field: str, elements: Sequence[int]) -> None:
    for index, element in enumerate(elements):
        if not 0 <= element < FIELD_MODULUS:
            raise InvalidInputError(f"{field}[{index}]", "not a field element", "quantise the values first")


def _check_form(proof_bytes: int, instance_count: int, proof: Proof) -> None:
    if len(proof.proof) != proof_bytes:
        raise ProofRejected(f"{len(proof.proof)} proof bytes instead of {proof_bytes}")
    if len(proof.instances) != instance_count:
        raise ProofRejected(f"{len(proof.instances)} instances instead of {instance_count}")
    if not all(0 <= element < FIELD_MODULUS for element in proof.instances):
        raise ProofRejected("an instance is not below the field modulus")


def _files(circuit: SegmentCircuit) -> dict[str, Any]:
    return {
        "compiled": str(circuit.compiled),
        "settings": str(circuit.settings),
        "vk": str(circuit.vk),
        "srs": str(circuit.srs.path),
    }


def _proving_files(circuit: SegmentCircuit) -> dict[str, Any]:
    return _files(circuit) | {"pk": str(circuit.pk)}


def _read_proof(circuit: SegmentCircuit, answer: dict[str, Any], name: str) -> Proof:
    proof = Proof(bytes.fromhex(answer["proof"]), tuple(answer["instances"]))
    _check_form(circuit.proof_bytes, circuit.instance_count, proof)
    if answer["refusal"]:
        raise ProofRejected(f"{name}: the witness does not satisfy the circuit ({answer['refusal']})")
    return proof


def _out_of_range(name: str, problem: str) -> InputOutOfRange:
    mend = "use inputs like the calibration data, or calibrate on wider ones and register again"
    return InputOutOfRange(name, f"a value leaves the circuit's range ({problem})", mend)


def _check_ran(answer: dict[str, Any]) -> None:
    """Refuse what :func:`offchain.proving.native.run_chain` could not execute."""
    if "failed" in answer:
        failed = answer["failed"]
        raise _out_of_range(f"segment[{failed['segment']}]", f"input {failed['sample']}: {failed['message']}")


def _read_link(kind: LinkKind, link: dict[str, str] | None) -> bytes | None:
    if kind is LinkKind.KZG and link:
        return decompress(bytes.fromhex(link["compressed"]))
    if kind is LinkKind.POSEIDON and link:
        return bytes.fromhex(link["hash"])
    return None

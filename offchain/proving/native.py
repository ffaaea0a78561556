"""The calls into ezkl. Everything here runs in a child process of :mod:`offchain.sandbox`, and only there.

Each function takes and returns a JSON object. Paths are absolute; field elements are integers.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offchain.errors import InvalidInputError
from offchain.proving.settings import canonical_settings

ezkl: Any = importlib.import_module("ezkl")  # the type stubs that it ships are out of date

REFUSED_MEND = "see which operators the prover supports, or cut the model elsewhere"
_BYTES = 32
_PROOF_LENGTH = re.compile(r"eq\(0x([0-9a-f]+), proof\.length\)")
_INSTANCE_COUNT = re.compile(r"mstore\(0x[0-9a-f]+, 0x([0-9a-f]{64})\) // num_instances")

Payload = dict[str, Any]


def describe(payload: Payload) -> Payload:
    """Check untrusted ONNX files and return the shapes of the one input and the one output of each."""
    from offchain.inference.onnx_model import input_shape, load_model, output_shape

    shapes = []
    for path, name in zip(payload["onnx"], payload["names"], strict=True):
        try:
            model = load_model(Path(path).read_bytes())
        except InvalidInputError as error:
            raise InvalidInputError(f"{name}.{error.field}", error.problem, error.mend) from error
        shapes.append({"input_shape": list(input_shape(model)), "output_shape": list(output_shape(model))})
    return {"shapes": shapes}


def generate_settings(payload: Payload) -> Payload:
    """Generate canonical settings for several pairs of a model and a choice of parameters.

    A job that ``follows`` takes its input at the scale at which the job before it puts out.
    """
    settings: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        target = os.path.join(directory, "settings.json")
        for job in payload["jobs"]:
            arguments = dict(job["run_args"])
            if job.get("follows"):
                [arguments["input_scale"]] = json.loads(settings[-1])["model_output_scales"]
            with _blame(job["name"], "lay it out"):
                ezkl.gen_settings(job["onnx"], target, _run_args(arguments))
            settings.append(canonical_settings(Path(target).read_bytes()).decode())
    return {"settings": settings}


def try_settings(payload: Payload) -> Payload:
    """Do what :func:`generate_settings` does, but let a refusal of one pair stand for it: one answer per pair."""
    answers = []
    for job in payload["jobs"]:
        try:
            answers.append({"settings": generate_settings({"jobs": [job]})["settings"][0]})
        except InvalidInputError as error:
            answers.append({"refusal": error.problem})
    return {"answers": answers}


def node_tables(payload: Payload) -> Payload:
    """Return the tool's table of a circuit's operations, for several pairs of a model and a choice of parameters."""
    tables = []
    for job in payload["jobs"]:
        with _blame(job["name"], "list its operations"):
            tables.append(ezkl.table(job["onnx"], _run_args(job["run_args"])))
    return {"tables": tables}


def _run_args(arguments: dict[str, Any]) -> Any:
    run_args = ezkl.PyRunArgs()
    for name, value in arguments.items():
        setattr(run_args, name, tuple(value) if isinstance(value, list) else value)
    return run_args


@contextmanager
def _blame(name: str, what: str) -> Iterator[None]:
    """Turn whatever the tool raises about one of several segments into an error that names it."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # its panics are no Exceptions
        problem = f"the prover cannot {what} ({type(error).__name__}: {error})"[:500]
        raise InvalidInputError(name, problem, REFUSED_MEND) from error


def build(payload: Payload) -> Payload:
    """Compile, make both keys and the Solidity verifier, and read what the verifier insists on."""
    [shapes] = describe({"onnx": [payload["onnx"]], "names": [payload["name"]]})["shapes"]
    ezkl.compile_circuit(payload["onnx"], payload["compiled"], payload["settings"])
    ezkl.setup(payload["compiled"], payload["vk"], payload["pk"], payload["srs"])
    source = _generate_verifier(payload)
    found = _PROOF_LENGTH.search(source), _INSTANCE_COUNT.search(source)
    if not all(found):
        raise RuntimeError("the generated verifier does not say what length of proof it takes")
    proof_length, instance_count = (int(match[1], 16) for match in found if match)
    return {
        "vk_digest": hashlib.sha256(Path(payload["vk"]).read_bytes()).hexdigest(),
        "proof_bytes": proof_length,
        "instance_count": instance_count,
        "commitment_probe": commit({**payload, "elements": [0]})["commitment"],
        **shapes,
    }


def _generate_verifier(payload: Payload) -> str:
    async def generate() -> None:
        with tempfile.TemporaryDirectory() as directory:
            abi = os.path.join(directory, "abi.json")
            await ezkl.create_evm_verifier(payload["vk"], payload["settings"], payload["verifier"], abi, payload["srs"])

    try:
        asyncio.run(generate())
    except RuntimeError as error:
        # It writes the source, then fails to fetch a compiler, which we neither need nor want.
        if "svm error" not in str(error) or not os.path.exists(payload["verifier"]):
            raise
    return Path(payload["verifier"]).read_text()


def derive_key(payload: Payload) -> Payload:
    """Compile and set up from nothing; return the verification key's digest only."""
    with tempfile.TemporaryDirectory() as directory:
        compiled, vk, pk = (os.path.join(directory, name) for name in ("compiled", "vk", "pk"))
        ezkl.compile_circuit(payload["onnx"], compiled, payload["settings"])
        ezkl.setup(compiled, vk, pk, payload["srs"])
        return {"vk_digest": hashlib.sha256(Path(vk).read_bytes()).hexdigest()}


def generate_srs(payload: Payload) -> Payload:
    """Make an SRS whose secret this process knew for a moment."""
    ezkl.gen_srs(payload["srs"], payload["log_rows"])
    return {}


def commit(payload: Payload) -> Payload:
    """Return the KZG commitment ``x || y`` of field elements under a verification key."""
    points = ezkl.kzg_commit(_felts(payload["elements"]), payload["vk"], payload["settings"], payload["srs"])
    if len(points) != 1:
        raise RuntimeError(f"the elements fill {len(points)} columns; a link holds one")
    return {"commitment": "".join(bytes.fromhex(word)[::-1].hex() for word in (points[0].x, points[0].y))}


def witness(payload: Payload) -> Payload:
    """Execute one segment and return the native witness with its commitments."""
    with tempfile.TemporaryDirectory() as directory:
        document = _execute(payload, payload["elements"], directory)
    parsed = json.loads(document)
    return {
        "document": document,
        "outputs": _integers(parsed["outputs"]),
        "input_link": _link(parsed["processed_inputs"]),
        "output_link": _link(parsed["processed_outputs"]),
    }


def run_chain(payload: Payload) -> Payload:
    """Execute a chain of compiled segments on many inputs.

    With ``keys``, the ``vk`` and ``srs`` of each segment, its outputs are committed to as well.

    Returns:
        ``activations``: for each input the outputs of each segment, and ``links``, the same for its commitments; or
        ``failed``: the index of the ``segment`` and of the ``sample``, and the ``message``.
    """
    activations, links = [], []
    keys = payload.get("keys") or [{}] * len(payload["compiled"])
    with tempfile.TemporaryDirectory() as directory:
        for sample, elements in enumerate(payload["batch"]):
            outputs, closings = [], []
            for segment, (compiled, key) in enumerate(zip(payload["compiled"], keys, strict=True)):
                try:
                    document = json.loads(_execute({"compiled": compiled, **key}, elements, directory))
                except RuntimeError as error:
                    return {"failed": {"segment": segment, "sample": sample, "message": str(error)}}
                elements = _integers(document["outputs"])
                outputs.append(elements)
                closings.append(_link(document["processed_outputs"]))
            activations.append(outputs)
            links.append(closings)
    return {"activations": activations, "links": links}


def try_chain(payload: Payload) -> Payload:
    """Compile a chain and execute it; returns what :func:`run_chain` does."""
    with tempfile.TemporaryDirectory() as directory:
        compiled = []
        for segment, (onnx, settings) in enumerate(zip(payload["onnx"], payload["settings"], strict=True)):
            source, target = (os.path.join(directory, f"{segment}.{kind}") for kind in ("json", "ezkl"))
            Path(source).write_text(settings)
            with _blame(payload["names"][segment], "compile it"):
                ezkl.compile_circuit(onnx, target, source)
            compiled.append(target)
        return run_chain({"compiled": compiled, "batch": payload["batch"]})


def _execute(payload: Payload, elements: list[int], directory: str) -> str:
    source, target = os.path.join(directory, "input.json"), os.path.join(directory, "witness.json")
    # Exact elements, as little-endian hexadecimal: floats would be rounded again.
    Path(source).write_text(json.dumps({"input_data": [_felts(elements)]}))
    ezkl.gen_witness(source, payload["compiled"], target, payload.get("vk"), payload.get("srs"))
    return Path(target).read_text()


def prove(payload: Payload) -> Payload:
    """Prove a witness, then verify: proving does not check the witness, nor that the SRS is the key's own."""
    with tempfile.TemporaryDirectory() as directory:
        source, target = os.path.join(directory, "witness.json"), os.path.join(directory, "proof.json")
        Path(source).write_text(payload["witness"])
        ezkl.prove(source, payload["compiled"], payload["pk"], target, payload["srs"])
        document = json.loads(Path(target).read_text())
        verdict = _verify_file(target, payload)
    if len(document["instances"]) > 1:
        raise RuntimeError(f"the proof has {len(document['instances'])} instance columns; one is supported")
    return {
        "proof": bytes(document["proof"]).hex(),
        "instances": _integers(document["instances"]),
        "refusal": verdict,
    }


def prove_elements(payload: Payload) -> Payload:
    """Execute and prove: one child, and one import of the tool, instead of two.

    Returns:
        As :func:`prove`; or ``out_of_range``, the message, if the circuit cannot take the elements.
    """
    with tempfile.TemporaryDirectory() as directory:
        try:
            document = _execute(payload, payload["elements"], directory)
        except MemoryError:
            raise
        except BaseException as error:  # PanicException derives from BaseException
            return {"out_of_range": f"{type(error).__name__}: {error}"}
    return prove(payload | {"witness": document})


def measure_proof(payload: Payload) -> Payload:
    """Execute and prove, and return the seconds of the proof alone and the peak memory of this process."""
    with tempfile.TemporaryDirectory() as directory:
        source, target = os.path.join(directory, "source.json"), os.path.join(directory, "proof.json")
        Path(source).write_text(_execute(payload, payload["elements"], directory))
        started = time.perf_counter()
        ezkl.prove(source, payload["compiled"], payload["pk"], target, payload["srs"])
        seconds = time.perf_counter() - started
    # Not ru_maxrss, which starts from the parent's peak because it survives exec.
    [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return {"seconds": seconds, "peak_bytes": int(peak.split()[1]) << 10}


def verify(payload: Payload) -> Payload:
    """Verify a proof. The file that the tool reads is written here, from the two fields that it authenticates."""
    with tempfile.TemporaryDirectory() as directory:
        target = os.path.join(directory, "proof.json")
        document = {"instances": [_felts(payload["instances"])], "proof": list(bytes.fromhex(payload["proof"]))}
        Path(target).write_text(json.dumps(document))
        return {"refusal": _verify_file(target, payload)}


def _verify_file(proof: str, payload: Payload) -> str | None:
    try:
        accepted = ezkl.verify(proof, payload["settings"], payload["vk"], payload["srs"])
    except RuntimeError as error:
        return str(error) or "refused"
    return None if accepted is True else "refused"


def float_outputs(payload: Payload) -> Payload:
    """Execute a chain of ONNX segments in floating point, as the reference for drift."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    tensors = [np.asarray(values, dtype=np.float32) for values in payload["batch"]]
    for index, path in enumerate(payload["onnx"]):
        try:
            session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            entry = session.get_inputs()[0]
            shape = tuple(payload["input_shapes"][index])
            tensors = [session.run(None, {entry.name: tensor.reshape(shape)})[0] for tensor in tensors]
        except Exception as error:  # onnxruntime's exceptions share no class of their own
            message = str(error).splitlines()[0][:300]
            raise InvalidInputError(f"segment[{index}]", message, "check the model and its input shape") from error
    return {"outputs": [tensor.ravel().tolist() for tensor in tensors]}


def _felts(elements: list[int]) -> list[str]:
    return [element.to_bytes(_BYTES, "little").hex() for element in elements]


def _integers(columns: list[list[str]]) -> list[int]:
    return [int.from_bytes(bytes.fromhex(felt), "little") for column in columns for felt in column]


def _link(processed: dict[str, Any] | None) -> dict[str, str] | None:
    if processed is None:
        return None
    if processed["polycommit"]:
        [[compressed]] = processed["polycommit"]
        return {"compressed": compressed}
    if processed["poseidon_hash"]:
        [felt] = processed["poseidon_hash"]
        return {"hash": bytes.fromhex(felt)[::-1].hex()}
    return None

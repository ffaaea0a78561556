"""Runs a plan: makes every key, proves every segment, and notes what it took beside what was predicted."""

from __future__ import annotations

from collections.abc import Sequence

from offchain.errors import InvalidInputError
from offchain.planning.plan import Measured, Plan
from offchain.protocol.field import quantise
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import ProofRejected, SegmentCircuit, Srs
from offchain.sandbox import NativeCallFailed, run_measured


def measure_plan(prover: EzklProver, plan: Plan, srs: Srs, values: Sequence[float]) -> tuple[Measured, ...]:
    """Prove all segments of a plan of a whole model, one after another, each alone on this machine.

    Args:
        values: one input of the model, flat.

    Raises:
        InvalidInputError: the plan is not of a whole model.
        NativeCallFailed: a proof ran out of time or memory.
    """
    if not plan.is_whole:
        raise InvalidInputError("plan", "it is not of the whole model", "measure a model that can be proved whole")
    elements = list(quantise(values, plan.fixed_point.input_scale))
    measured = []
    for index, (onnx, settings) in enumerate(zip(plan.segments, plan.settings, strict=True)):
        name = f"segment[{index}]"
        circuit = prover.build(onnx, settings, srs, name=name)
        witness = prover.witness(circuit, elements, name=name)
        measured.append(_prove(prover, circuit, witness.document.decode(), name))
        elements = list(witness.outputs)
    return tuple(measured)


def _prove(prover: EzklProver, circuit: SegmentCircuit, witness: str, name: str) -> Measured:
    try:
        run = run_measured(
            "offchain.planning.measuring:prove_payload",
            {
                "compiled": str(circuit.compiled),
                "settings": str(circuit.settings),
                "vk": str(circuit.vk),
                "pk": str(circuit.pk),
                "srs": str(circuit.srs.path),
                "witness": witness,
            },
            timeout_seconds=prover.limits.prove_seconds,
            memory_bytes=prover.limits.memory_bytes,
        )
    except NativeCallFailed as error:
        raise NativeCallFailed(f"proving {name}", error.kind, error.message) from error
    if run.result["refusal"]:
        raise ProofRejected(f"{name}: {run.result['refusal']}")
    return Measured(run.result["seconds"], run.peak_memory_bytes)


def prove_payload(payload: dict[str, str]) -> dict[str, object]:
    """Serve :func:`measure_plan` in the child: only proving itself is timed, not the start of the child."""
    import tempfile
    import time
    from pathlib import Path

    from offchain.proving.native import ezkl

    with tempfile.TemporaryDirectory() as directory:
        witness, proof = Path(directory) / "witness.json", Path(directory) / "proof.json"
        witness.write_text(payload["witness"])
        started = time.monotonic()
        ezkl.prove(str(witness), payload["compiled"], payload["pk"], str(proof), payload["srs"])
        seconds = time.monotonic() - started
        try:
            ezkl.verify(str(proof), payload["settings"], payload["vk"], payload["srs"])
        except RuntimeError as error:
            return {"seconds": seconds, "refusal": str(error) or "refused"}
    return {"seconds": seconds, "refusal": ""}

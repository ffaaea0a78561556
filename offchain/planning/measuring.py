"""Runs a plan: makes every key, proves every segment, and notes what it took beside what was predicted."""

from __future__ import annotations

from collections.abc import Sequence

from offchain.errors import InvalidInputError
from offchain.planning.plan import Measured, Plan
from offchain.protocol.field import quantise
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Srs


def measure_plan(prover: EzklProver, plan: Plan, srs: Srs, values: Sequence[float]) -> tuple[Measured, ...]:
    """Prove all segments of a plan of a whole model, one after another, each alone on this machine.

    Args:
        values: one input of the model, flat.

    Raises:
        InvalidInputError: the plan is not of the whole model.
        ProverFailed: a proof ran out of time or memory.
    """
    if not plan.is_whole:
        raise InvalidInputError("plan", "it is not of the whole model", "measure a model that can be proved whole")
    elements = list(quantise(values, plan.fixed_point.input_scale))
    measured = []
    for index, (onnx, settings) in enumerate(zip(plan.segments, plan.settings, strict=True)):
        name = f"segment[{index}]"
        circuit = prover.build(onnx, settings, srs, name=name)
        payload = {
            "compiled": str(circuit.compiled),
            "pk": str(circuit.pk),
            "vk": str(circuit.vk),
            "srs": str(srs.path),
            "elements": elements,
        }
        run = prover.call("measure_proof", payload, prover.limits.prove_seconds, name)
        measured.append(Measured(run["seconds"], run["peak_bytes"]))
        elements = list(prover.witness(circuit, elements, name=name).outputs)
    return tuple(measured)

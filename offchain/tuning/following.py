"""Settings as a plan says: generated anew, and refused unless they are what it says and do what they must.

A plan may come from anybody. Of what it says only cuts, links, scales and sizes are taken; what the circuits are like,
which values they hold, how far they are off and whether they leave the prover a choice is found out here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.planning.costs import MAX_VERIFIER_BYTES, verifier_bytes
from offchain.planning.document import PlannedModel
from offchain.proving.boundary import check_ends
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import CircuitRefused, Drift, FixedPoint, Tuning
from offchain.proving.settings import SettingsSummary, read_settings
from offchain.tuning.chain import (
    Chain,
    Ends,
    Layout,
    Plan,
    Reals,
    flatten_samples,
    input_bound,
    usable_rows,
    wide_samples,
)
from offchain.tuning.exactness import ambiguities_of
from offchain.tuning.shape import shape_of
from offchain.tuning.tune import MAX_DRIFT_SAMPLES, describe_tuning, drift_of

_AT = "plan.plans[0]"
_AGAIN = "plan this model again, with --calibration and --heldout"


def follow_plan(
    prover: EzklProver,
    segments: Sequence[bytes],
    plan: PlannedModel,
    calibration: Samples,
    heldout: Samples | None = None,
    *,
    max_drift: float = 0.05,
) -> Tuning:
    """Make settings as a plan says, and try them.

    Args:
        segments: ONNX files, of the model cut at the plan's cuts.
        calibration: the circuits must hold these inputs doubled.
        heldout: on these the drift is bounded; on the calibration inputs if None.

    Raises:
        InvalidInputError: naming the plan's field that does not hold, or ``max_drift``.
        CircuitRefused: a segment cannot be laid out so.
    """
    if len(segments) != len(plan.segments):
        problem = f"they make {len(segments)} segments, and the plan has {len(plan.segments)}"
        raise InvalidInputError(f"{_AT}.cuts", problem, _AGAIN)
    with tempfile.TemporaryDirectory() as scratch:
        chain = Chain(prover, segments, Path(scratch), plan.kinds)
        settled = _settle(chain, plan)
        samples = flatten_samples(calibration.inputs, chain.shapes[0][0])
        bound = input_bound(samples)
        failed = chain.run(settled, wide_samples(samples, bound)).get("failed")
        if failed is not None:
            problem = f"a calibration input, doubled, leaves the range ({failed['message']})"
            raise InvalidInputError(f"{_AT}.segments[{failed['segment']}].legs", problem, _AGAIN)
        ambiguities = ambiguities_of(prover, chain.segments, settled.settings)
        for index, (segment, found) in enumerate(zip(plan.segments, ambiguities, strict=True)):
            if segment.is_called_exact and found:
                problem = f"it names none, and its circuit has: {'; '.join(found)}"
                raise InvalidInputError(f"{_AT}.segments[{index}].ambiguities", problem, _AGAIN)
        kept = samples
        if heldout is not None:
            kept = flatten_samples(heldout.inputs, chain.shapes[0][0], "heldout")
        drift = _drift(chain, settled, kept[:MAX_DRIFT_SAMPLES], bound)
        if drift.relative > max_drift:
            problem = f"the plan's fixed point is off by {drift.relative:.4g}, over {max_drift:g}"
            raise InvalidInputError("max_drift", problem, "allow more drift, or plan with less")
        return describe_tuning(chain, settled, ambiguities, bound, drift, ())


def _settle(chain: Chain, plan: PlannedModel) -> Plan:
    """Generate the settings, and compare what they say with what the plan says."""
    choices = [(index, plan.parameters(index)) for index in range(len(chain))]
    settings = tuple(chain.generate(choices, chained=True))
    summaries = tuple(map(read_settings, settings, chain.names))
    for index in range(len(chain)):
        _check_segment(plan, index, settings[index], summaries[index])
    check_ends(
        [
            Ends(each.input_kind, each.output_kind, each.input_scale, each.output_scale, *shapes)
            for each, shapes in zip(summaries, chain.shapes, strict=True)
        ]
    )
    rescales = any(segment.is_rescaled for segment in plan.segments)
    fixed_point = FixedPoint(plan.fixed_point.input_scale, plan.fixed_point.param_scale, rescales)
    layouts = tuple(
        Layout(segment.log_rows, segment.legs, 1 if segment.checks_products else 2, segment.checks_products)
        for segment in plan.segments
    )
    return Plan(fixed_point, layouts, settings, summaries)


def _check_segment(plan: PlannedModel, index: int, settings: bytes, summary: SettingsSummary) -> None:
    segment, field = plan.segments[index], f"{_AT}.segments[{index}]"
    shape = shape_of(settings)
    for name, found in (
        ("input_scale", summary.input_scale),
        ("output_scale", summary.output_scale),
        ("column_blocks", shape.column_blocks),
    ):
        if getattr(segment, name) != found:
            problem = f"it is {getattr(segment, name)}, and the circuit has {found}"
            raise InvalidInputError(f"{field}.{name}", problem, _AGAIN)
    if summary.unfolded_rows > usable_rows(segment.log_rows):
        problem = f"links take {summary.unfolded_rows} rows, and there are {usable_rows(segment.log_rows)}"
        raise InvalidInputError(f"{field}.log_rows", problem, _AGAIN)
    size = verifier_bytes(shape)
    if size > MAX_VERIFIER_BYTES:
        problem = f"its verifier has about {size} bytes, and a contract {MAX_VERIFIER_BYTES} at most"
        raise InvalidInputError(f"{field}.column_blocks", problem, _AGAIN)


def _drift(chain: Chain, plan: Plan, samples: Reals, bound: float) -> Drift:
    within = samples[np.abs(samples).max(axis=1) <= bound]
    if not len(within):
        raise InvalidInputError("heldout", "every sample is over twice the calibration's largest value", "give others")
    try:
        fixed = chain.fixed_outputs(plan, within)
    except CircuitRefused as error:
        raise InvalidInputError("heldout", f"a sample leaves the range ({error})", _AGAIN) from error
    return drift_of(fixed, chain.float_outputs(within))

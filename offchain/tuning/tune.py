"""The quick choice: the first fixed point, in order of preference, whose smallest circuits are in range and accurate.

What does not rescale comes first: its outputs are unambiguous, and it is nearly always cheaper.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from offchain.errors import InvalidInputError
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Candidate, CircuitRefused, Drift, FixedPoint, TunedSegment, Tuning
from offchain.tuning.chain import Chain, Plan, Reals, flatten_samples, input_bound, usable_rows, wide_samples
from offchain.tuning.exactness import ambiguities_of
from offchain.tuning.layout import Survey, lay_out, raise_floor

MAX_DRIFT_SAMPLES = 64


@dataclass
class _Attempts:
    """What :func:`tune` tries every fixed point with, and what came of it."""

    chain: Chain
    wide: Reals
    samples: Reals
    reference: Reals
    max_log_rows: int
    max_drift: float
    column_blocks: int
    checks_products: bool
    candidates: list[Candidate] = field(default_factory=list)


def tune(
    prover: EzklProver,
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
    with tempfile.TemporaryDirectory() as scratch:
        chain = Chain(prover, segments, Path(scratch), tuple(kinds or ()))
        samples = flatten_samples(calibration, chain.shapes[0][0])
        bound = input_bound(samples)
        kept = samples[:MAX_DRIFT_SAMPLES]
        attempts = _Attempts(
            chain,
            wide_samples(samples, bound),
            kept,
            chain.float_outputs(kept),
            max_log_rows,
            max_drift,
            column_blocks,
            checks_products,
        )
        refused: CircuitRefused | None = None
        for rescales in (False, True):
            for scale in scales:
                try:
                    found = _attempt(attempts, FixedPoint(scale, scale, rescales))
                except CircuitRefused as error:
                    attempts.candidates.append(Candidate(FixedPoint(scale, scale, rescales), (), (), str(error)))
                    refused = error
                    continue
                if found is not None:
                    plan, drift, ambiguities = found
                    return describe_tuning(chain, plan, ambiguities, bound, drift, attempts.candidates)
    if refused is not None and not any(entry.refusal.startswith("drift") for entry in attempts.candidates):
        raise refused
    tried = ", ".join(f"{entry.fixed_point}: {entry.refusal}" for entry in attempts.candidates if entry.refusal)
    raise InvalidInputError("max_drift", f"not met ({tried})", "allow more drift, or give larger scales")


def _attempt(attempts: _Attempts, fixed_point: FixedPoint) -> tuple[Plan, Drift, tuple[tuple[str, ...], ...]] | None:
    """Return the smallest plan for a fixed point, its drift and its ambiguities; None where it drifts too far."""
    chain = attempts.chain
    # With more than one inner column, the columns that check products make the verifier too large for a chain.
    survey = Survey(chain, fixed_point, 1 if attempts.checks_products else 2, attempts.checks_products)
    for index in range(len(chain)):
        if not fixed_point.rescales and survey.summary(index, 2).needs_lookups:
            problem = "a lookup table cannot hold values that were not rescaled"
            raise CircuitRefused(chain.names[index], problem, "let it rescale")
    plan = find_plan(survey, attempts.wide, attempts.max_log_rows, attempts.column_blocks, attempts.candidates)
    ambiguities = ambiguities_of(chain.prover, chain.segments, plan.settings)
    drift = drift_of(chain.fixed_outputs(plan, attempts.samples), attempts.reference)
    too_far = drift.relative > attempts.max_drift
    refusal = f"drift {drift.relative:.4g} over {attempts.max_drift:g}" if too_far else ""
    attempts.candidates.append(Candidate(fixed_point, plan.log_rows, plan.legs, refusal))
    return None if too_far else (plan, drift, ambiguities)


def find_plan(survey: Survey, wide: Reals, max_log_rows: int, column_blocks: int, candidates: list[Candidate]) -> Plan:
    """Return the smallest plan under which all wide inputs are in range, and note those under which they are not."""
    chain = survey.chain
    floors, refusal = list(survey.floors()), ""
    while True:
        layouts = lay_out(survey, floors, max_log_rows, column_blocks, refusal)
        plan = chain.plan(survey.fixed_point, layouts)
        failed = chain.run(plan, wide).get("failed")
        if failed is None:
            return plan
        at = failed["segment"]
        refusal = f"a wide input leaves the range ({failed['message']})"
        candidates.append(Candidate(survey.fixed_point, plan.log_rows, plan.legs, f"{chain.names[at]}: {refusal}"))
        floors[at] = raise_floor(plan, at)


def drift_of(fixed: Reals, reference: Reals) -> Drift:
    """Compare fixed-point outputs with floating-point ones, sample by sample."""
    largest = float(np.abs(fixed - reference).max())
    agreement = float((fixed.argmax(axis=1) == reference.argmax(axis=1)).mean())
    return Drift(largest, largest / max(float(np.abs(reference).max()), 1e-9), agreement)


def describe_tuning(
    chain: Chain,
    plan: Plan,
    ambiguities: Sequence[tuple[str, ...]],
    bound: float,
    drift: Drift,
    candidates: Sequence[Candidate],
) -> Tuning:
    """Put a choice into the words of the port."""
    segments = tuple(
        TunedSegment(
            settings=settings,
            input_scale=summary.input_scale,
            output_scale=summary.output_scale,
            log_rows=summary.log_rows,
            rows=summary.rows,
            decomposition_base=summary.decomposition_base,
            decomposition_legs=summary.decomposition_legs,
            column_blocks=math.ceil(summary.rows / usable_rows(summary.log_rows)),
            ambiguities=doubts,
            closing_link_is_unique=summary.output_kind is not LinkKind.KZG,
        )
        for settings, summary, doubts in zip(plan.settings, plan.summaries, ambiguities, strict=True)
    )
    return Tuning(segments, chain.kinds, plan.fixed_point, bound, drift, tuple(candidates))

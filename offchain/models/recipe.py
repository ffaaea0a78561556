"""What a model's owner decides: where it is cut, and how its circuits' settings come about."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.inference.untrusted import Segment, split_model
from offchain.planning.document import PlannedModel
from offchain.protocol.trials import DEFAULT_TRIALS
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import Tuning
from offchain.tuning.batches import tune_either
from offchain.tuning.bound import AccuracyBound
from offchain.tuning.following import follow_plan
from offchain.tuning.machine import MachineModel
from offchain.tuning.search import autotune


@dataclass(frozen=True)
class Recipe:
    """What the owner decides.

    Args:
        name: what the model is called.
        segments: into how many segments to cut, or
        cuts: at which tensors, or
        plan: where to cut, how to link and which circuits to make.
        max_log_rows: the largest circuit that the workers can prove.
        max_drift: how far the fixed-point outputs may be off, relative to the largest output.
        trials: how many questions with known answers new workers find, 0 to 256; each is used up by those who answer it
            at the same time. With none, whoever bonds may serve.
        search_seconds: how long to look for the settings that prove fastest; the first ones that fit are taken if 0.
    """

    name: str
    segments: int | None = None
    cuts: tuple[str, ...] | None = None
    max_log_rows: int = 17
    max_drift: float = 0.05
    trials: int = DEFAULT_TRIALS
    plan: PlannedModel | None = None
    search_seconds: int = 0


def cut(model: bytes, recipe: Recipe) -> tuple[Segment, ...]:
    """Cut a model as its owner decided.

    Raises:
        InvalidInputError: it cannot be cut so; of a plan, ``plan.plans[0].cuts[..]`` is named.
    """
    return cut_model(model, recipe.segments, recipe.cuts, recipe.plan)


def cut_model(
    model: bytes, segments: int | None, cuts: tuple[str, ...] | None, plan: PlannedModel | None
) -> tuple[Segment, ...]:
    """Cut a model into so many segments, at these tensors, or as a plan says; see :func:`cut`."""
    if plan is None:
        return split_model(model, cuts=cuts, segments=segments)
    try:
        products = [segment.checks_products for segment in plan.segments]
        return split_model(model, cuts=plan.cuts, products=products, groups=plan.channel_groups)
    except InvalidInputError as error:
        if error.field.startswith(("cuts", "groups")):
            field = error.field.replace("groups", "channel_groups")
            raise InvalidInputError(f"plan.plans[0].{field}", error.problem, error.mend) from error
        raise


def choose_settings(
    segments: Sequence[bytes],
    recipe: Recipe,
    calibration: Samples,
    heldout: Samples | None,
    prover: EzklProver,
    batch: int = 1,
) -> Tuning:
    """Choose the settings of a model's segments: as planned, the fastest of a search, or the first that fit.

    Args:
        batch: how many inputs the segments take; products with so many rows may gain from being checked.

    Raises:
        InvalidInputError: there are none within the bound, or the plan does not hold.
    """
    if recipe.plan is not None:
        return follow_plan(prover, segments, recipe.plan, calibration, heldout, max_drift=recipe.max_drift)
    if recipe.search_seconds:
        if heldout is None:
            raise InvalidInputError("heldout", "a search bounds accuracy on held-out samples", "send some")
        return _search(segments, recipe, calibration, heldout, prover)
    tune = prover.tune if batch == 1 else partial(tune_either, prover)
    return tune(segments, calibration.inputs, max_log_rows=recipe.max_log_rows, max_drift=recipe.max_drift)


def _search(
    segments: Sequence[bytes], recipe: Recipe, calibration: Samples, heldout: Samples, prover: EzklProver
) -> Tuning:
    """Search for circuits of one output each, and only where there are none, in what time is left, for others."""
    machine = MachineModel.load_or_measure(prover)
    deadline = time.monotonic() + recipe.search_seconds
    for exact in (True, False):
        try:
            report = autotune(
                prover,
                segments,
                calibration.inputs,
                heldout,
                bound=AccuracyBound(max_drift=recipe.max_drift),
                machine=machine,
                seconds=max(1.0, (deadline - time.monotonic()) / (2 if exact else 1)),
                max_log_rows=recipe.max_log_rows,
                exact=exact,
            )
            return report.tuning
        except InvalidInputError as error:
            if not exact or error.field != "bound":
                raise
    raise AssertionError("unreachable")

"""Settings as a plan says, of two dense layers: what it says wrongly is refused by its field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.inference.untrusted import split_model
from offchain.models.recipe import Recipe, choose_settings, cut
from offchain.planning.costs import TypicalMachine
from offchain.planning.document import PlannedModel, read_plan
from offchain.planning.plan import plan_model
from offchain.planning.planner import Constraints
from offchain.planning.report import to_json
from offchain.planning.workers import WorkerClass
from offchain.protocol.links import LinkKind
from offchain.proving.ezkl_prover import EzklProver
from offchain.tuning.following import follow_plan
from tests.models import mlp

pytestmark = pytest.mark.integration

ONNX = mlp((4, 6, 3), seed=2)
SAMPLES = Samples(np.random.default_rng(2).uniform(-1.5, 1.5, size=(12, 4)).astype(np.float32), None)
HELD_OUT = Samples(np.random.default_rng(3).uniform(-1.5, 1.5, size=(12, 4)).astype(np.float32), None)
SIZES = ("log_rows", "legs", "column_blocks", "rows")


@pytest.fixture(scope="module")
def document(prover: EzklProver) -> dict[str, Any]:
    """A plan, made to cut by hand: its two segments are those of a plan whose links are public."""
    constraints = Constraints((WorkerClass(2, 12 << 30, 9),), kinds=(LinkKind.PUBLIC,), max_segments=1)
    planned = plan_model(ONNX, prover, TypicalMachine(), constraints, calibration=SAMPLES)
    written = to_json(planned)
    [part] = written["plans"]
    [only] = part["segments"]
    first = only | {"stop": 1, "output_scale": 14, "output_kind": "PUBLIC", "log_rows": 9, "column_blocks": 1}
    last = only | {"start": 1, "input_scale": 14, "output_scale": 21, "input_kind": "PUBLIC", "log_rows": 9}
    part["cuts"] = [cut_of(ONNX)]
    part["segments"] = [first | {"legs": 5}, last | {"legs": 5, "column_blocks": 1}]
    return written


def cut_of(content: bytes) -> str:
    from offchain.inference.untrusted import inspect_model

    return next(found.name for found in inspect_model(content).cuts if found.ends_layer)


Change = Callable[[dict[str, Any]], object]


def plan_of(document: dict[str, Any], change: Change = lambda part: None) -> PlannedModel:
    copied = json.loads(json.dumps(document))
    change(copied["plans"][0])
    return read_plan(json.dumps(copied).encode(), ONNX)


@pytest.fixture(scope="module")
def segments(document: dict[str, Any]) -> list[bytes]:
    plan = plan_of(document)
    return [segment.onnx for segment in cut(ONNX, Recipe("m", plan=plan))]


def at(index: int, **values: object) -> Change:
    return lambda part: part["segments"][index].update(values)


def both(*changes: Change) -> Change:
    return lambda part: [change(part) for change in changes]


def test_follow_plan__plan_that_holds__gives_settings_as_planned(
    prover: EzklProver, document: dict[str, Any], segments: Sequence[bytes]
) -> None:
    tuning = follow_plan(prover, segments, plan_of(document), SAMPLES, HELD_OUT)
    assert tuning.kinds == (LinkKind.KZG, LinkKind.PUBLIC, LinkKind.PUBLIC)
    assert [(one.input_scale, one.output_scale, one.log_rows) for one in tuning.segments] == [(7, 14, 9), (14, 21, 9)]
    assert [(one.decomposition_base, one.decomposition_legs) for one in tuning.segments] == [(256, 5)] * 2
    assert [one.ambiguities for one in tuning.segments] == [(), ()]
    assert [one.closing_link_is_unique for one in tuning.segments] == [True, True]
    assert tuning.input_bound == 2 * float(np.abs(SAMPLES.inputs).max())
    assert 0 < tuning.drift.relative < 0.05


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (both(at(0, output_scale=13), at(1, input_scale=13)), "plan.plans[0].segments[0].output_scale"),
        (at(1, output_scale=20), "plan.plans[0].segments[1].output_scale"),
        (at(1, column_blocks=2), "plan.plans[0].segments[1].column_blocks"),
        (at(0, is_rescaled=True), "plan.plans[0].segments[0].output_scale"),
        (at(1, legs=2), "plan.plans[0].segments[1].legs"),
    ],
)
def test_follow_plan__tampered__is_refused_by_field(
    prover: EzklProver, document: dict[str, Any], segments: Sequence[bytes], change: Change, field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        follow_plan(prover, segments, plan_of(document, change), SAMPLES, HELD_OUT)
    assert caught.value.field == field
    assert caught.value.mend


def test_follow_plan__rescaled_and_called_exact__is_refused_unless_it_says_so(
    prover: EzklProver, document: dict[str, Any], segments: Sequence[bytes]
) -> None:
    rescaled = both(at(0, output_scale=7), at(1, input_scale=7, output_scale=7))
    ways = both(rescaled, at(0, is_rescaled=True), at(1, is_rescaled=True))
    with pytest.raises(InvalidInputError, match="round either way") as caught:
        follow_plan(prover, segments, plan_of(document, ways), SAMPLES, HELD_OUT, max_drift=1.0)
    assert caught.value.field == "plan.plans[0].segments[0].ambiguities"
    told = both(ways, at(0, ambiguities=["rescaled"]), at(1, ambiguities=["rescaled"]))
    tuning = follow_plan(prover, segments, plan_of(document, told), SAMPLES, HELD_OUT, max_drift=1.0)
    assert not any(one.exact for one in tuning.segments)


def test_follow_plan__too_far_off__is_refused(
    prover: EzklProver, document: dict[str, Any], segments: Sequence[bytes]
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        follow_plan(prover, segments, plan_of(document), SAMPLES, HELD_OUT, max_drift=1e-6)
    assert caught.value.field == "max_drift"


def test_follow_plan__held_out_beyond_the_bound__is_refused(
    prover: EzklProver, document: dict[str, Any], segments: Sequence[bytes]
) -> None:
    far = Samples(np.full((3, 4), 50.0, dtype=np.float32), None)
    with pytest.raises(InvalidInputError) as caught:
        follow_plan(prover, segments, plan_of(document), SAMPLES, far)
    assert caught.value.field == "heldout"


def test_follow_plan__other_number_of_segments__is_refused(prover: EzklProver, document: dict[str, Any]) -> None:
    [whole] = split_model(ONNX, segments=1)
    with pytest.raises(InvalidInputError) as caught:
        follow_plan(prover, [whole.onnx], plan_of(document), SAMPLES)
    assert caught.value.field == "plan.plans[0].cuts"


def test_cut__tensor_that_is_not_there__is_refused_by_field(document: dict[str, Any]) -> None:
    nowhere = plan_of(document, lambda part: part.update(cuts=["nowhere"]))
    with pytest.raises(InvalidInputError) as caught:
        cut(ONNX, Recipe("m", plan=nowhere))
    assert caught.value.field == "plan.plans[0].cuts[0]"


def test_cut__layer_by_channels_that_is_not_there__is_refused_by_field(document: dict[str, Any]) -> None:
    nowhere = plan_of(document, lambda part: part.update(channel_groups={"nowhere": 2}))
    with pytest.raises(InvalidInputError) as caught:
        cut(ONNX, Recipe("m", plan=nowhere))
    assert caught.value.field == "plan.plans[0].channel_groups"


def test_choose_settings__plan__is_followed(
    prover: EzklProver, document: dict[str, Any], segments: Sequence[bytes]
) -> None:
    recipe = Recipe("m", plan=plan_of(document))
    tuning = choose_settings(segments, recipe, SAMPLES, None, prover)
    assert tuning.kinds[1] is LinkKind.PUBLIC


def test_choose_settings__search_without_held_out__is_refused(prover: EzklProver, segments: Sequence[bytes]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        choose_settings(segments, Recipe("m", search_seconds=5), SAMPLES, None, prover)
    assert caught.value.field == "heldout"


def test_to_json__any_plan__names_the_file_it_is_of(document: dict[str, Any]) -> None:
    assert document["model_sha256"] == hashlib.sha256(ONNX).hexdigest()

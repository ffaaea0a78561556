"""The JSON of a plan is refused by the field that is wrong, before anything is made of it."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from offchain.errors import InvalidInputError
from offchain.planning.document import MAX_PLAN_BYTES, read_plan
from offchain.protocol.links import LinkKind

pytestmark = pytest.mark.unit

MODEL = b"an ONNX file"
SEGMENT: dict[str, Any] = {
    "start": 0,
    "stop": 2,
    "is_rescaled": False,
    "input_scale": 7,
    "output_scale": 14,
    "input_kind": "KZG",
    "output_kind": "POSEIDON",
    "log_rows": 9,
    "legs": 4,
    "column_blocks": 1,
    "rows": 400,
    "prove_seconds": 0.2,
    "prove_bytes": 1 << 26,
    "input_elements": 6,
    "boundary_elements": 4,
    "gas": 700_000,
    "verifier_bytes": 14_000,
    "operators": ["Gemm", "Relu"],
    "checks_products": False,
    "ambiguities": ["KZG link"],
    "measured": None,
}
MIDDLE = SEGMENT | {"start": 2, "stop": 3, "input_scale": 14, "output_scale": 21, "input_kind": "POSEIDON"}
MIDDLE |= {"output_kind": "KZG", "log_rows": 8}
LAST = MIDDLE | {"start": 3, "stop": 5, "input_scale": 21, "output_scale": 28, "input_kind": "KZG"}
LAST |= {"output_kind": "PUBLIC"}
PLAN: dict[str, Any] = {
    "format": "interlock.plan.v1",
    "model_sha256": hashlib.sha256(MODEL).hexdigest(),
    "workers": [{"cores": 2, "memory_bytes": 12 << 30, "count": 9}],
    "plans": [
        {
            "from": "x",
            "to": "y",
            "is_whole": True,
            "cuts": ["relu0", "relu1"],
            "fixed_point": {"input_scale": 7, "param_scale": 7, "rescales": False},
            "critical_seconds": 0.3,
            "execute_seconds": 0.1,
            "prove_seconds": 0.2,
            "total_seconds": 0.6,
            "peak_bytes": 1 << 26,
            "gas": 2_100_000,
            "accuracy": None,
            "alternatives": [{"segments": 1, "prove_seconds": None, "gas": 0}],
            "segments": [SEGMENT, MIDDLE, LAST],
        }
    ],
    "unprovable": [],
}
Change = Callable[[dict[str, Any]], object]


def segment(at: int, **values: object) -> Change:
    return lambda document: document["plans"][0]["segments"][at].update(values)


def whole(**values: object) -> Change:
    return lambda document: document["plans"][0].update(values)


def changed(change: Change) -> bytes:
    document = copy.deepcopy(PLAN)
    change(document)
    return json.dumps(document).encode()


def test_read_plan__whole_model__gives_cuts_links_and_parameters() -> None:
    plan = read_plan(json.dumps(PLAN).encode(), MODEL, 9)
    assert plan.cuts == ("relu0", "relu1")
    assert plan.kinds == (LinkKind.KZG, LinkKind.POSEIDON, LinkKind.KZG, LinkKind.PUBLIC)
    first, last = plan.parameters(0), plan.parameters(2)
    assert (first.input_scale, first.param_scale, first.log_rows, first.decomposition_legs) == (7, 7, 9, 4)
    assert (first.decomposition_base, last.decomposition_base) == (256, 128)
    assert (last.input_kind, last.output_kind, last.input_scale) == (LinkKind.KZG, LinkKind.PUBLIC, 21)
    assert (first.inner_columns, first.checks_products) == (2, False)


def test_parameters__products_checked__take_one_inner_column() -> None:
    plan = read_plan(changed(segment(0, checks_products=True)), MODEL)
    assert (plan.parameters(0).inner_columns, plan.parameters(0).checks_products) == (1, True)


@pytest.mark.parametrize(
    ("ambiguities", "exact"), [([], True), (["KZG link"], True), (["rescaled"], False), (["Div", "KZG link"], False)]
)
def test_is_called_exact__link_apart__is_whether_nothing_is_named(ambiguities: list[str], exact: bool) -> None:
    plan = read_plan(changed(segment(0, ambiguities=ambiguities)), MODEL)
    assert plan.segments[0].is_called_exact is exact


def test_read_plan__of_another_model__is_refused() -> None:
    with pytest.raises(InvalidInputError, match="another model") as caught:
        read_plan(json.dumps(PLAN).encode(), MODEL + b".")
    assert caught.value.field == "plan.model_sha256"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda it: it.pop("format"), "plan.format"),
        (lambda it: it.update(format="interlock.plan.v2"), "plan.format"),
        (lambda it: it.update(more=1), "plan.more"),
        (lambda it: it.pop("model_sha256"), "plan.model_sha256"),
        (lambda it: it.update(model_sha256="AB" * 32), "plan.model_sha256"),
        (lambda it: it["plans"].append(it["plans"][0]), "plan.plans"),
        (lambda it: it.update(plans=[]), "plan.plans"),
        (lambda it: it.update(unprovable=[{"name": "a", "operator": "Loop", "reason": "b"}]), "plan.plans"),
        (whole(is_whole=False), "plan.plans"),
        (whole(is_whole="yes"), "plan.plans[0].is_whole"),
        (whole(cuts=["relu0"]), "plan.plans[0].cuts"),
        (whole(cuts=["relu0", ""]), "plan.plans[0].cuts[1]"),
        (whole(channel_groups={"conv0": 1}), "plan.plans[0].channel_groups.conv0"),
        (whole(channel_groups=["conv0"]), "plan.plans[0].channel_groups"),
        (whole(critical_seconds=float("nan")), "plan.plans[0].critical_seconds"),
        (whole(segments=[]), "plan.plans[0].segments"),
        (whole(segments=[SEGMENT] * 17), "plan.plans[0].segments"),
        (whole(fixed_point={"input_scale": 7}), "plan.plans[0].fixed_point.param_scale"),
        (segment(1, settings="{}"), "plan.plans[0].segments[1].settings"),
        (segment(1, output_kind="kzg"), "plan.plans[0].segments[1].output_kind"),
        (segment(1, output_kind="NONE"), "plan.plans[0].segments[1].output_kind"),
        (segment(1, output_kind="POSEIDON"), "plan.plans[0].segments[2].input_kind"),
        (segment(0, input_kind="POSEIDON"), "plan.plans[0].segments[0].input_kind"),
        (segment(2, output_kind="KZG"), "plan.plans[0].segments[-1].output_kind"),
        (segment(0, input_scale=8), "plan.plans[0].segments[0].input_scale"),
        (segment(1, input_scale=13), "plan.plans[0].segments[1].input_scale"),
        (segment(1, input_scale="14"), "plan.plans[0].segments[1].input_scale"),
        (segment(1, input_scale=14.5), "plan.plans[0].segments[1].input_scale"),
        (segment(1, input_scale=True), "plan.plans[0].segments[1].input_scale"),
        (segment(1, start=1), "plan.plans[0].segments[1].start"),
        (segment(0, start=1), "plan.plans[0].segments"),
        (segment(2, stop=3), "plan.plans[0].segments"),
        (segment(2, log_rows=9), "plan.plans[0].segments[2].log_rows"),
        (segment(0, log_rows=10), "plan.plans[0].segments[0].log_rows"),
        (segment(0, log_rows=5), "plan.plans[0].segments[0].log_rows"),
        (segment(0, legs=1), "plan.plans[0].segments[0].legs"),
        (segment(0, legs=14), "plan.plans[0].segments[0].legs"),
        (segment(0, column_blocks=0), "plan.plans[0].segments[0].column_blocks"),
        (segment(0, gas=-1), "plan.plans[0].segments[0].gas"),
    ],
)
def test_read_plan__wrong_in_one_place__is_refused_by_field(change: Change, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_plan(changed(change), MODEL, 9)
    assert caught.value.field == field
    assert caught.value.mend


def test_read_plan__more_bits_than_the_tool_computes_in__is_refused() -> None:
    wide = [part | {"log_rows": 16, "legs": 9} for part in (SEGMENT, MIDDLE, LAST)]
    with pytest.raises(InvalidInputError, match="more than 120 bits") as caught:
        read_plan(changed(whole(segments=wide)), MODEL, 16)
    assert caught.value.field == "plan.plans[0].segments[0].legs"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10_000])
def test_read_plan__no_plan_at_all__is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_plan(content, MODEL)
    assert caught.value.field == "plan"


def test_read_plan__too_large__is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidInputError, match="too many"):
        read_plan(b" " * (MAX_PLAN_BYTES + 1), MODEL)

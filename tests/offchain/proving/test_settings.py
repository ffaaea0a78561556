"""The canonical form of settings files."""

from __future__ import annotations

import itertools
import json

import pytest

from offchain.protocol.links import LinkKind
from offchain.proving.port import CircuitRefused
from offchain.proving.settings import canonical_settings, read_settings

pytestmark = pytest.mark.unit
DOCUMENT = {
    "einsum_params": {"equations": [], "total_einsum_col_size": 77},
    "run_args": {
        "input_visibility": "KZGCommit",
        "output_visibility": {"Hashed": {"hash_is_public": True, "outlets": []}},
        "param_visibility": "Fixed",
        "logrows": 11,
        "decomp_base": 1024,
        "decomp_legs": 3,
    },
    "model_input_scales": [7],
    "model_output_scales": [8],
    "model_instance_shapes": [],
    "module_sizes": {"polycommit": [30], "poseidon": [658, [1]]},
    "num_rows": 600,
    "total_const_size": 50,
    "total_dynamic_col_size": 0,
    "total_shuffle_col_size": 0,
    "required_range_checks": [[-1, 1], [0, 255], [0, 63]],
    "required_lookups": [{"Sigmoid": {"scale": 128}}, {"Div": {"denom": 2}}, {"Sigmoid": {"scale": 256}}],
    "timestamp": 1795441858617,
}


def test_canonical_settings__any_order_and_time__gives_the_same_bytes() -> None:
    forms = set()
    for number, order in enumerate(itertools.permutations(range(3))):
        shuffled = {
            **DOCUMENT,
            "timestamp": number,
            "required_range_checks": [DOCUMENT["required_range_checks"][place] for place in order],
            "required_lookups": [DOCUMENT["required_lookups"][place] for place in order],
        }
        forms.add(canonical_settings(json.dumps(dict(reversed(shuffled.items())))))
    assert len(forms) == 1
    [form] = forms
    assert canonical_settings(form) == form


def test_read_settings__mixed_links__reads_both_kinds_and_the_larger_row_count() -> None:
    summary = read_settings(canonical_settings(json.dumps(DOCUMENT)))
    assert summary.product_rows == 77
    assert (summary.input_kind, summary.output_kind) == (LinkKind.KZG, LinkKind.POSEIDON)
    assert (summary.input_scale, summary.output_scale) == (7, 8)
    assert (summary.rows, summary.log_rows, summary.needs_lookups) == (658, 11, True)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (b"", "unreadable"),
        (b"[]", "unreadable"),
        (b"[" * 100_000, "unreadable"),
        (json.dumps(DOCUMENT).encode(), "not in canonical form"),
        (canonical_settings(json.dumps(DOCUMENT)).replace(b'"Fixed"', b'"Private"'), "weights are not bound"),
        (canonical_settings(json.dumps({**DOCUMENT, "model_input_scales": [7, 7]})), "unreadable"),
        (canonical_settings(json.dumps(DOCUMENT)).replace(b'"KZGCommit"', b'"Encrypted"'), "unreadable"),
    ],
)
def test_read_settings__anything_else__is_refused_by_name(settings: bytes, problem: str) -> None:
    with pytest.raises(
        CircuitRefused, match=rf"segment\[2\]\.settings: {problem}|segment\[2\]\.settings: the {problem}"
    ):
        read_settings(settings, "segment[2]")

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from eth_hash.auto import keccak
from hypothesis import given
from hypothesis import strategies as st

from offchain.errors import InvalidInputError
from offchain.protocol import hashing
from offchain.protocol.links import LinkKind
from offchain.protocol.manifest import (
    MAX_MANIFEST_BYTES,
    Accuracy,
    Manifest,
    SegmentRecord,
    SrsRecord,
    check_manifest,
    model_id_of,
    parse_manifest,
)
from offchain.protocol.trials import MAX_MAGNITUDE, MAX_TRIALS, Trials

pytestmark = pytest.mark.unit

ANSWERS = ("0a" * 32, "0b" * 32)
DIGEST = "ab" * 32
CID_DIGEST = keccak(b"where it is pinned")
CID = "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o"
SEGMENT = SegmentRecord(
    operators="Gemm, Relu",
    input_kind=LinkKind.KZG,
    output_kind=LinkKind.KZG,
    input_scale=7,
    output_scale=7,
    input_shape=(1, 4),
    output_shape=(1, 4),
    proof_bytes=3488,
    log_rows=11,
    rows=881,
    verification_key_digest=DIGEST,
    verification_key_cid=CID,
    verifier_code_hash=DIGEST,
    settings_cid=CID,
    onnx_digest=DIGEST,
    onnx_sealed_cid=CID,
    ambiguities=(),
    closing_link_is_unique=False,
)
LAST = replace(
    SEGMENT,
    output_kind=LinkKind.PUBLIC,
    output_shape=(1, 2),
    ambiguities=("rescale: the prover may round either way",),
    closing_link_is_unique=True,
)
MANIFEST = Manifest(
    name="screening",
    model_key=DIGEST,
    input_bound=4.5,
    tools={"ezkl": "23.0.5", "torch": "2.13.0"},
    srs=SrsRecord(DIGEST, CID, 11, "insecure-dev"),
    accuracy=Accuracy(100, 0.97, 0.96, 0.99, 0.31, "held-out"),
    trials=Trials(DIGEST, -256, 255, ANSWERS),
    segments=(SEGMENT, SEGMENT, LAST),
)


def canonical(record: dict[str, Any]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    record = json.loads(MANIFEST.to_bytes())
    change(record)
    return canonical(record)


def test_parse_manifest__what_was_written__comes_back_equal() -> None:
    content = MANIFEST.to_bytes()
    assert parse_manifest(content) == MANIFEST
    assert parse_manifest(content).to_bytes() == content
    assert content == canonical(json.loads(content))
    specs = [segment.spec() for segment in MANIFEST.segments]
    answers = [bytes.fromhex(answer) for answer in ANSWERS]
    assert model_id_of(content, CID_DIGEST, MANIFEST) == hashing.model_id(keccak(content), CID_DIGEST, specs, answers)


@given(
    name=st.text(max_size=30),
    bound=st.floats(0, 1e6, allow_nan=False),
    accuracy=st.one_of(st.none(), st.floats(0, 1)),
    tools=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
def test_parse_manifest__any_names_and_numbers__come_back_equal(
    name: str, bound: float, accuracy: float | None, tools: dict[str, str]
) -> None:
    manifest = replace(
        MANIFEST,
        name=name,
        input_bound=bound,
        tools=tools,
        accuracy=replace(MANIFEST.accuracy, float_accuracy=accuracy),
    )
    content = manifest.to_bytes()
    content.decode("ascii")
    assert parse_manifest(content) == manifest


@given(data=st.data())
def test_parse_manifest__any_changed_byte__is_refused_or_another_model(data: st.DataObject) -> None:
    content = MANIFEST.to_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]))
    mutated = content[:at] + bytes([byte]) + content[at + 1 :]
    try:
        parsed = parse_manifest(mutated)
    except InvalidInputError:
        return
    assert model_id_of(mutated, CID_DIGEST, parsed) != model_id_of(content, CID_DIGEST, MANIFEST)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: content + b"\n",
        lambda content: b" " + content,
        lambda content: content.replace(b'":', b'": ', 1),
        lambda content: json.dumps(dict(reversed(json.loads(content).items())), separators=(",", ":")).encode(),
        lambda content: content.replace(b'"input_bound":4.5', b'"input_bound":4.50'),
        lambda content: content.replace(b'"name":"screening"', b'"name":"screenin\\u0067"'),
        lambda content: content.replace(b'"input_kind":"kzg"', b'"input_kind":"KZG"', 1),
    ],
)
def test_parse_manifest__same_meaning_in_other_bytes__is_refused(spoil: Callable[[bytes], bytes]) -> None:
    content = spoil(MANIFEST.to_bytes())
    assert content != MANIFEST.to_bytes()
    with pytest.raises(InvalidInputError) as caught:
        parse_manifest(content)
    assert (caught.value.field, caught.value.problem) == ("manifest", "its bytes are not canonical")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b"nul"])
def test_parse_manifest__not_json__is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInputError, match="not JSON") as caught:
        parse_manifest(content)
    assert caught.value.field == "manifest"


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b"{}", b'{"format":"interlock.manifest.v2"}'])
def test_parse_manifest__other_format__is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_manifest(content)
    assert caught.value.field == "manifest.format"


def test_parse_manifest__too_large__is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidInputError, match="too many"):
        parse_manifest(b"[" * (MAX_MANIFEST_BYTES + 1))


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.pop("name"),
        lambda record: record.pop("srs"),
        lambda record: record.update(extra=1),
        lambda record: record["srs"].pop("origin"),
        lambda record: record.update(srs=[]),
        lambda record: record.update(segments=None),
        lambda record: record.update(segments=[1]),
        lambda record: record["segments"][0].pop("rows"),
        lambda record: record["segments"][0].update(extra=1),
        lambda record: record["segments"][0].update(input_kind="kzgg"),
        lambda record: record["segments"][0].update(input_shape=None),
        lambda record: record["segments"][0].update(input_shape=["x"]),
        lambda record: record["segments"][0].pop("ambiguities"),
        *[
            lambda record, value=value: record["segments"][0].update(ambiguities=value)
            for value in (None, "rescale", [1], [["rescale"]], {"rescale": 1})
        ],
        lambda record: record["segments"][0].pop("closing_link_is_unique"),
        lambda record: record["accuracy"].update(more=1),
        lambda record: record.pop("trials"),
        lambda record: record.update(trials=None),
        lambda record: record.update(trials=[]),
        lambda record: record["trials"].pop("seed"),
        lambda record: record["trials"].pop("answers"),
        lambda record: record["trials"].update(more=1),
        lambda record: record["trials"].update(answers=None),
        lambda record: record["trials"].update(answers="ab" * 32),
    ],
)
def test_parse_manifest__wrong_fields__are_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_manifest(changed(change))
    assert caught.value.field == "manifest"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda record: record.update(segments=[]), "segments"),
        *[
            (lambda record, value=value: record.update(model_key=value), "model_key")
            for value in ("ab" * 31, "AB" * 32, "0x" + "ab" * 31, "zz" * 32, "ab" * 32 + "\n", 7, None, ["ab" * 32])
        ],
        (lambda record: record["srs"].update(digest="ab"), "srs.digest"),
        *[
            (
                lambda record, name=name: record["segments"][1].update({name: "not hex"}),
                f"segments[1].{name}",
            )
            for name in ("verification_key_digest", "verifier_code_hash", "onnx_digest")
        ],
        *[
            (
                lambda record, name=name, value=value: record["segments"][1].update({name: value}),
                f"segments[1].{name}",
            )
            for name in ("input_scale", "output_scale", "proof_bytes", "log_rows", "rows")
            for value in ("7", 7.5, True, -1, None)
        ],
        *[
            (lambda record, value=value: record["trials"].update(seed=value), "trials.seed")
            for value in ("ab" * 31, "AB" * 32, 7, None)
        ],
        *[
            (lambda record, value=value: record["trials"].update(answers=["ab" * 32, value]), "trials.answers[1]")
            for value in ("ab" * 31, "0x" + "ab" * 31, "AB" * 32, 7, None, {})
        ],
        *[
            (lambda record, name=name, value=value: record["trials"].update({name: value}), f"trials.{name}")
            for name in ("low", "high")
            for value in ("7", 7.0, True, None, MAX_MAGNITUDE + 1, -MAX_MAGNITUDE - 1)
        ],
        (lambda record: record["trials"].update(low=3, high=2), "trials.low"),
        (lambda record: record["trials"].update(answers=["ab" * 32] * 2), "trials.answers"),
        (
            lambda record: record["trials"].update(answers=[f"{index:064x}" for index in range(MAX_TRIALS + 1)]),
            "trials.answers",
        ),
        (lambda record: record["segments"][0].update(input_shape=[1, 0]), "segments[0]"),
        (lambda record: record["segments"][2].update(output_shape=[-1, 2]), "segments[2]"),
        (lambda record: record["srs"].update(origin="trust me"), "srs.origin"),
        (lambda record: record["segments"][0].update(input_kind="none"), "segments[0]"),
        (lambda record: record["segments"][2].update(output_kind="none"), "segments[2]"),
        (lambda record: record["segments"][1].update(input_scale=8), "segments[1].input_scale"),
        (lambda record: record["segments"][1].update(input_shape=[4, 1]), "segments[1].input_shape"),
        (lambda record: record["segments"][2].update(input_kind="poseidon"), "segments[2].input_kind"),
        (lambda record: record["segments"][2].update(output_kind="kzg"), "segments[-1].output_kind"),
        *[
            (lambda record, value=value: record["segments"][1].update(ambiguities=value), "segments[1].ambiguities")
            for value in ([""], ["a\nb"], ["a"] * 2, ["a" * 201], [str(index) for index in range(33)])
        ],
        *[
            (
                lambda record, at=at, value=value: record["segments"][at].update(closing_link_is_unique=value),
                f"segments[{at}].closing_link_is_unique",
            )
            for at, value in ((0, True), (2, False), (2, 1), (0, 0), (1, None))
        ],
    ],
)
def test_parse_manifest__broken_rule__is_refused_by_field(
    change: Callable[[dict[str, Any]], object], field: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_manifest(changed(change))
    assert caught.value.field == field
    assert caught.value.mend


@pytest.mark.parametrize(
    "trials",
    [
        Trials(DIGEST, 0, 0, ()),
        Trials(DIGEST, -MAX_MAGNITUDE, MAX_MAGNITUDE, tuple(f"{index:064x}" for index in range(MAX_TRIALS))),
    ],
)
def test_parse_manifest__trials_at_the_bounds__come_back_equal(trials: Trials) -> None:
    manifest = replace(MANIFEST, trials=trials)
    assert parse_manifest(manifest.to_bytes()) == manifest


@pytest.mark.parametrize("origin", ["ceremony", "local-ceremony", "insecure-dev"])
def test_check_manifest__known_origins__are_accepted(origin: str) -> None:
    check_manifest(replace(MANIFEST, srs=replace(MANIFEST.srs, origin=origin)))


def test_model_id_of__other_answers__is_another() -> None:
    """Even where the manifest's hash is claimed to be the same, as the registry would believe it."""
    content = MANIFEST.to_bytes()
    ids = {
        model_id_of(content, CID_DIGEST, replace(MANIFEST, trials=replace(MANIFEST.trials, answers=answers)))
        for answers in (ANSWERS, ANSWERS[::-1], ANSWERS[:1], ())
    }
    assert len(ids) == 4


def test_model_id__any_field_of_a_segment__changes_it() -> None:
    base = hashing.model_id(keccak(b"manifest"), CID_DIGEST, [SEGMENT.spec()])
    for change in (
        {"input_kind": LinkKind.PUBLIC},
        {"output_kind": LinkKind.PUBLIC},
        {"input_scale": 8},
        {"output_scale": 8},
        {"input_shape": (4, 1)},
        {"output_shape": (4,)},
        {"proof_bytes": 3520},
        {"verification_key_digest": "cd" * 32},
        {"verifier_code_hash": "cd" * 32},
    ):
        specs = [replace(SEGMENT, **change).spec()]  # type: ignore[arg-type]
        assert hashing.model_id(keccak(b"manifest"), CID_DIGEST, specs) != base
    assert hashing.model_id(keccak(b"other"), CID_DIGEST, [SEGMENT.spec()]) != base
    assert hashing.model_id(keccak(b"manifest"), keccak(b"elsewhere"), [SEGMENT.spec()]) != base

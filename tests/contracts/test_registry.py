from __future__ import annotations

from typing import Any

import pytest
from eth_hash.auto import keccak

from offchain.chain.events import read_events
from offchain.protocol import hashing
from offchain.protocol.links import LinkKind
from offchain.protocol.types import ModelId
from tests.contracts.stage import PROOF_BYTES, Stage, as_abi, refused, spec

pytestmark = pytest.mark.integration

NOBODY = "0x" + "00" * 19 + "99"
EMPTY_ACCOUNT_HASH = keccak(b"")


def chain_of(code_hash: bytes, segments: int = 2, **changes: dict[int, dict[str, Any]]) -> list[dict[str, Any]]:
    """Specs that fit together, but for the changes: ``changes["at"][i]`` goes into segment i."""
    specs = [spec(code_hash) for _ in range(segments)]
    specs[-1]["output_kind"] = LinkKind.PUBLIC
    for index, fields in changes.get("at", {}).items():
        specs[index] |= fields
    return specs


def test_register_model__fitting_segments__are_stored_and_announced(stage: Stage) -> None:
    verifier, code_hash = stage.mock(circuit=5)
    specs = chain_of(code_hash, at={0: {"input_shape": [1, 2, 5], "input_kind": LinkKind.PUBLIC}})
    model = stage.register(specs, [verifier, verifier], "fresh")
    registry = stage.contracts.registry
    assert registry.is_registered(model)
    assert registry.segment_count(model) == 2
    assert registry.manifest_of(model) == (keccak(b"fresh"), keccak(b"cidfresh"))
    segment = registry.segment_of(model, 0)
    assert (segment.verifier, segment.verifier_code_hash) == (verifier, code_hash)
    assert (segment.input_kind, segment.output_kind) == (LinkKind.PUBLIC, LinkKind.KZG)
    assert (segment.input_elements, segment.output_elements, segment.proof_bytes) == (10, 3, PROOF_BYTES)
    assert segment.verification_key_digest == specs[0]["verification_key_digest"]
    head = stage.contracts.connection.block_number()
    (event,) = read_events(stage.contracts, head, head)
    assert (event.name, event.arguments) == (
        "ModelRegistered",
        {
            "modelId": model,
            "registrant": stage.owner.address,
            "manifestHash": keccak(b"fresh"),
            "manifestCid": keccak(b"cidfresh"),
            "segments": 2,
        },
    )


def test_register_model__twice__is_refused(stage: Stage) -> None:
    verifier, code_hash = stage.mock()
    model = stage.register(chain_of(code_hash), [verifier, verifier], "twice")
    with refused("ModelAlreadyRegistered", modelId=model):
        stage.register(chain_of(code_hash), [verifier, verifier], "twice")


@pytest.mark.parametrize("count", [0, 17])
def test_register_model__number_of_segments__is_bounded(stage: Stage, count: int) -> None:
    verifier, code_hash = stage.mock()
    specs = [spec(code_hash, output_kind=LinkKind.KZG) for _ in range(count)]
    with refused("SegmentCountOutOfRange", count=count, maximum=16):
        stage.register(specs, [verifier] * count)


def test_register_model__sixteen_segments__is_the_most(stage: Stage) -> None:
    verifier, code_hash = stage.mock()
    model = stage.register(chain_of(code_hash, 16), [verifier] * 16, "long")
    assert stage.contracts.registry.segment_count(model) == 16


def test_register_model__fewer_verifiers_than_segments__is_refused(stage: Stage) -> None:
    verifier, code_hash = stage.mock()
    with refused("VerifierCountMismatch", segments=2, verifiers=1):
        stage.register(chain_of(code_hash), [verifier])


def test_register_model__verifier_without_code__is_refused(stage: Stage) -> None:
    verifier, code_hash = stage.mock()
    with refused("VerifierHasNoCode", segment=1, verifier=NOBODY):
        stage.register(chain_of(code_hash), [verifier, NOBODY])


def test_register_model__funded_account_as_verifier__is_refused(stage: Stage) -> None:
    verifier, code_hash = stage.mock()
    account = stage.requester.address
    specs = chain_of(code_hash, at={1: {"verifier_code_hash": EMPTY_ACCOUNT_HASH}})
    with refused("VerifierHasNoCode", segment=1, verifier=account):
        stage.register(specs, [verifier, account])


def test_register_model__verifier_with_other_code__is_refused(stage: Stage) -> None:
    verifier, code_hash = stage.mock()
    other, other_hash = stage.mock(circuit=1)
    with refused("VerifierCodeMismatch", segment=1, expected=code_hash, actual=other_hash):
        stage.register(chain_of(code_hash), [verifier, other])


@pytest.mark.parametrize(
    ("changes", "error", "arguments"),
    [
        ({1: {"input_scale": 8}}, "ScaleMismatch", {"boundary": 1, "outputScale": 7, "inputScale": 8}),
        ({1: {"input_shape": [3, 1]}}, "ShapeMismatch", {"boundary": 1}),
        ({1: {"input_shape": [3]}}, "ShapeMismatch", {"boundary": 1}),
        (
            {1: {"input_kind": LinkKind.POSEIDON}},
            "LinkKindMismatch",
            {"boundary": 1, "outputKind": LinkKind.KZG, "inputKind": LinkKind.POSEIDON},
        ),
        ({0: {"input_kind": LinkKind.NONE}}, "LinkKindMissing", {"segment": 0}),
        ({1: {"output_kind": LinkKind.NONE}}, "LinkKindMissing", {"segment": 1}),
        ({1: {"output_kind": LinkKind.KZG}}, "LastOutputNotPublic", {"actual": LinkKind.KZG}),
        ({0: {"input_shape": []}}, "ShapeOutOfRange", {"segment": 0}),
        ({0: {"input_shape": [1] * 9}}, "ShapeOutOfRange", {"segment": 0}),
        ({0: {"input_shape": [1, 0]}}, "ShapeOutOfRange", {"segment": 0}),
        ({0: {"input_shape": [1 << 10, (1 << 10) + 1]}}, "ShapeOutOfRange", {"segment": 0}),
        ({0: {"input_shape": [1 << 31, 1 << 31]}}, "ShapeOutOfRange", {"segment": 0}),
        ({1: {"output_shape": [(1 << 20) + 1]}}, "ShapeOutOfRange", {"segment": 1}),
        ({0: {"proof_bytes": 127}}, "ProofLengthOutOfRange", {"segment": 0, "proofBytes": 127}),
        ({1: {"proof_bytes": (1 << 16) + 1}}, "ProofLengthOutOfRange", {"segment": 1, "proofBytes": (1 << 16) + 1}),
    ],
)
def test_register_model__broken_rule__is_refused_by_name(
    stage: Stage, changes: dict[int, dict[str, Any]], error: str, arguments: dict[str, Any]
) -> None:
    verifier, code_hash = stage.mock()
    with refused(error, **arguments):
        stage.register(chain_of(code_hash, at=changes), [verifier, verifier])


def test_register_model__largest_tensor_and_proof__are_accepted(stage: Stage) -> None:
    verifier, code_hash = stage.mock()
    specs = chain_of(code_hash, 1, at={0: {"input_shape": [1 << 10, 1 << 10], "proof_bytes": 1 << 16}})
    model = stage.register(specs, [verifier], "large")
    assert stage.contracts.registry.segment_of(model, 0).input_elements == 1 << 20


def test_model_id_of__contract__agrees_with_python(stage: Stage) -> None:
    specs = as_abi(chain_of(keccak(b"code"), 3))
    contract = stage.contracts.registry.contract
    content = (keccak(b"manifest"), keccak(b"cid"), specs)
    ids = set()
    for trials in ([], [keccak(b"0")], [keccak(b"1")], [keccak(b"0"), keccak(b"1")]):
        on_chain = bytes(contract.functions.modelIdOf(*content, trials).call())
        assert on_chain == hashing.model_id(*content, trials)
        ids.add(on_chain)
    assert len(ids) == 4


def test_register_model__trials__are_part_of_what_it_is_and_kept_in_order(stage: Stage) -> None:
    registry = stage.contracts.registry
    trials = [keccak(b"trial %d" % index) for index in range(256)]
    model = stage.register_segments(1, "tried", trials=trials)
    assert registry.trials_of(model) == tuple(trials)
    with refused("UnknownTrial", modelId=model, trial=256):
        registry._read("trialOf", model, 256)
    unknown = ModelId(keccak(b"unknown"))
    assert registry.trials_of(unknown) == ()
    with refused("UnknownTrial", modelId=unknown, trial=0):
        registry._read("trialOf", unknown, 0)


def test_register_model__more_trials_than_may_be__is_refused(stage: Stage) -> None:
    with refused("TrialCountOutOfRange", count=257, maximum=256):
        stage.register_segments(1, "many", trials=[keccak(b"trial")] * 257)


def test_register_model__somebody_faster_with_another_cid__registers_another_model(stage: Stage) -> None:
    # Whoever sees a registration on its way could otherwise take its id, with a CID under which there is no manifest.
    verifier, code_hash = stage.mock()
    specs, registry = as_abi(chain_of(code_hash)), stage.contracts.registry
    manifest_hash, cid, nowhere = keccak(b"seen"), keccak(b"cid"), keccak(b"nowhere")
    registry.register_model(stage.workers[0], manifest_hash, nowhere, specs, [verifier, verifier])
    registry.register_model(stage.owner, manifest_hash, cid, specs, [verifier, verifier])
    own, other = (ModelId(hashing.model_id(manifest_hash, it, specs)) for it in (cid, nowhere))
    assert registry.manifest_of(own) == (manifest_hash, cid)
    assert registry.manifest_of(other) == (manifest_hash, nowhere)
    # With the same CID it is the same model, and whoever was faster has done the owner's work.
    with refused("ModelAlreadyRegistered", modelId=own):
        registry.register_model(stage.workers[0], manifest_hash, cid, specs, [verifier, verifier])


def test_grant_access__known_model__is_announced(stage: Stage) -> None:
    stage.contracts.registry.grant_access(stage.workers[0], stage.model, keccak(b"grant"))
    head = stage.contracts.connection.block_number()
    (event,) = read_events(stage.contracts, head, head)
    assert event.name == "AccessGranted"
    assert event.arguments == {
        "modelId": stage.model,
        "granter": stage.workers[0].address,
        "grantCid": keccak(b"grant"),
    }


def test_reads__unknown_model__are_refused(stage: Stage) -> None:
    registry, unknown = stage.contracts.registry, ModelId(keccak(b"unknown"))
    assert not registry.is_registered(unknown)
    assert registry.segment_count(unknown) == 0
    with refused("UnknownModel", modelId=unknown):
        registry.grant_access(stage.owner, unknown, keccak(b"grant"))
    with refused("UnknownModel", modelId=unknown):
        registry.manifest_of(unknown)
    with refused("UnknownSegment", modelId=unknown, segment=0):
        registry.segment_of(unknown, 0)
    with refused("UnknownSegment", modelId=stage.model, segment=3):
        registry.segment_of(stage.model, 3)

"""A model whose segments do not fit together, or whose verifiers are not what they should be, cannot be registered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from eth_hash.auto import keccak

from offchain.chain.contracts import Contracts
from offchain.chain.errors import TransactionRefused
from offchain.chain.sender import Sender
from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.models.preparation import prepare
from offchain.models.recipe import Recipe
from offchain.protocol.links import LinkKind
from offchain.protocol.manifest import Manifest, check_manifest, parse_manifest
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import BoundaryMismatch, SegmentCircuit
from tests.harness import ReadyModel, test_prover
from tests.local_chain import LocalChain

pytestmark = pytest.mark.integration


@pytest.fixture
def register(contracts: Contracts, deployer: Sender, model: ReadyModel) -> Callable[..., None]:
    """Register a manifest, by default with the model's own verifiers."""

    def run(manifest: Manifest, verifiers: list[str] | None = None) -> None:
        specs = [segment.spec() for segment in manifest.segments]
        own = [contracts.registry.segment_of(model.id, index).verifier for index in range(3)]
        contracts.registry.register_model(deployer, keccak(manifest.to_bytes()), b"\1" * 32, specs, verifiers or own)

    return run


def changed(manifest: Manifest, segment: int, **changes: Any) -> Manifest:
    segments = list(manifest.segments)
    segments[segment] = replace(segments[segment], **changes)
    return replace(manifest, name="changed", segments=tuple(segments))


BROKEN_BOUNDARIES = [
    pytest.param("input_scale", 8, "ScaleMismatch", {"boundary": 1, "outputScale": 14, "inputScale": 8}, id="scale"),
    pytest.param("input_shape", (1, 3, 2), "ShapeMismatch", {"boundary": 1}, id="shape"),
    pytest.param(
        "input_kind",
        LinkKind.POSEIDON,
        "LinkKindMismatch",
        {"boundary": 1, "outputKind": 1, "inputKind": 2},
        id="kind",
    ),
]


@pytest.mark.parametrize(("field", "value", "error", "arguments"), BROKEN_BOUNDARIES)
def test_register__boundary_that_does_not_agree__is_refused_by_the_contract(
    register: Callable[..., None],
    model: ReadyModel,
    field: str,
    value: object,
    error: str,
    arguments: dict[str, object],
) -> None:
    with pytest.raises(TransactionRefused) as refused:
        register(changed(model.manifest, 1, **{field: value}))
    assert (refused.value.error, refused.value.arguments) == (error, arguments)


@pytest.mark.parametrize(("field", "value", "error", "arguments"), BROKEN_BOUNDARIES)
def test_parse_manifest__boundary_that_does_not_agree__is_refused_off_chain(
    model: ReadyModel, field: str, value: object, error: str, arguments: dict[str, object]
) -> None:
    broken = changed(model.manifest, 1, **{field: value})
    for check in (lambda: check_manifest(broken), lambda: parse_manifest(broken.to_bytes())):
        with pytest.raises(InvalidInputError) as refused:
            check()
        assert refused.value.field == f"segments[1].{field}"


def test_register__last_output_not_public__is_refused(register: Callable[..., None], model: ReadyModel) -> None:
    broken = changed(model.manifest, 2, output_kind=LinkKind.KZG)
    with pytest.raises(TransactionRefused) as refused:
        register(broken)
    assert refused.value.error == "LastOutputNotPublic"
    with pytest.raises(InvalidInputError):
        parse_manifest(broken.to_bytes())


def test_register__verifier_without_code__is_refused(
    register: Callable[..., None], contracts: Contracts, model: ReadyModel
) -> None:
    """Calls to it succeed: it would accept every proof."""
    nobody = "0x" + "12" * 20
    own = [contracts.registry.segment_of(model.id, index).verifier for index in range(3)]
    with pytest.raises(TransactionRefused) as refused:
        register(replace(model.manifest, name="changed"), [own[0], nobody, own[2]])
    assert refused.value.error == "VerifierHasNoCode"
    assert refused.value.arguments == {"segment": 1, "verifier": nobody}


def test_register__verifier_of_another_segment__is_refused(
    register: Callable[..., None], contracts: Contracts, model: ReadyModel
) -> None:
    own = [contracts.registry.segment_of(model.id, index).verifier for index in range(3)]
    with pytest.raises(TransactionRefused) as refused:
        register(replace(model.manifest, name="changed"), [own[1], own[0], own[2]])
    assert refused.value.error == "VerifierCodeMismatch"


def test_register__verifier_that_answers_true__is_refused(
    register: Callable[..., None], contracts: Contracts, model: ReadyModel, chain: LocalChain, isolation: None
) -> None:
    own = [contracts.registry.segment_of(model.id, index).verifier for index in range(3)]
    chain.rpc("anvil_setCode", own[1], "0x60015f5260205ff3")
    with pytest.raises(TransactionRefused) as refused:
        register(replace(model.manifest, name="changed"))
    assert refused.value.error == "VerifierCodeMismatch"


class OddProver(EzklProver):
    """A prover whose second circuit commits to equal values in another way than its neighbours."""

    def build(self, *arguments: Any, **options: Any) -> SegmentCircuit:
        circuit = super().build(*arguments, **options)
        return replace(circuit, commitment_probe=bytes(64)) if options["name"] == "segment[1]" else circuit


def test_prepare__circuits_that_commit_differently__are_refused(model: ReadyModel) -> None:
    """Both proofs would verify, the links would never meet, and no job of the model could ever be proved."""
    calibration = Samples(np.random.default_rng(7).uniform(-2, 2, (16, 4)).astype(np.float32), None)
    odd = OddProver(test_prover().cache)
    with pytest.raises(BoundaryMismatch) as refused:
        prepare(model.onnx, Recipe("odd", segments=3, max_log_rows=11), calibration, odd)
    assert refused.value.field == "segment[0]"


def test_manifest__canonical_bytes__are_what_is_pinned(model: ReadyModel) -> None:
    content = model.manifest.to_bytes()
    assert parse_manifest(content) == model.manifest
    with pytest.raises(InvalidInputError):
        parse_manifest(json.dumps(json.loads(content), indent=1).encode())

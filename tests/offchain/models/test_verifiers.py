"""Verifiers that do not compile."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from offchain.models.verifiers import compile_segment_verifiers
from offchain.proving.cache import ArtefactCache
from offchain.proving.port import CircuitRefused

pytestmark = pytest.mark.integration  # it starts the compiler

TOO_DEEP = "\n".join(
    (
        "// SPDX-License-Identifier: MIT",
        "pragma solidity ^0.8.0;",
        "contract {name} {{ function sum(",
        ",".join(f"uint256 a{index}" for index in range(18)),
        ") external pure returns (uint256) {{ return",
        "+".join(f"a{index}" for index in range(18)),
        "; }} }}",
    )
)


@dataclass(frozen=True)
class FakeCircuit:
    """Only its name is asked for."""

    vk_digest: bytes = bytes(32)


class FaultyProver:
    """Generates what the compiler refuses."""

    def __init__(self, cache: ArtefactCache) -> None:
        self.cache = cache

    def solidity_verifier(self, circuit: FakeCircuit, contract_name: str) -> str:
        return TOO_DEEP.format(name=contract_name)


def test_compile_segment_verifiers__stack_too_deep__is_the_models_fault(tmp_path: Path) -> None:
    """Whoever serves models of others must survive it: an unrecoverable error would end the process."""
    with pytest.raises(CircuitRefused) as caught:
        compile_segment_verifiers([FakeCircuit()], FaultyProver(ArtefactCache(tmp_path)))  # type: ignore[list-item, arg-type]
    assert caught.value.field == "verifier"
    assert "Stack too deep" in caught.value.problem

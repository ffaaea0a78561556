"""Compiles generated Solidity verifiers, so that one source always gives one runtime code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from offchain import toolchain
from offchain.errors import InvalidInputError
from offchain.proving.cache import ArtefactCache

EVM_VERSION = "shanghai"  # Ganache knows nothing newer
MAX_RUNTIME_BYTES = 24_576
"""Source: EIP-170."""
_FORMAT = "verifier-1"


@dataclass(frozen=True)
class CompiledVerifier:
    """A contract ready to deploy.

    Attributes:
        abi: the contract's interface.
        creation_code: what a deployment sends; there are no constructor arguments.
        runtime_code: what stands at the address afterwards. It holds no metadata hash, so that it does not depend on
            file names or comments.
    """

    name: str
    abi: tuple[dict[str, Any], ...]
    creation_code: bytes
    runtime_code: bytes


def compile_verifiers(sources: Mapping[str, str], cache: ArtefactCache) -> dict[str, CompiledVerifier]:
    """Compile contracts, all that are not cached in one run of the compiler.

    Args:
        sources: source text by contract name.

    Raises:
        InvalidInputError: a contract is over the size limit of the chain: use fewer column blocks or a smaller segment.
        CompilationError: the compiler refused a source.
    """
    keys = {name: _inputs(name, source) for name, source in sources.items()}
    compiled: dict[str, Any] = {}

    def make(name: str, directory: Path) -> None:
        if name not in compiled:
            # Those that are cached already are compiled again here; that is rare, and cheaper than a second start.
            compiled.update(_compile(sources))
        (directory / "contract.json").write_text(json.dumps(compiled[name], sort_keys=True))

    verifiers = {}
    for name, inputs in keys.items():
        entry = cache.get_or_make(_FORMAT, inputs, partial(make, name))
        verifiers[name] = _read(name, json.loads((entry / "contract.json").read_text()))
    return verifiers


def _inputs(name: str, source: str) -> dict[str, str | int]:
    return {
        "compiler": toolchain.SOLC_VERSION,
        "evm": EVM_VERSION,
        "name": name,
        "source": hashlib.sha256(source.encode()).hexdigest(),
    }


def _compile(sources: Mapping[str, str]) -> dict[str, Any]:
    answer = toolchain.solc_standard_json(
        {
            "language": "Solidity",
            "sources": {f"{name}.sol": {"content": source} for name, source in sources.items()},
            "settings": {
                # Not through the IR: the plain verifier runs out of stack there.
                "optimizer": {"enabled": True, "runs": 200},
                "evmVersion": EVM_VERSION,
                "metadata": {"bytecodeHash": "none", "appendCBOR": False},
                "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
            },
        }
    )
    return {
        name: {
            "abi": answer["contracts"][f"{name}.sol"][name]["abi"],
            "creation": answer["contracts"][f"{name}.sol"][name]["evm"]["bytecode"]["object"],
            "runtime": answer["contracts"][f"{name}.sol"][name]["evm"]["deployedBytecode"]["object"],
        }
        for name in sources
    }


def _read(name: str, document: dict[str, Any]) -> CompiledVerifier:
    verifier = CompiledVerifier(
        name=name,
        abi=tuple(document["abi"]),
        creation_code=bytes.fromhex(document["creation"]),
        runtime_code=bytes.fromhex(document["runtime"]),
    )
    if len(verifier.runtime_code) > MAX_RUNTIME_BYTES:
        problem = f"its verifier has {len(verifier.runtime_code)} bytes of code, and a chain takes {MAX_RUNTIME_BYTES}"
        raise InvalidInputError(name, problem, "cut the segment smaller, or tune it with fewer column blocks")
    return verifier

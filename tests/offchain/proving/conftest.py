"""Real circuits, as small as they come: a 4 → 6 → 3 network in two segments, set up once per session."""

from __future__ import annotations

import re
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from proving_circuits import LIMITS, ProvedChain, two_segments
from web3 import Web3

from offchain import toolchain
from offchain.protocol.field import quantise
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import SegmentCircuit, Srs, Tuning
from offchain.proving.srs import insecure_srs


@pytest.fixture(scope="session")
def prover(tmp_path_factory: pytest.TempPathFactory) -> EzklProver:
    return EzklProver(ArtefactCache(tmp_path_factory.mktemp("artefacts")), LIMITS)


@pytest.fixture(scope="session")
def segments() -> tuple[bytes, bytes]:
    return two_segments(seed=1)


@pytest.fixture(scope="session")
def calibration() -> np.ndarray:
    return np.random.default_rng(2).uniform(-1.5, 1.5, size=(24, 4)).astype(np.float32)


@pytest.fixture(scope="session")
def tuning(prover: EzklProver, segments: tuple[bytes, bytes], calibration: np.ndarray) -> Tuning:
    return prover.tune(segments, calibration)


@pytest.fixture(scope="session")
def srs(prover: EzklProver, tuning: Tuning) -> Srs:
    return insecure_srs(prover, tuning.log_rows)


@pytest.fixture(scope="session")
def circuits(prover: EzklProver, segments: tuple[bytes, bytes], tuning: Tuning, srs: Srs) -> tuple[SegmentCircuit, ...]:
    bounds = (tuning.input_bound, None)
    return tuple(
        prover.build(onnx, choice.settings, srs, input_bound=bound)
        for onnx, choice, bound in zip(segments, tuning.segments, bounds, strict=True)
    )


@pytest.fixture(scope="session")
def chain(prover: EzklProver, circuits: tuple[SegmentCircuit, ...]) -> ProvedChain:
    elements = quantise((0.5, -1.25, 0.75, 1.0), 7)
    first = prover.witness(circuits[0], elements)
    second = prover.witness(circuits[1], first.outputs)
    proofs = prover.prove(circuits[0], first), prover.prove(circuits[1], second)
    return ProvedChain(circuits, (first, second), proofs, elements)


@pytest.fixture
def scratch(tmp_path: Path) -> ArtefactCache:
    return ArtefactCache(tmp_path / "cache")


@pytest.fixture(scope="session")
def web3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web3]:
    # Its log goes to a file: a pipe that nobody empties would stop the chain.
    log = tmp_path_factory.mktemp("anvil") / "log"
    command = [str(toolchain.anvil_path()), "--port", "0", "--hardfork", "shanghai"]
    with log.open("w") as output, subprocess.Popen(command, stdout=output) as anvil:
        while not (found := re.search(r"^Listening on (\S+)$", log.read_text(), re.MULTILINE)):
            assert anvil.poll() is None, log.read_text()
            select.select([], [], [], 0.02)
        yield Web3(Web3.HTTPProvider(f"http://{found[1]}"))
        anvil.terminate()

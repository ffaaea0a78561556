"""The smallest real things to tune: one or two dense layers, and a machine measured on three probes."""

from __future__ import annotations

import numpy as np
import pytest
from tuning_models import PROBES

from offchain.inference.calibration import Samples
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver, Limits
from offchain.tuning.machine import MachineModel, Probe, probe_model

LIMITS = Limits(60.0, 120.0, 60.0, 120.0, 60.0, 4 << 30)


@pytest.fixture(scope="session")
def prover(tmp_path_factory: pytest.TempPathFactory) -> EzklProver:
    return EzklProver(ArtefactCache(tmp_path_factory.mktemp("artefacts")), LIMITS)


@pytest.fixture(scope="session")
def layer() -> bytes:
    return probe_model(Probe(8, width=4))


@pytest.fixture(scope="session")
def calibration() -> np.ndarray:
    return np.random.default_rng(2).uniform(-1.5, 1.5, size=(12, 4)).astype(np.float32)


@pytest.fixture(scope="session")
def heldout() -> Samples:
    return Samples(np.random.default_rng(3).uniform(-1.5, 1.5, size=(16, 4)).astype(np.float32), None)


@pytest.fixture(scope="session")
def machine(prover: EzklProver) -> MachineModel:
    return MachineModel.load_or_measure(prover, PROBES)

"""One surveyed network for all tests of plans."""

from __future__ import annotations

from pathlib import Path

import pytest
from planning_machines import perceptron

from offchain.planning.layouts import Layouts
from offchain.planning.pieces import survey_model
from offchain.protocol.links import LinkKind
from offchain.proving.cache import ArtefactCache
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.port import FixedPoint

ENDS = (LinkKind.KZG, LinkKind.PUBLIC)


@pytest.fixture(scope="session")
def prover(tmp_path_factory: pytest.TempPathFactory) -> EzklProver:
    return EzklProver(ArtefactCache(tmp_path_factory.mktemp("artefacts")), threads=1)


@pytest.fixture(scope="session")
def layouts(prover: EzklProver, tmp_path_factory: pytest.TempPathFactory) -> Layouts:
    """The pieces of an 8-24-24-4 network, which differ in size."""
    return survey(perceptron(8, 24, 24, 4), prover, tmp_path_factory.mktemp("runs"))


def survey(content: bytes, prover: EzklProver, scratch: Path) -> Layouts:
    """Lay out the one stretch of a model."""
    [stretch] = survey_model(content).stretches
    found = Layouts(prover, stretch, FixedPoint(7, 7, False), ENDS, scratch)
    found.survey()
    return found

"""Trials of a real model, answered by really running it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from offchain.errors import InvalidInputError
from offchain.inference.calibration import Samples
from offchain.models.preparation import PreparedModel, prepare
from offchain.models.recipe import Recipe
from offchain.models.trials import MAX_SEEDS, answer_trials, make_trials
from offchain.protocol import hashing
from offchain.protocol.field import signed
from offchain.protocol.types import Link
from offchain.proving.ezkl_prover import EzklProver
from offchain.proving.links import output_link
from offchain.proving.port import InputOutOfRange, SegmentCircuit
from tests.harness import prepared_model, test_prover
from tests.models import tiny_mlp

pytestmark = pytest.mark.integration

SPREAD = np.array([[-0.5, 0.25, 1.0, 2.0]], np.float32)


@pytest.fixture(scope="module")
def prover() -> EzklProver:
    return test_prover()


@pytest.fixture(scope="module")
def prepared(prover: EzklProver) -> PreparedModel:
    return prepared_model(tiny_mlp(seed=11), "trials", prover, segments=2, trials=2)


class Unlucky(EzklProver):
    """Refuses the inputs of the first seeds, as a circuit may."""

    def __init__(self, prover: EzklProver, refusals: int) -> None:
        super().__init__(prover.cache)
        self.refusals = refusals
        self.asked = 0

    def closing_links(
        self, circuits: Sequence[SegmentCircuit], batch: Sequence[Sequence[int]]
    ) -> tuple[tuple[Link, ...], ...]:
        self.asked += 1
        if self.asked <= self.refusals:
            raise InputOutOfRange("segment[0]", "too much", "use less")
        return super().closing_links(circuits, batch)


def test_prepare__trials__have_the_answers_that_running_the_model_gives(
    prover: EzklProver, prepared: PreparedModel
) -> None:
    trials, scale = prepared.manifest.trials, 1 << prepared.manifest.segments[0].input_scale
    assert len(trials.answers) == 2
    assert -2 * scale <= trials.low < -1.5 * scale, "the calibration inputs reach from -2 to 2"
    assert 1.5 * scale < trials.high <= 2 * scale
    for trial, expected in enumerate(trials.answers):
        elements, links = trials.input(trial, 4), []
        assert all(trials.low <= signed(element) <= trials.high for element in elements)
        for circuit in prepared.circuits:
            witness = prover.witness(circuit, elements)
            links.append(output_link(circuit, witness))
            elements = witness.outputs
        assert hashing.answer_hash(hashing.trial_answer(links)).hex() == expected


def test_answer_trials__some_of_them__are_those_that_the_manifest_names(
    prover: EzklProver, prepared: PreparedModel
) -> None:
    trials = prepared.manifest.trials
    [answer] = answer_trials(trials, [1], prepared.circuits, prover)
    assert hashing.answer_hash(answer).hex() == trials.answers[1]
    assert answer_trials(trials, [], prepared.circuits, prover) == ()


def test_make_trials__none__names_a_seed_and_no_answers(prover: EzklProver, prepared: PreparedModel) -> None:
    trials = make_trials(prepared.circuits, SPREAD, 0, prover)
    assert (trials.low, trials.high, trials.answers) == (-64, 256, ())


def test_make_trials__circuit_refuses_a_seed__takes_another(prover: EzklProver, prepared: PreparedModel) -> None:
    unlucky = Unlucky(prover, MAX_SEEDS - 1)
    trials = make_trials(prepared.circuits, SPREAD, 1, unlucky)  # two could be equal by chance
    assert unlucky.asked == MAX_SEEDS
    [answer] = answer_trials(trials, [0], prepared.circuits, prover)
    assert hashing.answer_hash(answer).hex() == trials.answers[0]


def test_make_trials__circuit_refuses_every_seed__is_refused_by_field(
    prover: EzklProver, prepared: PreparedModel
) -> None:
    narrow = (replace(prepared.circuits[0], input_bound=0.001), *prepared.circuits[1:])
    with pytest.raises(InvalidInputError, match="do not take their inputs") as caught:
        make_trials(narrow, SPREAD, 2, prover)
    assert caught.value.field == "trials"


def test_make_trials__one_answer_for_all__is_refused_by_field(prover: EzklProver, prepared: PreparedModel) -> None:
    """Whoever saw one answered could answer the rest."""
    with pytest.raises(InvalidInputError, match="of 2 answers only 1 differ") as caught:
        make_trials(prepared.circuits, np.full((1, 4), 0.5, np.float32), 2, prover)
    assert caught.value.field == "trials"


@pytest.mark.parametrize("count", [-1, 257])
def test_prepare__more_trials_than_a_model_can_have__is_refused_at_once(prover: EzklProver, count: int) -> None:
    calibration = Samples(SPREAD, None)
    with pytest.raises(InvalidInputError) as caught:
        prepare(b"never read", Recipe("odd", segments=1, trials=count), calibration, prover)
    assert caught.value.field == "trials"

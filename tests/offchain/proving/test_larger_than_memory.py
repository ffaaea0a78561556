"""What does not fit into memory as one circuit is proved in segments: tried, under a limit that the system enforces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.larger_than_memory import Shown, demonstrate, render
from offchain.inference.calibration import Samples
from offchain.planning.costs import TypicalMachine
from offchain.proving.cache import ArtefactCache
from tests.models import mlp

WIDTHS = (24, 96, 96, 96, 10)
LIMIT_BYTES = 192 << 20


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    drawn = np.random.default_rng(3).uniform(-1, 1, (16, WIDTHS[0])).astype(np.float32)
    cache = ArtefactCache(tmp_path_factory.mktemp("cache"))
    return demonstrate(mlp(WIDTHS, seed=5), Samples(drawn, None), LIMIT_BYTES, cache, TypicalMachine())


@pytest.mark.slow
def test_demonstrate__one_circuit__is_refused_and_where_it_is_tried_killed_for_memory(shown: Shown) -> None:
    assert "its proof needs about" in shown.whole.admission
    assert "give the prover more memory, or cut the model into smaller segments" in shown.whole.admission
    assert shown.whole.failure.endswith("ended by memory: the memory limit was reached")


@pytest.mark.slow
def test_demonstrate__segments__are_proved_and_linked_under_the_limit(shown: Shown) -> None:
    assert len(shown.segments) > 1
    for attempt in shown.segments:
        assert (attempt.admission, attempt.failure) == ("", "")
        assert attempt.measured_bytes is not None
        assert attempt.measured_bytes <= LIMIT_BYTES
    links = [(attempt.opening, attempt.closing) for attempt in shown.segments]
    assert all(ours[1] == theirs[0] for ours, theirs in zip(links, links[1:], strict=False))
    assert shown.holds
    assert "holds" in render(shown)


@pytest.mark.slow
def test_holds__something_else_was_found__is_said(shown: Shown) -> None:
    proved = shown.segments[0]
    unlinked = replace(shown, segments=(proved, replace(proved, opening="00"), *shown.segments[2:]))
    failed = replace(shown, segments=(replace(proved, measured_bytes=None), *shown.segments[1:]))
    fits = replace(shown, whole=replace(shown.whole, failure=""))
    too_much = replace(shown, memory_bytes=1)
    for other in (unlinked, failed, fits, too_much):
        assert not other.holds
        assert "does NOT hold" in render(other)

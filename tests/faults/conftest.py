"""What is broken by one test is whole again for the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live_network import LiveNetwork


@pytest.fixture
def mended(live: LiveNetwork) -> Iterator[LiveNetwork]:
    """The network; afterwards everything runs again, and all stakes are equal."""
    yield live
    live.make_good()

from __future__ import annotations

import pytest

from offchain.protocol.types import Phase
from tests.contracts.stage import Stage

pytestmark = pytest.mark.integration


def test_job__everybody_honest__is_finalised_with_every_segment_proved(stage: Stage) -> None:
    play = stage.request().to_finalisable()
    assert play.phase is Phase.FINALISABLE
    play.finalise()
    assert play.phase is Phase.FINALISED

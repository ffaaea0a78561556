"""What a registrant may make everybody fetch is bounded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from offchain.models.loading import ModelMismatch, fetch_srs
from offchain.proving.cache import ArtefactCache
from offchain.storage.cid import Cid
from tests.offchain.protocol.test_manifest import MANIFEST

pytestmark = pytest.mark.unit


class Untouched:
    """A store that must not be asked."""

    def get(self, cid: Cid, *, max_bytes: int) -> bytes:
        raise AssertionError(f"{max_bytes} bytes were asked for")


@pytest.mark.parametrize("log_rows", [0, 21, 26, 60])
def test_fetch_srs__of_a_size_beyond_the_bound__is_refused_unfetched(tmp_path: Path, log_rows: int) -> None:
    manifest = replace(MANIFEST, srs=replace(MANIFEST.srs, log_rows=log_rows))
    with pytest.raises(ModelMismatch) as caught:
        fetch_srs(manifest, Untouched(), ArtefactCache(tmp_path))
    assert caught.value.field == "srs.log_rows"

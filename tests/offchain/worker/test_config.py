"""A worker's configuration is taken as it was meant, or refused by the setting's name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from offchain.errors import InvalidInputError
from offchain.worker.config import WorkerConfig

pytestmark = pytest.mark.unit

MODEL = "ab" * 32
SETTINGS: dict[str, Any] = {
    "name": "worker-0",
    "rpc_url": "http://127.0.0.1:1",
    "ipfs_url": "http://127.0.0.1:2",
    "deployment": "deployment.json",
    "keystore": "keystore.json",
    "password_file": "password",
    "identity": "identity.age",
    "state_directory": "state",
    "cache_directory": "/cache",
    "stake_wei": 10**18,
}


def written(directory: Path, content: object) -> Path:
    path = directory / "worker.json"
    path.write_text(json.dumps(content))
    return path


def test_load__least_settings__resolves_paths_and_fills_in_the_rest(tmp_path: Path) -> None:
    config = WorkerConfig.load(written(tmp_path, SETTINGS))
    assert (config.keystore, config.cache_directory) == (tmp_path / "keystore.json", Path("/cache"))
    assert (config.models, config.prover_threads, config.poll_seconds) == ((), None, 0.3)


def test_load__what_was_saved__is_the_same(tmp_path: Path) -> None:
    config = WorkerConfig.load(
        written(tmp_path, SETTINGS | {"models": [MODEL], "prover_threads": 2, "poll_seconds": 1})
    )
    config.save(tmp_path / "again.json")
    assert WorkerConfig.load(tmp_path / "again.json") == config


@pytest.mark.parametrize("spelling", [MODEL, f"0x{MODEL}", f"0x{MODEL.upper()}"])
def test_load__model_id_in_any_spelling__is_the_one_that_events_are_compared_with(
    tmp_path: Path, spelling: str
) -> None:
    """A spelling that matches nothing would leave the worker serving nothing, in silence."""
    assert WorkerConfig.load(written(tmp_path, SETTINGS | {"models": [spelling]})).models == (
        bytes.fromhex(MODEL).hex(),
    )


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"models": ["0x12"]}, "models[0]"),
        ({"models": MODEL}, "models"),
        ({"models": [MODEL, 7]}, "models[1]"),
        ({"stake_wei": "10"}, "stake_wei"),
        ({"stake_wei": True}, "stake_wei"),
        ({"stake_wei": 1.5}, "stake_wei"),
        ({"poll_seconds": "often"}, "poll_seconds"),
        ({"prover_threads": "all"}, "prover_threads"),
        ({"keystore": 7}, "keystore"),
        ({"name": None}, "name"),
        ({"keystroke": "x"}, "keystroke"),
    ],
)
def test_load__setting_that_cannot_be__is_named(tmp_path: Path, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        WorkerConfig.load(written(tmp_path, SETTINGS | changes))
    assert caught.value.field == field


@pytest.mark.parametrize(
    "content", [[], "text", {}, {name: SETTINGS[name] for name in SETTINGS if name != "stake_wei"}]
)
def test_load__no_object_or_incomplete__names_the_file(tmp_path: Path, content: object) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InvalidInputError) as caught:
        WorkerConfig.load(path)
    assert caught.value.field == str(path)

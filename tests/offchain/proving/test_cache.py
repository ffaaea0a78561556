"""The artefact cache between processes, and after failures."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from offchain.proving.cache import PRUNE_GRACE_SECONDS, ArtefactCache, cache_key

pytestmark = pytest.mark.unit


def write(text: str):
    return lambda directory: (directory / "text").write_text(text) and None


def refuse(directory: Path) -> None:
    raise AssertionError("made again")


def make_slowly(root: str, log: str, ready) -> None:
    def make(directory: Path) -> None:
        with open(log, "a") as file:
            file.write("made\n")
        (directory / "text").write_text("x" * 100_000)

    ready.wait()
    entry = ArtefactCache(Path(root)).get_or_make("operation", {"input": 1}, make)
    assert (entry / "text").stat().st_size == 100_000


def die(root: str) -> None:
    def make(directory: Path) -> None:
        (directory / "text").write_text("half")
        os._exit(9)

    ArtefactCache(Path(root)).get_or_make("operation", {"input": 1}, make)


def test_get_or_make__nine_processes_at_once__make_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(9)
    arguments = (str(tmp_path / "cache"), str(tmp_path / "log"), ready)
    processes = [context.Process(target=make_slowly, args=arguments) for _ in range(9)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * 9
    assert (tmp_path / "log").read_text() == "made\n"


def test_get_or_make__maker_dies__next_one_makes_it_whole(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=die, args=(str(tmp_path),))
    process.start()
    process.join()
    assert process.exitcode == 9
    entry = ArtefactCache(tmp_path).get_or_make("operation", {"input": 1}, write("whole"))
    assert (entry / "text").read_text() == "whole"


def test_get_or_make__maker_raises__keeps_nothing(scratch: ArtefactCache) -> None:
    with pytest.raises(AssertionError, match="made again"):
        scratch.get_or_make("operation", {}, refuse)
    assert not list((scratch.root / "entries").iterdir())
    assert not list((scratch.root / "partial").iterdir())


def test_get_or_make__any_other_input__is_another_entry(scratch: ArtefactCache) -> None:
    entries = {
        scratch.get_or_make(operation, inputs, write("x"))
        for operation, inputs in (("a", {"x": 1}), ("a", {"x": "1"}), ("a", {"y": 1}), ("b", {"x": 1}), ("a", {}))
    }
    assert len(entries) == 5
    assert cache_key("a", {"x": 1, "y": 2}) == cache_key("a", {"y": 2, "x": 1})


def test_get_or_make__over_max_bytes__prunes_the_entries_used_longest_ago(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, max_bytes=250)
    old, older, fresh = (cache.get_or_make("a", {"n": n}, write("x" * 100)) for n in range(3))
    for entry, age in ((old, 2), (older, 3)):
        used = time.time() - age * PRUNE_GRACE_SECONDS
        os.utime(entry, (used, used))
    newest = cache.get_or_make("a", {"n": 3}, write("x" * 100))
    assert [entry.is_dir() for entry in (old, older, fresh, newest)] == [False, False, True, True]


def test_get_or_make__recently_used__is_never_pruned(tmp_path: Path) -> None:
    cache = ArtefactCache(tmp_path, max_bytes=1)
    entries = [cache.get_or_make("a", {"n": n}, write("x" * 100)) for n in range(3)]
    assert all(entry.is_dir() for entry in entries)

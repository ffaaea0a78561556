"""What a worker writes about its proofs, and what an operator reads of it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from offchain.cli import operators
from offchain.proving.service import Progress, State
from offchain.worker.progress import FILE, ProgressWriter, ProofStatus, ProofStatuses, read_progress

pytestmark = pytest.mark.unit

MIB = 1 << 20


class Under:
    """Proofs under way, as a service would say."""

    def __init__(self) -> None:
        self.proofs: tuple[Progress, ...] = ()

    def __call__(self) -> tuple[Progress, ...]:
        return self.proofs


@pytest.fixture
def under() -> Under:
    now = time.monotonic()
    under = Under()
    under.proofs = (
        Progress("job ab, segment 1", State.PROVING, now + 100.0, 300 * MIB, 8.0, 2.5),
        Progress("job cd, segment 0", State.WAITING, math.inf, 200 * MIB, 4.0, 1.0),
    )
    return under


def test_write__two_proofs__are_read_back_with_what_is_left(under: Under, tmp_path: Path) -> None:
    ProgressWriter(under, tmp_path).write()
    found = read_progress(tmp_path)
    assert found is not None
    first, second = found.proofs
    assert first == ProofStatus("job ab, segment 1", "proving", 2.5, 8.0, 300 * MIB, first.due_seconds)
    assert first.due_seconds is not None
    assert 0.0 < first.due_seconds <= 100.0
    assert second == ProofStatus("job cd, segment 0", "waiting", 1.0, 4.0, 200 * MIB, None)
    assert not found.is_silent


def test_write__proofs_are_over__says_so_once_and_then_leaves_the_file(under: Under, tmp_path: Path) -> None:
    writer = ProgressWriter(under, tmp_path)
    writer.write()
    under.proofs = ()
    writer.write()
    found = read_progress(tmp_path)
    assert found is not None
    assert found.proofs == ()
    (tmp_path / FILE).unlink()
    writer.write()
    assert read_progress(tmp_path) is None


def test_write__nothing_since_the_start__replaces_what_an_earlier_process_left(under: Under, tmp_path: Path) -> None:
    ProgressWriter(under, tmp_path).write()
    under.proofs = ()
    ProgressWriter(under, tmp_path).write()
    found = read_progress(tmp_path)
    assert found is not None
    assert found.proofs == ()


def test_start__proof_begins_later__is_written_without_being_asked(under: Under, tmp_path: Path) -> None:
    proofs, under.proofs = under.proofs, ()
    ProgressWriter(under, tmp_path).start()
    under.proofs = proofs
    deadline = time.monotonic() + 30
    while True:
        found = read_progress(tmp_path)
        if found is not None and found.proofs:
            break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [it.name for it in found.proofs] == ["job ab, segment 1", "job cd, segment 0"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"written_at": 1}', '{"written_at": 1, "proofs": [{"name": 1}]}'])
def test_read_progress__not_what_a_worker_writes__is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text(content)
    assert read_progress(tmp_path) is None


def test_is_silent__proofs_of_long_ago__only_if_there_were_any(under: Under, tmp_path: Path) -> None:
    ProgressWriter(under, tmp_path).write()
    document = json.loads((tmp_path / FILE).read_text())
    document["written_at"] -= 3600
    (tmp_path / FILE).write_text(json.dumps(document))
    found = read_progress(tmp_path)
    assert found is not None
    assert found.is_silent
    assert not ProofStatuses(found.written_at, ()).is_silent


@pytest.mark.parametrize("age", [0, 3600])
def test_show_proofs__of_a_worker__says_how_far_each_is(
    age: int, under: Under, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators.console, "width", 160)
    ProgressWriter(under, tmp_path).write()
    document = json.loads((tmp_path / FILE).read_text())
    document["written_at"] -= age
    (tmp_path / FILE).write_text(json.dumps(document))
    show: Callable[[Path], None] = operators._show_proofs
    show(tmp_path)
    shown = capsys.readouterr().out
    [first] = [line for line in shown.splitlines() if "job ab, segment 1" in line]
    [second] = [line for line in shown.splitlines() if "job cd, segment 0" in line]
    assert all(part in first for part in ("proving", "2.5 s", "8.0 s", "300 MiB", "in "))
    assert all(part in second for part in ("waiting", "200 MiB", "not asked for yet"))
    assert ("is the worker running?" in shown) == bool(age)

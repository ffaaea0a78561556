from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from offchain.errors import InvalidInputError
from offchain.sandbox import NativeCallFailed, run_limited, run_measured

TARGETS = "tests.offchain.sandbox_targets"
MEMORY_BYTES = 256 * 1024 * 1024
PROJECT_ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.integration  # it starts processes


def call(function: str, timeout_seconds: float = 30, **payload: Any) -> dict[str, Any]:
    return run_limited(f"{TARGETS}:{function}", payload, timeout_seconds=timeout_seconds, memory_bytes=MEMORY_BYTES)


def failure(function: str, timeout_seconds: float = 30, **payload: Any) -> NativeCallFailed:
    with pytest.raises(NativeCallFailed) as caught:
        call(function, timeout_seconds, **payload)
    assert caught.value.function == f"{TARGETS}:{function}"
    return caught.value


def is_alive(process_id: int) -> bool:
    try:
        state = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_until_dead(process_id: int) -> None:
    while is_alive(process_id):  # the test's own timeout is the limit
        time.sleep(0.01)


def test_run_limited__plain_function__returns_result() -> None:
    assert call("echo", numbers=[1, 2**70], text="ä") == {"numbers": [1, 2**70], "text": "ä"}


def test_run_limited__large_payload_and_noise__result_is_undisturbed() -> None:
    assert call("print_and_echo", text="x" * 1_000_000) == {"text": "x" * 1_000_000}


def test_run_limited__flood_of_output__neither_blocks_nor_grows() -> None:
    assert call("flood", lines=20_000) == {}


def test_run_limited__invalid_input__is_raised_again() -> None:
    with pytest.raises(InvalidInputError) as caught:
        call("refuse")
    assert (caught.value.field, caught.value.problem, caught.value.mend) == ("model", "is too odd", "straighten it")


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("fail", "error", "RuntimeError: constraint system is not satisfied"),
        ("panic", "panic", "PanicException: called unwrap on None"),
        ("segfault", "crash", "signal SIGSEGV"),
        ("leave", "crash", "exit code 0 without an answer"),
        ("unserialisable", "error", "TypeError: Object of type object is not JSON serializable"),
        ("absent", "error", "AttributeError: module 'tests.offchain.sandbox_targets' has no attribute 'absent'"),
    ],
)
def test_run_limited__failing_function__names_kind_and_cause(function: str, kind: str, message: str) -> None:
    error = failure(function)
    assert (error.kind, error.message) == (kind, message)


def test_run_limited__crash__keeps_tail_of_stderr() -> None:
    assert "about to fall" in failure("segfault").stderr_tail


def test_run_limited__allocation_over_the_limit__is_memory() -> None:
    assert call("allocate", bytes=MEMORY_BYTES // 4) == {"length": MEMORY_BYTES // 4}
    assert failure("allocate", bytes=MEMORY_BYTES * 2).kind == "memory"


def test_run_limited__endless_loop__is_timeout() -> None:
    assert failure("spin", timeout_seconds=0.3).kind == "timeout"


def test_run_limited__timeout__kills_grandchildren(tmp_path: Path) -> None:
    path = tmp_path / "grandchild"
    for timeout_seconds in (1, 4, 16, 64):  # long enough, on a busy machine too, for the grandchild to start
        assert failure("sleep_with_grandchild", timeout_seconds, path=str(path)).kind == "timeout"
        if path.exists() and path.read_text():
            break
    wait_until_dead(int(path.read_text()))


def test_run_limited__timeout__leaves_no_temporary_files(tmp_path: Path) -> None:
    """An input in the clear must not outlive the call that was killed over it."""
    path = tmp_path / "where"
    for timeout_seconds in (1, 4, 16, 64):  # long enough, on a busy machine too, for the file to be written
        assert failure("hang_over_secret", timeout_seconds, path=str(path)).kind == "timeout"
        if path.exists() and path.read_text():
            break
    assert not Path(path.read_text()).exists()


def test_run_limited__parent_killed__child_dies_too(tmp_path: Path) -> None:
    path = tmp_path / "child"
    program = (
        "from offchain.sandbox import run_limited\n"
        f"run_limited('{TARGETS}:orphan', {{'path': {str(path)!r}}}, timeout_seconds=600, memory_bytes={MEMORY_BYTES})"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT_ROOT)
    while not (path.exists() and path.read_text()):
        assert parent.poll() is None
        time.sleep(0.01)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_until_dead(int(path.read_text()))


def test_run_limited__child__starts_light_and_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYSTORE_PASSWORD", "secret")
    seen = run_limited(
        f"{TARGETS}:modules",
        {},
        timeout_seconds=30,
        memory_bytes=MEMORY_BYTES,
        cwd=tmp_path,
        environment={"RAYON_NUM_THREADS": "1"},
    )
    assert not {"torch", "numpy", "onnx", "ezkl", "web3"} & set(seen["modules"])
    assert "KEYSTORE_PASSWORD" not in seen["environment"]
    assert seen["environment"]["RAYON_NUM_THREADS"] == "1"
    assert seen["cwd"] == str(tmp_path)
    assert not {str(tmp_path), ""} & set(seen["path"])


def test_run_measured__plain_function__reports_cost() -> None:
    run = run_measured(f"{TARGETS}:allocate", {"bytes": 64 * 2**20}, timeout_seconds=30, memory_bytes=MEMORY_BYTES)
    assert run.seconds > 0
    assert 64 * 2**20 < run.peak_memory_bytes < MEMORY_BYTES

"""Runs one function in a killable child process, with limits on time, processor time and memory.

A panic in a native library is not an ``Exception``, a stuck native call cannot be interrupted by a thread, and a
segmentation fault takes the process along. Parsing of untrusted bytes, compiling and proving therefore happen here.

The child is ``python -m offchain.sandbox``. It reads a request from standard input and writes its answer to an
inherited file rather than to standard output, because native libraries print. This module imports nothing heavy.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from offchain.errors import InterlockError, InvalidInputError

FailureKind = Literal["timeout", "memory", "crash", "panic", "error", "cancelled"]

STDERR_TAIL_BYTES = 4_096
MAX_ANSWER_BYTES = 256 * 1024 * 1024
_PROJECT_ROOT = Path(__file__).resolve().parents[1]
# The child inherits only these: what it parses is hostile, and the parent's environment may hold secrets.
_PASSED_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "TZ")
_OUT_OF_MEMORY_MARKS = ("emory allocation", "std::bad_alloc", "Cannot allocate memory", "MemoryError")
_PR_SET_PDEATHSIG = 1


class Cancellation:
    """Lets one thread end a call that another one waits for. Once cancelled, it stays so."""

    def __init__(self) -> None:
        self._event = os.eventfd(0)

    def cancel(self) -> None:
        """End the call under way, and every later one that is given this."""
        os.eventfd_write(self._event, 1)

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody cancelled."""
        poll = select.poll()
        poll.register(self._event, select.POLLIN)
        return bool(poll.poll(0))

    def fileno(self) -> int:
        """A descriptor that becomes readable when somebody cancels."""
        return self._event

    def __del__(self) -> None:
        os.close(self._event)


class NativeCallFailed(InterlockError):
    """A function that ran in a child process did not return.

    Args:
        function: what was called, as ``package.module:function``.
        kind: ``timeout``, ``memory``, ``crash`` (ended by a signal, or without an answer), ``panic`` (a native
            panic), ``error`` (an ordinary exception) or ``cancelled``.
        message: one line about the cause.
        stderr_tail: the last bytes that the child printed.
    """

    def __init__(self, function: str, kind: FailureKind, message: str, stderr_tail: str = "") -> None:
        super().__init__(f"{function} ended by {kind}: {message}")
        self.function = function
        self.kind = kind
        self.message = message
        self.stderr_tail = stderr_tail


@dataclass(frozen=True)
class LimitedRun:
    """What a call returned and what it took.

    Attributes:
        result: the JSON object that the function returned.
        seconds: wall time, the start of the child included.
        peak_memory_bytes: the largest resident set of the child.
    """

    result: dict[str, Any]
    seconds: float
    peak_memory_bytes: int


def run_limited(
    module_function: str,
    payload: dict[str, Any],
    *,
    timeout_seconds: float,
    memory_bytes: int,
    cwd: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    cancellation: Cancellation | None = None,
) -> dict[str, Any]:
    """Call a function in a child process and return its result; :func:`run_measured` also says what it took.

    Args:
        module_function: ``package.module:function``; the function takes the payload and returns a dict.
        payload: a JSON object.
        timeout_seconds: wall time after which the child and everything that it started are killed.
        memory_bytes: cap on the child's private writable memory (``RLIMIT_DATA``).
        cwd: working directory of the child.
        environment: variables to set besides the few that are inherited.
        cancellation: ends the call early.

    Raises:
        InvalidInputError: the function raised it.
        NativeCallFailed: the function did not return for any other reason.
    """
    return run_measured(
        module_function,
        payload,
        timeout_seconds=timeout_seconds,
        memory_bytes=memory_bytes,
        cwd=cwd,
        environment=environment,
        cancellation=cancellation,
    ).result


def run_measured(
    module_function: str,
    payload: dict[str, Any],
    *,
    timeout_seconds: float,
    memory_bytes: int,
    cwd: Path | str | None = None,
    environment: Mapping[str, str] | None = None,
    cancellation: Cancellation | None = None,
) -> LimitedRun:
    """Do what :func:`run_limited` does, and report the wall time and the peak memory with the result."""
    started = time.monotonic()
    # Inputs and witnesses pass through files of the child, which cannot remove them itself once it is killed.
    scratch = tempfile.TemporaryDirectory(prefix="interlock-", ignore_cleanup_errors=True)
    with scratch as temporary, tempfile.TemporaryFile() as request, tempfile.TemporaryFile() as answer:
        request.write(
            json.dumps(
                {
                    "function": module_function,
                    "payload": payload,
                    "memory_bytes": memory_bytes,
                    "cpu_seconds": math.ceil(timeout_seconds * (os.cpu_count() or 1)) + 1,
                    "parent": os.getpid(),
                }
            ).encode()
        )
        request.seek(0)
        child = subprocess.Popen(
            # -P: a working directory full of untrusted files must not be importable.
            [sys.executable, "-P", "-m", "offchain.sandbox", str(answer.fileno())],
            stdin=request,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(answer.fileno(),),
            cwd=cwd,
            env=_child_environment({"TMPDIR": temporary, **(environment or {})}),
            start_new_session=True,
        )
        ended_by, printed = _wait_and_kill(child, started + timeout_seconds, cancellation)
        answer.seek(0)
        content = answer.read(MAX_ANSWER_BYTES + 1)
    if ended_by == "cancelled":
        raise NativeCallFailed(module_function, ended_by, "it is not wanted any more", printed)
    if ended_by == "timeout" or child.returncode == -signal.SIGXCPU:
        raise NativeCallFailed(module_function, "timeout", f"not done after {timeout_seconds:g} s", printed)
    report = _read_answer(content)
    if report is None:
        raise _describe_death(module_function, child.returncode, printed)
    _raise_reported(module_function, report, printed)
    return LimitedRun(report["result"], time.monotonic() - started, report["peak_memory_bytes"])


def _child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    environment = {name: os.environ[name] for name in _PASSED_ENVIRONMENT if name in os.environ}
    environment.update(PYTHONPATH=str(_PROJECT_ROOT), PYTHONHASHSEED="0", RUST_BACKTRACE="0")
    environment.update(extra)
    return environment


def _wait_and_kill(
    child: subprocess.Popen[bytes], deadline: float, cancellation: Cancellation | None
) -> tuple[FailureKind | None, str]:
    """Wait until the child ends, the deadline passes or somebody cancels, then kill its whole group.

    Returns:
        Why it was killed, if it did not end by itself, and the tail of what was printed.
    """
    assert child.stdout is not None
    tail = b""
    watch = os.pidfd_open(child.pid)
    output = child.stdout.fileno()
    os.set_blocking(output, False)
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    poll.register(output, select.POLLIN)
    if cancellation is not None:
        poll.register(cancellation, select.POLLIN)
    ended_by: FailureKind | None = None
    try:
        while True:
            remaining = deadline - time.monotonic()
            ready = {descriptor for descriptor, _ in poll.poll(max(0.0, remaining) * 1_000)}
            if output in ready:
                chunk = _read_available(output)
                tail = (tail + chunk)[-STDERR_TAIL_BYTES:]
                if not chunk:
                    poll.unregister(output)
            if watch in ready:
                break
            if cancellation is not None and cancellation.fileno() in ready:
                ended_by = "cancelled"
                break
            if remaining <= 0:
                ended_by = "timeout"
                break
    finally:
        # The leader is not reaped yet, so its group id cannot belong to anybody else.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        tail = (tail + _read_available(output))[-STDERR_TAIL_BYTES:]
        child.stdout.close()
        os.close(watch)
    return ended_by, tail.decode(errors="replace")


def _read_available(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65_536)
    except BlockingIOError:
        return b""


def _read_answer(content: bytes) -> dict[str, Any] | None:
    if not content or len(content) > MAX_ANSWER_BYTES:
        return None
    try:
        report = json.loads(content)
    except ValueError:  # killed while it was writing
        return None
    return report if isinstance(report, dict) else None


def _raise_reported(function: str, report: dict[str, Any], printed: str) -> None:
    if "invalid" in report:
        raise InvalidInputError(**report["invalid"])
    if "failed" in report:
        failed = report["failed"]
        raise NativeCallFailed(function, failed["kind"], failed["message"], printed)


def _describe_death(function: str, code: int, printed: str) -> NativeCallFailed:
    if any(mark in printed for mark in _OUT_OF_MEMORY_MARKS):
        return NativeCallFailed(function, "memory", "the memory limit was reached", printed)
    if code == -signal.SIGKILL:  # not by us, since the deadline had not passed
        return NativeCallFailed(function, "memory", "killed by the system, most likely for lack of memory", printed)
    if code < 0:
        return NativeCallFailed(function, "crash", f"signal {signal.Signals(-code).name}", printed)
    return NativeCallFailed(function, "crash", f"exit code {code} without an answer", printed)


# --- the child --------------------------------------------------------------------------------------------------


def _limit(memory_bytes: int, cpu_seconds: int, parent: int) -> None:
    import ctypes

    # The kernel looks at the thread that called, not at the whole parent; that thread waits until the child ends.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the line above took effect
        os._exit(1)
    # RLIMIT_DATA, not RLIMIT_AS: native thread pools reserve far more address space than they ever write to.
    for kind, limit in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        effective = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (effective, effective))


def _peak_memory_bytes() -> int:
    # Not ru_maxrss, which starts from the parent's peak because it survives exec.
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def _resolve(module_function: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    module, _, function = module_function.partition(":")
    return getattr(importlib.import_module(module), function)


def _call(module_function: str, payload: dict[str, Any]) -> dict[str, Any]:
    """Call the function and describe whatever happens, native panics included."""
    try:
        result = _resolve(module_function)(payload)
        json.dumps(result)
    except InvalidInputError as error:
        return {"invalid": {"field": error.field, "problem": error.problem, "mend": error.mend}}
    except BaseException as error:  # PanicException derives from BaseException
        kind = "error" if isinstance(error, Exception) else "panic"
        if isinstance(error, MemoryError) or any(mark in str(error) for mark in _OUT_OF_MEMORY_MARKS):
            kind = "memory"
        return {"failed": {"kind": kind, "message": f"{type(error).__name__}: {error}"[:2_000]}}
    return {"result": result, "peak_memory_bytes": _peak_memory_bytes()}


def _answer(answer: IO[bytes], report: dict[str, Any]) -> None:
    answer.write(json.dumps(report).encode())
    answer.flush()


def main() -> None:
    """Serve one request of :func:`run_measured`."""
    request = json.load(sys.stdin)
    answer = os.fdopen(int(sys.argv[1]), "wb")
    os.set_inheritable(answer.fileno(), False)
    _limit(request["memory_bytes"], request["cpu_seconds"], request["parent"])
    _answer(answer, _call(request["function"], request["payload"]))
    sys.stdout.flush()
    # Native libraries sometimes crash or hang in their destructors; the answer is already complete.
    os._exit(0)


if __name__ == "__main__":
    main()

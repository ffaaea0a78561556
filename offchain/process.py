"""What our long-running programs share: their log, and sole use of their state directory."""

from __future__ import annotations

import fcntl
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from offchain.errors import UnrecoverableError


def log_to_stderr() -> None:
    """Log at level INFO to standard error, one line a message."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)


@contextmanager
def sole_use(state_directory: Path, program: str) -> Iterator[None]:
    """Hold a program's state directory, which is made if it is missing, for one process at a time.

    The lock goes with the process, however that ends.

    Args:
        program: what the error calls it: ``worker``.

    Raises:
        UnrecoverableError: another process holds it.
    """
    state_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state_directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UnrecoverableError(
                f"another {program} uses {state_directory}; stop it, or give this one its own state_directory"
            ) from None
        yield

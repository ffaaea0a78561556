"""Mines in a gateway: it is killed, as by a power cut, at one point."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import api.main  # noqa: F401  # what the process is to have imported when it is forked
from api.jobs.rows import JobRows
from api.models import registrar
from offchain.chain.sender import Sender


def die(*arguments: object, **options: object) -> None:
    """End at once: no handler runs and nothing is flushed."""
    os.kill(os.getpid(), signal.SIGKILL)


def after(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function do its work, and die before anybody hears of it."""

    def wrapped(*arguments: Any, **options: Any) -> None:
        function(*arguments, **options)
        die()

    return wrapped


def arm(point: str) -> None:
    """Lay the mine."""
    if point == "row written":
        JobRows.add = after(JobRows.add)  # type: ignore[method-assign]
    elif point == "before sending":
        Sender.send = die  # type: ignore[assignment, method-assign]
    elif point == "signed and sent":
        # The transaction is on its way, and nobody waits for it any more.
        Sender._wait = die  # type: ignore[assignment, method-assign]
    elif point == "mined":
        Sender.send = after(Sender.send)  # type: ignore[method-assign]
    elif point == "model prepared":
        registrar.publish = die  # type: ignore[assignment]
    elif point == "model published":
        registrar.publish = after(registrar.publish)
    else:
        raise ValueError(point)

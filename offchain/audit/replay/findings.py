"""What a replay finds, by what it is about."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from offchain.audit.report import show
from offchain.errors import InterlockError


class Topic(NamedTuple):
    """What a finding is about: one attempt at a segment, or the job as a whole (``segment`` is None)."""

    name: str
    segment: int | None = None
    attempt: int = 0


class FaultsFound(InterlockError):
    """A part of the record is not what the rest of it leads to."""


def _lists() -> dict[Topic, list[str]]:
    return defaultdict(list)


@dataclass
class Findings:
    """Gathers findings. A fault hides none of the others."""

    notes: dict[Topic, list[str]] = field(default_factory=_lists)
    faults: dict[Topic, list[str]] = field(default_factory=_lists)

    def note(self, topic: Topic, text: str) -> None:
        """Keep what was found right, in a clause."""
        self.notes[topic].append(text)

    def fault(self, topic: Topic, text: str) -> None:
        """Keep what was found wrong."""
        self.faults[topic].append(text)

    def compare(self, topic: Topic, what: str, expected: object, actual: object) -> bool:
        """Keep a fault if the two differ, and say whether they are equal."""
        if expected == actual:
            return True
        self.fault(topic, f"{what}: expected {show(expected)}, found {show(actual)}")
        return False

    def has(self, topic: Topic) -> bool:
        """Whether there is anything to say about a topic."""
        return bool(self.notes.get(topic)) or bool(self.faults.get(topic))

    def verdict(self, topic: Topic, nothing: str = "as recorded") -> str:
        """What was found, in one line.

        Args:
            nothing: what to say if there was nothing to note.

        Raises:
            FaultsFound: something is wrong.
        """
        if self.faults.get(topic):
            raise FaultsFound("; ".join(self.faults[topic]))
        return ", ".join(self.notes.get(topic, ())) or nothing

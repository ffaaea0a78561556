"""What the machine answers in place of a revert."""

from __future__ import annotations

from offchain.errors import InterlockError


class Refused(InterlockError):
    """A move that the contracts do not take; it changed nothing.

    Args:
        error: the name of the Solidity custom error.
        arguments: its arguments, in the order of their declaration.
    """

    def __init__(self, error: str, *arguments: object) -> None:
        super().__init__(f"{error}({', '.join(map(repr, arguments))})")
        self.error = error
        self.arguments = arguments

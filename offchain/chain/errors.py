"""What can go wrong between us and the chain."""

from __future__ import annotations

from offchain.errors import InterlockError, RecoverableError, UnrecoverableError


class ChainUnreachable(RecoverableError):
    """The RPC endpoint does not answer, or answers with something other than JSON-RPC."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"the chain's RPC at {url} did not serve a call: {reason}")
        self.url = url
        self.reason = reason


class WrongChain(UnrecoverableError):
    """The endpoint serves another chain than the one that was asked for, or has no contract where one must be."""


class TransactionRefused(InterlockError):
    """A contract refuses the call; nothing was sent, or what was sent changed nothing.

    Args:
        function: the function called.
        error: the name of the contract's custom error, or ``unknown``.
        arguments: the error's arguments by name.
    """

    def __init__(self, function: str, error: str, arguments: dict[str, object]) -> None:
        listed = ", ".join(f"{name}={_show(value)}" for name, value in arguments.items())
        super().__init__(f"{function} was refused: {error}({listed})")
        self.function = function
        self.error = error
        self.arguments = arguments


class TransactionNotMined(RecoverableError):
    """A transaction was sent and is not in a block yet; it may still get there.

    Args:
        hashes: every version of it that was sent, the last one with the highest fee.
    """

    def __init__(self, function: str, hashes: tuple[str, ...]) -> None:
        super().__init__(f"{function} is not mined yet: {', '.join(hashes)}")
        self.hashes = hashes


class InsufficientFunds(RecoverableError):
    """The account cannot pay for the transaction, until somebody sends it more."""


def _show(value: object) -> str:
    return "0x" + value.hex() if isinstance(value, bytes) else str(value)

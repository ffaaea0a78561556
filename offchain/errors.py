"""The error hierarchy of Interlock.

Callers decide by class: *recoverable* errors may be retried, *invalid input* is rejected and never retried,
*unrecoverable* errors stop the process that meets them. Values travel as attributes, causes are chained.
"""

from __future__ import annotations


class InterlockError(Exception):
    """Root of every error that Interlock raises on purpose."""


class RecoverableError(InterlockError):
    """Something outside is unwell (RPC, IPFS, a lost race); the same call may succeed later."""


class UnrecoverableError(InterlockError):
    """The state or the configuration is wrong; a retry cannot help and the process must stop."""


class InvalidInputError(InterlockError):
    """Somebody handed in something that can never be accepted as it is.

    Args:
        field: the name of the offending field, as its author knows it (for example ``input[3]``).
        problem: what is wrong with it, in one clause.
        mend: what to do about it, in the imperative.
    """

    def __init__(self, field: str, problem: str, mend: str) -> None:
        super().__init__(f"{field}: {problem}; {mend}")
        self.field = field
        self.problem = problem
        self.mend = mend

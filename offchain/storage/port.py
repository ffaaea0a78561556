"""The port behind which content is kept: what every store promises, and how it fails."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from offchain.errors import InvalidInputError, RecoverableError
from offchain.storage.cid import Cid


class StoreUnreachable(RecoverableError):
    """The node does not answer, broke off, or answers something that is no IPFS answer.

    Args:
        address: where the node was looked for.
        reason: what happened, in one clause.
    """

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(f"IPFS node at {address}: {reason}")
        self.address = address
        self.reason = reason


class ContentUnavailable(RecoverableError):
    """The node is well, but could not produce this content in time.

    Args:
        cid: what was asked for.
        reason: what the node said, or how long was waited.
    """

    def __init__(self, cid: Cid, reason: str) -> None:
        super().__init__(f"content {cid} is unavailable: {reason}")
        self.cid = cid
        self.reason = reason


class ContentCorrupt(RecoverableError):
    """The bytes that came do not hash to the CID that was meant; another peer or another try may have the right ones.

    Args:
        cid: what was meant.
        actual: the CID of what came, or the one that the node claimed.
    """

    def __init__(self, cid: Cid, actual: str) -> None:
        super().__init__(f"content {cid} is corrupt: what came is {actual}")
        self.cid = cid
        self.actual = actual


class ContentTooLarge(InvalidInputError):
    """The content is larger than the reader allows; the transfer was broken off.

    Args:
        cid: what was asked for.
        max_bytes: the reader's limit.
    """

    def __init__(self, cid: Cid, max_bytes: int) -> None:
        super().__init__(f"content {cid}", f"it has more than {max_bytes} bytes", "publish smaller content")
        self.cid = cid
        self.max_bytes = max_bytes


class LocalCopyFailed(RecoverableError):
    """The local copy could not be written (disk full, no permission); nothing was sent to the node.

    Args:
        cid: the content that was to be kept.
        reason: what the operating system said.
    """

    def __init__(self, cid: Cid, reason: str) -> None:
        super().__init__(f"no local copy of {cid}: {reason}; free some space and try again")
        self.cid = cid
        self.reason = reason


@dataclass(frozen=True)
class StoreHealth:
    """A node that answered.

    Args:
        peer_id: its libp2p identity.
        agent: its software and version.
        addresses: where other nodes reach it, as multiaddresses with the peer id.
    """

    peer_id: str
    agent: str
    addresses: tuple[str, ...]


class ContentReader(Protocol):
    """Reads content by CID; all that an audit needs."""

    def get(self, cid: Cid, *, max_bytes: int) -> bytes:
        """Fetch content, bounded in time and size, and check it against its CID.

        Args:
            cid: a CIDv0.
            max_bytes: where to break the transfer off, at least 0.
        Returns:
            Exactly the bytes whose CID was asked for.
        Raises:
            InvalidInputError: the CID is malformed.
            StoreUnreachable: the node does not answer or broke off.
            ContentUnavailable: the node could not find it in time.
            ContentCorrupt: other bytes came.
            ContentTooLarge: it is larger than ``max_bytes``.
        """
        ...


class ContentStore(ContentReader, Protocol):
    """Content by CID. Assumes nothing of the node's honesty: what comes back was hashed here.

    It does not promise that content stays available elsewhere, only that this node has pinned what ``put`` returned.
    Safe to call from several threads.
    """

    def put(self, content: bytes) -> Cid:
        """Add and pin content; may be repeated.

        Args:
            content: any bytes; they are public, so seal first what must not be.
        Returns:
            The CID, computed here and equal to the node's answer. On return the node has pinned it.
        Raises:
            StoreUnreachable: the node did not confirm.
            ContentCorrupt: the node confirmed another CID.
        """
        ...

    def pin(self, cid: Cid) -> None:
        """Have the node fetch and keep somebody else's content.

        Args:
            cid: a CIDv0.
        Raises:
            InvalidInputError, StoreUnreachable, ContentUnavailable: as for ``get``.
        """
        ...

    def unpin(self, cid: Cid) -> None:
        """Allow the node to forget content; unpinning what is not pinned does nothing.

        Args:
            cid: a CIDv0.
        Raises:
            InvalidInputError: the CID is malformed.
            StoreUnreachable: the node did not confirm.
        """
        ...

    def pinned(self) -> tuple[Cid, ...]:
        """List what was pinned on purpose (roots, not their chunks).

        Returns:
            CIDs, sorted.
        Raises:
            StoreUnreachable: the node does not answer.
        """
        ...

    def health(self) -> StoreHealth:
        """Ask the node who it is.

        Returns:
            Its identity and addresses.
        Raises:
            StoreUnreachable: the node does not answer.
        """
        ...

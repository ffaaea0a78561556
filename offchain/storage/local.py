"""A local copy by CID beside the node, so that an IPFS outage loses no content and stops no reader."""

from __future__ import annotations

import logging
import os
import tempfile
from pathlib import Path

from offchain.errors import RecoverableError
from offchain.storage.cid import Cid, cid_of, cid_to_digest
from offchain.storage.port import ContentStore, ContentTooLarge, LocalCopyFailed, StoreHealth, StoreUnreachable

_log = logging.getLogger(__name__)


class CachedStore:
    """A `ContentStore` that keeps what it has put or got in a directory, one file per CID.

    A file is written beside its place and renamed into it, so a kill at any instruction leaves whole files or none.
    What is read back is hashed again. The copies are never evicted; the directory belongs to one process at a time.

    Args:
        inner: the store that others read from.
        directory: where the copies are kept; made if it is missing.
    """

    def __init__(self, inner: ContentStore, directory: Path) -> None:
        self._inner = inner
        self._content = directory / "content"
        self._pending = directory / "pending"
        self._unfinished = directory / "unfinished"
        for folder in (self._content, self._pending, self._unfinished):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for left_over in self._unfinished.iterdir():
            left_over.unlink(missing_ok=True)

    def put(self, content: bytes) -> Cid:
        """Keep content here, then add and pin it on the node.

        Args:
            content: any bytes.
        Returns:
            The CID; on return the node has pinned it.
        Raises:
            LocalCopyFailed: the directory cannot be written.
            StoreUnreachable, ContentCorrupt: the node did not confirm. The content is kept and pending: `flush` or
                another `put` sends it.
        """
        cid = cid_of(content)
        try:
            self._keep(cid, content)
            (self._pending / cid).touch()
        except OSError as error:
            raise LocalCopyFailed(cid, str(error)) from error
        self._inner.put(content)
        (self._pending / cid).unlink(missing_ok=True)
        return cid

    def get(self, cid: Cid, *, max_bytes: int) -> bytes:
        """Read the local copy, or fetch content and keep it; see `ContentStore.get`."""
        content = self._kept(cid, max_bytes)
        if content is not None:
            return content
        content = self._inner.get(cid, max_bytes=max_bytes)
        try:
            self._keep(cid, content)
        except OSError as error:  # the reader has what it asked for; only the next outage will hurt
            _log.warning("no local copy of %s: %s", cid, error)
        return content

    def flush(self) -> tuple[Cid, ...]:
        """Send to the node whatever it has not confirmed yet.

        Returns:
            What was sent now, sorted.
        Raises:
            StoreUnreachable: the node is still away; what it did confirm is no longer pending.
            RecoverableError: the node refused some content; all the rest was sent.
        """
        sent: list[Cid] = []
        refused: RecoverableError | None = None
        for cid in self.pending():
            content = self._kept(cid, None)
            if content is None:
                _log.error("the local copy of %s was lost before the node had it; put it again", cid)
                (self._pending / cid).unlink(missing_ok=True)
                continue
            try:
                self._inner.put(content)
            except StoreUnreachable:
                raise
            except RecoverableError as error:
                refused = error
                continue
            (self._pending / cid).unlink(missing_ok=True)
            sent.append(cid)
        if refused is not None:
            raise refused
        return tuple(sent)

    def pending(self) -> tuple[Cid, ...]:
        """List what the node has not confirmed yet.

        Returns:
            CIDs, sorted.
        """
        return tuple(sorted(Cid(marker.name) for marker in self._pending.iterdir()))

    def pin(self, cid: Cid) -> None:
        """Have the node keep content; see `ContentStore.pin`."""
        self._inner.pin(cid)

    def unpin(self, cid: Cid) -> None:
        """Allow the node to forget content, and forget the local copy; see `ContentStore.unpin`."""
        cid_to_digest(cid)  # keeps a path out of the file names below
        self._inner.unpin(cid)
        (self._pending / cid).unlink(missing_ok=True)
        (self._content / cid).unlink(missing_ok=True)

    def pinned(self) -> tuple[Cid, ...]:
        """List what the node has pinned; see `ContentStore.pinned`."""
        return self._inner.pinned()

    def health(self) -> StoreHealth:
        """Ask the node who it is; see `ContentStore.health`."""
        return self._inner.health()

    def _keep(self, cid: Cid, content: bytes) -> None:
        handle, name = tempfile.mkstemp(dir=self._unfinished)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, self._content / cid)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    def _kept(self, cid: Cid, max_bytes: int | None) -> bytes | None:
        """Read the local copy; None if there is none, or if what lies there is not what its name says."""
        cid_to_digest(cid)  # also keeps a path out of the file name
        path = self._content / cid
        try:
            with path.open("rb") as file:
                if max_bytes is not None and os.fstat(file.fileno()).st_size > max_bytes:
                    raise ContentTooLarge(cid, max_bytes)
                content = file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("the local copy of %s cannot be read: %s", cid, error)
            return None
        if cid_of(content) != cid:
            _log.warning("the local copy of %s is corrupt and was dropped", cid)
            path.unlink(missing_ok=True)
            return None
        return content

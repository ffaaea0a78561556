"""`CachedStore`: an IPFS outage loses nothing, and the local copy is believed no more than the node."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from offchain.errors import InvalidInputError
from offchain.storage.cid import Cid, cid_of
from offchain.storage.ipfs import IpfsStore
from offchain.storage.local import CachedStore
from offchain.storage.node import start_node
from offchain.storage.port import ContentCorrupt, ContentTooLarge, ContentUnavailable, LocalCopyFailed, StoreUnreachable

pytestmark = pytest.mark.integration

NOWHERE = IpfsStore("http://127.0.0.1:9", 5)


class RefusesOne(IpfsStore):
    """A node that answers a wrong CID for one content; everything else is real."""

    refused = b""

    def put(self, content: bytes) -> Cid:
        if content == self.refused:
            raise ContentCorrupt(cid_of(content), "another")
        return super().put(content)


def test_get__node_is_gone__gives_what_was_put_and_got(tmp_path: Path) -> None:
    with start_node(tmp_path / "repository") as node:
        inner = IpfsStore(node.api_url, 30)
        foreign = inner.put(b"somebody else's")
        cached = CachedStore(inner, tmp_path / "copies")
        own = cached.put(b"our own")
        assert cached.get(foreign, max_bytes=100) == b"somebody else's"
    reopened = CachedStore(NOWHERE, tmp_path / "copies")
    assert reopened.get(own, max_bytes=100) == b"our own"
    assert reopened.get(foreign, max_bytes=100) == b"somebody else's"
    with pytest.raises(StoreUnreachable):
        reopened.get(cid_of(b"never seen"), max_bytes=100)


def test_flush__node_comes_back__sends_what_was_put_meanwhile(tmp_path: Path) -> None:
    contents = [b"one", b"two"]
    away = CachedStore(NOWHERE, tmp_path / "copies")
    for content in contents:
        with pytest.raises(StoreUnreachable):
            away.put(content)
        assert away.get(cid_of(content), max_bytes=10) == content
    with pytest.raises(StoreUnreachable):
        away.flush()
    cids = tuple(sorted(cid_of(content) for content in contents))
    assert away.pending() == cids
    with start_node(tmp_path / "repository") as node:
        back = CachedStore(IpfsStore(node.api_url, 30), tmp_path / "copies")  # a restarted worker
        assert back.pending() == cids
        assert back.flush() == cids
        assert back.pending() == back.flush() == ()
        assert back.pinned() == cids


def test_flush__node_refuses_one__sends_the_others_and_keeps_that_one(tmp_path: Path) -> None:
    away = CachedStore(NOWHERE, tmp_path / "copies")
    contents = [b"a", b"b", b"c"]
    for content in contents:
        with pytest.raises(StoreUnreachable):
            away.put(content)
    first = away.pending()[0]
    with start_node(tmp_path / "repository") as node:
        inner = RefusesOne(node.api_url, 30)
        inner.refused = away.get(first, max_bytes=1)
        back = CachedStore(inner, tmp_path / "copies")
        with pytest.raises(ContentCorrupt):
            back.flush()
        assert back.pending() == (first,)
        assert len(back.pinned()) == 2


@pytest.mark.parametrize("damage", [b"", b"our owm", b"our own and more"])
def test_get__local_copy_damaged__is_dropped_and_fetched_again(tmp_path: Path, damage: bytes) -> None:
    with start_node(tmp_path / "repository") as node:
        cached = CachedStore(IpfsStore(node.api_url, 30), tmp_path / "copies")
        cid = cached.put(b"our own")
        (tmp_path / "copies" / "content" / cid).write_bytes(damage)
        assert cached.get(cid, max_bytes=100) == b"our own"
    assert (tmp_path / "copies" / "content" / cid).read_bytes() == b"our own"


def test_get__local_copy_larger_than_allowed__is_refused(tmp_path: Path) -> None:
    cached = CachedStore(NOWHERE, tmp_path / "copies")
    with pytest.raises(StoreUnreachable):
        cached.put(b"twelve bytes")
    with pytest.raises(ContentTooLarge):
        cached.get(cid_of(b"twelve bytes"), max_bytes=11)


def test_flush__killed_before_the_rename__leaves_no_half_content(tmp_path: Path) -> None:
    CachedStore(NOWHERE, tmp_path / "copies")
    (tmp_path / "copies" / "unfinished" / "tmpabc").write_bytes(b"hal")
    cached = CachedStore(NOWHERE, tmp_path / "copies")
    assert list((tmp_path / "copies" / "unfinished").iterdir()) == []
    assert cached.pending() == ()


def test_put__rename_fails__nothing_is_kept_or_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = CachedStore(NOWHERE, tmp_path / "copies")

    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LocalCopyFailed) as caught:
        cached.put(b"x")
    assert caught.value.cid == cid_of(b"x")
    assert [path for path in (tmp_path / "copies").rglob("*") if path.is_file()] == []


def test_get__disk_full__still_gives_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with start_node(tmp_path / "repository") as node:
        inner = IpfsStore(node.api_url, 30)
        cid = inner.put(b"x")
        cached = CachedStore(inner, tmp_path / "copies")

        def full(source: object, target: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "replace", full)
        assert cached.get(cid, max_bytes=1) == b"x"


def test_unpin__own_content__is_forgotten_here_and_on_the_node(tmp_path: Path) -> None:
    with start_node(tmp_path / "repository") as node:
        cached = CachedStore(IpfsStore(node.api_url, 30), tmp_path / "copies")
        cid = cached.put(b"our own")
        cached.unpin(cid)
        assert cached.pinned() == ()
    with pytest.raises((StoreUnreachable, ContentUnavailable)):
        CachedStore(NOWHERE, tmp_path / "copies").get(cid, max_bytes=10)


@pytest.mark.parametrize("call", ["get", "unpin"])
def test_store__path_instead_of_a_cid__is_refused(tmp_path: Path, call: str) -> None:
    cached = CachedStore(NOWHERE, tmp_path / "copies")
    (tmp_path / "secret").write_bytes(b"x")
    arguments = {"max_bytes": 10} if call == "get" else {}
    with pytest.raises(InvalidInputError):
        getattr(cached, call)(Cid("../../secret"), **arguments)
    assert (tmp_path / "secret").exists()

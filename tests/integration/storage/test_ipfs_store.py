"""`IpfsStore` against the real node, and against servers that lie, stall and break."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from faulty_servers import Relay, http_answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offchain.errors import InvalidInputError
from offchain.storage.cid import CHUNK_BYTES, LINKS_PER_NODE, Cid, cid_of
from offchain.storage.ipfs import IpfsStore
from offchain.storage.node import RunningNode, start_node
from offchain.storage.port import ContentCorrupt, ContentTooLarge, ContentUnavailable, StoreUnreachable

pytestmark = pytest.mark.integration

Scripted = Callable[[Callable[[socket.socket], None]], str]
NOBODY_HAS = cid_of(b"content that was never put anywhere")
SEVERAL_CHUNKS = 3 * CHUNK_BYTES + 17


def content_of(size: int) -> bytes:
    return random.Random(size).randbytes(size)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, SEVERAL_CHUNKS])
def test_put__around_the_chunk_size__node_agrees_on_the_cid_and_gives_it_back(store: IpfsStore, size: int) -> None:
    content = content_of(size)
    assert store.get(store.put(content), max_bytes=size) == content


def test_put__more_chunks_than_one_node_links__node_agrees_on_the_cid(store: IpfsStore) -> None:
    content = content_of((LINKS_PER_NODE + 1) * CHUNK_BYTES - 5)
    cid = store.put(content)
    assert cid == cid_of(content)
    assert store.get(cid, max_bytes=len(content)) == content


@given(content=st.binary(max_size=2_000))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_put__any_bytes_twice__round_trip(store: IpfsStore, content: bytes) -> None:
    cid = store.put(content)
    assert store.put(content) == cid
    assert store.get(cid, max_bytes=2_000) == content


def test_pinned__several_puts__lists_roots_without_their_chunks(store: IpfsStore) -> None:
    chunk, whole = b"p" * CHUNK_BYTES, b"p" * CHUNK_BYTES + b"q" * CHUNK_BYTES + b"tail of this test"
    before = set(store.pinned())
    root = store.put(whole)
    assert set(store.pinned()) - before == {root}
    first_chunk = store.put(chunk)
    assert set(store.pinned()) - before == {root, first_chunk}
    store.unpin(root)
    assert set(store.pinned()) - before == {first_chunk}


def test_unpin__not_pinned__does_nothing(store: IpfsStore) -> None:
    store.unpin(cid_of(b"never pinned"))


def test_health__real_node__says_who_it_is(node: RunningNode, store: IpfsStore) -> None:
    health = store.health()
    assert health.peer_id == node.peer_id
    assert health.addresses == node.swarm_addresses
    assert all(address.startswith("/ip4/127.0.0.1/tcp/") for address in health.addresses)


def test_store__multiaddress_and_names__reach_the_node(node: RunningNode) -> None:
    port = node.api_url.rsplit(":", 1)[1]
    for address in (f"/ip4/127.0.0.1/tcp/{port}", f"/ip4/127.0.0.1/tcp/{port}/http", f"http://localhost:{port}/"):
        assert IpfsStore(address, 10).health().peer_id == node.peer_id


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1:5001", "ftp://127.0.0.1:1", "http://", "http://u:p@h:1", "http://h:1/x", "/ip4/h", "/x"]
)
def test_store__unusable_address__is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        IpfsStore(address, 1)
    assert caught.value.field == "api_url"


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_store__unusable_timeout__is_refused(seconds: float) -> None:
    with pytest.raises(InvalidInputError) as caught:
        IpfsStore("http://127.0.0.1:1", seconds)
    assert caught.value.field == "timeout_seconds"


def test_store__proxy_in_the_environment__is_not_used(node: RunningNode, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert IpfsStore(node.api_url, 10).health().peer_id == node.peer_id


def test_store__eight_threads__agree(store: IpfsStore) -> None:
    def work(worker: int) -> None:
        for step in range(20):
            content = f"{worker % 4} {step}".encode()
            assert store.get(store.put(content), max_bytes=10) == content

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))


def test_get__nobody_has_it__node_gives_up_by_itself(impatient: IpfsStore) -> None:
    with pytest.raises(ContentUnavailable) as caught:
        impatient.get(NOBODY_HAS, max_bytes=10)
    assert caught.value.cid == NOBODY_HAS
    assert "deadline" in caught.value.reason


def test_get__daemon_never_answers__gives_up(scripted: Scripted) -> None:
    over = threading.Event()
    with pytest.raises(ContentUnavailable) as caught:
        IpfsStore(scripted(lambda connection: over.wait(60) and None), 0.2).get(NOBODY_HAS, max_bytes=10)
    over.set()
    assert caught.value.reason == "no answer within 0.2 s"


def test_pin__nobody_has_it__is_unavailable_and_not_pinned(impatient: IpfsStore) -> None:
    with pytest.raises(ContentUnavailable):
        impatient.pin(NOBODY_HAS)
    assert NOBODY_HAS not in impatient.pinned()


@pytest.mark.parametrize("size", [100, SEVERAL_CHUNKS])
def test_get__larger_than_allowed__is_refused(store: IpfsStore, size: int) -> None:
    cid = store.put(content_of(size))
    with pytest.raises(ContentTooLarge) as caught:
        store.get(cid, max_bytes=size - 1)
    assert (caught.value.cid, caught.value.max_bytes) == (cid, size - 1)


@pytest.mark.parametrize("head", ["Transfer-Encoding: chunked", "X-Endless: yes", "Content-Length: 1000000000000"])
def test_get__endless_answer__is_cut_off_while_streaming(scripted: Scripted, head: str) -> None:
    sent, gone = [0], threading.Event()

    def respond(connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode())
        if "chunked" in head:  # one chunk that claims a terabyte
            connection.sendall(b"e8d4a51000\r\n")
        with contextlib.suppress(OSError):
            while sent[0] < 256 << 20:
                connection.sendall(bytes(65_536))
                sent[0] += 65_536
        gone.set()

    with pytest.raises(ContentTooLarge):
        IpfsStore(scripted(respond), 30).get(NOBODY_HAS, max_bytes=100_000)
    assert gone.wait(60)
    assert sent[0] < 64 << 20  # what the sockets buffered, not what the server had to give


def test_get__byte_by_byte_for_ever__is_cut_off(scripted: Scripted) -> None:
    over = threading.Event()

    def respond(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not over.wait(0.01):
            connection.sendall(b"1\r\nx\r\n")

    with pytest.raises(ContentUnavailable) as caught:
        IpfsStore(scripted(respond), 0.5).get(NOBODY_HAS, max_bytes=10_000)
    over.set()
    assert "bytes came in time" in caught.value.reason


def test_get__silence_in_the_middle__is_unavailable(scripted: Scripted) -> None:
    over = threading.Event()

    def respond(connection: socket.socket) -> None:
        connection.sendall(http_answer(b"x" * 100, length=1_000))
        over.wait(60)

    with pytest.raises(ContentUnavailable):
        IpfsStore(scripted(respond), 0.3).get(NOBODY_HAS, max_bytes=10_000)
    over.set()


@pytest.mark.parametrize("position", [0, 1_000, SEVERAL_CHUNKS - 1])
def test_get__one_wrong_byte__is_corrupt(scripted: Scripted, store: IpfsStore, position: int) -> None:
    content = content_of(SEVERAL_CHUNKS)
    cid = store.put(content)
    wrong = bytearray(store.get(cid, max_bytes=SEVERAL_CHUNKS))
    wrong[position] ^= 1
    liar = IpfsStore(scripted(lambda connection: connection.sendall(http_answer(bytes(wrong)))), 10)
    with pytest.raises(ContentCorrupt) as caught:
        liar.get(cid, max_bytes=SEVERAL_CHUNKS)
    assert (caught.value.cid, caught.value.actual) == (cid, cid_of(bytes(wrong)))


@pytest.mark.parametrize("cut", [0, 1, CHUNK_BYTES])
def test_get__fewer_bytes__is_corrupt(scripted: Scripted, cut: int) -> None:
    content = content_of(SEVERAL_CHUNKS)
    liar = IpfsStore(scripted(lambda connection: connection.sendall(http_answer(content[:cut]))), 10)
    with pytest.raises(ContentCorrupt):
        liar.get(cid_of(content), max_bytes=SEVERAL_CHUNKS)


def test_put__node_claims_another_cid__is_corrupt(scripted: Scripted) -> None:
    body = f'{{"Name": "x", "Hash": "{NOBODY_HAS}", "Size": "1"}}'.encode()
    liar = IpfsStore(scripted(lambda connection: connection.sendall(http_answer(body))), 10)
    with pytest.raises(ContentCorrupt) as caught:
        liar.put(b"x")
    assert (caught.value.cid, caught.value.actual) == (cid_of(b"x"), NOBODY_HAS)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 404 Gone\r\nContent-Length: 2\r\n\r\n{}",
        http_answer(b"not json", content_type="application/json"),
        http_answer(b"[]", content_type="application/json"),
        http_answer(b'{"other": 1}', content_type="application/json"),
        http_answer(b'{"Keys": null}', content_type="application/json"),
        http_answer(b"{}{}", content_type="application/json"),
        http_answer(b"", content_type="application/json"),
        http_answer(b'{"ID": "x"', length=5_000),
    ],
)
def test_store__answer_that_is_no_ipfs_answer__is_unreachable(scripted: Scripted, answer: bytes) -> None:
    broken = IpfsStore(scripted(lambda connection: connection.sendall(answer)), 5)
    calls: list[Callable[[], object]] = [
        broken.health,
        broken.pinned,
        lambda: broken.put(b"x"),
        lambda: broken.unpin(NOBODY_HAS),
        lambda: broken.connect_peer("/ip4/127.0.0.1/tcp/1/p2p/x"),
    ]
    for call in calls[:3]:
        with pytest.raises(StoreUnreachable):
            call()
    for call in calls[3:]:  # their answers carry nothing, so that only a failure is a failure
        with contextlib.suppress(StoreUnreachable):
            call()


def test_store__nothing_listens__is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    gone = IpfsStore(address, 5)
    calls: list[Callable[[], object]] = [
        gone.health,
        gone.pinned,
        lambda: gone.put(b"x"),
        lambda: gone.get(NOBODY_HAS, max_bytes=1),
        lambda: gone.pin(NOBODY_HAS),
        lambda: gone.unpin(NOBODY_HAS),
    ]
    for call in calls:
        with pytest.raises(StoreUnreachable) as caught:
            call()
        assert caught.value.address == address


@pytest.mark.parametrize("call", ["get", "pin", "unpin"])
def test_store__malformed_cid__is_refused_before_anything_is_sent(call: str) -> None:
    store = IpfsStore("http://127.0.0.1:9", 1)
    arguments = {"max_bytes": 1} if call == "get" else {}
    with pytest.raises(InvalidInputError) as caught:
        getattr(store, call)(Cid("../etc/passwd"), **arguments)
    assert caught.value.field == "cid"


def test_get__node_killed_in_the_middle__is_unreachable(fresh: Path) -> None:
    content = content_of(48 << 20)  # more than the sockets on the way can hold
    running = start_node(fresh)
    cid = IpfsStore(running.api_url, 60).put(content)
    relay = Relay(running.api_url, 1 << 20, running.kill)
    with pytest.raises(StoreUnreachable):
        IpfsStore(relay.url, 60).get(cid, max_bytes=len(content))
    assert running.process.wait(60) == -signal.SIGKILL


def test_put__node_killed_in_the_middle__is_unreachable(fresh: Path) -> None:
    running = start_node(fresh)
    relay = Relay(running.api_url, 1 << 20, running.kill)
    with pytest.raises(StoreUnreachable):
        IpfsStore(relay.url, 60).put(content_of(48 << 20))
    assert running.process.wait(60) == -signal.SIGKILL

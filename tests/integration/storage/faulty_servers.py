"""Servers that stand where an IPFS node should, and misbehave on purpose."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Responder = Callable[[socket.socket], None]


@contextlib.contextmanager
def scripted_server(respond: Responder) -> Iterator[str]:
    """Serve one request a connection, answered by ``respond``; gives the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:  # closed: the test is over
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                request += connection.recv(65_536)
            if b"chunked" in request.lower():
                while not request.endswith(b"0\r\n\r\n"):
                    request += connection.recv(65_536)
            respond(connection)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def http_answer(body: bytes, *, content_type: str = "text/plain", length: int | None = None) -> bytes:
    """Write an HTTP answer, with a false length on demand."""
    said = len(body) if length is None else length
    return f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {said}\r\n\r\n".encode() + body


@dataclass
class Relay:
    """A TCP relay to a node that calls ``at_limit`` once, when so many bytes have passed in either direction."""

    target: str
    limit: int
    at_limit: Callable[[], object]

    def __post_init__(self) -> None:
        self.passed = 0
        self._once = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        host, port = self.target.removeprefix("http://").split(":")
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                upstream = socket.create_connection((host, int(port)))
                for source, sink in ((client, upstream), (upstream, client)):
                    threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(16_384):
                self.passed += len(block)
                if self.passed > self.limit and self._once.acquire(blocking=False):
                    self.at_limit()
                sink.sendall(block)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()  # shut down alone, the kernel would go on taking what the client sends

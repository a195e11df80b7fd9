"""A proxy between the engine and a registry on loopback, which breaks what passes as the test says, and counts it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CHUNK = 64 * 1024
STILL_S = 600
"""Longer than anybody waits."""


@dataclass(frozen=True)
class Fault:
    """A status in the place of each answer; or of each large blob half, and then the end, or nothing for ever."""

    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    cut: bool = False
    stall: bool = False
    larger_than: int = CHUNK


@dataclass
class _Count:
    blobs: dict[str, int] = field(default_factory=dict)
    """Digest → bytes that were passed on."""
    refused: int = 0
    at_once: int = 0
    most_at_once: int = 0


class RegistryProxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.upstream = upstream
        self.host = f"127.0.0.1:{self.server_port}"
        self.fault: Fault | None = None
        self.pace_s = 0.0
        """How long each chunk of a blob waits, unless it is `over`."""
        self.count = _Count()
        self.over = threading.Event()
        self.lock = threading.Lock()

    def heal(self) -> None:
        self.fault, self.pace_s = None, 0.0

    def let_go(self) -> None:
        """What stands still ends."""
        self.over.set()
        self.over = threading.Event()

    def passed(self) -> int:
        """Bytes of blobs so far."""
        return sum(self.count.blobs.values())


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RegistryProxy

    def do_GET(self) -> None:
        fault = self.server.fault
        if fault and fault.status and self.path != "/v2/":
            self.server.count.refused += 1
            self._answer(fault.status, dict(fault.headers), b"{}")
            return
        connection = HTTPConnection(self.server.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, headers={k: v for k, v in self.headers.items() if k != "Host"})
            answer = connection.getresponse()
            body = answer.read()
            headers = {k: v for k, v in answer.getheaders() if k.lower() not in ("content-length", "date", "location")}
            length = int(answer.getheader("Content-Length") or len(body))
        finally:
            connection.close()
        if "/blobs/" in self.path and self.command == "GET" and answer.status in (200, 206):
            self._blob(answer.status, headers, body, fault)
        else:
            self._answer(answer.status, headers, body, length)

    do_HEAD = do_GET  # noqa: N815 - what it must be called

    def _answer(self, status: int, headers: dict[str, str], body: bytes, length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _blob(self, status: int, headers: dict[str, str], body: bytes, fault: Fault | None) -> None:
        server = self.server
        digest = self.path.rpartition("/")[2]
        broken = fault is not None and len(body) > fault.larger_than
        with server.lock:
            server.count.at_once += 1
            server.count.most_at_once = max(server.count.most_at_once, server.count.at_once)
        try:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            for at in range(0, len(body) // 2 if broken else len(body), CHUNK):
                server.over.wait(server.pace_s) if server.pace_s else None
                piece = body[at : at + CHUNK]
                self.wfile.write(piece)
                with server.lock:
                    server.count.blobs[digest] = server.count.blobs.get(digest, 0) + len(piece)
            if broken:
                if fault and fault.stall:
                    server.over.wait(STILL_S)
                self.close_connection = True
        except OSError:
            self.close_connection = True  # who asked has given up
        finally:
            with server.lock:
                server.count.at_once -= 1

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def registry_proxy(upstream: str) -> Iterator[RegistryProxy]:
    with serving(RegistryProxy(upstream)) as server:
        yield server


@contextmanager
def serving(server: RegistryProxy) -> Iterator[RegistryProxy]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()

"""A registry of one's own on loopback, for real pulls: just enough of the distribution protocol to serve images."""

import gzip
import hashlib
import io
import json
import platform
import secrets
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Registry"

    def do_GET(self) -> None:
        _, _, *rest = self.path.split("/")
        if self.server.wants_credentials:
            self._send(401, b"{}", {"WWW-Authenticate": 'Basic realm="here"'})
            return
        kind, name = rest[-2:] if len(rest) > 2 else ("", "")
        if self.path == "/v2/":
            self._send(200, b"{}")
        elif kind == "manifests" and name in self.server.manifests:
            body = self.server.manifests[name]
            self._send(200, body, {"Content-Type": MANIFEST, "Docker-Content-Digest": _digest(body)})
        elif kind == "blobs" and name in self.server.blobs:
            self._blob(self.server.blobs[name])
        else:
            self._send(404, b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}')

    do_HEAD = do_GET  # noqa: N815 - what it must be called

    def _blob(self, body: bytes) -> None:
        if self.server.stands_still and len(body) > 100_000:
            self._head(200, len(body), {})
            self.wfile.write(body[: len(body) // 2])
            self.server.half_way.set()
            self.server.over.wait(30)
            self.close_connection = True
        else:
            self._send(200, body)

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._head(status, len(body), headers or {})
        if self.command == "GET":
            self.wfile.write(body)

    def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(length)} | headers).items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Registry(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.host = f"127.0.0.1:{self.server_port}"
        self.manifests: dict[str, bytes] = {}
        """By tag and by digest."""
        self.blobs: dict[str, bytes] = {}
        self.wants_credentials = False
        self.stands_still = False
        self.half_way = threading.Event()
        self.over = threading.Event()

    def push(self, tag: str, architecture: str | None = None) -> str:
        """A new image of 1 MiB that cannot be compressed, under a tag; returns its digest."""
        layer = _layer(secrets.token_bytes(1 << 20))
        config = {
            "architecture": architecture or _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Cmd": ["/data"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
            "history": [{"created_by": "test"}],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self._stored("application/vnd.docker.container.image.v1+json", json.dumps(config).encode()),
            "layers": [self._stored("application/vnd.docker.image.rootfs.diff.tar.gzip", gzip.compress(layer, 1))],
        }
        body = json.dumps(manifest).encode()
        self.manifests[tag] = self.manifests[_digest(body)] = body
        return _digest(body)

    def _stored(self, kind: str, body: bytes) -> dict[str, object]:
        self.blobs[_digest(body)] = body
        return {"mediaType": kind, "size": len(body), "digest": _digest(body)}


@contextmanager
def registry() -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def _digest(body: bytes) -> str:
    return "sha256:" + hashlib.sha256(body).hexdigest()


def _layer(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        info = tarfile.TarInfo("data")
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()

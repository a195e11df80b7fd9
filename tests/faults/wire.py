"""Bad wires: a relay in front of the broker that can be slow, frozen or cut, and a proxy in front of the engine."""

import contextlib
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from tests.broker import Cable

CHUNK = 4096
NOISY = 0.3
"""The share of pieces that noise comes after."""


class Wire(Cable):
    """A cable that can be bad without being cut."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self.delay_s = 0.0
        self.bytes_per_s: float | None = None
        self.cut_after_bytes: int | None = None
        """Of what a connection carries to the device: then it ends."""
        self.deaf = False
        """What the broker says is lost; what the device says arrives."""
        self.noise: random.Random | None = None
        """Of what the broker says, now and then, random bytes come too."""
        self._flows = threading.Event()
        self._flows.set()
        self._wait = threading.Event()

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Nothing arrives any more, and nobody is told."""
        self._flows.clear()
        try:
            yield
        finally:
            self._flows.set()

    def heal(self) -> None:
        self.delay_s, self.bytes_per_s, self.cut_after_bytes, self.deaf, self.noise = 0.0, None, None, False, None
        self._flows.set()

    def _carry(self, source: socket.socket, drain: socket.socket) -> None:  # type: ignore[override]
        carried = 0
        with contextlib.suppress(OSError):
            to_device = source.getpeername() == self._target
            while data := source.recv(CHUNK):
                self._flows.wait()
                self._wait.wait(self.delay_s + (len(data) / self.bytes_per_s if self.bytes_per_s else 0.0))
                carried += len(data)
                if self.cut_after_bytes is not None and carried > self.cut_after_bytes:
                    break
                if to_device and self.deaf:
                    continue
                if to_device and self.noise and self.noise.random() < NOISY:
                    data += self.noise.randbytes(self.noise.randint(1, 32))
                drain.sendall(data)
        for sock in (source, drain):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


@dataclass
class Rule:
    """What happens to the requests whose line has `part` in it, `times` of them (None: all).

    Without `status`, `lost` and `delay_s` they hang until the rule is gone.
    """

    part: str
    status: int = 0
    """Answer with this instead of asking the engine."""
    lost: bool = False
    """The engine carries it out, and then the connection ends without its answer."""
    delay_s: float = 0.0
    """Ask the engine, and so much later."""
    message: str = "injected: the engine says no"
    times: int | None = None
    chance: float = 1.0
    gone: threading.Event = field(default_factory=threading.Event)


class EngineProxy:
    """A Unix socket in front of the engine's, on which single calls can fail, hang or be cut.

    One request a connection: it closes after each answer, which the protocol allows at any time.
    """

    def __init__(
        self, engine: Path, path: Path, rng: random.Random, heard: Callable[[str], None] = lambda _: None
    ) -> None:
        """`heard` is told the first line of each request, whatever becomes of it, by several threads."""
        self.url = f"unix://{path}"
        self._heard = heard
        self._engine = engine
        self._random = rng
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._open: set[socket.socket] = set()
        self._path = path
        self._listener: socket.socket | None = None
        self.listen()

    def listen(self) -> None:
        self._path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self._path))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """As an engine that is gone: no socket, and what was open is cut."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self._path.unlink(missing_ok=True)
        self.cut()

    close = refuse

    def cut(self) -> None:
        """End every connection in the middle of whatever it carries."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def failing(self, *rules: Rule) -> Iterator[None]:
        with self._lock:
            self._rules += rules
        try:
            yield
        finally:
            with self._lock:
                self._rules = [rule for rule in self._rules if rule not in rules]
            for rule in rules:
                rule.gone.set()

    def _rule(self, line: str) -> Rule | None:
        with self._lock:
            for rule in self._rules:
                if rule.part in line and rule.times != 0 and self._random.random() < rule.chance:
                    rule.times = None if rule.times is None else rule.times - 1
                    return rule
        return None

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, self._counted(near), contextlib.suppress(OSError):
            head = _until_blank_line(near)
            if not head:
                return
            line = head.split(b"\r\n", 1)[0].decode(errors="replace")
            self._heard(line)
            rule = self._rule(line)
            if rule and rule.status:
                near.sendall(_answer(rule.status, rule.message))
                return
            if rule and rule.delay_s:
                rule.gone.wait(rule.delay_s)
            elif rule and not rule.lost:
                rule.gone.wait()
                return
            self._forward(near, head, lost=rule is not None and rule.lost)

    def _forward(self, near: socket.socket, head: bytes, *, lost: bool) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as far, self._counted(far):
            far.connect(str(self._engine))
            first, _, rest = head.partition(b"\r\n")
            far.sendall(first + b"\r\nConnection: close\r\n" + _without_connection(rest))
            threading.Thread(target=_carry, args=(near, far), daemon=True).start()
            if lost:
                while far.recv(65536):
                    pass  # it has been carried out when its answer has come to its end
                near.shutdown(socket.SHUT_RDWR)
            else:
                _carry(far, near)

    @contextlib.contextmanager
    def _counted(self, connection: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.add(connection)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(connection)


def _carry(source: socket.socket, drain: socket.socket) -> None:
    """What has ended on one side ends on the other; a request's end alone ends nothing."""
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            drain.sendall(data)
    with contextlib.suppress(OSError):
        drain.shutdown(socket.SHUT_WR)


def _until_blank_line(connection: socket.socket) -> bytes:
    """The head of a request, and what of its body came with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return b""
        data += more
    return data


def _without_connection(head: bytes) -> bytes:
    lines, blank, body = head.partition(b"\r\n\r\n")
    kept = [line for line in lines.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join(kept) + blank + body


def _answer(status: int, message: str) -> bytes:
    body = json.dumps({"message": message}).encode()
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body

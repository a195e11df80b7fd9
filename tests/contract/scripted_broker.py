"""A broker of a few bytes: it says what no real one can be brought to say."""

import contextlib
import socket
import threading
from typing import Any, Self

from device_agent.adapters.mqtt import Broker, parse_url

CONNACK = b"\x20\x03\x00\x00\x00"
"""Accepted, without properties."""
SUBACK = b"\x90\x04\x00\x01\x00\x01"
"""One subscription granted, QoS 1."""


def connack(reason: int = 0, properties: bytes = b"") -> bytes:
    """MQTT 5. `properties` are their identifiers and values, without the length."""
    return bytes((0x20, 3 + len(properties), 0, reason, len(properties))) + properties


def disconnect(reason: int, properties: bytes = b"") -> bytes:
    """MQTT 5."""
    return bytes((0xE0, 2 + len(properties), reason, len(properties))) + properties


def reference(where: str) -> bytes:
    """The property Server Reference."""
    return b"\x1c" + len(where).to_bytes(2, "big") + where.encode()


class Scripted:
    """A listener that answers whatever is sent with the next of `answers`, and notes what was sent.

    It does so for so many connections (`times`). With `again` it takes one more, and answers there with these.
    """

    def __init__(self, *answers: bytes, times: int = 1, again: tuple[bytes, ...] = ()) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._answers = (answers,) * times + ((again,) if again else ())
        self.heard: list[bytes] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def settings(self, version: Any = "5") -> Broker:
        return Broker(parse_url(f"mqtt://127.0.0.1:{self.port}"), version=version)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        for answers in self._answers:
            with contextlib.suppress(OSError):
                sock, _ = self._listener.accept()
                with sock:
                    for answer in answers:
                        self.heard.append(sock.recv(4096))
                        sock.sendall(answer)
                    while sock.recv(4096):
                        pass

"""What the engine tells at the moment it happens: afterwards it knows its last 256 events, and after its end none."""

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import docker

from tests.e2e.host import Host

if TYPE_CHECKING:
    from docker.types.daemon import CancellableStream

AGAIN_S = 0.2


@dataclass(frozen=True, slots=True)
class Told:
    at: float
    """On the engine's clock, in seconds."""
    what: str
    """create, start or die."""
    container: str


class Watcher:
    """Of the containers of one service of a device."""

    def __init__(self, host: Host, label: str, service: str) -> None:
        self._api = docker.APIClient(base_url=host.url, version="auto")
        labels = [label, f"device-agent.service={service}"]
        self._filters = {"type": "container", "event": ["create", "start", "die"], "label": labels}
        self._told: list[Told] = []
        self._deaf_at = 0.0
        self._closed = threading.Event()
        self._stream: CancellableStream = self._api.events(filters=self._filters, decode=True)
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._stream.close()
        self._thread.join(5)
        self._api.close()

    def since(self, began: float) -> list[Told] | None:
        """In the order of time; None when the engine was away meanwhile, and there may have been more."""
        return [told for told in self._told if told.at >= began] if self._deaf_at < began else None

    def _listen(self) -> None:
        while not self._closed.is_set():
            # An engine that is stopped or killed ends the stream in one way or another.
            with contextlib.suppress(Exception):
                for event in self._stream:
                    self._told.append(Told(event["timeNano"] / 1e9, event["status"], event["id"]))
            self._listen_again()

    def _listen_again(self) -> None:
        while not self._closed.is_set():
            self._deaf_at = now()
            with contextlib.suppress(Exception):
                self._stream = self._api.events(filters=self._filters, decode=True)
                return
            self._closed.wait(AGAIN_S)


def now() -> float:
    """On the engine's clock, which is this machine's."""
    return time.time()

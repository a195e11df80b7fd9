"""`device-agent run`, with its power cut at a chosen call of a port: kill -9, before the call or after it.

`POWER_CUT` says where, and is read by nothing but this file: `before engine.stop 1` is before the first stop,
`after any 12` after the twelfth call of whatever; `never` cuts nothing. Each call is told on standard error. What
leaves no trace (reads of the outbox and of the clock) is not counted.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from device_agent.cli import run, serve

NEVER = "never"
_SILENT = frozenset(
    ("store.outbox", "store.outbox_counts", "store.close", "engine.begin", "engine.events", "transport.stop")
)


class Fuse:
    """Counts calls, from whatever thread, and ends the process at one of them."""

    def __init__(self, word: str) -> None:
        self._when, self._name, number = (word if word != NEVER else f"{NEVER} any 0").split()
        self._at = int(number)
        self._counted = 0
        self._lock = threading.Lock()

    def through(self, name: str, call: Callable[[], Any]) -> Any:
        with self._lock:
            self._counted += self._name in {name, "any"}
            hit = self._name in {name, "any"} and self._counted == self._at
        os.write(2, f"port call {name}\n".encode())
        if hit and self._when == "before":
            self._blow(name)
        result = call()
        if hit and self._when == "after":
            self._blow(name)
        return result

    def _blow(self, name: str) -> None:
        os.write(2, f"power cut {self._when} {name}\n".encode())
        os.kill(os.getpid(), signal.SIGKILL)


class Fused:
    """A port's methods, through the fuse."""

    def __init__(self, port: Any, fuse: Fuse, room: str) -> None:
        self._port = port
        self._fuse = fuse
        self._room = room

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._port, name)
        if not callable(method) or f"{self._room}.{name}" in _SILENT:
            return method

        def fused(*args: Any, **more: Any) -> Any:
            return self._fuse.through(f"{self._room}.{name}", lambda: method(*args, **more))

        return fused


class FusedStore(Fused):
    def transaction(self) -> AbstractContextManager[Any]:
        return self._transaction()

    @contextmanager
    def _transaction(self) -> Iterator[Any]:
        transaction = self._port.transaction()
        yield Fused(transaction.__enter__(), self._fuse, "transaction")
        self._fuse.through("store.commit", lambda: transaction.__exit__(None, None, None))


def main() -> int:
    fuse = Fuse(os.environ["POWER_CUT"])
    store, engine, transport = serve.open_store, run.DockerEngine, serve._transport
    serve.open_store = lambda *args: FusedStore(store(*args), fuse, "store")  # type: ignore[assignment]
    run.DockerEngine = lambda *args, **keys: Fused(engine(*args, **keys), fuse, "engine")  # type: ignore[assignment,misc]
    serve._transport = lambda *args: Fused(transport(*args), fuse, "transport")  # type: ignore[assignment]
    return run.run()


if __name__ == "__main__":
    sys.exit(main())

"""Worker threads, in lanes, so that what is slow delays nothing else: a pull or a stop never holds up a start."""

import queue
import threading
from collections.abc import Callable
from typing import Protocol

CALL, STOP, PULL, LOG = "call", "stop", "pull", "log"

_IDLE_S = 30.0


class Workers(Protocol):
    def submit(self, lane: str, job: Callable[[], None]) -> None:
        """Run `job` soon, on some thread. It must not raise."""


class ThreadWorkers:
    """Threads are started when there is work and end when there has been none for half a minute."""

    def __init__(self, lanes: dict[str, int], crashed: Callable[[str, BaseException], None]) -> None:
        """`lanes`: name → how many jobs at once. `crashed`: told of a job that raised, which is a defect."""
        self._lanes = {name: _Lane(name, size, crashed) for name, size in lanes.items()}

    def submit(self, lane: str, job: Callable[[], None]) -> None:
        self._lanes[lane].submit(job)


class _Lane:
    def __init__(self, name: str, size: int, crashed: Callable[[str, BaseException], None]) -> None:
        self._name = name
        self._crashed = crashed
        self._size = size
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._idle = 0

    def submit(self, job: Callable[[], None]) -> None:
        with self._lock:
            self._jobs.put(job)
            if self._idle < self._jobs.qsize() and self._threads < self._size:
                self._threads += 1
                # Daemons: an engine call that hangs must not keep the process from ending.
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=_IDLE_S)
            except queue.Empty:
                job = None
            with self._lock:
                self._idle -= 1
                if job is None and self._jobs.empty():
                    self._threads -= 1
                    return
            if job is not None:
                try:
                    job()
                except BaseException as error:  # noqa: BLE001 - a job that vanishes would leave the loop waiting for ever
                    self._crashed(threading.current_thread().name, error)

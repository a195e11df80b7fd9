"""Ends an agent whose loop stands still: it would look alive, and do nothing for ever.

Where there is no memory for a new thread, for one, Python leaves whoever starts it waiting.
"""

import threading
from collections.abc import Callable

EVERY_S = 30.0
PATIENCE = 3
"""Looks in a row without a beat between them. Counted, not measured: a process that was paused has missed one."""


class Watchdog:
    def __init__(self, hung: Callable[[], object], *, every_s: float = EVERY_S, patience: int = PATIENCE) -> None:
        """`hung` is called in a thread of its own when the beats have stopped. There may be no memory left then."""
        self._hung = hung
        self._every_s = every_s
        self._patience = patience
        self._beats = 0
        self._never = threading.Event()

    def beat(self) -> None:
        """The loop goes on. At least once in `every_s`."""
        self._beats += 1

    def start(self) -> None:
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def _watch(self) -> None:
        seen, missed = self._beats, 0
        try:
            while missed < self._patience:
                self._never.wait(self._every_s)
                missed = missed + 1 if self._beats == seen else 0
                seen = self._beats
        finally:
            # Also when looking itself has failed: nobody would be watching.
            self._hung()

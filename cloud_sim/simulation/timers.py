"""What is to happen later, for thousands of devices in one thread."""

import heapq
import itertools
from collections.abc import Callable

from cloud_sim.clock import monotonic

Job = Callable[[], None]


class Timers:
    """Jobs, by when they fall due on the clock `now`; of two that fall due together the first added is first."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self.now = now
        self._heap: list[tuple[float, int, Job]] = []
        self._count = itertools.count()

    def __len__(self) -> int:
        return len(self._heap)

    def at(self, due: float, job: Job) -> None:
        heapq.heappush(self._heap, (due, next(self._count), job))

    def after(self, delay_s: float, job: Job) -> None:
        self.at(self.now() + delay_s, job)

    def next_due(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def run(self, at_most_s: float) -> None:
        """What is due, for so long at most. What a job adds for now waits for the next call."""
        began = self.now()
        while self._heap and self._heap[0][0] <= began:
            heapq.heappop(self._heap)[2]()
            if self.now() - began >= at_most_s:
                return

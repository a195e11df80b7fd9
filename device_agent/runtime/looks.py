"""When and how closely the engine is looked at: one look at a time, on a worker, which tells `Looked`."""

from dataclasses import dataclass

from device_agent.model.errors import EngineAway, EngineError
from device_agent.ports import Clock, Engine
from device_agent.runtime.inbox import Looked, Put
from device_agent.runtime.workers import CALL, Workers

DEEP_S = 600.0
"""How often everything is inspected, events or not."""


@dataclass(slots=True)
class Looks:
    engine: Engine
    workers: Workers
    clock: Clock
    put: Put
    flying: bool = False
    number: int = 0
    """Of the newest look."""
    begun_at: float = 0.0
    """When that was begun."""
    _at: float | None = 0.0
    _stale: frozenset[str] = frozenset()
    """Containers to inspect anew."""
    _deep: bool = False
    _deep_at: float = 0.0

    def wake(self, delay_s: float = 0.0, *, stale: frozenset[str] = frozenset(), deep: bool = False) -> None:
        """Look at the engine after `delay_s`, or sooner if that was planned before; inspect `stale` containers anew."""
        at = self.clock.monotonic() + delay_s
        self._at = at if self._at is None else min(at, self._at)
        self._deep |= deep
        self._stale |= stale

    def next_due(self) -> float:
        return self._deep_at if self._at is None else min(self._at, self._deep_at)

    def tick(self) -> None:
        """Look when it is time to."""
        now = self.clock.monotonic()
        if now >= self._deep_at:
            self._deep_at = now + DEEP_S
            self.wake(deep=self.number > 0)
        if self._at is not None and now >= self._at:
            self._look()

    def _look(self) -> None:
        number, stale = self.number + 1, None if self._deep else self._stale
        self.flying, self.number, self.begun_at = True, number, self.clock.monotonic()
        self._at, self._stale, self._deep = None, frozenset(), False

        def job() -> None:
            try:
                self.put(Looked(number, self.engine.observe(stale)))
            except (EngineAway, EngineError) as error:
                self.put(Looked(number, None, str(error)))

        self.workers.submit(CALL, job)

"""What has failed and is tried again: how often, with what error, and when next. It survives a restart of the agent."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from device_agent.core.backoff import CAP_S, Attempts, due
from device_agent.model.errors import EngineError, Kind
from device_agent.model.memory import Attempt
from device_agent.ports import Clock
from device_agent.runtime.execute import delay_s

ALIKE = 10
"""From so many failures on a further one makes no difference to the next: it waits as long as ever."""

log = structlog.get_logger()


@dataclass(slots=True)
class Retries:
    clock: Clock
    keep: Callable[[Attempt], None]
    """An attempt to persist."""
    forget: Callable[[str, str], None]
    """An attempt (app, subject) that is over."""
    rows: dict[tuple[str, str], Attempt] = field(default_factory=dict)
    _woke_for: dict[tuple[str, str], datetime] = field(default_factory=dict)
    """Attempt → its next time, where that has come: one that is due can still have to wait for something else."""

    def attempts(self) -> Attempts:
        return Attempts(self.clock.now(), self.rows)

    def failed(self, app: str, subject: str, spec: str, error: EngineError) -> None:
        """Once more. The counter is of a spec: another one begins anew."""
        before = self.rows.get((app, subject))
        count = before.count + 1 if before and before.spec == spec else 1
        now = self.clock.now()
        # The delay as well: what all devices of a fleet are told to wait for ends at one time.
        wait_s = min(error.wait_s + delay_s(count, error.kind), CAP_S)
        next_at = now + timedelta(seconds=wait_s)
        attempt = Attempt(app, subject, spec, count, error.code, error.message, next_at, now)
        self.rows[app, subject] = attempt
        if before is None or (before.spec, before.code) != (spec, error.code) or before.count < ALIKE:
            # What cannot be done would otherwise be written for ever. After a restart it is awaited anew.
            self.keep(attempt)
        log.warning(
            "attempt",
            app=app or None,
            subject=subject,
            code=error.code,
            message=error.message,
            attempt=count,
            next_try_at=next_at.isoformat(timespec="milliseconds"),
        )

    def await_anew(self) -> None:
        """After a start: of what is not written any more, the time that is stored is one of long ago.

        A random one as after any failure, and not the cap: an agent that is started again and again tries it no more
        often for that, and does try it.
        """
        now = self.clock.now()
        for key, row in self.rows.items():
            if row.count >= ALIKE and due(row, now):
                wait_s = delay_s(row.count, Kind.OUTSIDE)  # from so many on it is the same for every kind
                self.rows[key] = replace(row, next_at=now + timedelta(seconds=wait_s))

    def drop(self, keys: Collection[tuple[str, str]]) -> None:
        """These (app, subject) are over, or are not to wait any longer."""
        for key in keys:
            del self.rows[key]
            self._woke_for.pop(key, None)
            self.forget(*key)

    def next_due(self) -> float | None:
        """Monotonic time of the first one that is due."""
        now, wall = self.clock.monotonic(), self.clock.now()
        left = ((row.next_at - wall).total_seconds() for row in self._not_yet_due())
        return min((now + (seconds if 0 <= seconds <= CAP_S else 0.0) for seconds in left), default=None)

    def come_due(self) -> bool:
        """Whether the time of one has come since this was asked last."""
        fresh = [row for row in self._not_yet_due() if due(row, self.clock.now())]
        self._woke_for |= {(row.app, row.subject): row.next_at for row in fresh}
        return bool(fresh)

    def _not_yet_due(self) -> Iterator[Attempt]:
        return (row for key, row in self.rows.items() if self._woke_for.get(key) != row.next_at)

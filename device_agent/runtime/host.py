"""Looks after the machine: its figures once a minute, and the events of a short disk and of a clock that was set."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from device_agent.core.host import disk_short, jump_s
from device_agent.model.host import HostFigures
from device_agent.model.report import Happening
from device_agent.ports import Clock, Host

EVERY_S = 60.0

log = structlog.get_logger()


@dataclass(slots=True)
class HostWatch:
    host: Host
    clock: Clock
    tell: Callable[[Happening], None]
    figures: HostFigures | None = None
    """As they were taken last."""
    _due: float = field(default=0.0, init=False)
    _short: bool = field(default=False, init=False)
    _ahead: timedelta | None = field(default=None, init=False)
    """How far the wall clock is ahead of the monotonic one."""

    def next_due(self) -> float:
        return self._due

    def tick(self) -> bool:
        """Whether there are new figures."""
        self._watch_clock()
        now = self.clock.monotonic()
        if now < self._due:
            return False
        self._due = now + EVERY_S
        self.figures = self.host.figures()
        self._watch_disk(self.figures)
        return True

    def _watch_clock(self) -> None:
        now = self.clock.now()
        ahead = now - datetime.fromtimestamp(0, UTC) - timedelta(seconds=self.clock.monotonic())
        jumped_s = None if self._ahead is None else jump_s(self._ahead, ahead)
        self._ahead = ahead
        if jumped_s is not None:
            way = "forward" if jumped_s > 0 else "back"
            message = f"the clock went {abs(jumped_s):.0f} s {way}: it was set, or the machine slept"
            log.warning("clock jump", seconds=round(jumped_s))
            self.tell(Happening("clock_jump", {"seconds": round(jumped_s), "message": message}))

    def _watch_disk(self, figures: HostFigures) -> None:
        short = disk_short(figures, before=self._short)
        if short == self._short:
            return
        self._short = short
        free, total = figures.disk_free_mib, figures.disk_total_mib
        message = f"{free} MiB of {total} MiB are free on the volume with the database"
        log.warning("disk short" if short else "disk ok", free_mib=free, total_mib=total)
        fields = {"disk_free_mib": free, "disk_total_mib": total, "message": message}
        self.tell(Happening("disk_short" if short else "disk_ok", fields))

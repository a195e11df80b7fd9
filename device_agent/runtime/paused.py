"""Containers that somebody has paused: told once for each time, not once for each look."""

from collections.abc import Iterator
from dataclasses import dataclass

import structlog

from device_agent.model.observed import Observed, Status
from device_agent.model.report import Happening

log = structlog.get_logger()


@dataclass(slots=True)
class Paused:
    _told: frozenset[str] = frozenset()
    """Container ids. Only in memory: after a restart of the agent it is told again."""

    def seen(self, observed: Observed) -> Iterator[Happening]:
        """Tell of those that were not paused when it was looked last."""
        before = self._told
        paused = sorted((c for c in observed.containers if c.status is Status.PAUSED), key=lambda c: c.id)
        self._told = frozenset(c.id for c in paused)
        for container in paused:
            if container.id not in before:
                message = f"somebody paused it: docker unpause {container.name}"
                log.warning("paused", app=container.app, service=container.service, container=container.name)
                fields = {"app": container.app, "service": container.service, "container": container.name}
                yield Happening("paused", {**fields, "message": message})

"""The last log lines of what crashes: read once for each spell of trouble, not once for each crash."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from device_agent.model.observed import Container, Health, Observed, Status
from device_agent.model.report import Happening
from device_agent.model.steps import Plan, Remove
from device_agent.ports import Engine
from device_agent.runtime.inbox import Put, TailRead
from device_agent.runtime.workers import CALL, Workers

LINES = 10


@dataclass(slots=True)
class Tails:
    engine: Engine
    workers: Workers
    put: Put
    texts: dict[str, str] = field(default_factory=dict)
    """Container id → its last lines; empty until they have been read."""
    _loops: dict[str, Container | None] = field(default_factory=dict)
    """By id, what crashes again and again: as it was seen, until its event is told, then None."""

    def read(self, observed: Observed, plans: Iterable[Plan]) -> None:
        """Ask for the lines of what is in trouble, and forget those of what is not any more.

        What has ended and is to be removed by one of the `plans` is in none: most likely it was stopped to be replaced.
        """
        going = {step.action.id for plan in plans for step in plan.steps if isinstance(step.action, Remove)}
        for container in observed.containers:
            if container.status is Status.EXITED and container.id in going:
                continue
            if not _troubled(container):
                if container.status is Status.RUNNING and container.restarts == 0:
                    self._forget(container.id)
            elif container.id not in self.texts or self._begins_to_loop(container):
                self.texts.setdefault(container.id, "")
                if self._begins_to_loop(container):
                    self._loops[container.id] = container
                self.workers.submit(CALL, self._reading(container.id))
        for gone in self.texts.keys() - {c.id for c in observed.containers}:
            self._forget(gone)

    def _forget(self, container_id: str) -> None:
        self.texts.pop(container_id, None)
        self._loops.pop(container_id, None)

    def _begins_to_loop(self, container: Container) -> bool:
        return container.status is Status.RESTARTING and container.id not in self._loops

    def _reading(self, container_id: str) -> Callable[[], None]:
        def job() -> None:
            try:
                text = self.engine.tail(container_id, LINES)
            except Exception as error:  # noqa: BLE001 - for people only: what cannot be read is said
                text = f"(not readable: {error})"
            self.put(TailRead(container_id, text))

        return job

    def heard(self, event: TailRead) -> Happening | None:
        """Keep the lines; of a crash loop they make its event."""
        if event.container_id not in self.texts:
            return None
        self.texts[event.container_id] = event.text
        # As it was when it was seen restarting: by now it may run again, until its next crash.
        container = self._loops.get(event.container_id)
        if container is None:
            return None
        self._loops[event.container_id] = None
        fields = {
            "app": container.app,
            "service": container.service,
            "container": container.name,
            "exit_code": container.exit_code,
            "restarts": container.restarts,
            "log": event.text,
        }
        return Happening("crash_loop", fields)


def _troubled(container: Container) -> bool:
    return (
        container.status is Status.RESTARTING
        or container.health is Health.UNHEALTHY
        or (container.status is Status.EXITED and bool(container.exit_code))
    )

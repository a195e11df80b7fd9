"""Removes the images of this agent's own pulls that nothing wants any more: after an update, or for want of space.

Best effort, and quiet: what the engine does not let go is tried again an hour later, which is in memory only. A crash
between the removal and the note of it leaves a row of an image that is not here, which the next look forgets.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from device_agent.core.images import garbage, images_of
from device_agent.core.wanted import WantedApp
from device_agent.model.errors import EngineAway, EngineError
from device_agent.model.memory import AcceptedTarget, AppRecord, PulledImage
from device_agent.model.observed import Observed
from device_agent.model.report import Happening
from device_agent.model.steps import RemoveImage
from device_agent.ports import Clock, Engine
from device_agent.runtime.execute import execute
from device_agent.runtime.images import Images
from device_agent.runtime.inbox import ImageRemoved, Put
from device_agent.runtime.workers import CALL, Workers

AGAIN_S = 3600.0

log = structlog.get_logger()


@dataclass(slots=True)
class Garbage:
    images: Images
    engine: Engine
    workers: Workers
    clock: Clock
    put: Put
    stopping: threading.Event
    _flying: set[tuple[str, str]] = field(default_factory=set)
    """What is being removed: (reference, image id)."""
    _not_before: dict[tuple[str, str], float] = field(default_factory=dict)
    """What was not let go: the monotonic time of the next try."""

    def collect(self, observed: Observed, kept: frozenset[str]) -> bool:
        """Begin to remove what is not `kept`. Says whether there is anything to wait for."""
        for row, image in list(garbage(self.images.pulled, observed, kept)):
            if self.images.is_under_way(row.image) or (row.image, row.image_id) in self._flying:
                continue
            if not image:
                self.images.forget(row)
            elif self.clock.monotonic() >= self._not_before.get((row.image, row.image_id), 0.0):
                self._remove(row, image)
        return bool(self._flying)

    def prune(self, observed: Observed, kept: frozenset[str]) -> list[str]:
        """`collect`, and what was not let go before at once, too. Returns the references that are being removed."""
        self._not_before.clear()
        self.collect(observed, kept)
        return sorted(image for image, _ in self._flying)

    def _remove(self, row: PulledImage, image: str) -> None:
        self._flying.add((row.image, row.image_id))
        step = RemoveImage(image)
        log.info("step", step=str(step), cause="nothing wants it any more")

        def job() -> None:
            try:
                execute(step, self.engine, self.stopping)
            except (EngineAway, EngineError) as error:
                self.put(ImageRemoved(row, str(error)))
            else:
                self.put(ImageRemoved(row))

        self.workers.submit(CALL, job)

    def removed(self, event: ImageRemoved) -> Happening | None:
        """Note it; its event, when it is gone."""
        row = event.row
        self._flying.discard((row.image, row.image_id))
        if event.error:
            self._not_before[row.image, row.image_id] = self.clock.monotonic() + AGAIN_S
            log.info("image not removed", image=row.image, why=event.error, next=f"tried again in {AGAIN_S:g} s")
            return None
        self._not_before.pop((row.image, row.image_id), None)
        self.images.forget(row)
        message = f"{row.image} was removed: no target, no container and no release to go back to wants it"
        return Happening("image_removed", {"image": row.image, "image_id": row.image_id, "message": message})


def wanted_images(
    apps: Iterable[WantedApp], targets: Iterable[AcceptedTarget], records: Iterable[AppRecord]
) -> frozenset[str]:
    """The references that something wants: what is to run, all that is published here, and all that was good."""
    named = {service.image for app in apps for service in app.services.values()}
    for accepted in targets:
        named.update(*map(images_of, accepted.target.apps.values()))
    for record in records:
        named |= images_of(record.document) | set(record.previous_images)
    return frozenset(named)

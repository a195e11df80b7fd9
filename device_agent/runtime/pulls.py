"""The pulls under way: of each image one, whichever apps wait for it. They outlive the plan that began them."""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import structlog

from device_agent.model.errors import Cancelled, EngineAway, EngineError
from device_agent.model.steps import Pull
from device_agent.ports import Engine, PullProgress
from device_agent.runtime.images import Images
from device_agent.runtime.inbox import PullEnded, Put
from device_agent.runtime.room import DISK_SHORT, Room
from device_agent.runtime.workers import PULL, Workers

log = structlog.get_logger()


@dataclass(slots=True)
class Pulls:
    engine: Engine
    workers: Workers
    put: Put
    images: Images
    room: Room
    make_room: Callable[[], bool]
    """Remove what nothing wants any more; says whether there is anything to wait for."""
    under_way: dict[str, threading.Event] = field(default_factory=dict)
    """Reference → what cancels its pull."""

    def begin(self, pull: Pull, here: Mapping[str, str], revisions: frozenset[str]) -> None:
        """`here`: the images of this device; `revisions`: what it has accepted."""
        image = pull.image
        if image in self.under_way:
            return
        cancel = self.under_way[image] = threading.Event()
        log.info("pull", image=image, platform=pull.platform)
        self.images.begin(pull, here, revisions)

        def told(progress: PullProgress) -> None:
            self.put(self.room.progress(progress))

        def job() -> None:
            try:
                self.room.claim(pull)
                ended = PullEnded(image, self.engine.pull(image, pull.platform, told, cancel))
            except Cancelled:
                self.put(PullEnded(image, cancelled=True))
            except EngineAway:
                self.put(PullEnded(image, away=True))
            except EngineError as error:
                self.put(PullEnded(image, error=error))
            else:
                self.put(ended)
            finally:
                self.room.leave(image)

        self.workers.submit(PULL, job)

    def ended(self, event: PullEnded) -> bool:
        """Whether that is all: it has not failed while room is being made for it, the end of which wakes."""
        self.under_way.pop(event.image, None)
        self.images.ended(event)
        if event.error and event.error.code == DISK_SHORT and self.make_room():
            log.info("pull waits", image=event.image, why=event.error.message, next="what nothing wants is removed")
            return False
        return True

    def cancel_all_but(self, needed: Collection[str] = ()) -> None:
        for image, cancel in self.under_way.items():
            if image not in needed:
                cancel.set()

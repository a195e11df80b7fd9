"""Room on the disk for the pulls under way. Called from the workers that pull: several at once."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from device_agent.core.room import TAKES, Reserve, too_little
from device_agent.model.errors import EngineError, Kind
from device_agent.model.host import Disk
from device_agent.model.steps import Pull
from device_agent.ports import Engine, PullProgress

DISK_SHORT = "disk_short"


@dataclass(slots=True)
class Room:
    engine: Engine
    disk: Callable[[], Disk | None]
    reserve: Reserve
    _missing: dict[str, int] = field(default_factory=dict)
    """Image → bytes that its pull was to fetch when it began."""
    _promised: dict[str, int] = field(default_factory=dict)
    """Image → bytes of disk that its pull will still take."""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def claim(self, pull: Pull) -> None:
        """Before anything is fetched. Raises `EngineError` (`disk_short`) where there is too little.

        Where the sizes or the disk are not known, the pull does without.
        """
        missing = self.engine.missing_bytes(pull.image, pull.platform)
        disk = self.disk()
        if missing is None or disk is None:
            return
        with self._lock:
            problem = too_little(pull.image, missing, sum(self._promised.values()), disk, self.reserve)
            if problem:
                raise EngineError(DISK_SHORT, problem, Kind.OUTSIDE)
            self._missing[pull.image] = missing
            self._promised[pull.image] = missing * TAKES

    def progress(self, progress: PullProgress) -> PullProgress:
        """What has been fetched is on the disk already. Returns the progress of all that is fetched.

        The engine knows only of the layers that it has begun with, the registry of all.
        """
        with self._lock:
            missing = self._missing.get(progress.image)
            if missing is None:
                return progress
            told = replace(progress, total=max(progress.total, missing))
            self._promised[progress.image] = (told.total - told.done) * TAKES
            return told

    def leave(self, image: str) -> None:
        with self._lock:
            self._missing.pop(image, None)
            self._promised.pop(image, None)

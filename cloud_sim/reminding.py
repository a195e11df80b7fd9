"""When a target that is published already is published once more: devices that are online have not taken it.

A broker gives a device what it retains when it connects, and then every device has what is published within moments.
But a cluster's node may retain only what was published through it, a queue that was full or lost with its node has
dropped the newest, and a device does not know what it has not been sent. The cloud does: each device tells what it has.

Pure: no clock, no I/O.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from device_agent.model.target import Version

PATIENCE_S, LONGEST_S = 10.0, 3600.0
"""A device has so long to take a target. After each reminder it is waited for twice as long, and at most that long."""
MESSAGES_PER_S = 1000.0
"""Everybody who listens to the topic gets a reminder: on average so many messages a second, no more."""


@dataclass(slots=True)
class Reminder:
    """Of one scope's target."""

    _version: Version | None = None
    _due: dict[tuple[str, int], tuple[float, float]] = field(default_factory=dict)
    """By device and session: when a reminder is due, and how long was waited for that."""
    _free_at: float = 0.0

    def due(self, version: Version, behind: Collection[tuple[str, int]], listeners: int, now: float) -> bool:
        """Whether to publish it now, for those that are `behind` it. It is taken to be done, then."""
        if version != self._version:
            self._version, self._due = version, {}
        self._due = {each: self._due.get(each, (now + PATIENCE_S, PATIENCE_S)) for each in behind}
        late = {each: waited for each, (at, waited) in self._due.items() if at <= now}
        if not late or now < self._free_at:
            return False
        self._free_at = now + listeners / MESSAGES_PER_S
        for each, waited in late.items():
            longer = min(LONGEST_S, 2 * waited)
            self._due[each] = (now + longer, longer)
        return True

"""Targets that are published already, published again: because the broker has lost them, or devices have not got them.

To be called from the collector's thread, which guards everything here.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import lru_cache

from cloud_sim.clock import monotonic
from cloud_sim.connection import Connection, Denied, Unreachable
from cloud_sim.database import Database
from cloud_sim.hearing import Hearing
from cloud_sim.reminding import Reminder
from device_agent.model.target import Target
from device_agent.wire.target import read_target
from device_agent.wire.topics import FleetTopics

LOOK_S = 2.0
"""How often it is looked who has not taken what is published."""

read = lru_cache(maxsize=1024)(read_target)
"""What is in the database is read again and again."""


class Republishing:
    def __init__(
        self,
        connection: Connection,
        topics: FleetTopics,
        database: Database,
        hearing: Hearing,
        tell: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._database = database
        self._hearing = hearing
        self._tell = tell
        self._look_at = 0.0
        self._reminders: defaultdict[str | None, Reminder] = defaultdict(Reminder)

    def give_back(self, retained: Mapping[str | None, Target]) -> None:
        """What this cloud owns and the broker does not have, or has an older one of."""
        for device, body in self._database.owned().items():
            own, there = read(body), retained.get(device)
            if there is None or there.version < own.version:
                self._publish(device, body, f"the broker did not have {_whose(device)} {own.version}")

    def remind(self, retained: Mapping[str | None, Target]) -> None:
        """What devices that are online have not taken, unless the broker has a newer one."""
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        for device, body in self._database.owned().items():
            version, there = read(body).version, retained.get(device)
            if there is not None and there.version > version:
                continue
            behind = self._hearing.behind(device, version)
            listeners = 1 if device else self._hearing.online()
            if self._reminders[device].due(version, behind, listeners, now):
                who = f"{len(behind)} devices have" if len(behind) > 1 else f"{behind[0][0]} has"
                self._publish(device, body, f"{who} not taken {_whose(device)} {version}")

    def _publish(self, device: str | None, body: bytes, why: str) -> None:
        topic = self._topics.device_target(device) if device else self._topics.target
        try:
            self._connection.publish(topic, body)
        except (Denied, Unreachable) as error:
            self._tell(f"cannot publish {_whose(device)} again: {error}")
        else:
            self._tell(f"{why}: published again")


def _whose(device: str | None) -> str:
    return f"the target of device {device}" if device else "the fleet's target"

"""The one thread that carries all connections of a simulated fleet: a selector, and a pace for new connections.

paho's own loop waits with `select`, which ends at 1,023 descriptors and is why a thread for each client does not get
far; epoll knows no such end. Connections are made at a pace, because a broker's queue of those that it has not accepted
yet is short: what overflows it is tried again by the kernel, seconds later.
"""

import contextlib
import resource
import selectors
from collections import deque
from collections.abc import Callable
from typing import Any

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cloud_sim.clock import monotonic
from cloud_sim.connection import Broker, Misconfigured
from cloud_sim.simulation.figures import Figures
from cloud_sim.simulation.link import RECEIVE_MAXIMUM, SESSION_EXPIRY_S, Link
from cloud_sim.simulation.timers import Timers
from device_agent.adapters.broker import Address
from device_agent.adapters.broker import Broker as AgentBroker
from device_agent.wire.payload import DEFAULT_LIMITS

PACE = 500
"""Connections made in a second."""
ROUND_S = 15.0
"""In this time every connection is looked after once: a quarter of the keep-alive."""
_SHARES = 60
SPARE_FILES = 64
"""Descriptors for everything that is no device's connection."""
JOBS_S = 0.05
"""How long jobs may take before the sockets are looked at again."""
QUIET_S, LATE_S = 0.01, 1.0
"""Sockets go first, so that all devices answer before any of them goes on: jobs wait until nothing has arrived for a
moment, but no longer than this."""


class Network:
    def __init__(self, broker: Broker, figures: Figures, timers: Timers, *, pace: float = PACE) -> None:
        """Raises `Misconfigured` for certificates that cannot be used."""
        self.broker = broker
        self.agent_broker = AgentBroker(Address(broker.host, broker.port, broker.tls), broker.version)
        """The same, as the agent's code names it."""
        self.v5 = broker.version == "5"
        self.tls = broker.context() if broker.tls else None
        self.figures = figures
        self.timers = timers
        self.up: set[Link] = set()
        """Connections whose subscriptions are granted."""
        self.pace = pace
        self._selector = selectors.DefaultSelector()
        self._connecting: deque[Link] = deque()
        self._connect_at = 0.0
        self._quiet_at = 0.0
        self._links: list[Link] = []
        self._gone: set[Link] = set()
        self._looked_after = 0
        self._look_at = 0.0
        self._unflushed: dict[Link, None] = {}
        self._later: list[Callable[[], None]] = []
        self._expiries: dict[int, Properties | None] = {}
        self._delays: dict[int, Properties | None] = {}
        self.connect_properties = Properties(PacketTypes.CONNECT)
        self.connect_properties.SessionExpiryInterval = SESSION_EXPIRY_S
        self.connect_properties.ReceiveMaximum = RECEIVE_MAXIMUM
        self.connect_properties.MaximumPacketSize = 2 * DEFAULT_LIMITS.payload + 64 * 1024

    @property
    def address(self) -> tuple[str, int]:
        return self.broker.host, self.broker.port

    def turn(self, at_most_s: float) -> None:
        """What has arrived, and what is due: once, after waiting for so long at most."""
        now = monotonic()
        due = self.timers.next_due()
        times = [now + at_most_s, self._look_at] + ([max(due, self._quiet_at)] if due is not None else [])
        if self._connecting:
            times.append(self._connect_at)
        ready = self._selector.select(max(0.0, min(times) - now))
        for key, events in ready:
            if events & selectors.EVENT_READ:
                key.data.read()
            else:
                self.to_flush(key.data)
            self._flush()
        now = monotonic()
        if ready:
            self._quiet_at = now + QUIET_S
        due = self.timers.next_due()
        if due is not None and (now >= self._quiet_at or now > due + LATE_S):
            self.timers.run(JOBS_S)
        self._connect(now)
        self._look_after(now)
        self._flush()

    def close(self) -> None:
        for link in self._links:
            link.abandon()
        self._selector.close()

    @property
    def all_gone(self) -> bool:
        return len(self._gone) == len(self._links)

    # What links ask for.

    def wants_connection(self, link: Link) -> None:
        """A new one."""
        self._links.append(link)
        self._connecting.append(link)

    def came_up(self, link: Link) -> None:
        self.up.add(link)
        self.figures.connections += 1

    def ended(self, link: Link, retry_s: float) -> None:
        """A connection ended or was not made; another one is to be tried then."""
        self.up.discard(link)
        self._unflushed.pop(link, None)
        self.figures.dropped += 1
        self.timers.after(retry_s, lambda: self._connecting.append(link))

    def left(self, link: Link) -> None:
        """It will not connect again."""
        self.up.discard(link)
        self._gone.add(link)

    def register(self, link: Link, sock: Any) -> None:
        self._selector.register(sock, selectors.EVENT_READ, link)

    def unregister(self, sock: Any) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(sock)

    def watch(self, link: Link, sock: Any, *, writing: bool) -> None:
        """Whether it is to be told when the socket takes more."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writing else 0)
        self._selector.modify(sock, events, link)

    def to_flush(self, link: Link) -> None:
        """It has something to write."""
        self._unflushed[link] = None

    def later(self, job: Callable[[], None]) -> None:
        """Not now, within one of paho's callbacks, but right after it."""
        self._later.append(job)

    def expiry(self, seconds: int) -> Properties | None:
        if seconds not in self._expiries:
            self._expiries[seconds] = self._properties(PacketTypes.PUBLISH, "MessageExpiryInterval", seconds)
        return self._expiries[seconds]

    def will_properties(self, delay_s: int) -> Properties | None:
        if delay_s not in self._delays:
            self._delays[delay_s] = self._properties(PacketTypes.WILLMESSAGE, "WillDelayInterval", delay_s)
        return self._delays[delay_s]

    def _properties(self, kind: int, name: str, value: int) -> Properties | None:
        if not self.v5:
            return None
        properties = Properties(kind)
        setattr(properties, name, value)
        return properties

    # Parts of a turn.

    def _flush(self) -> None:
        while self._later or self._unflushed:
            jobs, self._later = self._later, []
            for job in jobs:
                job()
            links, self._unflushed = self._unflushed, {}
            for link in links:
                link.flush()

    def _connect(self, now: float) -> None:
        while self._connecting and self._connect_at <= now:
            self._connect_at = max(self._connect_at, now - 0.1) + 1 / self.pace
            self._connecting.popleft().open()

    def _look_after(self, now: float) -> None:
        if now < self._look_at:
            return
        self._look_at = now + ROUND_S / _SHARES
        for link in self._links[self._looked_after :: _SHARES]:
            link.look_after(now)
        self._looked_after = (self._looked_after + 1) % _SHARES


def make_room(devices: int) -> None:
    """Raise this process's limit of open files as far as so many connections need it. Raises `Misconfigured`."""
    needed = devices + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise Misconfigured(
            f"{devices} devices need {needed} open files, and this process may have {hard} (ulimit -Hn): "
            f"simulate at most {hard - SPARE_FILES} here, or raise the limit"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))

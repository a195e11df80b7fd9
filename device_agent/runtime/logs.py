"""`logs`: the last lines of a service, and under a lease what it writes from now on. Never stored, and limited.

A worker reads each container's log into a bounded buffer; the loop takes from it, `EVERY_S` at the soonest and
`MESSAGE` bytes at the most. What is too much for the buffer is left out, the oldest first, and counted.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING

from device_agent.model import compose_units
from device_agent.model.compose_units import NotValid
from device_agent.model.errors import EngineAway, EngineError, Refused
from device_agent.model.log import LogLine
from device_agent.model.observed import Container, service_of
from device_agent.model.target import Json
from device_agent.ports import Engine
from device_agent.runtime.arguments import no_more, text
from device_agent.runtime.inbox import LogArrived, LogEnded, Put
from device_agent.runtime.workers import LOG, Workers
from device_agent.wire.commands import OK, RUNNING
from device_agent.wire.log import encode_log, line_body
from device_agent.wire.messages import time_text

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

EVERY_S = 0.5
MESSAGE = 8 * 1024
"""Bytes of text in one message: with `EVERY_S`, 16 KiB/s."""
BUFFER = 64 * 1024
"""Bytes of text that wait to be sent, and the most that one answer holds."""
BREATH_S = 0.25
"""How long a reader rests when it has overrun the buffer: whoever writes too much costs no more than this."""
MOST = 4
"""Logs that are read at once."""
MOST_CONTAINERS = 8
MOST_LINES = 5000
LINES = 100
LONGEST_S = 3600.0

_LINE = 32
"""Bytes that a line costs beside its text."""

Reply = Callable[[Mapping[str, Json]], None]


class Tap:
    """Between the thread that reads and the loop that sends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines: deque[LogLine] = deque()
        self._size = 0
        self._dropped = 0

    def add(self, lines: tuple[LogLine, ...]) -> tuple[bool, bool]:
        """(there was nothing before, something had to be left out)."""
        with self._lock:
            first, before = not self._lines, self._dropped
            for line in lines:
                self._lines.append(line)
                self._size += _size(line)
                while self._size > BUFFER:
                    self._size -= _size(self._lines.popleft())
                    self._dropped += 1
            return first, self._dropped > before

    def take(self, most: int) -> tuple[list[LogLine], int]:
        """The oldest lines, at least one if there is one, and how many were left out since the last time."""
        with self._lock:
            taken: list[LogLine] = []
            size = 0
            while self._lines and (not taken or size + _size(self._lines[0]) <= most):
                line = self._lines.popleft()
                taken.append(line)
                size += _size(line)
            self._size -= size
            dropped, self._dropped = self._dropped, 0
            return taken, dropped

    def __bool__(self) -> bool:
        with self._lock:
            return bool(self._lines)


def _size(line: LogLine) -> int:
    return len(line.text) + _LINE


@dataclass(slots=True)
class _Lease:
    """One `logs` command. `until` is None where nothing is followed."""

    app: str
    service: str
    id: str
    reply: Reply
    until: float | None
    reading: int
    """Containers whose log has not ended."""
    tap: Tap = field(default_factory=Tap)
    stop: threading.Event = field(default_factory=threading.Event)
    next_at: float = 0.0
    seq: int = 0
    lines: int = 0
    dropped: int = 0
    error: tuple[str, str] | None = None


@dataclass(slots=True)
class Logs:
    agent: "Agent"
    engine: Engine
    workers: Workers
    _leases: dict[int, _Lease] = field(default_factory=dict)
    _numbers: "count[int]" = field(default_factory=count)

    def begin(self, args: Mapping[str, Json], reply: Reply, id_: str | None) -> None:
        """Read, and answer when it has been read; or follow, say so, and answer when that has ended.

        `id_` is the command's; None: asked on the device, where nothing is followed. Raises `Refused`.
        """
        no_more(args, "app", "service", "tail", "since", "follow_s")
        app, service = text(args, "app"), text(args, "service")
        lines = _number(args, "tail", LINES, MOST_LINES)
        follow_s = _seconds(args)
        since = _since(args, self.agent.clock.now())
        if follow_s and id_ is None:
            raise Refused("malformed", "a log is followed over MQTT; here, ask again with since")
        containers = self._containers(app, service)
        if len(self._leases) >= MOST:
            raise Refused("busy", f"{MOST} logs are being read: try again when one has ended")
        now = self.agent.clock.monotonic()
        until = now + follow_s if follow_s else None
        lease = _Lease(app, service, id_ or "", reply, until, len(containers))
        number = next(self._numbers)
        self._leases[number] = lease
        if until is not None:
            ends = time_text(self.agent.clock.now() + timedelta(seconds=follow_s))
            topic = self.agent.options.topics.log(app, service)
            reply({"status": RUNNING, "result": {"topic": topic, "until": ends}})
        for container in containers:
            name = container.name if len(containers) > 1 else None
            job = _reading(self.engine, container.id, name, lines, since, lease, number, self.agent.reconciler.put)
            self.workers.submit(LOG, job)

    def _containers(self, app: str, service: str) -> list[Container]:
        observed = self.agent.reconciler.observed
        if observed is None:
            raise Refused("engine_away", "the engine has not answered yet: there is no log to read")
        of_app = [container for container in observed.containers if container.app == app]
        found = [container for container in of_app if service_of(container.service) == service]
        if not found:
            names = sorted({f"{app}/{service_of(container.service)}" for container in of_app})
            there = f"there are {', '.join(names)}" if names else f"{app} has none"
            raise Refused("not_found", f"{app}/{service} has no container here: {there}")
        return sorted(found, key=lambda container: container.name)[:MOST_CONTAINERS]

    def ended(self, event: LogEnded) -> None:
        lease = self._leases.get(event.lease)
        if lease is None:
            return
        lease.reading -= 1
        lease.error = lease.error or event.error
        if lease.reading == 0 and lease.until is None:
            self._answer(event.lease, lease)

    def disconnected(self) -> None:
        """Whoever follows a log hears nothing any more."""
        for number, lease in list(self._leases.items()):
            if lease.until is not None:
                self._end(number, lease, "connection")

    def next_due(self) -> float | None:
        times = []
        for lease in self._leases.values():
            if lease.until is not None:
                soon = lease.tap or not lease.reading
                times.append(min(lease.until, lease.next_at) if soon else lease.until)
        return min(times, default=None)

    def tick(self) -> None:
        now = self.agent.clock.monotonic()
        for number, lease in list(self._leases.items()):
            if lease.until is None:
                continue
            if now >= lease.next_at and lease.tap:
                self._send(lease)
                lease.next_at = now + EVERY_S
            if now >= lease.until:
                self._end(number, lease, "time")
            elif not lease.reading and not lease.tap:
                self._end(number, lease, "container")

    def _send(self, lease: _Lease) -> None:
        lines, dropped = lease.tap.take(MESSAGE)
        lease.seq += 1
        lease.lines += len(lines)
        lease.dropped += dropped
        device = self.agent.options.identity.device
        body = encode_log(device, lease.id, lease.seq, lines, dropped)
        self.agent.link.log(self.agent.options.topics.log(lease.app, lease.service), body)

    def _end(self, number: int, lease: _Lease, why: str) -> None:
        del self._leases[number]
        lease.stop.set()
        if lease.error and not lease.lines:
            lease.reply(_failed(lease.error))
            return
        lease.reply(
            {
                "status": OK,
                "result": {"ended": why, "sent": lease.lines, "dropped": lease.dropped},
            }
        )

    def _answer(self, number: int, lease: _Lease) -> None:
        del self._leases[number]
        lines, dropped = lease.tap.take(BUFFER)
        if lease.error and not lines:
            lease.reply(_failed(lease.error))
            return
        # Of several containers one after the other was read: told in the order in which it was written.
        lines.sort(key=lambda line: line.at or "")
        lease.reply({"status": OK, "result": {"lines": [line_body(line) for line in lines], "dropped": dropped}})


def _failed(error: tuple[str, str]) -> dict[str, Json]:
    code, message = error
    return {"status": "error", "error": {"code": code, "message": message, "errors": []}}


def _reading(
    engine: Engine,
    container_id: str,
    name: str | None,
    lines: int,
    since: datetime | None,
    lease: _Lease,
    number: int,
    put: Put,
) -> Callable[[], None]:
    follow = lease.until is not None

    def job() -> None:
        error: tuple[str, str] | None = None
        try:
            for batch in engine.logs(container_id, lines=lines, since=since, follow=follow, stop=lease.stop):
                first, overrun = lease.tap.add(
                    tuple(replace(line, container=name) for line in batch) if name else batch
                )
                if first and follow:
                    put(LogArrived(number))
                if lease.stop.is_set():
                    break
                if overrun and follow:
                    lease.stop.wait(BREATH_S)
        except EngineAway as away:
            error = ("engine_away", str(away))
        except EngineError as failed:
            error = (failed.code, failed.message)
        put(LogEnded(number, error))

    return job


def _number(args: Mapping[str, Json], name: str, default: int, most: int) -> int:
    value = args.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise Refused("malformed", f"the argument {name} is a number from 0 to {most}")
    return value


def _seconds(args: Mapping[str, Json]) -> float:
    value = args.get("follow_s", 0)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= LONGEST_S:
        raise Refused("malformed", f"the argument follow_s is a number of seconds up to {LONGEST_S:g}")
    return float(value)


def _since(args: Mapping[str, Json], now: datetime) -> datetime | None:
    """A time with its zone, or how long ago in Compose's words: `10m`, `1h30m`."""
    value = args.get("since")
    if value is None:
        return None
    with contextlib.suppress(NotValid):
        return now - timedelta(microseconds=compose_units.duration(value) / 1000)
    try:
        at = datetime.fromisoformat(str(value))
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise Refused("malformed", "the argument since is a time with its zone, or how long ago: 10m")
    return at

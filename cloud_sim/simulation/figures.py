"""What a simulated fleet is measured by: times of its answers, messages, bytes, memory."""

import json
import statistics
from array import array
from collections import Counter
from collections.abc import Iterable
from copy import copy
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from cloud_sim.clock import monotonic
from device_agent.model.errors import Refused
from device_agent.model.target import Version
from device_agent.wire.target import read_target
from device_agent.wire.topics import ACK, STATE

RECEIVED = "received"
"""Beside the verdicts of acks: the target has arrived at a device."""
TARGETS_KEPT = 8
"""Of so many targets, the newest, it is known when they were answered."""
_CONVERGED = b'"converged":true'
_WITHOUT_TARGET = b'"have":{"fleet":null,"device":null}'

COUNTS = ("messages_in", "messages_out", "bytes_in", "bytes_out", "connections", "dropped")

Name = tuple[str, Version]
"""Scope and version."""


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds from the publication to the first, the median and the last of `count` devices."""

    count: int
    first: float
    median: float
    last: float


@dataclass(slots=True)
class Answers:
    """When devices received a target, and answered it, on the monotonic clock: by what they answered.

    A device counts once, the first time: a broker gives a target again after each reconnect, and it is answered again.
    It counts from when it was published, where that is known, else from when the first device received it.
    """

    published_at: float | None = None
    at: dict[str, "array[float]"] = field(default_factory=dict)
    who: dict[str, set[str]] = field(default_factory=dict)
    """The devices that `at` has the times of."""

    def add(self, what: str, device: str, at: float) -> None:
        if what not in self.at:
            self.at[what], self.who[what] = array("d"), set()
        if device not in self.who[what]:
            self.who[what].add(device)
            self.at[what].append(at)

    def times(self) -> dict[str, Times]:
        began = self.published_at
        if began is None:
            began = min((min(times) for times in self.at.values()), default=0.0)
        return {
            what: Times(len(times), min(times) - began, statistics.median(times) - began, max(times) - began)
            for what, times in self.at.items()
        }


class Figures:
    """Told by the network of every message."""

    def __init__(self) -> None:
        self.messages_in = self.messages_out = self.bytes_in = self.bytes_out = 0
        self.connections = 0
        """Made, up to the subscriptions."""
        self.dropped = 0
        """Connections that ended, or could not be made."""
        self.converged: set[str] = set()
        """Devices whose newest state at the broker says so, and that have a target."""
        self.answers: dict[Name, Answers] = {}
        self.failures: Counter[str] = Counter()
        """Acks that tell of a failure: `verdict code`."""

    def sent(self, topic: str, payload: bytes) -> None:
        self.messages_out += 1
        self.bytes_out += len(topic) + len(payload)

    def received(self, device: str, topic: str, payload: bytes) -> None:
        """A message has arrived at a device; `device` is what names it here, always the same."""
        self.messages_in += 1
        self.bytes_in += len(topic) + len(payload)
        name = _name(payload)
        if name is not None:
            self._of(name).add(RECEIVED, device, monotonic())

    def confirmed(self, device: str, topic: str, payload: bytes) -> None:
        """The broker has a message of a device."""
        if topic.endswith(STATE):
            there = _CONVERGED in payload and _WITHOUT_TARGET not in payload
            (self.converged.add if there else self.converged.discard)(device)
        if not topic.endswith(ACK):
            return
        ack = json.loads(payload)
        verdict = ack["verdict"]
        if "code" in ack or "cause" in ack:
            self.failures[f"{verdict} {ack.get('code') or ack['cause']}"] += 1
        if "app" not in ack and "epoch" in ack:
            name = (ack["scope"], Version(ack["epoch"], ack["revision"]))
            self._of(name).add(verdict, device, monotonic())

    def told(self) -> "Figures":
        """For another process: without the names of devices, which belong to one process each."""
        figures = copy(self)
        figures.converged = set()
        figures.answers = {name: replace(answers, who={}) for name, answers in self.answers.items()}
        return figures

    def published(self, scope: str, version: Version, at: float) -> None:
        """Somebody knows when a target was published."""
        self._of((scope, version)).published_at = at

    def _of(self, name: Name) -> Answers:
        found = self.answers.get(name)
        if found is None:
            found = self.answers[name] = Answers()
            if len(self.answers) > TARGETS_KEPT:
                del self.answers[next(iter(self.answers))]
        return found


def together(shares: Iterable[Figures]) -> Figures:
    """Of several parts of a fleet, as if they were one; `converged` is not told."""
    whole = Figures()
    for share in shares:
        for name in COUNTS:
            setattr(whole, name, getattr(whole, name) + getattr(share, name))
        whole.failures += share.failures
        for target, answers in share.answers.items():
            mine = whole.answers.setdefault(target, Answers())
            mine.published_at = mine.published_at or answers.published_at
            for what, times in answers.at.items():
                mine.at.setdefault(what, array("d")).extend(times)
    return whole


@lru_cache(maxsize=256)
def _name(payload: bytes) -> Name | None:
    """Which target it is; None for what is none."""
    if not payload:
        return None
    try:
        target = read_target(payload)
    except Refused:
        return None
    return target.scope, target.version


def resident_mib(process: int | None = None) -> float | None:
    """The memory that a process of this host has in RAM, by default this one; None when it cannot be told."""
    try:
        status = Path(f"/proc/{process or 'self'}/status").read_text(encoding="ascii")
    except OSError:
        return None
    fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    return int(fields["VmRSS"].split()[0]) / 1024 if "VmRSS" in fields else None

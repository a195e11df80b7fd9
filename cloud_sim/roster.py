"""What a fleet's devices have told, put together: who is online, what each has, and whether it is as published.

Pure: no clock, no I/O. Messages may arrive twice, out of order and from the past (retained ones do), so each is
judged by its session and number, never by when it came.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from device_agent.core.scopes import effective_digest, lay_over
from device_agent.model.errors import Refused
from device_agent.model.report import Have, ServiceReport, State
from device_agent.model.target import DEVICE, FLEET, Target, Version

LOST_AFTER_S = 30.0
"""How long a lost device has to come back before it is called offline. MQTT 3.1.1 has no Will Delay, and a Will does
not tell what its connection spoke."""

ONLINE, LOST, OFFLINE = "online", "lost?", "offline"

GOOD = ("running", "healthy", "completed", "stopped")
"""What a service is when nothing is to be said about it."""


@dataclass(frozen=True, slots=True)
class Device:
    """All that is known of one device."""

    id: str
    session: int = 0
    """The highest session number heard of; 0: none."""
    born: bool = False
    """Whether the last that was heard of this session is its birth."""
    lost_at: float | None = None
    """When its Will was heard, on a clock that never goes back."""
    offline_reason: str | None = None
    agent: str | None = None
    told: Mapping[str, Have | None] = field(default_factory=dict)
    """What its last session or state said it has, by scope."""
    answered: Mapping[str, tuple[int, Version]] = field(default_factory=dict)
    """By scope: the newest session of which an ack was heard, and the highest version that one named, good or bad."""
    state: State | None = None
    state_number: tuple[int, int] = (0, 0)
    """Session and number of that state."""
    heard_at: str | None = None
    """When this cloud last heard of it."""

    def presence(self, now: float) -> str:
        """`online`, `lost?` (so short a time ago that it may just be changing its network) or `offline`."""
        if self.born:
            return ONLINE
        return LOST if self.lost_at is not None and now < self.lost_at + LOST_AFTER_S else OFFLINE

    def is_behind(self, scope: str, version: Version) -> bool:
        """Whether it is online, and has neither taken nor answered the scope's target of that version."""
        have = self.told.get(scope)
        session, answered = self.answered.get(scope, (0, version))
        return (
            self.born and (have is None or have.version < version) and (session != self.session or answered < version)
        )

    @property
    def services(self) -> tuple[int, int]:
        """How many services are good, and how many there are."""
        reports = [service for app in self._apps.values() for service in app.services.values()]
        return sum(report.status in GOOD for report in reports), len(reports)

    @property
    def releases(self) -> tuple[str, ...]:
        return tuple(sorted({app.release for app in self._apps.values() if app.release}))

    @property
    def busy(self) -> str | None:
        """What it is at: the phase of each app that has not settled."""
        return ", ".join(f"{name}: {app.phase}" for name, app in self._apps.items() if app.phase != "settled") or None

    @property
    def worst(self) -> str | None:
        """The first reason why something is not as it should be: the app's own before its services'."""
        for name, app in self._apps.items():
            if app.reason:
                return f"{name}: {app.reason.message}"
        for name, app in self._apps.items():
            for service, report in app.services.items():
                if said := _complaint(report):
                    return f"{name}/{service}: {said}"
        if self.state and self.state.shortened:
            return f"its state is larger than the broker takes: it is told without {self.state.shortened}"
        if self.state and self.state.engine != "ok":
            return f"engine {self.state.engine}"
        if self.state and self.state.store != "ok":
            return f"store {self.state.store}"
        return None

    @property
    def _apps(self) -> Mapping[str, Any]:
        return self.state.apps if self.state else {}


def _complaint(report: ServiceReport) -> str | None:
    if report.reason:
        tries = f" (attempt {report.reason.attempt})" if report.reason.attempt else ""
        return report.reason.message + tries
    return report.status if report.status in ("unhealthy", "exited", "failed", "restarting") else None


def born(device: Device, session: int, told: Mapping[str, Have | None], agent: str | None) -> Device:
    """A birth always counts, whatever its number: a device whose volume was deleted numbers its sessions anew."""
    return replace(device, session=session, born=True, lost_at=None, offline_reason=None, told=told, agent=agent)


def died(device: Device, session: int, reason: str, now: float, *, retained: bool) -> Device:
    """A death. One of an older session than the last birth means nothing.

    A retained one happened at an unknown time: it counts at once.
    """
    if session < device.session:
        return device
    waits = reason == "lost" and not retained and device.born
    return replace(device, session=session, born=False, lost_at=now if waits else None, offline_reason=reason)


def reported(device: Device, number: tuple[int, int], state: State, agent: str | None) -> Device:
    """A state. An older one than the last says nothing, nor does one of a session that was over when it connected.

    One of the session that was born last outranks all others: the broker may still retain one of a higher session,
    from before the device lost its database.
    """
    if _rank(device, number) < _rank(device, device.state_number):
        return device
    told = state.have if number[0] >= device.session else device.told
    return replace(device, state=state, state_number=number, told=told, agent=agent or device.agent)


def acked(device: Device, session: int, scope: str, version: Version) -> Device:
    """An ack. One of an earlier session came late, and says nothing of what was sent in this one."""
    last = device.answered.get(scope, (0, version))
    if session < last[0] or (session == last[0] and version <= last[1]):
        return device
    return replace(device, answered={**device.answered, scope: (session, version)})


def _rank(device: Device, number: tuple[int, int]) -> tuple[bool, int, int]:
    return (device.born and number[0] == device.session, *number)


def forgotten(device: Device) -> Device:
    """Before what the broker retains is heard anew: what is known stays, but proves nothing and outranks nothing."""
    return replace(device, session=0, born=False, lost_at=None, offline_reason="not heard of", state_number=(0, 0))


class Yardstick:
    """What devices are measured by: the newest published targets, by device, the fleet's under None."""

    def __init__(self, targets: Mapping[str | None, Target]) -> None:
        self._targets = targets
        self._digests: dict[str | None, str | None] = {}

    def shortfall(self, device: Device, now: float) -> str | None:
        """Why the device is not as published, in words; None when it has converged, proven by digest."""
        if device.presence(now) == OFFLINE:
            return f"offline ({device.offline_reason or 'never heard of'})"
        if device.state is None or device.state_number[0] != device.session:
            return "has not reported its state since it connected"
        have = device.state.have
        for scope, wanted in ((FLEET, self._targets.get(None)), (DEVICE, self._targets.get(device.id))):
            if said := _differs(scope, have.get(scope), wanted):
                return said
        if device.state.effective_digest != self.effective_digest(device.id):
            return "has the published targets, but makes something else of them (effective digest)"
        if not device.state.converged:
            return device.worst or device.busy or "is still working on it"
        return None

    def effective_digest(self, device: str) -> str | None:
        """What a device with these targets reports; None without any, or when they do not fit together."""
        fleet, own = self._targets.get(None), self._targets.get(device)
        # One for all the devices that have no target of their own.
        key = device if own else None
        if key not in self._digests:
            self._digests[key] = _effective_digest(fleet, own)
        return self._digests[key]


def _effective_digest(fleet: Target | None, own: Target | None) -> str | None:
    if fleet is None and own is None:
        return None
    try:
        return effective_digest(lay_over(fleet.apps if fleet else {}, own.apps if own else {}))
    except Refused:
        return None


def _differs(scope: str, have: Have | None, wanted: Target | None) -> str | None:
    if wanted is None:
        return f"has a {scope} target {have.version} that is not known here" if have else None
    if have is None:
        return f"has not taken the {scope} target {wanted.version} yet"
    if have.version != wanted.version:
        order = "the newer" if have.version > wanted.version else "still the"
        return f"has {order} {scope} target {have.version}, not {wanted.version}"
    if have.digest not in (None, wanted.digest):
        return f"has another content of the {scope} target {wanted.version}"
    return None

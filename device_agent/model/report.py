"""What is told: the current state, acks and events. Times are aware UTC datetimes; None is `null` or left out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from device_agent.model.errors import Problem
from device_agent.model.target import Json, Version

MOST_PLACES = 50
"""Errors, or warnings, that are listed in one ack; the count in its message is of all."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why something is not as the target says: `code` is stable and documented, `message` can be acted on."""

    code: str
    message: str
    attempt: int | None = None
    next_try_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ServiceReport:
    status: str
    """waiting, pulling, created, starting, running, healthy, unhealthy, restarting, completed, exited, stopping,
    stopped or failed."""
    container: str | None = None
    image: str | None = None
    image_id: str | None = None
    started_at: str | None = None
    restarts: int = 0
    exit_code: int | None = None
    health: str | None = None
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class AppReport:
    release: str | None
    revision: Version | None
    phase: str
    """pulling, updating, gating, settled, rolling_back, held, removing."""
    services: Mapping[str, ServiceReport]
    previous: str | None = None
    warnings: tuple[Problem, ...] = ()
    reason: Reason | None = None
    """What holds the app itself up: a network or a volume of it."""


@dataclass(frozen=True, slots=True)
class Have:
    """The accepted target of one scope."""

    version: Version
    digest: str | None


@dataclass(frozen=True, slots=True)
class State:
    """The whole current state. Two equal ones are one message: numbering and time are added when it is sent."""

    have: Mapping[str, Have | None]
    """By scope; both scopes are always there."""
    effective_digest: str | None
    converged: bool
    since: datetime | None
    """When `converged` last changed."""
    apps: Mapping[str, AppReport]
    orphan_volumes: tuple[str, ...] = ()
    outbox_rows: int = 0
    outbox_dropped: int = 0
    store: str = "ok"
    """ok, full, or how it was recovered at this start."""
    engine: str = "ok"
    """ok or away."""
    shortened: str | None = None
    """What is left out because the broker does not take it all: `services` or `apps`."""


def shortened(state: State) -> Iterator[State]:
    """Shorter ones, for a broker that takes no message as large: each app without its services, then no app."""
    apps = {name: replace(app, services={}, warnings=()) for name, app in state.apps.items()}
    yield replace(state, apps=apps, shortened="services")
    yield replace(state, apps={}, orphan_volumes=(), shortened="apps")


@dataclass(frozen=True, slots=True)
class Ack:
    """One transition of a target. With `app`: of that app; without: of the target."""

    verdict: str
    scope: str
    version: Version | None = None
    digest: str | None = None
    release: str | None = None
    app: str | None = None
    service: str | None = None
    code: str | None = None
    message: str | None = None
    errors: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    attempt: int | None = None
    next_try_at: datetime | None = None
    cause: str | None = None
    from_: Mapping[str, Json] | None = None
    to: Mapping[str, Json] | None = None
    """Of a roll-back: `{epoch, revision, release}` each."""
    current: Have | None = None
    """What the device has, in a refusal."""

    @property
    def terminal(self) -> bool:
        return self.app is None and self.verdict in ("applied", "rolled_back", "superseded")


@dataclass(frozen=True, slots=True)
class Happening:
    """An event: `name` is one of the documented names, `fields` its own JSON-ready keys."""

    name: str
    fields: Mapping[str, Json] = field(default_factory=dict)

"""Whether a release waits although it could be carried out: for a window, for an update lock, or because it is told to.

What waits runs on as it last settled, and is repaired as that. What has begun is finished: a half release helps nobody.
A first install, a repair and a roll-back never wait.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from device_agent.core.matching import match_services
from device_agent.core.wanted import WantedApp
from device_agent.model.compose import Window
from device_agent.model.memory import AppRecord
from device_agent.model.observed import Container, Observed, Status
from device_agent.model.steps import CheckNetwork, Plan, Pull, Remove, Step, Stop

HOLD, WINDOW, LOCK = "hold", "window", "lock"
LOCK_ASKED_S = 30.0
"""How often a container is asked again for its update lock."""


@dataclass(frozen=True, slots=True)
class Held:
    cause: str
    """`hold`, `window` or `lock`: the protocol's words."""
    message: str
    until: datetime | None = None
    """When it ends by itself, as far as that can be told."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a new release, or the removal of an app, would do now."""

    wanted: WantedApp | None
    """None: the app is to go."""
    plan: Plan
    settled: AppRecord | None
    """None: it has never settled."""
    begun: bool = False
    """A part of it runs."""
    stops: tuple[Container, ...] = ()
    """What runs and would be stopped."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What else decides."""

    now: datetime
    windows: tuple[Window, ...] = ()
    frozen: str = ""
    """The device's own target that holds everything as it is; empty: none does."""
    unlocked: bool = False
    """An operator lets it go."""
    locks: Mapping[str, str] = field(default_factory=dict)
    """Container id → why it is not to be stopped, of those that were asked and did not say that they may be."""


def change_to(wanted: WantedApp | None, plan: Plan, observed: Observed, settled: AppRecord | None) -> Change:
    known = settled.specs if settled else {}
    begun = wanted is not None and any(
        match.winner is not None and match.winner.status is not Status.CREATED and known.get(name) != match.winner.spec
        for name, match in match_services(wanted, observed).items()
    )
    return Change(wanted, plan, settled, begun, _stops(wanted, plan, observed))


def _stops(wanted: WantedApp | None, plan: Plan, observed: Observed) -> tuple[Container, ...]:
    """What crashes has no lock, nor has what an operator wants stopped, or a release whose target says `force`."""
    free = {
        name
        for name, service in (wanted.services if wanted else {}).items()
        if service.service.update.force or service.anew or (service.stopped and service.service.state != "stopped")
    }
    stopped = {step.action.id for step in plan.steps if isinstance(step.action, Stop)}
    return tuple(
        c
        for c in observed.containers
        if c.id in stopped and c.status in (Status.RUNNING, Status.PAUSED) and c.service not in free
    )


def held(change: Change, facts: Facts) -> Held | None:
    """Why it waits; None: it may go on."""
    if not _does_something(change.plan):
        return None
    if facts.frozen and not change.begun:
        return Held(HOLD, f"this device's own target {facts.frozen} holds it as it is, until one without hold comes")
    if facts.unlocked:
        return None
    if facts.windows and change.settled is not None and not change.begun:
        opens = next_opening(facts.windows, facts.now)
        if opens is not None and opens > facts.now:
            return Held(WINDOW, f"its next maintenance window begins at {opens:%Y-%m-%d %H:%M} UTC", opens)
    locked = sorted((c.name, facts.locks[c.id]) for c in change.stops if c.id in facts.locks)
    if locked:
        return Held(LOCK, "; ".join(f"{name}: {why}" for name, why in locked))
    return None


def _does_something(plan: Plan) -> bool:
    """More than to fetch images, and to clear away what never ran or what a gate keeps."""
    return bool(plan.blocked) or any(
        not isinstance(step.action, Pull) and not (isinstance(step.action, Remove) and step.until)
        for step in plan.steps
    )


def next_opening(windows: Iterable[Window], now: datetime) -> datetime | None:
    """The first moment, not before `now`, at which one of these windows is open; None: never again."""
    return min(filter(None, (_opening(window, now) for window in windows)), default=None)


def _opening(window: Window, now: datetime) -> datetime | None:
    from cronsim import CronSim  # noqa: PLC0415 - only who has a window needs it

    since = now - timedelta(microseconds=window.duration / 1000)
    # Of a window that is still open, or the next one.
    begin = next(CronSim(window.cron, since.astimezone(ZoneInfo(window.timezone))), None)
    return max(begin.astimezone(UTC), now) if begin else None


def ahead(plan: Plan) -> tuple[Step, ...]:
    """The pulls of a release that waits: once it may begin, its images are there. Not one that room is made for."""
    return tuple(step for step in plan.steps if isinstance(step.action, Pull) and not step.after)


def keep_running(plan: Plan, containers: AbstractSet[str]) -> Plan:
    """The plan of a release that has begun, less the stops of what has its update lock now.

    Nor is a network replaced that one of these containers is on: its other users would be stopped, and wait for it.
    """
    wait = "its update lock is gone"
    locked = [step for step in plan.steps if isinstance(step.action, Stop) and step.action.id in containers]
    checks = {step.id for step in plan.steps if isinstance(step.action, CheckNetwork)}
    waits = {step.id for step in locked} | {id_ for step in locked for id_ in step.after & checks}
    return replace(plan, steps=tuple(replace(step, until=wait) if step.id in waits else step for step in plan.steps))

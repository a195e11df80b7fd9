"""Why a service is as it is, as a chain: what is wanted, what is, what was tried, what it waits for, what comes next.

Nothing is decided here. It is read from the plan that is being carried out and from the report that is published, so
that an explanation cannot say something else than what is done and told.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from device_agent.core.draft import image_subject, name_subject, previous_subject
from device_agent.core.holds import HOLD, LOCK, WINDOW
from device_agent.core.left_out import SCALE, left_out
from device_agent.core.matching import match_services
from device_agent.core.status import Activity, label_revision
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.observed import Observed
from device_agent.model.report import AppReport, Reason, ServiceReport
from device_agent.model.steps import Pull, Step
from device_agent.model.target import Version

_ENDS = {
    HOLD: "a target of this device without hold comes",
    WINDOW: "its maintenance window begins, or an operator unlocks it",
    LOCK: "its update lock is gone, or an operator unlocks it",
}
_GOOD = frozenset(("running", "healthy", "completed"))
NEWER = "until a newer revision comes"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that is known of one app now."""

    app: str
    now: datetime
    report: AppReport
    """As the state tells it."""
    activity: Activity
    observed: Observed
    published: WantedApp | None = None
    """What the target asks for; None for an app that is in no target."""
    running: WantedApp | None = None
    """What is to run: what is published, or what that was rolled back to."""
    pulling: AbstractSet[str] = field(default_factory=frozenset)
    """Images that are being pulled now."""
    gate_in_s: float | None = None
    """When time alone can decide the gate of its release."""
    away: str = ""
    """Why the engine does not answer; empty while it does."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A release of an app: who asked for it, and under which revision."""

    scope: str
    version: Version | None
    release: str | None


@dataclass(frozen=True, slots=True)
class Try:
    """A failure that is remembered. `at` is None when it was before the agent's last start."""

    subject: str
    code: str
    message: str
    count: int
    at: datetime | None
    next_at: datetime | None
    """None when nothing of it is planned any more."""


@dataclass(frozen=True, slots=True)
class Need:
    """A service that this one depends on, as it is."""

    service: str
    condition: str
    status: str
    reason: Reason | None


@dataclass(frozen=True, slots=True)
class Next:
    """What comes next. `until`: what must be observed first; `at`: not before; `now`: it is under way."""

    what: str
    why: str
    until: str = ""
    at: datetime | None = None
    now: bool = False


@dataclass(frozen=True, slots=True)
class ServiceChain:
    told: ServiceReport
    image: str | None
    """The wanted one; None for a service that is not wanted."""
    tried: tuple[Try, ...] = ()
    waits_for: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    next: tuple[Next, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    app: str
    at: datetime
    phase: str
    reason: Reason | None
    """What holds the app as a whole up."""
    asked: Asked | None
    """What the target asks for; None for an app that is in no target."""
    instead: Asked | None
    """What runs in its place, since it failed or waits."""
    held: bool
    """What the target asks for waits; it has not failed."""
    services: Mapping[str, ServiceChain]


def explain(situation: Situation) -> Explanation:
    published, running = situation.published, situation.running
    services = {**situation.report.services, **left_out(situation.app, running, situation.observed, situation.report)}
    other = running is not None and (published is None or published.digest != running.digest)
    return Explanation(
        app=situation.app,
        at=situation.now,
        phase=situation.report.phase,
        reason=situation.report.reason,
        asked=_asked(published) if published else None,
        instead=_asked(running) if running and other else None,
        held=situation.activity.hold is not None,
        services={name: _chain(situation, name, told) for name, told in sorted(services.items())},
    )


def _asked(wanted: WantedApp) -> Asked:
    told = label_revision(wanted.revision)
    return Asked(wanted.scope, told[1] if told else None, wanted.release)


def _chain(situation: Situation, name: str, told: ServiceReport) -> ServiceChain:
    wanted = situation.running.services.get(name) if situation.running else None
    subjects = _subjects(name, wanted)
    steps = [step for step in situation.activity.plan.steps if step.subject in subjects]
    return ServiceChain(
        told=told,
        image=wanted.service.image if wanted else None,
        tried=tuple(_tries(situation, name, wanted, subjects)),
        waits_for=tuple(dict.fromkeys(_waits(situation, name, subjects))),
        needs=tuple(_needs(situation, wanted)) if wanted else (),
        next=tuple(_comes(situation, name, told, steps)),
    )


def _subjects(name: str, wanted: WantedService | None) -> tuple[str, ...]:
    """Whose attempts and steps are the service's: its own, its image's, and those of what it stands on."""
    if wanted is None:
        return name, previous_subject(name), name_subject(name)
    stands_on = (*(f"network {key}" for key in wanted.networks), *(f"volume {key}" for key in sorted(wanted.volumes)))
    return image_subject(wanted.image), *stands_on, name, previous_subject(name), name_subject(name)


def _tries(situation: Situation, name: str, wanted: WantedService | None, subjects: tuple[str, ...]) -> Iterator[Try]:
    planned = {step.subject for step in situation.activity.plan.steps}
    matches = match_services(situation.running, situation.observed) if situation.running else {}
    for subject in subjects:
        app = "" if wanted and subject == image_subject(wanted.image) else situation.app
        attempt = situation.activity.attempts.of(app, subject)
        if attempt is None or (subject == name and name in matches and attempt.spec != (matches[name].spec or "")):
            continue
        next_at = attempt.next_at if subject in planned else None
        yield Try(subject, attempt.code, attempt.message, attempt.count, attempt.failed_at, next_at)


def _waits(situation: Situation, name: str, subjects: tuple[str, ...]) -> Iterator[str]:
    if situation.away:
        yield f"the engine answers ({situation.away})"
    yield from _holds_up(situation.activity)
    plan = situation.activity.plan
    for blocked in plan.blocked:
        if blocked.subject in subjects:
            yield f"{blocked.subject} can be used: {blocked.message}"
    by_id = {step.id: step for step in plan.steps}
    own = [step for step in plan.steps if step.subject == name]
    for step in own:
        if step.until:
            yield step.until
    for step in _earlier(own, by_id):
        if isinstance(step.action, Pull):
            yield f"image {step.action.image} is here"
        elif step.until and step.subject != name:
            yield f"{step.subject} can go on, which waits until {step.until}"


def _holds_up(activity: Activity) -> Iterator[str]:
    if activity.held:
        yield "a newer revision comes"
    if activity.hold:
        yield _ENDS[activity.hold.cause]


def _earlier(steps: list[Step], by_id: Mapping[str, Step]) -> list[Step]:
    """All that must have succeeded before these, in the plan's order."""
    found: set[str] = set()
    to_do = [id_ for step in steps for id_ in step.after]
    while to_do:
        id_ = to_do.pop()
        if id_ not in found and id_ in by_id:
            found.add(id_)
            to_do.extend(by_id[id_].after)
    return [step for id_, step in by_id.items() if id_ in found]


def _needs(situation: Situation, wanted: WantedService) -> Iterator[Need]:
    for service, dependency in sorted(wanted.service.depends_on.items()):
        told = situation.report.services.get(service)
        if told:
            yield Need(service, dependency.condition, told.status, told.reason)


def _comes(situation: Situation, name: str, told: ServiceReport, steps: list[Step]) -> Iterator[Next]:
    if told.reason and told.reason.code == SCALE:
        yield Next("nothing", told.reason.message)
        return
    kept = all(step.until and step.subject == previous_subject(name) for step in steps)
    if not steps or (kept and situation.activity.gated):
        # What was replaced is kept for the gate: that is what comes first.
        yield _nothing(situation, told)
    for step in steps:
        yield _next(situation, step)


def _next(situation: Situation, step: Step) -> Next:
    pull = isinstance(step.action, Pull)
    waiting = situation.activity.attempts.waiting("" if pull else situation.app, step.subject, step.spec)
    under_way = step.id in situation.activity.in_flight
    if isinstance(step.action, Pull):
        under_way = step.action.image in situation.pulling
    return Next(str(step.action), step.cause, step.until, waiting.next_at if waiting else None, under_way)


def _held(situation: Situation) -> Next:
    hold = situation.activity.hold
    if hold is None:
        return Next("nothing", f"its release failed and is left as it is {NEWER}")
    what = "begin the release" if situation.published else "remove it"
    return Next(what, f"once {_ENDS[hold.cause]}", at=hold.until)


def _nothing(situation: Situation, told: ServiceReport) -> Next:
    """There is no step to do for it: why, and what can change that."""
    activity, published = situation.activity, situation.published
    if situation.away:
        return Next("ask the engine again", "nothing is concluded while it does not answer")
    if activity.held or activity.hold:
        return _held(situation)
    if situation.running is None:
        target_unknown = situation.report.phase == "held"
        return Next("nothing", "the target it was made for is not known here" if target_unknown else "it is going")
    if told.status == "restarting":
        return Next("the engine starts it again", "its restart policy says so, longer and longer after each crash")
    if told.status == "starting":
        return Next("its health check decides", "it has just been started")
    if activity.gated:
        at = None if situation.gate_in_s is None else situation.now + timedelta(seconds=situation.gate_in_s)
        return Next("the gate of its release", "its release has to prove good", at=at)
    if activity.bad and published:
        return Next("nothing", f"what its app was rolled back to runs {NEWER}")
    if told.status == "completed":
        return Next("nothing", "it is run again when its definition changes")
    if told.status in _GOOD:
        return Next("nothing", "it is as the target says")
    return Next("nothing", "this cannot be mended from here: see the reason")

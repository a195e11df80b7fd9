"""The command `explain`: finds what is asked for, and puts its chain into JSON and into words."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from device_agent.core.explain import Asked, Explanation, Need, Next, ServiceChain, Situation, Try, explain
from device_agent.core.left_out import left_out
from device_agent.model.errors import Refused
from device_agent.model.observed import Observed, service_of
from device_agent.model.report import AppReport, Reason
from device_agent.model.steps import Plan
from device_agent.model.target import DEVICE, FLEET, Json
from device_agent.wire.messages import reason_body, service_body, time_text

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent


def explained(agent: "Agent", app: Json, service: Json) -> Json:
    """`app` alone may also be a service that only one app has. Raises `Refused`: `malformed`, `not_found`."""
    if not isinstance(app, str) or not isinstance(service, str | None):
        raise Refused("malformed", "the argument app is a name, and so is service where it is given")
    reports = agent.current.read().apps
    running, observed = agent.reconciler.running, agent.reconciler.observed or Observed()
    known = {
        name: (*report.services, *left_out(name, running.get(name), observed, report))
        for name, report in reports.items()
    }
    name, service = _find(agent, known, app, service)
    chain = explain(_situation(agent, name, reports[name]))
    if service is not None:
        meant = {name: one for name, one in chain.services.items() if service in (name, service_of(name))}
        chain = replace(chain, services=meant)
    return {**_body(chain), "text": "\n".join(_text(chain, whole=service is None))}


def _find(
    agent: "Agent", known: Mapping[str, tuple[str, ...]], app: str, service: str | None
) -> tuple[str, str | None]:
    """The names of what is meant. `known`: the services of each app."""
    if app in known and (service is None or service in known[app]):
        return app, service
    having = [name for name, services in known.items() if app in services]
    if service is None and len(having) == 1:
        return having[0], app
    if service is None and having:
        raise Refused("not_found", f"several apps have a service {app}: {', '.join(f'{n}/{app}' for n in having)}")
    if app in known:
        there = ", ".join(f"{app}/{name}" for name in known[app])
        raise Refused("not_found", f"the app {app} has no service {service}: {there or 'it has none'}")
    asked = app if service is None else f"{app}/{service}"
    raise Refused("not_found", f"there is no {asked} here{_removed(agent, app)}: {_all(known)}")


def _removed(agent: "Agent", app: str) -> str:
    """An app of the fleet that this device is not to have."""
    targets = agent.reconciler.wanted.targets
    taken_off = DEVICE in targets and app in targets[DEVICE].apps and targets[DEVICE].apps[app] is None
    if taken_off and FLEET in targets and app in targets[FLEET].apps:
        return " (the fleet's target has it, this device's own target removes it)"
    return ""


def _all(known: Mapping[str, tuple[str, ...]]) -> str:
    names = [f"{app}/{service}" for app, services in known.items() for service in services]
    return f"there are {', '.join(names)}" if names else "no app is wanted or runs here"


def _situation(agent: "Agent", app: str, report: AppReport) -> Situation:
    reconciler = agent.reconciler
    left_alone = app in reconciler.left_alone()
    return Situation(
        app=app,
        now=agent.clock.now(),
        report=report,
        activity=agent.current.activity(reconciler.plans.get(app, Plan(app))),
        observed=reconciler.observed or Observed(),
        published=None if left_alone else reconciler.wanted.apps.get(app),
        running=None if left_alone else reconciler.running.get(app),
        pulling=frozenset(reconciler.pulls.under_way),
        gate_in_s=agent.releases.decided_in_s(app),
        away=reconciler.away,
    )


# JSON.


def _body(chain: Explanation) -> dict[str, Json]:
    return {
        "app": chain.app,
        "at": time_text(chain.at),
        "phase": chain.phase,
        "reason": chain.reason and reason_body(chain.reason),
        "wanted": _release(chain.asked),
        "instead": _release(chain.instead),
        "services": {name: _service(service) for name, service in chain.services.items()},
    }


def _release(asked: Asked | None) -> Json:
    if asked is None:
        return None
    return {"scope": asked.scope, "revision": asked.version and list(asked.version), "release": asked.release}


def _service(service: ServiceChain) -> Json:
    told = service_body(service.told)
    return {
        "wanted": {"image": service.image} if service.image else None,
        "reason": told.pop("reason"),
        "is": told,
        "tried": [
            {
                "subject": each.subject,
                "code": each.code,
                "message": each.message,
                "attempt": each.count,
                "tried_at": _time(each.at),
                "next_try_at": _time(each.next_at),
            }
            for each in service.tried
        ],
        "waits_for": list(service.waits_for),
        "depends_on": {
            need.service: {
                "condition": need.condition,
                "status": need.status,
                "reason": need.reason and reason_body(need.reason),
            }
            for need in service.needs
        },
        "next": [
            {
                "what": each.what,
                "why": each.why,
                "until": each.until or None,
                "at": _time(each.at),
                "under_way": each.now,
            }
            for each in service.next
        ],
    }


def _time(at: datetime | None) -> str | None:
    return time_text(at) if at else None


# Words.


def _text(chain: Explanation, *, whole: bool) -> Iterator[str]:
    if whole:
        yield f"{chain.app}: {chain.phase}"
    if whole and not chain.services:
        yield "  it has no container and no service here"
    for name, service in chain.services.items():
        yield f"{chain.app}/{name}: {service.told.status}" + (
            f": {_reason(service.told.reason, chain.at)}" if service.told.reason else ""
        )
        for label, line in _lines(chain, service):
            yield f"  {label:<10} {line}"


def _lines(chain: Explanation, service: ServiceChain) -> Iterator[tuple[str, str]]:
    if chain.asked and chain.instead is None:
        yield "wanted", f"{service.image or 'no container of it'}, by {_named(chain.asked)}"
    elif chain.asked is None:
        yield "wanted", "to be gone" if chain.held else "by no target that is known here"
    if chain.asked and chain.instead:
        yield "held" if chain.held else "failed", _named(chain.asked)
    if chain.instead:
        yield "instead", f"{_named(chain.instead)}, with {service.image or 'no such service'}"
    if chain.reason:
        yield "the app", _reason(chain.reason, chain.at)
    yield "is", _is(service)
    for tried in service.tried:
        yield "tried", _tried(tried, chain.at)
    for wait in service.waits_for:
        yield "waits", f"until {wait}"
    for need in service.needs:
        yield "needs", _need(need, chain.at)
    for number, each in enumerate(service.next):
        yield "then" if number else "next", _comes(each, chain.at)


def _named(asked: Asked) -> str:
    whose = "the fleet's target" if asked.scope == FLEET else "this device's own target"
    return f"{whose} {asked.version}" + (f" (release {asked.release})" if asked.release else "")


def _is(service: ServiceChain) -> str:
    told = service.told
    if told.container is None:
        if service.image is None:
            return "no container"
        here = f"its image is here ({_short(told.image_id)})" if told.image_id else "its image is not here"
        return f"no container; {here}"
    parts = [f"container {told.container} of {told.image} ({_short(told.image_id)})", told.status]
    if told.started_at:
        parts.append(f"started {told.started_at}")
    if told.restarts:
        parts.append(f"restarted {told.restarts} times by the engine")
    if told.exit_code is not None:
        parts.append(f"exit code {told.exit_code}")
    if told.health:
        parts.append(f"health {told.health}")
    return ", ".join(parts)


def _short(image_id: str | None) -> str:
    return (image_id or "")[: len("sha256:") + 12]


def _tried(tried: Try, now: datetime) -> str:
    times = "once" if tried.count == 1 else f"{tried.count} times"
    last = f", last {_when(tried.at, now)}" if tried.at else ""
    again = f"; again {_when(tried.next_at, now)}" if tried.next_at else ""
    return f"{tried.subject}, {times}{last}: {tried.code}: {tried.message}{again}"


def _need(need: Need, now: datetime) -> str:
    why = f": {_reason(need.reason, now)}" if need.reason else ""
    return f"{need.service} ({need.condition}), which is {need.status}{why}"


def _comes(each: Next, now: datetime) -> str:
    if each.now:
        when = "under way"
    elif each.at:
        when = _when(each.at, now)
    else:
        when = f"once {each.until}" if each.until else ""
    return f"{each.what}: {each.why}" + (f" [{when}]" if when else "")


def _reason(reason: Reason, now: datetime) -> str:
    words = f"{reason.code}: {reason.message}"
    if reason.attempt and reason.next_try_at:
        words += f" (attempt {reason.attempt}, next try {_when(reason.next_try_at, now)})"
    return words


def _when(at: datetime, now: datetime) -> str:
    """`at 10:01:00Z, in 60 s`."""
    seconds = round((at - now).total_seconds())
    distance = f"in {seconds} s" if seconds > 0 else f"{-seconds} s ago" if seconds < 0 else "now"
    return f"at {at:%H:%M:%S}Z, {distance}"

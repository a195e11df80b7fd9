"""What is told of an app: derived from what is wanted, what is observed, what is planned and what failed when."""

import re
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

from device_agent.core.backoff import Attempts
from device_agent.core.draft import image_subject, name_subject, previous_subject
from device_agent.core.holds import Held
from device_agent.core.matching import Match, as_asked, match_services
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.errors import Problem
from device_agent.model.memory import Attempt, BadRelease
from device_agent.model.observed import Container, Health, Observed, Status
from device_agent.model.report import AppReport, Reason, ServiceReport
from device_agent.model.steps import Create, Fill, Plan, Pull, RemoveNetwork, RemoveVolume, Start, Step, Stop
from device_agent.model.target import Version

# A label can be edited by hand: one beyond the protocol's numbers would be a floor that no target could ever reach.
_REVISION = re.compile(r"(fleet|device):([0-9]{1,16})\.([0-9]{1,16})")
_LARGEST = 2**53 - 1


@dataclass(frozen=True, slots=True)
class Activity:
    """What is going on: besides the engine's own picture, all that a report needs."""

    plan: Plan
    attempts: Attempts
    in_flight: AbstractSet[str] = field(default_factory=frozenset)
    """Ids of steps being carried out."""
    tails: Mapping[str, str] = field(default_factory=dict)
    """Container id → its last log lines, of those that crash."""
    gated: bool = False
    """Its release has not passed its gate."""
    held: bool = False
    """It is left as it is for its failure."""
    hold: Held | None = None
    """Why its newest content waits."""
    bad: BadRelease | None = None
    """The release that was rolled back, or for which the app is held."""


def settled(wanted: WantedApp, observed: Observed, plan: Plan, attempts: Attempts) -> bool:
    """No step is left to do and every service is good."""
    return only_leftovers(plan, wanted, attempts) and not plan.blocked and all_good(wanted, observed)


def all_good(wanted: WantedApp, observed: Observed) -> bool:
    """Every service runs, healthy where it is checked, or has completed, or is stopped as it should be."""
    matches = match_services(wanted, observed)
    return all(as_asked(wanted.services[name], match.winner) for name, match in matches.items())


def only_leftovers(plan: Plan, wanted: WantedApp | None, attempts: Attempts) -> bool:
    """Whether all there is to do holds nothing up.

    That is to remove networks that could not be removed (an engine can lose count of a network's users; Docker 20.10
    does) and the volumes of configs and secrets that are of no more use, and to look again for an image that is here,
    because its time has come.
    """
    used = {network.name for network in wanted.networks.values()} if wanted else set()
    return all(_is_leftover(step, used, attempts.of(plan.app, step.subject)) for step in plan.steps)


def _is_leftover(step: Step, used: Collection[str], failed: Attempt | None) -> bool:
    tried = failed is not None and failed.spec == step.spec
    match step.action:
        case RemoveNetwork():
            return tried and step.action.name not in used
        case RemoveVolume():
            return tried or bool(step.until)
        case Pull():
            return step.action.policy == "refresh"
    return False


def specs(wanted: WantedApp, observed: Observed) -> dict[str, str]:
    """Service → the spec of the container that is as wanted."""
    return {name: match.winner.spec for name, match in match_services(wanted, observed).items() if match.winner}


def warnings(wanted: WantedApp, observed: Observed) -> tuple[Problem, ...]:
    """Volumes whose definition changed: they keep what they were made with."""
    made = {volume.name: volume for volume in observed.volumes if volume.app == wanted.name}
    return tuple(
        Problem(
            f"/apps/{wanted.name}/volumes/{key}",
            f"volume_differs: {volume.name} keeps the definition it was made with; a volume is never made anew",
        )
        for key, volume in sorted(wanted.volumes.items())
        if not volume.external and volume.name in made and made[volume.name].spec not in (None, volume.spec)
    )


def orphan_volumes(apps: Mapping[str, WantedApp], observed: Observed) -> tuple[str, ...]:
    """Own volumes that no app wants any more. They stay until the operator says otherwise."""
    wanted = {volume.name for app in apps.values() for volume in app.volumes.values()}
    mine = (v for v in observed.volumes if v.app is not None and v.service is None)
    return tuple(sorted(v.name for v in mine if v.name not in wanted))


def report_app(
    wanted: WantedApp, observed: Observed, activity: Activity, previous: str | None, notes: tuple[Problem, ...] = ()
) -> AppReport:
    matches = match_services(wanted, observed)
    services = {name: _service(wanted.services[name], match, activity) for name, match in matches.items()}
    return AppReport(
        release=wanted.release,
        revision=_version(wanted.revision),
        phase=_phase(wanted, observed, activity),
        services=services,
        previous=previous,
        warnings=(*notes, *warnings(wanted, observed)),
        reason=_of_app(wanted, activity),
    )


def _phase(wanted: WantedApp, observed: Observed, activity: Activity) -> str:
    if activity.held or activity.hold:
        return "held"
    done = settled(wanted, observed, activity.plan, activity.attempts)
    if activity.bad:
        return "settled" if done else "rolling_back"
    if any(isinstance(step.action, Pull) and step.action.policy != "refresh" for step in activity.plan.steps):
        return "pulling"
    waits_for_gate = activity.gated and all(step.until for step in activity.plan.steps)
    if waits_for_gate and not activity.in_flight and all_good(wanted, observed):
        return "gating"
    return "settled" if done else "updating"


def report_removal(app: str, observed: Observed, activity: Activity) -> AppReport:
    services = {}
    for container in sorted((c for c in observed.containers if c.app == app), key=lambda c: c.id):
        attempt = activity.attempts.of(app, container.service)
        services[container.service] = reported("stopping", container, _reason(attempt))
    subjects = [step.subject for step in activity.plan.steps if isinstance(step.action, RemoveNetwork | RemoveVolume)]
    attempts = filter(None, (activity.attempts.of(app, subject) for subject in subjects))
    reason = next(map(_reason, attempts), None)
    if activity.hold:
        return AppReport(release=None, revision=None, phase="held", services=services, reason=_holding(activity.hold))
    return AppReport(release=None, revision=None, phase="removing", services=services, reason=reason)


def report_adopted(app: str, observed: Observed) -> AppReport:
    """Containers under a target that this device has lost: they are left alone until it comes again."""
    reason = Reason(
        "target_unknown",
        "the target it was made for is not known here: it is left as it is until that target is published again",
    )
    mine = sorted((c for c in observed.containers if c.app == app), key=lambda c: (c.service, not c.up, c.id))
    services: dict[str, ServiceReport] = {}
    for container in mine:
        services.setdefault(container.service, reported(_condition(container), container, None))
    release = next((c.release for c in mine if c.release), None)
    revision = next((_version(c.revision) for c in mine if c.revision), None)
    return AppReport(release=release, revision=revision, phase="held", services=services, reason=reason)


def _version(revision: str) -> Version | None:
    told = label_revision(revision)
    return told[1] if told else None


def label_revision(revision: str) -> tuple[str, Version] | None:
    """`fleet:1.42` as it is on a label: (scope, version). None for what no agent has written."""
    found = _REVISION.fullmatch(revision)
    if found is None:
        return None
    version = Version(int(found[2]), int(found[3]))
    return (found[1], version) if max(version) <= _LARGEST else None


def _of_app(wanted: WantedApp, activity: Activity) -> Reason | None:
    """What holds the app as a whole up."""
    if activity.bad:
        what = f"release {activity.bad.release or activity.bad.revision} failed"
        now = "it is left as it is" if activity.held else f"{wanted.release or wanted.revision} runs in its place"
        code = "release_failed" if activity.held else "rolled_back"
        return Reason(code, f"{what} ({activity.bad.code}: {activity.bad.message}); {now} until a newer revision comes")
    if activity.hold:
        return _holding(activity.hold)
    for blocked in activity.plan.blocked:
        return Reason(blocked.code, blocked.message)
    for subject in (*(f"network {key}" for key in wanted.networks), *(f"volume {key}" for key in wanted.volumes)):
        attempt = activity.attempts.of(wanted.name, subject)
        if attempt and any(step.subject == subject for step in activity.plan.steps):
            return _reason(attempt)
    return None


def _holding(hold: Held) -> Reason:
    return Reason(hold.cause, hold.message, next_try_at=hold.until)


def _service(wanted: WantedService, match: Match, activity: Activity) -> ServiceReport:
    steps = [s for s in activity.plan.steps if s.subject == wanted.name]
    status, reason = _status(wanted, match, steps, activity)
    running = match.winner if match.winner and match.winner.up else next((c for c in match.others if c.up), None)
    shown = running or match.winner or match.fallback
    if shown is None:
        return ServiceReport(status=status, image=wanted.service.image, image_id=match.image_id, reason=reason)
    if running and running is not match.winner and status in ("waiting", "created"):
        # Its replacement waits for something; what runs meanwhile is what there is to tell.
        status = _condition(running)
    return reported(status, shown, reason)


def reported(status: str, container: Container, reason: Reason | None) -> ServiceReport:
    return ServiceReport(
        status=status,
        container=container.name,
        image=container.image,
        image_id=container.image_id,
        started_at=container.started_at if container.up or container.status is Status.EXITED else None,
        restarts=container.restarts,
        exit_code=None if container.up else container.exit_code,
        health=str(container.health) if container.health else None,
        reason=reason,
    )


def _status(  # noqa: C901 - the first that holds
    wanted: WantedService, match: Match, steps: list[Step], activity: Activity
) -> tuple[str, Reason | None]:
    """The service's status and, when it is not as the target says, why."""
    attempt = activity.attempts.of(activity.plan.app, wanted.name)
    if attempt and attempt.spec != (match.spec or ""):
        attempt = None
    previous = activity.attempts.of(activity.plan.app, previous_subject(wanted.name))
    if match.winner and wanted.stopped:
        return ("stopping" if match.winner.up else "stopped"), _stopped(wanted, activity.plan.app)
    pulls = [s for s in activity.plan.steps if isinstance(s.action, Pull) and s.action.image == wanted.image]
    pull = activity.attempts.of("", image_subject(wanted.image))
    if match.winner and match.winner.up:
        held = attempt if any(step.until for step in steps) else None
        again = pull if any(step.until for step in pulls) else None
        called = activity.attempts.of(activity.plan.app, name_subject(wanted.name))
        return _condition(match.winner), _trouble(match.winner, activity) or _reason(
            held or (previous if match.others else None) or called or again
        )
    if match.winner and wanted.service.one_shot and match.winner.completed:
        return "completed", None
    if match.image_id is None and match.winner is None:
        nobody = next((b for b in activity.plan.blocked if b.subject == image_subject(wanted.image)), None)
        reason = Reason(nobody.code, nobody.message) if nobody else _reason(pull)
        return ("pulling" if pulls and not nobody else "waiting"), reason
    flying = {type(step.action) for step in steps if step.id in activity.in_flight}
    if Stop in flying:
        return "stopping", None
    if flying & {Start, Create, Fill}:
        return "starting", _reason(attempt)
    if attempt and match.winner and attempt.code == "exited":
        attempt = replace(attempt, message=attempt.message + _lines(match.winner, activity))
    if attempt:
        return ("exited" if attempt.code in ("exited", "oom") else "failed"), _reason(attempt)
    waits = _waits(steps, activity.plan)
    if match.winner and match.winner.status is Status.CREATED:
        return "created", waits
    if match.winner:
        return "exited", waits or Reason("exited", _ended(match.winner))
    return "waiting", waits


def _stopped(wanted: WantedService, app: str) -> Reason | None:
    """Why it does not run although the target does not say so."""
    if wanted.service.state == "stopped":
        return None
    return Reason("stopped", f"an operator stopped it: device-agent start {app}/{wanted.name} starts it again")


def _waits(steps: list[Step], plan: Plan) -> Reason | None:
    """What the service's own steps wait for."""
    until = next((step.until for step in steps if step.until), "")
    if until:
        return Reason("dependency", f"it waits until {until}")
    pulls = {step.id: step.action.image for step in plan.steps if isinstance(step.action, Pull)}
    images = sorted(pulls[id_] for id_ in {id_ for step in steps for id_ in step.after} & pulls.keys())
    if images:
        return Reason("images", f"it waits for all images of its release: {', '.join(images)}")
    earlier = {id_ for step in steps for id_ in step.after}
    held = next((step for step in plan.steps if step.id in earlier and step.until), None)
    return Reason("dependency", f"it waits for {held.subject}, held until {held.until}") if held else None


def _condition(container: Container) -> str:
    if container.status is Status.RUNNING:
        return str(container.health) if container.health else "running"
    return {Status.PAUSED: "stopped", Status.RESTARTING: "restarting"}.get(container.status, str(container.status))


def _trouble(container: Container, activity: Activity) -> Reason | None:
    lines = _lines(container, activity)
    if container.status is Status.RESTARTING:
        return Reason(
            "crash_loop",
            f"{_ended(container)} and is restarted by the engine, {container.restarts} times so far{lines}",
        )
    if container.status is Status.PAUSED:
        return Reason("paused", f"somebody paused it: docker unpause {container.name}")
    if container.health is Health.UNHEALTHY:
        return Reason("unhealthy", f"its health check fails{lines}")
    return None


def _lines(container: Container, activity: Activity) -> str:
    tail = activity.tails.get(container.id, "").strip()
    return f"; its last lines: {tail}" if tail else ""


def _ended(container: Container) -> str:
    return f"it ended: {container.error}" if container.error else f"it exited with {container.exit_code}"


def _reason(attempt: Attempt | None) -> Reason | None:
    return Reason(attempt.code, attempt.message, attempt.count, attempt.next_at) if attempt else None

"""The gate of a release: whether what it changed proves good, and what a failure is.

It judges the release's own faults only: a container of it that exits, restarts, turns unhealthy, or cannot be created
or started for a reason in the target. Causes outside (a registry, a full disk, a port taken by a stranger, the engine)
stop its clock; they are retried.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from device_agent.core.backoff import Attempts
from device_agent.core.draft import image_subject
from device_agent.core.matching import Match, as_asked, match_services
from device_agent.core.wanted import WantedApp
from device_agent.model.memory import Attempt
from device_agent.model.observed import Container, Health, Observed, Status
from device_agent.model.steps import Plan, Pull, Step

TARGETS_FAULTS = frozenset(("bad_command", "bad_config", "exec_format", "start_failed"))
"""Of an attempt's codes those that only another target can mend. A missing image stops nothing and is none of them."""
_NO_IMAGE = frozenset(("no_such_image", "wrong_platform"))


@dataclass(frozen=True, slots=True)
class Passed:
    """Everything that the release changed is good, and has been for long enough."""


@dataclass(frozen=True, slots=True)
class Open:
    """Not decided. `wait_s`: when time alone can decide it; `counting`: whether the deadline's clock runs."""

    wait_s: float | None = None
    counting: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """The release's own fault. `service` is empty for the deadline."""

    code: str
    message: str
    service: str = ""


Verdict = Passed | Open | Failed


def judge(
    wanted: WantedApp,
    observed: Observed,
    plan: Plan,
    attempts: Attempts,
    settled: Mapping[str, str],
    *,
    steady_s: Mapping[str, float],
    elapsed_s: float,
    lenient: bool = False,
    held: bool = False,
) -> Verdict:
    """`settled`: service → spec as the app last settled: what the release leaves as it was is not judged.

    `steady_s`: container id → for how long it has been good without a restart. `elapsed_s`: how long the gate is open,
    without the time in which something outside held it up. `lenient`: it only passes, and never fails.
    `held`: an update lock keeps it from going on.
    """
    changed = {
        name: match
        for name, match in match_services(wanted, observed).items()
        if match.winner is None or settled.get(name) != match.winner.spec
    }
    fault = next(_faults(wanted, changed, attempts), None)
    if fault and not lenient:
        return fault
    needed_s = wanted.gate.healthy_for / 1e9
    short = [_short_s(wanted, name, match, steady_s, needed_s) for name, match in changed.items()]
    if not plan.blocked and all(missing == 0 for missing in short):
        return Passed()
    pulling = any(_is_awaited(step) for step in plan.steps)
    waits = held or pulling or _held_from_outside(plan, attempts) or _waits_for_stopped(wanted, changed)
    counting = not waits
    left_s = wanted.gate.deadline / 1e9 - elapsed_s
    if counting and left_s <= 0 and not lenient:
        return Failed("deadline", f"it is not good {wanted.gate.deadline / 1e9:g} s after its images were there")
    times = [missing for missing in short if missing] if all(missing is not None for missing in short) else []
    return Open(min([*times, *([left_s] if counting and not lenient else [])], default=None), counting)


def _faults(wanted: WantedApp, changed: Mapping[str, Match], attempts: Attempts) -> Iterator[Failed]:
    for name, match in changed.items():
        pull = attempts.of("", image_subject(wanted.services[name].image))
        if pull and pull.code in _NO_IMAGE and match.winner is None and _has_nothing_left(wanted, name, match):
            yield Failed(pull.code, pull.message, name)
        attempt = attempts.of(wanted.name, name)
        if attempt and attempt.spec == (match.spec or "") and attempt.code in TARGETS_FAULTS:
            yield Failed(attempt.code, attempt.message, name)
        elif match.winner and not wanted.services[name].stopped and match.winner.run != wanted.services[name].anew:
            code, message = _fault(match.winner, one_shot=wanted.services[name].service.one_shot)
            if code:
                yield Failed(code, message, name)


def _has_nothing_left(wanted: WantedApp, name: str, match: Match) -> bool:
    """What it replaces was deleted to make room for an image: then one that does not exist leaves it with nothing."""
    return wanted.services[name].service.update.strategy == "delete-first" and match.fallback is None


def _fault(container: Container, *, one_shot: bool) -> tuple[str, str]:
    if container.health is Health.UNHEALTHY:
        return "unhealthy", "its health check fails"
    ended = f"it ended: {container.error}" if container.error else f"it exited with {container.exit_code}"
    if container.restarts or container.status is Status.RESTARTING:
        return "crash_loop", f"{ended} and was restarted" if container.exit_code is not None else "it was restarted"
    if container.status is Status.EXITED and container.started_at and not (one_shot and container.completed):
        return "exited", ended
    return "", ""


def _short_s(
    wanted: WantedApp, name: str, match: Match, steady_s: Mapping[str, float], needed_s: float
) -> float | None:
    """Seconds that a service still has to be good; None when it is not good now."""
    container = match.winner
    if container is None or not as_asked(wanted.services[name], container):
        return None
    proven = container.completed or wanted.services[name].stopped
    return 0.0 if proven else max(0.0, needed_s - steady_s.get(container.id, 0.0))


def _is_awaited(step: Step) -> bool:
    """A pull without which the release cannot go on: an image that is here is used when it cannot be had anew."""
    return isinstance(step.action, Pull) and (step.action.policy == "missing" or not step.until)


def _held_from_outside(plan: Plan, attempts: Attempts) -> bool:
    return bool(plan.blocked) or any(_outside(attempts.of(plan.app, step.subject)) for step in plan.steps)


def _waits_for_stopped(wanted: WantedApp, changed: Mapping[str, Match]) -> bool:
    """Whether a service cannot start because one that it needs is kept stopped: that is somebody's will, no fault."""
    return any(
        dependency.required and other in wanted.services and wanted.services[other].stopped
        for name, match in changed.items()
        if not as_asked(wanted.services[name], match.winner)
        for other, dependency in wanted.services[name].service.depends_on.items()
    )


def _outside(attempt: Attempt | None) -> bool:
    return attempt is not None and attempt.code not in TARGETS_FAULTS and attempt.code != "exited"

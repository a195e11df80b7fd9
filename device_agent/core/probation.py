"""When a failure is over: its counter is kept for as long as it may happen again at once."""

from collections.abc import Collection, Mapping

from device_agent.core.backoff import CAP, Attempts, due
from device_agent.core.wanted import WantedApp
from device_agent.model.memory import Attempt
from device_agent.model.observed import Observed
from device_agent.model.steps import Plan, Pull, Remove, Step


def over(
    attempts: Attempts,
    plans: Collection[Plan],
    busy: Collection[str],
    wanted: Mapping[str, WantedApp],
    observed: Observed,
) -> list[tuple[str, str]]:
    """The attempts, (app, subject), of which nothing is planned any more and whose next time has passed.

    `busy`: the apps whose plan is being carried out.
    """
    active = {(plan.app, step.subject) for plan in plans for step in plan.steps if not _kept(step)}
    active |= {("", step.subject) for plan in plans for step in plan.steps if isinstance(step.action, Pull)}
    return [
        key
        for key, attempt in attempts.rows.items()
        if key not in active
        and attempt.app not in busy
        and not _runs_a_one_shot(attempt, attempts, wanted.get(attempt.app), observed)
        and due(attempt, attempts.now)
    ]


def _kept(step: Step) -> bool:
    """What was replaced is kept until its replacement is good: nothing is being tried with it."""
    return isinstance(step.action, Remove) and bool(step.until)


def _runs_a_one_shot(attempt: Attempt, attempts: Attempts, wanted: WantedApp | None, observed: Observed) -> bool:
    """A one-shot that runs is not good yet: it may fail again in a moment, and then waits longer than before."""
    service = wanted.services.get(attempt.subject) if wanted else None
    if service is None or not service.service.one_shot or attempts.now >= attempt.next_at + CAP:
        return False
    return any(c.up and c.spec == attempt.spec and c.app == attempt.app for c in observed.containers)

"""`depends_on`: what a service waits for before it is started, and what it waits for in vain."""

from collections.abc import Mapping
from dataclasses import dataclass

from device_agent.core.draft import NONE, Draft, Ids
from device_agent.core.matching import Match, satisfied
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.compose import Dependency
from device_agent.model.compose_dependencies import INSTEAD, never_met
from device_agent.model.observed import Health, Status
from device_agent.model.steps import Start

_WORDS = {
    "service_started": "runs",
    "service_healthy": "is healthy",
    "service_completed_successfully": "has completed",
}


@dataclass(slots=True)
class DependsOn:
    """Lives for one planning."""

    wanted: WantedApp
    matches: Mapping[str, Match]
    steps: Draft

    def awaited(self, wanted: WantedService) -> tuple[Ids, str]:
        """The starts to wait for, and in words what has to be observed first."""
        after, unmet = NONE, []
        for name, dependency in sorted(wanted.service.depends_on.items()):
            match = self.matches.get(name)
            if match is None:
                continue
            stopped = self.wanted.services[name].stopped
            if not stopped and satisfied(dependency, match):
                continue
            if not dependency.required and self._failing(name, match):
                continue
            starts = self.steps.of(Start, name)
            if dependency.condition == "service_started" and starts:
                after |= starts
            else:
                kept = f" (it is kept stopped {stopped})" if stopped else ""
                never = _never(self.wanted.services[name], dependency, match)
                unmet.append(f"{name} {_WORDS[dependency.condition]}{kept}{never}")
        return after, " and ".join(unmet)

    def kept_stopped(self, wanted: WantedService) -> bool:
        """Whether something that it requires is kept stopped, so that no container of it can be started."""
        needs = (name for name, dependency in wanted.service.depends_on.items() if dependency.required)
        return any(name in self.wanted.services and self.wanted.services[name].stopped for name in needs)

    def _failing(self, service: str, match: Match) -> bool:
        """Whether a service is in trouble: who does not require it does not wait for it any longer."""
        container = match.winner
        if self.wanted.services[service].stopped:
            return True
        if self.steps.waiting(service, match.spec or "") or self.steps.held(self.steps.of(Start, service)):
            return True
        ended = container is not None and container.status is Status.EXITED and not container.completed
        sick = container is not None and (container.status is Status.RESTARTING or container.health is Health.UNHEALTHY)
        return ended or sick


def _never(other: WantedService, dependency: Dependency, match: Match) -> str:
    """In words, where waiting for it is in vain: nobody but the target's author can help."""
    why = never_met(dependency.condition, other.service)
    running = match.winner is not None and match.winner.status is Status.RUNNING
    if dependency.condition == "service_healthy" and running and match.winner and match.winner.health is None:
        why = f"it has no health check, nor has its image: give it one, {INSTEAD}"
    return f", which can never be: {why}" if why else ""

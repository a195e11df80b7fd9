"""What is stopped without being replaced: kept so, or started again as it is.

An operator says so, or the target; or what a container relies on was replaced: what it depends on with `restart`, or
the container whose namespaces it has joined.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from device_agent.core.draft import NONE, Draft, Ids, remove_previous, stop_of
from device_agent.core.matching import Match
from device_agent.core.naming import Names
from device_agent.core.replacing import Replacing
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.observed import Container, Status, moment
from device_agent.model.steps import Start, Step


@dataclass(slots=True)
class Stopping:
    """Lives for one planning."""

    wanted: WantedApp
    matches: Mapping[str, Match]
    steps: Draft
    names: Names
    replacing: Replacing
    gated: bool
    follow: Mapping[str, tuple[str, ...]]
    """Service → what it depends on with `restart`, and that was replaced after it was started."""

    def stop_what_is_asked(self) -> None:
        """What is kept stopped, and what is restarted: dependents first. What is restarted starts in order again."""
        stops: dict[str, Ids] = {}
        for name in reversed(tuple(self.wanted.services)):
            wanted, match = self.wanted.services[name], self.matches[name]
            dependents = (ids for other, ids in stops.items() if name in self.wanted.services[other].service.depends_on)
            after = NONE.union(*dependents)
            if wanted.stopped:
                stops[name] = self._keep_stopped(wanted, match, after)
            elif match.winner and match.winner.up and match.winner.run == wanted.anew:
                stops[name] = self._stop(match.winner, "an operator wants it restarted", after)
        starts: dict[str, Ids] = {}
        for name, wanted in self.wanted.services.items():
            winner = self.matches[name].winner
            if winner and name in stops and not wanted.stopped:
                after = stops[name].union(*(starts.get(other, NONE) for other in wanted.service.depends_on))
                cause = "an operator wants it restarted"
                starts[name] = self.steps.add(Step(Start(winner.name), name, winner.spec, cause, after, commits=True))

    def _keep_stopped(self, wanted: WantedService, match: Match, dependents: Ids) -> Ids:
        """Its container is there, as wanted, and does not run. Returns the stops."""
        # A release stops nothing before all its images are there; an operator's word is of this moment.
        made = self.replacing.foundations(wanted, match) if wanted.service.state == "stopped" else NONE
        if match.winner is None:
            until = self.replacing.obstacle(wanted, match) or self.steps.waiting(wanted.name, match.spec or "")
            _, made = self.replacing.create(wanted, match, self.replacing.foundations(wanted, match), until)
        stops = NONE
        for container in (*((match.winner,) if match.winner else ()), *match.others):
            stopped = made | dependents
            if container.up:
                stopped = self._stop(container, f"it is kept stopped {wanted.stopped}", stopped)
                stops |= stopped
            if container is not match.winner and container.status is not Status.CREATED:
                kept = "its release has passed its gate" * self.gated
                remove_previous(self.steps, container, "it is replaced", stopped, kept)
        if match.winner:
            self.names.repair(wanted, match.winner, self.replacing.ground.images)
        return stops

    def restart_with_others(self, wanted: WantedService, match: Match) -> None:
        """What runs, and what it relies on was started or made after it."""
        container = match.winner
        if container is None or not container.up:
            return
        after = self.replacing.foundations(wanted, match)
        if lost := self._outlived(wanted, container):
            cause = f"{lost}, whose {wanted.shares[lost]} it shares, was started after it"
            self._restart(container, cause, after)
        if wanted.name in self.follow:
            replaced = self.follow[wanted.name][0]
            cause = f"{replaced}, on which it depends with restart, was replaced after it was started"
            self._restart(container, cause, after, follows=True)

    def follower(self, wanted: WantedService) -> str:
        """The first that has known what this service replaced, and is still to be started again."""
        return min((name for name, replaced in self.follow.items() if wanted.name in replaced), default="")

    def _outlived(self, wanted: WantedService, container: Container) -> str:
        """A namespace ends with the process that it was made for: who joined it is left with none. Whose it was."""
        for name in wanted.shares:
            host = self.matches[name].winner
            if host and host.status is Status.RUNNING and moment(host.started_at) > moment(container.started_at):
                return name
        return ""

    def _restart(self, container: Container, cause: str, after: Ids, *, follows: bool = False) -> None:
        # `again`: it waits longer each time. A clock that was set back makes it look so although it is not.
        stopped = self._stop(container, cause, after, follows=follows)
        start = Step(Start(container.name), container.service, container.spec, cause, stopped, commits=True, again=True)
        self.steps.add(replace(start, follows=follows))

    def _stop(self, container: Container, cause: str, after: Ids, *, follows: bool = False) -> Ids:
        stop = Step(stop_of(self.wanted, container), container.service, container.spec, cause, after, follows=follows)
        return self.steps.add(stop)

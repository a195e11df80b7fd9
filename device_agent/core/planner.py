"""From what is wanted and what is observed to the steps for one app. A pure function, recomputed on every pass.

What is decided in which order is here; how, in `foundations` (images, networks, volumes), `replacing`, `stopping`,
`depends_on`, `naming`, `making_room`, `host_ports` and `following`.

Rules (their numbers are those of docs/reconciling.md):
 1. All images of a release are there before anything of it is created or anything running is stopped, but where a
    strategy makes room first. What the release leaves as it last settled is repaired without waiting for the others.
 2. A replacement is created before the old container is stopped, and the old one is removed only once the new one is
    good. While the new one cannot run, the old one does.
 3. A healthy container that is as wanted appears in no step.
 4. Data is never removed or changed: volumes are created. A network is replaced with its users stopped and moved over.
 5. What is not ours is reported as blocked, never touched.
 6. A step that failed is planned again, held until its next try; what needs it waits with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from device_agent.core.backoff import Attempts
from device_agent.core.depends_on import DependsOn
from device_agent.core.draft import NONE, Draft, remove_containers, remove_files, remove_networks, remove_previous
from device_agent.core.following import following
from device_agent.core.foundations import Foundations
from device_agent.core.host_ports import free_ports_first
from device_agent.core.images import NOTHING_PULLED, Pulled
from device_agent.core.making_room import MakingRoom
from device_agent.core.matching import Match, as_asked, match_services, present
from device_agent.core.naming import Names
from device_agent.core.replacing import Replacing
from device_agent.core.stopping import Stopping
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.observed import Observed, Status
from device_agent.model.steps import Plan


def plan_app(
    wanted: WantedApp,
    observed: Observed,
    attempts: Attempts,
    settled: Mapping[str, str],
    *,
    gated: bool = False,
    pulled: Pulled = NOTHING_PULLED,
) -> Plan:
    """The steps that bring an app from what is observed to what is wanted.

    `settled` is service → spec as the app last settled: what tells a repair from a release. `gated`: its release has
    not passed its gate, so that what it replaces is kept.
    """
    steps, matches = Draft(wanted.name, attempts), match_services(wanted, observed)
    ground = Foundations(wanted, observed, matches, steps, pulled)
    names = Names(wanted, observed, matches, steps)
    room, needs = MakingRoom(wanted, observed, steps, pulled), DependsOn(wanted, matches, steps)
    replacing = Replacing(wanted, settled, matches, steps, ground, names, room, needs)
    stopping = Stopping(wanted, matches, steps, names, replacing, gated, following(wanted, matches, attempts.now))
    return _Planning(wanted, observed, steps, matches, gated, ground, names, replacing, stopping).plan()


def plan_removal(app: str, observed: Observed, attempts: Attempts) -> Plan:
    """The steps that remove an app: its containers, dependents first, then its networks. Its data stays."""
    steps = Draft(app, attempts)
    cause = "the app is no longer in the target"
    remove_containers(steps, present(app, observed), cause, NONE)
    remove_networks(steps, [n for n in observed.networks if n.app == app], observed.containers)
    remove_files(steps, observed, ())
    return Plan(app, steps.in_order())


@dataclass(slots=True)
class _Planning:
    """One planning of one app: what is decided in which order. Lives for one call."""

    wanted: WantedApp
    observed: Observed
    steps: Draft
    matches: Mapping[str, Match]
    gated: bool
    ground: Foundations
    names: Names
    replacing: Replacing
    stopping: Stopping

    def plan(self) -> Plan:
        self.ground.lay()
        gone = [c for c in present(self.wanted.name, self.observed) if c.service not in self.wanted.services]
        remove_containers(self.steps, gone, "it is no longer in the target", self.ground.images, self.wanted)
        for name, match in self.matches.items():
            self._clear(name, match)
        self.stopping.stop_what_is_asked()
        for name, service in self.wanted.services.items():
            if not service.stopped:
                self._service(service, self.matches[name])
        free_ports_first(self.wanted, self.observed, self.replacing)
        self.replacing.fill_again()
        names = {network.name for network in self.wanted.networks.values()}
        unused = [n for n in self.observed.networks if n.app == self.wanted.name and n.name not in names]
        remove_networks(self.steps, unused, self.observed.containers)
        remove_files(self.steps, self.observed, {(name, match.spec) for name, match in self.matches.items()})
        return Plan(self.wanted.name, self.steps.in_order(), tuple(self.ground.blocked.values()))

    def _clear(self, service: str, match: Match) -> None:
        """What can never run again, or never ran and is not wanted any more."""
        for container in present(self.wanted.name, self.observed):
            if container.service == service and container.status is Status.DEAD:
                remove_previous(self.steps, container, "it is dead")
        for other in match.others:
            if other.status is Status.CREATED:
                remove_previous(self.steps, other, "it was never started and is no longer wanted")

    def _service(self, wanted: WantedService, match: Match) -> None:
        """It is to run: it does, and is restarted where it must be; or it is brought up."""
        self.stopping.restart_with_others(wanted, match)
        proved = match.winner is not None and as_asked(wanted, match.winner)
        if match.winner and (proved or match.winner.up):
            if match.others:
                # While it runs and has not proved good, what it replaced is kept, stopped.
                until = self._kept_until(wanted) if proved else f"{wanted.name} is good"
                self.replacing.retire_others(wanted, match, match.winner, until, proved=proved)
            self.names.repair(wanted, match.winner, self.ground.images)
        else:
            self.replacing.bring_up(wanted, match)

    def _kept_until(self, wanted: WantedService) -> str:
        """What was replaced is no more of use; it tells who has known it, and is to be started again."""
        if self.gated:
            return "its release has passed its gate"
        follower = self.stopping.follower(wanted)
        return f"{follower}, which depends on it with restart, was started again" if follower else ""

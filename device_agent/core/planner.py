"""From what is wanted and what is observed to the steps for one app. A pure function, recomputed on every pass.

Rules (their numbers are those of docs/reconciling.md):
 1. All images of a release are there before anything of it is created or anything running is stopped, but where a
    strategy makes room first. What the release leaves as it last settled is repaired without waiting for the others.
 2. A replacement is created before the old container is stopped, and the old one is removed only once the new one is
    good. While the new one cannot run, the old one does.
 3. A healthy container that is as wanted appears in no step.
 4. Volumes are created, never removed or changed. A network is replaced with its users stopped and moved over.
 5. What is not ours is reported as blocked, never touched.
 6. A step that failed is planned again, held until its next try; what needs it waits with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from device_agent.core.backoff import Attempts
from device_agent.core.draft import (
    ANY_OF_THEM,
    NONE,
    Draft,
    Ids,
    grace_s,
    previous_subject,
    remove_containers,
    remove_networks,
)
from device_agent.core.following import following
from device_agent.core.foundations import Foundations
from device_agent.core.images import NOTHING_PULLED, Pulled
from device_agent.core.limits import changed
from device_agent.core.making_room import MakingRoom
from device_agent.core.matching import Match, as_asked, match_services, present, satisfied
from device_agent.core.naming import Names
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.compose import Dependency
from device_agent.model.compose_dependencies import INSTEAD, never_met
from device_agent.model.observed import Container, Health, Observed, Status, moment
from device_agent.model.steps import (
    Connect,
    Plan,
    Remove,
    Start,
    Step,
    Stop,
    Upload,
)


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
    room = MakingRoom(wanted, observed, steps, pulled)
    follow = following(wanted, matches, attempts.now)
    return _Planning(wanted, observed, settled, steps, gated, matches, ground, names, room, follow).plan()


def plan_removal(app: str, observed: Observed, attempts: Attempts) -> Plan:
    """The steps that remove an app: its containers, dependents first, then its networks. Its volumes stay."""
    steps = Draft(app, attempts)
    cause = "the app is no longer in the target"
    remove_containers(steps, present(app, observed), cause, NONE)
    remove_networks(steps, [n for n in observed.networks if n.app == app], observed.containers)
    return Plan(app, steps.in_order())


@dataclass(slots=True)
class _Planning:
    """One planning of one app; lives for one call."""

    wanted: WantedApp
    observed: Observed
    settled: Mapping[str, str]
    steps: Draft
    gated: bool
    matches: Mapping[str, Match]
    ground: Foundations
    names: Names
    room: MakingRoom
    follow: Mapping[str, tuple[str, ...]]
    """Service → what it depends on with `restart`, and that was replaced after it was started."""
    dependents: dict[str, tuple[Ids, str]] = field(default_factory=dict)
    """Stop → what it waits for besides its dependencies."""

    def plan(self) -> Plan:
        self.ground.lay()
        gone = [c for c in present(self.wanted.name, self.observed) if c.service not in self.wanted.services]
        remove_containers(self.steps, gone, "it is no longer in the target", self.ground.images, self.wanted)
        for name, service in self.wanted.services.items():
            self._clear(service, self.matches[name])
        self._stop_what_is_asked()
        for name, service in self.wanted.services.items():
            if not service.stopped:
                self._service(service, self.matches[name])
        self._free_ports_first()
        names = {network.name for network in self.wanted.networks.values()}
        unused = [n for n in self.observed.networks if n.app == self.wanted.name and n.name not in names]
        remove_networks(self.steps, unused, self.observed.containers)
        return Plan(self.wanted.name, self.steps.in_order(), tuple(self.ground.blocked.values()))

    def _clear(self, wanted: WantedService, match: Match) -> None:
        """What can never run again, or never ran and is not wanted any more."""
        for container in present(self.wanted.name, self.observed):
            if container.service == wanted.name and container.status is Status.DEAD:
                self._remove(wanted, container, "it is dead")
        for other in match.others:
            if other.status is Status.CREATED:
                self._remove(wanted, other, "it was never started and is no longer wanted")

    def _stop_what_is_asked(self) -> None:
        """What is kept stopped, and what is restarted: dependents first. What is restarted starts in order again."""
        stops: dict[str, Ids] = {}
        for name in reversed(tuple(self.wanted.services)):
            wanted, match = self.wanted.services[name], self.matches[name]
            dependents = (ids for other, ids in stops.items() if name in self.wanted.services[other].service.depends_on)
            after = NONE.union(*dependents)
            if wanted.stopped:
                stops[name] = self._keep_stopped(wanted, match, after)
            elif match.winner and match.winner.up and match.winner.run == wanted.anew:
                stops[name] = self._stop(wanted, match.winner, "an operator wants it restarted", after)
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
        made = self._foundations(wanted, match) if wanted.service.state == "stopped" else NONE
        if match.winner is None:
            until = self._obstacle(wanted, match) or self.steps.waiting(wanted.name, match.spec or "")
            _, made = self._create(wanted, match, self._foundations(wanted, match), until)
        stops = NONE
        for container in (*((match.winner,) if match.winner else ()), *match.others):
            stopped = made | dependents
            if container.up:
                stopped = self._stop(wanted, container, f"it is kept stopped {wanted.stopped}", stopped)
                stops |= stopped
            if container is not match.winner and container.status is not Status.CREATED:
                kept = "its release has passed its gate" * self.gated
                self._remove(wanted, container, "it is replaced", stopped, until=kept)
        if match.winner:
            self.names.repair(wanted, match.winner, self.ground.images)
        return stops

    def _stop(
        self, wanted: WantedService, container: Container, cause: str, after: Ids, *, follows: bool = False
    ) -> Ids:
        action = Stop(container.name, container.id, grace_s(self.wanted, wanted.name))
        return self.steps.add(Step(action, wanted.name, container.spec, cause, after, follows=follows))

    def _service(self, wanted: WantedService, match: Match) -> None:
        if match.winner and match.winner.up and (lost := self._outlived(wanted, match.winner)):
            cause = f"{lost}, whose {wanted.shares[lost]} it shares, was started after it"
            self._restart(wanted, match.winner, cause, self._foundations(wanted, match))
        if match.winner and wanted.name in self.follow:
            replaced = self.follow[wanted.name][0]
            cause = f"{replaced}, on which it depends with restart, was replaced after it was started"
            self._restart(wanted, match.winner, cause, self._foundations(wanted, match), follows=True)
        proved = match.winner is not None and as_asked(wanted, match.winner)
        if match.winner and (proved or match.winner.up):
            if match.others:
                # While it runs and has not proved good, what it replaced is kept, stopped.
                until = self._kept_until(wanted) if proved else f"{wanted.name} is good"
                self._retire_others(wanted, match, match.winner, until, proved=proved)
            self.names.repair(wanted, match.winner, self.ground.images)
        else:
            self._bring_up(wanted, match)

    def _kept_until(self, wanted: WantedService) -> str:
        """What was replaced is no more of use; it tells who has known it, and is to be started again."""
        if self.gated:
            return "its release has passed its gate"
        known = sorted(name for name, replaced in self.follow.items() if wanted.name in replaced)
        return f"{known[0]}, which depends on it with restart, was started again" if known else ""

    def _outlived(self, wanted: WantedService, container: Container) -> str:
        """A namespace ends with the process that it was made for: who joined it is left with none. Whose it was."""
        for name in wanted.shares:
            host = self.matches[name].winner
            if host and host.status is Status.RUNNING and moment(host.started_at) > moment(container.started_at):
                return name
        return ""

    def _restart(
        self, wanted: WantedService, container: Container, cause: str, after: Ids, *, follows: bool = False
    ) -> None:
        # `again`: it waits longer each time. A clock that was set back makes it look so although it is not.
        stopped = self._stop(wanted, container, cause, after, follows=follows)
        start = Step(Start(container.name), wanted.name, container.spec, cause, stopped, commits=True, again=True)
        self.steps.add(replace(start, follows=follows))

    def _remove(
        self, wanted: WantedService, container: Container, cause: str, after: Ids = NONE, until: str = ""
    ) -> None:
        action = Remove(container.name, container.id)
        self.steps.add(Step(action, previous_subject(wanted.name), ANY_OF_THEM, cause, after, until))

    def _retire_others(
        self, wanted: WantedService, match: Match, winner: Container, until: str, *, proved: bool
    ) -> None:
        for other in match.others:
            cause = f"replaced by {winner.name}"
            after = NONE
            if other.up:
                stop = Stop(other.name, other.id, grace_s(self.wanted, wanted.name))
                beside = until if _starts_first(wanted) else ""
                after = self.steps.add(Step(stop, previous_subject(wanted.name), ANY_OF_THEM, cause, until=beside))
                if beside and proved:
                    # Who takes a port of it need not wait for a gate that waits for that one.
                    self.dependents.update(dict.fromkeys(after, (NONE, "")))
            self._remove(wanted, other, cause, after, until)

    def _bring_up(self, wanted: WantedService, match: Match) -> None:
        """The wanted container does not run: create it if need be, and start it when all it stands on is there."""
        spec = match.spec or ""
        until = self._obstacle(wanted, match) or self.steps.waiting(wanted.name, spec)
        if not until:
            self.room.before_its_pull(wanted, match)
        after = self._foundations(wanted, match)
        if match.winner:
            container = match.winner.name
        else:
            container, created = self._create(wanted, match, after, until)
            after |= created
        after |= self._upload(wanted, match, container, after, until)
        dependencies, unmet = self._dependencies(wanted)
        held = until or unmet or ("all it needs is there" if self.steps.held(after | dependencies) else "")
        if held and (until or unmet or not self.room.still_pulling(wanted, self.ground.images)):
            if self._fall_back(wanted, match, held):
                unmet = unmet or held
            if match.fallback:
                self.names.restore(wanted, match.fallback, held)
        self._replace(wanted, match, container, (after, until), (dependencies, unmet))

    def _obstacle(self, wanted: WantedService, match: Match) -> str:
        """What only somebody else, or another look, can clear."""
        missing = next((name for name in wanted.shares if self.matches[name].winner is None), "")
        if missing and match.image_id:
            return f"{missing}, whose {wanted.shares[missing]} it shares, has its container"
        subject = self.ground.obstacle(wanted)
        return f"{subject} can be used" if subject else ""

    def _foundations(self, wanted: WantedService, match: Match) -> Ids:
        repair = match.winner is not None and match.winner.status is Status.EXITED and not match.others
        unchanged = match.spec is not None and self.settled.get(wanted.name) == match.spec
        return self.ground.made(wanted) | (NONE if repair or unchanged else self.ground.images)

    def _create(self, wanted: WantedService, match: Match, foundations: Ids, until: str) -> tuple[str, Ids]:
        create = self.wanted.create(wanted, match.image_id or "", match.shared)
        create = replace(create, name=self.names.to_create(wanted, match.spec))
        after = foundations | self.names.removal_of(create.name)
        step = Step(create, wanted.name, match.spec or "", _why_created(wanted, match), after, until)
        created = self.steps.add(step)
        connected = NONE
        for endpoint in create.endpoints[1:]:
            cause = f"it is to be on network {endpoint.network}"
            connect = Step(Connect(create.name, endpoint), wanted.name, match.spec or "", cause, created, until)
            connected |= self.steps.add(connect)
        return create.name, created | connected

    def _upload(self, wanted: WantedService, match: Match, container: str, after: Ids, until: str) -> Ids:
        """Its configs and secrets. What was started once has them: whoever starts it comes through here."""
        if not wanted.service.files or (match.winner and match.winner.status is not Status.CREATED):
            return NONE
        action = Upload(container, wanted.service.files, mounted=wanted.service.read_only)
        cause = "its configs and secrets"
        return self.steps.add(Step(action, wanted.name, match.spec or "", cause, after, until))

    def _dependencies(self, wanted: WantedService) -> tuple[Ids, str]:
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

    def _fall_back(self, wanted: WantedService, match: Match, until: str) -> bool:
        """Rule 2: while the wanted one cannot run, the one it is to replace does. Says whether it is being started."""
        old = match.fallback
        needs = (name for name, dependency in wanted.service.depends_on.items() if dependency.required)
        if any(name in self.wanted.services and self.wanted.services[name].stopped for name in needs):
            return False  # nor can the old one
        if old is None or any(other.up for other in match.others):
            return False
        cause = f"it runs on until {until}"
        self.steps.add(Step(Start(old.name), previous_subject(wanted.name), ANY_OF_THEM, cause, again=True))
        return True

    def _replace(
        self,
        wanted: WantedService,
        match: Match,
        container: str,
        foundations: tuple[Ids, str],
        dependencies: tuple[Ids, str],
    ) -> None:
        """Stop what runs in its place, start it, and remove what it replaced."""
        spec = match.spec or ""
        after, until = foundations[0] | dependencies[0], foundations[1] or dependencies[1]
        stops = NONE
        for other in match.others:
            if other.up and not _starts_first(wanted):
                action = Stop(other.name, other.id, grace_s(self.wanted, wanted.name))
                stop = Step(action, wanted.name, spec, f"to be replaced by {container}", after, until)
                if stop.id not in self.steps:
                    self.dependents[stop.id] = foundations
                stops |= self.steps.add(stop)
        ended = match.winner is not None and match.winner.status is Status.EXITED
        cause = _why_started(match.winner) if match.winner else "it was just created"
        asked = match.winner is not None and match.winner.run == wanted.anew
        if asked:
            cause = "an operator wants it started"
        # Made anew for a limit that it does not keep, it would be so for ever: then it waits longer each time.
        updated = next((changed(wanted.service, other) for other in match.others if other.spec == spec), "")
        # What ended takes its place again at once, but not over and over.
        again = bool(updated) or (ended and not asked and not any(other.up for other in match.others))
        cause = updated or cause
        start = Step(Start(container), wanted.name, spec, cause, after | stops, until, commits=bool(stops), again=again)
        container, renamed = self.names.switch(wanted, match, container, start)
        started = self.steps.add(replace(start, action=Start(container), after=start.after | renamed))
        for other in match.others:
            if other.status is not Status.CREATED:
                self._remove(wanted, other, f"replaced by {container}", started, until=f"{wanted.name} is good")

    def _free_ports_first(self) -> None:
        """A host port that one container gives up and another takes: the stop comes before such a start.

        The stop then waits for no dependency, or two services that swap ports would wait for each other. Nothing is
        stopped for a start that cannot be made now, and nothing for one whose port cannot be freed now.
        """
        published = {c.id: c.published for c in self.observed.containers}
        stops = {s.id: published.get(s.action.id, NONE) for s in self.steps if isinstance(s.action, Stop)}
        starts = {s.id: _fixed_ports(self.wanted.services[s.subject]) for s in self.steps if self._is_start(s)}
        for id_, ports in starts.items():
            start = self.steps[id_]
            freed = frozenset(stop for stop, held in stops.items() if held & ports and stop not in start.after)
            if not freed or self.steps.held(frozenset({id_})):
                continue
            relaxed = [self._relaxed(self.steps[stop]) for stop in freed]
            held = [stop for stop in relaxed if stop.until or self.steps.held(stop.after)]
            if held:
                self._hold(start, held[0].until or "the port it takes is free")
                continue
            for stop in relaxed:
                self.steps.replace(stop)
            self.steps.replace(replace(start, after=start.after | freed, commits=True))

    def _is_start(self, step: Step) -> bool:
        return isinstance(step.action, Start) and step.subject in self.wanted.services

    def _relaxed(self, stop: Step) -> Step:
        after, until = self.dependents.get(stop.id, (stop.after, stop.until))
        return replace(stop, after=after, until=until)

    def _hold(self, start: Step, until: str) -> None:
        """A start that waits after all, and with it the stop of what runs in its place."""
        for id_ in (start.id, *(start.after & self.dependents.keys())):
            self.steps.replace(replace(self.steps[id_], until=until))
        self._fall_back(self.wanted.services[start.subject], self.matches[start.subject], until)


def _starts_first(wanted: WantedService) -> bool:
    """The new container runs beside the old one until its release has passed its gate."""
    return wanted.service.update.strategy == "start-first"


def _fixed_ports(wanted: WantedService) -> frozenset[tuple[int, str]]:
    """The host ports that it takes: (port, protocol)."""
    return frozenset(
        (int(p.published), p.protocol) for p in wanted.service.ports if p.published and p.published.isdigit()
    )


_WORDS = {
    "service_started": "runs",
    "service_healthy": "is healthy",
    "service_completed_successfully": "has completed",
}


def _never(other: WantedService, dependency: Dependency, match: Match) -> str:
    """In words, where waiting for it is in vain: nobody but the target's author can help."""
    why = never_met(dependency.condition, other.service)
    running = match.winner is not None and match.winner.status is Status.RUNNING
    if dependency.condition == "service_healthy" and running and match.winner and match.winner.health is None:
        why = f"it has no health check, nor has its image: give it one, {INSTEAD}"
    return f", which can never be: {why}" if why else ""


def _why_created(wanted: WantedService, match: Match) -> str:
    old = match.fallback
    if old is None:
        return "it does not exist"
    if old.image != wanted.image:
        return f"image changed: {old.image} → {wanted.image}"
    if old.spec == match.spec:
        return changed(wanted.service, old)
    if match.image_id and old.image_id != match.image_id:
        return f"image {wanted.image} is another one now"
    return "its definition changed"


def _why_started(container: Container) -> str:
    if container.status is Status.CREATED:
        return "it was created and never started"
    return f"it ended: {container.error}" if container.error else f"it exited with {container.exit_code}"

"""Rule 2 of the planner: a service gets its container, which takes the place of what ran before.

It is created, what runs is stopped, it is started, and what it replaced is removed once it is good; while it cannot
run, the old one does. With `start-first` the two run side by side until the release has passed its gate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from device_agent.core.depends_on import DependsOn
from device_agent.core.draft import (
    ANY_OF_THEM,
    NONE,
    Draft,
    Ids,
    previous_subject,
    remove_previous,
    stop_of,
)
from device_agent.core.foundations import Foundations
from device_agent.core.limits import changed
from device_agent.core.making_room import MakingRoom
from device_agent.core.matching import Match
from device_agent.core.naming import Names
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.observed import Container, Status, moment
from device_agent.model.steps import Connect, Start, Step

MOUNT_FAILED = "mount_failed"


@dataclass(slots=True)
class Replacing:
    """Lives for one planning."""

    wanted: WantedApp
    settled: Mapping[str, str]
    matches: Mapping[str, Match]
    steps: Draft
    ground: Foundations
    names: Names
    room: MakingRoom
    needs: DependsOn
    own_waits: dict[str, tuple[Ids, str]] = field(default_factory=dict)
    """Stop of what is replaced → what it waits for, and until when, besides what its replacement depends on."""
    _claims: dict[tuple[int, str], str] = field(init=False)
    """Host port → the service that is to have it and does not run."""

    def __post_init__(self) -> None:
        self._claims = {
            port: name
            for name, service in self.wanted.services.items()
            if not service.stopped and not ((winner := self.matches[name].winner) and winner.up)
            for port in service.host_ports
        }

    def bring_up(self, wanted: WantedService, match: Match) -> None:
        """The wanted container does not run: create it if need be, and start it when all it stands on is there."""
        spec = match.spec or ""
        until = self.obstacle(wanted, match) or self.steps.waiting(wanted.name, spec)
        if not until:
            self.room.before_its_pull(wanted, match)
        after = self.foundations(wanted, match)
        if match.winner:
            container = match.winner.name
        else:
            container, created = self.create(wanted, match, after, until)
            after |= created
        dependencies, unmet = self.needs.awaited(wanted)
        held = until or unmet or ("all it needs is there" if self.steps.held(after | dependencies) else "")
        if held and (until or unmet or not self.room.still_pulling(wanted, self.ground.images)):
            if self.fall_back(wanted, match, held):
                unmet = unmet or held
            if match.fallback:
                self.names.restore(wanted, match.fallback, held)
        self._replace(wanted, match, container, (after, until), (dependencies, unmet))

    def obstacle(self, wanted: WantedService, match: Match) -> str:
        """What only somebody else, or another look, can clear."""
        missing = next((name for name in wanted.shares if self.matches[name].winner is None), "")
        if missing and match.image_id:
            return f"{missing}, whose {wanted.shares[missing]} it shares, has its container"
        subject = self.ground.obstacle(wanted)
        return f"{subject} can be used" if subject else ""

    def foundations(self, wanted: WantedService, match: Match) -> Ids:
        repair = match.winner is not None and match.winner.status is Status.EXITED and not match.others
        unchanged = match.spec is not None and self.settled.get(wanted.name) == match.spec
        return self.ground.made(wanted) | (NONE if repair or unchanged else self.ground.images)

    def create(self, wanted: WantedService, match: Match, foundations: Ids, until: str) -> tuple[str, Ids]:
        create = self.wanted.create(wanted, match.image_id or "", match.shared)
        create = replace(create, name=self.names.to_create(wanted, match.spec))
        after = foundations | self.names.removal_of(create.name)
        if create.files:
            fill = self.wanted.fill(create)
            after |= self.steps.add(Step(fill, wanted.name, match.spec or "", "its configs and secrets", after, until))
        step = Step(create, wanted.name, match.spec or "", _why_created(wanted, match), after, until)
        created = self.steps.add(step)
        connected = NONE
        for endpoint in create.endpoints[1:]:
            cause = f"it is to be on network {endpoint.network}"
            connect = Step(Connect(create.name, endpoint), wanted.name, match.spec or "", cause, created, until)
            connected |= self.steps.add(connect)
        return create.name, created | connected

    def fill_again(self) -> None:
        """Where it never ran, or its mounts failed: its configs and secrets may not have reached the disk.

        Called when all starts of the plan are in its draft. Done right before such a start and never without it, or it
        would be done over and over until what the start waits for is there.
        """
        for name, match in self.matches.items():
            wanted, container = self.wanted.services[name], match.winner
            if not container or not wanted.service.files:
                continue
            failed = self.steps.failed(name, container.spec) == MOUNT_FAILED
            if container.status is not Status.CREATED and not (failed and not container.up):
                continue
            create = self.wanted.create(wanted, container.image_id, match.shared)
            # Its tag may be gone.
            fill = replace(self.wanted.fill(create), image=container.image_id)
            for start in [self.steps[id_] for id_ in self.steps.of(Start, name)]:
                step = Step(fill, name, container.spec, "its configs and secrets", start.after, start.until)
                self.steps.replace(replace(start, after=start.after | self.steps.add(step)))

    def fall_back(self, wanted: WantedService, match: Match, until: str) -> bool:
        """Rule 2: while the wanted one cannot run, the one it is to replace does. Says whether it is being started."""
        old = match.fallback
        if self.needs.kept_stopped(wanted):
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
        stops, beside = NONE, self._beside(wanted, match)
        for other in match.others:
            if other.up and other is not beside:
                cause = f"to be replaced by {container}"
                stop = Step(stop_of(self.wanted, other), wanted.name, spec, cause, after, until)
                if stop.id not in self.steps:
                    self.own_waits[stop.id] = foundations
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
                remove_previous(self.steps, other, f"replaced by {container}", started, f"{wanted.name} is good")

    def retire_others(
        self, wanted: WantedService, match: Match, winner: Container, until: str, *, proved: bool
    ) -> None:
        runs_on = self._beside(wanted, match, proved=proved)
        for other in match.others:
            cause = f"replaced by {winner.name}"
            after = NONE
            # What is newer than its replacement was made by somebody else.
            follows = moment(other.created_at) < moment(winner.created_at)
            if other.up:
                stop, beside = stop_of(self.wanted, other), until if other is runs_on else ""
                step = Step(stop, previous_subject(wanted.name), ANY_OF_THEM, cause, until=beside)
                after = self.steps.add(replace(step, follows=follows))
                if beside and proved:
                    # Who takes a port of it need not wait for a gate that waits for that one.
                    self.own_waits.update(dict.fromkeys(after, (NONE, "")))
            remove_previous(self.steps, other, cause, after, until, follows=follows)

    def _beside(self, wanted: WantedService, match: Match, *, proved: bool = False) -> Container | None:
        """With `start-first`: the one that runs on beside what is wanted. Of several that which last proved good.

        What a newer release has overtaken in its gate is not kept beside what settled before it; nor one with a host
        port that another service is to have: that may be what this one waits for.
        """
        if wanted.service.update.strategy != "start-first":
            return None
        kept = (other for other in match.others if other.up)
        ups = [other for other in kept if all(self._claims.get(p, wanted.name) == wanted.name for p in other.published)]
        settled = self.settled.get(wanted.name)
        good = [other for other in ups if other.spec == settled]
        if proved and match.spec == settled:
            return good[0] if good else None
        return next(iter((*good, *ups)), None)


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

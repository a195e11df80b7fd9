"""Which container has which name, and the renames that bring it about.

A name is for people, and nothing is concluded from it but that it is taken. Rules:
 1. A container is made under the name that it should have where none of ours has it, else under another one, and gets
    its name when it takes the other's place: until that moment the name stays with what runs.
 2. What is in the way is renamed to a name of its own first (`APP-SERVICE-` and its id). What runs on, because its
    replacement cannot, gets back the name that it was to give up.
 3. A name that a stranger's container has is reported (`name_in_use`), and that container is never touched.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from device_agent.core.draft import NONE, Draft, Ids, name_subject
from device_agent.core.matching import Match
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.observed import Container, Observed, Status
from device_agent.model.steps import Connect, Remove, Rename, Start, Step


@dataclass(slots=True)
class Names:
    """The names of one app's containers; lives for one planning."""

    wanted: WantedApp
    observed: Observed
    matches: Mapping[str, Match]
    steps: Draft
    _taken: Mapping[str, Container] = field(init=False)
    _leaving: Mapping[str, str] = field(init=False)
    """Container id → the name that it should have, of those that do not have it."""
    _parked: dict[str, Ids] = field(default_factory=dict)
    """Container id → the step that takes its name from it."""
    _given: dict[str, Ids] = field(default_factory=dict)
    """Container id → the step that gives it the name that it should have."""

    def __post_init__(self) -> None:
        self._taken = {c.name: c for c in self.observed.containers}
        self._leaving = {
            match.winner.id: self.of(self.wanted.services[name], match.winner.spec)
            for name, match in self.matches.items()
            if match.winner and match.winner.name != self.of(self.wanted.services[name], match.winner.spec)
        }

    def of(self, service: WantedService, spec: str) -> str:
        """The name that the container of a service should have."""
        return self.wanted.container_name(service.name, spec)

    def to_create(self, service: WantedService, spec: str | None) -> str:
        """Rule 1. Without a spec (its image is not here) it is for people alone."""
        plain = self.wanted.plain_name(service.name, spec[:6] if spec else "new")
        choices = (self.wanted.container_name(service.name, spec) if spec else plain, plain)
        return next((name for name in choices if self._is_free(name)), f"{plain}-new")

    def _is_free(self, name: str) -> bool:
        holder = self._taken.get(name)
        # One that is going is waited for by the engine's answer.
        return holder is None or holder.status is Status.REMOVING or bool(self._removal(holder))

    def removal_of(self, name: str) -> Ids:
        """The step of this plan that frees a name by removing who has it."""
        holder = self._taken.get(name)
        return self._removal(holder) if holder else NONE

    def _removal(self, holder: Container) -> Ids:
        return frozenset(
            step.id
            for step in self.steps
            if isinstance(step.action, Remove)
            and step.action.id == holder.id
            and not step.until
            and not self.steps.held(step.after)
        )

    def switch(self, service: WantedService, match: Match, container: str, start: Step) -> tuple[str, Ids]:
        """Rule 1: what is to be started takes its name over from what it replaces, if that has it.

        Returns the name under which it is then started. The renames wait for what `start` waits for.
        """
        name = self.of(service, start.spec)
        holder = next((other for other in match.others if other.name == name), None)
        if holder is None or container == name or not start.spec:
            return container, NONE
        id_ = match.winner.id if match.winner else container
        cause = f"it takes the place of {name}"
        return name, self._give(Rename(container, id_, name), replace(start, cause=cause, again=False))

    def _give(self, action: Rename, step: Step) -> Ids:
        """Add a rename, and what it takes to free the name. `step`: whose attempt it is, and what it waits for."""
        holder = self._taken.get(action.name)
        after = step.after | self._parked.get(action.id, NONE)
        if holder and holder.id != action.id and not step.until:
            if holder.app != self.wanted.name or holder.status is Status.REMOVING:
                step = replace(step, until=f"the name {action.name} is free")
            else:
                after |= self._removal(holder) or self._vacated(holder) or self._park(holder, action, step)
        self._given[action.id] = self.steps.add(replace(step, action=action, after=after))
        return self._given[action.id]

    def _vacated(self, holder: Container) -> Ids:
        given = self._given.get(holder.id, NONE)
        return NONE if self.steps.held(given) else given

    def _park(self, holder: Container, other: Rename, step: Step) -> Ids:
        """Rule 2. Who is to leave the name anyway does so at once, or two who swap names would wait for each other."""
        if holder.id not in self._parked:
            after = NONE if holder.id in self._leaving else step.after
            action = Rename(holder.name, holder.id, parked_name(self.wanted, holder))
            cause = f"{other.container} is to have its name"
            self._parked[holder.id] = self.steps.add(replace(step, action=action, after=after, cause=cause))
        return self._parked[holder.id]

    def repair(self, service: WantedService, container: Container, after: Ids) -> None:
        """What runs gets back the name that it should have."""
        name = self._leaving.get(container.id)
        if name is None:
            return
        cause = f"its name is to be {name}" if service.service.container_name else "it was renamed"
        action = Rename(container.name, container.id, name)
        after |= self._by_name(container.name)
        self._give(action, Step(action, name_subject(service.name), name, cause, after))

    def _by_name(self, name: str) -> Ids:
        """The steps that call a container by a name, and so come before it changes."""
        return frozenset(
            s.id for s in self.steps if isinstance(s.action, Start | Connect) and s.action.container == name
        )

    def restore(self, service: WantedService, container: Container, until: str) -> None:
        """Rule 2: it runs on, and has a name of its own since it was to be replaced."""
        if service.service.container_name and container.name == parked_name(self.wanted, container):
            name = self.of(service, container.spec)
            cause = f"it runs on until {until}"
            action = Rename(container.name, container.id, name)
            after = self._by_name(container.name)
            self._give(action, Step(action, name_subject(service.name), name, cause, after))


def parked_name(wanted: WantedApp, container: Container) -> str:
    """A name that nothing else can have."""
    return wanted.plain_name(container.service, container.id[:12])

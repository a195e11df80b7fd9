"""A plan in the making: its steps by id, their order, and what holds them; and the steps that remove things."""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import datetime

from device_agent.core.backoff import Attempts
from device_agent.core.wanted import WantedApp
from device_agent.model.dependencies import in_dependency_order
from device_agent.model.observed import Container, Network, Observed, service_of
from device_agent.model.steps import Pull, Remove, RemoveNetwork, RemoveVolume, Step, Stop

GRACE_S = 10.0
"""Of a container whose service is no longer known. Compose's default."""

Ids = frozenset[str]
NONE: Ids = frozenset()
ANY_OF_THEM = ""
"""In place of a spec: attempts at the containers that are to go are one, or two that fail would make each other new."""


def image_subject(image: str) -> str:
    """Attempts at an image belong to no app: equal images are pulled once."""
    return f"image {image}"


def previous_subject(service: str) -> str:
    """Attempts at what a service is replacing, apart from those at its replacement."""
    return f"previous {service}"


def name_subject(service: str) -> str:
    """Attempts at giving back its name to what runs under another one: they hold up nothing else of the service."""
    return f"name {service}"


def files_subject(service: str) -> str:
    """Attempts at removing what was left of its configs and secrets."""
    return f"files {service}"


def about(subject: str) -> str:
    """The service that a subject is about; what is about none is returned as it is."""
    kind, _, service = subject.rpartition(" ")
    return service if kind in ("previous", "name", "files") else subject


def grace_s(app: WantedApp, service: str) -> float:
    """Seconds between asking a container to stop and killing it."""
    wanted = app.services.get(service) or app.services.get(service_of(service))
    return wanted.service.stop_grace_period / 1e9 if wanted else GRACE_S


def stop_of(app: WantedApp, container: Container) -> Stop:
    return Stop(container.name, container.id, grace_s(app, container.service))


class Draft:
    """The plan in the making: one step for each engine call, the first one counts. Applies rule 6."""

    def __init__(self, app: str, attempts: Attempts) -> None:
        self.app = app
        self._attempts = attempts
        self._steps: dict[str, Step] = {}
        self._held: set[str] = set()

    @property
    def now(self) -> datetime:
        return self._attempts.now

    def __iter__(self) -> Iterator[Step]:
        return iter(self._steps.values())

    def __contains__(self, id_: str) -> bool:
        return id_ in self._steps

    def __getitem__(self, id_: str) -> Step:
        return self._steps[id_]

    def in_order(self) -> tuple[Step, ...]:
        """Each after those it waits for. Raises `AssertionError` where they wait for each other: a planner's defect."""
        # A target may chain as many services as fit into it: no recursion.
        position = {id_: number for number, id_ in enumerate(self._steps)}
        placed: dict[str, Step] = {}
        for first in self._steps:
            way: dict[str, None] = {first: None}
            while way:
                step = self._steps[next(reversed(way))]
                missing = step.after - placed.keys()
                if missing & way.keys():
                    raise AssertionError(f"steps of {self.app} wait for each other: {', '.join(way)}")
                if missing:
                    way[min(missing, key=position.__getitem__)] = None
                else:
                    placed.setdefault(step.id, step)
                    del way[step.id]
        return tuple(placed.values())

    def waiting(self, subject: str, spec: str, app: str | None = None) -> str:
        """Until when a failed subject waits, in words; empty when it may be tried now."""
        attempt = self._attempts.waiting(self.app if app is None else app, subject, spec)
        return f"it is {attempt.next_at:%H:%M:%S} ({attempt.code}, attempt {attempt.count})" if attempt else ""

    def failed(self, subject: str, spec: str) -> str:
        """The code with which it failed last; empty when it did not."""
        attempt = self._attempts.of(self.app, subject)
        return attempt.code if attempt and attempt.spec == spec else ""

    def add(self, step: Step) -> Ids:
        """Returns its id, for others to wait for."""
        if step.id not in self._steps:
            if not step.until:
                app = "" if isinstance(step.action, Pull) else None
                step = replace(step, until=self.waiting(step.subject, step.spec, app))
            self._steps[step.id] = step
            if step.until or isinstance(step.action, Pull) or step.after & self._held:
                self._held.add(step.id)
        return frozenset({step.id})

    def held(self, ids: Ids) -> bool:
        """Whether one of these steps, or what it waits for, takes long: a pull, or something to be observed first."""
        return bool(ids & self._held)

    def of(self, kind: type, subject: str) -> Ids:
        return frozenset(s.id for s in self._steps.values() if isinstance(s.action, kind) and s.subject == subject)

    def replace(self, step: Step) -> None:
        self._steps[step.id] = step
        if step.until:
            self._held.add(step.id)


def remove_containers(
    draft: Draft, containers: Iterable[Container], cause: str, after: Ids, app: WantedApp | None = None
) -> None:
    """Stop and remove: those first on which nothing else depends. `app`: where some of their services stay."""
    up = {c.service: c for c in containers if c.up}
    order = in_dependency_order({name: container.depends_on for name, container in up.items()})
    stops: dict[str, Ids] = {}
    for name in reversed(order):
        dependents = [stop for other, stop in stops.items() if name in up[other].depends_on]
        grace = grace_s(app, name) if app else GRACE_S
        stops[name] = _remove_container(draft, up[name], cause, after.union(*dependents), grace)
    for container in sorted(containers, key=lambda c: (c.service, c.id)):
        if container not in up.values():
            _remove_container(draft, container, cause, after)


def _remove_container(draft: Draft, container: Container, cause: str, after: Ids, grace: float = GRACE_S) -> Ids:
    """Returns the step after which it does not run."""
    stopped = after
    if container.up:
        action = Stop(container.name, container.id, grace)
        stopped = draft.add(Step(action, container.service, ANY_OF_THEM, cause, after))
    draft.add(Step(Remove(container.name, container.id), container.service, ANY_OF_THEM, cause, stopped))
    return stopped


def remove_previous(
    draft: Draft, container: Container, cause: str, after: Ids = NONE, until: str = "", *, follows: bool = False
) -> Ids:
    """What is not, or no more, the container that its service wants."""
    action = Remove(container.name, container.id)
    step = Step(action, previous_subject(container.service), ANY_OF_THEM, cause, after, until)
    return draft.add(replace(step, follows=follows))


def remove_networks(draft: Draft, networks: Iterable[Network], containers: Iterable[Container]) -> None:
    """Those whose every user is being removed in this plan."""
    removed = {s.action.id: s.id for s in draft if isinstance(s.action, Remove) and not s.until}
    for network in sorted(networks, key=lambda n: n.name):
        users = [c for c in containers if network.name in c.networks]
        if all(user.id in removed for user in users):
            after = frozenset(removed[user.id] for user in users)
            action = RemoveNetwork(network.name, network.id)
            draft.add(Step(action, f"network {network.key}", network.id, "nothing uses it any more", after))


def remove_files(draft: Draft, observed: Observed, wanted: Collection[tuple[str, str | None]]) -> None:
    """The volumes with configs and secrets of a service's spec that no container has, and that is none of those wanted.

    Services that are defined alike have one spec.
    """
    mine = (container for container in observed.containers if container.app == draft.app)
    kept = {(container.service, container.spec) for container in mine}.union(wanted)
    # One may be had by what was left when it was being filled.
    after = frozenset(step.id for step in draft if isinstance(step.action, Remove) and not step.until)
    for volume in sorted(observed.volumes, key=lambda v: v.name):
        if volume.app == draft.app and volume.service and (volume.service, volume.spec) not in kept:
            cause = "no container has these configs and secrets any more"
            draft.add(Step(RemoveVolume(volume.name), files_subject(volume.service), volume.name, cause, after))

"""Which containers stand for a service: the one that is as wanted, and the others.

Shared by the planner, which acts on it, and by the report, which tells it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from device_agent.core.limits import changed
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.compose import Dependency
from device_agent.model.observed import Container, Health, Observed, Status

_RANK = {Status.RUNNING: 0, Status.RESTARTING: 1, Status.PAUSED: 2, Status.EXITED: 3}


@dataclass(frozen=True, slots=True)
class Match:
    """The containers of one service."""

    image_id: str | None
    """The id its image has here, or None while the image is absent."""
    spec: str | None
    """What a container made now would carry; None while the image or a shared container is not known."""
    shared: tuple[str, ...]
    """Ids of the containers whose namespaces it joins, in the order of `shares`; none while one is not known."""
    winner: Container | None
    """As the target says. Of several the one that runs."""
    others: tuple[Container, ...]
    """Of an earlier spec, or doubles of the winner: the one to fall back on first."""

    @property
    def fallback(self) -> Container | None:
        """The container that ran before and can run again while the wanted one cannot. A one-shot has had its run."""
        return next((c for c in self.others if c.up or (c.status is Status.EXITED and not c.one_shot)), None)


def good(container: Container, *, one_shot: bool) -> bool:
    """Running (healthy, where the engine checks), or completed."""
    if container.status is Status.RUNNING:
        return container.health in (None, Health.HEALTHY)
    return one_shot and container.completed


def present(app: str, observed: Observed) -> list[Container]:
    """An app's containers, less those that are on their way out."""
    mine = (c for c in observed.containers if c.app == app and c.status is not Status.REMOVING)
    return sorted(mine, key=lambda c: (c.name, c.id))


def as_asked(wanted: WantedService, container: Container | None) -> bool:
    """The container that is as wanted is also in the state that is wanted."""
    if container is None or container.run == wanted.anew:
        return False
    return not container.up if wanted.stopped else good(container, one_shot=wanted.service.one_shot)


def satisfied(dependency: Dependency, match: Match) -> bool:
    """Whether what is depended on is as far as its `condition` says."""
    container = match.winner
    if container is None:
        return False
    if dependency.condition == "service_healthy":
        return container.status is Status.RUNNING and container.health is Health.HEALTHY
    if dependency.condition == "service_completed_successfully":
        return container.completed
    return container.up or container.completed


def is_moved(wanted: WantedService, match: Match) -> bool:
    """Whether what ran was made from the same reference, which shows another image now."""
    made = {c.image_id for c in match.others if c.image == wanted.image}
    return match.winner is None and match.image_id is not None and bool(made) and match.image_id not in made


def match_services(wanted: WantedApp, observed: Observed) -> dict[str, Match]:
    """By service, in dependency order."""
    matches: dict[str, Match] = {}
    for name, service in wanted.services.items():
        mine = [
            c
            for c in observed.containers
            if c.app == wanted.name and c.service == name and c.status not in (Status.REMOVING, Status.DEAD)
        ]
        matches[name] = _match(service, _ranked(mine, wanted, name), observed.images, matches)
    return matches


def _match(
    wanted: WantedService, mine: list[Container], images: Mapping[str, str], earlier: Mapping[str, Match]
) -> Match:
    image_id = images.get(wanted.image)
    hosts = [earlier[name].winner for name in wanted.shares]
    shared = None if None in hosts else tuple(host.id for host in hosts if host)
    spec = wanted.spec(image_id, shared) if image_id and shared is not None else None

    def as_wanted(container: Container) -> bool:
        if shared is None:
            return False
        if image_id:
            return container.spec == spec and not changed(wanted.service, container)
        # The tag is gone, but a container made from it is still what the target asks for.
        return container.image == wanted.image and container.spec == wanted.spec(container.image_id, shared)

    winners = [c for c in mine if as_wanted(c)]
    others = [c for c in mine if not as_wanted(c)]
    return Match(image_id, spec, shared or (), winners[0] if winners else None, (*winners[1:], *others))


def _ranked(mine: list[Container], wanted: WantedApp, service: str) -> list[Container]:
    """Running before ended before never started; then the one that has its name: a copy made by hand has another.

    Of equals the one started last. Listing order means nothing.
    """

    def rank(container: Container) -> tuple[int, bool]:
        named = container.name == wanted.container_name(service, container.spec)
        return _RANK.get(container.status, len(_RANK)), not named

    latest = sorted(sorted(mine, key=lambda c: c.id), key=lambda c: c.started_at or "", reverse=True)
    return sorted(latest, key=rank)

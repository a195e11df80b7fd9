"""`depends_on` with `restart`: which containers are started again, because what they depend on has been replaced.

Told by times alone, so that nothing has to be remembered: a container is older than its first process, and keeps its
age through a restart of the machine or of its process. Who was started before it was made has known another one. Of
several containers of a service the first one tells, or who is added would be taken for one that replaces another.
"""

from collections.abc import Mapping
from datetime import datetime

from device_agent.core.matching import Match, satisfied
from device_agent.core.wanted import WantedApp
from device_agent.model.observed import Container, Status, moment, number_of


def following(wanted: WantedApp, matches: Mapping[str, Match], now: datetime) -> dict[str, tuple[str, ...]]:
    """Service that is to be started again → what it depends on with `restart` and that was replaced after its start."""
    found = {name: tuple(_replaced(wanted, name, matches, now)) for name in wanted.services}
    return {name: replaced for name, replaced in found.items() if replaced}


def _replaced(wanted: WantedApp, name: str, matches: Mapping[str, Match], now: datetime) -> list[str]:
    container = matches[name].winner
    # One that is paused is left to who paused it, and what the engine restarts is started later than now.
    if wanted.services[name].stopped or container is None or container.status is not Status.RUNNING:
        return []
    if container.started_at is None:
        return []
    return [
        other
        for other in _followed(wanted, name)
        if _all_satisfied(wanted, name, other, matches)
        # What is still to come is of a clock that was set back: it would be so after each start.
        and moment(container.started_at) < moment(_in_place_since(matches[other])) <= moment(now.isoformat())
    ]


def will_follow(wanted: WantedApp, matches: Mapping[str, Match]) -> dict[str, str]:
    """Service that runs, and will be started again → the first of what that is for, which has to be replaced first."""
    awaited = {name: _to_be_replaced(wanted, name, matches) for name in wanted.services}
    return {name: others[0] for name, others in awaited.items() if others}


def _to_be_replaced(wanted: WantedApp, name: str, matches: Mapping[str, Match]) -> list[str]:
    container = matches[name].winner
    if wanted.services[name].stopped or container is None or container.status is not Status.RUNNING:
        return []
    return [
        other
        for other in _followed(wanted, name)
        if not wanted.services[other].stopped
        and not _all_satisfied(wanted, name, other, matches)
        and (matches[other].winner is None or _is_newer(matches[other], container))
    ]


def _followed(wanted: WantedApp, name: str) -> list[str]:
    needs = wanted.services[name].service.depends_on
    return sorted(n for n, need in needs.items() if need.restart and n in wanted.services and not number_of(n))


def _all_satisfied(wanted: WantedApp, name: str, other: str, matches: Mapping[str, Match]) -> bool:
    dependency = wanted.services[name].service.depends_on[other]
    return all(satisfied(dependency, matches[each]) for each in wanted.instances(other))


def _is_newer(match: Match, container: Container) -> bool:
    return moment(_in_place_since(match)) > moment(container.started_at)


def _in_place_since(match: Match) -> str | None:
    """When the container that is as wanted took its place; None where that is not known.

    As it was made; or, where one that is newer has failed in its place, as it was started. That one stays until who
    follows has done so.
    """
    container = match.winner
    if container is None or container.created_at is None:
        return None
    made = moment(container.created_at)
    failed = (c for c in match.others if c.started_at and c.spec != container.spec and moment(c.created_at) > made)
    return container.started_at if any(failed) else container.created_at

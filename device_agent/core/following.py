"""`depends_on` with `restart`: which containers are started again, because what they depend on has been replaced.

Told by times alone, so that nothing has to be remembered: a container is older than its first process, and keeps its
age through a restart of the machine or of its process. Who was started before it was made has known another one.
"""

from collections.abc import Mapping
from datetime import datetime

from device_agent.core.matching import Match, satisfied
from device_agent.core.wanted import WantedApp
from device_agent.model.observed import Status, moment


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
        for other, dependency in sorted(wanted.services[name].service.depends_on.items())
        if dependency.restart
        and other in matches
        and satisfied(dependency, matches[other])
        # What is still to come is of a clock that was set back: it would be so after each start.
        and moment(container.started_at) < moment(_in_place_since(matches[other])) <= moment(now.isoformat())
    ]


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

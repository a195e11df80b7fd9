"""A host port that one container gives up and another takes: the stop comes before such a start.

The stop then waits for no dependency, or two services that swap ports would wait for each other. Nothing is stopped
for a start that cannot be made now, and nothing for one whose port cannot be freed now.
"""

from dataclasses import replace

from device_agent.core.draft import NONE
from device_agent.core.replacing import Replacing
from device_agent.core.wanted import WantedApp
from device_agent.model.observed import Observed
from device_agent.model.steps import Start, Step, Stop


def free_ports_first(wanted: WantedApp, observed: Observed, replacing: Replacing) -> None:
    """Called when all stops and starts of the plan are in its draft."""
    steps = replacing.steps
    published = {c.id: c.published for c in observed.containers}
    stops = {s.id: published.get(s.action.id, NONE) for s in steps if isinstance(s.action, Stop)}
    starts = (s for s in steps if isinstance(s.action, Start) and s.subject in wanted.services)
    for id_, ports in {start.id: wanted.services[start.subject].host_ports for start in starts}.items():
        start = steps[id_]
        freed = frozenset(stop for stop, taken in stops.items() if taken & ports and stop not in start.after)
        if not freed or steps.held(frozenset({id_})):
            continue
        relaxed = [_relaxed(steps[stop], replacing) for stop in freed]
        held = [stop for stop in relaxed if stop.until or steps.held(stop.after)]
        if held:
            _hold(start, held[0].until or "the port it takes is free", replacing)
            continue
        for stop in relaxed:
            steps.replace(stop)
        steps.replace(replace(start, after=start.after | freed, commits=True))


def _relaxed(stop: Step, replacing: Replacing) -> Step:
    after, until = replacing.own_waits.get(stop.id, (stop.after, stop.until))
    return replace(stop, after=after, until=until)


def _hold(start: Step, until: str, replacing: Replacing) -> None:
    """A start that waits after all, and with it the stop of what runs in its place."""
    for id_ in (start.id, *(start.after & replacing.own_waits.keys())):
        replacing.steps.replace(replace(replacing.steps[id_], until=until))
    replacing.fall_back(replacing.wanted.services[start.subject], replacing.matches[start.subject], until)

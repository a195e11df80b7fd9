"""What goes before an image is pulled: the strategies for devices that have no memory or disk for two at once.

`stop-first` stops what runs, `delete-first` removes it and the image it was made from. Both only where an image is to
be pulled that is not here: what needs no pull is replaced as ever. While the image cannot be had, what was stopped runs
again; what was removed does not, and needs a registry to come back.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from device_agent.core.draft import (
    ANY_OF_THEM,
    NONE,
    Draft,
    Ids,
    image_subject,
    previous_subject,
    remove_previous,
    stop_of,
)
from device_agent.core.images import Pulled
from device_agent.core.matching import Match
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.observed import Container, Observed
from device_agent.model.steps import Pull, Remove, RemoveImage, Step, Stop

_STOP_FIRST, _DELETE_FIRST = "stop-first", "delete-first"


def makes_room(wanted: WantedService) -> bool:
    return wanted.service.update.strategy in (_STOP_FIRST, _DELETE_FIRST)


@dataclass(slots=True)
class MakingRoom:
    """Lives for one planning."""

    wanted: WantedApp
    observed: Observed
    steps: Draft
    pulled: Pulled

    def before_its_pull(self, wanted: WantedService, match: Match) -> None:
        """Stop, and remove, what a service runs, and let the pull of its image wait for that."""
        pulls = [self.steps[id_] for id_ in self.steps.of(Pull, image_subject(wanted.image))]
        waits = any(pull.until for pull in pulls)
        if match.winner or match.image_id or not makes_room(wanted) or not pulls or waits:
            return
        if any(self.steps.of(Stop, wanted.name)):
            return  # for a network that is replaced once all images are there
        gone = NONE
        for other in match.others:
            gone |= self._stop(wanted, other)
            if wanted.service.update.strategy == _DELETE_FIRST:
                gone |= self._remove(wanted, other, gone)
        for pull in pulls:
            self.steps.replace(replace(pull, after=pull.after | gone))

    def _stop(self, wanted: WantedService, other: Container) -> Ids:
        if not other.up:
            return NONE
        cause = f"it makes room for {wanted.image}"
        return self.steps.add(Step(stop_of(self.wanted, other), wanted.name, other.spec, cause))

    def _remove(self, wanted: WantedService, other: Container, stopped: Ids) -> Ids:
        cause = f"it makes room for {wanted.image}"
        removed = remove_previous(self.steps, other, cause, stopped)
        if not self._may_go(other):
            return removed
        users = [c for c in self.observed.containers if c.image_id == other.image_id]
        after = removed | self._removals(users)
        if len(after) < len(users):
            return removed
        step = Step(RemoveImage(other.image), previous_subject(wanted.name), ANY_OF_THEM, cause, after)
        return removed | self.steps.add(step)

    def _may_go(self, other: Container) -> bool:
        """Only what the agent has pulled itself, and what no service wants."""
        named = self.observed.images.get(other.image) == other.image_id
        wanted = {service.image for service in self.wanted.services.values()}
        return named and other.image not in wanted and self.pulled.is_own(other.image, other.image_id)

    def _removals(self, containers: Iterable[Container]) -> Ids:
        """The steps that remove them, but those that themselves wait for a pull: it would wait for itself."""
        ids = {container.id for container in containers}
        found = (s for s in self.steps if isinstance(s.action, Remove) and s.action.id in ids and not s.until)
        return frozenset(step.id for step in found if not self.steps.held(step.after))

    def still_pulling(self, wanted: WantedService, images: Ids) -> bool:
        """Whether what was stopped stays so: everything that it waits for is on its way."""
        return makes_room(wanted) and bool(images) and not any(self.steps[id_].until for id_ in images)

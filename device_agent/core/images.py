"""The images of a release: which are pulled before anything of it is created or stopped, and which nobody needs more.

An image that is here is looked for again only where its `pull_policy` says so, and nothing that runs depends on that:
while the registry does not answer, the one that is here is used. A digest is what it is, and never looked for again.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from device_agent.core.draft import NONE, Draft, Ids, image_subject
from device_agent.core.matching import Match
from device_agent.core.status import label_revision
from device_agent.core.wanted import WantedApp, WantedService
from device_agent.model.image import is_fixed, normalise
from device_agent.model.memory import PulledImage
from device_agent.model.observed import Observed
from device_agent.model.steps import Blocked, Pull, Step
from device_agent.model.target import Json


@dataclass(frozen=True, slots=True)
class Pulled:
    """What this agent has pulled."""

    rows: Mapping[tuple[str, str], PulledImage] = field(default_factory=dict)
    """By reference and image id."""

    def last(self, image: str) -> PulledImage | None:
        """The last pull of a reference that ended well."""
        ended = (row for row in self.rows.values() if row.image == image and row.image_id)
        return max(ended, key=lambda row: row.pulled_at, default=None)

    def is_own(self, image: str, image_id: str) -> bool:
        """Whether nobody had it here before this agent pulled it, so that it may be removed."""
        row = self.rows.get((image, image_id))
        return row is not None and row.own


NOTHING_PULLED = Pulled()


def plan_pulls(
    wanted: WantedApp, matches: Mapping[str, Match], pulled: Pulled, steps: Draft
) -> tuple[Ids, tuple[Blocked, ...]]:
    """Adds the pulls of this release. Returns the steps that it waits for, and the images that nobody may pull."""
    pulls, absent = NONE, {}
    for name, match in matches.items():
        service = wanted.services[name]
        if match.image_id is None and match.winner is None:
            if service.service.pull_policy == "never":
                absent[service.image] = service
            else:
                pull = Pull(service.image, service.service.platform)
                pulls |= steps.add(_step(pull, "it is not on this device"))
        elif cause := _looked_for_again(wanted, service, pulled.last(service.image), steps.now):
            pull = Pull(service.image, service.service.platform, "refresh" if _by_time(service) else "always")
            added = steps.add(_step(pull, cause))
            # What is here is used while it cannot be had anew.
            pulls |= frozenset(id_ for id_ in added if not steps[id_].until)
    blocked = []
    for image in absent:
        until = "somebody has loaded it: its pull_policy is never"
        pulls |= steps.add(_step(Pull(image), "it is not on this device", until))
        message = f"{image} is not on this device, and its pull_policy is never: load it, or allow a pull"
        blocked.append(Blocked(image_subject(image), "image_absent", message))
    return pulls, tuple(blocked)


def _step(pull: Pull, cause: str, until: str = "") -> Step:
    return Step(pull, image_subject(pull.image), pull.image, cause, until=until)


def _looked_for_again(wanted: WantedApp, service: WantedService, last: PulledImage | None, now: datetime) -> str:
    """Why an image that is here is pulled once more; empty when it is not."""
    if is_fixed(service.image):
        return ""
    policy, platform = service.service.pull_policy, service.service.platform
    if last and platform and last.platform != platform and policy != "never":
        return f"it was pulled for {last.platform or 'this device'}, and {platform} is wanted"
    if policy == "always" and not (last and _pulled_for(last, wanted.revision)):
        return f"its pull_policy is always, and {wanted.revision} is new"
    if _by_time(service):
        interval = _interval(service)
        hours = f"{interval / timedelta(hours=1):g} h"
        if last is None:
            return f"it is to be pulled every {hours}, and nobody knows when it was"
        # A pull in the future is one from before the clock was set back.
        if not last.pulled_at <= now < last.pulled_at + interval:
            return f"it was pulled more than {hours} ago"
    return ""


def _pulled_for(last: PulledImage, revision: str) -> bool:
    """For this revision or a later one: what is rolled back to looks for nothing again."""
    told = label_revision(revision)
    known = [label_revision(each) for each in last.revisions]
    return told is not None and any(each and each[0] == told[0] and each[1] >= told[1] for each in known)


def _by_time(service: WantedService) -> bool:
    return service.service.pull_policy == "refresh"


def _interval(service: WantedService) -> timedelta:
    return timedelta(microseconds=service.service.pull_refresh_after / 1000)


def next_refresh(apps: Iterable[WantedApp], pulled: Pulled, now: datetime) -> datetime | None:
    """When an image is to be looked for again next; None for what is due already, or never."""
    times = [
        last.pulled_at + _interval(service)
        for app in apps
        for service in app.services.values()
        if _by_time(service) and not is_fixed(service.image)
        if (last := pulled.last(service.image))
    ]
    return min((at for at in times if at > now), default=None)


def images_of(document: Json) -> frozenset[str]:
    """The references in an app as it was published, normalised. One that extends another may have none."""
    services = document.get("services") if isinstance(document, dict) else None
    members = services.values() if isinstance(services, dict) else ()
    named = (service.get("image") for service in members if isinstance(service, dict))
    return frozenset(normalise(image) for image in named if isinstance(image, str))


def garbage(pulled: Pulled, observed: Observed, kept: Collection[str]) -> Iterator[tuple[PulledImage, str]]:
    """What may go: rows of this agent's own pulls, and what to remove for each; empty when it is gone already.

    `kept` are the references that something wants. What another reference shows is somebody else's too; whatever a
    container was made from stays, and the engine keeps what it knows containers of others for.
    """
    used = {container.image_id for container in observed.containers}
    for row in pulled.rows.values():
        here = observed.images.get(row.image)
        if not row.image_id:
            if here is None and row.image not in kept:
                yield row, ""  # a pull that came to nothing
        elif row.image_id not in observed.images:
            yield row, ""
        elif not row.own or row.image_id in used:
            continue
        elif here == row.image_id:
            if row.image not in kept:
                yield row, row.image
        elif not _shown_elsewhere(row, observed.images):
            yield row, row.image_id


def _shown_elsewhere(row: PulledImage, images: Mapping[str, str]) -> bool:
    """Whether an image whose tag has moved on has another name. The digests that came with the tag are none."""
    repository = row.image.partition("@")[0].rpartition(":")[0]
    return any(
        id_ == row.image_id and reference != id_ and reference.partition("@")[0] != repository
        for reference, id_ in images.items()
    )

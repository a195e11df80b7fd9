"""The images of a release: which of them are pulled before anything of it is created or anything running is stopped."""

from collections.abc import Mapping

from device_agent.core.draft import NONE, Draft, Ids, image_subject
from device_agent.core.matching import Match
from device_agent.core.wanted import WantedApp
from device_agent.model.steps import Pull, Step


def plan_pulls(wanted: WantedApp, matches: Mapping[str, Match], steps: Draft) -> Ids:
    """Adds the pulls of this release; what waits for all of them waits for what is returned."""
    pulls = NONE
    for name, match in matches.items():
        if match.image_id is None and match.winner is None:
            image = wanted.services[name].image
            pulls |= steps.add(Step(Pull(image), image_subject(image), image, "it is not on this device"))
    return pulls

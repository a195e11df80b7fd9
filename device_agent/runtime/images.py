"""What was pulled here, and what was here before: the memory behind `pull_policy` and the removal of images.

A reference that is pulled for the first time is noted before the pull begins: a crash between its end and the note of
it leaves no image that nobody knows for the agent's own. What is noted goes with what is written anyway.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from device_agent.core.images import Pulled
from device_agent.model.memory import PulledImage
from device_agent.model.steps import Pull
from device_agent.ports import Clock, PullProgress
from device_agent.runtime.inbox import PullEnded
from device_agent.runtime.journal import Write


@dataclass(slots=True)
class Images:
    clock: Clock
    write: Callable[[Write], None]
    rows: dict[tuple[str, str], PulledImage] = field(default_factory=dict)
    """By reference and image id."""
    _under_way: dict[str, tuple[PulledImage, frozenset[str]]] = field(default_factory=dict)
    """Reference → what is pulled, and the ids of the images that were here before."""
    _progress: dict[str, PullProgress] = field(default_factory=dict)
    """Reference → how far its pull is."""

    @property
    def pulled(self) -> Pulled:
        return Pulled(self.rows)

    @property
    def under_way(self) -> Iterator[tuple[PulledImage, PullProgress | None]]:
        """What is being pulled since `pulled_at`, by reference, and how far it is, once that is told."""
        for image in sorted(self._under_way):
            yield self._under_way[image][0], self._progress.get(image)

    def begin(self, pull: Pull, images: Mapping[str, str], revisions: frozenset[str]) -> None:
        """A pull begins. `images` are those that are here; `revisions` what the device has accepted."""
        new = pull.image not in images
        row = PulledImage(pull.image, "", new, self.clock.now(), pull.platform, revisions)
        self._under_way[pull.image] = row, frozenset(images.values())
        if new and (pull.image, "") not in self.rows:
            self._put(row)

    def heard(self, progress: PullProgress) -> None:
        if progress.image in self._under_way:
            self._progress[progress.image] = progress

    def ended(self, event: PullEnded) -> None:
        """A pull has ended, well when it tells an image's id."""
        row, before = self._under_way.pop(event.image)
        self._progress.pop(event.image, None)
        if not event.image_id:
            return
        known = self.pulled.is_own(event.image, event.image_id)
        own = row.own or known or event.image_id not in before
        self._drop(event.image, "")
        self._put(replace(row, image_id=event.image_id, own=own, pulled_at=self.clock.now()))

    def seen(self, images: Mapping[str, str]) -> None:
        """What is under a reference whose first pull the agent did not see the end of was pulled."""
        for (image, id_), row in list(self.rows.items()):
            if not id_ and image in images and image not in self._under_way:
                self._drop(image, "")
                self._put(replace(row, image_id=images[image]))

    def is_under_way(self, image: str) -> bool:
        return image in self._under_way

    def forget(self, row: PulledImage) -> None:
        """Its image is not here any more."""
        self._drop(row.image, row.image_id)

    def _put(self, row: PulledImage) -> None:
        self.rows[row.image, row.image_id] = row
        self.write(lambda tx: tx.put_pulled(row))

    def _drop(self, image: str, image_id: str) -> None:
        if self.rows.pop((image, image_id), None):
            self.write(lambda tx: tx.drop_pulled(image, image_id))

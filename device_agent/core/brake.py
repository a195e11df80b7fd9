"""When what arrives on a target topic is judged: the first at once, and of a flood that follows the last, when it ends.

So a flood is two changes, however it arrives; and targets that trickle in without a pause are still judged now and
then. A flood may be more than the broker keeps for a device, and it drops the newest: after one, and before the last is
judged, the broker is asked once more for what it retains.
"""

from dataclasses import dataclass
from math import inf

CALM_S = 1.0
"""Nothing has arrived for so long: the flood is over."""
LONGEST_S = 30.0
"""What has arrived is judged then, calm or not."""
MANY = 20
"""So many may have been more than the broker keeps."""
ANSWER_S = 2.0
"""How long to wait for what the broker retains: it may be nothing."""


@dataclass(slots=True)
class Brake:
    """Of one scope. Times are monotonic seconds."""

    due: float | None = None
    """When what waits is judged, or the broker asked; None: there is nothing to do."""
    _heard_at: float = -inf
    _latest: float | None = None
    """When what waits is judged, whatever else arrives."""
    _count: int = 0
    """Since it was last calm, or since the broker was last asked."""

    def heard(self, count: int, now: float) -> None:
        """So many have arrived."""
        flood = now - self._heard_at < CALM_S or self._latest is not None
        self._heard_at = now
        self._count = self._count + count if flood else count
        if not flood:
            self.due = now
            return
        if self._latest is None:
            self._latest = now + LONGEST_S
        self.due = min(now + CALM_S, self._latest)

    def asks(self, now: float) -> bool:
        """When it is due: whether first the broker is to be asked. Then it is due again, once that is answered."""
        if self._count <= MANY or (self._latest is not None and now >= self._latest):
            return False
        self._count = 0
        self.due = now + ANSWER_S
        return True

    def judged(self, now: float) -> None:
        """What has waited is judged now. When that is in the middle of a flood, the broker is still to be asked."""
        self._latest = None
        self.due = now + CALM_S if self._count > MANY else None

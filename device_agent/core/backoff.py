"""When a failed thing is due again. The counter and the time survive a restart; the wall clock may jump."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from device_agent.model.memory import Attempt

FIRST_S = 1.0
CAP_S = 300.0
CAP = timedelta(seconds=CAP_S)


def due(attempt: Attempt, now: datetime) -> bool:
    """A next time further away than the cap can only come from a clock that jumped back: due now."""
    return now >= attempt.next_at or attempt.next_at - now > CAP


@dataclass(frozen=True, slots=True)
class Attempts:
    """The failures that are being retried, by (app, subject)."""

    now: datetime
    rows: Mapping[tuple[str, str], Attempt] = field(default_factory=dict)

    def waiting(self, app: str, subject: str, spec: str) -> Attempt | None:
        """The attempt that forbids a try now, if any. One that was made with another spec forbids nothing."""
        attempt = self.rows.get((app, subject))
        if attempt is None or attempt.spec != spec or due(attempt, self.now):
            return None
        return attempt

    def of(self, app: str, subject: str) -> Attempt | None:
        return self.rows.get((app, subject))

"""The one place of cloud-sim that reads the clock."""

import time
from datetime import UTC, datetime


def now() -> datetime:
    """The wall clock, in UTC, aware. It may jump: only ever printed and stored, never waited by."""
    return datetime.now(UTC)


def monotonic() -> float:
    """Seconds that never go back."""
    return time.monotonic()

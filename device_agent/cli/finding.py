"""What a look at something has found, and what to do about it."""

from dataclasses import dataclass
from enum import StrEnum


class Health(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    status: Health
    seen: str
    mend: str = ""
    """What to do; empty when nothing is."""

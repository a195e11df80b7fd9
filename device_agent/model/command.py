"""A command, as a device takes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from device_agent.model.canonical import digest
from device_agent.model.target import Json

LONGEST = timedelta(hours=24)
"""From the issue of a signed command to its expiry, at most: for so long whoever holds it can give it."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What a signed command says itself, and an unsigned one leaves to its topic. It has an `expires_at`, too."""

    verb: str
    fleet: str
    device: str | None
    """None: every device of the fleet."""
    issued_at: datetime


@dataclass(frozen=True, slots=True)
class Command:
    """`id` makes it idempotent: the asker's, or made of the Correlation Data."""

    id: str
    args: Mapping[str, Json]
    expires_at: datetime | None = None
    signed: Signed | None = None

    def request(self, verb: str) -> str:
        """Tells two commands apart that have the same id. Of signed ones each is itself alone, with its own times."""
        body: dict[str, Json] = {"verb": verb, "args": dict(self.args)}
        if self.signed is not None and self.expires_at is not None:
            body["times"] = [self.signed.issued_at.isoformat(), self.expires_at.isoformat()]
        return digest(body)

"""A target as it was published: who it is for, which version it is, and the apps it wants.

The apps stay raw JSON here. They are validated after the scopes have been laid over each other
(`device_agent.core.scopes`), because an app of a device target may extend the fleet's and be incomplete alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

Json: TypeAlias = Any
"""A JSON value: dict, list, str, int, float, bool or None."""


class Version(NamedTuple):
    """`(epoch, revision)`: strictly increases within a scope; compared as a pair."""

    epoch: int
    revision: int

    def __str__(self) -> str:
        return f"{self.epoch}.{self.revision}"


FLEET = "fleet"
DEVICE = "device"
SCOPES = (FLEET, DEVICE)


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this device is. Both ids match `[a-z0-9][a-z0-9-]{0,62}`."""

    fleet: str
    device: str

    def __str__(self) -> str:
        return f"{self.fleet}/{self.device}"


@dataclass(frozen=True, slots=True)
class Target:
    """One published document, its header checked. `apps` maps a name to raw JSON, or to None (remove)."""

    scope: str
    version: Version
    digest: str
    """`sha256:…` over the canonical JSON (RFC 8785) of the whole body."""
    release: str | None
    issued_at: str | None
    expires_at: str | None
    allow_empty: bool
    apps: Mapping[str, Json] = field(repr=False)
    raw: bytes = field(repr=False)
    """The payload exactly as it arrived: what is stored, with its own checksum."""
    content_type: str = "application/json"
    fleet: str = ""
    """The fleet that the document's own `scope` names; compared with the identity when it arrives."""
    device: str | None = None
    """The device that the document's own `scope` names; None in a fleet target."""
    hold: bool = False
    """Of a device target: everything stays as it runs now."""


def printed_revision(scope: str, version: Version) -> str:
    """`fleet:1.42`, as on the label `device-agent.revision`."""
    return f"{scope}:{version}"

"""What the agent needs of the settings."""

from collections.abc import Callable
from dataclasses import dataclass, field

from device_agent.core.policy import Policy
from device_agent.core.room import Reserve
from device_agent.core.wanted import Naming
from device_agent.model.target import Identity
from device_agent.wire.commands import ALLOWED, UNSIGNED
from device_agent.wire.dsse import TrustedKeys
from device_agent.wire.payload import DEFAULT_LIMITS, Limits
from device_agent.wire.topics import Topics


@dataclass(frozen=True, slots=True)
class Options:
    identity: Identity
    topics: Topics
    naming: Naming
    policy: Policy = field(default_factory=Policy)
    limits: Limits = DEFAULT_LIMITS
    trusted: Callable[[], TrustedKeys] | None = None
    """Reads the trusted keys, which may change meanwhile; raises ValueError. None: signatures are not asked for."""
    will_delay_s: int = 30
    """How long a connection may be broken before the Will tells of it (MQTT 5)."""
    reserve: Reserve = field(default_factory=Reserve)
    """Disk that pulls leave free."""
    commands: frozenset[str] = ALLOWED
    """The verbs that may come over MQTT."""
    unsigned: frozenset[str] = UNSIGNED
    """Of them, where keys are trusted, those that need no signature."""

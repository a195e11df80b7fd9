"""From bytes to a target that could be read.

What a document says, and what it leads to, depends on nothing else: many agents in one process may share `body_of`,
`target_of` and `wanted_after`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from device_agent.core.intake import Standing, Wanted, decide
from device_agent.model.errors import Refused
from device_agent.model.report import Ack, Happening
from device_agent.model.target import FLEET, Json, Target
from device_agent.ports import Received
from device_agent.runtime.refusal import refuse
from device_agent.wire.dsse import TrustedKeys
from device_agent.wire.target import glimpse, open_target, read_version

if TYPE_CHECKING:
    from device_agent.runtime.agent import Agent

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opened:
    """A document that could be read, and the message that brought it."""

    target: Target
    body: dict[str, Json]
    scope: str
    """Of the topic; of a file it is its own word."""
    token: object
    """What acknowledges the message; None when there is none, or it has been acknowledged."""


@dataclass(slots=True)
class Documents:
    agent: "Agent"
    _last: tuple[Received, Opened] | None = None
    """The last that was opened: mostly it is the one that is judged next."""

    def open(self, message: Received) -> Opened | None:
        """None: it cannot be read. That is told, and it is acknowledged."""
        if self._last and self._last[0] is message:
            return self._last[1]
        self._last = None
        scope = self.agent.options.topics.scope_of(message.topic) or FLEET
        if not message.payload:
            self.agent.journal.tell(Happening("target_cleared", {"scope": scope, "message": "nothing changes"}))
            self.agent.journal.acknowledge(message.token)
            return None
        body: Json = None
        try:
            body = self.body_of(message.payload, message.content_type)
            target = self.target_of(body, message.payload, message.content_type)
        except Refused as refused:
            seen = glimpse(body)
            ack = Ack("rejected", scope, seen.version, seen.digest, seen.release)
            refuse(self.agent, ack, refused, scope, message.token)
            return None
        opened = Opened(target, body, scope, message.token)
        self._last = message, opened
        return opened

    def forget(self) -> None:
        """A large document does not stay in memory for longer than it is of use."""
        self._last = None

    def from_file(self, payload: bytes) -> Opened:
        """Its scope is its own word: there is no topic that says otherwise. Raises `Refused`."""
        body = self.body_of(payload, None)
        target = self.target_of(body, payload, None)
        return Opened(target, body, target.scope, None)

    def body_of(self, payload: bytes, content_type: str | None) -> Json:
        """The body of a target. Raises `Refused`."""
        return open_target(payload, content_type, self.agent.options.limits, self.trusted())

    def trusted(self) -> TrustedKeys | None:
        """Read anew each time: a key that was added or removed counts from now on. Raises `Refused`."""
        trusted = self.agent.options.trusted
        try:
            return trusted() if trusted else None
        except ValueError as error:
            log.error("trusted keys cannot be used", why=str(error))  # noqa: TRY400 - the sentence says it all
            raise Refused("signature", f"no signature can be checked: {error}") from error

    def target_of(self, body: Json, payload: bytes, content_type: str | None) -> Target:
        """The target that a body is, its keys unchecked. Raises `Refused`."""
        return read_version(body, raw=payload, content_type=content_type)

    def wanted_after(self, standing: Standing, *arriving: Target) -> Wanted:
        """What is wanted once these admitted targets are accepted. Raises `Refused`."""
        return decide(standing, *arriving)

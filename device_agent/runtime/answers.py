"""Answers to commands, until the broker has them or they are worth nothing any more. Owned by the loop."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import structlog

from device_agent.model.errors import Refused
from device_agent.ports import Clock, Transport

EXPIRY_S = 300
"""How long an answer is worth being told: at the broker, and here while there is no connection."""
MOST = 64
"""Answers that wait to be sent; the oldest goes first."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Outgoing:
    topic: str
    body: bytes
    instead: bytes
    """What is said where the broker does not take one as large."""
    correlation: bytes | None
    after: float
    """Not sent before, by the monotonic clock."""
    until: float
    """Not sent any more."""


@dataclass(slots=True)
class Answers:
    transport: Transport
    clock: Clock
    waiting: list[Outgoing] = field(default_factory=list)

    def add(self, outgoing: Outgoing) -> None:
        self.waiting.append(outgoing)
        if len(self.waiting) > MOST:
            log.warning("an answer is given up: too many wait", topic=self.waiting.pop(0).topic)

    def again(self, unanswered: Iterable[Outgoing]) -> None:
        """The connection ended before the broker had them."""
        self.waiting[:0] = unanswered

    def due(self) -> float | None:
        """When the next one can go."""
        return min((outgoing.after for outgoing in self.waiting), default=None)

    def send(self, room: int) -> dict[int, Outgoing]:
        """Send what is due, `room` at most: those by their handles."""
        now = self.clock.monotonic()
        sent: dict[int, Outgoing] = {}
        self.waiting = [outgoing for outgoing in self.waiting if outgoing.until >= now]
        for outgoing in [outgoing for outgoing in self.waiting if outgoing.after <= now][: max(0, room)]:
            try:
                handle = self._publish(outgoing)
            except Refused as refused:
                log.warning("an answer is given up", topic=outgoing.topic, why=refused.message)
                self.waiting.remove(outgoing)
                continue
            if handle is None:
                break
            self.waiting.remove(outgoing)
            sent[handle] = outgoing
        return sent

    def _publish(self, outgoing: Outgoing) -> int | None:
        """Raises `Refused` where the broker does not even take that it is too large: Correlation Data can be long."""
        try:
            return self._publish_body(outgoing, outgoing.body)
        except Refused as refused:
            log.warning("answer too large for the broker", bytes=len(outgoing.body), why=refused.message)
            return self._publish_body(outgoing, outgoing.instead)

    def _publish_body(self, outgoing: Outgoing, body: bytes) -> int | None:
        return self.transport.publish(
            outgoing.topic, body, qos=1, retain=False, expiry_s=EXPIRY_S, correlation=outgoing.correlation
        )

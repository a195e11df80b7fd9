"""Which of device-agent's promises a broker's settings break: each is tried at the broker itself.

The topics are targets of a fleet that there is not, so that whoever may publish targets may run this. Nothing stays
at the broker but the marker, where it was asked for.
"""

import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cloud_sim.clock import monotonic
from cloud_sim.connection import Broker, Denied, Unreachable
from cloud_sim.promises import PROMISES
from cloud_sim.visitor import ANSWER_S, LastWill, Visitor
from device_agent.wire.topics import FleetTopics

FLEET = "cloud-sim-doctor"
SESSION_S = 3600
"""What devices ask for by default."""
QUEUED = 100
LARGE_BYTES = 1024 * 1024
SMALLEST_BYTES = 128 * 1024
"""AWS IoT's limit: room enough for most fleets."""
SETTLE_S = 0.3
"""How long after an answer something may still come that belongs to it."""
DELAY_S = 2


class Status(StrEnum):
    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"
    UNKNOWN = "unknown"
    """It could not be probed; `seen` says why."""


@dataclass(frozen=True, slots=True)
class Finding:
    probe: str
    status: Status
    seen: str
    asked: str
    breaks: str | None
    """Which promise; None when it holds."""
    mend: str | None


Verdict = tuple[Status, str]


class Restart(StrEnum):
    """Whether anything is to be learnt about a restart of the broker."""

    NOT_ASKED = "not asked"
    MARK = "mark"
    """Leave a marker behind, for a later run."""
    RESTARTED = "restarted"
    """The broker was restarted since: the marker must be there, and is removed."""


class Doctor:
    def __init__(self, broker: Broker, root: str) -> None:
        self._broker = broker
        self._v5 = broker.version == "5"
        topics = FleetTopics(root, FLEET)
        self._marker = topics.target
        self._topics = topics
        self._used: list[str] = []

    def examine(self, restart: Restart) -> Iterator[Finding]:
        """One finding a probe, as they come. Raises `Unreachable`, or `Denied`, when the broker lets nobody in."""
        with Visitor(self._broker, _name()):
            pass
        probes: dict[str, Callable[[], Verdict]] = {
            "retained": self._retained,
            "retained_cleared": self._retained_cleared,
            "retained_wildcard": self._retained_wildcard,
            "session": self._session,
            "queue_depth": self._queue_depth,
            "message_expiry": self._message_expiry,
            "will": lambda: self._will(0),
            "will_delay": lambda: self._will(DELAY_S),
            "packet_size": self._packet_size,
            "dots": self._dots,
            "shared_subscriptions": self._shared_subscriptions,
            "retained_after_restart": lambda: self._after_restart(restart),
        }
        try:
            for name, probe in probes.items():
                try:
                    status, seen = probe()
                except (Denied, Unreachable) as error:
                    status, seen = Status.UNKNOWN, str(error)
                promise, holds = PROMISES[name], status is Status.OK
                yield Finding(
                    name,
                    status,
                    seen,
                    promise.asked,
                    None if holds else promise.breaks,
                    None if holds else promise.mend,
                )
        finally:
            self._clear(*self._used)

    def _topic(self) -> str:
        """A fresh one, with nothing retained."""
        topic = self._topics.device_target(_name())
        self._used.append(topic)
        return topic

    def _clear(self, *topics: str) -> None:
        with Visitor(self._broker, _name()) as visitor:
            for topic in topics:
                visitor.publish(topic, b"", retain=True)

    def _retain(self, topic: str, payload: bytes = b"retained") -> bool:
        with Visitor(self._broker, _name()) as visitor:
            return visitor.publish(topic, payload, retain=True)

    def _finds(self, topic: str, filter_: str | None = None) -> bool:
        """Whether a new subscriber gets something retained there."""
        with Visitor(self._broker, _name()) as visitor:
            return visitor.subscribe(filter_ or topic) and _retained_comes(visitor, topic)

    def _retained(self) -> Verdict:
        topic = self._topic()
        if not self._retain(topic):
            return Status.BROKEN, "the broker does not take a retained message"
        with Visitor(self._broker, _name()) as visitor:
            if not visitor.subscribe(topic):
                return Status.UNKNOWN, f"the broker refuses the subscription to {topic}"
            if not _retained_comes(visitor, topic):
                return Status.BROKEN, "nothing retained came"
            visitor.subscribe(topic)
            again = visitor.hears(topic, 2)
        if not again:
            return Status.BROKEN, "it came once, and not again at a second subscription"
        return Status.OK, "it came, and again at a second subscription"

    def _retained_cleared(self) -> Verdict:
        topic = self._topic()
        self._retain(topic)
        self._retain(topic, b"")
        return (Status.BROKEN, "it still came") if self._finds(topic) else (Status.OK, "nothing came any more")

    def _retained_wildcard(self) -> Verdict:
        topic = self._topic()
        if not self._retain(topic) or not self._finds(topic):
            return Status.UNKNOWN, "nothing is retained at all"
        every = self._topics.targets[1]
        return (Status.OK, "it came") if self._finds(topic, every) else (Status.WARNING, f"nothing came to {every}")

    def _away(self, client_id: str, topic: str) -> None:
        """Leave a session with a subscription."""
        with Visitor(self._broker, client_id, session_s=SESSION_S, clean=False) as visitor:
            if not visitor.subscribe(topic):
                raise Denied(f"the broker refuses the subscription to {topic}")

    def _forget(self, client_id: str) -> None:
        """End the session: nothing of it stays at the broker."""
        with Visitor(self._broker, client_id):
            pass

    def _session(self) -> Verdict:
        topic, client_id = self._topic(), _name()
        self._away(client_id, topic)
        try:
            with Visitor(self._broker, client_id, session_s=SESSION_S, clean=False) as visitor:
                granted = getattr(visitor.granted, "SessionExpiryInterval", SESSION_S)
                if not visitor.session_present:
                    return Status.WARNING, "the session was gone when the client came back at once"
            if granted < SESSION_S:
                return Status.WARNING, f"the broker keeps it for {granted} s"
            return Status.OK, "it was there when the client came back at once" + (
                f", and is kept for {granted} s" if self._v5 else ""
            )
        finally:
            self._forget(client_id)

    def _queue_depth(self) -> Verdict:
        topic, client_id = self._topic(), _name()
        self._away(client_id, topic)
        try:
            with Visitor(self._broker, _name()) as sender:
                for number in range(QUEUED):
                    sender.publish(topic, b"%d" % number)
            with Visitor(self._broker, client_id, session_s=SESSION_S, clean=False) as visitor:
                visitor.hears(topic, QUEUED)
                came = len({heard.payload for heard in visitor.on(topic)})
        finally:
            self._forget(client_id)
        return Status.OK if came == QUEUED else Status.WARNING, f"{came} of {QUEUED} came"

    def _message_expiry(self) -> Verdict:
        if not self._v5:
            return Status.UNKNOWN, "MQTT 3.1.1 has none"
        topic, client_id = self._topic(), _name()
        self._away(client_id, topic)
        try:
            with Visitor(self._broker, _name()) as sender:
                sender.publish(topic, b"short", expiry_s=1)
                sender.publish(topic, b"long", expiry_s=60)
                sender.pause(2)
            with Visitor(self._broker, client_id, session_s=SESSION_S, clean=False) as visitor:
                visitor.hears(topic, 1)
                visitor.pause(SETTLE_S)
                came = {heard.payload for heard in visitor.on(topic)}
        finally:
            self._forget(client_id)
        if b"long" not in came:
            return Status.UNKNOWN, "nothing at all came to the session"
        return (Status.WARNING, "it came") if b"short" in came else (Status.OK, "it did not come")

    def _will(self, delay_s: int) -> Verdict:
        if delay_s and not self._v5:
            return Status.UNKNOWN, "MQTT 3.1.1 has no delay; cloud-sim waits the 30 s itself"
        topic, client_id = self._topic(), _name()
        with Visitor(self._broker, _name()) as witness:
            if not witness.subscribe(topic):
                return Status.UNKNOWN, f"the broker refuses the subscription to {topic}"
            dying = Visitor(
                self._broker, client_id, session_s=60 if delay_s else 0, will=LastWill(topic, b"lost", delay_s)
            )
            with dying:
                started = monotonic()
                dying.cut()
                came = witness.hears(topic, timeout_s=delay_s + ANSWER_S)
            took = witness.on(topic)[0].at - started if came else 0.0
        if delay_s:
            self._forget(client_id)
        if not came:
            return Status.BROKEN, "it did not come"
        if not self._finds(topic):
            return Status.BROKEN, f"it came after {took:.1f} s, and was not retained"
        if took < delay_s - 0.5:
            return Status.WARNING, f"it came after {took:.1f} s: each short break of a connection is told"
        return Status.OK, f"it came after {took:.1f} s, and was retained"

    def _packet_size(self) -> Verdict:
        topic = self._topic()
        with Visitor(self._broker, _name()) as visitor:
            told = getattr(visitor.granted, "MaximumPacketSize", None)
            if told is not None and told < LARGE_BYTES:
                return (Status.WARNING if told >= SMALLEST_BYTES else Status.BROKEN), f"the broker takes {told} bytes"
            visitor.subscribe(topic)
            visitor.publish(topic, secrets.token_bytes(LARGE_BYTES))
            came = visitor.hears(topic)
        if not came:
            return Status.BROKEN, "it did not come" + (": the broker closed the connection" if visitor.over else "")
        return Status.OK, "it came"

    def _dots(self) -> Verdict:
        topic = f"{self._topic()}/a.b"
        with Visitor(self._broker, _name()) as visitor:
            visitor.subscribe(topic)
            visitor.publish(topic, b"dot")
            if visitor.hears(topic, timeout_s=2):
                return Status.OK, "it came"
            other = sorted({heard.topic for heard in visitor.heard})
        if not other:
            return Status.UNKNOWN, "nothing came"
        return Status.BROKEN if "." in self._topics.root else Status.WARNING, f"it came as {', '.join(other)}"

    def _shared_subscriptions(self) -> Verdict:
        topic = self._topic()
        shared = f"$share/doctor/{topic}"
        with Visitor(self._broker, _name()) as one, Visitor(self._broker, _name()) as other:
            if not (one.subscribe(shared) and other.subscribe(shared)):
                return Status.WARNING, "the broker refuses them"
            one.publish(topic, b"1")
            one.publish(topic, b"2")
            one.pause(SETTLE_S)
            came = len(one.on(topic)) + len(other.on(topic))
        return Status.OK if came == 2 else Status.WARNING, f"2 messages came {came} times"  # noqa: PLR2004 - just sent

    def _after_restart(self, restart: Restart) -> Verdict:
        there = self._finds(self._marker)
        if restart is Restart.MARK:
            self._retain(self._marker)
            return Status.UNKNOWN, "the marker is set: restart the broker, then say --restarted"
        if restart is Restart.RESTARTED:
            self._clear(self._marker)
            return (Status.OK, "the marker was there") if there else (Status.BROKEN, "the marker is gone")
        return Status.UNKNOWN, "nobody may restart your broker but you: say --mark, restart it, then say --restarted"


def _retained_comes(visitor: Visitor, topic: str) -> bool:
    # A message of its own comes back behind what is retained; some brokers send the latter from another thread.
    mark = f"{topic}/{_name()}"
    visitor.subscribe(mark)
    visitor.publish(mark, b"")
    visitor.hears(mark)
    visitor.pause(SETTLE_S)
    return any(heard.retained for heard in visitor.on(topic))


def _name() -> str:
    return f"doctor-{secrets.token_hex(6)}"

"""A `Transport` in memory, with its broker: synchronous, in the caller's thread, and moved by the test.

It passes the same contract suite as the real one. The test moves the world with `connect`, `disconnect`, `arrive` and
`puback`, and looks at `sent`, `retained`, `acknowledged` and `unacknowledged`.
"""

import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from device_agent.model.errors import Refused
from device_agent.ports import Connected, Disconnected, Published, Received, TransportEvent, Will


@dataclass(frozen=True, slots=True)
class Sent:
    """One `publish` (or farewell) of the device that the broker has got."""

    handle: int
    topic: str
    payload: bytes
    qos: int
    retain: bool
    expiry_s: int | None
    correlation: bytes | None = None


class FakeTransport:
    """Starts with no broker in reach. With `hold_pubacks`, nothing is `Published` before the test says so."""

    def __init__(self, *, hold_pubacks: bool = False, maximum_packet_size: int = 2**28 - 1, receive_maximum: int = 20):
        self.hold_pubacks = hold_pubacks
        self.maximum_packet_size = maximum_packet_size
        self.receive_maximum = receive_maximum
        self.connected = False
        self.started = False
        self.stopped = False
        self.session: int | None = None
        """Of the current connection, or of the last one."""
        self.will: Will | None = None
        """What the broker holds now."""
        self.sent: list[Sent] = []
        self.forbidden: frozenset[str] = frozenset()
        """Topics that the broker lets nobody subscribe to."""
        self.retained: dict[str, bytes] = {}
        """At the broker, both ways: targets, and what the device retains."""
        self.acknowledged: list[Received] = []
        self.unacknowledged: dict[object, Received] = {}
        self._numbers = itertools.count(1)
        self._queued: list[Received] = []
        self._known = False
        self._lock = threading.RLock()

    # What the device calls.

    def start(
        self,
        *,
        subscriptions: tuple[str, ...],
        optional: tuple[str, ...] = (),
        will: Callable[[int], Will],
        sessions: Callable[[], int],
        deliver: Callable[[TransportEvent], None],
    ) -> None:
        self._subscriptions, self._optional = subscriptions, optional
        self._will, self._sessions, self._deliver = will, sessions, deliver
        self.started = True

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        expiry_s: int | None = None,
        correlation: bytes | None = None,
    ) -> int | None:
        with self._lock:
            if not self.connected or self.stopped:
                return None
            if len(topic) + len(payload) + len(correlation or b"") + 64 > self.maximum_packet_size:
                raise Refused("too_large", f"{len(payload)} bytes")
            handle = self._take(topic, payload, qos=qos, retain=retain, expiry_s=expiry_s, correlation=correlation)
        if qos and not self.hold_pubacks:
            self.puback(handle)
        return handle

    def acknowledge(self, token: object) -> None:
        with self._lock:
            received = self.unacknowledged.pop(token, None)
            if received is not None and self.connected:
                self.acknowledged.append(received)

    def subscribe_again(self) -> None:
        with self._lock:
            if not self.connected or self.stopped:
                return
        self._bring_retained(self._subscriptions)

    def stop(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:  # noqa: ARG002 - the port's signature
        with self._lock:
            if self.connected and farewell is not None:
                self._take(*farewell, qos=1, retain=True, expiry_s=None)
            self.stopped, self.connected, self.will = True, False, None

    # What the test calls.

    def connect(self) -> int:
        """The broker is in reach: a new session, `Connected`, then what is retained and what was not acknowledged."""
        with self._lock:
            self.session = self._sessions()
            self.will = self._will(self.session)
            self.connected = self._known = True
            again = [replace(old, token=next(self._numbers)) for old in (*self.unacknowledged.values(), *self._queued)]
            self.unacknowledged.clear()
            self._queued.clear()
        refused = tuple(topic for topic in self._optional if topic in self.forbidden)
        self._deliver(Connected(self.session, self.maximum_packet_size, self.receive_maximum, refused))
        self._bring_retained(topic for topic in (*self._subscriptions, *self._optional) if topic not in refused)
        for received in again:
            self._bring(received)
        return self.session

    def disconnect(self, code: str = "lost", message: str = "the connection broke", retry_s: float = 1.0) -> None:
        """The connection ends, or a try fails; the Will is published when there was one."""
        with self._lock:
            self.connected = False
            if self.will is not None:
                self.retained[self.will.topic] = self.will.payload
            self.will = None
        self._deliver(Disconnected(code, message, retry_s))

    def arrive(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        content_type: str | None = None,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        """A cloud publishes, QoS 1: delivered now, or kept for the device's session."""
        with self._lock:
            if retain:
                self.retained.pop(topic, None)
                if payload:
                    self.retained[topic] = payload
            received = Received(
                topic,
                payload,
                next(self._numbers),
                content_type=content_type,
                response_topic=response_topic,
                correlation=correlation,
            )
            if not self.started or topic not in (*self._subscriptions, *self._optional) or topic in self.forbidden:
                return
            if not self.connected:
                if self._known:
                    self._queued.append(received)
                return
        self._bring(received)

    def puback(self, *handles: int, refused: str | None = None) -> None:
        """The broker answers these."""
        for handle in handles:
            self._deliver(Published(handle, refused))

    def on(self, topic: str) -> list[Sent]:
        """What the device has published there."""
        return [sent for sent in self.sent if sent.topic == topic]

    def _bring_retained(self, topics: Iterable[str]) -> None:
        for topic in topics:
            if topic in self.retained:
                self._bring(Received(topic, self.retained[topic], next(self._numbers), retained=True))

    def _bring(self, received: Received) -> None:
        with self._lock:
            self.unacknowledged[received.token] = received
        self._deliver(received)

    def _take(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int,
        retain: bool,
        expiry_s: int | None,
        correlation: bytes | None = None,
    ) -> int:
        handle = next(self._numbers)
        self.sent.append(Sent(handle, topic, payload, qos, retain, expiry_s, correlation))
        if retain:
            self.retained[topic] = payload
        return handle

"""What moves the world around a `Transport`, the same for the fake and for a real broker."""

import itertools
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar
from uuid import uuid4

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device_agent.adapters.mqtt import Broker, MqttTransport, Pace, Wants, parse_url
from device_agent.ports import Published, Transport, TransportEvent, Will
from tests.broker import BrokerContainer, Cable, Peer
from tests.eventually import eventually
from tests.fakes_transport import FakeTransport

PATIENCE_S = 15.0
QUICK = Pace(keepalive=60, first=0.05, longest=0.3, connect=5, refused=60, duplicate=60, stood=0.1)
"""Tests do not wait as patiently as devices. Connections that they cut are not suspected to be taken over."""

ID = "plant7.d1"
TARGET = "fleet/v1/plant7/down/target"
SESSION = "fleet/v1/plant7/up/d1/session"

E = TypeVar("E", bound=TransportEvent)


class Topics:
    """Of one test: `target`, `other` and the optional ones are subscribed to, the Will is at `session`."""

    def __init__(self, prefix: str) -> None:
        self.target, self.other, self.state, self.session, self.mark = (
            f"{prefix}/{name}" for name in ("target", "other", "state", "session", "mark")
        )
        self.optional = tuple(f"{prefix}/optional/{number}" for number in range(20))


class Bench(Protocol):
    transport: Transport
    topics: Topics
    tells_limits: bool
    """Whether the broker says how large a packet it takes."""

    def start(self) -> None: ...
    def up(self) -> None: ...
    def down(self) -> None:
        """No broker in reach; connections end, without DISCONNECT."""

    def cut(self) -> None:
        """Connections end; the broker can be reached again."""

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> None: ...
    def retained(self, topic: str) -> bytes | None: ...
    def settle(self) -> None:
        """Until the broker has handled what the device has sent so far."""

    def expect(self, kind: type[E]) -> E:
        """The next event of that kind; others are passed over."""

    def eventually_retained(self, topic: str, payload: bytes) -> None: ...
    def thread_lives(self) -> bool: ...
    def close(self) -> None: ...


class FakeBench:
    tells_limits = True

    def __init__(self) -> None:
        self.topics = Topics("fake")
        self.transport = FakeTransport(maximum_packet_size=20_000)
        self.events: queue.Queue[TransportEvent] = queue.Queue()
        self._in_reach = False

    def start(self) -> None:
        self.transport.start(
            subscriptions=(self.topics.target, self.topics.other),
            optional=self.topics.optional,
            will=lambda session: Will(self.topics.session, b"lost %d" % session, 0),
            sessions=itertools.count(1).__next__,
            deliver=self.events.put,
        )
        if self._in_reach:
            self.transport.connect()
        else:
            self.transport.disconnect("unreachable", "nobody is there")

    def up(self) -> None:
        self._in_reach = True
        if self.transport.started:
            self.transport.connect()

    def down(self) -> None:
        self._in_reach = False
        self.transport.disconnect()

    def cut(self) -> None:
        self.transport.disconnect()
        self.transport.connect()

    def publish(self, topic: str, payload: bytes, **keys: Any) -> None:
        self.transport.arrive(topic, payload, **keys)

    def retained(self, topic: str) -> bytes | None:
        return self.transport.retained.get(topic)

    def settle(self) -> None:
        pass

    def expect(self, kind: type[E]) -> E:
        return next_event(self.events, kind, 0)

    def eventually_retained(self, topic: str, payload: bytes) -> None:
        assert self.retained(topic) == payload

    def thread_lives(self) -> bool:
        return False

    def close(self) -> None:
        pass


class RealBench:
    """The adapter behind a cable of its own, its topics under a prefix of its own: one broker serves many tests."""

    def __init__(self, broker: BrokerContainer, *, version: str = "5", pace: Pace = QUICK) -> None:
        self.name = f"f.{uuid4().hex[:12]}"
        # No dot in a topic: to RabbitMQ it is a slash.
        self.topics = Topics(self.name.replace(".", "/"))
        self.tells_limits = version == "5"
        self.events: queue.Queue[TransportEvent] = queue.Queue()
        self.cable = Cable(broker.host, broker.port)
        self.peer = Peer(broker)
        self._broker = broker
        settings = Broker(
            parse_url(f"mqtt://127.0.0.1:{self.cable.port}"), version="5" if self.tells_limits else "3.1.1"
        )
        self.mqtt = MqttTransport(settings, self.name, wants=Wants(payload_limit=1000), pace=pace)
        self.transport: Transport = self.mqtt

    def start(self) -> None:
        self.transport.start(
            subscriptions=(self.topics.target, self.topics.other),
            optional=self.topics.optional,
            will=lambda session: Will(self.topics.session, b"lost %d" % session, 0),
            sessions=itertools.count(1).__next__,
            deliver=self.events.put,
        )

    def up(self) -> None:
        self.cable.plug()

    def down(self) -> None:
        self.cable.unplug()

    def cut(self) -> None:
        self.cable.cut()

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = False,
        response_topic: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)
        if response_topic is not None:
            properties.ResponseTopic = response_topic
        if correlation is not None:
            properties.CorrelationData = correlation
        self.peer.publish(topic, payload, retain=retain, properties=properties)

    def retained(self, topic: str) -> bytes | None:
        with Peer(self._broker) as reader:
            reader.subscribe(topic)
            # What is retained was put in the reader's queue before the SUBACK; this comes after it.
            reader.subscribe(self.topics.mark)
            reader.publish(self.topics.mark, b"")
            eventually(lambda: reader.on(self.topics.mark), PATIENCE_S, "the mark is back")
            found = reader.on(topic)
        return found[0].payload if found else None

    def settle(self) -> None:
        # A PUBACK travels unanswered. The broker reads in order, so its answer to this comes after it.
        handle = self.transport.publish(self.topics.mark, b"", qos=1, retain=False)
        passed: list[TransportEvent] = []
        while handle is not None and (event := self.events.get(timeout=PATIENCE_S)) != Published(handle):
            passed.append(event)
        for event in passed:
            self.events.put(event)

    def expect(self, kind: type[E]) -> E:
        return next_event(self.events, kind, PATIENCE_S)

    def eventually_retained(self, topic: str, payload: bytes) -> None:
        eventually(lambda: self.retained(topic) == payload, PATIENCE_S, f"{payload!r} is retained at {topic}")

    def thread_lives(self) -> bool:
        thread = self.mqtt._thread
        return thread is not None and thread.is_alive()

    def close(self) -> None:
        self.mqtt.stop(None, 5)
        self.cable.unplug()
        self.peer.close()


def next_event(events: "queue.Queue[TransportEvent]", kind: type[E], timeout: float) -> E:
    """The next event of that kind; others are passed over. AssertionError, with those, after `timeout` s."""
    passed: list[TransportEvent] = []
    while True:
        try:
            event = events.get(timeout=timeout) if timeout else events.get_nowait()
        except queue.Empty:
            raise AssertionError(f"no {kind.__name__} within {timeout} s, but {passed}") from None
        if isinstance(event, kind):
            return event
        passed.append(event)


class Device:
    """A started transport and what it delivers."""

    def __init__(
        self,
        broker: Broker,
        *,
        pace: Pace = QUICK,
        subscriptions: tuple[str, ...] = (TARGET,),
        optional: tuple[str, ...] = (),
    ) -> None:
        self.events: queue.Queue[TransportEvent] = queue.Queue()
        self.transport = MqttTransport(broker, ID, pace=pace)
        self.deliver: Any = self.events.put
        self.transport.start(
            subscriptions=subscriptions,
            optional=optional,
            will=lambda session: Will(SESSION, b"lost %d" % session, 0),
            sessions=itertools.count(1).__next__,
            deliver=self._deliver,
        )

    def _deliver(self, event: TransportEvent) -> None:
        self.deliver(event)

    def expect(self, kind: type[Any], timeout: float = 15) -> Any:
        return next_event(self.events, kind, timeout)


@contextmanager
def device(broker: Broker, **keys: Any) -> Iterator[Device]:
    made = Device(broker, **keys)
    try:
        yield made
    finally:
        made.transport.stop(None, 5)

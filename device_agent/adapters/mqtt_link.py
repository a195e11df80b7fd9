"""One MQTT connection over paho-mqtt, from CONNECT to its end. The only file that knows paho.

Each has a fresh paho client, driven through paho's interface for external loops and thrown away afterwards. So nothing
is queued across connections, and paho's own thread, reconnecting and back-off are never used.

- `connect`, `serve` and paho's callbacks run in the thread `mqtt`. A callback notes, delivers and returns; it is
  total: what it raises becomes the failure that ends the connection, and un-acknowledged messages come again.
- `publish`, `acknowledge` and `leave` come from any other thread: they append to paho's output queue and wake `mqtt`.
- No lock of ours is held while paho is called, because paho calls back holding its own.
- The connection counts once all subscriptions are granted. What arrives before is delivered after `Connected`; one
  that ends before leaves without DISCONNECT, so that the Will still tells.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, LogLevel, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from device_agent.adapters.broker import Broker, Pace, Wants
from device_agent.adapters.mqtt_reasons import LOST, REFUSED, UNREACHABLE, Failed, not_let_in, remarks, sent_away, words
from device_agent.model.errors import Refused
from device_agent.ports import Connected, Published, Received, TransportEvent, Will

_UNSPECIFIED = 0x80

_LARGEST_PACKET = 268_435_455
_RECEIVE_MAXIMUM = 65_535
_MIDS = 65_536
# What a broker says in a TLS alert once it has looked at our certificate: with TLS 1.3 only after the handshake.
_TLS_ALERTS = {
    "CERTIFICATE_EXPIRED": "the client certificate has expired, says the broker",
    "CERTIFICATE_REQUIRED": "the broker asks for a client certificate",
    "UNKNOWN_CA": "the broker does not know who signed the client certificate",
    "BAD_CERTIFICATE": "the broker does not accept the client certificate",
    "CERTIFICATE_REVOKED": "the client certificate was revoked, says the broker",
}
# Fixed header, lengths and properties of a PUBLISH, generously.
_OVERHEAD = 64
# QoS 0 messages that are delivered and not acknowledged; more are dropped. Of these a broker sends as many as the
# network carries; the others are bounded by the receive maximum, and wait there. More than `core.brake.MANY`: so what
# is retained is asked for once more where a flood has lost its newest.
_LOOSE = 32
# Keep-alives without a byte from the broker, a ping's answer included, after which the link is dead. paho waits longer.
_SILENCE = 1.5
# Topics in one SUBSCRIBE: AWS IoT takes 8.
_TOGETHER = 8


@dataclass(frozen=True, slots=True)
class Token:
    """Which message, of which connection: a PUBACK in another one could acknowledge something else."""

    link: int
    mid: int
    """Of a QoS 0 message not the broker's, and negative."""


def _together(topics: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(topics[at : at + _TOGETHER] for at in range(0, len(topics), _TOGETHER))


class Link:
    def __init__(
        self,
        number: int,
        session: int,
        broker: Broker,
        client_id: str,
        *,
        wants: Wants,
        pace: Pace,
        subscriptions: tuple[str, ...],
        optional: tuple[str, ...],
        deliver: Callable[[TransportEvent], None],
        wake: Callable[[], None],
        fresh: bool = False,
    ) -> None:
        """`fresh`: the broker is to forget the session that it may have."""
        self._number = number
        self._fresh = fresh
        self._session = session
        self._broker = broker
        self._v5 = broker.version == "5"
        self._wants = wants
        self._pace = pace
        self._subscriptions = _together((*subscriptions, *optional))
        self._retaining = _together(subscriptions)
        self._optional = frozenset(optional)
        self._asked: dict[int, tuple[str, ...]] = {}
        """Message id of a SUBSCRIBE → its topics, until it is answered."""
        self._not_granted: list[str] = []
        self._remarks: tuple[str, ...] = ()
        self._deliver = deliver
        self._wake = wake
        self._client = self._new_client(client_id)
        self._keepalive: float = pace.keepalive
        self._maximum_packet_size = _LARGEST_PACKET
        self._receive_maximum = _RECEIVE_MAXIMUM
        self._heard_at = time.monotonic()
        """When the broker last sent anything."""
        self._granted_at: float | None = None
        self._ended_at: float | None = None
        self._failure: Failed | None = None
        self._early: list[Received] = []
        self._loose: set[int] = set()
        self._last_loose = 0
        self._socket_error = ""
        # Message id → QoS of what paho was given and has not answered, and the ids it answered before they were noted.
        self._answers = threading.Condition()
        self._sent: dict[int, int] = {}
        self._unnoted: dict[int, str | None] = {}

    def stood_s(self) -> float | None:
        """How long the subscriptions stood; None when they were never granted."""
        if self._granted_at is None:
            return None
        return (self._ended_at or time.monotonic()) - self._granted_at

    def connect(self, will: Will) -> None:
        """TCP and TLS, and CONNECT queued. Raises `Failed`; then no broker has heard of this session."""
        problem = self._connect(will)
        # Raised here and not where it was caught: the traceback would keep the half-open socket alive.
        if problem is not None:
            raise Failed(UNREACHABLE, f"{self._broker.address}: {problem}")

    def _connect(self, will: Will) -> str | None:
        broker, client = self._broker, self._client
        try:
            if broker.username is not None:
                client.username_pw_set(broker.username, broker.password())
            context = broker.tls_context()
            if context is not None:
                client.tls_set_context(context)
            client.will_set(will.topic, will.payload, qos=1, retain=True, properties=self._will_properties(will))
            if self._v5:
                client.connect(
                    broker.address.host,
                    broker.address.port,
                    self._pace.keepalive,
                    clean_start=self._fresh,
                    properties=self._connect_properties(),
                )
            else:
                client.connect(broker.address.host, broker.address.port, self._pace.keepalive)
            self._tune(client.socket())
        except (OSError, ValueError) as error:
            return str(error) or type(error).__name__
        return None

    def serve(self, woken: socket.socket, stopping: threading.Event) -> None:
        """Carry the connection until it ends, which raises `Failed`."""
        client = self._client
        deadline = time.monotonic() + self._pace.connect
        with selectors.DefaultSelector() as selector:
            selector.register(woken, selectors.EVENT_READ)
            registered = 0
            while (sock := client.socket()) is not None and self._failure is None:
                if self._granted_at is not None:
                    patience = self._patience()
                elif (patience := deadline - time.monotonic()) <= 0 or stopping.is_set():
                    raise Failed(UNREACHABLE, f"no answer from {self._broker.address} within {self._pace.connect} s")
                wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.want_write() else 0)
                if wanted != registered:
                    (selector.modify if registered else selector.register)(sock, wanted)
                    registered = wanted
                pending = sock.pending() if hasattr(sock, "pending") else 0
                ready = {key.fileobj: events for key, events in selector.select(0 if pending else patience)}
                if woken in ready:
                    with contextlib.suppress(BlockingIOError):
                        woken.recv(4096)
                self._work(readable=bool(pending or ready.get(sock, 0) & selectors.EVENT_READ))
        raise self._failure or Failed(LOST, "the connection was closed")

    def _patience(self) -> float | None:
        """Until paho has a ping to send, or its answer is overdue; None without a keep-alive."""
        if not self._keepalive:
            return None
        silent = time.monotonic() - self._heard_at
        due = self._keepalive if silent < self._keepalive else _SILENCE * self._keepalive
        return min(self._keepalive / 4, max(0.0, due - silent))

    def _work(self, *, readable: bool) -> None:
        client = self._client
        rc = client.loop_read() if readable else MQTTErrorCode.MQTT_ERR_SUCCESS
        if readable:
            self._heard_at = time.monotonic()
        elif (
            self._granted_at is not None
            and self._keepalive
            and time.monotonic() - self._heard_at >= _SILENCE * self._keepalive
        ):
            self._fail(LOST, f"{self._broker.address} has been silent for {_SILENCE * self._keepalive:g} s")
            return
        if not rc and client.want_write():
            rc = client.loop_write()
        if not rc:
            rc = client.loop_misc()
        if rc:
            self._fail(LOST, paho.error_string(rc))

    def close(self) -> None:
        """Give up the socket without a word."""
        self._ended_at = time.monotonic()
        client = self._client
        client.on_log = None
        client.on_connect = client.on_subscribe = client.on_message = client.on_publish = client.on_disconnect = None
        with self._answers:
            self._sent.clear()
            self._answers.notify_all()
        sock = client.socket()
        if sock is not None:
            sock.close()

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
        """Hand a message to the connection; None when it is gone, or the broker has as many as it takes at once."""
        if len(topic.encode()) + len(payload) + len(correlation or b"") + _OVERHEAD > self._maximum_packet_size:
            raise Refused("too_large", f"{len(payload)} bytes: the broker takes at most {self._maximum_packet_size}")
        with self._answers:
            # The values are 0 or 1: their sum is how many wait for a PUBACK.
            if qos and sum(self._sent.values()) >= self._receive_maximum:
                return None
        properties = None
        if self._v5:
            properties = Properties(PacketTypes.PUBLISH)
            if expiry_s is not None:
                properties.MessageExpiryInterval = expiry_s
            if correlation is not None:
                properties.CorrelationData = correlation
        info = self._client.publish(topic, payload, qos, retain, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return None
        self._wake()
        with self._answers:
            answered = info.mid in self._unnoted
            refusal = self._unnoted.pop(info.mid, None)
            if not answered:
                self._sent[info.mid] = qos
        if answered and qos:
            self._deliver(Published(self._handle(info.mid), refusal))
        return self._handle(info.mid)

    def acknowledge(self, token: object) -> None:
        if not isinstance(token, Token) or token.link != self._number:
            return
        if token.mid < 0:
            self._loose.discard(token.mid)
            return
        self._client.ack(token.mid, 1)
        self._wake()

    def subscribe_again(self) -> None:
        for topics in self._retaining:
            self._subscribe(self._client, topics)
        self._wake()

    def leave(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:
        """DISCONNECT, once the farewell has been acknowledged; without that, only close."""
        said = True
        if farewell is not None:
            try:
                handle = self.publish(*farewell, qos=1, retain=True)
            except Refused:
                handle = None
            with self._answers:
                said = handle is not None and self._answers.wait_for(
                    lambda: handle % _MIDS not in self._sent, timeout_s
                )
        if said:
            self._client.disconnect()
        else:
            self._fail(LOST, "stopped before the farewell was acknowledged")

    def _handle(self, mid: int) -> int:
        """Unique over all connections."""
        return self._number * _MIDS + mid

    def _fail(self, code: str, message: str, *, by_broker: bool = False) -> None:
        # The first cause is the true one: paho reports some ends twice, and then less precisely.
        self._failure = self._failure or Failed(code, message, by_broker=by_broker)

    def _new_client(self, client_id: str) -> paho.Client:
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._v5 else self._fresh,
            protocol=paho.MQTTv5 if self._v5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = self._pace.connect
        client.on_connect = self._total(self._on_connect)
        client.on_subscribe = self._total(self._on_subscribe)
        client.on_log = self._total(self._on_log)
        client.on_message = self._total(self._on_message)
        client.on_publish = self._total(self._on_publish)
        client.on_disconnect = self._total(self._on_disconnect)
        # Without this paho would write to the socket from within `publish`, in the caller's thread. It is not used as
        # a wake-up: between two threads paho can miss to call it.
        client.on_socket_register_write = lambda *_: None
        return client

    def _total(self, callback: Callable[..., None]) -> Callable[..., None]:
        def guarded(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # noqa: BLE001 - an exception in a callback would leave paho half done
                self._fail(LOST, f"internal error: {type(error).__name__}: {error}")

        return guarded

    def _tune(self, sock: Any) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # What is sent, a ping too, must be acknowledged by the other kernel in half a keep-alive.
        if self._pace.keepalive and hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._pace.keepalive * 500)

    def _connect_properties(self) -> Properties:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = self._wants.session_expiry_s
        properties.ReceiveMaximum = self._wants.receive_maximum
        properties.MaximumPacketSize = self._wants.maximum_packet_size
        return properties

    def _will_properties(self, will: Will) -> Properties | None:
        # No delay is said by leaving it out: RabbitMQ 4.0 retains the property with the Will, 0 too, and then breaks
        # the connection of every subscriber that it should be sent to.
        if not self._v5 or not will.delay_s:
            return None
        properties = Properties(PacketTypes.WILLMESSAGE)
        properties.WillDelayInterval = will.delay_s
        return properties

    def _subscribe(self, client: paho.Client, topics: tuple[str, ...]) -> int | None:
        """With MQTT 5 asked for, and in 3.1.1 always, what is retained is sent, also when it stands already."""
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
        return client.subscribe(
            [(topic, options) for topic in topics] if self._v5 else [(topic, 1) for topic in topics]
        )[1]

    def _on_connect(self, client: paho.Client, _data: object, _flags: object, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._failure = self._failure or not_let_in(self._broker, reason, properties)
            return
        self._remarks = tuple(remarks(properties, self._pace, self._wants))
        self._maximum_packet_size = getattr(properties, "MaximumPacketSize", _LARGEST_PACKET)
        self._receive_maximum = getattr(properties, "ReceiveMaximum", _RECEIVE_MAXIMUM)
        self._keepalive = getattr(properties, "ServerKeepAlive", self._pace.keepalive)
        if not self._subscriptions:
            self._grant()
        for topics in self._subscriptions:
            mid = self._subscribe(client, topics)
            if mid is not None:
                self._asked[mid] = topics

    def _on_subscribe(
        self, _client: paho.Client, _data: object, mid: int, reasons: list[ReasonCode], properties: Properties
    ) -> None:
        topics = self._asked.pop(mid, None)
        if topics is None:
            return  # subscribed again: what stands already stays
        for topic, reason in zip(topics, reasons, strict=True):
            if reason.is_failure and topic in self._optional:
                self._not_granted.append(topic)
            elif reason.is_failure:
                why = words(reason, properties)
                self._fail(REFUSED, f"{self._broker.address} refused the subscription to {topic}: {why}")
                return
        if not self._asked:
            self._grant()

    def _grant(self) -> None:
        self._granted_at = time.monotonic()
        self._deliver(
            Connected(
                self._session,
                self._maximum_packet_size,
                self._receive_maximum,
                refused=tuple(self._not_granted),
                remarks=self._remarks,
            )
        )
        early, self._early = self._early, []
        for received in early:
            self._deliver(received)

    def _on_message(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        try:
            topic = message.topic
        except UnicodeDecodeError:
            # MQTT forbids it, and nobody could handle it: acknowledged, or it would come back for ever.
            client.ack(message.mid, message.qos)
            return
        if not message.qos and len(self._loose) >= _LOOSE:
            return
        properties = message.properties
        received = Received(
            topic,
            bytes(message.payload),
            Token(self._number, message.mid if message.qos else self._new_loose()),
            retained=message.retain,
            content_type=getattr(properties, "ContentType", None),
            response_topic=getattr(properties, "ResponseTopic", None),
            correlation=getattr(properties, "CorrelationData", None),
        )
        if self._granted_at is not None:
            self._deliver(received)
        else:
            self._early.append(received)

    def _new_loose(self) -> int:
        self._last_loose -= 1
        self._loose.add(self._last_loose)
        return self._last_loose

    def _on_publish(
        self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, properties: Properties
    ) -> None:
        refusal = words(reason, properties) if reason.is_failure else None
        with self._answers:
            qos = self._sent.pop(mid, None)
            if qos is None:
                self._unnoted[mid] = refusal
            self._answers.notify_all()
        if qos:
            self._deliver(Published(self._handle(mid), refusal))

    def _on_log(self, _client: paho.Client, _data: object, level: int, text: str) -> None:
        """What went wrong on the socket paho tells its log alone."""
        if level == LogLevel.MQTT_LOG_ERR:
            self._socket_error = next((words for alert, words in _TLS_ALERTS.items() if alert in text), text)

    def _on_disconnect(self, _client: paho.Client, _data: object, flags: Any, reason: Any, properties: Any) -> None:
        self._ended_at = self._ended_at or time.monotonic()
        if flags.is_disconnect_packet_from_server:
            self._failure = self._failure or sent_away(self._broker, reason, properties)
        elif self._granted_at is None:
            why = f": {self._socket_error}" if self._socket_error else ""
            self._fail(
                UNREACHABLE, f"{self._broker.address} closed the connection before it had granted everything{why}"
            )
        elif reason.value == _UNSPECIFIED:
            self._fail(LOST, f"the connection to {self._broker.address} broke", by_broker=True)
        else:
            self._fail(LOST, f"the connection to {self._broker.address} ended: {words(reason, properties)}")

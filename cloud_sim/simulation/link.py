"""A simulated device's MQTT connection: the port `Transport`, over paho, without a thread of its own.

As the agent's own adapter does it: a fresh paho client for each connection, driven through paho's interface for
external loops, nothing queued across connections, the same Will and properties. What a broker's refusal means and how
long is waited after it is decided by the agent's own code. Here one thread (`network`) drives them all, so nothing
blocks but making a connection.
"""

import contextlib
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from cloud_sim.clock import monotonic
from device_agent.adapters.broker import Pace
from device_agent.adapters.mqtt_patience import Patience
from device_agent.adapters.mqtt_reasons import LOST, REFUSED, UNREACHABLE, Failed, not_let_in, sent_away
from device_agent.model.errors import Refused
from device_agent.ports import Connected, Published, Received, TransportEvent, Will

if TYPE_CHECKING:
    from cloud_sim.simulation.network import Network

PACE = Pace(connect=30)
"""The agent's, but more patient with CONNACK and SUBACK: thousands come to one broker at once, from one machine."""
SESSION_EXPIRY_S = 3600
RECEIVE_MAXIMUM = 10
LARGEST_PACKET = 268_435_455
OVERHEAD_BYTES = 64
_UNSPECIFIED = 0x80
_MIDS = 65_536


class Link:
    """Safe in one thread only."""

    __slots__ = (
        "_client",
        "_deliver",
        "_early",
        "_failure",
        "_granted_at",
        "_largest",
        "_leaving",
        "_next_session",
        "_number",
        "_opened_at",
        "_optional",
        "_patience",
        "_receive_maximum",
        "_sent",
        "_session",
        "_sessions",
        "_sock",
        "_subscriptions",
        "_will",
        "client_id",
        "network",
        "stopped",
        "trouble",
        "writing",
    )

    def __init__(self, network: "Network", client_id: str) -> None:
        self.network = network
        self.client_id = client_id
        self.stopped = False
        self.trouble = ""
        """Why the last connection ended, or was not made."""
        self.writing = False
        """Whether the socket did not take all there was to write."""
        self._client: paho.Client | None = None
        self._number = 0
        self._failure: Failed | None = None
        """What ended the connection."""
        self._patience = Patience(client_id, PACE)
        self._sock: Any = None
        """Of the connection that stands or is being made."""
        self._session = 0
        """Of the connection that stands or is being made."""
        self._next_session: int | None = None
        """Taken for a connection that did not come about."""
        self._receive_maximum = _MIDS - 1
        self._largest = LARGEST_PACKET
        self._opened_at = 0.0
        self._granted_at: float | None = None
        self._early: list[Received] = []
        self._sent: dict[int, tuple[str, bytes]] = {}
        """Message id → topic and payload of what the broker has not answered."""
        self._leaving: int | None = None
        """The farewell: when the broker has it, the connection ends."""

    @property
    def up(self) -> bool:
        return self._granted_at is not None

    # The port.

    def start(
        self,
        *,
        subscriptions: tuple[str, ...],
        optional: tuple[str, ...] = (),
        will: Callable[[int], Will],
        sessions: Callable[[], int],
        deliver: Callable[[TransportEvent], None],
    ) -> None:
        """See the port."""
        self._subscriptions, self._optional = subscriptions, optional
        self._will, self._sessions, self._deliver = will, sessions, deliver
        self.network.wants_connection(self)

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
        """See the port."""
        client = self._client
        if client is None or self._granted_at is None:
            return None
        if len(topic) + len(payload) + OVERHEAD_BYTES > self._largest:
            raise Refused("too_large", f"{len(payload)} bytes: the broker takes at most {self._largest}")
        properties = self.network.expiry(expiry_s) if expiry_s is not None else None
        if correlation is not None and self.network.v5:
            properties = Properties(PacketTypes.PUBLISH)
            properties.CorrelationData = correlation
            if expiry_s is not None:
                properties.MessageExpiryInterval = expiry_s
        info = client.publish(topic, payload, qos, retain, properties)
        if info.rc != MQTTErrorCode.MQTT_ERR_SUCCESS:
            return None
        if qos:
            self._sent[info.mid] = (topic, payload)
        self.network.to_flush(self)
        self.network.figures.sent(topic, payload)
        return self._number * _MIDS + info.mid

    def acknowledge(self, token: object) -> None:
        """See the port."""
        if self._client is not None and isinstance(token, tuple) and token[0] == self._number and token[1]:
            self._client.ack(token[1], 1)
            self.network.to_flush(self)

    def subscribe_again(self) -> None:
        """See the port."""
        if self._client is not None and self._granted_at is not None:
            self._subscribe(self._client, self._subscriptions)
            self.network.to_flush(self)

    def stop(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:  # noqa: ARG002 - the port's
        """See the port; here it does not wait, and the network carries it out."""
        self.stopped = True
        handle = self.publish(*farewell, qos=1, retain=True) if farewell and self.up else None
        if handle is None:
            self._disconnect()
        else:
            self._leaving = handle % _MIDS

    # What the network calls.

    def open(self) -> None:
        """TCP and TLS, and CONNECT queued."""
        if self.stopped:
            return
        network = self.network
        self._session = self._next_session or self._sessions()
        self._number += 1
        fresh = self._patience.asks_anew
        client = self._new_client(self._will(self._session), fresh=fresh)
        try:
            if network.v5:
                client.connect(
                    *network.address, PACE.keepalive, clean_start=fresh, properties=network.connect_properties
                )
            else:
                client.connect(*network.address, PACE.keepalive)
        except (OSError, ValueError) as error:
            self._next_session = self._session
            self._ended(Failed(UNREACHABLE, str(error) or type(error).__name__))
            return
        # From here on a broker may hold this session's Will: the next connection needs another number.
        self._next_session = None
        self._patience.tried()
        self._client, self._opened_at = client, monotonic()
        self._sock = client.socket()
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        network.register(self, self._sock)
        self.flush()

    def read(self) -> None:
        """The socket has something."""
        client = self._client
        if client is None:
            return
        while True:
            rc = client.loop_read()
            if rc or self._client is not client:
                break
            sock: Any = client.socket()
            if sock is None or not (hasattr(sock, "pending") and sock.pending()):
                break
        self._check(client, rc)
        # paho has answered by itself, or was told to subscribe.
        self.network.to_flush(self)

    def flush(self) -> None:
        """Write what is to be written, as far as the socket takes it."""
        client = self._client
        if client is None:
            return
        rc = MQTTErrorCode.MQTT_ERR_SUCCESS
        if client.want_write():
            # paho sends each packet by itself: corked, what belongs together is one segment, and wakes the broker once.
            _cork(self._sock, on=True)
            rc = client.loop_write()
            _cork(self._sock, on=False)
        self._check(client, rc)
        if self._client is client and (rest := client.want_write()) != self.writing:
            self.writing = rest
            self.network.watch(self, self._sock, writing=rest)

    def look_after(self, now: float) -> None:
        """Pings, and an end to patience. To be called every few seconds."""
        client = self._client
        if client is None:
            return
        if self._granted_at is None and now > self._opened_at + PACE.connect:
            self.drop(Failed(UNREACHABLE, f"no answer from the broker within {PACE.connect:g} s"))
            return
        self._check(client, client.loop_misc())
        self.flush()

    def cut(self) -> None:
        """The connection breaks, as when a network goes away: without a word of MQTT."""
        if self._client is not None:
            self.drop(Failed(LOST, "cut by the simulation"))

    def abandon(self) -> None:
        """No more connections, and no word about it."""
        self.stopped = True
        if self._client is not None:
            self.drop(Failed(LOST, "given up"))

    def drop(self, failed: Failed) -> None:
        """Give up the socket; another connection follows after a while."""
        client, self._client = self._client, None
        if client is not None:
            client.on_connect = client.on_subscribe = client.on_message = client.on_publish = client.on_disconnect = (
                None
            )
            self._close_socket()
        self._ended(failed)

    # Ends.

    def _fail(self, failed: Failed) -> None:
        """From within one of paho's callbacks; `_check` ends the connection. The first cause is the true one."""
        self._failure = self._failure or failed

    def _check(self, client: paho.Client, rc: int) -> None:
        """After each of paho's calls: whether the connection is over."""
        if self._client is client and (rc or self._failure or client.socket() is None):
            message = paho.error_string(rc) if rc else "the connection was closed"
            self.drop(self._failure or Failed(LOST, message))

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        self._granted_at = None
        self.network.left(self)
        if client is not None:
            client.on_disconnect = None
            client.disconnect()
            client.loop_write()
            self._close_socket()

    def _close_socket(self) -> None:
        # paho may have closed it already, and says no more which one it was.
        self.network.unregister(self._sock)
        self._sock.close()

    def _ended(self, failed: Failed) -> None:
        stood_s = monotonic() - self._granted_at if self._granted_at is not None else None
        self._granted_at = None
        self.writing = False
        self._early.clear()
        self._sent.clear()
        self._failure = None
        self.trouble = failed.message
        if self.stopped:
            self.network.left(self)
            return
        told = self._patience.ended(failed, stood_s)
        self.network.ended(self, told.retry_s)
        self._deliver(told)

    # paho's callbacks.

    def _new_client(self, will: Will, *, fresh: bool) -> paho.Client:
        network = self.network
        client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=self.client_id,
            clean_session=None if network.v5 else fresh,
            protocol=paho.MQTTv5 if network.v5 else paho.MQTTv311,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = PACE.connect
        client.on_connect, client.on_subscribe = self._on_connect, self._on_subscribe
        client.on_message, client.on_publish = self._on_message, self._on_publish
        client.on_disconnect = self._on_disconnect
        # Without this paho would write to the socket from within `publish`.
        client.on_socket_register_write = _nothing
        if network.broker.username:
            client.username_pw_set(network.broker.username, network.broker.password)
        if network.tls is not None:
            client.tls_set_context(network.tls)
        client.will_set(will.topic, will.payload, qos=1, retain=True, properties=network.will_properties(will.delay_s))
        return client

    def _on_connect(self, client: paho.Client, _data: object, _flags: object, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._fail(not_let_in(self.network.agent_broker, reason, properties))
            return
        self._largest = getattr(properties, "MaximumPacketSize", LARGEST_PACKET)
        self._receive_maximum = getattr(properties, "ReceiveMaximum", _MIDS - 1)
        self._subscribe(client, (*self._subscriptions, *self._optional))

    def _subscribe(self, client: paho.Client, topics: tuple[str, ...]) -> None:
        if self.network.v5:
            options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
            client.subscribe([(topic, options) for topic in topics])
        else:
            client.subscribe([(topic, 1) for topic in topics])

    def _on_subscribe(
        self, _client: paho.Client, _data: object, _mid: int, reasons: list[Any], _properties: object
    ) -> None:
        if self._granted_at is not None:
            return  # subscribed again: what stands already stays
        needed = len(self._subscriptions)
        refused = [str(reason) for reason in reasons[:needed] if reason.is_failure]
        if refused:
            self._fail(Failed(REFUSED, f"the broker refused the subscriptions: {refused[0]}"))
            return
        without = tuple(
            topic for topic, reason in zip(self._optional, reasons[needed:], strict=True) if reason.is_failure
        )
        self._granted_at = monotonic()
        self._patience.let_in()
        self.trouble = ""
        self.network.came_up(self)
        self._deliver(Connected(self._session, self._largest, self._receive_maximum, without))
        early, self._early = self._early, []
        for received in early:
            self._deliver(received)

    def _on_message(self, _client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
        properties = message.properties
        received = Received(
            message.topic,
            bytes(message.payload),
            (self._number, message.mid if message.qos else 0),
            retained=message.retain,
            content_type=getattr(properties, "ContentType", None),
            response_topic=getattr(properties, "ResponseTopic", None),
            correlation=getattr(properties, "CorrelationData", None),
        )
        self.network.figures.received(self.client_id, received.topic, received.payload)
        if self._granted_at is None:
            self._early.append(received)
        else:
            self._deliver(received)

    def _on_publish(self, _client: paho.Client, _data: object, mid: int, reason: Any, _properties: object) -> None:
        topic, payload = self._sent.pop(mid, ("", b""))
        if mid == self._leaving:
            self.network.later(self._disconnect)
            return
        if not reason.is_failure:
            self.network.figures.confirmed(self.client_id, topic, payload)
        self._deliver(Published(self._number * _MIDS + mid, str(reason) if reason.is_failure else None))

    def _on_disconnect(self, _client: paho.Client, _data: object, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._fail(sent_away(self.network.agent_broker, reason, properties))
        elif self._granted_at is None:
            self._fail(Failed(UNREACHABLE, "the broker closed the connection before it had granted everything"))
        else:
            by_broker = reason.value == _UNSPECIFIED
            self._fail(Failed(LOST, f"the connection ended: {reason}", by_broker=by_broker))


def _cork(sock: Any, *, on: bool) -> None:
    # Closed meanwhile: there is nothing to hold back.
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, int(on))


def _nothing(*_: object) -> None:
    """What is to be written is written by the network."""

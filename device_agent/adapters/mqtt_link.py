"""One MQTT connection over paho-mqtt, from CONNECT to its end. Only it and its parts know paho.

Its parts: `mqtt_packets` makes paho's client and properties, `mqtt_subscribing` asks for the subscriptions,
`mqtt_sending` publishes, `mqtt_receiving` takes what arrives and acknowledges it.

Each has a fresh paho client, driven through paho's interface for external loops and thrown away afterwards. So nothing
is queued across connections, and paho's own thread, reconnecting and back-off are never used.

- `connect`, `serve`, `close` and paho's callbacks run in the thread `mqtt`. A callback notes, delivers and returns; it
  is total: what it raises becomes the failure that ends the connection, and un-acknowledged messages come again.
- `leave` comes from any other thread, as do the calls of the parts that say so.
- The connection counts once all subscriptions are granted. What arrives before is delivered after `Connected`; one
  that ends before leaves without DISCONNECT, so that the Will still tells.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import LogLevel, MQTTErrorCode

from device_agent.adapters.broker import Broker, Pace, Wants
from device_agent.adapters.mqtt_packets import connect_properties, new_client, will_properties
from device_agent.adapters.mqtt_reasons import (
    LOST,
    REFUSED,
    UNREACHABLE,
    Failed,
    alerted,
    not_let_in,
    remarks,
    sent_away,
    words,
)
from device_agent.adapters.mqtt_receiving import Receiving
from device_agent.adapters.mqtt_sending import Sending
from device_agent.adapters.mqtt_subscribing import Subscribing
from device_agent.ports import Connected, TransportEvent, Will

_UNSPECIFIED = 0x80
# Keep-alives without a byte from the broker, a ping's answer included, after which the link is dead. paho waits longer.
_SILENCE = 1.5


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
        self._fresh = fresh
        self._session = session
        self._broker = broker
        self._v5 = broker.version == "5"
        self._wants = wants
        self._pace = pace
        self._remarks: tuple[str, ...] = ()
        self._deliver = deliver
        self._client = new_client(client_id, v5=self._v5, fresh=fresh, connect_s=pace.connect)
        self.sending = Sending(number, self._client, v5=self._v5, deliver=deliver, wake=wake)
        self.receiving = Receiving(number, self._client, deliver=deliver, wake=wake)
        self.subscribing = Subscribing(
            self._client, subscriptions, optional, v5=self._v5, granted=self._grant, refused=self._refused, wake=wake
        )
        self._hear()
        self._keepalive: float = pace.keepalive
        self._heard_at = time.monotonic()
        """When the broker last sent anything."""
        self._granted_at: float | None = None
        self._ended_at: float | None = None
        self._failure: Failed | None = None
        self._socket_error = ""

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
            client.will_set(
                will.topic, will.payload, qos=1, retain=True, properties=will_properties(will) if self._v5 else None
            )
            if self._v5:
                client.connect(
                    broker.address.host,
                    broker.address.port,
                    self._pace.keepalive,
                    clean_start=self._fresh,
                    properties=connect_properties(self._wants),
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
        self.sending.close()
        sock = client.socket()
        if sock is not None:
            sock.close()

    def leave(self, farewell: tuple[str, bytes] | None, timeout_s: float) -> None:
        """DISCONNECT, once the farewell has been acknowledged; without that, only close."""
        if farewell is None or self.sending.publish_and_wait(*farewell, timeout_s):
            self._client.disconnect()
        else:
            self._fail(LOST, "stopped before the farewell was acknowledged")

    def _fail(self, code: str, message: str, *, by_broker: bool = False) -> None:
        # The first cause is the true one: paho reports some ends twice, and then less precisely.
        self._failure = self._failure or Failed(code, message, by_broker=by_broker)

    def _hear(self) -> None:
        client = self._client
        client.on_connect = self._total(self._on_connect)
        client.on_subscribe = self._total(self.subscribing.on_subscribe)
        client.on_log = self._total(self._on_log)
        client.on_message = self._total(self.receiving.on_message)
        client.on_publish = self._total(self.sending.on_publish)
        client.on_disconnect = self._total(self._on_disconnect)

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

    def _on_connect(self, _client: paho.Client, _data: object, _flags: object, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._failure = self._failure or not_let_in(self._broker, reason, properties)
            return
        self._remarks = tuple(remarks(properties, self._pace, self._wants))
        self.sending.granted(properties)
        self._keepalive = getattr(properties, "ServerKeepAlive", self._pace.keepalive)
        self.subscribing.begin()

    def _refused(self, what: str) -> None:
        self._fail(REFUSED, f"{self._broker.address} refused {what}")

    def _grant(self) -> None:
        self._granted_at = time.monotonic()
        self._deliver(
            Connected(
                self._session,
                self.sending.maximum_packet_size,
                self.sending.receive_maximum,
                refused=tuple(self.subscribing.not_granted),
                remarks=self._remarks,
            )
        )
        self.receiving.begin()

    def _on_log(self, _client: paho.Client, _data: object, level: int, text: str) -> None:
        """What went wrong on the socket paho tells its log alone."""
        if level == LogLevel.MQTT_LOG_ERR:
            self._socket_error = alerted(text)

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

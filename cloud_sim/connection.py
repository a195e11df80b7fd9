"""The connection to the broker: paho in its own thread, which only puts on a queue what has happened.

Every message is stored by the collector that empties the queue, so no callback can fail for a reason of ours: an
exception in one would end paho's thread while it went on calling itself connected.
"""

import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

KEEPALIVE_S = 30
UNSPECIFIED = 128
OVERHEAD_BYTES = 64
"""What a PUBLISH needs beside its topic and its payload, at most, with the few properties that are used here."""


class Misconfigured(Exception):  # noqa: N818 - a state of the settings, told to who typed them
    """A setting that cannot be used; the message names it."""


class Unreachable(Exception):  # noqa: N818 - a state of the world
    """The broker did not answer, or not as it had to."""


class Denied(Exception):  # noqa: N818 - the broker's word
    """The broker answered no: to who we are, to what we publish or to its size."""


@dataclass(frozen=True, slots=True)
class Broker:
    """Where the broker is and who we are to it."""

    host: str
    port: int
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    version: Literal["5", "3.1.1"] = "5"

    def __str__(self) -> str:
        return f"mqtt{'s' if self.tls else ''}://{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """What a database remembers a broker by."""
        return f"{self.host}:{self.port}"

    @classmethod
    def of(cls, url: str, *, password_file: Path | None = None, **settings: Any) -> "Broker":
        """From `mqtt://HOST[:PORT]` or `mqtts://…`. Raises `Misconfigured`."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise Misconfigured(f"the broker's URL {url!r} is not valid: {error}") from error
        if parts.scheme not in ("mqtt", "mqtts") or not host or parts.path.strip("/") or parts.query:
            raise Misconfigured(f"the broker's URL is mqtt://HOST[:PORT] or mqtts://HOST[:PORT], not {url!r}")
        if parts.username or parts.password:
            raise Misconfigured("the broker's URL holds no credentials: use --username and --password-file")
        tls = parts.scheme == "mqtts"
        if not tls and (settings.get("ca_file") or settings.get("cert_file") or settings.get("key_file")):
            raise Misconfigured(f"certificates are for mqtts://, and the broker's URL is {url!r}")
        password = _read_secret(password_file) if password_file else None
        return cls(host, port or (8883 if tls else 1883), tls, password=password, **settings)

    def probe(self) -> str | None:
        """Why no connection can be made, in words; None when one can."""
        try:
            with socket.create_connection((self.host, self.port), timeout=3) as plain:
                if self.tls:
                    self.context().wrap_socket(plain, server_hostname=self.host).close()
        except ssl.SSLCertVerificationError as error:
            return f"its certificate is not trusted: {error.verify_message}"
        except OSError as error:
            return error.strerror or str(error)
        return None

    def context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            named = ", ".join(str(file) for file in (self.ca_file, self.cert_file, self.key_file) if file)
            raise Misconfigured(f"cannot use the certificates {named}: {error}") from error
        return context


def _read_secret(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        raise Misconfigured(f"cannot read the password file {file}: {error}") from error


@dataclass(frozen=True, slots=True)
class Up:
    """Connected, subscriptions asked for. Whatever was retained follows, and then the marker."""


@dataclass(frozen=True, slots=True)
class Down:
    """No connection, and why. paho goes on trying."""

    reason: str
    denied: bool = False


@dataclass(frozen=True, slots=True)
class Unsubscribed:
    """Connected, but some of what was asked for will not be heard."""

    reason: str


@dataclass(frozen=True, slots=True)
class Arrived:
    topic: str
    payload: bytes
    retained: bool = False
    content_type: str | None = None


Happened: TypeAlias = Up | Down | Unsubscribed | Arrived


class Connection:
    """Connected for as long as it is open, or trying to be. `happened` tells all there is to know, in order."""

    def __init__(self, broker: Broker, client_id: str, *, subscriptions: Sequence[str], marker: str) -> None:
        """`marker` is a topic of our own: a message to it after the subscriptions comes back after what is retained."""
        self.happened: SimpleQueue[Happened] = SimpleQueue()
        self.broker = broker
        self._subscriptions = (*subscriptions, marker)
        self._marker = marker
        self._v5 = broker.version == "5"
        self._denied: dict[int, str] = {}
        self._later: deque[str] = deque()
        """Topics that were subscribed to one by one, after the others, and not answered yet."""
        self._limit = 0
        self._refused = False
        """The broker's answer to the last CONNECT was no."""
        protocol = mqtt.MQTTv5 if self._v5 else mqtt.MQTTv311
        client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol)
        client.on_connect = self._on_connect
        client.on_connect_fail = self._on_connect_fail
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.reconnect_delay_set(1, 10)
        if broker.username:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            client.tls_set_context(broker.context())
        self._client = client

    def open(self) -> None:
        if self._v5:
            self._client.connect_async(self.broker.host, self.broker.port, KEEPALIVE_S, clean_start=True)
        else:
            self._client.connect_async(self.broker.host, self.broker.port, KEEPALIVE_S)
        self._client.loop_start()

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        # paho leaves the pair of sockets that wakes its thread to the garbage collector.
        self._client._reset_sockets()  # noqa: SLF001

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = True,
        wait_s: float | None = None,
        expiry_s: int | None = None,
        reply_to: str | None = None,
        correlation: bytes | None = None,
    ) -> None:
        """Publish with QoS 1; with `wait_s`, wait for the broker's word. Raises `Denied`, `Unreachable`.

        What only MQTT 5 has (`expiry_s`, `reply_to`, `correlation`) is left out before it.
        """
        size = len(topic.encode()) + len(payload) + OVERHEAD_BYTES
        if self._limit and size > self._limit:
            # paho would send it all the same, be disconnected, and send it again for ever.
            raise Denied(f"the message of {size} bytes is larger than the broker takes ({self._limit} bytes)")
        if not self._client.is_connected():
            raise Unreachable(f"there is no connection to the broker {self.broker}")
        properties = None
        if self._v5:
            properties = Properties(PacketTypes.PUBLISH)
            for name, value in (
                ("MessageExpiryInterval", expiry_s),
                ("ResponseTopic", reply_to),
                ("CorrelationData", correlation),
            ):
                if value is not None:
                    setattr(properties, name, value)
        info = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties)
        if wait_s is None:
            return
        # Raised for a connection lost just now: the message is queued then, and its end is not known.
        with contextlib.suppress(RuntimeError):
            info.wait_for_publish(wait_s)
            if info.is_published():
                if reason := self._denied.pop(info.mid, None):
                    raise Denied(f"the broker refused what was published to {topic}: {reason}")
                return
        raise Unreachable(f"the broker {self.broker} did not acknowledge what was published to {topic} in {wait_s:g} s")

    def subscribe(self, topic: str) -> None:
        """Hear of one more topic, on this connection and on those to come."""
        if topic not in self._subscriptions:
            self._subscriptions = (*self._subscriptions, topic)
            self._later.append(topic)
            self._client.subscribe(topic, qos=1)

    def _on_connect(
        self,
        client: mqtt.Client,
        _data: Any,
        _flags: mqtt.ConnectFlags,
        code: ReasonCode,
        properties: Properties | None,
    ) -> None:
        self._refused = code.is_failure
        if self._refused:
            self.happened.put(Down(f"the broker {self.broker} refused the connection: {code}", denied=True))
            return
        self._limit = getattr(properties, "MaximumPacketSize", 0) or 0
        self._later.clear()
        self.happened.put(Up())
        if self._v5:
            client.subscribe([(topic, SubscribeOptions(qos=1, retainHandling=0)) for topic in self._subscriptions])
        else:
            client.subscribe([(topic, 1) for topic in self._subscriptions])

    def _on_subscribe(
        self, client: mqtt.Client, _data: Any, _mid: int, codes: list[ReasonCode], _properties: Properties | None
    ) -> None:
        # The others are several, and come in one packet.
        later = len(codes) == 1 and bool(self._later)
        asked = (self._later.popleft(),) if later else self._subscriptions
        refused = [topic for topic, code in zip(asked, codes, strict=False) if code.is_failure]
        if refused:
            topics = ", ".join(refused)
            self.happened.put(Unsubscribed(f"the broker {self.broker} refused subscriptions: {topics}"))
        if not later:
            client.publish(self._marker, b"", qos=1)

    def _on_connect_fail(self, _client: mqtt.Client, _data: Any) -> None:
        self.happened.put(Down(f"the broker {self.broker} cannot be reached"))

    def _on_disconnect(
        self,
        _client: mqtt.Client,
        _data: Any,
        _flags: mqtt.DisconnectFlags,
        code: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if self._refused:
            # Told already, and better.
            return
        # 128, "Unspecified error", is paho's word for a connection that just ended.
        why = f": {code}" if code.value != UNSPECIFIED else ""
        self.happened.put(Down(f"the connection to the broker {self.broker} was lost{why}"))

    def _on_message(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        content_type = getattr(message.properties, "ContentType", None)
        self.happened.put(Arrived(message.topic, bytes(message.payload), message.retain, content_type))

    def _on_publish(
        self, _client: mqtt.Client, _data: Any, mid: int, code: ReasonCode, _properties: Properties | None
    ) -> None:
        # paho holds a lock of its own here: nothing that could wait for a publisher may be done.
        if code.is_failure:
            self._denied[mid] = str(code)

"""One connection of an MQTT client that asks a broker something and waits for the answer. `doctor` is made of these."""

import contextlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from paho.mqtt import client as mqtt
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from cloud_sim.clock import monotonic
from cloud_sim.connection import Broker, Denied, Unreachable

ANSWER_S = 5.0
"""How long a broker has for any one answer."""


@dataclass(frozen=True, slots=True)
class Heard:
    topic: str
    payload: bytes
    retained: bool
    at: float
    """On a clock that never goes back."""


@dataclass(frozen=True, slots=True)
class LastWill:
    topic: str
    payload: bytes
    delay_s: int = 0


class Visitor:
    """Connected within `with`, never again after it. Raises `Unreachable`, or `Denied` for the broker's no."""

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        *,
        session_s: int = 0,
        clean: bool = True,
        will: LastWill | None = None,
    ) -> None:
        """`session_s` is how long the broker is to keep the session (MQTT 3.1.1: for ever, unless 0)."""
        self.granted: Any = None
        """The properties of the CONNACK."""
        self.session_present = False
        self.heard: list[Heard] = []
        self._broker = broker
        self._v5 = broker.version == "5"
        self._session_s = session_s
        self._clean = clean
        self._changed = threading.Condition()
        self._answer: ReasonCode | None = None
        self._over = False
        self._granted: dict[int, list[ReasonCode]] = {}
        self._taken: dict[int, ReasonCode] = {}
        self._client = client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            clean_session=None if self._v5 else clean and not session_s,
            protocol=mqtt.MQTTv5 if self._v5 else mqtt.MQTTv311,
            reconnect_on_failure=False,
        )
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        if broker.username:
            client.username_pw_set(broker.username, broker.password)
        if broker.tls:
            client.tls_set_context(broker.context())
        if will:
            properties = None
            if self._v5 and will.delay_s:
                properties = Properties(PacketTypes.WILLMESSAGE)
                properties.WillDelayInterval = will.delay_s
            client.will_set(will.topic, will.payload, qos=1, retain=True, properties=properties)

    def __enter__(self) -> Self:
        broker = self._broker
        try:
            if self._v5:
                properties = Properties(PacketTypes.CONNECT)
                properties.SessionExpiryInterval = self._session_s
                self._client.connect(broker.host, broker.port, clean_start=self._clean, properties=properties)
            else:
                self._client.connect(broker.host, broker.port)
        except OSError as error:
            raise Unreachable(f"cannot reach the broker {broker}: {error.strerror or error}") from error
        self._client.loop_start()
        answered = self._wait(lambda: self._answer is not None or self._over)
        if self._answer is not None and not self._answer.is_failure:
            return self
        self.cut()
        if self._answer is not None:
            raise Denied(f"the broker {broker} refused the connection: {self._answer}")
        why = "closed the connection without an answer" if answered else "does not answer"
        raise Unreachable(f"the broker {broker} {why}")

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._end()

    def cut(self) -> None:
        """End the connection without a word: the broker publishes the Will."""
        self._client.on_disconnect = None
        self._client._sock_close()  # noqa: SLF001 - paho has no public way to leave without DISCONNECT
        self._end()

    @property
    def over(self) -> bool:
        """The broker has closed the connection."""
        return self._over

    def subscribe(self, topic: str) -> bool:
        """QoS 1, retain handling 0: whether it was granted."""
        options = SubscribeOptions(qos=1, retainHandling=0)
        _, mid = self._client.subscribe(topic, options=options) if self._v5 else self._client.subscribe(topic, 1)
        return self._wait(lambda: mid in self._granted or self._over) and not any(
            reason.is_failure for reason in self._granted.get(mid or 0, [_NO])
        )

    def publish(self, topic: str, payload: bytes, *, retain: bool = False, expiry_s: int | None = None) -> bool:
        """QoS 1: whether the broker has taken it."""
        properties = None
        if self._v5 and expiry_s is not None:
            properties = Properties(PacketTypes.PUBLISH)
            properties.MessageExpiryInterval = expiry_s
        mid = self._client.publish(topic, payload, qos=1, retain=retain, properties=properties).mid
        self._wait(lambda: mid in self._taken or self._over)
        return not self._taken.get(mid, _NO).is_failure

    def on(self, topic: str) -> list[Heard]:
        with self._changed:
            return [heard for heard in self.heard if heard.topic == topic]

    def hears(self, topic: str, count: int = 1, timeout_s: float = ANSWER_S) -> bool:
        """Whether so many messages have come to that topic, in time."""
        return self._wait(lambda: len(self.on(topic)) >= count, timeout_s)

    def pause(self, seconds: float) -> None:
        """Listen for that long."""
        self._wait(lambda: False, seconds)

    def _wait(self, check: Callable[[], bool], timeout_s: float = ANSWER_S) -> bool:
        with self._changed:
            return self._changed.wait_for(check, timeout_s)

    def _end(self) -> None:
        self._client.loop_stop()
        # paho leaves the pair of sockets that wakes its thread to the garbage collector.
        self._client._reset_sockets()  # noqa: SLF001

    def _on_connect(self, _client: Any, _data: Any, flags: Any, reason: ReasonCode, properties: Any) -> None:
        with self._changed:
            self.session_present, self.granted, self._answer = flags.session_present, properties, reason
            self._changed.notify_all()

    def _on_disconnect(self, *_: Any) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _on_subscribe(self, _client: Any, _data: Any, mid: int, reasons: list[ReasonCode], _properties: Any) -> None:
        with self._changed:
            self._granted[mid] = reasons
            self._changed.notify_all()

    def _on_publish(self, _client: Any, _data: Any, mid: int, reason: ReasonCode, _properties: Any) -> None:
        with self._changed:
            self._taken[mid] = reason
            self._changed.notify_all()

    def _on_message(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        # A topic that is not UTF-8 is none of ours.
        with contextlib.suppress(UnicodeDecodeError), self._changed:
            self.heard.append(Heard(message.topic, bytes(message.payload), message.retain, monotonic()))
            self._changed.notify_all()


# What a broker that did not answer has said.
_NO = ReasonCode(PacketTypes.PUBACK, "Unspecified error")

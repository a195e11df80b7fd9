"""What is published in one connection, and what the broker has not answered of it.

- `publish` and `publish_and_wait` come from any thread but `mqtt`: they append to paho's output queue and wake `mqtt`.
- `granted`, `on_publish` and `close` run in `mqtt`. An answer may come before `publish` has noted what it waits for.
- No lock of ours is held while paho is called, because paho calls back holding its own.
"""

import threading
from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import MQTTErrorCode

from device_agent.adapters.mqtt_packets import publish_properties
from device_agent.adapters.mqtt_reasons import words
from device_agent.model.errors import Refused
from device_agent.ports import Published, TransportEvent

_LARGEST_PACKET = 268_435_455
_RECEIVE_MAXIMUM = 65_535
_MIDS = 65_536
# Fixed header, lengths and properties of a PUBLISH, generously.
_OVERHEAD = 64


class Sending:
    def __init__(
        self,
        number: int,
        client: paho.Client,
        *,
        v5: bool,
        deliver: Callable[[TransportEvent], None],
        wake: Callable[[], None],
    ) -> None:
        """`number`: of the connection."""
        self._number = number
        self._client = client
        self._v5 = v5
        self._deliver = deliver
        self._wake = wake
        self.maximum_packet_size = _LARGEST_PACKET
        self.receive_maximum = _RECEIVE_MAXIMUM
        # Message id → QoS of what paho was given and has not answered, and the ids it answered before they were noted.
        self._answers = threading.Condition()
        self._sent: dict[int, int] = {}
        self._unnoted: dict[int, str | None] = {}

    def granted(self, properties: Any) -> None:
        """What the broker takes, as its CONNACK says."""
        self.maximum_packet_size = getattr(properties, "MaximumPacketSize", _LARGEST_PACKET)
        self.receive_maximum = getattr(properties, "ReceiveMaximum", _RECEIVE_MAXIMUM)

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
        """Hand a message to the connection; None when it is gone, or the broker has as many as it takes at once.

        Raises `Refused` (`too_large`).
        """
        if len(topic.encode()) + len(payload) + len(correlation or b"") + _OVERHEAD > self.maximum_packet_size:
            raise Refused("too_large", f"{len(payload)} bytes: the broker takes at most {self.maximum_packet_size}")
        with self._answers:
            # The values are 0 or 1: their sum is how many wait for a PUBACK.
            if qos and sum(self._sent.values()) >= self.receive_maximum:
                return None
        properties = publish_properties(expiry_s, correlation) if self._v5 else None
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

    def publish_and_wait(self, topic: str, payload: bytes, timeout_s: float) -> bool:
        """Retained, with QoS 1: whether the connection was given it, and it is not open after this time."""
        try:
            handle = self.publish(topic, payload, qos=1, retain=True)
        except Refused:
            return False
        with self._answers:
            return handle is not None and self._answers.wait_for(lambda: handle % _MIDS not in self._sent, timeout_s)

    def on_publish(self, _client: paho.Client, _data: object, mid: int, reason: Any, properties: Any) -> None:
        """It is written (QoS 0), or answered."""
        refusal = words(reason, properties) if reason.is_failure else None
        with self._answers:
            qos = self._sent.pop(mid, None)
            if qos is None:
                self._unnoted[mid] = refusal
            self._answers.notify_all()
        if qos:
            self._deliver(Published(self._handle(mid), refusal))

    def close(self) -> None:
        """Nothing is answered any more, and nobody waits for it."""
        with self._answers:
            self._sent.clear()
            self._answers.notify_all()

    def _handle(self, mid: int) -> int:
        """Unique over all connections."""
        return self._number * _MIDS + mid

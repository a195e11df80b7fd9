"""What arrives in one connection, until it is acknowledged.

`on_message` and `begin` run in the thread `mqtt`; `acknowledge` comes from any other: it appends to paho's output queue
and wakes `mqtt`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from paho.mqtt import client as paho

from device_agent.ports import Received, TransportEvent

# QoS 0 messages that are delivered and not acknowledged; more are dropped. Of these a broker sends as many as the
# network carries; the others are bounded by the receive maximum, and wait there. More than `core.brake.MANY`: so what
# is retained is asked for once more where a flood has lost its newest.
_LOOSE = 32


@dataclass(frozen=True, slots=True)
class Token:
    """Which message, of which connection: a PUBACK in another one could acknowledge something else."""

    link: int
    mid: int
    """Of a QoS 0 message not the broker's, and negative."""


class Receiving:
    def __init__(
        self,
        number: int,
        client: paho.Client,
        *,
        deliver: Callable[[TransportEvent], None],
        wake: Callable[[], None],
    ) -> None:
        """`number`: of the connection."""
        self._number = number
        self._client = client
        self._deliver = deliver
        self._wake = wake
        self._begun = False
        self._early: list[Received] = []
        self._loose: set[int] = set()
        self._last_loose = 0

    def begin(self) -> None:
        """Deliver from now on, first what has arrived before."""
        self._begun = True
        early, self._early = self._early, []
        for received in early:
            self._deliver(received)

    def on_message(self, client: paho.Client, _data: object, message: paho.MQTTMessage) -> None:
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
        if self._begun:
            self._deliver(received)
        else:
            self._early.append(received)

    def acknowledge(self, token: object) -> None:
        """See the port. One of another connection is none of this."""
        if not isinstance(token, Token) or token.link != self._number:
            return
        if token.mid < 0:
            self._loose.discard(token.mid)
            return
        self._client.ack(token.mid, 1)
        self._wake()

    def _new_loose(self) -> int:
        self._last_loose -= 1
        self._loose.add(self._last_loose)
        return self._last_loose

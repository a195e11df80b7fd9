"""What is subscribed to in one connection, and what the broker grants of it.

`begin` and `on_subscribe` run in the thread `mqtt`; `again` comes from any other: it appends to paho's output queue and
wakes `mqtt`.
"""

from collections.abc import Callable
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from device_agent.adapters.mqtt_reasons import words

# Topics in one SUBSCRIBE: AWS IoT takes 8.
_TOGETHER = 8


def _together(topics: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    return tuple(topics[at : at + _TOGETHER] for at in range(0, len(topics), _TOGETHER))


class Subscribing:
    def __init__(
        self,
        client: paho.Client,
        topics: tuple[str, ...],
        optional: tuple[str, ...],
        *,
        v5: bool,
        granted: Callable[[], None],
        refused: Callable[[str], None],
        wake: Callable[[], None],
    ) -> None:
        """`granted` is called once, when there is nothing more to wait for; `refused` is told what, and why."""
        self._client = client
        self._topics = _together((*topics, *optional))
        self._retaining = _together(topics)
        self._optional = frozenset(optional)
        self._v5 = v5
        self._granted = granted
        self._refused = refused
        self._wake = wake
        self._asked: dict[int, tuple[str, ...]] = {}
        """Message id of a SUBSCRIBE → its topics, until it is answered."""
        self.not_granted: list[str] = []
        """Of the optional ones."""

    def begin(self) -> None:
        if not self._topics:
            self._granted()
        for topics in self._topics:
            mid = self._subscribe(topics)
            if mid is not None:
                self._asked[mid] = topics

    def on_subscribe(
        self, _client: paho.Client, _data: object, mid: int, reasons: list[ReasonCode], properties: Any
    ) -> None:
        topics = self._asked.pop(mid, None)
        if topics is None:
            return  # subscribed again: what stands already stays
        for topic, reason in zip(topics, reasons, strict=True):
            if reason.is_failure and topic in self._optional:
                self.not_granted.append(topic)
            elif reason.is_failure:
                self._refused(f"the subscription to {topic}: {words(reason, properties)}")
                return
        if not self._asked:
            self._granted()

    def again(self) -> None:
        """Be sent anew what is retained."""
        for topics in self._retaining:
            self._subscribe(topics)
        self._wake()

    def _subscribe(self, topics: tuple[str, ...]) -> int | None:
        """With MQTT 5 asked for, and in 3.1.1 always, what is retained is sent, also when it stands already."""
        options = SubscribeOptions(qos=1, retainHandling=SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE)
        return self._client.subscribe(
            [(topic, options) for topic in topics] if self._v5 else [(topic, 1) for topic in topics]
        )[1]

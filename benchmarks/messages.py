"""What an update costs at the broker: published → told as accepted, beside a bare subscriber; messages and bytes."""

import json
import queue
import secrets
import time
import uuid

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.world import Agent, app, connect

QUIET_S = 4.0
"""After the last message of an update: states are at least 2 s apart."""
_ENVELOPE = 400
"""Bytes of a target without its padding, roughly."""


class Ear:
    """Hears everything that is said in a fleet, when it was said, and by whom."""

    def __init__(self, agent: Agent) -> None:
        self._heard: queue.SimpleQueue[tuple[float, str, bytes]] = queue.SimpleQueue()
        # A name of its own: an empty one is no client id before MQTT 5.
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id=f"ear-{uuid.uuid4().hex[:8]}")
        self._client.on_message = lambda _c, _d, message: self._heard.put(
            (time.monotonic(), message.topic, message.payload)
        )
        connect(self._client, agent.port)
        granted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._client.on_subscribe = lambda *_: granted.put(True)
        self._client.loop_start()
        self._client.subscribe(f"fleet/v1/{agent.fleet}/#", qos=1)
        granted.get(timeout=10)
        self.silence()

    def next(self, timeout_s: float = 30) -> tuple[float, str, bytes]:
        return self._heard.get(timeout=timeout_s)

    def silence(self) -> list[tuple[str, bytes]]:
        """All that is said until nothing more is."""
        said = []
        try:
            while True:
                _, topic, payload = self.next(QUIET_S)
                said.append((topic, payload))
        except queue.Empty:
            return said

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def to_ack(agent: Agent, size: int, runs: int) -> tuple[list[float], list[float]]:
    """Seconds from publishing a target of `size` bytes to its ack `accepted`, and to a bare subscriber's hearing it."""
    ear = Ear(agent)
    acked, heard = [], []
    try:
        for _ in range(runs):
            began = agent.publish({}, **{"x-padding": secrets.token_hex(max(0, size - _ENVELOPE) // 2)})
            while True:
                at, topic, payload = ear.next()
                if topic.endswith("/down/target"):
                    heard.append(at - began)
                elif topic.endswith("/ack") and json.loads(payload)["revision"] == agent.revision:
                    acked.append(at - began)
                    break
            ear.silence()
    finally:
        ear.close()
    return acked, heard


def of_an_update(agent: Agent, count: int) -> tuple[int, int]:
    """Messages and bytes that a device publishes for an update that replaces all of so many services."""
    agent.publish({"bench": app(count, 1)})
    agent.converged()
    ear = Ear(agent)
    try:
        agent.publish({"bench": app(count, 2)})
        agent.converged()
        said = [payload for topic, payload in ear.silence() if "/up/" in topic]
    finally:
        ear.close()
    return len(said), sum(map(len, said))

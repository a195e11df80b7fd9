"""A simulated fleet beside bare subscribers: the same broker, the same client library, the same way of waiting.

A bare subscriber receives at QoS 1 and acknowledges, no more. What a fleet's time is beside is what the broker and the
library take to bring one message to so many clients. One that answers also publishes as many bytes as an ack has, at
QoS 1: what broker and library take before a device has thought at all.
"""

import contextlib
import json
import logging
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import structlog
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.containers import started
from benchmarks.world import MQTT_PORT, engine
from cloud_sim.clock import monotonic
from cloud_sim.connection import Broker
from cloud_sim.simulation.faults import LATENCIES, PULL, Behaviour
from cloud_sim.simulation.figures import resident_mib
from cloud_sim.simulation.network import make_room
from cloud_sim.simulation.processes import Processes, processes_for
from device_agent.model.target import Version

FLEET = "bench-fleet"
BARE_TOPIC = "bench/bare"
ANSWER = b"x" * 350
"""As large as an `accepted`."""
REST_S = 3.0
PATIENCE_S = 120.0
CONFIG = f"listener {MQTT_PORT}\nallow_anonymous true\n"
"""No persistence: what is measured is the way of a message."""


@dataclass
class Found:
    """Times in seconds, one a run; `messages` and `bytes_` a device, of one rollout."""

    bare: list[float] = field(default_factory=list)
    answering: list[float] = field(default_factory=list)
    accepted: list[float] = field(default_factory=list)
    applied: list[float] = field(default_factory=list)
    messages: float = 0
    bytes_: float = 0
    simulator_mib: float = 0
    broker_mib: float | None = None


def fan_out(devices: int, runs: int) -> Found:
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL), cache_logger_on_first_use=True
    )
    make_room(2 * devices)
    found = Found()
    with _mosquitto() as (host, process), _publisher(host) as publish, _bare(host, devices) as bare:
        behaviour = Behaviour({**LATENCIES, PULL: 0.5})
        fleet = Processes(processes_for(devices), Broker(host, MQTT_PORT), FLEET, devices, behaviour=behaviour)
        try:
            fleet.start()
            _until(fleet, lambda: fleet.connected == devices)
            for revision in range(1, runs + 1):
                # The state of before has been told, and nobody is busy any more.
                _rest(fleet)
                target = _target(revision)
                for answers, times in ((False, found.bare), (True, found.answering)):
                    times.append(bare.time(lambda target=target: publish(BARE_TOPIC, target, retain=False), answers))
                    _rest(fleet)
                _one_rollout(fleet, revision, lambda target=target: publish(_topic(), target, retain=True), found)
            found.simulator_mib, found.broker_mib = fleet.resident_mib, resident_mib(process)
            fleet.stop()
        finally:
            fleet.close()
    return found


def _one_rollout(fleet: Processes, revision: int, publish: Callable[[], None], found: Found) -> None:
    name, devices, before = ("fleet", Version(1, revision)), fleet.size, fleet.figures
    fleet.published(*name, monotonic())
    publish()
    for verdict in ("accepted", "applied"):
        _until(fleet, lambda verdict=verdict: _told(fleet, name, verdict) == devices)
    times = fleet.figures.answers[name].times()
    found.accepted.append(times["accepted"].last)
    found.applied.append(times["applied"].last)
    _rest(fleet)
    after = fleet.figures
    found.messages = (after.messages_out - before.messages_out) / devices
    found.bytes_ = (after.bytes_out - before.bytes_out) / devices


def _told(fleet: Processes, name: tuple[str, Version], verdict: str) -> int:
    answers = fleet.figures.answers
    return len(answers[name].at.get(verdict, ())) if name in answers else 0


def _until(fleet: Processes, check: Callable[[], bool]) -> None:
    over = monotonic() + PATIENCE_S
    fleet.run(lambda: check() or monotonic() > over)
    if not check():
        raise TimeoutError(f"not in {PATIENCE_S:g} s; {fleet.connected} connected; {fleet.troubles()}")


def _rest(fleet: Processes) -> None:
    over = monotonic() + REST_S
    fleet.run(lambda: monotonic() > over)


def _topic() -> str:
    return f"fleet/v1/{FLEET}/down/target"


def _target(revision: int) -> bytes:
    """One app with one service; each revision has another image. No gate: what is measured is the work."""
    api = {"image": f"registry.example/api:{revision}", "environment": {"REVISION": str(revision)}}
    body = {
        "schema": 1,
        "scope": {"fleet": FLEET, "device": None},
        "epoch": 1,
        "revision": revision,
        "release": f"r{revision}",
        "apps": {"web": {"services": {"api": api}, "x-release": {"healthy_for": "0s"}}},
    }
    return json.dumps(body).encode()


class Bare:
    """Bare subscribers, on one selector."""

    def __init__(self, host: str, count: int) -> None:
        self._host = host
        self._count = count
        self._selector = selectors.DefaultSelector()
        self._received = self._answered = self._subscribed = 0
        self._answers = False
        self._clients: list[mqtt.Client] = []
        for number in range(count):
            self._clients.append(self._client(number))
            self._turn(0.002)
        while self._subscribed < count:
            self._turn(0.1)

    def time(self, publish: Callable[[], None], answers: bool) -> float:
        """Seconds from the publication to the last of them, or until the broker has the last answer."""
        self._received = self._answered = 0
        self._answers = answers
        began = monotonic()
        publish()
        while (self._answered if answers else self._received) < self._count:
            self._turn(0.1)
        return monotonic() - began

    def close(self) -> None:
        for client in self._clients:
            sock = client.socket()
            if sock is not None:
                sock.close()

    def _client(self, number: int) -> mqtt.Client:
        client = mqtt.Client(
            CallbackAPIVersion.VERSION2,
            client_id=f"bare{number}",
            protocol=mqtt.MQTTv5,
            manual_ack=True,
            reconnect_on_failure=False,
        )
        client.on_socket_register_write = lambda *_: None
        client.on_connect = lambda client, *_: client.subscribe([(BARE_TOPIC, 1)])
        client.on_subscribe = self._on_subscribe
        client.on_message = self._on_message
        client.on_publish = self._on_publish
        client.on_disconnect = lambda *_: None
        # Long: they are not looked after meanwhile.
        client.connect(self._host, MQTT_PORT, keepalive=3600)
        self._selector.register(client.socket(), selectors.EVENT_READ, client)
        client.loop_write()
        return client

    def _turn(self, at_most_s: float) -> None:
        for key, _ in self._selector.select(at_most_s):
            key.data.loop_read()
            if key.data.want_write():
                key.data.loop_write()

    def _on_subscribe(self, *_: object) -> None:
        self._subscribed += 1

    def _on_message(self, client: mqtt.Client, _data: object, message: mqtt.MQTTMessage) -> None:
        self._received += 1
        client.ack(message.mid, 1)
        if self._answers:
            client.publish(f"{BARE_TOPIC}/answers", ANSWER, qos=1)

    def _on_publish(self, *_: object) -> None:
        self._answered += 1


@contextlib.contextmanager
def _bare(host: str, count: int) -> Iterator[Bare]:
    bare = Bare(host, count)
    try:
        yield bare
    finally:
        bare.close()


@contextlib.contextmanager
def _publisher(host: str) -> Iterator[Any]:
    client = mqtt.Client(CallbackAPIVersion.VERSION2, protocol=mqtt.MQTTv5)
    client.connect(host, MQTT_PORT)
    client.loop_start()
    try:
        yield lambda topic, payload, retain: client.publish(topic, payload, qos=1, retain=retain)
    finally:
        client.disconnect()
        client.loop_stop()


@contextlib.contextmanager
def _mosquitto() -> Iterator[tuple[str, int]]:
    """Its address without a proxy between, and its process. Raises `NotStarted`."""
    image = os.environ.get("MOSQUITTO_IMAGE", "eclipse-mosquitto:2")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "mosquitto.conf"
        config.write_text(CONFIG, encoding="ascii")
        config.chmod(0o644)
        Path(folder).chmod(0o755)
        mount = f"{config}:/mosquitto/config/mosquitto.conf:ro"
        container = started("--ulimit", "nofile=20000:20000", "-v", mount, image)
        try:
            found = engine().inspect_container(container)
            host = found["NetworkSettings"]["IPAddress"]
            _await(host)
            yield host, found["State"]["Pid"]
        finally:
            subprocess.run(["docker", "rm", "-f", container], check=True, capture_output=True)


def _await(host: str) -> None:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    until = time.monotonic() + 15
    while True:
        try:
            client.connect(host, MQTT_PORT)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            client.disconnect()
            return

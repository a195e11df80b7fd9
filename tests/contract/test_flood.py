"""Ten thousand targets in one burst, by a real Mosquitto that keeps a hundred of them, to the whole agent."""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from cloud_sim.engine import SimulatedEngine
from cloud_sim.engine_world import World
from device_agent.adapters.clock import SystemClock
from device_agent.adapters.mqtt import Broker, MqttTransport, parse_url
from device_agent.cli.serve import LANES
from device_agent.model.observed import EngineEvent
from device_agent.runtime.agent import Agent
from device_agent.runtime.inbox import Event, StopRequested, ThreadDied
from device_agent.runtime.options import Options
from device_agent.runtime.workers import ThreadWorkers
from tests.broker import OPEN, BrokerContainer, Peer, mosquitto
from tests.builders import IDENTITY, NAMING, app, payload, service
from tests.builders import OPEN as OPEN_POLICY
from tests.device import OWNER, TOPICS, Machine
from tests.eventually import eventually
from tests.fakes_store import FakeStore

pytestmark = pytest.mark.broker

COUNT = 10_000
PATIENCE_S = 60.0


@pytest.fixture(scope="module")
def broker() -> Iterator[BrokerContainer]:
    with mosquitto(f"{OPEN}max_queued_messages 100\n") as running:
        yield running


@contextmanager
def agent(broker: BrokerContainer, calls: list[str]) -> Iterator[Agent]:
    """Running in a thread of its own, over an engine and a store in memory."""
    inbox: queue.SimpleQueue[Event] = queue.SimpleQueue()
    world = World()
    world.add_image("api:1")
    world.listeners.append(lambda event, _owner: inbox.put(event))
    clock = SystemClock()
    made = Agent(
        Options(IDENTITY, TOPICS, NAMING, policy=OPEN_POLICY),
        store=FakeStore(clock),
        engine=SimulatedEngine(OWNER, world, lambda name, _arguments: calls.append(name)),
        transport=MqttTransport(Broker(parse_url(broker.url), version="5"), str(IDENTITY).replace("/", ".")),
        workers=ThreadWorkers(LANES, lambda name, error: inbox.put(ThreadDied(name, repr(error)))),
        clock=clock,
        host=Machine(),
        inbox=inbox,
        beat=lambda: None,
    )
    inbox.put(EngineEvent("stream", "open", ""))
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        inbox.put(StopRequested())
        thread.join(PATIENCE_S)


def flood(broker: BrokerContainer) -> None:
    """As fast as the broker takes them. With MQTT 3.1.1: nobody says how many may be on the way."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.max_inflight_messages_set(0)
    targets = [
        payload({"web": app(api=service("api:1", environment={"N": f"{revision}"}))}, revision=revision)
        for revision in range(1, COUNT + 1)
    ]
    client.connect(broker.host, broker.port)
    client.loop_start()
    try:
        for target in targets:
            last = client.publish(TOPICS.fleet_target, target, qos=1, retain=True)
        last.wait_for_publish(PATIENCE_S)
        client.disconnect()
    finally:
        client.loop_stop()
        client._reset_sockets()


def test_a_flood_is_two_changes_and_ends_with_the_newest_though_the_broker_dropped_it(broker: BrokerContainer) -> None:
    calls: list[str] = []
    with Peer(broker) as peer, agent(broker, calls):
        peer.subscribe(TOPICS.ack)
        peer.subscribe(TOPICS.session)
        eventually(lambda: peer.on(TOPICS.session), PATIENCE_S, "the agent is connected")

        flood(broker)

        def told(verdict: str) -> list[int]:
            acks = [json.loads(heard.payload) for heard in peer.on(TOPICS.ack)]
            return [ack["revision"] for ack in acks if ack["verdict"] == verdict]

        eventually(lambda: COUNT in told("applied"), PATIENCE_S, "the newest is applied")
    accepted = told("accepted")
    assert len(accepted) == 2
    assert accepted[-1] == COUNT
    assert calls.count("create") == 2
    assert "Outgoing messages are being dropped" in broker.logs()

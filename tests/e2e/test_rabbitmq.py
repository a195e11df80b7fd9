"""Scenario: RabbitMQ is the broker. The whole road, a restart of the broker, and a device that vanishes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cloud_sim.cloud import Cloud
from tests.broker import Peer
from tests.e2e.device import CONVERGE_S, Device, app, service
from tests.e2e.host import Host
from tests.eventually import eventually
from tests.rabbitmq import RabbitMQ, rabbitmq

APPS = {"web": app(api=service(), db=service())}
CHANGED = {"web": app(api=service(2), db=service())}


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with rabbitmq() as running:
        yield running


def retained(broker: RabbitMQ, topic: str) -> dict[str, Any]:
    with Peer(broker) as peer:
        peer.subscribe(topic)
        found = eventually(lambda: peer.on(topic), 10, f"something is retained on {topic}")
    body: dict[str, Any] = json.loads(found[0].payload)
    return body


@pytest.mark.parametrize("settings", [{"MQTT_WILL_DELAY": "0"}, {"MQTT_VERSION": "3.1.1"}], ids=["5", "3.1.1"])
def test_a_device_on_rabbitmq_must_converge_survive_its_restart_and_be_told_lost(
    rabbit: RabbitMQ, host: Host, settings: dict[str, str], tmp_path: Path
) -> None:
    with Device(rabbit, host) as device:
        device.start(**settings)
        device.publish(APPS)
        before, session = device.identities(), device.session
        assert before.keys() == {"web/api", "web/db"}
        assert retained(rabbit, device.up("state"))["converged"] is True

        rabbit.restart()

        device.until(lambda: device.session > session, CONVERGE_S, "the device is online again")
        device.converge()
        assert device.identities() == before
        assert retained(rabbit, device.fleet_target)["revision"] == 1
        device.publish(CHANGED)
        assert device.identities()["web/db"] == before["web/db"]
        assert [ack["verdict"] for ack in device.acks(app=None, revision=2)] == ["accepted", "applied"]

        # A cloud that starts later knows the device from its database, and by name what the broker retains of it.
        with Cloud(rabbit.url, device.fleet, database=tmp_path / "cloud.sqlite") as cloud:
            cloud.publish(CHANGED, device=device.id)
            cloud.wait_converged(CONVERGE_S, [device.id])
        with Cloud(rabbit.url, device.fleet, database=tmp_path / "cloud.sqlite") as cloud:
            assert [cloud.presence(known) for known in cloud.devices()] == ["online"]
            assert cloud.shortfalls() == {device.id: None}

        device.kill()
        eventually(lambda: retained(rabbit, device.up("session"))["online"] is False, 30, "it is told lost")

"""Scenario 4, the broker: kill -9, with and without its data, in peace and in the middle of an apply."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.broker import Mosquitto, mosquitto
from tests.e2e.device import CONVERGE_S, Device, Stranger, app, service, stranger
from tests.e2e.host import Host
from tests.e2e.oracle import judge
from tests.eventually import eventually

FORGETS = "allow_anonymous true\n"
KEEPS = f"""{FORGETS}
persistence true
persistence_location /mosquitto/data/
autosave_on_changes true
autosave_interval 1
"""
APPS = {"web": app(api=service(), db=service())}


@pytest.fixture
def mortal(request: pytest.FixtureRequest, host: Host) -> Iterator[Mosquitto]:
    with mosquitto(request.param) as broker:
        yield broker


@pytest.fixture
def client(mortal: Mosquitto) -> Stranger:
    return stranger(mortal)


@pytest.fixture
def device(mortal: Mosquitto, host: Host) -> Iterator[Device]:
    with Device(mortal, host) as device:
        yield device


def target(device: Device, revision: int, apps: dict[str, Any]) -> bytes:
    scope = {"fleet": device.fleet, "device": None}
    return json.dumps({"schema": 1, "scope": scope, "epoch": 1, "revision": revision, "apps": apps}).encode()


@pytest.mark.parametrize("mortal", [KEEPS], ids=["with-its-data"], indirect=True)
def test_a_killed_broker_that_has_kept_its_data_must_find_the_device_again(
    device: Device, mortal: Mosquitto, client: Stranger
) -> None:
    device.start()
    device.publish(APPS)
    before, session = device.identities(), device.session

    mortal.kill()
    mortal.start()

    device.until(lambda: device.session > session, CONVERGE_S, "the device is online again")
    device.converge()
    assert device.identities() == before
    assert client.retained(device.fleet_target)["revision"] == 1
    changed = {"web": app(api=service(2), db=service())}
    published = device.publish(changed)
    judge(device, client, published, changed, untouched={"web/db": before["web/db"]})


@pytest.mark.parametrize("mortal", [FORGETS], ids=["without-its-data"], indirect=True)
def test_a_killed_broker_that_has_lost_its_data_must_change_nothing(
    device: Device, mortal: Mosquitto, client: Stranger
) -> None:
    device.start()
    # Not the cloud's own: it would give it back.
    client.publish(device.fleet_target, target(device, 5, APPS))
    device.cloud.wait_for_ack(device.id, verdict="applied", app=None, revision=5, timeout=30)
    before, session = device.identities(), device.session

    mortal.kill()
    mortal.start()

    device.until(lambda: device.session > session, CONVERGE_S, "the device is online again")
    assert client.retained(device.fleet_target) == {}
    # No retained target is no information; and the broker is told anew what it has lost.
    state = eventually(lambda: client.retained(device.up("state")), 10, "the state is there again")
    assert (state["converged"], state["have"]["fleet"]["revision"]) == (True, 5)
    assert client.retained(device.up("session"))["online"] is True
    assert device.identities() == before
    assert device.snapshot().targets == {"fleet": (1, 5)}
    client.publish(device.fleet_target, target(device, 6, {"web": APPS["web"], "log": app(sink=service())}))
    device.cloud.wait_for_ack(device.id, verdict="applied", app=None, revision=6, timeout=30)
    assert {key: device.identities()[key] for key in before} == before


@pytest.mark.parametrize("mortal", [FORGETS], ids=["without-its-data"], indirect=True)
def test_what_the_cloud_has_published_must_come_back_from_the_cloud(
    device: Device, mortal: Mosquitto, client: Stranger
) -> None:
    device.start()
    published = device.publish(APPS)
    before, session = device.identities(), device.session

    mortal.kill()
    mortal.start()

    device.until(lambda: device.session > session, CONVERGE_S, "the device is online again")
    eventually(lambda: client.retained(device.fleet_target).get("revision") == 1, 30, "the target is retained again")
    judge(device, client, published, APPS, untouched=before)
    # A repetition is no news.
    assert [ack["verdict"] for ack in device.acks(app=None)] == ["accepted", "applied"]


@pytest.mark.parametrize("mortal", [FORGETS], ids=["without-its-data"], indirect=True)
def test_what_happens_while_the_broker_is_away_must_be_told_in_order_when_it_is_back(
    device: Device, mortal: Mosquitto, client: Stranger
) -> None:
    # The old container takes 3 s to stop: so long the broker has to die.
    slow = service(init=False, stop_grace_period="3s")
    device.start()
    device.publish({"web": app(api=slow)})
    session = device.session
    changed = {"web": app(api={**slow, "environment": {"RELEASE": 2}})}
    published = device.cloud.publish(changed)
    device.until(lambda: "stop " in device.log(), 20, "the apply has begun")
    mortal.kill()
    eventually(
        lambda: (found := device.runs("web/api")) and "RELEASE=2" in found["Config"]["Env"], 30, "applied without it"
    )
    assert device.acks(verdict="applied", app=None, revision=2) == []

    # The cloud must be there first: what it is told is not retained, and this broker has forgotten its subscriptions.
    with device.frozen():
        mortal.start()
        eventually(lambda: device.cloud.down is None, 60, "the cloud is connected again")

    device.until(lambda: device.session > session, CONVERGE_S, "the device is online again")
    judge(device, client, published, changed)
    assert device.verdicts(2) == [("accepted", None), ("applying", "web"), ("applied", "web"), ("applied", None)]
    numbers = [ack["seq"] for ack in device.acks()]
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("mortal", [FORGETS], ids=["late"], indirect=True)
def test_a_broker_that_comes_later_must_be_found(device: Device, mortal: Mosquitto) -> None:
    device.cloud.publish(APPS)
    mortal.stop()
    device.start_offline()
    assert device.status()["connected"] is False
    mortal.start()
    device.until(lambda: device.session > 0, CONVERGE_S, "the device is online")
    device.converge()
    assert device.identities().keys() == {"web/api", "web/db"}

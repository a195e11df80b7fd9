"""How often the whole agent calls the engine: the steps of its plans, a look before them and one after."""

from collections import Counter
from typing import Any

import pytest

from device_agent.model.errors import EngineAway
from device_agent.model.observed import EngineEvent, Status
from device_agent.ports import Engine
from device_agent.runtime.looks import DEEP_S
from device_agent.runtime.reconciler import BUSY_S
from device_agent.runtime.workers import STOP
from tests.builders import app, service
from tests.device import Device, online, settled

COUNT = 10
WEB, DB = app(api=service()), app(api=service("db:1"))
FOREIGN = EngineEvent("network", "create", "f", "foreign")


def many(revision: int) -> Any:
    """An app on a network of its own; another revision changes all of its services."""
    environment = {"REVISION": str(revision)}
    services = {f"s{n}": service(networks=["default"], environment=environment) for n in range(COUNT)}
    return {"many": app({"x-release": {"healthy_for": "0s"}}, **services)}


def calls(device: Device) -> Counter[str]:
    """Of the engine."""
    return Counter(name for name in device.fuse.calls if name in vars(Engine))


def calls_of_release(device: Device, revision: int) -> Counter[str]:
    device.fuse.reset()
    device.publish(many(revision), revision=revision)
    device.wait(60)
    assert device.told()[-1] == f"applied 1.{revision}"
    return calls(device)


def test_an_install_takes_its_steps_and_two_looks() -> None:
    device = online()
    device.wait(5)
    steps = {"create_network": 1, "create": COUNT, "start": COUNT}
    assert calls_of_release(device, 1) == {"observe": 2, **steps}


def test_a_replacement_takes_its_steps_the_update_locks_and_three_looks() -> None:
    device = settled(many(1))
    steps = {"create": COUNT, "stop": COUNT, "start": COUNT, "remove": COUNT}
    assert calls_of_release(device, 2) == {"observe": 3, "has_file": COUNT, **steps}


def test_what_was_removed_by_hand_takes_two_steps_and_two_looks() -> None:
    device = settled(many(1))
    device.fuse.reset()
    device.world.rm(device.containers()["many/s3"].id)
    device.wait(60)
    assert calls(device) == {"observe": 2, "create": 1, "start": 1}


def test_nor_does_it_take_more_while_what_was_removed_still_has_its_name() -> None:
    device = settled(many(1))
    device.fuse.reset()
    leaving = device.containers()["many/s3"]

    def gone_at_last(name: str) -> None:
        if name == "create" and leaving.id in device.world.containers:
            device.world.rm(leaving.id)

    device.trouble = gone_at_last
    leaving.status = Status.REMOVING
    device.inbox.put(EngineEvent("container", "die", leaving.id, leaving.name, "many", "s3"))
    device.wait(60)
    assert calls(device) == {"observe": 2, "create": 1, "start": 1}


def test_at_rest_there_is_no_call() -> None:
    device = settled(many(1))
    device.fuse.reset()
    device.wait(DEEP_S / 2)
    assert calls(device) == {}


def in_the_middle_of_a_stop(**more: Any) -> Device:
    device = settled({"web": WEB, **more})
    device.jobs.held.add(STOP)
    device.publish({"web": app(api=service("api:2")), **more}, revision=2)
    device.wait(1)
    device.fuse.reset()
    return device


def test_while_every_app_is_being_worked_at_it_is_looked_now_and_then() -> None:
    device = in_the_middle_of_a_stop()
    device.inbox.put(FOREIGN)
    device.wait(BUSY_S / 2)
    assert calls(device) == {}
    device.wait(60)
    assert calls(device) == {"observe": 1}
    device.jobs.held.clear()
    device.converge()
    assert device.containers()["web/api"].made.image == "api:2"


def test_a_long_stop_does_not_hide_what_happens_to_another_service() -> None:
    device = settled({"web": app(api=service(), db=service("db:1"))})
    db = device.containers()["web/db"].id
    device.jobs.held.add(STOP)
    device.publish({"web": app(api=service("api:2"), db=service("db:1"))}, revision=2)
    device.wait(1)
    device.world.rm(db)
    device.wait(BUSY_S + 3)
    assert device.state()["apps"]["web"]["services"]["db"]["status"] == "waiting"


def test_a_long_stop_does_not_hide_that_the_engine_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    device = in_the_middle_of_a_stop()

    def away(_stale: object = None) -> None:
        raise EngineAway("no answer")

    monkeypatch.setattr(device.agent.reconciler.looks.engine, "observe", away)
    device.inbox.put(EngineEvent("stream", "close", ""))
    device.wait(BUSY_S + 3)
    assert device.state()["engine"] == {"status": "away"}


def test_an_app_that_is_at_rest_is_looked_at_while_another_is_worked_at() -> None:
    device = in_the_middle_of_a_stop(other=DB)
    device.inbox.put(FOREIGN)
    device.wait(1)
    assert calls(device) == {"observe": 1}


def test_what_was_stopped_to_be_replaced_is_not_asked_for_its_last_words() -> None:
    device = settled({"web": WEB})
    device.fuse.reset()
    device.publish({"web": app({"x-release": {"healthy_for": "30s"}}, api=service("api:2"))}, revision=2)
    device.wait(10)
    assert sorted(c.exit_code for c in device.world.containers.values() if not c.up) == [143]
    assert calls(device)["tail"] == 0

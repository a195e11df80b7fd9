"""The agent over the real store: what the fake shows in so many ways holds with SQLite too."""

import pytest

from device_agent.adapters.store import open_store
from tests.builders import app, service
from tests.device import Device

WEB = {"web": app({"volumes": {"data": {}}}, api=service(volumes=["data:/d"]))}
WEB2 = {"web": app({"volumes": {"data": {}}}, api=service("api:2", volumes=["data:/d"]))}


@pytest.fixture
def device(tmp_path):
    made = Device(images=("api:1", "api:2"))
    made.store = open_store(tmp_path, made.clock)
    yield made.boot()
    made.store.close()


def restarted(device: Device, tmp_path) -> Device:
    device.cut_power()
    device.store.close()
    device.store = open_store(tmp_path, device.clock)
    return device.boot()


def test_install_update_restart_and_removal(device, tmp_path):
    device.publish(WEB, revision=1)
    device.converge()
    device.publish(WEB2, revision=2)
    device.converge()
    container = device.containers()["web/api"].id
    restarted(device, tmp_path).converge()
    assert device.containers()["web/api"].id == container
    device.publish({}, revision=3, allow_empty=True)
    device.converge()
    assert device.containers() == {}
    assert device.told()[-1] == "applied 1.3"
    numbers = [ack["seq"] for ack in device.acks()]
    # What the broker had before the power went is told once more, under the same numbers.
    assert list(dict.fromkeys(numbers)) == sorted(set(numbers))


def test_a_deleted_database_is_brought_back_by_the_sidecar(device, tmp_path):
    device.publish(WEB, revision=7)
    device.converge()
    container = device.containers()["web/api"].id
    device.cut_power()
    device.store.close()
    for file in tmp_path.glob("database.sqlite*"):
        file.unlink()
    device.store = open_store(tmp_path, device.clock)
    device.boot(connect=False)
    assert device.agent.rollout.targets["fleet"].target.version == (1, 7)
    assert device.containers()["web/api"].id == container
    device.world.rm(container)
    device.wait(5)
    assert device.ups() == {"web/api"}


def test_an_empty_data_folder_touches_nothing_and_the_labels_are_the_floor(device, tmp_path):
    device.publish(WEB, revision=7)
    device.converge()
    container = device.containers()["web/api"].id
    device.cut_power()
    device.store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    device.broker.retained.clear()
    device.store = open_store(tmp_path, device.clock)
    device.boot()
    device.publish(WEB2, revision=6)
    device.wait(10)
    assert device.told()[-1] == "rejected 1.6 stale"
    assert device.containers()["web/api"].id == container
    assert restarted(device, tmp_path).agent.floors["fleet"].version == (1, 7)


def test_with_an_empty_data_folder_nothing_is_judged_before_the_first_look(device, tmp_path):
    """The broker may be there before the engine has answered, and give what is old, or empty."""
    device.publish(WEB, revision=7)
    device.converge()
    container = device.containers()["web/api"].id
    device.cut_power()
    device.store.close()
    for file in tmp_path.iterdir():
        file.unlink()
    device.broker.retained.clear()
    device.store = open_store(tmp_path, device.clock)
    device.world.away = True
    device.boot()
    told = len(device.told())
    device.publish(WEB2, revision=6)
    device.wait(10)
    assert len(device.told()) == told
    assert len(device.broker.unacknowledged) == 1
    device.world.away = False
    device.wait(60)
    assert device.told()[told:] == ["rejected 1.6 stale"]
    device.publish({}, revision=8)
    device.wait(10)
    assert device.told()[-1] == "rejected 1.8 empty"
    assert device.containers()["web/api"].id == container
    assert not device.broker.unacknowledged


def test_a_quiet_agent_writes_nothing(device, tmp_path):
    device.publish(WEB)
    device.converge()
    device.wait(30)
    before = {file.name: (file.stat().st_mtime_ns, file.stat().st_size) for file in tmp_path.iterdir()}
    device.wait(7200)
    assert {file.name: (file.stat().st_mtime_ns, file.stat().st_size) for file in tmp_path.iterdir()} == before

"""Images that nothing wants any more go after an update: the agent's own pulls only, and not what a rollback needs."""

from contextlib import suppress

import pytest

from device_agent.core.room import MIB
from device_agent.model.host import Disk
from device_agent.model.image import normalise
from tests.builders import app, service
from tests.device import Device, PowerCut, online


def offered(*images: str) -> Device:
    device = online("here:1")
    for image in images:
        device.world.offer_image(image)
    return device


def runs(device: Device, image: str, revision: int) -> None:
    device.publish({"web": app(api=service(image))}, revision=revision)
    device.converge()


def here(device: Device) -> set[str]:
    return {image.removeprefix("docker.io/library/") for image in device.world.images}


def test_the_release_before_the_one_before_goes():
    device = offered("api:1", "api:2", "api:3")
    runs(device, "api:1", 1)
    runs(device, "api:2", 2)
    assert here(device) >= {"api:1", "api:2"}, "what a rollback needs stays"
    runs(device, "api:3", 3)
    device.wait(1)
    assert here(device) == {"here:1", "api:2", "api:3"}
    assert device.events().count("image_removed") == 1
    assert normalise("api:1") not in {row.image for row in device.store.rows.pulled.values()}


def test_a_release_that_changes_no_image_leaves_those_to_go_back_to():
    device = offered("api:1", "api:2")
    runs(device, "api:1", 1)
    runs(device, "api:2", 2)
    for revision in (3, 4, 5):
        device.publish({"web": app(api=service("api:2", environment={"A": str(revision)}))}, revision=revision)
        device.converge()
    assert here(device) == {"here:1", "api:1", "api:2"}


def test_what_the_agent_did_not_pull_stays():
    device = offered("api:2", "api:3")
    runs(device, "here:1", 1)
    runs(device, "api:2", 2)
    runs(device, "api:3", 3)
    device.wait(1)
    assert "here:1" in here(device)


def test_nothing_goes_before_the_gate_and_a_rollback_needs_no_network():
    device = offered("api:1", "api:2", "bad:1")
    runs(device, "api:1", 1)
    runs(device, "api:2", 2)
    device.publish({"web": app(api=service("bad:1"))}, revision=3)
    device.wait(4)
    assert here(device) >= {"api:1", "api:2", "bad:1"}
    device.world.registry_down = True
    (bad,) = (c for c in device.world.containers.values() if c.made.image == "bad:1")
    device.world.kill(bad.id)
    device.wait(60)
    assert device.containers()["web/api"].made.image == "api:2"


def test_all_of_a_removed_app():
    device = offered("api:1", "api:2")
    runs(device, "api:1", 1)
    runs(device, "api:2", 2)
    device.publish({"other": app(one=service("here:1"))}, revision=3)
    device.converge()
    device.wait(1)
    assert here(device) == {"here:1"}


def test_an_image_that_a_stranger_uses_stays_and_is_tried_again_an_hour_later():
    device = offered("api:1", "api:2", "api:3")
    runs(device, "api:1", 1)
    container = device.containers()["web/api"]
    foreign = device.world.add_foreign("strange")
    device.world.containers[foreign].image_id = container.image_id
    runs(device, "api:2", 2)
    runs(device, "api:3", 3)
    device.wait(1200)
    assert "api:1" in here(device)
    assert device.fuse.calls.count("remove_image") == 1
    device.world.rm("strange")
    device.wait(4000)
    assert "api:1" not in here(device)


def test_a_moved_tag_leaves_nothing_behind():
    device = offered("tag:1")
    for revision in (1, 2, 3):
        device.world.offer_image("tag:1", f"sha256:{revision:064x}")
        device.publish({"web": app(api=service("tag:1", pull_policy="always"))}, revision=revision)
        device.converge()
        device.wait(20)
    assert device.world.untagged == set()
    assert device.containers()["web/api"].image_id == f"sha256:{3:064x}"


def test_a_lost_database_removes_nothing():
    device = offered("api:1", "api:2", "api:3")
    runs(device, "api:1", 1)
    runs(device, "api:2", 2)
    device.stop()
    device.store.lose_database()
    device.boot()
    device.wait(1200)
    runs(device, "api:3", 4)
    device.wait(60)
    assert here(device) == {"here:1", "api:1", "api:2", "api:3"}


@pytest.mark.parametrize("world_too", [False, True], ids=["the agent", "the machine"])
def test_whenever_the_power_goes_the_same_images_are_left(world_too):
    def prepared() -> Device:
        device = offered("api:1", "api:2", "api:3")
        runs(device, "api:1", 1)
        runs(device, "api:2", 2)
        device.wait(20)
        device.fuse.reset()
        return device

    def carried_out(device: Device) -> None:
        runs(device, "api:3", 3)
        device.wait(1)

    device = prepared()
    carried_out(device)
    for number in range(1, len(device.fuse.calls) + 1):
        device = prepared()
        device.fuse.reset(number)
        with suppress(PowerCut):
            carried_out(device)
        device.cut_power(world_too=world_too)
        device.boot().converge()
        device.wait(60)
        assert here(device) == {"here:1", "api:2", "api:3"}, f"call {number}"
        assert {row.image for row in device.store.rows.pulled.values()} == {
            normalise("api:2"),
            normalise("api:3"),
        }, f"call {number}"


# A short disk.


def short(device: Device, free_mib: int) -> None:
    device.machine.space = Disk(free_mib * MIB, 1024 * MIB)


def test_a_short_disk_is_told_with_numbers_before_anything_was_touched():
    device = offered("api:1", "api:2")
    device.world.sizes[normalise("api:2")] = 100 * MIB
    runs(device, "api:1", 1)
    before = device.containers()["web/api"]
    short(device, 300)
    device.fuse.reset()
    device.publish({"web": app(api=service("api:2"))}, revision=2)
    device.wait(60)
    reason = device.state()["apps"]["web"]["services"]["api"]["reason"]
    assert reason["code"] == "disk_short"
    assert "needs about 300 MiB (100 MiB to download)" in reason["message"]
    assert not {"pull", "create", "stop", "remove_image"} & set(device.fuse.calls)
    assert device.containers()["web/api"].id == before.id
    short(device, 900)
    device.converge()
    assert device.told()[-1] == "applied 1.2"


def test_what_nothing_wants_goes_first_and_then_nobody_has_to_be_told():
    device = offered("api:1", "api:2", "api:3")
    device.world.sizes[normalise("api:3")] = 100 * MIB
    runs(device, "api:1", 1)
    # It was pulled, and its release was overtaken before it ran, for want of another image.
    device.world.offer_image("never:1")
    device.publish({"web": app(api=service("never:1"), db=service("nowhere:1"))}, revision=2)
    device.wait(5)
    assert "never:1" in here(device)
    short(device, 300)
    device.watch = lambda: "never:1" in here(device) or short(device, 900)
    runs(device, "api:3", 3)
    assert "never:1" not in here(device)
    assert not [told for told in device.told() if "disk_short" in told]

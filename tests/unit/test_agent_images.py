"""Images over a device's life: pulled again where the target says so, remembered, and never in the way of what runs."""

import json
from contextlib import suppress
from datetime import timedelta

from device_agent.model.image import normalise
from tests.builders import app, service
from tests.device import TOPICS, Device, PowerCut, online, settled

DAY = 24 * 3600.0


def pulls(device: Device) -> int:
    return device.fuse.calls.count("pull")


def always(**keys):
    return {"web": app(api=service("tag:1", pull_policy="always", **keys))}


def offered(*images: str) -> Device:
    device = online()
    for image in images:
        device.world.offer_image(image)
    return device


def test_always_pulls_a_tag_again_with_each_revision_and_only_then():
    device = offered("tag:1")
    device.publish(always())
    device.converge()
    assert pulls(device) == 1
    first = device.containers()["web/api"].id
    device.wait(DAY)
    device.stop()
    device.boot().converge()
    assert pulls(device) == 1, "neither by time nor by a restart"
    device.publish(always(), revision=2)
    device.converge()
    assert pulls(device) == 2
    assert device.containers()["web/api"].id == first, "it is the same image"
    device.world.offer_image("tag:1", "sha256:" + "2" * 64)
    device.publish(always(), revision=3)
    device.converge()
    assert pulls(device) == 3
    assert device.containers()["web/api"].image_id == "sha256:" + "2" * 64
    assert device.told()[-1] == "applied 1.3"


def test_a_registry_that_is_down_holds_nothing_up_and_is_told():
    device = offered("tag:1")
    device.publish(always())
    device.converge()
    device.world.registry_down = True
    device.publish(always(environment={"A": "2"}), revision=2)
    device.wait(600)
    assert dict(device.containers()["web/api"].made.service.environment) == {"A": "2"}, "from the image that is here"
    assert device.state()["apps"]["web"]["services"]["api"]["reason"]["code"] == "registry_unreachable"
    assert "failed 1.2 web api registry_unreachable" in device.told()
    assert "applied 1.2" not in device.told(), "it was to be looked for, and was not yet"
    device.world.registry_down = False
    device.converge()
    assert device.told()[-1] == "applied 1.2"


def test_daily_is_remembered_and_wakes_by_itself():
    device = offered("tag:1")
    device.publish({"web": app(api=service("tag:1", pull_policy="daily"))})
    device.converge()
    assert pulls(device) == 1
    device.stop()
    device.boot().converge()
    device.wait(DAY - 60)
    assert pulls(device) == 1
    device.world.offer_image("tag:1", "sha256:" + "2" * 64)
    device.wait(120)
    assert pulls(device) == 2
    device.converge()
    assert device.containers()["web/api"].image_id == "sha256:" + "2" * 64
    device.wait(3 * DAY)
    assert pulls(device) == 5


def test_an_overdue_day_is_tried_with_back_off_and_the_device_stays_converged():
    device = offered("tag:1")
    device.publish({"web": app(api=service("tag:1", pull_policy="daily"))})
    device.converge()
    device.world.registry_down = True
    device.wait(2 * DAY)
    assert device.state()["converged"]
    assert device.state()["apps"]["web"]["services"]["api"]["reason"]["code"] == "registry_unreachable"
    before = pulls(device)
    device.world.registry_down = False
    device.wait(600)
    assert pulls(device) == before + 1
    assert device.state()["apps"]["web"]["services"]["api"].get("reason") is None


def test_two_apps_of_two_scopes_with_one_tag_come_to_rest():
    device = offered("tag:1")
    device.publish(always())
    device.publish({"own": always()["web"]}, device="d1")
    device.converge()
    device.wait(600)
    assert pulls(device) <= 2
    assert device.state()["converged"]


def test_never_waits_for_somebody_to_load_it():
    device = online()
    device.publish({"web": app(api=service("loaded:1", pull_policy="never"))})
    device.wait(300)
    assert pulls(device) == 0
    assert device.state()["apps"]["web"]["services"]["api"]["reason"]["code"] == "image_absent"
    assert "failed 1.1 web api image_absent" in device.told()
    device.world.add_image("loaded:1")
    device.converge()
    assert device.told()[-1] == "applied 1.1"


def test_an_image_for_another_platform_is_the_targets_fault():
    device = offered()
    device.world.platforms[device.world.offer_image("tag:1")] = "linux/arm64"
    device.publish({"web": app(api=service("tag:1", platform="linux/riscv64"))})
    device.wait(60)
    assert "failed 1.1 web api wrong_platform" in device.told()
    device.publish({"web": app(api=service("tag:1", platform="linux/arm64"))}, revision=2)
    device.converge()


def test_what_was_pulled_is_known_for_the_agents_own_whenever_the_power_goes():
    """But not what was here before."""

    def carried_out(device: Device) -> None:
        device.publish({"web": app(api=service("tag:1", pull_policy="always"), db=service("api:1"))})
        device.converge()

    device = offered("tag:1")
    carried_out(device)
    total = len(device.fuse.calls)
    for number in range(1, total + 1):
        device = offered("tag:1")
        device.fuse.reset(number)
        with suppress(PowerCut):
            carried_out(device)
        device.cut_power()
        device.boot().converge()
        tag = normalise("tag:1")
        owned = {row.image for row in device.store.rows.pulled.values() if row.own and row.image_id}
        assert owned == {tag}, f"call {number}"
        assert device.store.rows.pulled[tag, device.world.images[tag]].revisions == {"fleet:1.1"}
        assert (tag, "") not in device.store.rows.pulled


def test_nothing_is_written_while_nothing_changes():
    device = settled()
    device.wait(60)
    device.fuse.reset()
    device.wait(timedelta(hours=2).total_seconds())
    assert "commit" not in device.fuse.calls


def test_a_tag_that_has_moved_is_told_as_that_and_not_as_drift():
    device = offered("tag:1")
    device.publish({"web": app(api=service("tag:1", pull_policy="daily"))})
    device.converge()
    device.world.offer_image("tag:1", "sha256:" + "2" * 64)
    device.wait(DAY + 60)
    assert device.events() == ["image_changed", "image_removed"]
    told = json.loads(device.broker.on(TOPICS.event)[0].payload)
    assert (told["app"], told["service"]) == ("web", "api")
    assert told["message"] == "image docker.io/library/tag:1 is another one now"
    device.world.rm(device.containers()["web/api"].id)
    device.wait(60)
    assert device.events() == ["image_changed", "image_removed", "drift"]

"""`purge`: the only way in which a volume goes; `prune`, and `history`."""

import json

import pytest

from device_agent.model.errors import EngineAway, EngineError, Kind
from tests.builders import app, service
from tests.device import Device, online, settled

API, DB = service(volumes=["data:/d"]), service("db:1", volumes=["old:/o"])
BOTH = {"web": app({"volumes": {"data": {}, "old": {}}}, api=API, db=DB)}
LESS = {"web": app({"volumes": {"data": {}}}, api=service(volumes=["data:/d"]))}


def left_over() -> Device:
    """`web_old` is of a service that is gone."""
    device = settled(BOTH)
    device.publish(LESS, revision=2)
    device.converge()
    assert device.state()["orphans"]["volumes"] == ["web_old"]
    return device


def refused(device: Device, **args: object) -> str:
    before = set(device.world.volumes)
    answer = device.ask("purge", **args)
    assert answer["status"] == "error"
    assert set(device.world.volumes) == before
    return answer["error"]["code"]


@pytest.mark.parametrize("name", ["web_old", "old"])
def test_an_orphan_is_deleted_by_its_name_or_its_key(name: str) -> None:
    device = left_over()
    assert device.ask("purge", app="web", volumes=[name])["result"] == {"app": "web", "volumes": ["web_old"]}
    device.wait(5)
    assert set(device.world.volumes) == {"web_data"}
    assert "volumes_purged" in device.events()
    assert device.state()["orphans"]["volumes"] == []


def test_the_volumes_of_a_removed_app_are_deleted_when_they_are_named() -> None:
    device = settled({**BOTH, "other": app(kept=service("db:2"))})
    device.publish({"other": app(kept=service("db:2"))}, revision=2)
    device.converge()
    assert refused(device, app="other", volumes=["web_old"]) == "not_purged"
    assert device.ask("purge", app="web", volumes=["web_data", "web_old"])["status"] == "ok"
    assert device.world.volumes == {}


def test_what_another_app_wants_is_not_deleted_also_before_it_has_a_container() -> None:
    device = left_over()
    other = app(
        {"volumes": {"its": {"external": True, "name": "web_old"}}}, one=service("absent:1", volumes=["its:/x"])
    )
    device.publish({**LESS, "other": other}, revision=3)
    device.wait(5)
    answer = device.ask("purge", app="web", volumes=["old"])
    assert answer["error"]["code"] == "not_purged"
    assert "other/one" in answer["error"]["message"]
    assert set(device.world.volumes) == {"web_data", "web_old"}


def test_what_is_wanted_is_not_deleted_and_neither_is_what_was_named_with_it() -> None:
    device = left_over()
    answer = device.ask("purge", app="web", volumes=["old", "data"])
    assert answer["error"]["code"] == "not_purged"
    assert [error["pointer"] for error in answer["error"]["errors"]] == ["/volumes/1"]
    assert "web/api" in answer["error"]["message"]
    assert set(device.world.volumes) == {"web_data", "web_old"}


def test_what_a_release_may_be_rolled_back_to_keeps_its_data() -> None:
    device = settled(BOTH)
    newer = app({"volumes": {"data": {}}, "x-release": {"healthy_for": "10m"}}, api={**API, "image": "api:2"})
    device.publish({"web": newer}, revision=2)
    device.wait(60)
    assert refused(device, app="web", volumes=["old"]) == "not_purged"


def test_what_an_operator_stopped_is_still_wanted() -> None:
    device = left_over()
    device.ask("stop", app="web")
    device.wait(30)
    assert refused(device, app="web", volumes=["data"]) == "not_purged"


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({}, "malformed"),
        ({"app": "web"}, "malformed"),
        ({"app": "web", "volumes": []}, "malformed"),
        ({"app": "web", "volumes": "old"}, "malformed"),
        ({"app": "web", "volumes": [1]}, "malformed"),
        ({"app": "web", "volumes": ["old"], "force": True}, "malformed"),
        ({"app": "web", "volumes": ["strangers"]}, "not_purged"),
        ({"app": "nothing", "volumes": ["web_old"]}, "not_purged"),
    ],
)
def test_what_is_not_named_rightly_is_not_deleted(args: dict[str, object], code: str) -> None:
    device = left_over()
    device.world.add_volume("strangers")
    assert refused(device, **args) == code


def test_what_a_stranger_has_mounted_is_not_deleted() -> None:
    device = left_over()

    def trouble(name: str) -> None:
        if name == "remove_volume":
            raise EngineError("volume_in_use", "a container has the volume", Kind.OUTSIDE)

    device.trouble = trouble
    assert refused(device, app="web", volumes=["old"]) == "volume_in_use"


def test_an_engine_that_does_not_answer_deletes_nothing() -> None:
    device = left_over()

    def trouble(name: str) -> None:
        if name == "remove_volume":
            raise EngineAway("away")

    device.trouble = trouble
    assert refused(device, app="web", volumes=["old"]) == "engine_away"


def test_images_that_nothing_wants_are_removed_when_that_is_asked_for() -> None:
    device = online()
    device.publish({"web": app(api=service("db:2"))})
    device.converge()
    assert device.ask("prune")["result"] == {"images": []}
    device.publish({"web": app(api=service("absent:1"))}, revision=2)
    assert device.ask("prune")["status"] in ("ok", "error")
    assert "docker.io/library/api:1" in device.world.images, "not of its own pulls"


def test_what_was_not_let_go_is_removed_when_that_is_asked_for_and_named() -> None:
    device = online("here:1")
    locked = True

    def trouble(name: str) -> None:
        if locked and name == "remove_image":
            raise EngineError("image_in_use", "a container of somebody else has it", Kind.OUTSIDE)

    device.trouble = trouble
    for revision in (1, 2, 3):
        device.world.offer_image(f"own:{revision}")
        device.publish({"web": app(api=service(f"own:{revision}"))}, revision=revision)
        device.converge()
    locked = False
    assert device.ask("prune")["result"] == {"images": ["docker.io/library/own:1"]}
    assert "docker.io/library/own:1" not in device.world.images


def test_the_history_is_what_the_database_remembers() -> None:
    device = settled(LESS, release="r1")
    device.ask("stop", app="web")
    device.publish({"web": app(api=service("absent:1"))}, revision=2, release="r2")
    device.wait(60)
    device.fuse.reset()
    told = device.ask("history")["result"]
    assert json.loads(json.dumps(told)) == told
    assert (told["targets"]["fleet"]["release"], told["targets"]["fleet"]["ended"]) == ("r2", None)
    assert told["targets"]["fleet"]["awaited"] == ["web"]
    assert told["apps"]["web"]["settled"] == {"revision": "fleet:1.1", "release": "r1"}
    assert told["floors"] == {"fleet": [1, 2]}
    assert told["attempts"][0]["subject"].startswith("image ")
    assert told["orders"] == [{"app": "web", "service": "api", "verb": "stop"}]
    assert "commit" not in device.fuse.calls

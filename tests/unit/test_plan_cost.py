"""What a plan says it costs: bytes, disk, and who is down for how long."""

import json

from device_agent.core.cost import Fetched, interruptions
from device_agent.core.room import MIB, TAKES
from device_agent.model.host import Disk
from device_agent.model.observed import Observed
from device_agent.model.steps import Plan
from device_agent.runtime.workers import CALL
from tests.builders import app, payload, plan, running, service, wanted, world
from tests.device import Device, online, settled

WEB = wanted(app(api=service()))
FIRST = {"x-update": {"strategy": "start-first"}}


def plan_of(device: Device, apps, revision: int = 2):
    answer = device.ask("plan", target=payload(apps, revision=revision).decode())
    assert answer["status"] == "ok", answer
    return answer["result"]


def test_what_is_fetched_and_what_the_disk_holds_then():
    device = settled()
    device.machine.space = Disk(free=1000 * MIB, total=4000 * MIB)
    device.world.offer_image("new:1")
    device.world.offer_image("new:2")
    device.world.sizes |= {"docker.io/library/new:1": 10 * MIB, "docker.io/library/new:2": 20 * MIB}
    before = device.containers()
    result = plan_of(
        device, {"web": app(api=service("new:1"), db=service("new:2")), "other": app(api=service("new:1"))}
    )
    assert result["pull"] == {
        "images": {"docker.io/library/new:1": 10 * MIB, "docker.io/library/new:2": 20 * MIB},
        "bytes": 30 * MIB,
    }
    assert result["disk"] == {"free": 1000 * MIB, "after": (1000 - 30 * TAKES) * MIB}
    assert "pull: 2 images, 30.0 MiB to fetch; disk: 1000 MiB free, about 910 MiB after it" in result["text"]
    assert result["policy"] == "allowed"
    assert device.containers() == before


def test_sizes_that_are_not_known():
    device = settled()
    device.world.offer_image("new:1")
    result = plan_of(device, {"web": app(api=service("new:1"))})
    assert result["pull"] == {"images": {"docker.io/library/new:1": None}, "bytes": None}
    assert result["disk"] == {"free": None, "after": None}
    assert "pull: 1 image, how much is not known" in result["text"]


def test_nothing_is_asked_where_nothing_is_fetched():
    device = settled()
    device.jobs.held.add(CALL)
    result = plan_of(device, {"web": app(api=service("api:2"))})
    assert result["pull"] == {"images": {}, "bytes": 0}
    assert "pull:" not in result["text"]


def test_the_loop_does_not_wait_for_registries():
    device = settled()
    device.world.offer_image("new:1")
    device.jobs.held.add(CALL)
    device.command("plan", target=json.loads(payload({"web": app(api=service("new:1"))}, revision=2)))
    assert device.answers() == []
    device.command("report", "c2")
    assert [answer["verb"] for answer in device.answers()] == ["report"]
    device.jobs.held.clear()
    device.settle()
    assert [answer["verb"] for answer in device.answers()] == ["report", "plan"]


def test_who_is_down_by_strategy():
    device = online("api:1", "api:2", "db:1", "db:2")
    apps = {
        "web": app(
            recreated=service(),
            first=service(**FIRST),
            kept=service("db:1"),
            gone=service("db:1", stop_grace_period="30s"),
        )
    }
    device.publish(apps)
    device.converge()
    after = {
        "web": app(
            recreated=service("api:2"), first=service("api:2", **FIRST), kept=service("db:1"), new=service("db:2")
        )
    }
    result = plan_of(device, after)
    assert {name: (each["strategy"], each["down"]) for name, each in result["downtime"].items()} == {
        "web/recreated": ("recreate", True),
        "web/first": ("start-first", False),
        "web/gone": (None, True),
    }
    assert (
        result["downtime"]["web/recreated"]["message"] == "down from its stop (at most 10 s) until it has started again"
    )
    assert "web/first: replaced without downtime" in result["text"]
    # What was foretold is what happens.
    downs: set[str] = set()
    device.watch = lambda: downs.update({"web/recreated", "web/first", "web/gone", "web/kept"} - device.ups())
    device.publish(after, revision=2)
    device.converge()
    assert downs == {"web/recreated", "web/gone"}


def test_the_text_is_the_same_over_mqtt_and_here():
    device = settled()
    device.world.offer_image("new:1")
    target = payload({"web": app(api=service("new:1"))}, revision=2)
    device.command("plan", target=json.loads(target))
    assert device.answers()[0]["result"] == device.ask("plan", target=target.decode())["result"]


def test_figures_in_words():
    assert str(Fetched({"a:1": 5 * MIB}, None)) == "pull: 1 image, 5.0 MiB to fetch"
    assert Fetched({"a:1": 5 * MIB, "b:1": None}, Disk(10 * MIB, 10 * MIB)).free_after is None
    assert Fetched({"a:1": 50 * MIB}, Disk(10 * MIB, 10 * MIB)).free_after == 0
    assert list(interruptions(Plan("web"), None, Observed())) == []


def test_a_copy_that_goes_is_no_interruption():
    observed = world(WEB, running(WEB, "api"), running(WEB, "api", name="copy", id="copy"))
    made = plan(WEB, observed)
    assert "stop copy" in str(made)
    assert list(interruptions(made, WEB, observed)) == []


def test_a_strategy_that_makes_room_is_down_while_it_pulls():
    device = settled({"web": app(api=service())})
    device.world.offer_image("new:1")
    result = plan_of(device, {"web": app(api=service("new:1", **{"x-update": {"strategy": "stop-first"}}))})
    (told,) = result["downtime"].values()
    assert told["strategy"] == "stop-first"
    assert told["message"] == "down from its stop (at most 10 s) until its image is here and it has started"

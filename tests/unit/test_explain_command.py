"""`explain`, asked of the running agent: what is meant by a name, as JSON and in words."""

import json

import pytest

from cloud_sim.engine_world import Behaviour
from device_agent.model.errors import Kind
from tests.builders import app, service
from tests.device import Device, online, settled


def words(device, *args):
    app_name, service_name = (*args, None)[:2]
    asked = {"app": app_name} | ({"service": service_name} if service_name else {})
    answer = device.ask("explain", **asked)
    assert answer["status"] == "ok", answer
    assert json.loads(json.dumps(answer)) == answer
    return answer["result"]["text"]


def test_one_that_runs_in_full():
    device = settled({"web": app(api=service())}, release="r1")
    told = device.containers()["web/api"]
    short = told.image_id[:19]
    assert words(device, "web", "api").splitlines() == [
        "web/api: running",
        "  wanted     api:1, by the fleet's target 1.1 (release r1)",
        f"  is         container {told.name} of docker.io/library/api:1 ({short}), running, started {told.started_at}",
        "  next       nothing: it is as the target says",
    ]


def test_the_json_has_the_whole_chain():
    device = settled(release="r1")
    told = device.ask("explain", app="web", service="api")["result"]
    assert told["wanted"] == {"scope": "fleet", "revision": [1, 1], "release": "r1"}
    assert told["instead"] is None
    one = told["services"]["api"]
    state = device.state()["apps"]["web"]["services"]["api"]
    assert {**one["is"], "reason": one["reason"]} == state
    assert one["next"] == [
        {"what": "nothing", "why": "it is as the target says", "until": None, "at": None, "under_way": False}
    ]


def test_what_was_tried_has_its_times():
    device = online()
    device.publish({"web": app(api=service("nowhere:1"))})
    device.wait(20)
    told = device.ask("explain", app="web", service="api")["result"]["services"]["api"]
    (tried,) = told["tried"]
    assert (tried["subject"], tried["code"]) == ("image docker.io/library/nowhere:1", "no_such_image")
    assert tried["tried_at"] < tried["next_try_at"] == told["next"][0]["at"]
    text = words(device, "api")
    assert "  tried      image docker.io/library/nowhere:1, " in text
    assert "  waits      until image docker.io/library/nowhere:1 is here\n" in text
    assert " s ago: no_such_image: " in text


def test_the_time_of_a_try_before_a_restart_of_the_agent_is_not_known():
    device = online()
    device.publish({"web": app(api=service("nowhere:1"))})
    device.wait(20)
    device.cut_power()
    device.boot()
    (tried,) = device.ask("explain", app="web")["result"]["services"]["api"]["tried"]
    assert tried["tried_at"] is None
    assert ", last " not in words(device, "web")


def test_one_that_waits_for_another_names_why_that_one_is_not_there():
    device = online()
    needs = {"db": {"condition": "service_healthy"}}
    device.publish({"web": app(api=service(depends_on=needs), db=service("db:1"))})
    device.wait(20)
    assert "  needs      db (service_healthy), which is running\n" in words(device, "api")


def test_a_release_that_was_rolled_back():
    device = settled(release="r1")
    device.world.add_image("bad:1", behaviour=Behaviour(start_error=("bad_command", Kind.TARGET)))
    device.publish({"web": app(api=service("bad:1"))}, revision=2, release="r2")
    device.wait(60)
    text = words(device, "api")
    assert "  failed     the fleet's target 1.2 (release r2)\n" in text
    assert "  instead    the fleet's target 1.1 (release r1), with api:1\n" in text
    assert "  the app    rolled_back: release r2 failed (bad_command: " in text


def test_a_release_under_its_gate_says_until_when():
    device = online()
    device.publish()
    device.wait(6)
    (gate,) = device.ask("explain", app="api")["result"]["services"]["api"]["next"]
    left = int(words(device, "api").rpartition("in ")[2].split()[0])
    assert gate["what"] == "the gate of its release"
    assert 0 < left < 10
    device.wait(left)
    assert "as the target says" in words(device, "api")


def test_an_app_alone_tells_of_all_its_services():
    device = settled({"web": app(api=service(), db=service("db:1"))})
    text = words(device, "web")
    assert text.startswith("web: settled\nweb/api: running\n")
    assert "\nweb/db: running\n" in text


def test_an_app_that_is_in_no_target_here_any_more():
    device = settled({"web": app(api=service()), "db": app(db=service("db:1"))})
    device.jobs.held.add("stop")
    device.publish({"db": app(db=service("db:1"))}, revision=2)
    device.wait(5)
    text = words(device, "web", "api")
    assert "  wanted     by no target that is known here\n" in text
    assert "  next       stop web-api-" in text
    assert "[under way]" in text


def test_what_a_lost_target_left_is_told_so():
    device = settled()
    device.cut_power()
    device.store.good = ()
    device.store.lose_database()
    device.boot(connect=False)
    text = words(device, "api")
    assert "the app    target_unknown" in text
    assert "next       nothing: the target it was made for is not known here" in text


def test_an_engine_that_is_away():
    device = Device()
    device.world.away = True
    device.boot(connect=False)
    assert device.ask("explain", app="api")["error"]["message"] == (
        "there is no api here: no app is wanted or runs here"
    )
    device = settled()
    device.world.away = True
    device.publish({"web": app(api=service("api:2"))}, revision=2)
    device.wait(5)
    assert "  next       ask the engine again: " in words(device, "api")


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ({"app": "x"}, "not_found", "there is no x here: there are db/api, db/db, web/api"),
        ({"app": "web", "service": "x"}, "not_found", "the app web has no service x: web/api"),
        ({"app": "x", "service": "y"}, "not_found", "there is no x/y here: there are db/api, db/db, web/api"),
        ({"app": "api"}, "not_found", "several apps have a service api: db/api, web/api"),
        ({}, "malformed", "the argument app is a name, and so is service where it is given"),
        ({"app": "web", "service": 1}, "malformed", "the argument app is a name, and so is service where it is given"),
        ({"app": "web", "x": 1}, "malformed", "unknown argument: x"),
    ],
)
def test_a_name_that_means_nothing_is_answered_with_those_that_do(args, code, message):
    device = settled({"web": app(api=service()), "db": app(db=service("db:1"), api=service())})
    error = device.ask("explain", **args)["error"]
    assert (error["code"], error["message"]) == (code, message)


def test_an_app_that_this_devices_own_target_removes():
    device = settled({"web": app(api=service()), "db": app(db=service("db:1"))})
    device.publish({"web": None}, device="d1")
    device.converge()
    message = device.ask("explain", app="web")["error"]["message"]
    assert "(the fleet's target has it, this device's own target removes it)" in message


def test_one_that_is_scaled_to_nothing_and_one_that_is_to_go():
    first = {"web": app(api=service(), db=service("db:1"), old=service("db:2"))}
    device = settled(first)
    device.jobs.held.add("stop")
    device.publish({"web": app(api=service(scale=0), db=service("db:1"))}, revision=2)
    device.wait(5)
    assert words(device, "web", "api").splitlines()[:2] == [
        "web/api: stopping",
        "  wanted     no container of it, by the fleet's target 1.2",
    ]
    assert "  next       stop web-old-" in words(device, "old")
    device.jobs.held.clear()
    device.wait(60)
    assert words(device, "api").splitlines() == [
        "web/api: stopped: scale: its scale is 0: it is to have no container",
        "  wanted     no container of it, by the fleet's target 1.2",
        "  is         no container",
        "  next       nothing: its scale is 0: it is to have no container",
    ]
    assert list(device.ask("explain", app="web")["result"]["services"]) == ["api", "db"]
    assert device.ask("explain", app="web", service="old")["error"]["message"] == (
        "the app web has no service old: web/db, web/api"
    )

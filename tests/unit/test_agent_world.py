"""The owner loop and an engine that lives its own life: drift, failures, neighbours, and apps apart from each other."""

import json
from dataclasses import replace

import pytest

from cloud_sim.engine_parts import Behaviour
from device_agent.model.errors import EngineError, Kind
from device_agent.model.observed import Status
from device_agent.runtime.workers import CALL, STOP
from tests.builders import app, service
from tests.device import OWNER, TOPICS, Device, online, settled

ALL = ("api:1", "api:2", "db:1", "db:2")
WEB = {"web": app(api=service())}
WEB2 = {"web": app(api=service("api:2"))}


# Drift.


def test_a_container_removed_by_hand_comes_back_and_is_told():
    device = settled()
    device.world.rm(device.containers()["web/api"].id)
    device.wait(1)
    assert device.ups() == {"web/api"}
    assert device.events() == ["drift"]
    assert device.told()[-1] == "applied 1.1"


def test_each_volume_that_was_removed_is_made_anew_and_told():
    volumes = {"volumes": {"data": {}, "logs": {}}}
    device = settled({"web": app(volumes, api=service(volumes=["data:/d", "logs:/l"], networks=["default"]))})
    assert device.events() == []
    (container,) = device.containers().values()
    device.world.rm(container.id)
    device.world.remove_network(device.world.network_named("web_default"))
    for name in ("web_data", "web_logs"):
        device.world.remove_volume(name)
    device.wait(1)
    assert device.ups() == {"web/api"}
    assert {"web_data", "web_logs"} <= device.world.volumes.keys()
    told = [json.loads(sent.payload) for sent in device.broker.on(TOPICS.event)]
    assert [(event["event"], event.get("volume")) for event in told] == [
        ("volume_recreated", "web_data"),
        ("volume_recreated", "web_logs"),
        ("drift", None),
    ]
    assert told[0]["message"] == "web_data was removed: it is made anew, empty"


def test_a_repair_that_fails_again_and_again_is_told_once():
    device = settled()

    def trouble(name: str) -> None:
        if name == "start":
            raise EngineError("engine_error", "it fails", Kind.OUTSIDE)

    device.trouble = trouble
    device.world.kill(device.containers()["web/api"].id)
    device.wait(3600)
    assert device.events().count("drift") == 1
    assert device.state()["apps"]["web"]["services"]["api"]["reason"]["attempt"] > 10
    device.trouble = lambda _name: None
    device.converge()
    device.wait(600)
    device.world.kill(device.containers()["web/api"].id)
    device.wait(60)
    assert device.events().count("drift") == 2


def test_a_container_stopped_by_hand_is_started_again():
    device = settled()
    container = device.containers()["web/api"]
    device.engine.stop(container.id, 1)
    device.wait(10)
    assert device.ups() == {"web/api"}
    assert device.containers()["web/api"].id == container.id


def test_a_volume_outlives_its_app():
    stored = {"web": app({"volumes": {"data": {}}}, api=service(volumes=["data:/d"]))}
    device = settled(stored)
    device.publish({"db": app(db=service("db:1"))}, revision=2)
    device.converge()
    assert device.ups() == {"db/db"}
    assert "web_data" in device.world.volumes
    assert device.state()["orphans"]["volumes"] == ["web_data"]


def test_a_crash_loop_is_told_once_with_its_last_lines():
    device = online()
    device.world.add_image("bad:1", behaviour=Behaviour(exit_code=3, output="no config\n"))
    device.publish({"web": app(api=service("bad:1"))})
    device.wait(120)
    (event,) = [json.loads(sent.payload) for sent in device.broker.on(TOPICS.event)]
    assert (event["event"], event["exit_code"], event["log"]) == ("crash_loop", 3, "no config\n")
    told = device.state()["apps"]["web"]["services"]["api"]
    assert (told["status"], told["reason"]["code"]) == ("restarting", "crash_loop")
    assert "no config" in told["reason"]["message"]
    assert device.told().count("failed 1.1 web api crash_loop") == 1


def test_a_quiet_device_does_nothing_but_a_slow_check():
    device = settled()
    device.wait(60)
    device.fuse.reset()
    device.wait(3600)
    assert set(device.fuse.calls) == {"observe", "observe.done"}
    assert len(device.fuse.calls) <= 2 * 7


def test_a_paused_container_is_told_once_each_time():
    device = settled()
    mine = device.containers()["web/api"]
    for number in (1, 2):
        mine.status = Status.PAUSED
        device.world.happened(mine, "pause")
        device.wait(1300)
        assert device.events() == ["paused"] * number
        mine.status = Status.RUNNING
        device.world.happened(mine, "unpause")
        device.wait(5)


# The engine.


def test_the_loop_sleeps_while_an_engine_takes_its_time_to_answer():
    device = settled()
    device.publish({"web": app(api=service("nowhere:1"))}, revision=2)
    device.wait(30)
    device.jobs.held.add(CALL)
    device.wait(1200)
    due = device.agent.next_due()
    assert due is None or due > device.clock.monotonic()
    device.jobs.held.clear()
    device.wait(10)
    assert device.ups() == {"web/api"}


def test_an_engine_that_is_away_is_waited_for_and_nothing_is_concluded():
    device = settled()
    device.world.away = True
    device.publish(WEB2, revision=2)
    device.wait(60)
    assert device.told()[-1] == "accepted 1.2"
    assert device.state()["engine"]["status"] == "away"
    assert device.state()["apps"]["web"]["services"]["api"]["container"] == device.containers()["web/api"].name
    assert not device.state()["converged"]
    assert device.ups() == {"web/api"}
    device.world.away = False
    device.converge()
    assert device.told()[-1] == "applied 1.2"
    assert device.store.rows.attempts == {}


def test_an_engine_that_goes_away_in_the_middle_of_a_replacement():
    device = settled()
    seen = []

    def away_after_the_stop(name):
        if name == "stop":
            seen.append(name)
            device.world.away = True

    device.trouble = away_after_the_stop
    device.publish(WEB2, revision=2)
    device.wait(10)
    assert seen == ["stop"]
    device.trouble = lambda _name: None
    device.world.away = False
    device.converge()
    assert device.containers()["web/api"].made.image == "api:2"


def test_a_hiccup_of_a_call_is_no_failure():
    device = online()
    left = [2]

    def hiccup(name):
        if name == "create" and left[0]:
            left[0] -= 1
            raise EngineError("engine", "500", Kind.TEMPORARY)

    device.trouble = hiccup
    device.publish(WEB)
    device.converge()
    assert device.told() == ["accepted 1.1", "applying 1.1 web", "applied 1.1 web", "applied 1.1"]


def test_a_replacement_that_cannot_start_leaves_the_old_one_running_and_is_retried_for_ever():
    device = settled()
    old = device.containers()["web/api"].id
    device.world.add_image("bad:1", behaviour=Behaviour(start_error=("bad_command", Kind.TARGET)))
    device.publish({"web": {**app(api=service("bad:1")), "x-release": {"on_failure": "retry"}}}, revision=2)
    down = 0
    for _ in range(1800):
        device.wait(2)
        down += not device.world.containers[old].up
    assert down < 10
    assert device.told().count("failed 1.2 web api bad_command") == 1
    reason = device.state()["apps"]["web"]["services"]["api"]["reason"]
    assert reason["code"] == "bad_command"
    assert reason["attempt"] > 5
    device.world.behaviours[device.world.images["docker.io/library/bad:1"]] = Behaviour()
    device.converge()
    assert device.containers()["web/api"].made.image == "bad:1"
    assert device.told()[-1] == "applied 1.2"


def test_a_job_that_fails_after_a_while_is_run_less_and_less_often():
    for restart in ("no", "on-failure:2"):
        device = settled({"jobs": app(job=service(restart=restart))})
        job = device.containers()["jobs/job"].id
        device.fuse.reset()
        for _ in range(1200):
            device.wait(3)
            if device.world.containers[job].up:
                device.world.exit(job, 1)
        assert device.fuse.calls.count("start") < 60, restart
        assert device.state()["apps"]["jobs"]["services"]["job"]["reason"]["attempt"] > 5
        device.wait(600)
        device.world.exit(job, 0)
        device.wait(600)
        assert device.state()["apps"]["jobs"]["services"]["job"]["status"] == "completed"
        assert device.store.rows.attempts == {}


def test_one_that_shares_a_network_is_started_again_after_the_other():
    shared = {"web": app(db=service("db:1"), api=service(network_mode="service:db"))}
    device = settled(shared)
    host, mine = device.containers()["web/db"], device.containers()["web/api"]
    before = mine.started_at
    device.world.kill(host.id)
    device.converge()
    assert (host.up, mine.up) == (True, True)
    assert before < host.started_at < mine.started_at
    device.wait(600)
    assert device.store.rows.attempts == {}
    device.cut_power(world_too=True)
    device.boot().converge()
    assert device.ups() == {"web/db", "web/api"}


def test_a_clock_that_was_set_back_restarts_nothing_without_end():
    shared = {"web": app(db=service("db:1"), api=service(network_mode="service:db"))}
    device = settled(shared)
    device.containers()["web/db"].started_at = "2099-01-01T00:00:00Z"
    device.fuse.reset()
    device.wait(3600)
    assert device.fuse.calls.count("start") < 40
    assert device.ups() == {"web/db", "web/api"}


# One app never holds back another.


def test_a_missing_image_of_one_app_delays_no_other():
    device = online()
    device.publish({"bad": app(api=service("nowhere:1")), "web": app(api=service())})
    device.wait(15)
    assert device.ups() == {"web/api"}
    assert "applied 1.1 web" in device.told()
    assert "applied 1.1" not in device.told()


def test_a_slow_stop_of_one_app_delays_no_other():
    device = settled({"slow": app(api=service()), "web": app(db=service("db:1"))})
    device.jobs.held.add(STOP)
    device.publish(
        {"slow": app(api=service("api:2")), "web": app(db=service("db:1"), more=service("db:2"))}, revision=2
    )
    device.wait(30)
    assert device.ups() == {"slow/api", "web/db", "web/more"}
    assert "applied 1.2 web" in device.told()
    device.jobs.held.clear()
    device.converge()
    assert device.containers()["slow/api"].made.image == "api:2"


def test_a_crash_loop_of_one_app_delays_no_other():
    device = online()
    device.world.add_image("bad:1", behaviour=Behaviour(exit_code=1))
    device.publish({"bad": app(api=service("bad:1")), "web": app(api=service())})
    device.wait(30)
    assert "applied 1.1 web" in device.told()


# What is not ours.


def test_foreign_objects_with_confusable_names_are_never_touched():
    device = online()
    names = ("web-api", "web-api-123456", "web_api_1")
    ids = [device.world.add_foreign(name) for name in names]
    labels = {"device-agent.device": "plant7/d2", "device-agent.app": "web", "device-agent.service": "api"}
    ids.append(device.world.add_foreign("neighbour", labels=labels))
    device.world.add_network("web_default2")
    device.world.add_volume("web_data")
    device.publish({"web": app(api=service(networks=["default"]))})
    device.converge()
    device.publish({}, revision=2, allow_empty=True)
    device.converge()
    assert [device.world.containers[id_].up for id_ in ids] == [True] * 4
    assert "web_default2" in {network.name for network in device.world.networks.values()}
    assert "web_data" in device.world.volumes
    assert not [c for c in device.world.containers.values() if c.owned_by(OWNER)]


def test_a_container_that_has_the_name_is_reported_and_left():
    device = settled()
    name = device.containers()["web/api"].name
    device.publish({}, revision=2, allow_empty=True)
    device.converge()
    foreign = device.world.add_foreign(name)
    device.publish(WEB, revision=3)
    device.wait(60)
    assert device.state()["apps"]["web"]["services"]["api"]["reason"]["code"] == "name_in_use"
    assert device.world.containers[foreign].up
    device.world.rm(foreign)
    device.converge()
    assert device.ups() == {"web/api"}


def test_nothing_is_planned_from_a_look_that_a_step_has_outdated():
    apps = {name: app(api=service(), db=service("db:1")) for name in ("a", "b", "c")}
    for seed in range(30):
        device = Device(images=ALL, seed=seed)
        device.mixed = True
        device.boot()
        device.publish(apps)
        device.converge()
        device.fuse.reset()
        device.publish({name: app(api=service("api:2"), db=service("db:2")) for name in apps}, revision=2)
        device.converge()
        assert device.fuse.calls.count("create") == 6, seed
        assert device.fuse.calls.count("start") == 6
        assert device.fuse.calls.count("stop") == 6
        assert not [ack for ack in device.told() if ack.startswith("failed")]


def test_only_what_may_pass_by_itself_is_tried_again_at_once():
    for kind, calls in ((Kind.TEMPORARY, 3), (Kind.OUTSIDE, 1), (Kind.TARGET, 1)):
        device = online()

        def fails(name, kind=kind):
            if name == "create":
                raise EngineError("broken", "it fails", kind)

        device.trouble = fails
        device.wait(3)
        device.publish(WEB)
        assert device.fuse.calls.count("create") == calls


def test_the_old_one_runs_on_with_its_network_although_that_was_replaced_and_the_new_one_is_bad():
    device = settled({"web": app(api=service(networks=["default"]))})
    old = device.containers()["web/api"]
    device.world.add_image("bad:1", behaviour=Behaviour(start_error=("bad_command", Kind.TARGET)))
    internal = {"networks": {"default": {"internal": True}}}
    device.publish({"web": app(internal, api=service("bad:1", networks=["default"]))}, revision=2)
    device.wait(60)
    ids = {network.name: network.id for network in device.world.networks.values()}
    assert old.up
    assert old.attached == {"web_default": ids["web_default"]}


def test_an_app_counts_as_removed_when_it_is_gone_and_not_when_it_is_going():
    device = settled({"web": app(api=service()), "db": app(db=service("db:1"))})
    container = device.containers()["db/db"]
    container.status = Status.REMOVING
    device.publish(WEB, revision=2)
    device.wait(30)
    assert "applied 1.2" not in device.told()
    device.world.rm(container.id)
    device.converge()
    assert device.told()[-1] == "applied 1.2"


def test_nobody_is_stopped_for_a_network_that_a_stranger_is_on() -> None:
    on = {"networks": ["default"]}
    device = settled({"web": app(api=service(**on))})
    name = "web_default"
    stranger = device.world.required(device.world.add_foreign("stranger"))
    stranger.attached[name] = device.world.network_named(name).id
    before = device.containers()["web/api"].started_at
    device.publish({"web": app({"networks": {"default": {"internal": True}}}, api=service(**on))}, revision=2)
    device.wait(900)
    assert device.containers()["web/api"].started_at == before
    reason = device.state()["apps"]["web"]["reason"]
    assert reason["code"] == "network_in_use"
    assert "stranger" in reason["message"]
    device.world.rm("stranger")
    device.converge()
    assert device.told()[-1] == "applied 1.2"


def test_two_containers_that_cannot_be_removed_wait_together_and_longer_each_time():
    device = settled()
    made = device.containers()["web/api"].made
    for number in range(2):
        labels = {**made.labels, "device-agent.spec": f"other-{number}"}
        device.world.add(replace(made, name=f"copy-{number}", labels=labels))

    def trouble(name: str) -> None:
        if name == "remove":
            raise EngineError("engine_error", "it is busy", Kind.OUTSIDE)

    device.trouble = trouble
    device.fuse.reset()
    device.wait(3600)
    assert 10 < device.fuse.calls.count("remove") < 200


def test_a_job_that_fails_beside_what_it_replaced_is_not_run_over_and_over():
    device = online()
    device.world.add_image("bad:1", behaviour=Behaviour(exit_code=3))
    gate = {"x-release": {"on_failure": "retry"}}
    device.publish({"web": {**app(job=service("api:1", restart="no")), **gate}})
    device.converge()
    device.publish({"web": {**app(job=service("bad:1", restart="no")), **gate}}, revision=2)
    device.fuse.reset()
    device.wait(3600)
    assert 10 < device.fuse.calls.count("start") < 200


def test_a_port_of_what_start_first_keeps_goes_to_who_takes_it() -> None:
    device = settled({"web": app(api=service("api:1", ports=["8080:80"]))})
    beside = service("api:1", environment={"N": "2"}, **{"x-update": {"strategy": "start-first"}})
    device.publish({"web": app(api=beside, front=service("api:1", ports=["8080:80"]))}, revision=2)
    device.converge(60)
    assert device.ups() == {"web/api", "web/front"}
    assert "applied 1.2" in device.told()


def test_a_copy_made_by_hand_with_limits_of_its_own_goes_and_is_told():
    device = settled()
    mine = device.containers()["web/api"]
    device.engine.create(replace(mine.made, name="copy"))
    device.engine.start("copy")
    device.world.update("copy", memory=7 * 2**20)
    device.wait(60)
    assert device.containers()["web/api"].id == mine.id
    assert device.events() == ["drift"]


@pytest.mark.parametrize("strategy", ["recreate", "start-first"])
def test_what_is_replaced_for_its_drift_is_told_once(strategy):
    device = settled({"web": app(api=service("api:1", **{"x-update": {"strategy": strategy}}))})
    device.world.update(device.containers()["web/api"].id, memory=7 * 2**20)
    device.converge()
    device.wait(60)
    assert [container.limits.memory for container in device.containers().values()] == [0]
    assert device.events() == ["drift"]

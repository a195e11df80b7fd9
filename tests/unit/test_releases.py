"""Releases that fail their gate, and what is run in their place; replacements without downtime."""

import pytest

from cloud_sim.engine_parts import Behaviour
from device_agent.core.gate import Open
from device_agent.model.errors import Kind
from device_agent.model.observed import Health
from device_agent.runtime.workers import STOP
from tests.builders import app, service
from tests.device import Device, PowerCut, online, settled

V1 = {"web": app(api=service("api:1"), db=service("db:1"))}
V2 = {"web": app(api=service("api:2"), db=service("db:2"))}

BAD = {
    "exited": Behaviour(exit_code=3, output="no config\n"),
    "unhealthy": Behaviour(health=Health.UNHEALTHY),
    "bad_command": Behaviour(start_error=("bad_command", Kind.TARGET)),
}


def running(behaviour: Behaviour | None = None, **keys: object) -> Device:
    """It runs release r1 of two services; `api:2` behaves as given."""
    device = settled(V1, release="r1", **keys)
    if behaviour:
        device.world.add_image("api:2", behaviour=behaviour)
    return device


def ids(device: Device) -> dict[str, str]:
    return {key: container.id for key, container in device.containers().items()}


def images(device: Device) -> dict[str, str]:
    return {key: container.made.image for key, container in device.containers().items()}


@pytest.mark.parametrize("fault", BAD)
def test_a_release_that_fails_is_rolled_back_to_the_very_containers_that_ran_before(fault: str) -> None:
    device = running(BAD[fault])
    before = ids(device)
    checked = service("api:2", healthcheck={"test": ["CMD", "true"], "interval": "1s"})
    device.publish({"web": app(api=checked, db=service("db:2"))}, revision=2, release="r2")
    device.wait(60)
    assert ids(device) == before
    assert device.ups() == {"web/api", "web/db"}
    told = device.told()
    assert "rolled_back 1.2 web" in told
    assert told[-1] == "rolled_back 1.2"
    (ack,) = [ack for ack in device.acks() if ack["verdict"] == "rolled_back" and "app" in ack]
    assert ack["from"] == {"epoch": 1, "revision": 2, "release": "r2"}
    assert ack["to"] == {"epoch": 1, "revision": 1, "release": "r1"}
    state = device.state()
    assert state["converged"] is False
    assert state["have"]["fleet"]["revision"] == 2
    shown = state["apps"]["web"]
    assert (shown["release"], shown["phase"], shown["reason"]["code"]) == ("r1", "settled", "rolled_back")


def test_a_release_is_applied_only_once_it_has_been_good_for_long_enough() -> None:
    device = running()
    device.publish(V2, revision=2)
    device.wait(9)
    assert "applied 1.2" not in device.told()
    assert device.state()["apps"]["web"]["phase"] == "gating"
    device.wait(5)
    assert device.told()[-1] == "applied 1.2"
    assert images(device) == {"web/api": "api:2", "web/db": "db:2"}


def test_how_long_is_the_targets_to_say() -> None:
    device = running()
    device.publish({"web": {**V2["web"], "x-release": {"healthy_for": "1m"}}}, revision=2)
    device.wait(55)
    assert "applied 1.2" not in device.told()
    device.wait(10)
    assert device.told()[-1] == "applied 1.2"


def test_a_bad_release_is_not_tried_again_before_a_newer_revision() -> None:
    device = running(BAD["exited"])
    device.publish(V2, revision=2)
    device.wait(60)
    before = ids(device)
    device.wait(3600)
    device.boot().wait(600)
    assert ids(device) == before
    assert device.told().count("applying 1.2 web") == 1
    device.world.add_image("api:2", behaviour=Behaviour())
    device.publish(V2, revision=3)
    device.converge()
    assert images(device) == {"web/api": "api:2", "web/db": "db:2"}
    assert device.told()[-1] == "applied 1.3"


def test_what_only_the_bad_release_has_is_removed() -> None:
    device = running(BAD["exited"])
    more = {"web": app(api=service("api:2"), db=service("db:1"), extra=service("db:2"))}
    device.publish(more, revision=2)
    device.wait(60)
    assert set(device.containers()) == {"web/api", "web/db"}


def test_a_first_release_has_nothing_to_go_back_to_and_is_retried() -> None:
    device = online()
    device.world.add_image("api:1", behaviour=BAD["exited"])
    device.publish(V1)
    device.wait(120)
    assert not [line for line in device.told() if line.startswith("rolled_back")]
    assert "failed 1.1 web api crash_loop" in device.told()
    device.world.behaviours[device.world.images["docker.io/library/api:1"]] = Behaviour()
    device.converge()
    assert device.told()[-1] == "applied 1.1"


def test_retry_keeps_trying() -> None:
    device = running(BAD["bad_command"])
    device.publish({"web": {**V2["web"], "x-release": {"on_failure": "retry"}}}, revision=2)
    device.wait(120)
    assert not [line for line in device.told() if line.startswith("rolled_back")]
    device.world.add_image("api:2", behaviour=Behaviour())
    device.world.behaviours[device.world.images["docker.io/library/api:2"]] = Behaviour()
    device.converge()
    assert device.told()[-1] == "applied 1.2"


def test_hold_leaves_everything_as_it_is() -> None:
    device = running(BAD["exited"])
    device.publish({"web": {**V2["web"], "x-release": {"on_failure": "hold"}}}, revision=2)
    device.wait(60)
    assert "held 1.2 web" in device.told()
    assert device.state()["apps"]["web"]["phase"] == "held"
    device.publish(V1, revision=3)
    device.converge()
    assert images(device) == {"web/api": "api:1", "web/db": "db:1"}


def test_a_missing_image_is_no_failure_of_the_release() -> None:
    device = running()
    device.publish({"web": app(api=service("nowhere:1"), db=service("db:2"))}, revision=2)
    device.wait(1200)
    assert device.ups() == {"web/api", "web/db"}
    assert images(device) == {"web/api": "api:1", "web/db": "db:1"}
    assert not [line for line in device.told() if line.startswith("rolled_back")]


def test_what_never_becomes_good_fails_at_the_deadline() -> None:
    device = running(Behaviour(health=Health.STARTING))
    checked = service("api:2", healthcheck={"test": ["CMD", "true"], "interval": "1s"})
    document = {"web": {**app(api=checked, db=service("db:1")), "x-release": {"deadline": "2m"}}}
    device.publish(document, revision=2)
    device.wait(100)
    assert {c.made.image for c in device.world.containers.values() if c.up} == {"api:2", "db:1"}
    device.wait(60)
    assert images(device)["web/api"] == "api:1"
    assert device.told()[-1] == "rolled_back 1.2"


def test_a_gate_survives_a_restart_of_the_agent() -> None:
    device = running(BAD["exited"])
    before = ids(device)
    device.publish(V2, revision=2)
    device.boot()
    device.wait(60)
    assert ids(device) == before
    assert device.told()[-1] == "rolled_back 1.2"


def rolled_back_with_a_cut(at: int | None) -> Device:
    """The power is cut at a call of a port while a bad release is tried and rolled back; the agent starts again."""
    device = running(BAD["exited"])
    device.fuse.reset()
    device.fuse.at = at
    try:
        device.publish(V2, revision=2, release="r2")
        device.wait(60)
    except PowerCut:
        device.fuse.reset()
        device.cut_power(world_too=False)
        device.boot().wait(120)
    return device


def test_a_power_cut_at_any_call_of_a_roll_back_changes_nothing_about_its_end() -> None:
    calls = len(rolled_back_with_a_cut(None).fuse.calls)
    assert calls > 20
    for at in range(1, calls + 1):
        device = rolled_back_with_a_cut(at)
        assert images(device) == {"web/api": "api:1", "web/db": "db:1"}, f"cut at call {at}"
        assert device.ups() == {"web/api", "web/db"}, f"cut at call {at}"
        assert device.told()[-1] == "rolled_back 1.2", f"cut at call {at}"


def test_a_release_that_was_rolled_back_does_not_displace_the_last_good_one() -> None:
    device = running(BAD["exited"])
    device.publish(V2, revision=2)
    device.wait(60)
    assert device.told()[-1] == "rolled_back 1.2"
    assert [target.version for target in device.store.good] == [(1, 1)]


def test_a_gate_that_is_nearly_decided_does_not_make_the_agent_look_without_end() -> None:
    device = settled(V1)
    device.publish({**V2, "more": app(api=service("api:1"))}, revision=2)
    device.wait(9.9)
    device.agent.reconciler.wake()
    device.settle()
    device.jobs.held.add(STOP)
    device.publish({"more": app(api=service("api:1"))}, revision=3)
    device.fuse.reset()
    device.wait(8)
    assert device.fuse.calls.count("observe") < 10


def test_what_a_float_leaves_of_a_gate_is_waited_for() -> None:
    device = settled(V1)
    device.agent.releases.verdicts["web"] = Open(wait_s=1.2e-13)
    now = device.clock.monotonic()
    assert now + (device.agent.releases.next_wait_s(["web"]) or 0) > now


def test_rolling_back_needs_no_registry() -> None:
    device = running(BAD["exited"])
    device.publish(V2, revision=2)
    device.world.registry_down = True
    device.wait(60)
    assert images(device) == {"web/api": "api:1", "web/db": "db:1"}


def test_start_first_never_leaves_a_service_without_a_running_container() -> None:
    first = {"web": {**app(api=service("api:1")), "x-update": {"strategy": "start-first"}}}
    device = settled(first)
    gaps = []
    seen = device.watch

    def watch() -> None:
        seen()
        if "web/api" not in device.ups():
            gaps.append(list(device.fuse.calls[-3:]))

    device.watch = watch  # type: ignore[method-assign]
    device.publish({"web": {**app(api=service("api:2")), "x-update": {"strategy": "start-first"}}}, revision=2)
    device.converge()
    assert images(device) == {"web/api": "api:2"}
    assert gaps == []


def test_start_first_keeps_the_old_one_running_when_the_new_one_fails() -> None:
    first = {"web": {**app(api=service("api:1")), "x-update": {"strategy": "start-first"}}}
    device = settled(first)
    before = ids(device)
    started = device.containers()["web/api"].started_at
    device.world.add_image("api:2", behaviour=BAD["exited"])
    device.publish({"web": {**app(api=service("api:2")), "x-update": {"strategy": "start-first"}}}, revision=2)
    device.wait(60)
    assert ids(device) == before
    assert device.containers()["web/api"].started_at == started

"""What an operator tells a device to do: stop, start, restart, retry. It is kept, and the target stays what it was."""

import pytest

from cloud_sim.engine_parts import Behaviour
from device_agent.model.observed import Status
from device_agent.runtime.workers import STOP
from tests.builders import app, service
from tests.device import Device, PowerCut, online, settled

V1 = {"web": app(api=service("api:1", depends_on=["db"]), db=service("db:1"))}
V2 = {"web": app(api=service("api:2", depends_on=["db"]), db=service("db:1"))}


def running() -> Device:
    device = settled(V1, release="r1")
    device.wait(20)
    return device


def did(device: Device, verb: str, **args: str):
    answer = device.ask(verb, **args)
    assert answer["status"] == "ok", answer
    device.wait(30)
    return answer["result"]


def refused(device: Device, verb: str, **args: object) -> str:
    answer = device.ask(verb, **args)
    assert answer["status"] == "error"
    assert answer["error"]["message"]
    return answer["error"]["code"]


def status_of(device: Device, service_name: str) -> str:
    return device.state()["apps"]["web"]["services"][service_name]["status"]


def starts(device: Device) -> dict[str, str]:
    return {name: container.started_at for name, container in device.containers().items()}


# Stop and start.


def test_a_stopped_service_stays_stopped_and_the_device_has_converged():
    device = running()
    told = device.told()
    assert did(device, "stop", app="web", service="api") == {"app": "web", "services": ["api"]}
    assert device.ups() == {"web/db"}
    assert status_of(device, "api") == "stopped"
    assert device.state()["converged"] is True
    assert device.told() == told
    assert "drift" not in device.events()


def test_an_app_is_stopped_dependents_first():
    device = running()
    device.fuse.reset()
    order = []
    device.watch = lambda: order.append(frozenset(device.ups()))
    assert did(device, "stop", app="web")["services"] == ["db", "api"]
    assert device.ups() == set()
    assert {"web/api"} not in order


def test_a_stop_outlives_the_agent_and_the_machine():
    device = running()
    did(device, "stop", app="web", service="api")
    device.cut_power(world_too=True)
    device.boot().wait(30)
    assert device.ups() == {"web/db"}
    device.world.find(device.containers()["web/api"].id)


def test_somebody_who_starts_a_stopped_container_by_hand_is_put_right():
    device = running()
    did(device, "stop", app="web", service="api")
    device.engine.start(device.containers()["web/api"].id)
    device.wait(5)
    assert device.ups() == {"web/db"}


def test_a_start_takes_the_stop_back():
    device = running()
    before = {name: container.id for name, container in device.containers().items()}
    did(device, "stop", app="web")
    did(device, "start", app="web")
    assert device.ups() == {"web/api", "web/db"}
    assert {name: container.id for name, container in device.containers().items()} == before
    assert device.store.rows.orders == {}
    assert device.store.rows.attempts == {}
    assert "drift" not in device.events()


def test_a_start_while_it_is_being_stopped_is_no_drift():
    """A container that does not end by itself takes its grace, and operators are faster."""
    device = running()
    device.jobs.held.add(STOP)
    device.ask("stop", app="web", service="api")
    device.ask("start", app="web", service="api")
    device.jobs.held.clear()
    device.wait(30)
    assert device.ups() == {"web/api", "web/db"}
    assert device.store.rows.orders == {}
    assert device.store.rows.attempts == {}
    assert "drift" not in device.events()


def test_a_start_of_what_runs_changes_nothing():
    device = running()
    before = starts(device)
    did(device, "start", app="web")
    assert starts(device) == before


def test_a_start_does_not_wait_after_failures():
    device = running()
    device.world.add_image("api:1", behaviour=Behaviour(exit_code=1))
    did(device, "stop", app="web", service="api")
    for _ in range(3):
        device.ask("start", app="web", service="api")
    assert not device.agent.reconciler.retries.rows or all(
        row.count == 1 for row in device.agent.reconciler.retries.rows.values()
    )


def test_a_stop_ends_with_another_definition():
    device = running()
    did(device, "stop", app="web")
    device.publish(V2, revision=2)
    device.wait(60)
    assert device.ups() == set()
    reason = device.state()["apps"]["web"]["services"]["api"]["reason"]
    assert "db runs (it is kept stopped by an operator)" in reason["message"]
    device.publish({"web": app(api=service("api:2"), db=service("db:2"))}, revision=3)
    device.converge()
    assert device.ups() == {"web/api", "web/db"}
    assert device.store.rows.orders == {}


def test_a_service_that_the_release_leaves_as_it_is_stays_stopped():
    device = running()
    did(device, "stop", app="web", service="db")
    device.publish({"web": app(api=service("api:2"), db=service("db:1"))}, revision=2)
    device.converge()
    assert device.ups() == {"web/api"}
    assert device.told()[-1] == "applied 1.2"


def test_a_stop_while_a_release_is_under_way_is_carried_out_after_its_step():
    device = running()
    device.jobs.held.add(STOP)
    device.publish(V2, revision=2)
    device.ask("stop", app="web", service="db")
    device.jobs.held.clear()
    device.wait(60)
    assert device.ups() == {"web/api"}
    assert device.told()[-1] == "applied 1.2"


def test_a_release_that_waits_for_what_an_operator_stopped_does_not_fail_its_gate():
    device = running()
    did(device, "stop", app="web", service="db")
    device.publish(V2, revision=2)
    device.wait(1000)
    assert not [ack for ack in device.told() if ack.startswith(("failed 1.2", "rolled_back"))]
    assert device.state()["apps"]["web"]["services"]["api"]["reason"]["code"] == "dependency"
    did(device, "start", app="web", service="db")
    assert device.told()[-1] == "applied 1.2"


def test_what_the_target_keeps_stopped_is_the_targets():
    device = settled({"web": app(api=service(**{"x-state": "stopped"}), db=service("db:1"))})
    assert status_of(device, "api") == "stopped"
    assert device.ups() == {"web/db"}
    assert refused(device, "start", app="web", service="api") == "kept_stopped"
    assert did(device, "restart", app="web")["services"] == ["db"]
    device.publish({"web": app(api=service(), db=service("db:1"))}, revision=2)
    device.converge()
    assert device.ups() == {"web/api", "web/db"}


def test_a_removed_app_is_removed_with_what_was_said_of_it():
    device = settled({**V1, "other": app(kept=service("db:2"))})
    did(device, "stop", app="web")
    device.publish({"other": app(kept=service("db:2"))}, revision=2)
    device.converge()
    assert device.store.rows.orders == {}
    assert device.containers().keys() == {"other/kept"}


# Restart.


def test_a_restart_is_the_same_container_and_no_drift():
    device = running()
    before, told = device.containers(), device.told()
    at = starts(device)
    device.wait(5)
    did(device, "restart", app="web", service="api")
    after = device.containers()
    assert after["web/api"].id == before["web/api"].id
    assert starts(device)["web/api"] != at["web/api"]
    assert starts(device)["web/db"] == at["web/db"]
    assert device.told() == told
    assert "drift" not in device.events()
    assert device.store.rows.orders == {}
    assert device.state()["converged"] is True


def test_a_restart_of_what_is_stopped_starts_it():
    device = running()
    did(device, "stop", app="web", service="api")
    did(device, "restart", app="web", service="api")
    assert device.ups() == {"web/api", "web/db"}


@pytest.mark.parametrize("verb", ["stop", "restart", "start"])
def test_the_power_goes_at_every_call_of_an_order(verb: str):
    """It has been carried out once, or, where it never got to the disk, not at all."""
    number, cut = 0, True
    while cut:
        number += 1
        device = running()
        if verb == "start":
            did(device, "stop", app="web", service="api")
        at = starts(device)["web/api"]
        device.wait(5)
        device.fuse.reset(number)
        try:
            device.ask(verb, app="web", service="api")
            device.wait(30)
            cut = False
        except PowerCut:
            kept = any(order.verb == verb for order in device.store.rows.orders.values())
            device.cut_power()
            device.boot().wait(30)
        device.fuse.reset()
        device.wait(30)
        up = "web/api" in device.ups()
        after = starts(device)["web/api"]
        if not cut or kept:
            assert up == (verb != "stop"), f"call {number}"
            assert (after == at) == (verb == "stop"), f"call {number}"
        assert "web/db" in device.ups()
    assert number > 8


# What cannot be done.


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({}, "malformed"),
        ({"app": 3}, "malformed"),
        ({"app": "web", "service": ""}, "malformed"),
        ({"app": "web", "more": 1}, "malformed"),
        ({"app": "nothing"}, "not_found"),
        ({"app": "web", "service": "nothing"}, "not_found"),
    ],
)
@pytest.mark.parametrize("verb", ["stop", "start", "restart"])
def test_an_order_that_means_nothing_is_refused(verb: str, args: dict[str, object], code: str):
    device = running()
    assert refused(device, verb, **args) == code
    assert device.ups() == {"web/api", "web/db"}


def test_an_order_that_cannot_be_kept_is_not_carried_out():
    device = running()
    device.store.full = True
    assert refused(device, "stop", app="web") == "disk_full"
    device.wait(30)
    assert device.ups() == {"web/api", "web/db"}


def test_what_belongs_to_a_lost_target_is_left_alone():
    device = running()
    device.cut_power()
    device.store.rows.targets.clear()
    device.boot()
    assert refused(device, "stop", app="web") == "target_unknown"


# Retry.


def test_a_retry_gives_a_release_that_failed_another_gate():
    device = running()
    device.world.add_image("api:2", behaviour=Behaviour(exit_code=3))
    device.publish(V2, revision=2, release="r2")
    device.wait(60)
    assert device.told()[-1] == "rolled_back 1.2"
    device.world.add_image("api:2", behaviour=Behaviour())
    assert did(device, "retry", app="web")["release"] == {"revision": "fleet:1.2", "release": "r2"}
    device.wait(30)
    assert device.told()[-2:] == ["applied 1.2 web", "applied 1.2"]
    assert device.store.rows.bad == {}
    assert device.containers()["web/api"].made.image == "api:2"


def test_a_retry_that_fails_again_is_rolled_back_again():
    device = running()
    device.world.add_image("api:2", behaviour=Behaviour(exit_code=3))
    device.publish(V2, revision=2, release="r2")
    device.wait(60)
    did(device, "retry", app="web")
    device.wait(60)
    assert device.told().count("rolled_back 1.2") == 2
    assert device.containers()["web/api"].made.image == "api:1"


def test_a_retry_does_not_wait_any_longer():
    device = online()
    device.publish({"web": app(api=service("later:1"))})
    device.wait(600)
    assert device.store.rows.attempts
    device.world.offer_image("later:1")
    before = device.clock.monotonic()
    assert device.ask("retry", app="web")["result"]["attempts"] == 1
    device.settle()
    assert device.clock.monotonic() == before
    assert device.ups() == {"web/api"}


def test_there_is_nothing_to_retry_of_what_is_not_wanted():
    assert refused(running(), "retry", app="nothing") == "not_found"


def test_what_was_held_for_its_failure_can_be_tried_again():
    device = running()
    device.world.add_image("api:2", behaviour=Behaviour(exit_code=3))
    device.publish({"web": {**V2["web"], "x-release": {"on_failure": "hold"}}}, revision=2)
    device.wait(60)
    assert device.state()["apps"]["web"]["phase"] == "held"
    assert refused(device, "stop", app="web") == "release_failed"
    device.clock.pass_(0.1)  # its last crash is seen
    device.settle()
    device.world.add_image("api:2", behaviour=Behaviour())
    did(device, "retry", app="web")
    device.wait(60)
    assert device.told()[-1] == "applied 1.2"
    assert device.containers()["web/api"].status is Status.RUNNING

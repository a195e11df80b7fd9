"""Releases that wait: for a maintenance window, for an update lock, or because the device's own target says so."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cloud_sim.engine_parts import Behaviour, SimContainer
from device_agent.core.holds import HOLD, LOCK, WINDOW, Facts, ahead, change_to, held, keep_running, next_opening
from device_agent.model.compose import Window
from device_agent.model.errors import EngineAway, EngineError, Kind
from device_agent.model.memory import AppRecord
from device_agent.model.observed import UPDATE_LOCK, Observed, Status
from device_agent.model.steps import Stop
from device_agent.runtime.workers import STOP
from tests.builders import NOW, app, payload, plan, removal, running, service, wanted, world
from tests.device import Device, PowerCut, online, settled

V1 = {"web": app(api=service("api:1"), db=service("db:1"))}
V2 = {"web": app(api=service("api:2"), db=service("db:2"))}
NIGHT = [{"cron": "0 2 * * *", "duration": "2h"}]
HOUR = 3_600_000_000_000


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


# When a window opens.


@pytest.mark.parametrize(
    ("now", "opens"),
    [
        ("2026-11-22 01:59:59", "2026-11-22 02:00:00"),
        ("2026-11-22 02:00:00", "2026-11-22 02:00:00"),
        ("2026-11-22 03:59:59", "2026-11-22 03:59:59"),
        ("2026-11-22 04:00:00", "2026-11-23 02:00:00"),
    ],
)
def test_a_window_is_open_from_its_time_for_its_length(now: str, opens: str) -> None:
    assert next_opening([Window(cron="0 2 * * *", duration=2 * HOUR)], at(now)) == at(opens)


def test_of_several_windows_the_first_counts() -> None:
    windows = [Window(cron="0 2 * * *", duration=HOUR), Window(cron="30 1 * * *", duration=HOUR)]
    assert next_opening(windows, at("2026-11-22 00:00")) == at("2026-11-22 01:30")
    assert next_opening(windows, at("2026-11-22 02:45")) == at("2026-11-22 02:45")


def test_a_window_can_be_longer_than_the_time_between_two() -> None:
    assert next_opening([Window(cron="0 * * * *", duration=3 * HOUR)], NOW) == NOW


def test_a_window_is_of_its_time_zone_also_when_its_clock_is_put_back() -> None:
    berlin = [Window(cron="0 2 * * *", duration=HOUR, timezone="Europe/Berlin")]
    assert next_opening(berlin, at("2026-07-01 12:00")) == at("2026-07-02 00:00")
    assert next_opening(berlin, at("2026-12-01 12:00")) == at("2026-12-02 01:00")
    open_at = next_opening([replace_window(berlin[0], "30 3 * * *")], at("2026-10-25 02:40"))
    assert open_at == at("2026-10-25 02:40")


def replace_window(window: Window, cron: str) -> Window:
    return window.model_copy(update={"cron": cron})


# What waits, and what does not.

OLD, NEW = wanted(V1["web"]), wanted(V2["web"])
RECORD = AppRecord(
    "web", OLD.digest, {name: running(OLD, name).spec for name in OLD.services}, "r1", None, "fleet:1.1", V1["web"]
)
RUNS = world(OLD, running(OLD, "api"), running(OLD, "db"), images={**world(OLD).images, **world(NEW).images})
LATER = (Window(cron="0 2 * * *", duration=HOUR),)


def cause(change: Any, **facts: Any) -> str | None:
    why = held(change, Facts(NOW, **facts))
    return why.cause if why else None


def release(observed: Observed = RUNS, record: AppRecord | None = RECORD) -> Any:
    return change_to(NEW, plan(NEW, observed, settled=OLD), observed, record)


def test_the_causes_in_their_order() -> None:
    locks = {"api-id": "locked"}
    assert cause(release()) is None
    assert cause(release(), locks=locks) == LOCK
    assert cause(release(), locks=locks, windows=LATER) == WINDOW
    assert cause(release(), locks=locks, windows=LATER, frozen="1.7") == HOLD
    assert cause(release(), locks=locks, windows=LATER, unlocked=True) is None
    assert cause(release(), unlocked=True, frozen="1.7") == HOLD


def test_a_release_that_has_begun_goes_on_but_for_a_lock() -> None:
    observed = replace(RUNS, containers=(running(NEW, "api"), running(OLD, "db")))
    assert release(observed).begun
    assert cause(release(observed), windows=LATER, frozen="1.7") is None
    assert cause(release(observed), locks={"db-id": "locked"}) == LOCK


def test_what_was_only_created_has_not_begun() -> None:
    created = running(NEW, "api", id="new", status=Status.CREATED, started_at=None)
    assert not release(replace(RUNS, containers=(*RUNS.containers, created))).begun


def test_a_first_install_waits_for_no_window() -> None:
    assert cause(release(Observed(images=RUNS.images), None), windows=LATER) is None
    assert cause(release(Observed(images=RUNS.images), None), frozen="1.7") == HOLD


def test_a_release_that_changes_nothing_does_not_wait() -> None:
    same = change_to(OLD, plan(OLD, RUNS, settled=OLD), RUNS, RECORD)
    assert cause(same, windows=LATER, frozen="1.7") is None


def test_a_removal_waits_as_well() -> None:
    gone = change_to(None, removal("web", RUNS), RUNS, RECORD)
    assert cause(gone, windows=LATER) == WINDOW
    assert cause(gone, locks={"api-id": "locked"}) == LOCK
    assert cause(gone) is None


def test_only_what_runs_and_would_be_stopped_is_asked() -> None:
    half = wanted(app(api=service("api:2"), db=service("db:1")))
    change = change_to(half, plan(half, RUNS, settled=OLD), RUNS, RECORD)
    assert [c.service for c in change.stops] == ["api"]
    for status in (Status.RESTARTING, Status.EXITED):
        observed = replace(RUNS, containers=(running(OLD, "api", status=status), running(OLD, "db", status=status)))
        assert release(observed).stops == ()
    forced = wanted(app(api=service("api:2", **{"x-update": {"force": True}}), db=service("db:2")))
    assert [c.service for c in change_to(forced, plan(forced, RUNS, settled=OLD), RUNS, RECORD).stops] == ["db"]


def test_the_images_of_what_waits_are_fetched_ahead() -> None:
    observed = replace(RUNS, images=world(OLD).images)
    assert [str(step.action) for step in ahead(plan(NEW, observed, settled=OLD))] == [
        "pull docker.io/library/api:2",
        "pull docker.io/library/db:2",
    ]


def test_a_locked_container_is_not_stopped_in_the_middle_of_a_release() -> None:
    made = plan(NEW, RUNS, settled=OLD)
    kept = keep_running(made, frozenset({"api-id"}))
    untils = {str(step.action): step.until for step in kept.steps if step.id.startswith("stop")}
    assert sorted(untils.values()) == ["", "its update lock is gone"]


def test_no_network_is_replaced_that_a_locked_container_is_on() -> None:
    def of(number: int) -> Any:
        services = {name: service(f"{name}:{number}", networks=["default"]) for name in ("api", "db")}
        return wanted(app({"networks": {"default": {"internal": number > 1}}}, **services))

    before, after = of(1), of(2)
    runs = world(before, running(before, "api"), running(before, "db"), images={**RUNS.images, **world(after).images})
    kept = keep_running(plan(after, runs, settled=before), frozenset({"api-id"}))
    waits = {step.id for step in kept.steps if step.until == "its update lock is gone"}
    assert "look who is on network web_default" in waits
    db = next(step for step in kept.steps if isinstance(step.action, Stop) and step.action.id == "db-id")
    assert db.after & waits


# On a device.


def holding(first: Any = V1, **keys: Any) -> Device:
    device = settled(first, release="r1", **keys)
    device.wait(20)
    return device


def windowed(contents: Any, *windows: Any) -> Any:
    return {"web": {**contents["web"], "x-maintenance": list(windows)}}


def images_of(device: Device) -> dict[str, str]:
    return {key: container.made.image for key, container in device.containers().items()}


def told(device: Device, revision: int) -> list[str]:
    return [ack for ack in device.told() if f" 1.{revision}" in ack]


def reason(device: Device, name: str = "web") -> Any:
    return device.state()["apps"][name]["reason"]


def lock(device: Device, service_name: str = "api", path: str = UPDATE_LOCK) -> SimContainer:
    container = device.containers()[f"web/{service_name}"]
    container.paths.add(path)
    return container


OLD_IMAGES = {"web/api": "api:1", "web/db": "db:1"}
NEW_IMAGES = {"web/api": "api:2", "web/db": "db:2"}


# Windows.


def test_outside_its_window_a_release_is_pulled_and_waits() -> None:
    device = holding()
    device.world.offer_image("new:1")
    before = {name: c.id for name, c in device.containers().items()}
    contents = {"web": app(api=service("new:1"), db=service("db:1"))}
    device.publish(windowed(contents, *NIGHT), revision=2)
    device.wait(60)
    assert {name: c.id for name, c in device.containers().items()} == before
    assert "docker.io/library/new:1" in device.world.images
    assert told(device, 2) == ["accepted 1.2", "held 1.2 web"]
    (ack,) = [ack for ack in device.acks() if ack["verdict"] == "held"]
    assert (ack["cause"], ack["next_try_at"]) == ("window", "2026-11-23T02:00:00.000Z")
    shown = device.state()["apps"]["web"]
    assert (shown["phase"], shown["release"], shown["revision"]) == ("held", "r1", [1, 1])
    assert shown["reason"]["code"] == "window"
    assert shown["reason"]["next_try_at"] == "2026-11-23T02:00:00.000Z"
    assert device.state()["converged"] is False


def test_when_its_window_begins_it_goes_ahead() -> None:
    device = holding()
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(16 * 3600 - 120)
    assert images_of(device) == OLD_IMAGES
    device.wait(180)
    assert images_of(device) == NEW_IMAGES
    assert told(device, 2)[-1] == "applied 1.2"
    assert device.state()["converged"] is True


def test_while_it_waits_nothing_is_done_or_told() -> None:
    device = holding()
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(120)
    device.fuse.reset()
    device.wait(3600)
    assert not {call for call in device.fuse.calls if call.startswith(("publish", "commit", "has_file"))}
    assert device.fuse.calls.count("observe") <= 7


def test_what_waits_is_repaired_as_it_was() -> None:
    device = holding()
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(60)
    device.engine.remove(device.containers()["web/db"].id)
    device.wait(60)
    assert images_of(device) == OLD_IMAGES
    assert device.ups() == {"web/api", "web/db"}
    assert "drift" in device.events()
    assert told(device, 2) == ["accepted 1.2", "held 1.2 web"]


def test_a_release_that_began_in_its_window_is_finished_outside() -> None:
    device = holding()
    device.clock.time = at("2026-11-23 03:59:50")
    device.jobs.held.add(STOP)
    device.publish({"web": {**windowed(V2, *NIGHT)["web"], "x-release": {"healthy_for": "60s"}}}, revision=2)
    device.jobs.held.clear()
    device.wait(5)
    assert images_of_ups(device) == NEW_IMAGES
    device.wait(90)
    assert told(device, 2)[-1] == "applied 1.2"


def images_of_ups(device: Device) -> dict[str, str]:
    return {f"{c.app}/{c.service}": c.made.image for c in device.world.containers.values() if c.up}


def test_a_roll_back_waits_for_no_window() -> None:
    device = holding()
    device.world.add_image("api:2", behaviour=Behaviour(exit_code=3))
    device.clock.time = at("2026-11-23 03:59:55")
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(60)
    assert told(device, 2)[-1] == "rolled_back 1.2"
    assert images_of(device) == OLD_IMAGES


def test_another_release_without_windows_goes_ahead_at_once() -> None:
    device = holding()
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(60)
    device.publish(V2, revision=3)
    device.wait(60)
    assert told(device, 3)[-1] == "applied 1.3"


def test_a_clock_that_is_set_into_the_window_lets_it_begin() -> None:
    device = holding()
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(60)
    device.clock.time = at("2026-11-24 02:30")
    device.wait(60)
    assert told(device, 2)[-1] == "applied 1.2"


def test_a_clock_that_is_set_back_makes_it_wait_for_the_next_one() -> None:
    device = holding()
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(60)
    device.clock.time = at("2026-11-22 00:00")
    device.wait(60)
    assert reason(device)["next_try_at"] == "2026-11-22T02:00:00.000Z"
    device.wait(2 * 3600)
    assert told(device, 2)[-1] == "applied 1.2"


def test_what_waits_does_so_after_a_restart_of_the_agent_too() -> None:
    device = holding()
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(60)
    device.cut_power(world_too=True)
    device.boot().wait(60)
    assert images_of(device) == OLD_IMAGES
    assert reason(device)["code"] == "window"
    device.wait(16 * 3600)
    assert told(device, 2)[-1] == "applied 1.2"


def test_a_removal_waits_for_the_window_of_what_is_removed() -> None:
    other = {"other": app(kept=service("db:2"))}
    device = online()
    device.publish({**windowed(V1, *NIGHT), **other})
    device.converge()
    device.wait(20)
    device.publish(other, revision=2)
    device.wait(60)
    assert images_of(device).keys() == {"web/api", "web/db", "other/kept"}
    assert told(device, 2) == ["accepted 1.2", "held 1.2 web"]
    assert device.state()["apps"]["web"]["phase"] == "held"
    device.wait(16 * 3600)
    assert images_of(device).keys() == {"other/kept"}
    assert told(device, 2)[-1] == "applied 1.2"


def test_what_waits_after_a_gate_was_open_wakes_nobody() -> None:
    other = {"other": app(kept=service("db:2"))}
    device = holding({**windowed(V1, *NIGHT), **other})
    device.publish({**V2, **other}, revision=2)
    device.wait(3)
    assert device.state()["apps"]["web"]["phase"] == "gating"
    device.publish(other, revision=3)
    device.wait(30)
    assert device.state()["apps"]["web"]["phase"] == "held"
    device.fuse.reset()
    device.wait(600)
    assert device.fuse.calls.count("observe") <= 10


# Update locks.


def test_a_release_waits_while_a_container_holds_its_lock() -> None:
    device = holding()
    container = lock(device)
    device.publish(V2, revision=2)
    device.wait(300)
    assert images_of(device) == OLD_IMAGES
    assert device.ups() == {"web/api", "web/db"}
    assert told(device, 2) == ["accepted 1.2", "applying 1.2 web", "held 1.2 web"]
    assert reason(device)["code"] == "lock"
    assert UPDATE_LOCK in reason(device)["message"]
    container.paths.clear()
    device.wait(40)
    assert images_of(device) == NEW_IMAGES
    device.wait(20)
    assert told(device, 2)[-1] == "applied 1.2"


def test_once_its_window_is_closed_nobody_is_asked_for_locks() -> None:
    device = holding()
    device.clock.time = at("2026-11-23 03:59:00")
    container = lock(device)
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(45)
    assert reason(device)["code"] == "lock"
    device.wait(60)
    assert reason(device)["code"] == "window"
    device.fuse.reset()
    device.wait(3600)
    assert "has_file" not in device.fuse.calls
    container.paths.clear()
    device.wait(24 * 3600)
    assert images_of(device) == NEW_IMAGES


def test_nothing_of_an_app_is_stopped_while_one_of_its_containers_is_locked() -> None:
    device = holding()
    lock(device, "db")
    lowest: list[set[str]] = []
    device.watch = lambda: lowest.append(device.ups())
    device.publish(V2, revision=2)
    device.wait(300)
    assert all({"web/api", "web/db"} <= ups for ups in lowest)


def test_the_lock_is_asked_for_right_before_the_first_stop() -> None:
    device = holding()
    device.fuse.reset()
    device.publish(V2, revision=2)
    device.wait(30)
    calls = [call for call in device.fuse.calls if call in ("create", "has_file", "stop")]
    assert calls == ["create", "create", "has_file", "has_file", "stop", "stop"]


def test_what_a_release_leaves_as_it_is_is_not_asked() -> None:
    device = holding()
    lock(device, "db")
    device.publish({"web": app(api=service("api:2"), db=service("db:1"))}, revision=2)
    device.wait(60)
    assert told(device, 2)[-1] == "applied 1.2"


def test_another_place_for_the_lock() -> None:
    contents = {"web": app(api=service("api:1", labels={"device-agent.update-lock": "/tmp/busy"}), db=service("db:1"))}
    device = holding(contents)
    lock(device)
    lock(device, "api", "/tmp/busy")
    device.publish(V2, revision=2)
    device.wait(60)
    assert "/tmp/busy" in reason(device)["message"]
    device.containers()["web/api"].paths.remove("/tmp/busy")
    device.wait(60)
    assert told(device, 2)[-1] == "applied 1.2"


@pytest.mark.parametrize("kind", ["an error", "away"])
def test_no_answer_is_no_permission(kind: str) -> None:
    device = holding()

    def trouble(name: str) -> None:
        if name == "has_file":
            raise EngineAway("away") if kind == "away" else EngineError("engine_error", "it broke", Kind.TEMPORARY)

    device.trouble = trouble
    device.publish(V2, revision=2)
    device.wait(300)
    assert images_of_ups(device) == OLD_IMAGES
    assert "could not be asked for: " + ("it broke" if kind == "an error" else "away") in reason(device)["message"]
    device.trouble = lambda _name: None
    device.wait(60)
    assert told(device, 2)[-1] == "applied 1.2"


def test_a_container_that_crashes_holds_nothing_up() -> None:
    device = holding()
    container = lock(device)
    device.publish(V2, revision=2)
    device.wait(60)
    assert reason(device)["code"] == "lock"
    device.world.behaviours[container.image_id] = Behaviour(exit_code=1)
    device.world.exit(container.id, 1)
    device.wait(120)
    assert told(device, 2)[-1] == "applied 1.2"


def test_a_target_can_say_that_locks_do_not_count() -> None:
    device = holding()
    lock(device)
    device.publish({"web": {**V2["web"], "x-update": {"force": True}}}, revision=2)
    device.wait(60)
    assert told(device, 2)[-1] == "applied 1.2"


def test_an_operator_can_unlock_one_release() -> None:
    device = holding()
    assert device.ask("unlock", app="web")["error"]["code"] == "not_held"
    lock(device)
    device.publish(V2, revision=2)
    device.wait(60)
    assert device.ask("unlock", app="web")["result"] == {"app": "web", "cause": "lock"}
    device.wait(60)
    assert told(device, 2)[-1] == "applied 1.2"
    assert device.store.rows.orders == {}
    lock(device)
    device.publish(V1, revision=3)
    device.wait(60)
    assert reason(device)["code"] == "lock"


def test_an_unlock_outlives_the_agent() -> None:
    device = holding()
    lock(device)
    device.publish(V2, revision=2)
    device.wait(60)
    device.jobs.held.add(STOP)
    device.ask("unlock", app="web")
    device.cut_power()
    device.boot().wait(60)
    assert told(device, 2)[-1] == "applied 1.2"


def test_an_unlock_opens_a_window_too() -> None:
    device = holding()
    device.publish(windowed(V2, *NIGHT), revision=2)
    device.wait(60)
    assert device.ask("unlock", app="web")["result"]["cause"] == "window"
    device.wait(60)
    assert told(device, 2)[-1] == "applied 1.2"


def test_a_removed_app_and_a_removed_service_have_their_locks() -> None:
    device = holding({**V1, "other": app(kept=service("db:2"))})
    container = lock(device)
    device.publish({"web": app(db=service("db:1")), "other": app(kept=service("db:2"))}, revision=2)
    device.wait(60)
    assert "web/api" in device.ups()
    assert reason(device)["code"] == "lock"
    device.publish({"other": app(kept=service("db:2"))}, revision=3)
    device.wait(60)
    assert device.ups() == {"web/api", "web/db", "other/kept"}
    assert reason(device)["code"] == "lock"
    container.paths.clear()
    device.wait(60)
    assert device.ups() == {"other/kept"}
    assert told(device, 3)[-1] == "applied 1.3"


def test_an_operator_who_stops_or_restarts_does_not_ask() -> None:
    device = holding()
    lock(device)
    device.ask("stop", app="web", service="api")
    device.wait(30)
    assert device.ups() == {"web/db"}


def test_repairs_do_not_ask() -> None:
    device = holding()
    lock(device)
    device.engine.remove(device.containers()["web/db"].id)
    device.fuse.reset()
    device.wait(30)
    assert device.ups() == {"web/api", "web/db"}
    assert "has_file" not in device.fuse.calls


def test_a_lock_that_is_taken_in_the_middle_of_a_release_keeps_its_container() -> None:
    checked = service("db:2", healthcheck={"test": ["CMD", "true"], "interval": "1s"})
    contents = {"web": app(api=service("api:2", depends_on={"db": {"condition": "service_healthy"}}), db=checked)}
    device = holding()
    started = False

    def watch() -> None:
        nonlocal started
        ups = images_of_ups(device)
        if ups.get("web/db") == "db:2" and not started:
            started = True
            device.world.find("web-api-8d023c")
            next(c for c in device.world.containers.values() if c.made.image == "api:1").paths.add(UPDATE_LOCK)

    device.watch = watch
    device.publish(contents, revision=2)
    device.wait(600)
    assert images_of_ups(device) == {"web/api": "api:1", "web/db": "db:2"}
    assert reason(device)["code"] == "lock"
    assert not [ack for ack in told(device, 2) if "rolled_back" in ack or "failed" in ack]
    next(c for c in device.world.containers.values() if c.made.image == "api:1").paths.clear()
    device.wait(90)
    assert images_of(device) == NEW_IMAGES
    assert told(device, 2)[-1] == "applied 1.2"


def test_a_lock_in_the_middle_of_a_release_holds_up_no_other_service() -> None:
    def release(number: int) -> Any:
        needs = {"depends_on": {"db": {"condition": "service_healthy"}}}
        db = service(f"db:{number}", healthcheck={"test": ["CMD", "true"], "interval": "1s"})
        return {"web": app(api=service(f"api:{number}", **needs), front=service(f"api:{number}", **needs), db=db)}

    def watch() -> None:
        if images_of_ups(device).get("web/db") == "db:2" and not locked.paths:
            locked.paths.add(UPDATE_LOCK)

    device = holding(release(1))
    locked = device.containers()["web/api"]
    device.watch = watch
    device.publish(release(2), revision=2)
    device.wait(100)
    assert images_of_ups(device) == {"web/api": "api:1", "web/front": "api:2", "web/db": "db:2"}
    assert reason(device)["code"] == "lock"
    device.watch = lambda: None
    locked.paths.clear()
    device.wait(90)
    assert told(device, 2)[-1] == "applied 1.2"


# A device that is held by its own target.


def hold(device: Device, revision: int, apps: Any = None, *, on: bool = True) -> None:
    device.publish(apps if apps is not None else {}, device="d1", revision=revision, hold=on)
    device.wait(60)


def test_a_held_device_takes_targets_and_carries_none_out() -> None:
    device = holding()
    hold(device, 1)
    assert device.state()["converged"] is True
    device.publish({**V2, "new": app(api=service("api:1"))}, revision=2)
    device.wait(60)
    assert images_of(device) == OLD_IMAGES
    assert told(device, 2) == ["accepted 1.2", "held 1.2 new", "held 1.2 web"]
    assert {ack["cause"] for ack in device.acks() if ack["verdict"] == "held"} == {"hold"}
    assert device.state()["converged"] is False
    assert device.state()["have"]["fleet"]["revision"] == 2
    device.publish({}, revision=3, allow_empty=True)
    device.wait(60)
    assert images_of(device) == OLD_IMAGES
    device.publish(V2, revision=4)
    device.wait(60)
    hold(device, 2, on=False)
    assert images_of(device) == NEW_IMAGES
    assert told(device, 4)[-1] == "applied 1.4"
    assert device.state()["converged"] is True


def test_a_held_device_is_repaired() -> None:
    device = holding()
    hold(device, 1)
    device.publish(V2, revision=2)
    device.wait(60)
    device.engine.remove(device.containers()["web/api"].id)
    device.wait(60)
    assert images_of(device) == OLD_IMAGES
    assert device.ups() == {"web/api", "web/db"}


def test_a_hold_needs_no_apps_and_removes_none() -> None:
    device = online()
    device.publish(V1, device="d1")
    device.wait(60)
    body = {"schema": 1, "scope": {"fleet": "plant7", "device": "d1"}, "epoch": 1, "revision": 2, "hold": True}
    device.bring(json.dumps(body).encode(), device=True)
    device.wait(60)
    assert images_of(device) == OLD_IMAGES
    assert device.state()["apps"]["web"]["phase"] == "held"
    device.cut_power(world_too=True)
    device.boot().wait(60)
    assert images_of(device) == OLD_IMAGES
    assert device.ups() == {"web/api", "web/db"}
    device.publish(V2, device="d1", revision=3)
    device.wait(60)
    assert images_of(device) == NEW_IMAGES


def test_a_hold_is_lifted_by_a_target_alone() -> None:
    device = holding()
    hold(device, 1)
    device.publish(V2, revision=2)
    device.wait(60)
    assert device.ask("unlock", app="web")["error"]["code"] == "held"


def test_what_a_hold_finds_begun_is_finished() -> None:
    device = holding()
    device.publish(V2, revision=2)
    device.wait(3)
    assert images_of_ups(device) == NEW_IMAGES
    hold(device, 1)
    assert told(device, 2)[-1] == "applied 1.2"


def test_a_release_in_its_gate_that_is_overtaken_by_one_that_is_held_gives_way_to_what_last_settled() -> None:
    device = holding()
    before = {name: c.id for name, c in device.containers().items()}
    device.publish(V2, revision=2)
    device.wait(5)
    assert images_of_ups(device) == NEW_IMAGES
    device.publish({}, device="d1", revision=1, hold=True)
    device.publish({"web": app(api=service("api:1", command="other"), db=service("db:2", command="other"))}, revision=3)
    device.wait(60)
    assert {name: c.id for name, c in device.containers().items()} == before
    assert device.ups() == {"web/api", "web/db"}
    assert (told(device, 2)[-1], told(device, 3)[-1]) == ("superseded 1.2", "held 1.3 web")


# Words.


@pytest.mark.parametrize("why", ["window", "lock", "hold"])
def test_an_explanation_says_what_it_waits_for(why: str) -> None:
    device = holding()
    contents = windowed(V2, *NIGHT) if why == "window" else V2
    if why == "lock":
        lock(device)
    if why == "hold":
        hold(device, 1)
    device.publish(contents, revision=2, release="r2")
    device.wait(60)
    result = device.ask("explain", app="web", service="api")["result"]
    assert result["phase"] == "held"
    assert result["reason"]["code"] == why
    assert (result["wanted"]["release"], result["instead"]["release"]) == ("r2", "r1")
    lines = result["text"].splitlines()
    assert any(line.strip().startswith("held ") and "r2" in line for line in lines)
    assert any(line.strip().startswith("next ") and "begin the release" in line for line in lines)


# Power cuts.


@pytest.mark.parametrize("why", ["window", "lock", "hold"])
def test_the_power_goes_at_every_call_while_a_release_waits(why: str) -> None:
    number = 0
    while True:
        number += 1
        device = holding()
        if why == "lock":
            lock(device)
        if why == "hold":
            hold(device, 1)
        device.fuse.reset(number)
        cut = False
        try:
            device.publish(windowed(V2, *NIGHT) if why == "window" else V2, revision=2)
            device.wait(60)
        except PowerCut:
            cut = True
            device.cut_power()
            device.boot().wait(60)
        device.fuse.reset()
        device.wait(60)
        assert images_of(device) == OLD_IMAGES, f"call {number}"
        assert device.ups() == {"web/api", "web/db"}
        assert reason(device)["code"] == why
        assert "held 1.2 web" in device.told()
        if not cut:
            break
    assert number > 12


def test_a_day_is_a_day() -> None:
    assert next_opening(LATER, NOW) == (NOW + timedelta(days=1)).replace(hour=2)


# What a plan says of it.


def would_be(device: Device, apps: Any, /, **more: Any) -> Any:
    return device.ask("plan", target=payload(apps, revision=2, **more).decode())["result"]


def test_a_plan_says_that_a_release_would_wait_and_for_what() -> None:
    device = settled(V1)
    assert would_be(device, V2)["held"] == {}
    told = would_be(device, {"web": {**V2["web"], "x-maintenance": NIGHT}})
    assert told["held"] == {
        "web": {
            "cause": "window",
            "message": "its next maintenance window begins at 2026-11-23 02:00 UTC",
            "until": "2026-11-23T02:00:00.000Z",
        }
    }
    assert "held:\n  web: its next maintenance window begins at 2026-11-23 02:00 UTC" in told["text"]
    assert "create" in told["text"]
    assert would_be(device, {**V1, "more": {**V1["web"], "x-maintenance": NIGHT}})["held"] == {}


def test_a_plan_of_what_the_device_holds_says_so() -> None:
    device = settled(V1)
    told = would_be(device, {"web": V2["web"]}, device="d1", hold=True)
    assert (told["held"]["web"]["cause"], told["held"]["web"]["until"]) == ("hold", None)

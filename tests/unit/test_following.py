"""`depends_on` with `restart`: what is replaced is followed by a restart of who depends on it, and by nothing else."""

from dataclasses import replace

import pytest

from cloud_sim.engine_parts import Behaviour
from device_agent.core.cost import interruptions
from device_agent.core.orders import restarted_with
from device_agent.model.observed import Health, Status
from tests.builders import app, exited, plan, printed, running, service, wanted, world
from tests.device import Device, PowerCut, online

CHECK = {"test": ["CMD", "true"]}


def needs(name: str = "db", condition: str = "service_started"):
    return {"depends_on": {name: {"condition": condition, "restart": True}}}


def of(db: str = "db:1", condition: str = "service_started"):
    keys = {"healthcheck": CHECK} if condition == "service_healthy" else {}
    return wanted(app(api=service(**needs(condition=condition)), db=service(db, **keys)))


WEB = of()
BORN, LATER, LAST = "2026-11-22T09:00:00Z", "2026-11-22T09:10:00Z", "2026-11-22T09:20:00Z"
API = running(WEB, "api", created_at=BORN, started_at=LATER)
OLD = running(WEB, "db", created_at=BORN, started_at=BORN)
NEW = running(WEB, "db", created_at=LAST, started_at=LAST)
WHY = "db, on which it depends with restart, was replaced after it was started"


def test_who_depends_with_restart_is_restarted_once_what_it_depends_on_is_another_one():
    made = plan(WEB, world(WEB, API, NEW))
    assert printed(made).splitlines() == [f"stop web-api-*: {WHY}", f"start web-api-*: {WHY}"]
    assert all(step.follows for step in made.steps)


@pytest.mark.parametrize(
    "db",
    [
        OLD,
        replace(OLD, started_at=LAST),  # its engine restarted it, or the machine was
        replace(NEW, created_at=None),
        replace(NEW, created_at="2026-11-22T09:10:00.000Z"),
        replace(NEW, created_at="2099-01-01T00:00:00Z"),  # the clock was set back
    ],
    ids=["older", "restarted", "unknown", "as old", "future"],
)
def test_nobody_is_restarted_after_anything_else(db):
    assert printed(plan(WEB, world(WEB, API, db))) == ""


@pytest.mark.parametrize("status", [Status.PAUSED, Status.RESTARTING])
def test_only_what_runs_is_restarted(status):
    assert printed(plan(WEB, world(WEB, replace(API, status=status), NEW))) == ""


def test_without_restart_nobody_is_restarted():
    plain = wanted(app(api=service(depends_on=["db"]), db=service("db:1")))
    assert running(plain, "api").spec == API.spec
    assert printed(plan(plain, world(plain, API, NEW))) == ""


def test_what_it_depends_on_is_good_first():
    checked = of(condition="service_healthy")
    api = running(checked, "api", started_at=LATER)
    db = running(checked, "db", created_at=LAST, health=Health.STARTING)
    assert printed(plan(checked, world(checked, api, db))) == ""
    healthy = replace(db, health=Health.HEALTHY)
    assert printed(plan(checked, world(checked, api, healthy))).startswith(f"stop web-api-*: {WHY}")


def test_of_several_containers_the_first_one_tells():
    def many(db: str, scale: int):
        return wanted(app(api=service(**needs()), db=service(db, scale=scale)))

    two = many("db:1", 2)
    second = running(two, "db#2", id="second", created_at=LAST, started_at=LAST)
    assert printed(plan(two, world(two, API, OLD, second))) == ""
    assert printed(plan(two, world(two, API, NEW, second))).splitlines() == [
        f"stop web-api-*: {WHY}",
        f"start web-api-*: {WHY}",
    ]
    # Not before the second one is there as well: it would be restarted for each.
    assert WHY not in printed(plan(two, world(two, API, NEW)))


def test_after_a_roll_back_what_failed_stays_until_who_has_known_it_was_restarted():
    failed = exited(of("db:2"), "db", id="failed", name="failed", created_at=LATER, started_at=LATER)
    back = replace(OLD, started_at=LAST)
    assert printed(plan(WEB, world(WEB, API, back, failed))).splitlines() == [
        "remove failed: replaced by web-db-* [once api, which depends on it with restart, was started again]",
        f"stop web-api-*: {WHY}",
        f"start web-api-*: {WHY}",
    ]
    again = replace(API, started_at="2026-11-22T09:30:00Z")
    assert printed(plan(WEB, world(WEB, again, back, failed))) == "remove failed: replaced by web-db-*"


def test_a_restart_by_hand_takes_along_who_depends_with_restart_and_runs():
    chain = wanted(
        app(
            db=service("db:1"),
            api=service(**needs()),
            web=service(**needs("api")),
            off=service(**needs(), **{"x-state": "stopped"}),
            down=service(**needs()),
            apart=service(depends_on=["db"]),
        )
    )
    there = [running(chain, name, id=name) for name in ("db", "api", "web", "off", "apart")]
    observed = world(chain, *there, exited(chain, "down"))
    assert restarted_with(chain, ["db"], observed) == ["api", "web"]
    assert restarted_with(chain, ["api", "web"], observed) == []


def test_what_is_restarted_later_is_told_before():
    after = of("db:2")
    there = world(after, API, OLD)
    (_, told) = interruptions(plan(after, there), after, there)
    assert (told.service, told.down) == ("web/api", True)
    assert told.message == (
        "restarted once db, on which it depends with restart, has been replaced: down from its stop (at most 10 s) "
        "until it has started again"
    )
    assert [each.service for each in interruptions(plan(WEB, world(WEB, API, NEW)), WEB, world(WEB, API, NEW))] == [
        "web/api"
    ]


@pytest.mark.parametrize(
    ("api", "db"),
    [
        ({"depends_on": ["db"]}, {}),
        ({**needs(), "environment": {"A": "1"}}, {}),
        ({**needs(), "x-state": "stopped"}, {}),
        (needs(), {"x-state": "stopped"}),
    ],
    ids=["without restart", "replaced itself", "stopped", "nobody to follow"],
)
def test_nobody_is_said_to_be_restarted_who_is_not(api, db):
    after = wanted(app(api=service(**api), db=service("db:2", **db)))
    there = world(after, API, OLD)
    assert "restarted once" not in " ".join(map(str, interruptions(plan(after, there), after, there)))


# A whole device.


def starts(device: Device) -> dict[str, tuple[str, str]]:
    return {name: (container.id, container.started_at) for name, container in device.containers().items()}


def content(db: str):
    return {"web": app(api=service(**needs()), db=service(db), kept=service("kept:1"))}


def pair() -> Device:
    device = online("api:1", "db:1", "db:2", "kept:1")
    device.publish(content("db:1"))
    device.wait(30)
    return device


def test_a_release_of_the_one_restarts_the_other_and_nothing_else():
    device = pair()
    before = starts(device)
    device.publish(content("db:2"), revision=2)
    device.wait(60)
    after = starts(device)
    assert after["web/kept"] == before["web/kept"]
    assert after["web/api"][0] == before["web/api"][0]
    assert after["web/api"][1] > after["web/db"][1] > before["web/db"][1]
    assert device.told()[-3:] == ["applying 1.2 web", "applied 1.2 web", "applied 1.2"]
    assert device.events() == []
    assert device.state()["converged"] is True
    assert device.store.rows.attempts == {}
    device.wait(3600)
    assert starts(device) == after


def test_a_release_that_is_rolled_back_restarts_it_again():
    device = pair()
    device.world.add_image("db:2", behaviour=Behaviour(exit_code=1))
    before = starts(device)
    device.publish(content("db:2"), revision=2)
    device.wait(60)
    after = starts(device)
    assert "rolled_back 1.2" in " ".join(device.told())
    assert after["web/db"][0] == before["web/db"][0]
    assert after["web/api"][1] > after["web/db"][1]
    device.wait(600)
    assert starts(device) == after


def failing_release(device: Device) -> None:
    device.publish(content("db:2"), revision=2)
    device.wait(60)


def pair_with_a_bad_release() -> Device:
    device = pair()
    device.world.add_image("db:2", behaviour=Behaviour(exit_code=1))
    device.fuse.reset()
    return device


@pytest.mark.parametrize("world_too", [False, True], ids=["the agent", "the machine"])
def test_a_power_cut_anywhere_in_a_roll_back_leaves_nobody_with_what_failed(world_too):
    whole = pair_with_a_bad_release()
    failing_release(whole)
    for number in range(1, len(whole.fuse.calls) + 1):
        device = pair_with_a_bad_release()
        device.fuse.reset(number)
        with pytest.raises(PowerCut) as cut:
            failing_release(device)
        device.cut_power(world_too=world_too)
        device.boot().wait(200)
        after = starts(device)
        assert after["web/api"][1] > after["web/db"][1], f"call {number}: {cut.value}"
        assert device.told()[-1] == "rolled_back 1.2", f"call {number}: {cut.value}"


def test_what_is_removed_by_hand_is_one_drift_and_no_second_one():
    device = pair()
    device.world.rm(device.containers()["web/db"].id)
    device.wait(60)
    after = starts(device)
    assert after["web/api"][1] > after["web/db"][1]
    assert device.events() == ["drift"]


def test_neither_a_reboot_nor_a_crash_restarts_it():
    device = pair()
    device.world.kill(device.containers()["web/db"].id)
    before = starts(device)
    device.wait(600)
    assert starts(device)["web/api"] == before["web/api"]
    device.cut_power(world_too=True)
    after = starts(device.boot())
    device.wait(600)
    assert starts(device) == after


def test_an_operators_restart_takes_it_along_but_not_what_is_kept_stopped():
    device = pair()
    before = starts(device)
    assert device.ask("restart", app="web", service="db")["result"]["services"] == ["db", "api"]
    device.wait(60)
    after = starts(device)
    assert after["web/api"][0] == before["web/api"][0]
    assert after["web/api"][1] > after["web/db"][1] > before["web/db"][1]
    assert device.events() == []
    device.ask("stop", app="web", service="api")
    assert device.ask("restart", app="web", service="db")["result"]["services"] == ["db"]
    device.wait(60)
    assert device.ups() == {"web/db", "web/kept"}

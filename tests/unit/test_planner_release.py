"""What is planned for services together: dependencies, one-shots, a release as one, a shared network, host ports."""

from dataclasses import replace

import pytest

from device_agent.model.observed import Health, Status
from tests.builders import app, attempt, exited, plan, printed, running, service, waits_for, wanted, world

CHECK = {"test": ["CMD", "true"]}


def depending(condition: str, **more):
    """`api` on `db`."""
    db = service("db:1", restart="no") if "completed" in condition else service("db:1", healthcheck=CHECK)
    return wanted(app(api=service(depends_on={"db": {"condition": condition, **more}}), db=db))


def start_of_api(made) -> str:
    return next(line for line in printed(made).splitlines() if line.startswith("start web-api-*"))


# Dependencies.


def test_a_service_starts_after_the_one_it_depends_on():
    of = depending("service_started")
    made = plan(of, world(of))
    assert printed(made) == (
        "create web-db-*: it does not exist\n"
        "start web-db-*: it was just created\n"
        "create web-api-*: it does not exist\n"
        "start web-api-*: it was just created"
    )
    assert "start web-db-*" in waits_for(made, "start web-api-*")


@pytest.mark.parametrize(
    ("condition", "db", "waits"),
    [
        ("service_started", {"status": Status.RUNNING, "health": Health.STARTING}, ""),
        ("service_healthy", {"status": Status.RUNNING, "health": Health.STARTING}, "db is healthy"),
        ("service_healthy", {"status": Status.RUNNING, "health": Health.UNHEALTHY}, "db is healthy"),
        ("service_healthy", {"status": Status.RUNNING, "health": Health.HEALTHY}, ""),
        ("service_healthy", {"status": Status.EXITED, "exit_code": 0}, "db is healthy"),
        ("service_completed_successfully", {"status": Status.RUNNING}, "db has completed"),
        ("service_completed_successfully", {"status": Status.EXITED, "exit_code": 1}, "db has completed"),
        ("service_completed_successfully", {"status": Status.EXITED, "exit_code": 0}, ""),
    ],
)
def test_a_service_waits_until_the_condition_holds(condition, db, waits):
    of = depending(condition)
    once = f" [once {waits}]" if waits else ""
    made = plan(of, world(of, running(of, "db", name="db", **db)))
    assert start_of_api(made) == f"start web-api-*: it was just created{once}"


@pytest.mark.parametrize(
    ("db", "waits"),
    [
        ({"health": Health.STARTING}, True),
        ({"health": Health.HEALTHY}, False),
        ({"health": Health.UNHEALTHY}, False),
        ({"status": Status.RESTARTING, "exit_code": 1}, False),
        ({"status": Status.EXITED, "exit_code": 1}, False),
    ],
)
def test_a_dependency_that_is_not_required_is_waited_for_until_it_fails(db, waits):
    of = depending("service_healthy", required=False)
    assert ("once db is healthy" in start_of_api(plan(of, world(of, running(of, "db", name="db", **db))))) is waits


def test_a_dependency_that_is_not_required_and_cannot_be_made_is_not_waited_for():
    of = depending("service_healthy", required=False)
    made = plan(of, world(of), attempt("db", of.services["db"].spec(world(of).images[of.services["db"].image])))
    assert "once" not in start_of_api(made)


def test_a_running_service_is_left_alone_when_its_dependency_turns_bad():
    of = depending("service_healthy")
    db = running(of, "db", health=Health.UNHEALTHY)
    assert printed(plan(of, world(of, running(of, "api"), db))) == ""


def test_what_can_never_be_met_is_said_with_what_to_change():
    unchecked = wanted(app(api=service(depends_on={"db": {"condition": "service_healthy"}}), db=service("db:1")))
    made = plan(unchecked, world(unchecked, running(unchecked, "db")))
    why = "which can never be: it has no health check, nor has its image: give it one, or wait for service_started"
    assert start_of_api(made) == f"start web-api-*: it was just created [once db is healthy, {why}]"
    for_ever = {"db": {"condition": "service_completed_successfully"}}
    endless = wanted(app(api=service(depends_on=for_ever), db=service("db:1")))
    text = start_of_api(plan(endless, world(endless, running(endless, "db"))))
    assert "db has completed, which can never be: it is meant to run for ever (restart: unless-stopped)" in text


def test_what_runs_is_not_stopped_before_the_dependency_of_its_replacement_is_ready():
    was = wanted(app(api=service("api:1"), db=service("db:1")))
    of = wanted(
        app(
            api=service("api:2", depends_on={"db": {"condition": "service_healthy"}}),
            db=service("db:2", healthcheck=CHECK),
        )
    )
    made = plan(of, world(of, running(was, "api", name="api1"), running(was, "db", name="db1")))
    assert "stop api1: to be replaced by web-api-* [once db is healthy]" in printed(made).splitlines()


# One-shots.


ONCE = wanted(app(api=service(restart="no")))
AGAIN = wanted(app(api=service(restart="no", environment={"A": "1"})))


def test_a_completed_one_shot_is_not_run_again():
    assert printed(plan(ONCE, world(ONCE, exited(ONCE, "api", 0)))) == ""


def test_a_failed_one_shot_is_tried_again_with_back_off():
    failed = exited(ONCE, "api", 3, name="old")
    assert printed(plan(ONCE, world(ONCE, failed))) == "start old: it exited with 3"
    held = "start old: it exited with 3 [once it is 10:01:00 (exited, attempt 1)]"
    assert printed(plan(ONCE, world(ONCE, failed), attempt("api", failed.spec, code="exited"))) == held


def test_one_that_ended_with_0_because_it_could_not_start_is_not_completed():
    assert (
        printed(plan(ONCE, world(ONCE, exited(ONCE, "api", 0, name="old", error="oom")))) == "start old: it ended: oom"
    )


def test_a_changed_one_shot_runs_again():
    made = plan(AGAIN, world(AGAIN, exited(ONCE, "api", 0, name="old")))
    assert printed(made).splitlines()[1:] == [
        "start web-api-*: it was just created",
        "remove old: replaced by web-api-* [once api is good]",
    ]


def test_a_one_shot_that_has_had_its_run_is_no_fallback():
    new = exited(AGAIN, "api", 1, name="new", id="n")
    made = plan(AGAIN, world(AGAIN, exited(ONCE, "api", 0, name="old"), new), attempt("api", new.spec))
    assert "start old" not in printed(made)


# Rule 1.


A = wanted(app(api=service("api:1"), db=service("db:1")))
B = wanted(app(api=service("api:2"), db=service("db:2")))
HALF = wanted(app(api=service("api:1"), db=service("db:2")))


def test_nothing_is_stopped_before_all_images_are_there():
    made = plan(B, world(B, running(A, "api", name="api1"), running(A, "db", name="db1"), absent=("db:2",)), settled=A)
    assert printed(made).splitlines() == [
        "pull db:2: it is not on this device",
        "create web-api-*: image changed: api:1 → api:2",
        "stop api1: to be replaced by web-api-*",
        "start web-api-*: it was just created",
        "remove api1: replaced by web-api-* [once api is good]",
        "create web-db-new: image changed: db:1 → db:2",
        "stop db1: to be replaced by web-db-new",
        "start web-db-new: it was just created",
        "remove db1: replaced by web-db-new [once db is good]",
    ]
    for step in ("stop api1", "stop db1"):
        assert "pull docker.io/library/db:2" in waits_for(made, step)


def test_nothing_is_started_before_all_images_are_there():
    made = plan(HALF, world(HALF, absent=("db:2",)))
    assert "pull docker.io/library/db:2" in waits_for(made, "start web-api-*")


def test_the_unchanged_service_is_repaired_although_another_image_is_missing():
    db1 = running(A, "db", name="db1")
    ended = plan(HALF, world(HALF, exited(A, "api", name="api1"), db1, absent=("db:2",)), settled=A)
    assert waits_for(ended, "start api1") == set()
    removed = plan(HALF, world(HALF, db1, absent=("db:2",)), settled=A)
    assert waits_for(removed, "start web-api-*") == {"create web-api-*"}


# network_mode: service:…


SHARING = wanted(app(vpn=service("vpn:1"), api=service(network_mode="service:vpn")))
VPN = running(SHARING, "vpn")


def test_one_that_shares_a_network_waits_for_the_other_container():
    until = "[once vpn, whose network it shares, has its container]"
    made = printed(plan(SHARING, world(SHARING))).splitlines()
    assert made[2] == f"create web-api-new: it does not exist {until}"


def test_one_that_shares_a_network_is_made_into_the_other_container():
    made = plan(SHARING, world(SHARING, VPN))
    create = next(step.action for step in made.steps if step.id.startswith("create web-api"))
    assert create.network_mode == "container:vpn-id"
    assert printed(plan(SHARING, world(SHARING, VPN, running(SHARING, "api", VPN.id)))) == ""


def test_one_that_shares_a_network_follows_the_other_container():
    other = running(SHARING, "vpn", id="vpn-2")
    mine = running(SHARING, "api", VPN.id, name="api1")
    assert printed(plan(SHARING, world(SHARING, other, mine))).splitlines()[:2] == [
        "create web-api-*: its definition changed",
        "stop api1: to be replaced by web-api-*",
    ]


def test_one_that_shares_a_network_is_started_again_when_the_other_was():
    mine = running(SHARING, "api", VPN.id, started_at="2026-11-22T10:00:01.5Z")
    for later in ("2026-11-22T10:00:02Z", "2026-11-22T10:00:01.51Z", "2026-11-22T10:00:01.500000001Z"):
        vpn = replace(VPN, started_at=later)
        assert printed(plan(SHARING, world(SHARING, vpn, mine))).splitlines() == [
            "stop web-api-*: vpn, whose network it shares, was started after it",
            "start web-api-*: vpn, whose network it shares, was started after it",
        ]
        away = replace(vpn, status=Status.RESTARTING)
        assert "web-api" not in printed(plan(SHARING, world(SHARING, away, mine)))
    for earlier in ("2026-11-22T10:00:01Z", "2026-11-22T10:00:01.49Z", "2026-11-22T10:00:01.500Z"):
        assert printed(plan(SHARING, world(SHARING, replace(VPN, started_at=earlier), mine))) == ""


BOTH = wanted(
    app(
        vpn=service("vpn:1"),
        db=service("db:1", ipc="shareable"),
        api=service(network_mode="service:vpn", pid="service:db", ipc="service:db"),
    )
)


def test_each_namespace_is_that_of_its_own_container():
    vpn, db = running(BOTH, "vpn"), running(BOTH, "db")
    made = plan(BOTH, world(BOTH, vpn, db))
    create = next(step.action for step in made.steps if step.id.startswith("create web-api"))
    assert (create.network_mode, create.pid, create.ipc) == (
        "container:vpn-id",
        "container:db-id",
        "container:db-id",
    )
    assert printed(plan(BOTH, world(BOTH, vpn, db, running(BOTH, "api", db.id, vpn.id)))) == ""


def test_one_that_shares_processes_waits_for_and_follows_the_other_container():
    vpn, db = running(BOTH, "vpn"), running(BOTH, "db")
    whose = "db, whose processes and shared memory it shares"
    assert f"create web-api-new: it does not exist [once {whose}, has its container]" in printed(
        plan(BOTH, world(BOTH, vpn))
    )
    mine = running(BOTH, "api", db.id, vpn.id)
    later = replace(db, started_at="2026-11-22T10:00:02Z")
    assert printed(plan(BOTH, world(BOTH, vpn, later, mine))).startswith(
        f"stop web-api-*: {whose}, was started after it"
    )
    other = replace(db, id="db-2")
    assert printed(plan(BOTH, world(BOTH, vpn, other, mine))).startswith("create web-api-*: its definition changed")


# Host ports.


def ports(api: list[str], zed: list[str], **keys):
    return wanted(app(api=service("a:1", ports=api, **keys), zed=service("z:1", ports=zed)))


ONE = ports(["80:80"], ["81:80"])
ONE_RUNS = (running(ONE, "api", name="a"), running(ONE, "zed", name="z"))


def test_a_port_is_freed_before_another_service_takes_it():
    two = ports([], ["80:80"])
    assert "stop a" in waits_for(plan(two, world(two, *ONE_RUNS)), "start web-zed-*")


def test_a_port_of_a_service_that_left_is_freed_first():
    two = wanted(app(zed=service("z:1", ports=["80:80"])))
    assert "stop a" in waits_for(plan(two, world(two, *ONE_RUNS)), "start web-zed-*")


def test_two_services_swap_their_ports():
    two = ports(["81:80"], ["80:80"])
    made = plan(two, world(two, *ONE_RUNS))
    for step in ("start web-api-*", "start web-zed-*"):
        assert waits_for(made, step) == {"create web-api-*", "create web-zed-*", "stop a", "stop z"}


def test_two_services_swap_their_ports_although_one_waits_for_the_other():
    two = ports(["81:80"], ["80:80"], depends_on={"zed": {"condition": "service_healthy"}})
    made = plan(two, world(two, *ONE_RUNS))
    assert waits_for(made, "start web-zed-*") == {"create web-api-*", "create web-zed-*", "stop a", "stop z"}
    assert "start web-zed-*: it was just created" in printed(made).splitlines()


def test_no_port_is_freed_for_a_service_that_cannot_start_now():
    two = ports(["81:80"], ["80:80"], depends_on={"zed": {"condition": "service_healthy"}})
    failed = attempt("zed", running(two, "zed").spec)
    made = printed(plan(two, world(two, *ONE_RUNS), failed)).splitlines()
    assert "stop a: to be replaced by web-api-* [once zed is healthy]" in made


def test_a_service_runs_on_while_the_port_of_its_replacement_cannot_be_freed():
    two = ports(["81:80"], ["80:80"])
    failed = attempt("zed", running(two, "zed").spec)
    until = "it is 10:01:00 (port_in_use, attempt 1)"
    made = printed(plan(two, world(two, *ONE_RUNS), failed)).splitlines()
    assert f"stop a: to be replaced by web-api-* [once {until}]" in made
    again = printed(plan(two, world(two, exited(ONE, "api", name="a"), ONE_RUNS[1]), failed)).splitlines()
    assert f"start a: it runs on until {until}" in again

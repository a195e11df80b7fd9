"""What is planned for services that are kept stopped, and for those that an operator wants started anew."""

from dataclasses import replace

from device_agent.core.orders import RESTART, START, STOP, carried_out, orders_for, outlived, with_orders
from device_agent.core.status import Activity, report_app, settled
from device_agent.model.memory import Order
from device_agent.model.observed import Observed, Status
from device_agent.model.steps import Plan
from tests.builders import app, attempts, exited, images, plan, printed, running, service, waits_for, wanted, world

BOTH = wanted(app(api=service(depends_on=["db"]), db=service("db:1")))
API, DB = running(BOTH, "api"), running(BOTH, "db")
UP = world(BOTH, API, DB)
KEPT = wanted(app(api=service(**{"x-state": "stopped"})))


def ordered(verb: str, *services: str, observed: Observed = UP):
    return with_orders(BOTH, [o for name in services for o in orders_for(verb, BOTH, name, observed)])


def test_the_targets_stopped_service_is_created_and_not_started():
    assert printed(plan(KEPT, Observed(images=images("api:1")))) == "create web-api-*: it does not exist"


def test_a_stopped_service_that_is_there_and_does_not_run_needs_nothing():
    for status in (Status.CREATED, Status.EXITED):
        there = world(KEPT, running(KEPT, "api", status=status))
        assert printed(plan(KEPT, there)) == ""
        assert settled(KEPT, there, Plan("web"), attempts())


def test_a_stopped_service_that_runs_is_stopped():
    there = world(KEPT, running(KEPT, "api"))
    assert printed(plan(KEPT, there)) == "stop web-api-*: it is kept stopped by the target"
    assert not settled(KEPT, there, Plan("web"), attempts())


def test_being_kept_stopped_is_no_matter_of_the_container():
    plain = wanted(app(api=service()))
    assert running(KEPT, "api").spec == running(plain, "api").spec
    created = running(plain, "api", status=Status.CREATED)
    assert printed(plan(plain, world(plain, created))) == "start web-api-*: it was created and never started"


def test_what_a_stopped_service_replaces_is_stopped_once_its_image_is_there():
    newer = wanted(app(api=service("api:2", **{"x-state": "stopped"})))
    old = running(wanted(app(api=service())), "api", name="old")
    made = plan(newer, world(newer, old, absent=("api:2",)))
    assert printed(made).splitlines() == [
        "pull api:2: it is not on this device",
        "create web-api-new: image changed: api:1 → api:2",
        "stop old: it is kept stopped by the target",
        "remove old: it is replaced",
    ]
    assert "pull docker.io/library/api:2" in waits_for(made, "stop old")


def test_an_operators_stop_goes_dependents_first():
    made = plan(ordered(STOP, "api", "db"), UP)
    assert printed(made).splitlines() == [
        "stop web-api-*: it is kept stopped by an operator",
        "stop web-db-*: it is kept stopped by an operator",
    ]
    assert waits_for(made, "stop web-db-*") == {"stop web-api-*"}


def test_who_needs_a_stopped_service_waits_and_says_for_what():
    down = world(BOTH, replace(API, status=Status.EXITED, exit_code=1), replace(DB, status=Status.EXITED, exit_code=0))
    assert printed(plan(ordered(STOP, "db"), down)) == (
        "start web-api-*: it exited with 1 [once db runs (it is kept stopped by an operator)]"
    )


def test_who_does_not_require_a_stopped_service_starts_without_it():
    loose = wanted(
        app(api=service(depends_on={"db": {"condition": "service_started", "required": False}}), db=service("db:1"))
    )
    stopped = with_orders(loose, orders_for(STOP, loose, "db", UP))
    down = world(loose, exited(loose, "api"), exited(loose, "db"))
    assert printed(plan(stopped, down)) == "start web-api-*: it exited with 1"


def test_a_stop_is_of_one_definition():
    newer = wanted(app(api=service("api:2", depends_on=["db"]), db=service("db:1")))
    (order,) = orders_for(STOP, BOTH, "api", UP)
    assert not with_orders(newer, [order]).services["api"].stopped
    assert outlived(order, newer)
    assert not outlived(order, BOTH)
    other_app = replace(order, app="other")
    assert with_orders(BOTH, [other_app]) is BOTH


def test_an_order_is_for_all_containers_of_a_service():
    three = wanted(app(api=service(scale=3)))
    up = world(three, *(running(three, name, id=name) for name in three.services))
    stopped = with_orders(three, orders_for(STOP, three, "api", up))
    assert {step.subject for step in plan(stopped, up).steps} == {"api", "api#2", "api#3"}
    anew = with_orders(three, orders_for(RESTART, three, "api", up))
    assert sum(step.id.startswith("start") for step in plan(anew, up).steps) == 3


def test_a_restart_stops_dependents_first_and_starts_them_last():
    made = plan(ordered(RESTART, "api", "db"), UP)
    why = "an operator wants it restarted"
    assert printed(made).splitlines() == [
        f"stop web-api-*: {why}",
        f"stop web-db-*: {why}",
        f"start web-db-*: {why}",
        f"start web-api-*: {why}",
    ]
    assert waits_for(made, "stop web-db-*") == {"stop web-api-*"}
    assert waits_for(made, "start web-api-*") == {"stop web-api-*", "stop web-db-*", "start web-db-*"}
    assert all(step.commits for step in made.steps if step.id.startswith("start"))


def test_a_restart_that_was_cut_off_is_finished_and_is_no_failure():
    asked = ordered(RESTART, "api")
    (start,) = plan(asked, world(BOTH, replace(API, status=Status.EXITED, exit_code=143), DB)).steps
    assert (start.subject, start.cause, start.again) == ("api", "an operator wants it started", False)


def test_what_was_started_anew_is_left_in_peace():
    asked = ordered(RESTART, "api")
    after = world(BOTH, replace(API, started_at="2026-11-22T11:00:00Z"), DB)
    assert printed(plan(asked, after)) == ""
    (order,) = orders_for(RESTART, BOTH, "api", UP)
    assert not carried_out(order, UP)
    assert carried_out(order, after)


def test_a_start_is_of_what_does_not_run():
    assert orders_for(START, BOTH, "api", UP) == []
    down = world(BOTH, replace(API, status=Status.EXITED, exit_code=143), DB)
    (order,) = orders_for(START, BOTH, "api", down)
    assert not carried_out(order, down)
    assert carried_out(order, UP)
    assert carried_out(order, world(BOTH, DB))
    assert not carried_out(Order("web", "api", STOP, "x"), world(BOTH, DB))


def test_the_status_says_who_stopped_it():
    down = world(BOTH, replace(API, status=Status.EXITED, exit_code=143), DB)
    activity = Activity(Plan("web"), attempts())
    told = report_app(ordered(STOP, "api"), down, activity, None)
    assert told.phase == "settled"
    assert told.services["api"].status == "stopped"
    assert told.services["api"].reason.code == "stopped"
    assert "device-agent start web/api" in told.services["api"].reason.message
    (by_target,) = report_app(KEPT, world(KEPT, exited(KEPT, "api")), activity, None).services.values()
    assert (by_target.status, by_target.reason) == ("stopped", None)
    on_its_way = report_app(ordered(STOP, "api"), UP, activity, None)
    assert on_its_way.services["api"].status == "stopping"

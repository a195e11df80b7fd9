"""The chain of an explanation, read from what is planned and reported."""

from datetime import timedelta

import pytest

from device_agent.core.explain import Asked, Situation, explain
from device_agent.core.planner import plan_app
from device_agent.core.status import Activity, report_app, report_removal
from device_agent.model.memory import BadRelease
from device_agent.model.observed import Health, Observed, Status
from device_agent.model.target import Version
from tests.builders import (
    NOW,
    app,
    attempt,
    attempts,
    exited,
    network,
    removal,
    running,
    service,
    wanted,
    world,
)

WEB = wanted(app(api=service()), release="r2", revision=7)
OLD = wanted(app(api=service("api:0")), release="r1", revision=6)
NEEDS = wanted(app(api=service(depends_on={"db": {"condition": "service_healthy"}}), db=service("db:1")))
NET = wanted(app(api=service(networks=["default"])))
SHOT = wanted(app(api=service(restart="no")))
SPEC = running(WEB, "api").spec
BAD = BadRelease("web", WEB.digest, "fleet:1.7", "r2", "unhealthy", "api: its health check fails")
LATER = NOW + timedelta(minutes=1)


def chain(of, observed, *rows, published=None, held=False, bad=None, gated=False, **keys):
    made = plan_app(of, observed, attempts(*rows), {}, gated=gated)
    activity = Activity(made, attempts(*rows), gated=gated, held=held, bad=bad)
    report = report_app(of, observed, activity, None)
    situation = Situation(of.name, NOW, report, activity, observed, published or of, of, **keys)
    return explain(situation)


def api(*args, **keys):
    return chain(*args, **keys).services["api"]


def nexts(service_chain):
    return [(each.what.partition(" web-")[0], each.why) for each in service_chain.next]


def test_what_runs_as_it_should():
    whole = chain(WEB, world(WEB, running(WEB, "api", health=Health.HEALTHY)))
    one = whole.services["api"]
    assert (whole.asked, whole.instead) == (Asked("fleet", Version(1, 7), "r2"), None)
    assert (one.image, one.told.status, one.tried, one.waits_for) == ("api:1", "healthy", (), ())
    assert nexts(one) == [("nothing", "it is as the target says")]


def test_an_image_whose_registry_is_down():
    image = "docker.io/library/api:1"
    row = attempt(f"image {image}", image, app="", code="registry_unreachable", count=3, failed_at=NOW)
    one = api(WEB, Observed(), row)
    (tried,) = one.tried
    assert (tried.code, tried.count, tried.at, tried.next_at) == ("registry_unreachable", 3, NOW, LATER)
    assert one.waits_for == (f"image {image} is here",)
    pull = one.next[0]
    assert (pull.what, pull.at, pull.now) == (f"pull {image}", LATER, False)
    assert [each.what.split()[0] for each in one.next] == ["pull", "create", "start"]


def test_an_image_that_is_being_pulled():
    one = api(WEB, Observed(), pulling=frozenset({"docker.io/library/api:1"}))
    assert [(each.what.split()[0], each.now) for each in one.next] == [
        ("pull", True),
        ("create", False),
        ("start", False),
    ]


def test_a_crash_loop():
    one = api(WEB, world(WEB, running(WEB, "api", status=Status.RESTARTING, restarts=4, exit_code=3)))
    assert one.told.reason.code == "crash_loop"
    assert one.next[0].what == "the engine starts it again"


def test_one_that_waits_for_another_says_what_that_one_is():
    observed = world(NEEDS, running(NEEDS, "db", health=Health.UNHEALTHY))
    one = api(NEEDS, observed)
    (need,) = one.needs
    assert (need.service, need.condition, need.status) == ("db", "service_healthy", "unhealthy")
    assert need.reason.code == "unhealthy"
    assert one.waits_for == ("db is healthy",)
    assert one.next[-1].until == "db is healthy"


def test_one_that_a_foreign_network_blocks():
    foreign = network(NET, app=None, spec=None)
    one = api(NET, world(NET, networks=(foreign,)))
    assert one.waits_for[0].startswith("network default can be used: a network web_default exists that is not this")


def test_a_network_that_could_not_be_made_is_tried_for_its_service():
    row = attempt("network default", NET.networks["default"].spec, code="subnet_in_use")
    one = api(NET, world(NET, networks=()), row)
    assert [(tried.subject, tried.code) for tried in one.tried] == [("network default", "subnet_in_use")]
    assert one.waits_for[0].startswith("network default can go on, which waits until it is 10:01:00")
    assert one.next[0].at == LATER


def test_one_that_cannot_start_is_tried_again():
    failed = attempt("api", SPEC, count=5, failed_at=NOW - timedelta(seconds=9))
    one = api(WEB, world(WEB, exited(WEB, "api")), failed)
    assert [(tried.subject, tried.count, tried.next_at) for tried in one.tried] == [("api", 5, LATER)]
    assert [(each.what.split()[0], each.at) for each in one.next] == [("start", LATER)]


def test_an_attempt_at_something_else_is_none_of_this():
    assert api(WEB, world(WEB, exited(WEB, "api")), attempt("api", "other")).tried == ()


def test_an_attempt_that_is_over_has_no_next_time():
    (tried,) = api(WEB, world(WEB, running(WEB, "api")), attempt("api", SPEC)).tried
    assert (tried.count, tried.next_at) == (1, None)


def test_a_release_that_was_rolled_back():
    whole = chain(OLD, world(OLD, running(OLD, "api")), published=WEB, bad=BAD)
    assert whole.asked == Asked("fleet", Version(1, 7), "r2")
    assert whole.instead == Asked("fleet", Version(1, 6), "r1")
    assert whole.reason.code == "rolled_back"
    assert nexts(whole.services["api"]) == [
        ("nothing", "what its app was rolled back to runs until a newer revision comes")
    ]


def test_a_release_that_failed_and_is_held():
    observed = world(WEB, running(WEB, "api", health=Health.UNHEALTHY))
    whole = chain(WEB, observed, held=True, bad=BAD)
    assert (whole.phase, whole.reason.code, whole.instead) == ("held", "release_failed", None)
    assert whole.services["api"].waits_for == ("a newer revision comes",)
    assert nexts(whole.services["api"]) == [
        ("nothing", "its release failed and is left as it is until a newer revision comes")
    ]


def test_a_release_under_its_gate():
    one = api(WEB, world(WEB, running(WEB, "api")), gated=True, gate_in_s=8.0)
    assert (one.next[0].what, one.next[0].at) == ("the gate of its release", NOW + timedelta(seconds=8))


def test_what_is_kept_until_the_gate_comes_after_it():
    old = exited(OLD, "api", 0, id="old", name="web-api-old")
    one = api(WEB, world(WEB, running(WEB, "api"), old), gated=True, gate_in_s=8.0)
    assert [(each.what, each.until, each.at) for each in one.next] == [
        ("the gate of its release", "", NOW + timedelta(seconds=8)),
        ("remove web-api-old", "its release has passed its gate", None),
    ]


@pytest.mark.parametrize(
    ("container", "why"),
    [
        (exited(SHOT, "api", 0), "it is run again when its definition changes"),
        (running(SHOT, "api", health=Health.STARTING), "it has just been started"),
        (running(SHOT, "api", status=Status.PAUSED), "this cannot be mended from here: see the reason"),
    ],
)
def test_why_there_is_nothing_to_do(container, why):
    assert api(SHOT, world(SHOT, container)).next[0].why == why


def test_nothing_is_concluded_while_the_engine_is_away():
    one = api(WEB, world(WEB, running(WEB, "api")), away="no socket")
    assert one.waits_for == ("the engine answers (no socket)",)
    assert one.next[0].what == "ask the engine again"


def test_an_app_that_is_in_no_target():
    observed = world(WEB, running(WEB, "api"))
    made = removal("web", observed)
    activity = Activity(made, attempts())
    whole = explain(Situation("web", NOW, report_removal("web", observed, activity), activity, observed))
    assert (whole.asked, whole.services["api"].image) == (None, None)
    assert [each.what.split()[0] for each in whole.services["api"].next] == ["stop", "remove"]

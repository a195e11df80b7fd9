"""What is told of an app: the truth in the words of the protocol, and why when it is not as the target says."""

import pytest

from device_agent.core.status import (
    Activity,
    label_revision,
    orphan_volumes,
    report_adopted,
    report_app,
    report_removal,
    settled,
    specs,
    warnings,
)
from device_agent.model.observed import Health, Observed, Status, Volume
from tests.builders import (
    app,
    attempt,
    attempts,
    exited,
    plan,
    removal,
    running,
    service,
    volume,
    wanted,
    world,
)

WEB = wanted(app(api=service()), release="r2", revision=7)
OLD = wanted(app(api=service("api:0")), release="r1", revision=6)
SHOT = wanted(app(api=service(restart="no")))
SPEC = running(WEB, "api").spec


def told(of, observed, *rows, flying=(), tails=None):
    made = plan(of, observed, *rows)
    ids = frozenset(step.id for step in made.steps if step.id.startswith(tuple(flying))) if flying else frozenset()
    return report_app(of, observed, Activity(made, attempts(*rows), ids, tails or {}), None)


def service_of(*args, **keys):
    return told(*args, **keys).services["api"]


@pytest.mark.parametrize(
    ("container", "status", "code"),
    [
        (running(WEB, "api"), "running", None),
        (running(WEB, "api", health=Health.STARTING), "starting", None),
        (running(WEB, "api", health=Health.HEALTHY), "healthy", None),
        (running(WEB, "api", health=Health.UNHEALTHY), "unhealthy", "unhealthy"),
        (running(WEB, "api", status=Status.RESTARTING, exit_code=3, restarts=4), "restarting", "crash_loop"),
        (running(WEB, "api", status=Status.PAUSED), "stopped", "paused"),
        (running(WEB, "api", status=Status.CREATED), "created", None),
        (exited(WEB, "api", 3), "exited", "exited"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_container_is(container, status, code):
    one = service_of(WEB, world(WEB, container))
    assert (one.status, one.reason and one.reason.code) == (status, code)
    assert one.container == container.name


def test_a_crash_loop_has_its_exit_code_and_last_lines():
    crashing = running(WEB, "api", status=Status.RESTARTING, exit_code=3, restarts=4)
    one = service_of(WEB, world(WEB, crashing), tails={"api-id": "no config\n"})
    assert (
        one.reason.message
        == "it exited with 3 and is restarted by the engine, 4 times so far; its last lines: no config"
    )
    assert one.restarts == 4


def test_an_image_that_is_missing():
    nothing = Observed()
    assert service_of(WEB, nothing).status == "pulling"
    assert told(WEB, nothing).phase == "pulling"
    image = "docker.io/library/api:1"
    failed = attempt(f"image {image}", image, app="", code="registry_unreachable", count=3)
    one = service_of(WEB, nothing, failed)
    assert (one.reason.code, one.reason.attempt, one.reason.next_try_at) == ("registry_unreachable", 3, failed.next_at)


def test_what_is_being_done():
    assert service_of(WEB, world(WEB), flying=("create",)).status == "starting"
    assert service_of(WEB, world(WEB, running(OLD, "api", name="old")), flying=("stop",)).status == "stopping"


@pytest.mark.parametrize(("code", "status"), [("port_in_use", "failed"), ("exited", "exited"), ("oom", "exited")])
def test_what_failed_has_its_attempt_and_its_next_try(code, status):
    failed = attempt("api", SPEC, code=code, count=5)
    one = service_of(WEB, world(WEB, exited(WEB, "api")), failed)
    assert (one.status, one.reason.code, one.reason.attempt) == (status, code, 5)
    assert one.reason.next_try_at == failed.next_at


def test_an_attempt_at_something_else_is_not_told():
    assert service_of(WEB, world(WEB, exited(WEB, "api")), attempt("api", "other")).reason.code == "exited"


def test_while_a_replacement_cannot_run_the_one_that_does_is_shown_with_the_reason():
    old = running(OLD, "api", name="old")
    one = service_of(WEB, world(WEB, old), attempt("api", SPEC))
    assert (one.container, one.image) == ("old", "docker.io/library/api:0")
    assert one.reason.code == "port_in_use"


def test_a_one_shot_that_ended_with_0_is_completed():
    one = service_of(SHOT, world(SHOT, exited(SHOT, "api", 0)))
    assert (one.status, one.exit_code, one.reason) == ("completed", 0, None)


def test_one_whose_network_cannot_be_made_says_so():
    networked = wanted(app(api=service(networks=["default"])))
    spec = networked.networks["default"].spec
    row = attempt("network default", spec, code="subnet_in_use")
    report = told(networked, world(networked, networks=[]), row)
    assert report.reason.code == "subnet_in_use"
    assert report.services["api"].reason.code == "dependency"
    assert report.services["api"].reason.message.startswith("it waits for network default, held until it is ")


def test_one_that_waits_says_for_what():
    of = wanted(app(api=service(depends_on={"db": {"condition": "service_healthy"}}), db=service("db:1")))
    one = service_of(of, world(of, running(of, "db")))
    assert (one.status, one.reason.code) == ("waiting", "dependency")
    assert "db is healthy" in one.reason.message


def test_what_is_in_the_way_is_the_apps_reason():
    of = wanted(app({"volumes": {"data": {}}}, api=service(volumes=["data:/d"])))
    blocked = told(of, world(of, volumes=(Volume("web_data"),)))
    assert blocked.reason.code == "name_in_use"
    failed = told(of, world(of, volumes=()), attempt("volume data", of.volumes["data"].spec, code="disk_full"))
    assert failed.reason.code == "disk_full"


# Settled.


def is_settled(of, observed) -> bool:
    return settled(of, observed, plan(of, observed), attempts())


@pytest.mark.parametrize(
    ("of", "container", "done"),
    [
        (WEB, running(WEB, "api"), True),
        (WEB, running(WEB, "api", health=Health.HEALTHY), True),
        (WEB, running(WEB, "api", health=Health.STARTING), False),
        (WEB, running(WEB, "api", health=Health.UNHEALTHY), False),
        (WEB, running(WEB, "api", status=Status.RESTARTING), False),
        (WEB, running(WEB, "api", status=Status.PAUSED), False),
        (WEB, running(OLD, "api"), False),
        (SHOT, exited(SHOT, "api", 0), True),
        (SHOT, exited(SHOT, "api", 1), False),
    ],
)
def test_settled_is_every_service_good_and_no_step_left(of, container, done):
    assert is_settled(of, world(of, container)) == done
    assert (told(of, world(of, container)).phase == "settled") == done


def test_what_is_in_the_way_is_not_settled():
    of = wanted(app({"networks": {"lan": {"external": True}}}, api=service(networks=["lan"])))
    assert not is_settled(of, world(of, running(of, "api"), networks=()))


def test_the_specs_that_settled():
    assert specs(WEB, world(WEB, running(WEB, "api"))) == {"api": SPEC}
    assert specs(WEB, world(WEB, running(OLD, "api"))) == {}


# Volumes.


STORED = wanted(app({"volumes": {"data": {}}}, api=service(volumes=["data:/d"])))


def test_a_changed_volume_is_a_warning_and_does_not_keep_the_app_from_being_settled():
    observed = world(STORED, running(STORED, "api"), volumes=(volume(STORED, "data", spec="other"),))
    (warning,) = warnings(STORED, observed)
    assert warning.pointer == "/apps/web/volumes/data"
    assert "volume_differs" in warning.message
    assert is_settled(STORED, observed)


def test_orphans_are_own_volumes_that_no_app_wants():
    volumes = (volume(STORED, "data"), Volume("old", "gone", "k", "s"), Volume("foreign"))
    assert orphan_volumes({"web": STORED}, Observed(volumes=volumes)) == ("old",)


# Apps that are leaving, or not known here.


def test_an_app_that_is_being_removed():
    observed = world(WEB, running(WEB, "api"))
    made = report_removal("web", observed, Activity(removal("web", observed), attempts()))
    assert (made.phase, made.services["api"].status) == ("removing", "stopping")


def test_an_app_whose_target_was_lost_is_shown_as_it_is():
    made = report_adopted("web", world(WEB, running(WEB, "api"), exited(WEB, "api", id="older", name="older")))
    assert (made.phase, made.reason.code, made.release, made.revision) == ("held", "target_unknown", "r2", (1, 7))
    assert made.services["api"].status == "running"


@pytest.mark.parametrize(
    ("label", "version"),
    [
        ("fleet:1.42", ("fleet", (1, 42))),
        ("device:0.0", ("device", (0, 0))),
        ("", None),
        ("fleet:x.1", None),
        ("fleet:1.²", None),
        ("1.2", None),
        ("other:1.2", None),
        (f"fleet:1.{2**53 - 1}", ("fleet", (1, 2**53 - 1))),
        # As a floor it could never be reached again.
        (f"fleet:1.{2**53}", None),
        ("device:99999999999999999.1", None),
    ],
)
def test_the_revision_on_a_label(label, version):
    assert label_revision(label) == version

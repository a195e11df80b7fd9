"""When an image is pulled, what waits for it, and which images nobody needs any more."""

from dataclasses import replace
from datetime import timedelta

import pytest

from cloud_sim.engine_parts import image_id
from device_agent.core.images import Pulled, garbage, images_of, next_refresh
from device_agent.core.planner import plan_app
from device_agent.core.status import Activity, only_leftovers, report_app
from device_agent.model.image import normalise
from device_agent.model.memory import PulledImage
from device_agent.model.observed import Observed
from tests.builders import NOW, app, attempt, attempts, printed, running, service, waits_for, wanted, world

API = "docker.io/library/api:1"


def pulled(reference="api:1", ago=timedelta(hours=1), **changes):
    reference = normalise(reference)
    row = PulledImage(reference, image_id(reference), True, NOW - ago, None, frozenset({"fleet:1.1"}))
    return replace(row, **changes)


def planned(of, observed, *rows, failures=()):
    known = Pulled({(row.image, row.image_id): row for row in rows})
    return plan_app(of, observed, attempts(*failures), {}, pulled=known)


def one(image="api:1", **keys):
    return wanted(app(api=service(image, **keys)))


def pulls(made):
    return [line for line in printed(made).splitlines() if line.startswith("pull")]


# Whether it is pulled.


@pytest.mark.parametrize("policy", ["missing", "always", "daily"])
def test_an_absent_image_is_pulled(policy):
    of = one(pull_policy=policy)
    assert pulls(planned(of, world(of, absent=("api:1",)))) == ["pull api:1: it is not on this device"]


def test_for_its_platform():
    of = one(platform="linux/arm64")
    assert pulls(planned(of, world(of, absent=("api:1",)))) == ["pull api:1 for linux/arm64: it is not on this device"]


@pytest.mark.parametrize("policy", ["missing", "if_not_present", "never"])
def test_one_that_is_here_is_not(policy):
    of = one(pull_policy=policy)
    assert pulls(planned(of, world(of))) == []


@pytest.mark.parametrize(
    ("rows", "again"),
    [
        ((), True),
        ((pulled(),), False),
        ((pulled(revisions=frozenset({"fleet:1.0", "device:1.9"})),), True),
        ((pulled(revisions=frozenset({"fleet:2.0"})),), False),  # what is rolled back to looks for nothing again
        ((pulled(image_id=""),), True),  # a pull of which nobody saw the end
    ],
)
def test_always_is_once_for_each_revision(rows, again):
    of = one(pull_policy="always")
    lines = pulls(planned(of, world(of, running(of, "api")), *rows))
    assert lines == (["pull api:1: its pull_policy is always, and fleet:1.1 is new"] if again else [])


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        ((), "it is to be pulled every 24 h, and nobody knows when it was"),
        ((pulled(ago=timedelta(hours=23)),), ""),
        ((pulled(ago=timedelta(hours=24)),), "it was pulled more than 24 h ago"),
        ((pulled(ago=timedelta(hours=-1)),), "it was pulled more than 24 h ago"),  # the clock was set back
        ((pulled(ago=timedelta(days=9)), pulled(image_id="sha256:moved")), ""),
    ],
)
def test_daily_is_once_a_day(rows, cause):
    of = one(pull_policy="daily")
    assert pulls(planned(of, world(of, running(of, "api")), *rows)) == ([f"pull api:1: {cause}"] if cause else [])


@pytest.mark.parametrize("policy", ["always", "daily"])
def test_a_digest_is_never_looked_for_again(policy):
    of = one(f"api@sha256:{'a' * 64}", pull_policy=policy)
    assert pulls(planned(of, world(of))) == []


def test_another_platform_than_it_was_pulled_for():
    of = one(platform="linux/arm64")
    assert pulls(planned(of, world(of))) == [], "nobody knows: the engine will say it"
    assert pulls(planned(of, world(of), pulled(platform="linux/arm64"))) == []
    assert pulls(planned(of, world(of), pulled())) == [
        "pull api:1 for linux/arm64: it was pulled for this device, and linux/arm64 is wanted"
    ]


def test_the_next_time():
    of = one(pull_policy="every_2h")
    known = Pulled({(API, "x"): pulled(image_id="x")})
    assert next_refresh([of], known, NOW) == NOW + timedelta(hours=1)
    assert next_refresh([of], known, NOW + timedelta(hours=2)) is None
    assert next_refresh([of, one(pull_policy="always")], Pulled(), NOW) is None


# What waits for it.


def test_what_is_created_waits_for_it_and_no_longer_when_it_cannot_be_had():
    of = one(pull_policy="always")
    made = planned(of, world(of))
    assert "pull docker.io/library/api:1" in waits_for(made, "create web-api-*")
    late = attempt(f"image {API}", API, app="", code="registry_unreachable")
    made = planned(of, world(of), failures=(late,))
    assert waits_for(made, "create web-api-*") == set()
    assert pulls(made)[0].endswith("[once it is 10:01:00 (registry_unreachable, attempt 1)]")


def test_what_runs_as_wanted_runs_on():
    of = one(pull_policy="always")
    assert printed(planned(of, world(of, running(of, "api")))).splitlines() == [
        "pull api:1: its pull_policy is always, and fleet:1.1 is new"
    ]


def test_an_overdue_refresh_keeps_nothing_from_being_settled_and_a_new_revision_does():
    daily, always = one(pull_policy="daily"), one(pull_policy="always")
    assert only_leftovers(planned(daily, world(daily, running(daily, "api"))), daily, attempts())
    assert not only_leftovers(planned(always, world(always, running(always, "api"))), always, attempts())


def test_the_running_service_tells_that_it_could_not_be_had_anew():
    of = one(pull_policy="daily")
    observed = world(of, running(of, "api"))
    late = attempt(f"image {API}", API, app="", code="registry_unreachable")
    made = planned(of, observed, failures=(late,))
    told = report_app(of, observed, Activity(made, attempts(late)), None)
    assert told.phase == "settled"
    assert (told.services["api"].status, told.services["api"].reason.code) == ("running", "registry_unreachable")


def test_an_image_that_nobody_may_pull_holds_its_release_and_says_so():
    of = wanted(app(api=service("api:1", pull_policy="never"), db=service("db:1")))
    observed = world(of, running(of, "db", spec="old"), absent=("api:1",))
    made = planned(of, observed)
    assert [(b.subject, b.code) for b in made.blocked] == [(f"image {API}", "image_absent")]
    assert pulls(made) == [
        "pull api:1: it is not on this device [once somebody has loaded it: its pull_policy is never]"
    ]
    assert "pull docker.io/library/api:1" in waits_for(made, "stop web-db-*")
    told = report_app(of, observed, Activity(made, attempts()), None)
    assert (told.services["api"].status, told.services["api"].reason.code) == ("waiting", "image_absent")


def test_who_may_pull_it_does_so_for_the_others():
    of = wanted(app(api=service("api:1", pull_policy="never"), other=service("api:1")))
    made = planned(of, world(of, absent=("api:1",)))
    assert pulls(made) == ["pull api:1: it is not on this device"]


# What nobody needs any more.


def removable(*rows, kept=(), containers=(), names=None):
    images = names or {row.image: row.image_id for row in rows}
    observed = Observed(containers=containers, images={**images, **{id_: id_ for id_ in images.values()}})
    known = Pulled({(row.image, row.image_id): row for row in rows})
    return [image for _, image in garbage(known, observed, {normalise(reference) for reference in kept})]


def test_an_own_pull_that_nothing_wants():
    assert removable(pulled()) == [API]
    assert removable(pulled(), kept=("api:1",)) == []
    assert removable(pulled(own=False)) == []


def test_what_a_container_was_made_from_stays():
    of = one()
    assert removable(pulled(), containers=(running(of, "api"),)) == []


def test_a_tag_that_has_moved_leaves_an_image_without_a_name():
    old, new = pulled(image_id="sha256:old"), pulled(image_id="sha256:new")
    repository = API.rpartition(":")[0]
    names = {API: "sha256:new", f"{repository}@sha256:d": "sha256:old"}
    assert removable(old, new, kept=("api:1",), names=names) == ["sha256:old"]
    somebodys = {**names, "docker.io/library/backup:1": "sha256:old"}
    assert removable(old, new, kept=("api:1",), names=somebodys) == [], "it has a name that is not ours"


def test_what_is_gone_is_forgotten():
    assert removable(pulled(), names={"other:1": "sha256:x"}) == [""]
    assert removable(pulled(image_id=""), names={"other:1": "sha256:x"}) == [""]
    assert removable(pulled(image_id=""), kept=("api:1",), names={"other:1": "sha256:x"}) == [], "it may be under way"


def test_the_images_of_a_document():
    assert images_of(app(api=service("api:1"), db=service("r.example/db"))) == {API, "r.example/db:latest"}
    for odd in (None, {}, {"services": None}, {"services": {"a": None, "b": {}, "c": {"image": 5}}}):
        assert images_of(odd) == frozenset()

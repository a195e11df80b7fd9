"""What is planned for an app's containers: one line of text for each step, by the rules at the head of the planner."""

import pytest

from device_agent.core.wanted import Naming
from device_agent.model.image import normalise
from device_agent.model.observed import Health, Observed, Status
from tests.builders import (
    NOW,
    app,
    attempt,
    exited,
    images,
    plan,
    printed,
    removal,
    running,
    service,
    waits_for,
    wanted,
    world,
)

WEB = wanted(app(api=service()))
NEW = wanted(app(api=service("api:2")))
ASIS = running(WEB, "api")
OLD = running(WEB, "api", name="old")


def replacement(container: str = "web-api-*", old: str = "old", until: str = "") -> str:
    """The second half of every replacement."""
    once = f" [once {until}]" if until else ""
    return (
        f"stop {old}: to be replaced by {container}{once}\n"
        f"start {container}: it was just created{once}\n"
        f"remove {old}: replaced by {container} [once api is good]"
    )


# Install.


def test_a_service_that_does_not_exist_is_created_and_started():
    text = "create web-api-*: it does not exist\nstart web-api-*: it was just created"
    assert printed(plan(WEB, Observed(images=images("api:1")))) == text


def test_an_absent_image_is_pulled_first_and_the_rest_waits_for_it():
    made = plan(WEB, Observed())
    assert printed(made) == (
        "pull api:1: it is not on this device\n"
        "create web-api-new: it does not exist\n"
        "start web-api-new: it was just created"
    )
    assert "pull docker.io/library/api:1" in waits_for(made, "start web-api-new")


def test_an_image_of_two_services_is_pulled_once():
    both = wanted(app(api=service("x:1"), db=service("x:1")))
    assert printed(plan(both, Observed())).count("pull") == 1


def test_a_failed_pull_is_planned_again_and_held_until_its_next_try():
    image = "docker.io/library/api:1"
    failed = attempt(f"image {image}", image, app="", code="registry_unreachable")
    text = "pull api:1: it is not on this device [once it is 10:01:00 (registry_unreachable, attempt 1)]"
    assert printed(plan(WEB, Observed(), failed)).splitlines()[0] == text


def test_a_container_name_carries_the_prefix_of_the_device():
    mine = wanted(app(api=service()), naming=Naming("plant7/d1", "dev1-"))
    assert "create dev1-web-api-*" in printed(plan(mine, world(mine)))


# As it should be.


@pytest.mark.parametrize(
    "container",
    [
        ASIS,
        running(WEB, "api", health=Health.HEALTHY),
        running(WEB, "api", health=Health.STARTING),
        running(WEB, "api", health=Health.UNHEALTHY),
        running(WEB, "api", status=Status.RESTARTING),
        running(WEB, "api", status=Status.PAUSED),
    ],
    ids=lambda c: str(c.health or c.status),
)
def test_what_runs_as_wanted_is_left_alone(container):
    assert printed(plan(WEB, world(WEB, container))) == ""


def test_another_release_or_revision_alone_recreates_nothing():
    later = wanted(app(api=service()), release="2026.12", revision=9)
    assert printed(plan(later, world(later, ASIS))) == ""


def test_a_container_whose_image_lost_its_tag_is_left_alone():
    assert printed(plan(WEB, world(WEB, ASIS, absent=("api:1",)))) == ""


def test_what_a_container_does_not_depend_on_recreates_nothing():
    more = wanted(app({"volumes": {"unused": {}}}, api=service()))
    assert printed(plan(more, world(more, ASIS))) == ""


# Replacement.


def test_a_changed_image_is_created_before_the_old_one_stops_and_the_old_one_goes_last():
    made = plan(NEW, world(NEW, OLD, images=images("api:1", "api:2")))
    assert printed(made) == f"create web-api-*: image changed: api:1 → api:2\n{replacement()}"
    assert waits_for(made, "stop old") == {"create web-api-*"}
    assert waits_for(made, "start web-api-*") == {"create web-api-*", "stop old"}


def test_a_changed_definition_replaces_the_container():
    changed = wanted(app(api=service(environment={"A": "1"})))
    assert printed(plan(changed, world(changed, OLD))) == f"create web-api-*: its definition changed\n{replacement()}"


def test_a_tag_that_moved_replaces_the_container():
    moved = world(WEB, OLD, images={normalise("api:1"): "sha256:other"})
    assert printed(plan(WEB, moved)) == f"create web-api-*: image api:1 is another one now\n{replacement()}"


def test_the_old_one_is_not_removed_before_the_new_one_is_good():
    new = running(NEW, "api", id="n", health=Health.STARTING)
    stopped = exited(WEB, "api", name="old")
    assert printed(plan(NEW, world(NEW, stopped, new))) == "remove old: replaced by web-api-* [once api is good]"
    good = running(NEW, "api", id="n", health=Health.HEALTHY)
    assert printed(plan(NEW, world(NEW, stopped, good))) == "remove old: replaced by web-api-*"


def test_a_replacement_that_was_interrupted_goes_on():
    created = running(NEW, "api", name="new", id="n", status=Status.CREATED)
    end = "start new: it was created and never started\nremove old: replaced by new [once api is good]"
    assert printed(plan(NEW, world(NEW, OLD, created))) == f"stop old: to be replaced by new\n{end}"
    assert printed(plan(NEW, world(NEW, exited(WEB, "api", name="old"), created))) == end


def test_back_to_the_previous_release_its_container_is_used_again():
    new = running(NEW, "api", name="new", id="n")
    made = plan(WEB, world(WEB, exited(WEB, "api", name="old"), new))
    assert printed(made) == (
        "stop new: to be replaced by old\nstart old: it exited with 1\nremove new: replaced by old [once api is good]"
    )


# Rule 2: while the new one cannot run, the old one does.


def test_the_old_one_runs_on_while_the_new_one_cannot_be_created():
    spec = running(NEW, "api").spec
    until = "it is 10:01:00 (port_in_use, attempt 1)"
    made = plan(NEW, world(NEW, OLD), attempt("api", spec))
    create = f"create web-api-*: image changed: api:1 → api:2 [once {until}]"
    assert printed(made) == f"{create}\n{replacement(until=until)}"


def test_the_old_one_is_started_again_while_the_new_one_cannot_start():
    new = running(NEW, "api", name="new", id="n", status=Status.CREATED)
    made = plan(NEW, world(NEW, exited(WEB, "api", name="old"), new), attempt("api", new.spec))
    until = "it is 10:01:00 (port_in_use, attempt 1)"
    assert printed(made) == (
        f"start old: it runs on until {until}\n"
        f"start new: it was created and never started [once {until}]\n"
        "remove old: replaced by new [once api is good]"
    )


def test_the_old_one_is_started_again_while_the_new_image_is_missing():
    made = plan(NEW, world(NEW, exited(WEB, "api", name="old"), absent=("api:2",)))
    assert "start old: it runs on until all it needs is there" in printed(made).splitlines()


def test_when_the_next_try_is_due_the_new_one_takes_its_turn():
    new = running(NEW, "api", name="new", id="n", status=Status.CREATED)
    made = plan(NEW, world(NEW, exited(WEB, "api", name="old"), new), attempt("api", new.spec, next_at=NOW))
    assert printed(made) == (
        "start new: it was created and never started\nremove old: replaced by new [once api is good]"
    )


def test_an_attempt_at_another_spec_holds_nothing():
    made = plan(NEW, world(NEW, OLD), attempt("api", "of something else"))
    assert "once it is" not in printed(made)


def test_a_next_try_further_away_than_the_cap_is_due_now():
    far = attempt("api", running(WEB, "api").spec, next_at=NOW.replace(year=2036))
    assert "once it is" not in printed(plan(WEB, world(WEB), far))


# Drift.


@pytest.mark.parametrize(
    ("container", "text"),
    [
        (exited(WEB, "api", 137, name="old"), "start old: it exited with 137"),
        (exited(WEB, "api", 0, name="old"), "start old: it exited with 0"),
        (exited(WEB, "api", 128, name="old", error="no such file"), "start old: it ended: no such file"),
        (running(WEB, "api", name="old", status=Status.CREATED), "start old: it was created and never started"),
    ],
    ids=["killed", "ended", "could not start", "never started"],
)
def test_what_does_not_run_is_started(container, text):
    assert printed(plan(WEB, world(WEB, container))) == text
    assert plan(WEB, world(WEB, container)).steps[0].again == (container.status is Status.EXITED)


def test_what_ended_is_started_also_when_its_image_is_gone():
    stopped = exited(WEB, "api", name="old")
    assert printed(plan(WEB, world(WEB, stopped, absent=("api:1",)))) == "start old: it exited with 1"


def test_a_removed_container_is_made_again():
    assert printed(plan(WEB, world(WEB))).startswith("create web-api-*: it does not exist")


def test_one_that_is_being_removed_does_not_count():
    leaving = running(WEB, "api", name="old", status=Status.REMOVING)
    made = plan(WEB, world(WEB, leaving))
    assert printed(made) == "create web-api-*: it does not exist\nstart web-api-*: it was just created"


# Left over: doubles, dead ones, vanished services.


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (
            running(WEB, "api", name="double", id="z"),
            "stop double: replaced by web-api-*\nremove double: replaced by web-api-*",
        ),
        (exited(WEB, "api", name="double", id="z"), "remove double: replaced by web-api-*"),
        (
            running(WEB, "api", name="double", id="z", status=Status.CREATED),
            "remove double: it was never started and is no longer wanted",
        ),
        (running(WEB, "api", name="double", id="z", status=Status.DEAD), "remove double: it is dead"),
    ],
    ids=["running", "exited", "created", "dead"],
)
def test_of_two_containers_the_one_that_runs_stays(other, text):
    assert printed(plan(WEB, world(WEB, ASIS, other))) == text
    assert printed(plan(WEB, world(WEB, other, ASIS))) == text


def test_of_two_that_run_the_one_started_last_stays():
    older = running(WEB, "api", name="older", id="a", started_at="2026-01-01T00:00:00Z")
    assert printed(plan(WEB, world(WEB, older, ASIS))).startswith("stop older")


def test_a_copy_made_by_hand_does_not_win_although_it_was_started_last():
    copy = running(WEB, "api", name="copy", id="a", started_at="2026-11-30T00:00:00Z")
    assert printed(plan(WEB, world(WEB, ASIS, copy))) == (
        "stop copy: replaced by web-api-*\nremove copy: replaced by web-api-*"
    )


def test_a_dead_one_is_removed_before_another_takes_its_name():
    dead = running(WEB, "api", status=Status.DEAD)
    made = plan(WEB, world(WEB, dead))
    assert printed(made) == (
        "remove web-api-*: it is dead\ncreate web-api-*: it does not exist\nstart web-api-*: it was just created"
    )
    assert waits_for(made, "create web-api-*") == {"remove web-api-*"}


def test_a_container_that_never_ran_is_no_fallback():
    never = running(WEB, "api", name="old", status=Status.CREATED)
    new = running(NEW, "api", name="new", id="n", status=Status.CREATED)
    text = printed(plan(NEW, world(NEW, never, new), attempt("api", new.spec)))
    assert text.startswith("remove old: it was never started and is no longer wanted\n")
    assert "start old" not in text


BOTH = wanted(app(api=service(depends_on=["db"]), db=service("db:1")))
API, DB = running(BOTH, "api"), running(BOTH, "db")


def test_a_service_that_left_the_target_goes_once_all_images_are_there():
    gone = "it is no longer in the target"
    alone = wanted(app(db=service("db:1")))
    assert printed(plan(alone, world(alone, API, DB))) == f"stop web-api-*: {gone}\nremove web-api-*: {gone}"
    newer = wanted(app(db=service("db:2")))
    made = plan(newer, world(newer, API, DB, absent=("db:2",)))
    assert waits_for(made, "stop web-api-*") == {"pull docker.io/library/db:2"}


def test_a_removed_app_goes_dependents_first():
    gone = "the app is no longer in the target"
    older = exited(BOTH, "db", name="older", id="o")
    made = removal("web", world(BOTH, DB, API, older))
    assert printed(made).splitlines() == [
        f"stop web-api-*: {gone}",
        f"remove web-api-*: {gone}",
        f"stop web-db-*: {gone}",
        f"remove web-db-*: {gone}",
        f"remove older: {gone}",
    ]
    assert waits_for(made, "stop web-db-*") == {"stop web-api-*"}


def test_the_containers_of_other_apps_are_not_of_a_removal():
    assert printed(removal("other", world(BOTH, DB, API))) == ""


# As long as a document allows.


def test_a_long_chain_of_services_is_planned_and_removed():
    services = {f"s{n:04}": service(depends_on=[f"s{n - 1:04}"] if n else []) for n in range(1000)}
    chain = wanted(app(**services))
    made = plan(chain, world(chain))
    assert [step.id for step in made.steps][-1].startswith("start web-s0999")
    up = [running(chain, name, name=name, depends_on=tuple(services[name]["depends_on"])) for name in services]
    assert str(removal("web", world(chain, *up))).startswith("stop s0999: ")

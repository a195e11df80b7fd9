"""What containers are called, and the renames that bring it about: plans as text."""

from dataclasses import replace

import pytest

from device_agent.core.wanted import Naming
from device_agent.model.observed import Status
from tests.builders import app, attempt, exited, plan, printed, running, service, waits_for, wanted, world

WEB = wanted(app(api=service()))
ONE = wanted(app(api=service("api:1", container_name="one")))
ANEW = wanted(app(api=service("api:2", container_name="one")))
OLD = running(ONE, "api")
PARKED = replace(OLD, id="0123456789abcdef", name="web-api-0123456789ab")


def text(of, *containers, **keys):
    return printed(plan(of, world(of, *containers), *keys.get("failures", ())))


# By hand.


def test_what_was_renamed_by_hand_gets_its_name_back():
    assert text(WEB, running(WEB, "api", name="mine")) == "rename mine to web-api-*: it was renamed"


def test_it_is_not_held_up_by_a_failure_of_anything_else_and_holds_nothing_up():
    renamed = running(WEB, "api", name="mine")
    failed = attempt("name api", WEB.container_name("api", renamed.spec), code="name_in_use")
    once = "[once it is 10:01:00 (name_in_use, attempt 1)]"
    assert text(WEB, renamed, failures=[failed]) == f"rename mine to web-api-*: it was renamed {once}"
    ended = exited(WEB, "api", name="mine")
    assert text(WEB, ended, failures=[failed]) == "start mine: it exited with 1"


def test_it_is_renamed_after_everything_that_calls_it_by_the_other_name():
    on = wanted(app(api=service(networks=["default"])))
    made = plan(on, world(on, running(on, "api", name="mine", networks={})))
    assert waits_for(made, "rename mine to web-api-*") == {"connect mine to web_default"}


def test_a_double_that_has_the_name_goes_first():
    made = plan(WEB, world(WEB, running(WEB, "api", name="mine"), exited(WEB, "api", id="z")))
    assert printed(made) == ("remove web-api-*: replaced by mine\nrename mine to web-api-*: it was renamed")
    assert waits_for(made, "rename mine to web-api-*") == {"remove web-api-*"}


@pytest.mark.parametrize("holder", [{"app": "shop"}, {"status": Status.REMOVING}], ids=["other app", "going"])
def test_a_name_that_will_be_free_is_waited_for(holder):
    taken = running(WEB, "api", id="z", **holder)
    until = "[once the name web-api-* is free]"
    assert text(WEB, running(WEB, "api", name="mine"), taken).startswith(
        f"rename mine to web-api-*: it was renamed {until}"
    )


# container_name.


def test_a_container_is_made_with_its_name_behind_the_prefix():
    mine = wanted(app(api=service(container_name="one")), naming=Naming("plant7/d1", "dev1-"))
    assert text(mine) == "create dev1-one: it does not exist\nstart dev1-one: it was just created"


def test_a_changed_name_recreates_nothing():
    two = wanted(app(api=service(container_name="two")))
    assert text(two, OLD) == "rename one to two: its name is to be two"
    assert text(WEB, OLD) == "rename one to web-api-*: it was renamed"
    assert text(ONE, running(WEB, "api")) == "rename web-api-* to one: its name is to be one"


def test_two_that_swap_their_names_do_not_wait_for_each_other():
    def named(api, db):
        return wanted(app(api=service(container_name=api), db=service("db:1", container_name=db)))

    before, after = named("one", "two"), named("two", "one")
    made = plan(after, world(after, running(before, "api"), running(before, "db")))
    assert printed(made) == (
        "rename two to web-db-db-id: one is to have its name\n"
        "rename one to two: its name is to be two\n"
        "rename two to one: its name is to be one"
    )
    assert waits_for(made, "rename two to one") == {"rename one to two", "rename two to web-db-db-id"}


def test_a_name_goes_from_a_service_that_leaves_to_one_that_comes():
    other = wanted(app(new=service("api:2", container_name="one")))
    made = plan(other, world(other, OLD))
    assert waits_for(made, "create one") == {"stop one", "remove one"}
    after = world(other, running(other, "new", name="web-new-123456"))
    assert printed(plan(other, after)) == "rename web-new-* to one: its name is to be one"


def test_the_name_stays_with_what_runs_until_the_other_takes_its_place():
    made = plan(ANEW, world(ANEW, replace(OLD, id="0123456789abcdef")))
    assert printed(made) == (
        "create web-api-*: image changed: api:1 → api:2\n"
        "stop one: to be replaced by web-api-*\n"
        "rename one to web-api-0123456789ab: web-api-* is to have its name\n"
        "rename web-api-* to one: it takes the place of one\n"
        "start one: it was just created\n"
        "remove one: replaced by one [once api is good]"
    )
    before = {"create web-api-*", "stop one", "rename one to web-api-0123456789ab"}
    assert waits_for(made, "rename web-api-* to one") == before
    assert all(step.commits for step in made.steps if step.id.startswith(("rename", "start")))


def test_nothing_is_renamed_while_the_replacement_has_to_wait():
    failed = attempt("api", running(ANEW, "api").spec)
    made = plan(ANEW, world(ANEW, OLD), failed)
    assert not [step for step in made.steps if not step.until]


@pytest.mark.parametrize("cut", ["created", "stopped", "parked", "renamed"])
def test_a_cut_in_the_middle_is_gone_on_with(cut):
    new = running(ANEW, "api", id="n", name="web-api-222222", status=Status.CREATED)
    old = OLD if cut == "created" else exited(ONE, "api")
    if cut in ("parked", "renamed"):
        old = replace(PARKED, status=Status.EXITED, exit_code=0)
    if cut == "renamed":
        new = replace(new, name="one")
    lines = text(ANEW, old, new).splitlines()
    start = lines.index(next(line for line in lines if line.startswith("start")))
    done = {"created": 0, "stopped": 1, "parked": 2, "renamed": 3}[cut]
    expected = ["stop one", "rename one to web-api-api-id", "rename web-api-* to one"]
    if cut == "parked":
        # The name is free: it starts under the one that it has, and is renamed when it runs.
        assert lines[start] == "start web-api-*: it was created and never started"
        return
    assert [line.split(":")[0] for line in lines[:start]] == expected[done:]
    assert lines[start] == "start one: it was created and never started"


def test_what_runs_on_gets_its_name_back():
    new = running(ANEW, "api", id="n", status=Status.CREATED)
    made = plan(ANEW, world(ANEW, replace(PARKED, status=Status.EXITED), new), attempt("api", new.spec))
    until = "it is 10:01:00 (port_in_use, attempt 1)"
    lines = printed(made).splitlines()
    assert lines[:3] == [
        f"start web-api-0123456789ab: it runs on until {until}",
        "rename one to web-api-n: web-api-0123456789ab is to have its name",
        f"rename web-api-0123456789ab to one: it runs on until {until}",
    ]
    assert waits_for(made, "rename web-api-0123456789ab to one") == {
        "start web-api-0123456789ab",
        "rename one to web-api-n",
    }


def test_a_roll_back_gives_the_name_back():
    failed = running(ANEW, "api", id="n")
    made = plan(ONE, world(ONE, replace(PARKED, status=Status.EXITED, exit_code=1), failed))
    assert [line.split(":")[0] for line in printed(made).splitlines()] == [
        "stop one",
        "rename one to web-api-n",
        "rename web-api-0123456789ab to one",
        "start one",
        "remove one",
    ]


def test_an_image_that_is_missing_leaves_the_name_where_it_is():
    made = plan(ANEW, world(ANEW, OLD, absent=("api:2",)))
    assert "create web-api-new: image changed: api:1 → api:2" in printed(made)


def test_what_is_kept_stopped_has_its_name_too():
    still = replace(WEB, services={"api": replace(WEB.services["api"], stopped="by x-state")})
    assert text(still, exited(WEB, "api", name="mine")) == "rename mine to web-api-*: it was renamed"

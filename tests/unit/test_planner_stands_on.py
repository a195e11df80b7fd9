"""What is planned for networks and volumes: made, replaced, reported when they are in the way, never taken away."""

from dataclasses import replace

import pytest

from device_agent.core.wanted import Naming
from device_agent.model.observed import Network, Observed, Volume
from tests.builders import (
    app,
    attempt,
    exited,
    images,
    network,
    plan,
    printed,
    removal,
    running,
    service,
    volume,
    waits_for,
    wanted,
    world,
)

ON = wanted(app(api=service(networks=["default"])))
OFF = wanted(app(api=service()))
API = running(ON, "api")
LOST = "it is not on network web_default"

# Networks.


def test_a_network_is_made_before_its_users():
    made = plan(ON, Observed(images=images("api:1")))
    assert printed(made) == (
        "create network web_default: it does not exist\n"
        "create web-api-*: it does not exist\n"
        "start web-api-*: it was just created"
    )
    assert "create network web_default" in waits_for(made, "create web-api-*")


def test_a_container_is_connected_to_its_further_networks_before_it_starts():
    two = wanted(app({"networks": {"a": {}, "b": {}}}, api=service(networks={"a": {}, "b": {"priority": 5}})))
    made = plan(two, world(two))
    create = next(step.action for step in made.steps if step.id.startswith("create web-api"))
    assert create.network_mode == "web_b"
    assert waits_for(made, "start web-api-*") == {"create web-api-*", "connect web-api-* to web_a"}


def test_a_container_that_lost_its_network_is_put_back():
    assert printed(plan(ON, world(ON, replace(API, networks={})))) == f"connect web-api-* to web_default: {LOST}"


def test_a_network_that_was_removed_is_made_again_and_its_users_moved_over():
    made = plan(ON, world(ON, API, networks=()))
    assert printed(made) == (
        "create network web_default: it does not exist\n"
        f"disconnect web-api-* from web_default: {LOST}\n"
        f"connect web-api-* to web_default: {LOST}"
    )
    assert waits_for(made, "connect web-api-* to web_default") == {
        "create network web_default",
        "disconnect web-api-* from web_default",
    }


def test_what_ended_is_put_back_on_its_network_before_it_starts():
    made = plan(ON, world(ON, exited(ON, "api", networks={"web_default": "gone"})))
    assert "connect web-api-* to web_default" in waits_for(made, "start web-api-*")


BEFORE = wanted(app(api=service(networks=["default"]), db=service("db:1", networks=["default"])))
LOOK = "look who is on network web_default"
INTERNAL = {"networks": {"default": {"internal": True}}}
AFTER = wanted(app(INTERNAL, api=service(networks=["default"]), db=service("db:1", networks=["default"])))
USERS = (running(BEFORE, "api"), running(BEFORE, "db"))
CHANGED = "the definition of network web_default changed"


def test_a_changed_network_is_replaced_with_its_users_stopped_and_started_again():
    made = plan(AFTER, world(AFTER, *USERS, networks=(network(BEFORE),)))
    assert {line.rpartition(": ")[2] for line in printed(made).splitlines()} == {CHANGED}
    gone = {f"{what} web-{who}-*" for who in ("api", "db") for what in ("stop",)} | {
        "disconnect web-api-* from web_default",
        "disconnect web-db-* from web_default",
    }
    assert waits_for(made, "remove network web_default") == gone | {LOOK}
    moved = {"remove network web_default", "create network web_default", "connect web-api-* to web_default"}
    assert waits_for(made, "start web-api-*") == gone | moved | {LOOK}
    assert [step.subject for step in made.steps if step.commits and step.id.startswith("start")] == ["api", "db"]


def test_a_network_is_not_replaced_before_all_images_are_there():
    made = plan(AFTER, world(AFTER, USERS[0], networks=(network(BEFORE),), images=images("api:1")))
    assert waits_for(made, "stop web-api-*") == {LOOK, "pull docker.io/library/db:1"}


def test_one_that_could_not_be_replaced_is_used_as_it_is_until_the_next_try():
    failed = attempt("network default", AFTER.networks["default"].spec)
    assert printed(plan(AFTER, world(AFTER, *USERS, networks=(network(BEFORE),)), failed)) == (
        "remove network web_default: the definition of network web_default changed"
        " [once it is 10:01:00 (port_in_use, attempt 1)]"
    )


def test_a_user_that_waits_for_its_next_try_keeps_the_others_running():
    failed = attempt("api", USERS[0].spec)
    assert printed(plan(AFTER, world(AFTER, *USERS, networks=(network(BEFORE),)), failed)) == (
        "remove network web_default: the definition of network web_default changed"
        " [once it is 10:01:00 (port_in_use, attempt 1)]"
    )


def test_what_is_to_be_replaced_is_moved_over_too_and_not_started():
    both = wanted(app(INTERNAL, api=service("api:2", networks=["default"]), db=service("db:1", networks=["default"])))
    made = plan(both, world(both, running(BEFORE, "api", name="old"), USERS[1], networks=(network(BEFORE),)))
    assert waits_for(made, "connect old to web_default") >= {"create network web_default", "stop old"}
    assert "start old" not in printed(made)
    assert {"stop old", "create network web_default"} <= waits_for(made, "start web-api-*")


def test_a_swap_of_ports_on_a_changed_network_does_not_wait_for_itself():
    def of(sections, a, z):
        return wanted(
            app(sections, api=service(networks=["default"], ports=a), zed=service(networks=["default"], ports=z))
        )

    before, after = of({}, ["80:80"], ["81:80"]), of(INTERNAL, ["81:80"], ["80:80"])
    users = (running(before, "api"), running(before, "zed"))
    made = plan(after, world(after, *users, networks=(network(before),)))
    assert {"stop web-api-*", "stop web-zed-*"} <= waits_for(made, "start web-api-*") & waits_for(
        made, "start web-zed-*"
    )
    assert waits_for(made, "stop web-api-*") == {LOOK}


def test_a_service_that_joins_or_leaves_a_network_is_another_container():
    one = wanted(app({"networks": {"back": {}}}, api=service(networks=["default"])))
    two = wanted(app({"networks": {"back": {}}}, api=service(networks=["default", "back"])))
    replacement = (
        "stop old: to be replaced by web-api-*\n"
        "start web-api-*: it was just created\n"
        "remove old: replaced by web-api-* [once api is good]"
    )
    assert printed(plan(two, world(two, running(one, "api", name="old")))) == (
        "create web-api-*: its definition changed\n"
        "connect web-api-* to web_default: it is to be on network web_default\n" + replacement
    )
    both = (network(one), network(two, "back"))
    assert printed(plan(one, world(one, running(two, "api", name="old"), networks=both))) == (
        "create web-api-*: its definition changed\n" + replacement
    )


def test_an_unused_network_goes():
    unused = "remove network web_default: nothing uses it any more"
    assert printed(plan(OFF, world(OFF, running(OFF, "api"), networks=(network(ON),)))) == unused


def test_a_network_stays_while_a_container_is_on_it():
    made = plan(OFF, world(OFF, API, networks=(network(ON),)))
    assert "remove network" not in printed(made)


def test_the_networks_of_a_removed_app_go_after_its_containers():
    made = removal("web", world(ON, API))
    assert waits_for(made, "remove network web_default") == {"stop web-api-*", "remove web-api-*"}


EXTERNAL = wanted(app({"networks": {"lan": {"external": True}}}, api=service(networks=["lan"])))


def test_an_external_network_is_used():
    made = plan(EXTERNAL, world(EXTERNAL, networks=(Network("lan", "lan-id"),)))
    assert printed(made) == "create web-api-*: it does not exist\nstart web-api-*: it was just created"


def test_an_external_network_that_is_missing_is_reported_and_never_made():
    until = "[once network lan can be used]"
    made = plan(EXTERNAL, world(EXTERNAL, networks=()))
    assert printed(made) == (
        f"create web-api-*: it does not exist {until}\n"
        f"start web-api-*: it was just created {until}\n"
        "! network lan: network_missing"
    )


def test_what_runs_is_left_alone_when_its_external_network_is_missing():
    runs = running(EXTERNAL, "api")
    assert printed(plan(EXTERNAL, world(EXTERNAL, runs, networks=()))) == "! network lan: network_missing"


@pytest.mark.parametrize(
    "other", [Network("web_default", "x"), Network("web_default", "x", "shop", "k", "s")], ids=["foreign", "other app"]
)
def test_a_network_in_the_way_is_reported_and_never_touched(other):
    made = plan(ON, world(ON, networks=(other,)))
    assert printed(made).endswith("! network default: name_in_use")
    assert "network web_default:" not in printed(made)
    assert all(step.until for step in made.steps)


def test_what_an_external_network_is_called_is_not_prefixed():
    prefixed = wanted(
        app({"networks": {"lan": {"external": True}, "own": {"name": "lan2"}}}, api=service(networks=["lan", "own"])),
        naming=Naming("plant7/d1", "p-"),
    )
    assert {key: made.name for key, made in prefixed.networks.items()} == {"lan": "lan", "own": "p-lan2"}


# Volumes.

STORED = wanted(app({"volumes": {"data": {}}}, api=service(volumes=["data:/d"])))


def test_a_volume_is_made_before_its_user():
    made = plan(STORED, world(STORED, volumes=()))
    assert printed(made).startswith("create volume web_data: it does not exist\n")
    assert waits_for(made, "create web-api-*") == {"create volume web_data"}


def test_a_volume_that_nothing_mounts_is_not_made():
    idle = wanted(app({"volumes": {"data": {}}}, api=service()))
    assert printed(plan(idle, world(idle, running(idle, "api"), volumes=()))) == ""


def test_a_volume_with_another_definition_is_left_as_it_is():
    differs = volume(STORED, "data", spec="other")
    assert printed(plan(STORED, world(STORED, running(STORED, "api"), volumes=(differs,)))) == ""


def test_a_volume_that_left_the_target_stays():
    assert printed(plan(OFF, world(OFF, running(OFF, "api"), volumes=(volume(STORED, "data"),)))) == ""
    assert "volume" not in printed(removal("web", world(STORED, running(STORED, "api"))))


def test_a_volume_of_another_app_of_this_device_is_used():
    shared = plan(STORED, world(STORED, volumes=(Volume("web_data", "shop", "k", "s"),)))
    assert printed(shared) == "create web-api-*: it does not exist\nstart web-api-*: it was just created"


def test_a_foreign_volume_in_the_way_is_reported_and_what_runs_runs_on():
    old = running(OFF, "api", name="old")
    made = plan(STORED, world(STORED, old, volumes=(Volume("web_data"),)))
    assert printed(made).endswith("! volume data: name_in_use")
    assert all(step.until for step in made.steps)


def test_an_external_volume_must_be_there_and_is_never_made():
    outside = wanted(app({"volumes": {"data": {"external": True}}}, api=service(volumes=["data:/d"])))
    assert printed(plan(outside, world(outside, volumes=()))).endswith("! volume data: volume_missing")
    assert "!" not in printed(plan(outside, world(outside, volumes=(Volume("data"),))))

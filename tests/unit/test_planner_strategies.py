"""`stop-first` and `delete-first`: what makes room for an image before it is pulled, and what if it does not come."""

from dataclasses import replace

import pytest

from cloud_sim.engine_parts import image_id
from device_agent.core.images import Pulled
from device_agent.core.planner import plan_app
from device_agent.model.image import normalise
from device_agent.model.memory import PulledImage
from device_agent.model.observed import Status
from tests.builders import (
    NOW,
    app,
    attempt,
    attempts,
    exited,
    network,
    plan,
    printed,
    running,
    service,
    waits_for,
    wanted,
    world,
)

NEW_IMAGE = normalise("api:2")


def of(strategy: str, image: str = "api:2", **more):
    return wanted(app({"x-update": {"strategy": strategy}}, api=service(image), **more))


WAS = wanted(app(api=service("api:1")))
OLD = running(WAS, "api", name="old")
UNREACHABLE = attempt(f"image {NEW_IMAGE}", NEW_IMAGE, app="", code="registry_unreachable")
ROOM = "it makes room for api:2"


def own(*images: str) -> Pulled:
    names = [normalise(image) for image in images]
    return Pulled({(n, image_id(n)): PulledImage(n, image_id(n), own=True, pulled_at=NOW) for n in names})


def lines(made) -> list[str]:
    return printed(made).splitlines()


def test_stop_first_stops_before_it_pulls():
    made = plan(of("stop-first"), world(of("stop-first"), OLD, absent=("api:2",)))
    assert lines(made) == [
        f"stop old: {ROOM}",
        "pull api:2: it is not on this device",
        "create web-api-new: image changed: api:1 → api:2",
        "start web-api-new: it was just created",
        "remove old: replaced by web-api-new [once api is good]",
    ]
    assert waits_for(made, f"pull {NEW_IMAGE}") == {"stop old"}


def test_what_was_stopped_stays_so_while_its_image_is_on_its_way():
    after = of("stop-first")
    made = plan(after, world(after, exited(WAS, "api", name="old"), absent=("api:2",)))
    assert lines(made)[0] == "pull api:2: it is not on this device"
    assert waits_for(made, "start web-api-new") == {f"pull {NEW_IMAGE}", "create web-api-new"}
    assert "start old" not in printed(made)


def test_what_was_stopped_runs_again_while_its_image_cannot_be_had():
    after = of("stop-first")
    down = world(after, exited(WAS, "api", name="old"), absent=("api:2",))
    assert "start old: it runs on until all it needs is there" in lines(plan(after, down, UNREACHABLE))
    up = world(after, OLD, absent=("api:2",))
    assert all(step.until or step.after for step in plan(after, up, UNREACHABLE).steps)


@pytest.mark.parametrize("strategy", ["stop-first", "delete-first"])
def test_what_needs_no_pull_is_replaced_as_ever(strategy):
    after = of(strategy)
    made = plan(after, world(after, OLD))
    assert printed(made) == printed(plan(of("recreate"), world(after, OLD)))
    assert waits_for(made, "stop old") == {"create web-api-*"}


def test_delete_first_removes_the_container_and_its_image():
    after = of("delete-first")
    made = plan_app(after, world(after, OLD, absent=("api:2",)), attempts(), {}, pulled=own("api:1"))
    assert lines(made) == [
        f"stop old: {ROOM}",
        f"remove old: {ROOM}",
        f"remove image api:1: {ROOM}",
        "pull api:2: it is not on this device",
        "create web-api-new: image changed: api:1 → api:2",
        "start web-api-new: it was just created",
    ]
    assert waits_for(made, f"pull {NEW_IMAGE}") == {"stop old", "remove old", f"remove image {normalise('api:1')}"}


def test_an_image_that_was_here_before_the_agent_stays():
    after = of("delete-first")
    made = plan(after, world(after, OLD, absent=("api:2",)))
    assert "remove image" not in printed(made)
    assert waits_for(made, f"pull {NEW_IMAGE}") == {"stop old", "remove old"}


def test_an_image_that_another_container_or_service_needs_stays():
    after = of("delete-first")
    user = replace(OLD, id="x", app="shop", name="x")
    seen = world(after, OLD, user, absent=("api:2",))
    assert "remove image" not in printed(plan_app(after, seen, attempts(), {}, pulled=own("api:1")))
    both = of("delete-first", db=service("api:1"))
    seen = world(both, OLD, absent=("api:2",))
    assert "remove image" not in printed(plan_app(both, seen, attempts(), {}, pulled=own("api:1")))


def test_an_image_of_several_goes_after_the_last_of_them():
    several = wanted(app({"x-update": {"strategy": "delete-first"}}, api=service("api:2", scale=2)))
    was = wanted(app(api=service("api:1", scale=2)))
    up = [running(was, name, id=name, name=name.replace("#", "-")) for name in was.services]
    made = plan_app(several, world(several, *up, absent=("api:2",)), attempts(), {}, pulled=own("api:1"))
    before = {"stop api", "remove api", "stop api-2", "remove api-2"}
    assert waits_for(made, f"remove image {normalise('api:1')}") == before


@pytest.mark.parametrize("strategy", ["stop-first", "delete-first"])
def test_nothing_is_stopped_for_what_cannot_be_had_anyway(strategy):
    after = wanted(
        app(
            {"x-update": {"strategy": strategy}, "networks": {"lan": {"external": True}}},
            api={"image": "api:2", "networks": ["lan"]},
        )
    )
    made = plan(after, world(after, OLD, absent=("api:2",), networks=()))
    assert not [step for step in made.steps if step.id in ("stop old", "remove old") and not step.until]


def test_with_a_network_that_is_replaced_it_waits_for_the_images():
    def on(image: str, **definition: bool):
        api = {"image": image, "networks": ["default"]}
        return wanted(app({"x-update": {"strategy": "delete-first"}, "networks": {"default": definition}}, api=api))

    was, after = on("api:1"), on("api:2", internal=True)
    made = plan(after, world(after, running(was, "api", name="old"), absent=("api:2",), networks=(network(was),)))
    assert f"pull {NEW_IMAGE}" in waits_for(made, "stop old")


def test_the_others_of_the_release_wait_for_all_images():
    mixed = wanted(app(api=service("api:2", **{"x-update": {"strategy": "stop-first"}}), db=service("db:2")))
    was = wanted(app(api=service("api:1"), db=service("db:1")))
    made = plan(mixed, world(mixed, OLD, running(was, "db", name="db"), absent=("api:2", "db:2")))
    assert waits_for(made, "stop old") == set()
    assert f"pull {NEW_IMAGE}" in waits_for(made, "stop db")
    down = world(mixed, replace(OLD, status=Status.EXITED), running(was, "db", name="db"), absent=("db:2",))
    assert "start old" not in printed(plan(mixed, down))


def test_room_is_not_made_of_what_itself_waits_for_the_pull():
    """Of two services of one image the other goes with its release, and so after the pull."""
    before = wanted(app(api=service("api:1"), other=service("api:1")))
    after = wanted(app(api=service("api:2", **{"x-update": {"strategy": "delete-first"}})))
    seen = world(after, running(before, "api"), running(before, "other"), absent=("api:2",))
    made = plan_app(after, seen, attempts(), {}, pulled=own("api:1"))
    assert "remove image" not in printed(made)
    assert waits_for(made, f"pull {NEW_IMAGE}") == {"stop web-api-*", "remove web-api-*"}

"""More containers than one of a service: their names and labels, and what is planned, told and undone for them."""

import pytest

from cloud_sim.engine_parts import Behaviour
from device_agent.core.planner import plan_app
from device_agent.core.policy import Policy, offences
from device_agent.model.observed import Health, Observed
from device_agent.model.validate import validate_apps
from tests.builders import app, attempts, images, plan, printed, running, service, waits_for, wanted, world
from tests.device import settled


def scaled(scale, image="api:1", **keys):
    return wanted(app(api=service(image, scale=scale, **keys)))


ONE, THREE = scaled(1), scaled(3)


def test_each_container_has_a_name_and_labels_of_its_own():
    made = [THREE.create(one, "sha256:1") for one in THREE.services.values()]
    assert list(THREE.services) == ["api", "api#2", "api#3"]
    assert [create.name.rpartition("-")[0] for create in made] == ["web-api", "web-api-2", "web-api-3"]
    assert [create.labels["device-agent.service"] for create in made] == ["api"] * 3
    assert [create.labels["device-agent.number"] for create in made] == ["", "2", "3"]
    assert len({create.labels["device-agent.spec"] for create in made}) == 3


def test_the_first_is_the_one_there_is_without_a_scale():
    assert THREE.services["api"].basis == ONE.services["api"].basis
    assert plan(THREE, world(THREE, *(running(THREE, name) for name in THREE.services))).steps == ()


def test_all_answer_to_the_name_of_the_service():
    many = wanted(app(api={"image": "api:1", "scale": 2}))
    assert {endpoint.aliases for one in many.services.values() for endpoint in one.endpoints} == {("api",)}


def test_they_are_counted_in_order():
    assert scaled(11).instances("api")[:3] == ("api", "api#2", "api#3")
    assert scaled(11).instances("api")[-1] == "api#11"
    assert scaled(0).instances("api") == ()


def test_scaling_up_touches_none_of_those_there_are():
    assert printed(plan(THREE, world(THREE, running(ONE, "api")))) == (
        "create web-api-2-*: it does not exist\n"
        "start web-api-2-*: it was just created\n"
        "create web-api-3-*: it does not exist\n"
        "start web-api-3-*: it was just created"
    )


def test_scaling_down_removes_the_highest_numbers():
    gone = "it is no longer in the target"
    up = world(THREE, *(running(THREE, name) for name in THREE.services))
    assert printed(plan(scaled(2), up)) == f"stop web-api-3-*: {gone}\nremove web-api-3-*: {gone}"
    assert printed(plan(scaled(0), up)).count("remove") == 3


def test_one_that_is_too_many_has_the_grace_of_its_service():
    patient = {"stop_grace_period": "60s"}
    three = scaled(3, **patient)
    up = world(three, *(running(three, name, name=name) for name in three.services))
    (stop,) = (step.action for step in plan(scaled(2, **patient), up).steps if step.id == "stop api#3")
    assert stop.grace_s == 60


def test_without_containers_there_is_nothing_to_pull_and_no_network_to_make():
    none = wanted(app(api={"image": "api:1", "scale": 0}))
    assert plan(none, Observed()).steps == ()


def test_who_depends_on_it_waits_for_all_of_them():
    both = wanted(app(api=service(depends_on=["db"]), db=service("db:1", scale=2)))
    made = plan(both, Observed(images=images("api:1", "db:1")))
    assert {"start web-db-*", "start web-db-2-*"} <= waits_for(made, "start web-api-*")
    checked = {"healthcheck": {"test": ["CMD", "true"]}}
    healthy = {"depends_on": {"db": {"condition": "service_healthy"}}}
    sick = wanted(app(api=service(**healthy), db=service("db:1", scale=2, **checked)))
    first = running(sick, "db", health=Health.HEALTHY)
    second = running(sick, "db#2", health=Health.STARTING)
    assert "[once db#2 is healthy]" in printed(plan(sick, world(sick, first, second)))


def test_who_depends_on_one_without_containers_waits_for_nothing():
    healthy = {"depends_on": {"db": {"condition": "service_healthy"}}}
    alone = wanted(app(api=service(**healthy), db=service("db:1", scale=0)))
    made = plan(alone, Observed(images=images("api:1")))
    assert printed(made) == "create web-api-*: it does not exist\nstart web-api-*: it was just created"


def test_they_stop_before_what_they_depend_on():
    both = wanted(app(api=service(scale=2, depends_on=["db"]), db=service("db:1", scale=2)))
    gone = wanted(app(other=service("api:1")))
    up = [running(both, name, name=name) for name in both.services]
    made = plan(gone, world(gone, *up))
    assert waits_for(made, "stop db#2") >= {"stop api", "stop api#2"}


def test_one_of_several_that_is_lost_comes_back_alone():
    left = [running(THREE, name) for name in ("api", "api#3")]
    assert printed(plan(THREE, world(THREE, *left))).startswith("create web-api-2-*")


def test_start_first_replaces_each_beside_the_old_one():
    keys = {"x-update": {"strategy": "start-first"}}
    old, new = scaled(2, **keys), scaled(2, "api:2", **keys)
    up = [running(old, name, name=name) for name in old.services]
    made = plan_app(new, world(new, *up), attempts(), {}, gated=True)
    stops = [step for step in made.steps if str(step.action).startswith("stop")]
    assert all(step.until for step in stops)


def test_a_policy_counts_each_container():
    document = {"web": {"services": {"api": {"image": "a", "mem_limit": "1g", "scale": 3}}}}
    apps = validate_apps(document).apps
    assert offences(Policy(memory_max=3 * 2**30), apps, document) == ()
    assert len(offences(Policy(memory_max=2 * 2**30), apps, document)) == 1


# A whole device.


def test_a_device_scales_up_and_down_and_tells_of_each():
    device = settled({"web": app(api=service())})
    first = device.containers()["web/api"].id
    device.publish({"web": app(api=service(scale=3))}, revision=2)
    device.converge()
    assert device.ups() == {"web/api", "web/api#2", "web/api#3"}
    assert list(device.state()["apps"]["web"]["services"]) == ["api", "api#2", "api#3"]
    device.publish({"web": app(api=service(scale=1))}, revision=3)
    device.converge()
    assert device.ups() == {"web/api"}
    assert device.containers()["web/api"].id == first


def test_explain_has_all_of_a_service_or_the_one_that_is_named():
    device = settled({"web": app(api=service(scale=2), db=service("db:1"))})
    assert list(device.ask("explain", app="web", service="api")["result"]["services"]) == ["api", "api#2"]
    assert list(device.ask("explain", app="web", service="api#2")["result"]["services"]) == ["api#2"]


@pytest.mark.parametrize("strategy", ["recreate", "start-first"])
def test_a_release_that_fails_gives_all_of_them_back(strategy):
    def release(image: str) -> dict[str, object]:
        return {"web": {**app(api=service(image, scale=2)), "x-update": {"strategy": strategy}}}

    device = settled(release("api:1"))
    before = {name: container.id for name, container in device.containers().items()}
    device.world.add_image("api:2", behaviour=Behaviour(exit_code=1))
    device.publish(release("api:2"), revision=2)
    device.wait(60)
    assert {name: container.id for name, container in device.containers().items()} == before
    assert device.ups() == {"web/api", "web/api#2"}

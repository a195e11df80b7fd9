"""What `docker update` has changed, told from what an engine makes of a limit by itself."""

from dataclasses import replace

import pytest

from cloud_sim.engine_parts import SimContainer
from device_agent.core.limits import changed
from device_agent.model.observed import Limits, Status
from tests.builders import app, plan, printed, running, service, wanted, world

MIB = 2**20
PLAIN = wanted(app(api=service()))
BOUND = wanted(
    app(
        api=service(
            mem_limit="64m",
            mem_reservation="32m",
            cpus=0.5,
            cpu_shares=1,
            cpuset="0-2,4",
            pids_limit=50,
            blkio_config={"weight": 300},
            restart="on-failure:3",
        )
    )
)
QUOTA = wanted(app(api=service(cpu_quota=25_000, memswap_limit=-1, mem_limit="1g")))


def made(of, **limits):
    return running(of, "api", limits=Limits(**limits))


def told(of, container) -> str:
    return changed(of.services["api"].service, container)


@pytest.mark.parametrize(
    ("of", "limits"),
    [
        (PLAIN, {}),
        (PLAIN, {"cpu_shares": 1024, "pids": 2048, "memory_swap": -1}),
        (BOUND, {"retries": 3}),
        (
            BOUND,
            {
                "memory": 64 * MIB,
                "memory_reservation": 32 * MIB,
                "memory_swap": 128 * MIB,
                "cpus": 500_000_000,
                "cpu_shares": 2,
                "cpuset": "0,1,2,4",
                "pids": 50,
                "blkio_weight": 300,
                "retries": 3,
            },
        ),
        (BOUND, {"memory": 64 * MIB, "memory_swap": -1, "cpus": 499_990_000, "retries": 3}),
        (QUOTA, {"memory": 1024 * MIB, "memory_swap": -1, "cpus": 250_000_000}),
    ],
    ids=["nothing", "defaults", "dropped", "docker", "rounded", "quota"],
)
def test_what_an_engine_makes_of_it_by_itself_is_no_change(of, limits):
    assert told(of, made(of, **limits)) == ""


@pytest.mark.parametrize(
    ("of", "limits", "text"),
    [
        (PLAIN, {"memory": 128 * MIB}, "its memory limit was changed to 128 MiB"),
        (PLAIN, {"memory_reservation": 16 * MIB}, "its memory reservation was changed to 16 MiB"),
        (BOUND, {"memory": 64 * MIB, "memory_swap": 64 * MIB}, "its limit of memory and swap was changed to 64 MiB"),
        (PLAIN, {"cpus": 250_000_000}, "its CPU limit was changed to 0.25"),
        (BOUND, {"cpus": 1_000_000_000}, "its CPU limit was changed to 1"),
        (PLAIN, {"cpu_shares": 512}, "its share of the CPU was changed to 512"),
        (PLAIN, {"cpuset": "0"}, "its set of CPUs was changed to 0"),
        (BOUND, {"pids": 9}, "its limit of processes was changed to 9"),
        (BOUND, {"pids": -1}, "its limit of processes was changed to none"),
        (BOUND, {"blkio_weight": 10}, "its block I/O weight was changed to 10"),
        (BOUND, {"retries": 5}, "its restart policy was changed to on-failure:5"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_what_somebody_changed_is_told_in_words(of, limits, text):
    assert told(of, made(of, **({"retries": 3} if of is BOUND else {}) | limits)) == text


def test_a_changed_restart_policy_is_told():
    assert told(PLAIN, running(PLAIN, "api", restart="no")) == "its restart policy was changed to no"
    assert told(PLAIN, running(PLAIN, "api", restart="")) == ""


def test_what_is_paused_and_what_has_been_run_to_its_end_are_left_alone():
    assert told(PLAIN, replace(made(PLAIN, memory=MIB), status=Status.PAUSED)) == ""
    job = wanted(app(api=service(restart="no")))
    assert told(job, replace(made(job, memory=MIB), status=Status.EXITED, exit_code=0)) == ""


@pytest.mark.parametrize("of", [PLAIN, BOUND, QUOTA], ids=["plain", "bound", "quota"])
def test_what_was_just_made_is_as_it_was_made(of):
    create = of.create(of.services["api"], "sha256:1")
    assert told(of, SimContainer("1", create.name, create, "sha256:1", create.labels, {}).seen({})) == ""


# What is done about it.


def test_it_is_made_anew_and_has_its_name_in_the_end():
    updated = made(PLAIN, memory=128 * MIB)
    text = printed(plan(PLAIN, world(PLAIN, updated)))
    assert text == (
        "create web-api-*-new: its memory limit was changed to 128 MiB\n"
        "stop web-api-*: to be replaced by web-api-*-new\n"
        "rename web-api-* to web-api-api-id: web-api-*-new is to have its name\n"
        "rename web-api-*-new to web-api-*: it takes the place of web-api-*\n"
        "start web-api-*: its memory limit was changed to 128 MiB\n"
        "remove web-api-*: replaced by web-api-* [once api is good]"
    )


def test_an_engine_that_never_keeps_a_limit_makes_it_wait_longer_each_time():
    steps = plan(PLAIN, world(PLAIN, made(PLAIN, memory=128 * MIB))).steps
    assert [step.again for step in steps if step.id.startswith("start")] == [True]


def test_an_image_that_lost_its_tag_is_not_pulled_for_it():
    updated = made(PLAIN, memory=128 * MIB)
    assert printed(plan(PLAIN, world(PLAIN, updated, absent=("api:1",)))) == ""

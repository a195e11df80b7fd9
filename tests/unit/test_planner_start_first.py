"""`start-first`: the new container runs beside the one that is good until its release has passed its gate."""

import pytest

from device_agent.model.observed import Health
from tests.builders import app, exited, plan, printed, running, service, waits_for, wanted, world


def of(image: str):
    return wanted(app(api=service(image, **{"x-update": {"strategy": "start-first"}})))


FIRST, SECOND, THIRD = of("api:1"), of("api:2"), of("api:3")
OLD = running(FIRST, "api", id="old", name="old", started_at="2026-11-22T09:00:00Z")
TRIED = running(SECOND, "api", id="tried", name="tried", started_at="2026-11-22T09:10:00Z")
GATE = "[once its release has passed its gate]"


def lines(made) -> list[str]:
    return printed(made).splitlines()


def test_it_starts_beside_the_old_one():
    assert lines(plan(SECOND, world(SECOND, OLD), settled=FIRST, gated=True)) == [
        "create web-api-*: image changed: api:1 → api:2",
        "start web-api-*: it was just created",
        "remove old: replaced by web-api-* [once api is good]",
    ]


@pytest.mark.parametrize(
    ("health", "gated", "until"),
    [
        (Health.STARTING, True, " [once api is good]"),
        (Health.HEALTHY, True, f" {GATE}"),
        (Health.HEALTHY, False, ""),
    ],
)
def test_the_old_one_is_stopped_once_the_gate_is_passed(health, gated, until):
    new = running(SECOND, "api", health=health)
    assert lines(plan(SECOND, world(SECOND, OLD, new), settled=FIRST, gated=gated)) == [
        f"stop old: replaced by web-api-*{until}",
        f"remove old: replaced by web-api-*{until}",
    ]


def test_the_old_one_runs_on_while_the_new_one_does_not():
    new = exited(SECOND, "api")
    assert lines(plan(SECOND, world(SECOND, OLD, new), settled=FIRST, gated=True)) == [
        "start web-api-*: it exited with 1",
        "remove old: replaced by web-api-* [once api is good]",
    ]


def test_one_that_is_overtaken_in_its_gate_makes_way_before_the_newest_starts():
    made = plan(THIRD, world(THIRD, OLD, TRIED), settled=FIRST, gated=True)
    assert lines(made) == [
        "create web-api-*: image changed: api:2 → api:3",
        "stop tried: to be replaced by web-api-*",
        "start web-api-*: it was just created",
        "remove tried: replaced by web-api-* [once api is good]",
        "remove old: replaced by web-api-* [once api is good]",
    ]
    assert "stop tried" in waits_for(made, "start web-api-*")


def test_one_that_is_overtaken_by_what_was_good_before_it_does_not_run_on():
    good = running(FIRST, "api")
    assert lines(plan(FIRST, world(FIRST, good, TRIED), settled=FIRST, gated=True)) == [
        "stop tried: replaced by web-api-*",
        f"remove tried: replaced by web-api-* {GATE}",
    ]


def test_without_one_that_is_good_what_serves_runs_on():
    made = plan(THIRD, world(THIRD, exited(FIRST, "api", id="old", name="old"), TRIED), settled=FIRST, gated=True)
    assert "stop tried" not in printed(made)


def test_one_whose_host_port_another_service_takes_is_stopped_first():
    """Or they wait for each other for ever, where the new one depends on the other."""
    before = wanted(app(api=service("api:1", ports=["80:80"])))
    beside = {"x-update": {"strategy": "start-first"}}
    after = wanted(app(api=service("api:2", depends_on=["db"], **beside), db=service("db:1", ports=["80:80"])))
    old = running(before, "api", name="old", published=frozenset({(80, "tcp")}))
    made = plan(after, world(after, old), settled=before, gated=True)
    assert "stop old: to be replaced by web-api-*" in lines(made)
    assert waits_for(made, "stop old") == {"create web-api-*"}
    assert "stop old" in waits_for(made, "start web-db-*")

    there = running(after, "db", published=frozenset({(80, "tcp")}))
    elsewhere = running(before, "api", name="old")
    assert "stop old" not in printed(plan(after, world(after, elsewhere, there), settled=before, gated=True))

"""A plan being carried out: what can go now, when nothing more can, and what is finished although it is overtaken."""

from device_agent.model.steps import Plan, Pull, Start, Step, Stop
from device_agent.runtime.run import Run


def step(action, *after: Step, **keys) -> Step:
    return Step(action, "api", "s", "because", frozenset(each.id for each in after), **keys)


CREATE = step(Start("made"))
STOP = step(Stop("old", "old-id", 1.0), CREATE)
START = step(Start("new"), STOP, commits=True)
LATER = step(Start("later"), START)
PLAN = Plan("web", (CREATE, STOP, START, LATER))


def run(*done: Step, flying: tuple[Step, ...] = (), draining: bool = False, plan: Plan = PLAN) -> Run:
    return Run(plan, {each.id for each in done}, flying={each.id: each for each in flying}, draining=draining)


def ready(of: Run) -> list[str]:
    return [each.id for each in of.ready()]


def test_a_step_goes_when_all_it_waits_for_is_done():
    assert ready(run()) == ["start made"]
    assert ready(run(CREATE)) == ["stop old"]
    assert ready(run(CREATE, STOP)) == ["start new"]


def test_what_flies_or_has_failed_is_not_started_again():
    assert ready(run(flying=(CREATE,))) == []
    of = run(CREATE)
    of.failed.add(STOP.id)
    assert ready(of) == []
    assert of.over


def test_it_is_over_when_nothing_flies_and_nothing_can_go():
    assert not run().over
    assert not run(flying=(CREATE,)).over
    assert run(CREATE, STOP, START, LATER).over


def test_what_must_be_observed_first_and_pulls_are_not_of_a_run():
    pull, held = step(Pull("x")), step(Start("held"), until="it is healthy")
    of = run(plan=Plan("web", (pull, held, step(Start("after"), pull))))
    assert ready(of) == []
    assert of.over


def test_overtaken_before_anything_was_stopped_nothing_more_is_started():
    assert ready(run(draining=True)) == []
    assert ready(run(CREATE, draining=True)) == []


def test_overtaken_in_the_middle_of_a_replacement_it_is_finished_and_no_more():
    assert ready(run(CREATE, STOP, draining=True)) == ["start new"]
    assert not run(CREATE, flying=(STOP,), draining=True).over
    assert ready(run(CREATE, STOP, START, draining=True)) == []


def test_overtaken_in_the_middle_all_that_the_second_half_needs_is_still_done():
    other = step(Start("network"))
    start = step(Start("new"), STOP, other, commits=True)
    of = run(CREATE, STOP, draining=True, plan=Plan("web", (CREATE, STOP, other, start)))
    assert ready(of) == ["start network"]


def test_a_stop_that_is_not_done_yet_begins_nothing():
    two = step(Stop("second", "id-2", 1.0))
    start = step(Start("of second"), two, commits=True)
    of = run(CREATE, STOP, draining=True, plan=Plan("web", (CREATE, STOP, START, two, start)))
    assert ready(of) == ["start new"]


def test_its_own_stops_are_no_surprise():
    assert run().touches("old-id")
    assert not run().touches("another")
    held = Plan("web", (step(Stop("old", "old-id", 1.0), until="later"),))
    assert not run(plan=held).touches("old-id")
    assert Run(held, going=frozenset(("old-id",))).touches("old-id")

"""What is remembered of inspections between two looks, and what is not."""

import pytest

from device_agent.adapters.docker_memory import Inspections
from device_agent.adapters.docker_observe import Inspected, Listed
from device_agent.model.observed import Container, Limits, Status

RUNNING = (Status.RUNNING, None)


def listed(id_: str, name: str = "") -> Listed:
    container = Container(id_, name or f"{id_}-name", "web", id_, "s1", "api:1", "sha256:1", Status.RUNNING)
    return Listed(container, RUNNING)


def inspected(error: str = "") -> Inspected:
    return Inspected(RUNNING, Status.RUNNING, 0, "no", None, None, 0, error, Limits(), frozenset())


A, B = listed("a"), listed("b")
NONE: frozenset[str] = frozenset()


def ids(outdated: list[Listed]) -> list[str]:
    return [item.container.id for item in outdated]


@pytest.fixture
def known() -> Inspections:
    """That has listed both."""
    known = Inspections()
    assert ids(known.outdated([A, B], NONE)) == ["a", "b"]
    return known


def test_what_was_inspected_is_not_inspected_again(known: Inspections) -> None:
    known.learn(A.container, inspected(), known.now())
    assert ids(known.outdated([A, B], NONE)) == ["b"]


def test_a_change_of_one_leaves_what_was_learnt_of_the_others(known: Inspections) -> None:
    since = known.now()
    known.forget("b")
    for item in (A, B):
        known.learn(item.container, inspected(), since)
    assert ids(known.outdated([A, B], NONE)) == ["b"]


@pytest.mark.parametrize("called", ["a", "a-name", "renamed"])
def test_nothing_is_learnt_from_an_answer_that_is_older_than_a_change(known: Inspections, called: str) -> None:
    since = known.now()
    known.renamed("a", "renamed")
    known.forget(called)
    known.learn(A.container, inspected("of before"), since)
    assert known.known("a") is None
    known.learn(A.container, inspected("of after"), known.now())
    assert known.known("a") == inspected("of after")


@pytest.mark.parametrize("name", ["c-name", "a-name"], ids=["a new name", "the name of one that is gone"])
def test_nor_of_one_that_was_made_since_the_last_listing(known: Inspections, name: str) -> None:
    since = known.now()
    made = listed("c", name)
    known.forget(name)
    known.outdated([made, B], NONE)
    known.learn(made.container, inspected("of before"), since)
    assert known.known("c") is None


def test_changes_of_what_is_gone_are_not_remembered_for_ever(known: Inspections) -> None:
    for number in range(100):
        known.forget(f"{number}")
    known.outdated([A, B], NONE)
    assert not known._forgotten

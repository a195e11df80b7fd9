"""When a failed thing is tried again: exponentially later, capped, never all at once, also across clock jumps."""

import random
from datetime import timedelta

import pytest

from device_agent.core.backoff import CAP, CAP_S, due
from device_agent.model.errors import EngineError, Kind
from device_agent.runtime.execute import delay_s
from device_agent.runtime.retries import Retries
from tests.builders import NOW, attempt, attempts
from tests.device import Hands


@pytest.mark.parametrize("kind", [Kind.TEMPORARY, Kind.OUTSIDE])
def test_delays_grow_up_to_the_cap_with_full_jitter(kind):
    random.seed(7)
    for count, highest in ((1, 1.0), (2, 2.0), (3, 4.0), (9, 256.0), (10, CAP_S), (1000, CAP_S), (10**6, CAP_S)):
        drawn = [delay_s(count, kind) for _ in range(200)]
        assert 0 <= min(drawn) < 0.2 * highest
        assert 0.8 * highest < max(drawn) <= highest


def test_a_targets_fault_is_tried_more_slowly():
    random.seed(7)
    assert 1.0 < max(delay_s(1, Kind.TARGET) for _ in range(200)) <= 5.0
    assert max(delay_s(50, Kind.TARGET) for _ in range(200)) <= CAP_S


@pytest.mark.parametrize(
    ("away", "is_due"),
    [
        (timedelta(0), True),
        (timedelta(seconds=-1), True),
        (timedelta(milliseconds=1), False),
        (CAP, False),
        (CAP + timedelta(seconds=1), True),
        (timedelta(days=3650), True),
        (-timedelta(days=3650), True),
    ],
)
def test_a_time_further_away_than_the_cap_can_only_be_a_clock_that_jumped(away, is_due):
    assert due(attempt("api", "s", next_at=NOW + away), NOW) == is_due


def test_only_the_same_attempt_holds():
    rows = attempts(attempt("api", "s"))
    assert rows.waiting("web", "api", "s")
    assert not rows.waiting("web", "api", "another spec")
    assert not rows.waiting("web", "db", "s")
    assert not rows.waiting("other", "api", "s")
    assert rows.of("web", "api")


@pytest.mark.parametrize(("asked_s", "least_s", "most_s"), [(0.0, 0, 1), (60.0, 60, 61), (86400.0, CAP_S, CAP_S)])
def test_who_wants_to_be_left_alone_is_left_alone_up_to_the_cap(asked_s, least_s, most_s):
    kept = []
    retries = Retries(Hands(), kept.append, lambda *_: None)
    retries.failed("", "image a", "a", EngineError("registry_limited", "not now", Kind.OUTSIDE, asked_s))
    (row,) = kept
    assert least_s <= (row.next_at - NOW).total_seconds() <= most_s
    assert row.next_at - NOW <= CAP, "further away it would be taken for a clock that jumped, and be due"

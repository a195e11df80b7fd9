"""When what arrives is judged: decisions alone."""

import pytest

from device_agent.core.brake import ANSWER_S, CALM_S, LONGEST_S, MANY, Brake


def test_the_first_is_judged_at_once_and_so_is_the_next_after_a_pause() -> None:
    brake = Brake()
    for now in (10.0, 10.0 + CALM_S, 100.0):
        brake.heard(1, now)
        assert brake.due == now
        assert not brake.asks(now)
        brake.judged(now)
        assert brake.due is None


def test_what_follows_within_the_pause_waits_until_it_is_calm() -> None:
    brake = Brake()
    brake.heard(1, 10.0)
    brake.judged(10.0)
    for now in (10.5, 11.0, 12.0):
        brake.heard(1, now)
        assert brake.due == now + CALM_S


def test_it_waits_for_no_longer_than_this() -> None:
    brake = Brake()
    now = 10.0
    while now < 10.5 + LONGEST_S:
        brake.heard(1, now)
        if brake.due == now:
            brake.judged(now)
        now += 0.5
    assert brake.due == 10.5 + LONGEST_S
    assert not brake.asks(now), "in the middle of a flood the broker would answer with what is overtaken soon"
    brake.judged(now)
    assert brake.due == now + CALM_S
    assert brake.asks(now + CALM_S)


@pytest.mark.parametrize("count", [MANY, MANY + 1])
def test_after_many_the_broker_is_asked_once(count: int) -> None:
    brake = Brake()
    brake.heard(count, 10.0)
    asked = brake.asks(10.0)
    assert asked == (count > MANY)
    if asked:
        assert brake.due == 10.0 + ANSWER_S
        assert not brake.asks(10.0 + ANSWER_S)
        brake.heard(1, 10.25)
        assert brake.due == 10.25 + CALM_S
        assert not brake.asks(11.25)
    brake.judged(11.25)
    assert brake.due is None

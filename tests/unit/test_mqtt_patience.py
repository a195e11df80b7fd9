"""How long a client waits between two connections."""

import pytest

from device_agent.adapters.broker import Address, Pace
from device_agent.adapters.mqtt_patience import Patience
from device_agent.adapters.mqtt_reasons import DUPLICATE, LOST, REFUSED, UNREACHABLE, Failed

PACE = Pace(first=1, longest=60, spread=15, stood=30, refused=60, refused_longest=300, duplicate=60, suspicious=4)
BROKE = Failed(LOST, "broke", by_broker=True)
MANY = 400


def first_waits(failed: Failed, stood_s: float | None) -> list[float]:
    """Of as many clients."""
    return [Patience("plant7.d1", PACE).ended(failed, stood_s).retry_s for _ in range(MANY)]


def test_a_fleet_that_loses_its_broker_does_not_come_back_at_once() -> None:
    waits = first_waits(BROKE, PACE.stood)
    assert PACE.first <= min(waits) <= max(waits) <= PACE.spread
    assert max(sum(second <= wait < second + 1 for wait in waits) for second in range(1, 15)) < MANY / 6


def test_a_connection_that_did_not_last_is_tried_again_soon() -> None:
    assert max(first_waits(BROKE, PACE.stood - 1)) <= 2 * PACE.first


def test_one_that_is_sent_to_another_broker_goes_there_soon() -> None:
    assert max(first_waits(Failed(LOST, "moved", elsewhere=Address("other", 1883, tls=False)), PACE.stood)) <= 2


def test_each_failure_doubles_the_wait_up_to_the_longest() -> None:
    patience = Patience("plant7.d1", PACE)
    for failures in range(1, 30):
        told = patience.ended(Failed(UNREACHABLE, "no route"), None)
        assert PACE.first <= told.retry_s <= min(PACE.longest, 2**failures)
        assert (told.code, told.message) == (UNREACHABLE, "no route")


def test_after_a_connection_that_lasted_it_begins_anew() -> None:
    patience = Patience("plant7.d1", PACE)
    for _ in range(8):
        patience.ended(Failed(UNREACHABLE, "no route"), None)
    patience.ended(BROKE, PACE.stood)
    assert patience.ended(Failed(UNREACHABLE, "no route"), None).retry_s <= 4


def test_who_is_refused_waits_longer_each_time() -> None:
    patience = Patience("plant7.d1", PACE)
    for longest in (60, 120, 240, 300, 300):
        told = patience.ended(Failed(REFUSED, "not authorized"), None)
        assert (told.code, longest / 2 <= told.retry_s <= longest) == (REFUSED, True)


def test_a_busy_broker_is_left_alone() -> None:
    assert min(first_waits(Failed(UNREACHABLE, "busy", busy=True), None)) >= PACE.longest / 2


def test_connections_that_the_broker_ends_soon_are_a_second_client() -> None:
    patience = Patience("plant7.d1", PACE)
    told = [patience.ended(BROKE, 1.0) for _ in range(PACE.suspicious)]
    assert [each.code for each in told] == [LOST] * 3 + [DUPLICATE]
    assert told[-1].retry_s >= PACE.duplicate
    assert "plant7.d1 used by another client" in told[-1].message


@pytest.mark.parametrize("ends_it", [Failed(LOST, "silent"), BROKE])
def test_others_ends_between_them_are_no_second_client(ends_it: Failed) -> None:
    patience = Patience("plant7.d1", PACE)
    for _ in range(3):
        patience.ended(BROKE, 1.0)
    patience.ended(ends_it, PACE.stood)
    assert patience.ended(BROKE, 1.0).code == LOST


def test_a_new_session_is_asked_for_after_two_tries_without_an_answer() -> None:
    patience = Patience("plant7.d1", PACE)
    asked = []
    for _ in range(6):
        asked.append(patience.asks_anew)
        patience.tried()
        told = patience.ended(Failed(UNREACHABLE, "no answer"), None)
        assert told.message.endswith("(a new session is asked for)") == patience.asks_anew
    assert asked == [False, False, True, False, False, True]
    patience.let_in()
    assert not patience.asks_anew

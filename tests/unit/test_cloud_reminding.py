"""When a target is published once more, and who is behind it, without a broker."""

import json
from datetime import UTC, datetime
from itertools import pairwise

from cloud_sim.database import Database
from cloud_sim.hearing import Hearing
from cloud_sim.reminding import LONGEST_S, PATIENCE_S, Reminder
from cloud_sim.roster import Device, acked, born
from device_agent.model.report import Have, State
from device_agent.model.target import DEVICE, FLEET, Version
from device_agent.wire.commands import Answer
from device_agent.wire.messages import state_body

OLD, NEW = Version(1, 1), Version(1, 2)
HAS_OLD = {FLEET: Have(OLD, None), DEVICE: None}
ONE = [("d1", 1)]


def test_a_device_has_its_time_and_then_longer_and_longer() -> None:
    reminder = Reminder()
    times = [second for second in range(200) if reminder.due(NEW, ONE, 1, second)]
    assert times == [PATIENCE_S, 3 * PATIENCE_S, 7 * PATIENCE_S, 15 * PATIENCE_S]


def test_it_is_never_waited_for_longer_than_an_hour() -> None:
    reminder = Reminder()
    times = [minute for minute in range(1000) if reminder.due(NEW, ONE, 1, minute * 60)]
    assert max(after - before for before, after in pairwise(times)) == LONGEST_S / 60


def test_nobody_is_reminded_when_nobody_is_behind() -> None:
    reminder = Reminder()
    assert not any(reminder.due(NEW, [], 1000, second) for second in range(100))


def test_a_device_that_came_back_or_a_newer_target_begins_anew() -> None:
    reminder = Reminder()
    for second in range(100):
        reminder.due(NEW, ONE, 1, second)
    assert [second for second in range(100, 115) if reminder.due(NEW, [("d1", 2)], 1, second)] == [110]
    assert [second for second in range(115, 130) if reminder.due(Version(1, 3), ONE, 1, second)] == [125]


def test_a_large_fleet_is_reminded_less_often() -> None:
    reminder = Reminder()
    late = [(f"d{number}", 1) for number in range(1000)]
    times = [second for second in range(1000) if reminder.due(NEW, late[: second + 1], 100_000, second)]
    assert times == [10, 110, 210, 310, 410, 510, 610, 710, 810, 910]


def test_who_is_behind() -> None:
    device = born(Device("d1"), 7, HAS_OLD, "0.1.0")
    assert not device.is_behind(FLEET, OLD)
    assert device.is_behind(FLEET, NEW)
    assert device.is_behind(DEVICE, OLD)
    assert not Device("d1").is_behind(FLEET, NEW), "offline"


def test_an_answer_is_enough_whatever_it_says_and_in_this_session() -> None:
    device = born(Device("d1"), 7, HAS_OLD, "0.1.0")
    assert device.is_behind(FLEET, NEW)
    assert acked(device, 6, FLEET, NEW).is_behind(FLEET, NEW), "of an earlier session"
    assert acked(device, 7, FLEET, OLD).is_behind(FLEET, NEW)
    assert not acked(device, 7, FLEET, NEW).is_behind(FLEET, NEW)
    assert not acked(acked(device, 7, FLEET, NEW), 7, FLEET, OLD).is_behind(FLEET, NEW), "a late one of an older target"
    assert born(acked(device, 7, FLEET, NEW), 8, HAS_OLD, None).is_behind(FLEET, NEW)


def report(device: str, session: int) -> Answer:
    state = State(HAS_OLD, None, converged=True, since=None, apps={})
    at = datetime(2026, 11, 24, tzinfo=UTC).isoformat()
    body = {**state_body(state), "device": device, "session": session, "at": at, "connected": True}
    return Answer(device, "1", "ok", json.loads(json.dumps(body)))


def test_a_device_that_answers_is_online_and_says_what_it_has() -> None:
    told: list[str] = []
    hearing = Hearing(Database(":memory:", "a/b/c"), told.append)
    hearing.answered(report("d1", 7))
    (device,) = hearing.devices()
    assert (device.presence(0.0), device.told, device.state_number) == ("online", HAS_OLD, (7, 0))
    assert hearing.behind(None, NEW) == [("d1", 7)]
    assert hearing.behind("d1", OLD) == [("d1", 7)]
    assert hearing.behind("d2", OLD) == []
    hearing.answered(report("d1", 6))
    assert hearing.devices() == (device,), "it has been heard of already"
    hearing.answered(Answer("d2", "1", "error", None, "forbidden"))
    hearing.answered(Answer("d2", "1", "ok", {"device": "d3"}))
    assert [known.id for known in hearing.devices()] == ["d1"]
    assert len(told) == 1

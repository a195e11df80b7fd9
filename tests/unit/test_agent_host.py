"""The host's figures in the state, and the events of the machine: rarely, and without a disk write in between."""

import json
from dataclasses import replace
from datetime import timedelta

from tests.builders import app, service
from tests.device import FIGURES, TOPICS, Device, settled


def states(device):
    return [json.loads(sent.payload) for sent in device.broker.on(TOPICS.state)]


def told(device, name):
    events = [json.loads(sent.payload) for sent in device.broker.on(TOPICS.event)]
    return [event for event in events if event["event"] == name]


def quiet() -> tuple[Device, int]:
    """A device that has told all, and how many states it took."""
    device = settled()
    device.wait(600)
    return device, len(states(device))


def test_the_first_state_has_the_figures():
    assert states(Device().boot())[0]["host"] == {
        "cpu_percent": 10,
        "memory_mib": 800,
        "disk_free_mib": 10240,
        "temperature_c": None,
        "uptime_s": 86400,
    }


def test_figures_that_stay_in_their_buckets_are_told_to_nobody():
    device, before = quiet()
    device.machine.now = replace(FIGURES, cpu_percent=15, memory_mib=900, uptime_s=90000)
    device.wait(3600)
    assert len(states(device)) == before
    assert device.ask("status")["result"]["host"]["cpu_percent"] == 15


def test_a_figure_that_left_its_bucket_is_told_within_a_minute_when_nothing_was_for_long():
    device, before = quiet()
    device.machine.now = replace(FIGURES, cpu_percent=80)
    device.wait(60)
    assert [state["host"]["cpu_percent"] for state in states(device)[before:]] == [80]


def test_figures_alone_are_told_every_five_minutes_at_most():
    device, before = quiet()
    for minute in range(60):
        device.machine.now = replace(FIGURES, cpu_percent=80 if minute % 2 else 20)
        device.wait(60)
    assert 10 <= len(states(device)) - before <= 12


def test_figures_ride_along_with_another_change_and_count_as_told():
    device, before = quiet()
    device.machine.now = replace(FIGURES, cpu_percent=18)
    device.wait(60)
    device.publish({"web": app(api=service("api:2"))}, revision=2)
    device.converge()
    after = states(device)
    assert after[-1]["host"]["cpu_percent"] == 18
    device.machine.now = replace(FIGURES, cpu_percent=26)
    device.wait(900)
    assert len(states(device)) == len(after) > before


def test_the_machine_is_asked_once_a_minute_and_nothing_is_written():
    device, _ = quiet()
    device.machine.taken = 0
    device.fuse.reset()
    device.machine.now = replace(FIGURES, cpu_percent=80)
    device.wait(3600)
    assert 59 <= device.machine.taken <= 61
    assert {"commit", "committed"} & set(device.fuse.calls) == set()


def test_a_device_without_a_broker_keeps_its_figures_until_there_is_one():
    device, before = quiet()
    device.broker.disconnect()
    device.machine.now = replace(FIGURES, cpu_percent=80)
    device.wait(900)
    device.broker.connect()
    device.wait(5)
    assert [state["host"]["cpu_percent"] for state in states(device)[before:]] == [80]


def test_a_disk_that_is_short_is_told_once_and_so_is_its_end():
    device, _ = quiet()
    for free in (200, 100, 3100, 200):
        device.machine.now = replace(FIGURES, disk_free_mib=free)
        device.wait(120)
    (short,) = told(device, "disk_short")
    assert (short["disk_free_mib"], short["disk_total_mib"]) == (200, 30000)
    assert "200 MiB of 30000 MiB" in short["message"]
    device.machine.now = FIGURES
    device.wait(120)
    assert [event["disk_free_mib"] for event in told(device, "disk_ok")] == [10240]


def test_a_clock_that_is_set_is_told_with_its_jump():
    device, _ = quiet()
    device.clock.time += timedelta(hours=2)
    device.wait(1)
    device.clock.time -= timedelta(days=3650)
    device.wait(120)
    assert [event["seconds"] for event in told(device, "clock_jump")] == [7200, -3650 * 86400]
    assert "7200 s forward" in told(device, "clock_jump")[0]["message"]


def test_a_clock_that_drifts_is_none_of_it():
    device, _ = quiet()
    for _ in range(30):
        device.clock.time += timedelta(seconds=50)
        device.wait(60)
    assert told(device, "clock_jump") == []

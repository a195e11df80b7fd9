"""Which changes of the host's figures count, and what psutil makes of this machine."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from device_agent.adapters import host as adapter
from device_agent.adapters.host import PsutilHost
from device_agent.core.host import disk_short, jump_s, left_bucket
from tests.device import FIGURES


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({}, False),
        ({"cpu_percent": 19}, False),
        ({"cpu_percent": 20}, True),
        ({"cpu_percent": 0}, True),
        ({"cpu_percent": None}, True),
        ({"memory_mib": 1199}, False),
        ({"memory_mib": 1200}, True),
        ({"memory_mib": 400}, True),
        ({"memory_mib": 864, "memory_total_mib": 512}, True),
        ({"memory_mib": 863, "memory_total_mib": 512}, False),
        ({"disk_free_mib": 9217}, False),
        ({"disk_free_mib": 9216}, True),
        ({"disk_free_mib": 11264}, True),
        ({"temperature_c": 40}, True),
        ({"uptime_s": 10**9}, False),
        ({"disk_total_mib": 1}, False),
    ],
    ids=str,
)
def test_a_figure_leaves_its_bucket(changes, left):
    assert left_bucket(FIGURES, replace(FIGURES, **changes)) is left


@pytest.mark.parametrize(("now", "left"), [(45, False), (46, True), (36, True), (37, False)])
def test_a_temperature_leaves_its_bucket(now, left):
    assert left_bucket(replace(FIGURES, temperature_c=41), replace(FIGURES, temperature_c=now)) is left


def test_little_of_a_small_disk_is_no_change():
    told = replace(FIGURES, disk_free_mib=300)
    assert not left_bucket(told, replace(told, disk_free_mib=240))
    assert left_bucket(told, replace(told, disk_free_mib=236))


@pytest.mark.parametrize(
    ("free", "total", "before", "short"),
    [
        (3000, 30000, False, False),
        (2999, 30000, False, True),
        (3749, 30000, True, True),
        (3750, 30000, True, False),
        (256, 1000, False, False),
        (255, 1000, False, True),
        (319, 1000, True, True),
        (320, 1000, True, False),
        (None, None, True, True),
        (None, None, False, False),
    ],
)
def test_a_disk_is_short_and_has_to_be_clearly_better_to_be_well_again(free, total, before, short):
    assert disk_short(replace(FIGURES, disk_free_mib=free, disk_total_mib=total), before=before) is short


@pytest.mark.parametrize(("moved", "jump"), [(0, None), (60, None), (-60, None), (61, 61.0), (-3600, -3600.0)])
def test_a_clock_that_was_set(moved, jump):
    start = timedelta(days=20_000)
    assert jump_s(start, start + timedelta(seconds=moved)) == jump


# This machine.


def test_the_figures_of_this_machine(tmp_path: Path):
    figures = PsutilHost(tmp_path).figures()
    assert 0 <= figures.cpu_percent <= 100
    assert 0 < figures.memory_mib < figures.memory_total_mib
    assert 0 <= figures.disk_free_mib <= figures.disk_total_mib
    assert figures.uptime_s > 0


def test_the_cpu_is_counted_since_the_last_time(tmp_path: Path, monkeypatch):
    fields = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal", "guest", "guest_nice")
    times = type(psutil.cpu_times())
    assert times._fields == fields
    seconds = iter([(10, 0, 10, 70, 10, 0, 0, 0, 5, 0), (15, 0, 10, 75, 10, 0, 0, 0, 5, 0)])
    monkeypatch.setattr(adapter.psutil, "cpu_times", lambda: times(*next(seconds)))
    host = PsutilHost(tmp_path)
    # A guest counts in `user` already: 20 s of 100, then 5 of 10.
    assert [host.figures().cpu_percent, host.figures().cpu_percent] == [20, 50]


def test_the_hottest_sensor_that_is_connected_is_the_temperature(tmp_path: Path, monkeypatch):
    sensor = psutil._ntuples.shwtemp
    chips = {"a": [sensor("", 41.6, None, None), sensor("", 255.0, None, None)], "b": [sensor("", -273.2, None, None)]}
    monkeypatch.setattr(adapter.psutil, "sensors_temperatures", lambda: chips)
    assert PsutilHost(tmp_path).figures().temperature_c == 42
    monkeypatch.setattr(adapter.psutil, "sensors_temperatures", dict)
    assert PsutilHost(tmp_path).figures().temperature_c is None


def test_what_cannot_be_read_is_none_and_ends_nothing(tmp_path: Path, monkeypatch):
    def fails(*_):
        raise OSError("no /proc here")

    for name in ("virtual_memory", "cpu_times", "sensors_temperatures"):
        monkeypatch.setattr(adapter.psutil, name, fails)
    figures = PsutilHost(tmp_path / "gone").figures()
    assert (figures.cpu_percent, figures.memory_mib, figures.memory_total_mib) == (None, None, None)
    assert (figures.disk_free_mib, figures.disk_total_mib, figures.temperature_c) == (None, None, None)

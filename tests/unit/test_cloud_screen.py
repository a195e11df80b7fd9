"""What an operator sees of a fleet that is larger than the screen."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from cloud_sim.cli.screen import Screen
from cloud_sim.roster import LOST, OFFLINE, ONLINE, Device
from device_agent.model.report import AppReport, Reason, ServiceReport, State


class Presences:
    """As much of a cloud as is looked at."""

    def __init__(self, **known: str) -> None:
        self.known = known

    def presence(self, device: Device) -> str:
        return self.known.get(device.id, ONLINE)


def device(name: str, *, release: str = "r1", phase: str = "settled", reason: Reason | None = None) -> Device:
    app = AppReport(release, None, phase, {"api": ServiceReport("running", reason=reason)})
    state = State({}, None, phase == "settled", None, {"web": app})
    return replace(Device(name), state=state)


def shown(devices: list[Device], shortfalls: dict[str, str | None], cloud: Any, width: int = 120) -> list[str]:
    screen = Screen(as_json=False)
    screen.console = Console(file=io.StringIO(), width=width, height=24)
    screen.console.print(screen.fleet(cloud, devices, shortfalls))
    return screen.console.file.getvalue().splitlines()


def test_a_small_fleet_is_shown_device_by_device():
    devices = [device(f"d{number}") for number in range(5)]
    lines = shown(devices, dict.fromkeys(each.id for each in devices), Presences())
    assert [line.split()[0] for line in lines] == ["device", "d0", "d1", "d2", "d3", "d4"]


def test_a_large_fleet_is_counted_first_and_then_what_is_wrong():
    devices = [device(f"d{number:04}") for number in range(5000)]
    devices[7] = device("d0007", release="r2", phase="pulling", reason=Reason("registry_unreachable", "no registry"))
    shortfalls: dict[str, str | None] = dict.fromkeys(each.id for each in devices)
    shortfalls |= {"d0007": "web/api: no registry", "d0001": "offline (lost)"}
    lines = shown(devices, shortfalls, Presences(d0001=OFFLINE, d0002=LOST))
    assert lines[0] == "5,000 devices: 4,998 online, 1 lost?, 1 offline; 4,998 converged"
    assert lines[1] == "releases: 4,999 r1, 1 r2"
    assert lines[2] == "not yet: 1 web: pulling"
    assert [line.split()[0] for line in lines[3:]] == ["device", "d0007", "d0001"]


def test_what_is_wrong_is_cut_to_the_screen_and_the_rest_counted():
    devices = [device(f"d{number:04}", phase="updating") for number in range(5000)]
    lines = shown(devices, {each.id: "web: updating" for each in devices}, Presences())
    assert len(lines) <= 24
    assert lines[2] == "not yet: 5,000 web: updating"
    assert lines[-1] == f"… and {5000 - (len(lines) - 5):,} more that are not as published"


def test_many_kinds_of_trouble_are_counted_too():
    devices = [device(f"d{number:04}", release=f"r{number % 7}") for number in range(70)]
    lines = shown(devices, dict.fromkeys(each.id for each in devices), Presences())
    assert lines[1] == "releases: 10 r0, 10 r1, 10 r2, 10 r3, and 3 others"


@pytest.mark.parametrize("width", [80, 60, 40])
@pytest.mark.parametrize("count", [16, 50])
def test_a_long_reason_is_cut_to_its_line(width: int, count: int):
    why = Reason("registry_unreachable", "the registry cannot be reached:\n" + "no route to the host, " * 15)
    devices = [device(f"line-3-{number:04}", phase="pulling", reason=why) for number in range(count)]
    lines = shown(devices, {each.id: why.message for each in devices}, Presences(), width)
    assert len(lines) <= 24
    assert sum(line.startswith("line-") for line in lines) == min(count, 13 if count > 16 else 16)
    assert all(len(line) <= width for line in lines)
    assert "web/api" in lines[-2]
    assert (f"… and {count - 13} more" in lines[-1]) == (count > 16)

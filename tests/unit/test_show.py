"""The status for people."""

import io
from datetime import datetime, timedelta

from rich.console import Console

from device_agent.cli.show import show_status
from device_agent.model.image import normalise
from device_agent.ports import PullProgress
from device_agent.runtime.workers import PULL
from tests.builders import app, service
from tests.device import Device, online, settled

MIB = 2**20


def test_piped_it_is_a_line_for_each_thing_however_long_and_word_for_word():
    device = settled({"web": app(api=service())}, release="r" * 90)
    told = device.ask("status")["result"]
    told["store"]["status"] = "the database was set aside as x.corrupt: [Errno 5] " + "long " * 30
    out = io.StringIO()
    show_status(told, Console(file=out, width=80))
    head, api = out.getvalue().splitlines()
    assert told["store"]["status"].strip() in head
    assert api.startswith("web/api  running")
    assert "r" * 90 in api


def test_a_pull_under_way_is_told_with_its_bytes_its_share_and_how_fast_they_come():
    device = online()
    device.jobs.held.add(PULL)
    device.world.offer_image("new:1")
    device.publish({"web": app(api=service("new:1"))})
    device.wait(2)
    (pull,), lines = shown(device)
    image = normalise("new:1")
    assert (pull["image"], pull["done"], pull["total"]) == (image, None, None)
    assert lines[1] == f"pulling {image}: nothing has arrived yet"

    device.inbox.put(PullProgress(image, 10 * MIB, 40 * MIB))
    device.settle()
    device.clock.time = datetime.fromisoformat(pull["since"]) + timedelta(seconds=5)
    (pull,), lines = shown(device)
    assert (pull["done"], pull["total"]) == (10 * MIB, 40 * MIB)
    assert lines[1] == f"pulling {image}: 10.0 of 40.0 MiB (25 %), 2.0 MiB/s"

    device.jobs.held.clear()
    device.converge()
    pulls, lines = shown(device)
    assert (pulls, len(lines)) == ([], 2)


def shown(device: Device) -> tuple[list, list[str]]:
    status = device.ask("status")["result"]
    out = io.StringIO()
    show_status(status, Console(file=out, width=80))
    return status["pulls"], out.getvalue().splitlines()

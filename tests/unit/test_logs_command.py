"""`logs`: the last lines in the answer, and under a lease what comes, limited and never stored."""

import json
from datetime import timedelta
from typing import Any

import pytest

from device_agent.model.errors import EngineError, Kind
from device_agent.model.log import LogLine
from device_agent.runtime.logs import BREATH_S, BUFFER, EVERY_S, MESSAGE, MOST, Tap
from device_agent.runtime.workers import LOG
from device_agent.wire.messages import time_text
from tests.builders import NOW, app, service
from tests.device import TOPICS, Device, settled

TOPIC = TOPICS.log("web", "api")


def line(number: int, size: int = 100) -> LogLine:
    return LogLine(f"{number:05} " + "x" * size, at=(NOW + timedelta(seconds=number)).isoformat())


class Scripted:
    """The engine's log: batches as the test wants them, in the place of waiting for them."""

    def __init__(self, *batches: tuple[LogLine, ...], error: Exception | None = None) -> None:
        self.batches = batches
        self.error = error
        self.asked: list[dict[str, Any]] = []

    def __call__(self, _container: str, **asked: Any) -> Any:
        self.asked.append(asked)
        yield from self.batches
        if self.error:
            raise self.error


def scripted(device: Device, *batches: tuple[LogLine, ...], error: Exception | None = None) -> Scripted:
    device.engine.logs = made = Scripted(*batches, error=error)
    return made


def sent(device: Device) -> list[dict[str, Any]]:
    return [json.loads(message.payload) for message in device.broker.on(TOPIC)]


def test_the_last_lines_are_in_the_answer():
    device = settled()
    container = device.containers()["web/api"]
    for number in range(150):
        device.world.write(container.name, f"line {number}", "stderr" if number % 2 else "stdout")
    device.command("logs", app="web", service="api", tail=2)
    (answer,) = device.answers()
    lines = answer["result"]["lines"]
    assert [(each["text"], each["stream"]) for each in lines] == [("line 148", "stdout"), ("line 149", "stderr")]
    assert answer["result"]["dropped"] == 0
    device.command("logs", "c2", app="web", service="api")
    assert len(device.answers()[1]["result"]["lines"]) == 100
    assert device.ask("logs", app="web", service="api", tail=2)["result"]["lines"] == lines


def test_lines_since():
    device = settled()
    made = scripted(device, (line(1),))
    for since, expected in (
        ("10m", NOW - timedelta(minutes=10)),
        ("2026-11-22T09:00:00Z", NOW.replace(hour=9)),
        (None, None),
    ):
        device.clock.time = NOW
        device.ask("logs", app="web", service="api", since=since)
        assert made.asked[-1]["since"] == expected


def test_an_answer_holds_the_newest_and_says_how_many_it_leaves_out():
    device = settled()
    scripted(device, *((line(number, 1000),) for number in range(200)))
    result = device.ask("logs", app="web", service="api")["result"]
    assert result["lines"][-1]["text"].startswith("00199")
    assert sum(len(each["text"]) for each in result["lines"]) <= BUFFER
    assert result["dropped"] == 200 - len(result["lines"]) > 0


def test_the_lines_of_several_containers_are_in_order_and_say_whose_they_are():
    device = settled({"web": app(api=service(scale=2))})
    names = sorted(container.name for container in device.containers().values())
    for number in range(4):
        device.world.write(names[number % 2], f"line {number}")
    lines = device.ask("logs", app="web", service="api")["result"]["lines"]
    assert [(each["text"], each["container"]) for each in lines] == [
        (f"line {number}", names[number % 2]) for number in range(4)
    ]


def test_a_log_is_followed_and_its_end_is_told():
    device = settled()
    before = device.store.rows.copy()
    scripted(device, (line(1), line(2)), (line(3),))
    device.command("logs", app="web", service="api", follow_s=30)
    running, done = device.answers()
    assert running["status"] == "running"
    assert running["result"] == {"topic": TOPIC, "until": time_text(device.clock.now() + timedelta(seconds=30))}
    (message,) = sent(device)
    assert [each["text"][:5] for each in message["lines"]] == ["00001", "00002", "00003"]
    assert (message["id"], message["seq"], message["dropped"]) == ("c1", 1, 0)
    (raw,) = device.broker.on(TOPIC)
    assert (raw.qos, raw.retain, raw.expiry_s) == (0, False, 60)
    assert done["result"] == {"ended": "container", "sent": 3, "dropped": 0}
    assert device.store.rows == before


def test_a_lease_ends_by_time():
    device = settled()
    device.jobs.held.add(LOG)
    device.command("logs", app="web", service="api", follow_s=30)
    device.wait(29)
    assert [answer["status"] for answer in device.answers()] == ["running"]
    device.wait(2)
    assert device.answers()[1]["result"]["ended"] == "time"
    made = scripted(device, (line(1),))
    device.jobs.held.clear()
    device.settle()
    assert made.asked[0]["stop"].is_set()
    assert sent(device) == []


def test_a_lease_ends_with_the_connection():
    device = settled()
    device.jobs.held.add(LOG)
    device.command("logs", app="web", service="api", follow_s=30)
    device.broker.disconnect()
    device.settle()
    assert device.agent.logs.next_due() is None
    device.broker.connect()
    device.settle()
    assert device.answers()[1]["result"]["ended"] == "connection"


def test_lines_are_sent_no_faster_than_promised():
    device = settled()
    scripted(device, *((line(number, 1000),) for number in range(55)))
    device.command("logs", app="web", service="api", follow_s=30)
    assert len(sent(device)) == 1
    device.wait(EVERY_S * 3)
    messages = sent(device)
    assert len(messages) == 4
    assert all(sum(len(each["text"]) for each in message["lines"]) <= MESSAGE for message in messages)
    device.wait(30)
    told = [each["text"][:5] for message in sent(device) for each in message["lines"]]
    assert told == [f"{number:05}" for number in range(55)]


def test_a_flood_is_left_out_and_counted():
    tap = Tap()
    flood = tuple(line(number, 1000) for number in range(1000))
    assert tap.add(flood) == (True, True)
    lines, dropped = tap.take(BUFFER)
    assert len(lines) + dropped == 1000
    assert lines[-1] == flood[-1]
    assert not tap
    assert tap.take(BUFFER) == ([], 0)
    assert tap.add((line(1),)) == (True, False)
    assert tap.add((line(2),)) == (False, False)
    assert tap.take(1) == ([line(1)], 0)
    assert 64 * 1024 / BREATH_S < 512 * 1024


def test_one_that_is_followed_already_is_not_followed_twice():
    device = settled()
    device.jobs.held.add(LOG)
    device.command("logs", app="web", service="api", follow_s=30)
    device.command("logs", app="web", service="api", follow_s=30)
    assert [answer["status"] for answer in device.answers()] == ["running", "running"]
    assert len(device.jobs.waiting) == 1


def test_so_many_at_once():
    device = settled()
    device.jobs.held.add(LOG)
    for number in range(MOST + 1):
        device.command("logs", f"c{number}", app="web", service="api", follow_s=30)
    assert device.answers()[-1]["error"]["code"] == "busy"


def test_a_log_that_cannot_be_read():
    device = settled()
    unreadable = EngineError("engine_error", "the log driver does not support reading", Kind.TARGET)
    scripted(device, error=unreadable)
    device.command("logs", app="web", service="api")
    device.command("logs", "c2", app="web", service="api", follow_s=10)
    device.world.away = True
    del device.engine.logs
    device.command("logs", "c3", app="web", service="api")
    codes = [answer["error"]["code"] for answer in device.answers() if answer["status"] == "error"]
    assert codes == ["engine_error", "engine_error", "engine_away"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        ({}, "malformed"),
        ({"app": "web"}, "malformed"),
        ({"app": "web", "service": "db"}, "not_found"),
        ({"app": "nowhere", "service": "api"}, "not_found"),
        ({"app": "web", "service": "api", "tail": -1}, "malformed"),
        ({"app": "web", "service": "api", "tail": True}, "malformed"),
        ({"app": "web", "service": "api", "since": "yesterday"}, "malformed"),
        ({"app": "web", "service": "api", "since": "2026-11-22T10:00:00"}, "malformed"),
        ({"app": "web", "service": "api", "follow_s": 3601}, "malformed"),
        ({"app": "web", "service": "api", "follow_s": "long"}, "malformed"),
        ({"app": "web", "service": "api", "lines": 3}, "malformed"),
    ],
)
def test_what_cannot_be_meant_is_refused(args, code):
    device = settled()
    device.command("logs", **args)
    (answer,) = device.answers()
    assert answer["error"]["code"] == code
    assert device.ask("logs", **args)["error"]["code"] == code


def test_on_the_device_nothing_is_followed():
    assert settled().ask("logs", app="web", service="api", follow_s=3)["error"]["code"] == "malformed"

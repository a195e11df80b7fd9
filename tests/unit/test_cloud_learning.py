"""Until the cloud knows what the broker retains: a scripted connection, and a clock that moves with the script."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import Empty

import pytest

from cloud_sim.collector import SILENT_S, Collector
from cloud_sim.connection import Arrived, Broker, Down, Happened, Unreachable, Up
from cloud_sim.database import Database
from device_agent.model.report import State
from device_agent.ports import OutboxCounts
from device_agent.wire.messages import Head, encode_birth, encode_state
from device_agent.wire.topics import DEFAULT_ROOT, FleetTopics
from tests.builders import NOW

DEVICES = 400
BROKER = Broker("broker", 1883)
FLEET = FleetTopics(DEFAULT_ROOT, "plant7")
NOTHING = OutboxCounts(0, 0)
MARKER = Arrived(FLEET.reply("cloud"), b"")


class Script:
    """A connection to which this happens; a number is so many seconds in which nothing does."""

    broker = BROKER

    def __init__(self, *steps: Happened | float) -> None:
        self.happened = self
        self.seconds = 1000.0
        self._steps = deque(steps)
        self._closed = threading.Event()

    def monotonic(self) -> float:
        return self.seconds

    def get(self, timeout: float) -> Happened:
        if not self._steps:
            # To its end nothing happens; the moment is for the other threads.
            self._closed.wait(0.001)
        elif not isinstance(self._steps[0], float):
            return self._steps.popleft()
        else:
            self._steps[0] -= timeout
            if self._steps[0] <= 0:
                self._steps.popleft()
        self.seconds += timeout
        raise Empty

    def get_nowait(self) -> Happened:
        if self._steps and not isinstance(self._steps[0], float):
            return self._steps.popleft()
        raise Empty

    def open(self) -> None:
        pass

    def close(self) -> None:
        self._closed.set()

    def publish(self, *_: object, **__: object) -> None:
        pass

    def subscribe(self, _topic: str) -> None:
        pass


@contextmanager
def collecting(script: Script, monkeypatch: pytest.MonkeyPatch, tell: Callable[[str], None]) -> Iterator[Collector]:
    monkeypatch.setattr("cloud_sim.collector.Connection", lambda *_, **__: script)
    monkeypatch.setattr("cloud_sim.collector.monotonic", script.monotonic)
    database = Database(":memory:", "broker/plant7")
    collector = Collector(BROKER, FLEET, "cloud", database, tell)
    try:
        yield collector
    finally:
        collector.close()
        database.close()


def learn(collector: Collector, timeout: float) -> None:
    # The clock does not run ahead: the collector gets on only while this thread waits.
    with collector.changed:
        collector.open()
        collector.await_learned(timeout)


def retained(pause_s: float) -> Iterator[Happened | float]:
    """Every device's session, and then every state, each after a while."""
    names = [f"d{number:03}" for number in range(DEVICES)]
    for name in names:
        yield pause_s
        yield Arrived(FLEET.of(name).session, encode_birth(name, 1, NOW, {}, NOTHING), retained=True)
    for name in names:
        yield pause_s
        head = Head(name, 1, 1, NOW)
        yield Arrived(FLEET.of(name).state, encode_state(State({}, None, True, None, {}), head), retained=True)


def test_a_broker_that_takes_its_time_is_heard_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    script = Script(Up(), *retained(0.1), MARKER)
    began = script.seconds
    with collecting(script, monkeypatch, told.append) as collector:
        learn(collector, 5.0)
        devices = collector.hearing.devices()
        assert (len(devices), sum(device.state is not None for device in devices)) == (DEVICES, DEVICES)
    assert script.seconds - began > 10 * SILENT_S
    assert told == []


def test_a_broker_that_falls_silent_without_the_marker_is_not_taken_to_have_sent_everything_in_silence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[str] = []
    with collecting(Script(Up(), *retained(0.1)), monkeypatch, told.append) as collector:
        learn(collector, 5.0)
        assert len(collector.hearing.devices()) == DEVICES
    (said,) = told
    assert "sent nothing more for 3 s" in said
    assert "devices and what they told may be missing" in said


def test_what_devices_say_meanwhile_does_not_put_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    live = Arrived(FLEET.of("d1").session, encode_birth("d1", 1, NOW, {}, NOTHING))
    script = Script(Up(), *(step for _ in range(1000) for step in (0.1, live)))
    began = script.seconds
    told_after: list[float] = []
    with collecting(script, monkeypatch, lambda _: told_after.append(script.seconds - began)) as collector:
        learn(collector, 5.0)
    (seconds,) = told_after
    assert SILENT_S < seconds < 2 * SILENT_S


def test_a_connection_that_breaks_while_the_broker_sends_is_not_waited_for_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = list(retained(0.1))[:100]
    steps = [step for _ in range(50) for step in (Up(), *some, Down("lost"), 1.0)]
    with (
        collecting(Script(*steps), monkeypatch, lambda _: None) as collector,
        pytest.raises(Unreachable, match="was lost while it sent what it retains"),
    ):
        learn(collector, 5.0)


def test_who_does_not_wait_for_what_is_retained_is_told_that_it_is_still_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        collecting(Script(Up(), *retained(1.0)), monkeypatch, lambda _: None) as collector,
        pytest.raises(Unreachable, match="is still sending what it retains"),
    ):
        learn(collector, 0.5)

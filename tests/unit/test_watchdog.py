"""The loop that stands still is noticed, and one that goes on is left alone."""

import threading

import pytest

from device_agent.runtime.watchdog import Watchdog


def test_whoever_beats_lives_and_whoever_stops_is_told_once():
    told = threading.Semaphore(0)
    watchdog = Watchdog(told.release, every_s=0.02, patience=3)
    watchdog.start()
    stop = threading.Event()
    while not stop.wait(0.002) and watchdog._beats < 100:
        watchdog.beat()
    assert not told.acquire(blocking=False), "it was told of a loop that went on"
    assert told.acquire(timeout=5), "nobody was told"
    assert not told.acquire(timeout=0.2), "it was told twice"


def test_a_look_that_fails_is_told_as_well(monkeypatch: pytest.MonkeyPatch):
    class Broken:
        def wait(self, _: float):
            raise MemoryError

    told = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    watchdog = Watchdog(told.set)
    watchdog._never = Broken()
    watchdog.start()
    assert told.wait(5)

"""Lanes of threads: what is slow in one delays nothing in another, and no job vanishes."""

import threading

from device_agent.runtime.workers import ThreadWorkers
from tests.eventually import eventually


def workers(**lanes: int):
    crashes: list[tuple[str, BaseException]] = []
    return ThreadWorkers(lanes, lambda name, error: crashes.append((name, error))), crashes


def test_jobs_of_a_lane_run_at_once_up_to_its_size():
    made, _ = workers(call=3)
    release, started = threading.Event(), []

    def job():
        started.append(1)
        release.wait(5)

    for _ in range(5):
        made.submit("call", job)
    eventually(lambda: len(started) == 3, 5, "three run")
    assert threading.active_count() < 20
    release.set()
    eventually(lambda: len(started) == 5, 5, "the others follow")


def test_a_lane_that_is_full_holds_up_no_other():
    made, _ = workers(pull=1, call=1)
    release, done = threading.Event(), threading.Event()
    made.submit("pull", lambda: release.wait(5) and None)
    made.submit("pull", lambda: None)
    made.submit("call", done.set)
    assert done.wait(5)
    release.set()


def test_a_job_that_raises_is_told_and_the_next_one_runs():
    made, crashes = workers(call=1)
    done = threading.Event()

    def broken():
        raise ValueError("a defect")

    made.submit("call", broken)
    made.submit("call", done.set)
    assert done.wait(5)
    assert [str(error) for _, error in crashes] == ["a defect"]


def test_every_job_of_many_runs_once():
    made, _ = workers(call=4)
    ran: list[int] = []
    for number in range(500):
        made.submit("call", lambda number=number: ran.append(number))
    eventually(lambda: len(ran) == 500, 5, "all ran")
    assert sorted(ran) == list(range(500))

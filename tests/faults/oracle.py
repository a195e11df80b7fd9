"""The judge of every fault: twelve invariants, read from engine, broker, process and a copy of the database.

 1 converges      the newest release runs, one container for each service as the target says
 2 durable        what was said to be accepted is on disk (each start by the bench looks, too)
 3 forward        no revision, session or number ever goes back
 4 one of each    no second container, no orphan, no network, volume or image that nobody wants
 5 foreign        what is not the agent's is as it was
 6 untouched      what the release leaves as it was has its id and its start time
 7 fail-static    what ran before ran until what replaces it could, and the gap is no longer than the fault may make it
 8 bounded        memory, descriptors, threads and the data folder; messages and the log
 9 sane store     the database is sound, and its outbox empties
10 truthful       the retained state is what the engine shows
11 live           the agent has ended only when it was made to, or when the fault leaves it nothing else
12 silent         no listening socket, no byte written at rest, no secret where it is not meant to be
"""

import threading
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.oracle import TOLD_S, judge
from tests.eventually import eventually
from tests.faults.bench import CANARY, Bench
from tests.faults.watcher import now

MOST_RSS_MIB = 160
MOST_FILES = 80
MOST_THREADS = 40
MOST_DATA_MIB = 8
MOST_IMAGES = 2
"""Of the release that runs, and of the one before it."""
MOST_SAID, MOST_SAID_PER_S = 60, 3
"""Messages: a fault may be answered by some, and none is repeated without a pause."""
MOST_LOGGED, MOST_LOGGED_PER_S = 65536, 2048
"""Bytes of its log, alike."""
REST_S = 3.0
RAISED = "Traceback (most recent call last)"


def examine(bench: Bench, *, ends: int, gap_s: float, same_processes: bool = True) -> float | None:
    """Seconds for which no `api` ran in this run, at most `gap_s`; None when the engine was away, and nobody knows.

    Raises AssertionError that names the invariant. The device has converged, and may have ended by itself `ends` times.
    `same_processes` False: the engine itself stopped all containers; the same ones run again.
    """
    assert bench.published
    kept = {"web/db": bench.kept} if same_processes and all(bench.kept) else None
    # 1, 2, 4, 6, 9 and 10.
    acks, gaps = bench.acks_expected, bench.known_gaps
    judge(bench.device, bench.client, bench.published, bench.apps, untouched=kept, acks=acks, gaps=gaps)
    now = bench.device.identities()["web/db"]
    if not same_processes:
        assert now[0] == bench.kept[0], "untouched: web/db was made anew"
    bench.kept = now
    for check in (_one_of_each, _forward, _foreign, _bounded, _silent):
        check(bench)
    _live(bench, ends)
    gap = _longest_gap_s(bench)
    assert gap is None or gap <= gap_s, f"fail-static: for {gap:.1f} s no api ran"
    return gap


def _longest_gap_s(bench: Bench) -> float | None:
    """7: from the end of the last `api` that ran to the start of the next one."""
    told = bench.watcher.since(bench.began)
    running: set[str] = set()
    gap = since = 0.0
    for each in told or ():
        if each.what == "start":
            gap = max(gap, each.at - since) if since and not running else gap
            running.add(each.container)
        elif each.what == "die":
            running.discard(each.container)
            since = each.at
    return None if told is None else gap


def _one_of_each(bench: Bench) -> None:
    """What `judge` does not look for. No app of the bench has a volume."""
    volumes = bench.host.volumes(bench.device.label)
    assert not volumes, f"one of each: volumes {volumes} that nobody wants"
    eventually(
        lambda: len(bench.pulled()) <= MOST_IMAGES, TOLD_S, f"one of each: no more than {MOST_IMAGES} pulled images"
    )


def _forward(bench: Bench) -> None:
    states = bench.witness.heard("state")
    numbers = [(state["session"], state["seq"]) for state in states]
    assert numbers == sorted(numbers), f"forward: states in the order {numbers[-20:]}"
    had = [(have["epoch"], have["revision"]) for state in states if (have := state["have"]["fleet"])]
    assert had == sorted(had), f"forward: it had {had[-20:]}"
    # The numbers of a new database begin at the clock's seconds: where one of a moment's age is lost, they come again.
    bodies: dict[tuple[int, int], dict[str, Any]] = {}
    for body in bench.witness.heard("ack", "event"):
        first = bodies.setdefault((body["session"] if bench.data_lost else 0, body["seq"]), body)
        assert body == first, f"forward: one number for two messages: {first} and {body}"
    firsts = [seq for _, seq in bodies]
    assert firsts == sorted(firsts), f"forward: acks and events in the order {firsts[-20:]}"


def _foreign(bench: Bench) -> None:
    now = bench.foreign_now()
    assert now == bench.foreign, f"foreign: {now} was {bench.foreign}"


def _bounded(bench: Bench) -> None:
    process = psutil.Process(bench.pid)
    rss = process.memory_info().rss / 2**20
    assert rss <= MOST_RSS_MIB, f"bounded: {rss:.0f} MiB"
    assert process.num_fds() <= MOST_FILES, f"bounded: {process.num_fds()} descriptors"
    assert process.num_threads() <= MOST_THREADS, f"bounded: {process.num_threads()} threads"
    size = sum(file.stat().st_size for file in bench.device.data.rglob("*") if file.is_file()) / 2**20
    assert size <= MOST_DATA_MIB, f"bounded: {size:.1f} MiB in the data folder"
    took = now() - bench.began
    said, logged = len(bench.witness.bytes_heard()) - bench.messages, len(bench.log())
    assert said <= MOST_SAID + took * MOST_SAID_PER_S, f"bounded: {said} messages in {took:.0f} s"
    assert logged <= MOST_LOGGED + took * MOST_LOGGED_PER_S, f"bounded: {logged} bytes of log in {took:.0f} s"


def _live(bench: Bench, ends: int) -> None:
    log = bench.log()
    assert 0 not in bench.exits, f"live: it ended with 0 by itself: {bench.exits}"
    assert len(bench.exits) <= ends, f"live: it ended by itself, with {bench.exits}\n{log[-3000:]}"
    assert ends or RAISED not in log, f"live: an exception that nobody expects\n{log[log.index(RAISED) :][:3000]}"


def _silent(bench: Bench) -> None:
    process = psutil.Process(bench.pid)
    listening = [each for each in process.net_connections(kind="inet") if each.status == psutil.CONN_LISTEN]
    assert not listening, f"silent: it listens on {listening}"
    eventually(lambda: _at_rest(bench), TOLD_S, f"silent: it writes and says nothing at rest, for {REST_S:g} s")
    assert CANARY not in bench.device.log(), "silent: the secret is in the log"
    assert not any(CANARY.encode() in said for said in bench.witness.bytes_heard()), "silent: the secret was said"


def _at_rest(bench: Bench) -> bool:
    """Whether it writes and says nothing for a while."""
    before = _traces(bench)
    threading.Event().wait(REST_S)
    return _traces(bench) == before


def _traces(bench: Bench) -> tuple[int, int]:
    """Bytes that it has written to a disk, and messages that it has sent."""
    lines = Path(f"/proc/{bench.pid}/io").read_text(encoding="ascii").splitlines()
    written = int(dict(line.split(": ") for line in lines)["write_bytes"])
    return written, len(bench.witness.bytes_heard())

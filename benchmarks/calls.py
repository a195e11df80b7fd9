"""How often the engine is called for an update: every request of a whole agent, counted by a proxy before the engine.

The minimum is what the plan consists of, because a step is one call: an install makes the app's network, and creates
and starts each container; a replacement creates, stops, starts and removes one for each; what was removed by hand is
created and started; at rest there is nothing to do. Looks come on top: without one nobody knows what there is, nor what
became of it.
"""

import contextlib
import random
import re
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.world import ENGINE, Agent, Starts, agent, app, engine
from tests.faults.wire import EngineProxy

SETTLED_S = 2.0
"""What the engine tells late is looked at within this."""
_VERSION = re.compile(r"^/v[0-9.]+")
_ID = re.compile(r"^/(containers|images|networks|volumes)/(?!(?:create|json)$)[^/]+")
_LOOKING = ("GET ", "HEAD ")

Calls = Counter[str]
"""Requests by method and route, with `{id}` for what they are about."""


@dataclass(frozen=True)
class Counted:
    what: str
    minimum: int
    runs: list[Calls]


def of_updates(port: int, count: int, runs: int, idle_s: float) -> list[Counted]:
    """An install of so many services, a replacement of all, one removed by hand, and a time at rest."""
    installs, replacements, repairs = [], [], []
    with _counted_agent(port) as (running, calls_of):
        for _ in range(runs):
            running.publish({})
            running.converged()
            time.sleep(SETTLED_S)
            installs.append(calls_of(lambda: _to(running, count, 1)))
            replacements.append(calls_of(lambda: _to(running, count, 2)))
            repairs.append(calls_of(lambda: _repair(running)))
        rest = calls_of(lambda: time.sleep(idle_s))
    return [
        Counted(f"install of {count} services", 1 + 2 * count, installs),
        Counted(f"replacement of all {count}", 4 * count, replacements),
        Counted("one removed by hand → running", 2, repairs),
        Counted(f"{count} services at rest, {idle_s:g} s", 0, [rest]),
    ]


def changing(calls: Calls) -> int:
    """How many of them may change something."""
    return sum(count for route, count in calls.items() if not route.startswith(_LOOKING))


def _route(line: str) -> str:
    """Of a request's first line."""
    method, target, _ = line.split(" ", 2)
    path = _VERSION.sub("", target.partition("?")[0])
    return f"{method} {_ID.sub(lambda found: f'/{found[1]}/{{id}}', path)}"


@contextlib.contextmanager
def _counted_agent(port: int) -> Iterator[tuple[Agent, Callable[[Callable[[], None]], Calls]]]:
    """An agent whose way to the engine is counted; and what tells the calls that something costs."""
    lines: list[str] = []

    def calls_of(do: Callable[[], None]) -> Calls:
        before = len(lines)
        do()
        time.sleep(SETTLED_S)
        return Counter(map(_route, lines[before:]))

    with tempfile.TemporaryDirectory() as folder:
        proxy = EngineProxy(ENGINE, Path(folder, "engine.sock"), random.Random(0), lines.append)
        try:
            with agent(port, ENGINE_URL=proxy.url) as running:
                yield running, calls_of
        finally:
            proxy.close()


def _to(running: Agent, count: int, revision: int) -> None:
    running.publish({"bench": app(count, revision)})
    running.converged()


def _repair(running: Agent) -> None:
    api, starts = engine(), Starts(running.label)
    try:
        api.remove_container(api.containers(filters={"label": running.label})[0]["Id"], force=True)
        starts.nth(1)
    finally:
        starts.close()

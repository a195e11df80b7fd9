"""A pass with nothing to do, in process, beside the bare list call; and a container removed by hand → running again."""

import json
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import docker

from benchmarks.world import COMMAND, ENGINE, IMAGE, Agent, Events, app, engine, remove_all
from device_agent.adapters.clock import SystemClock
from device_agent.adapters.docker_engine import DockerEngine
from device_agent.adapters.docker_http import EngineHttp
from device_agent.core.backoff import Attempts
from device_agent.core.intake import want
from device_agent.core.planner import plan_app
from device_agent.core.wanted import Naming
from device_agent.wire.target import read_target

PASSES = 30


def nothing_to_do(agent: Agent, count: int) -> tuple[float, float]:
    """Seconds of an idle pass (observe and plan), and of the list call alone: medians."""
    apps = {"bench": app(count)}
    agent.publish(apps)
    agent.converged(120)
    owner = f"{agent.fleet}/bench"
    real = DockerEngine(f"unix://{ENGINE}", owner)
    # Over plain HTTP, as the agent asks: the SDK alone would take as long again.
    http = EngineHttp(f"unix://{ENGINE}")
    listing = "/containers/json?" + urlencode({"all": "true", "filters": json.dumps({"label": [agent.label]})})
    # As the agent has it: while it hears the engine it need not list all images again.
    stop = threading.Event()
    heard = real.events(stop)
    next(heard)
    threading.Thread(target=lambda: list(heard), daemon=True).start()
    target = read_target(_document(agent, apps))
    wanted = want({"fleet": target}, Naming(owner, f"{agent.fleet}-"), None).apps["bench"]
    attempts = Attempts(SystemClock().now())
    settled = dict.fromkeys(wanted.services, "")
    real.observe(None)
    passes, lists = [], []
    for _ in range(PASSES):
        began = time.perf_counter()
        plan = plan_app(wanted, real.observe(), attempts, settled)
        passes.append(time.perf_counter() - began)
        if plan.steps:
            raise AssertionError(f"there is something to do: {plan}")
        began = time.perf_counter()
        http.get(listing)[0].checked().json()
        lists.append(time.perf_counter() - began)
    stop.set()
    return sorted(passes)[PASSES // 2], sorted(lists)[PASSES // 2]


def _document(agent: Agent, apps: dict[str, Any]) -> bytes:
    scope = {"fleet": agent.fleet, "device": None}
    return json.dumps({"schema": 1, "scope": scope, "epoch": 1, "revision": 1, "apps": apps}).encode()


@dataclass(frozen=True)
class Drift:
    """Seconds of one container that was removed by hand."""

    repaired: float
    """From its `die` to the `start` of the one in its place, as the engine's events have it."""
    told: float
    """From its removal to a retained state that says so, at the broker."""
    raw: float
    """Create and start alone: from the call to the `start`."""
    hearing: float
    """By a program that does nothing else: it hears the `die`, and creates and starts one of the same name."""


def removed_by_hand(agent: Agent) -> Drift:
    agent.publish({"bench": app(3)})
    agent.converged()
    api, events = engine(), Events(agent.label)
    try:
        victim = api.containers(filters={"label": [agent.label, "device-agent.service=s001"]})[0]["Id"]
        # States are at least 2 s apart: what is measured is the first change after a quiet time.
        time.sleep(2.5)
        while not agent.states.empty():
            agent.states.get()
        removed_at = time.monotonic()
        api.remove_container(victim, force=True)
        died = events.next("die")
        repaired = events.next("start") - died
    finally:
        events.close()
    told_at, state = agent.states.get(timeout=10)
    if not state["converged"]:
        agent.converged()
    raw, hearing = _raw(api, f"{agent.fleet}-bench_default")
    return Drift(repaired, told_at - removed_at, raw, hearing)


def _raw(api: docker.APIClient, network: str) -> tuple[float, float]:
    run = "bench-" + uuid.uuid4().hex[:8]
    host = api.create_host_config(network_mode=network, init=True)

    def create_and_start() -> None:
        container = api.create_container(IMAGE, COMMAND, name=run, host_config=host, labels={"bench": run})
        api.start(container["Id"])

    events = Events(f"bench={run}")
    try:
        with ThreadPoolExecutor(1) as operator:
            began = time.time()
            create_and_start()
            alone = events.next("start") - began
            removal = operator.submit(engine().remove_container, run, force=True)
            died = events.next("die")
            while True:
                try:
                    create_and_start()
                except docker.errors.APIError as error:
                    # What is being removed has its name until it is gone.
                    if error.status_code != HTTPStatus.CONFLICT:
                        raise
                else:
                    break
            hearing = events.next("start") - died
            removal.result()
            return alone, hearing
    finally:
        events.close()
        remove_all(f"bench={run}")

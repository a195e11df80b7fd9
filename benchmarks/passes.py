"""A pass with nothing to do, in process, beside the bare list call; and a container removed by hand → running again."""

import json
import threading
import time
from typing import Any
from urllib.parse import urlencode

from benchmarks.world import COMMAND, ENGINE, IMAGE, Agent, Starts, app, engine
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
    docker = DockerEngine(f"unix://{ENGINE}", owner)
    # Over plain HTTP, as the agent asks: the SDK alone would take as long again.
    http = EngineHttp(f"unix://{ENGINE}")
    listing = "/containers/json?" + urlencode({"all": "true", "filters": json.dumps({"label": [agent.label]})})
    # As the agent has it: while it hears the engine it need not list all images again.
    stop = threading.Event()
    heard = docker.events(stop)
    next(heard)
    threading.Thread(target=lambda: list(heard), daemon=True).start()
    target = read_target(_document(agent, apps))
    wanted = want({"fleet": target}, Naming(owner, f"{agent.fleet}-"), None).apps["bench"]
    attempts = Attempts(SystemClock().now())
    settled = dict.fromkeys(wanted.services, "")
    docker.observe(None)
    passes, lists = [], []
    for _ in range(PASSES):
        began = time.perf_counter()
        plan = plan_app(wanted, docker.observe(), attempts, settled)
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


def removed_by_hand(agent: Agent) -> tuple[float, float, float]:
    """Seconds from `docker rm -f` until it starts again; raw create + start; change → retained state at the broker."""
    agent.publish({"bench": app(3)})
    agent.converged()
    api = engine()
    starts = Starts(agent.label)
    victim = api.containers(filters={"label": [agent.label, "device-agent.service=s001"]})[0]["Id"]
    # States are at least 2 s apart: what is measured is the first change after a quiet time.
    time.sleep(2.5)
    while not agent.states.empty():
        agent.states.get()
    told_from = time.monotonic()
    api.remove_container(victim, force=True)
    began = time.monotonic()
    repaired = starts.nth(1) - began
    at, state = agent.states.get(timeout=10)
    starts.close()
    if not state["converged"]:
        agent.converged()
    host = api.create_host_config(network_mode=f"{agent.fleet}-bench_default", init=True)
    began = time.monotonic()
    raw = api.create_container(IMAGE, COMMAND, host_config=host)["Id"]
    api.start(raw)
    took = time.monotonic() - began
    api.remove_container(raw, force=True)
    return repaired, took, at - told_from

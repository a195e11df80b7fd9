"""10 services, images local: published → all running, beside the raw engine API and `docker compose up -d`.

Beside each Compose that is here: v2, 1.29 or both.

And then the environment of all 10 changed → all replaced. The end is the tenth start event for each of them.
"""

import contextlib
import functools
import json
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import docker

from benchmarks.world import COMMAND, IMAGE, ROOT, Agent, Starts, app, engine, services

PARALLEL = (2, 4, 8)


def by_agent(agent: Agent, count: int) -> tuple[float, float]:
    """Seconds to install, and to change all."""
    starts = Starts(agent.label)
    try:
        installed = _agent_to(agent, starts, count, 0)
        changed = _agent_to(agent, starts, count, 1)
    finally:
        starts.close()
    agent.publish({})
    agent.converged()
    return installed, changed


def _agent_to(agent: Agent, starts: Starts, count: int, revision: int) -> float:
    began = agent.publish({"bench": app(count, revision)})
    took = starts.nth(count) - began
    agent.converged()
    return took


@dataclass(frozen=True)
class Compose:
    """A Compose that is here."""

    version: str
    command: tuple[str, ...]

    def __call__(self, project: str, file: Path, *arguments: str) -> None:
        run = [*self.command, "-p", project, "-f", str(file), *arguments]
        subprocess.run(run, check=True, capture_output=True, cwd=ROOT)


@functools.cache
def composes() -> tuple[Compose, ...]:
    """Each version once: the plugin, the program, and what `scripts/compose-v2` has fetched."""
    found: dict[str, Compose] = {}
    for command in (("docker", "compose"), ("docker-compose",), (str(ROOT / ".dev/docker-compose-v2"),)):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            asked = subprocess.run([*command, "version", "--short"], check=True, capture_output=True, text=True)
            version = ".".join(asked.stdout.strip().removeprefix("v").split(".")[:2])
            found.setdefault(version, Compose(version, command))
    if not found:
        raise FileNotFoundError("no Compose here: install `docker compose` or `docker-compose`")
    return tuple(found.values())


def by_compose(compose: Compose, count: int) -> tuple[float, float]:
    project = "bench-" + uuid.uuid4().hex[:8]
    starts = Starts(f"com.docker.compose.project={project}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "compose.yaml")

        def up(revision: int) -> float:
            file.write_text(json.dumps({"version": "3.8", "services": _compose_services(count, revision)}))
            began = time.monotonic()
            compose(project, file, "up", "-d")
            return starts.nth(count) - began

        try:
            return up(0), up(1)
        finally:
            starts.close()
            compose(project, file, "down", "-t", "1")


def _compose_services(count: int, revision: int) -> dict[str, object]:
    return {name: {**service, "restart": "unless-stopped"} for name, service in services(count, revision).items()}


def by_engine(count: int) -> tuple[float, float]:
    """The raw API at its best parallelism: network, then create and start of each; then create, stop, start, remove."""
    tries = [_raw(count, parallel) for parallel in PARALLEL]
    return min(installed for installed, _ in tries), min(changed for _, changed in tries)


def _raw(count: int, parallel: int) -> tuple[float, float]:
    run = "bench-" + uuid.uuid4().hex[:8]
    api = engine()
    starts = Starts(f"bench={run}")
    with ThreadPoolExecutor(parallel) as pool:
        began = time.monotonic()
        api.create_network(run, driver="bridge")
        old = list(pool.map(_each(api, run, 0), range(count)))
        installed = starts.nth(count) - began

        def replace(number: int) -> str:
            new = _create(api, run, number, 1)
            api.stop(old[number], timeout=10)
            api.start(new)
            return new

        began = time.monotonic()
        new = list(pool.map(replace, range(count)))
        changed = starts.nth(count) - began
        starts.close()
    # One by one: Docker 20.10 can lose count of a network's users when many leave at once.
    for container in [*old, *new]:
        api.remove_container(container, force=True)
    api.remove_network(run)
    return installed, changed


def _each(api: docker.APIClient, run: str, revision: int) -> Callable[[int], str]:
    def one(number: int) -> str:
        container = _create(api, run, number, revision)
        api.start(container)
        return container

    return one


def _create(api: docker.APIClient, run: str, number: int, revision: int) -> str:
    host = api.create_host_config(network_mode=run, restart_policy={"Name": "unless-stopped"}, init=True)
    made = api.create_container(
        IMAGE,
        COMMAND,
        name=f"{run}-{number}-{revision}",
        host_config=host,
        labels={"bench": run},
        environment={"REVISION": str(revision)},
    )
    return str(made["Id"])

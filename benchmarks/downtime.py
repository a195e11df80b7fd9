"""How long a service does not answer while it is replaced, as a client sees it that asks without pause.

By the agent with each strategy, beside the raw API (create the new one, stop the old one, start the new one) and
each Compose that is here. The service answers when any container of it does.
"""

import contextlib
import http.client
import itertools
import json
import tempfile
import threading
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.install import Compose
from benchmarks.world import IMAGE, Agent, engine

HTTPD = ["sh", "-c", "echo hello > /www/index.html; exec httpd -f -p 80 -h /www"]
STEADY_S = 0.5


class Client:
    """Asks again and again, and remembers when it was answered."""

    def __init__(self, label: str) -> None:
        self._filters = {"label": label}
        self._api = engine()
        self._answered: list[float] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.steady()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(10)

    def steady(self) -> None:
        """Return when it has been answered for a while."""
        from_ = time.monotonic() + STEADY_S
        while not (self._answered and self._answered[-1] >= from_):
            time.sleep(0.05)

    def longest_gap_s(self, since: float) -> float:
        """Between two answers; a service that is never away has one as long as a question takes."""
        times = [at for at in self._answered if at >= since]
        return max(after - before for before, after in itertools.pairwise(times))

    def _ask(self) -> None:
        while not self._over.is_set():
            if any(map(_answers, self._api.containers(filters=self._filters))):
                self._answered.append(time.monotonic())


def _answers(container: dict[str, Any]) -> bool:
    for network in container["NetworkSettings"]["Networks"].values():
        connection = http.client.HTTPConnection(network["IPAddress"], 80, timeout=0.2)
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", "/")
            return connection.getresponse().status == http.client.OK
    return False


def by_agent(agent: Agent, strategy: str) -> float:
    """Seconds without an answer while the agent replaces it."""

    def apps(number: int) -> dict[str, Any]:
        server = {**_service(number), "x-update": {"strategy": strategy}}
        return {"web": {"services": {"server": server}, "x-release": {"healthy_for": "1s"}}}

    agent.publish(apps(1))
    agent.converged()
    with Client(agent.label) as client:
        began = agent.publish(apps(2))
        agent.converged()
        client.steady()
        return client.longest_gap_s(began)


def by_engine() -> float:
    """The same with the raw API."""
    run = "bench-" + uuid.uuid4().hex[:8]
    api = engine()

    def create(number: int) -> str:
        host = api.create_host_config(network_mode=run, restart_policy={"Name": "unless-stopped"}, init=True)
        environment = {"NUMBER": str(number)}
        made = api.create_container(IMAGE, HTTPD, host_config=host, labels={"bench": run}, environment=environment)
        return str(made["Id"])

    # As the others: on a network of its own.
    api.create_network(run, driver="bridge")
    old = new = ""
    try:
        old = create(1)
        api.start(old)
        with Client(f"bench={run}") as client:
            new = create(2)
            began = time.monotonic()
            api.stop(old, timeout=10)
            api.start(new)
            client.steady()
            return client.longest_gap_s(began)
    finally:
        for container in filter(None, (old, new)):
            api.remove_container(container, force=True)
        api.remove_network(run)


def by_compose(compose: Compose) -> float:
    """The same with its `up -d`."""
    project = "bench-" + uuid.uuid4().hex[:8]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "compose.yaml")

        def up(number: int) -> None:
            service = {**_service(number), "restart": "unless-stopped"}
            file.write_text(json.dumps({"version": "3.8", "services": {"server": service}}))
            compose(project, file, "up", "-d")

        try:
            up(1)
            with Client(f"com.docker.compose.project={project}") as client:
                began = time.monotonic()
                up(2)
                client.steady()
                return client.longest_gap_s(began)
        finally:
            compose(project, file, "down", "-t", "1")


def _service(number: int) -> dict[str, Any]:
    return {"image": IMAGE, "command": HTTPD, "init": True, "environment": {"NUMBER": str(number)}}

"""A RabbitMQ cluster of three nodes behind a TCP load balancer: containers on a network of their own.

Images: `RABBITMQ_IMAGE` as everywhere, `HAPROXY_IMAGE`; where that is not set, one is made from the Debian package on
`BASE_IMAGE`.
"""

import contextlib
import io
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import docker.errors

from tests.eventually import eventually
from tests.rabbitmq import OPEN, READY_S

NODES = ("rmq1", "rmq2", "rmq3")
MQTT_PORT = 1883
CLASSIC, QUORUM = "classic", "quorum"
"""What may keep a session: a queue on one node, as by default, or one with replicas on three."""
CONNECTIONS = 20_000
"""Open files of each container: so many may be had everywhere."""
HAPROXY = "device-agent-haproxy:local"
BALANCER = f"""\
global
  maxconn {CONNECTIONS // 2 - 100}
defaults
  mode tcp
  timeout connect 3s
  # Longer than one and a half keep-alives.
  timeout client 120s
  timeout server 120s
resolvers docker
  nameserver dns 127.0.0.11:53
  hold nx 2s
  hold valid 2s
listen mqtt
  bind :{MQTT_PORT}
  balance leastconn
  # The connections of a node that is lost end at once, and not when their keep-alive is over.
  default-server check inter 1s fall 2 rise 2 on-marked-down shutdown-sessions resolvers docker init-addr libc,none
"""
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05ready"


class Cluster:
    """Made by `cluster`. `address` is the balancer's."""

    def __init__(self, api: docker.DockerClient, network: str) -> None:
        self._api = api
        self._network = network
        self._containers: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return self.host("balancer")

    def host(self, name: str) -> str:
        container = self._containers[name]
        container.reload()
        found: str = container.attrs["NetworkSettings"]["Networks"][self._network]["IPAddress"]
        return found

    def run(self, name: str, image: str, files: dict[str, str], **settings: Any) -> None:
        container = self._api.containers.create(
            image,
            name=f"{self._network}-{name}",
            hostname=name,
            network=self._network,
            networking_config={self._network: self._api.api.create_endpoint_config(aliases=[name])},
            volumes={file: {"bind": inside, "mode": "ro"} for file, inside in files.items()},
            ulimits=[docker.types.Ulimit(name="nofile", soft=CONNECTIONS, hard=CONNECTIONS)],
            **settings,
        )
        self._containers[name] = container
        container.start()

    def wait_ready(self) -> None:
        """Until all nodes run in one cluster, and the balancer lets a client through."""
        eventually(lambda: self.running == len(NODES), READY_S, "three nodes are one cluster")
        for name in (*NODES, "balancer"):
            eventually(lambda name=name: self._answers(name), READY_S, f"{name} answers a CONNECT")  # type: ignore[misc]

    @property
    def running(self) -> int:
        """How many nodes the first one that answers counts as running."""
        for name in NODES:
            code, said = self._containers[name].exec_run(
                ["rabbitmqctl", "-q", "eval", "length(rabbit_nodes:list_running())."], stderr=False
            )
            if code == 0:
                return int(said)
        return 0

    def kill(self, node: str) -> None:
        """kill -9."""
        self._containers[node].kill()

    def start(self, node: str) -> None:
        """Again, with its data; returns when it is a member of the cluster, and lets clients in."""
        self._containers[node].start()
        self.wait_ready()

    def memory_mib(self, name: str) -> float:
        """What a container's processes have, without the page cache."""
        stats = self._containers[name].stats(stream=False)["memory_stats"]
        return float(stats["usage"] - stats.get("stats", {}).get("inactive_file", 0)) / 2**20

    def remove(self) -> None:
        """All of it. Not to be interrupted: whoever is impatient would leave containers behind."""
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            for container in self._containers.values():
                with contextlib.suppress(docker.errors.NotFound):
                    container.remove(force=True, v=True)
            self._api.networks.get(self._network).remove()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _answers(self, name: str) -> bool:
        try:
            with socket.create_connection((self.host(name), MQTT_PORT), timeout=2) as sock:
                sock.sendall(_CONNECT)
                return sock.recv(1) == b"\x20"
        except OSError:
            return False


@contextlib.contextmanager
def cluster(queues: str) -> Iterator[Cluster]:
    """Run one whose sessions are kept by such `queues`."""
    api = docker.from_env(timeout=120)
    mark = f"rabbitmq-{secrets.token_hex(3)}"
    members = (f"cluster_formation.classic_config.nodes.{at} = rabbit@{name}" for at, name in enumerate(NODES, 1))
    config = "\n".join(
        (
            OPEN + "cluster_formation.peer_discovery_backend = classic_config",
            *members,
            f"mqtt.durable_queue_type = {queues}\n",
        )
    )
    servers = "".join(f"  server {name} {name}:{MQTT_PORT}\n" for name in NODES)
    cookie = f"-setcookie {secrets.token_hex(8)}"
    with contextlib.ExitStack() as stack:
        stack.callback(api.close)
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rabbitmq-")))
        folder.chmod(0o755)
        for file, content in {
            "rabbitmq.conf": config,
            "enabled_plugins": "[rabbitmq_mqtt].\n",
            "haproxy.cfg": BALANCER + servers,
        }.items():
            (folder / file).write_text(content)
            (folder / file).chmod(0o644)
        api.networks.create(mark)
        made = Cluster(api, mark)
        stack.callback(made.remove)
        image = os.environ.get("RABBITMQ_IMAGE", "rabbitmq:4")
        files = {str(folder / name): f"/etc/rabbitmq/{name}" for name in ("rabbitmq.conf", "enabled_plugins")}
        environment = {"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": cookie, "RABBITMQ_CTL_ERL_ARGS": cookie}
        for name in NODES:
            made.run(name, image, files, environment=environment)
        inside = "/usr/local/etc/haproxy/haproxy.cfg"
        made.run("balancer", _balancer_image(api), {str(folder / "haproxy.cfg"): inside})
        made.wait_ready()
        yield made


def _balancer_image(api: docker.DockerClient) -> str:
    if named := os.environ.get("HAPROXY_IMAGE"):
        return named
    try:
        api.images.get(HAPROXY)
    except docker.errors.ImageNotFound:
        recipe = (
            f"FROM {os.environ.get('BASE_IMAGE', 'python:3.13-slim')}\n"
            "RUN apt-get -q update && apt-get -q install -y --no-install-recommends haproxy"
            " && rm -rf /var/lib/apt/lists/* /var/cache/apt/*\n"
            'CMD ["haproxy", "-f", "/usr/local/etc/haproxy/haproxy.cfg"]\n'
        )
        api.images.build(fileobj=io.BytesIO(recipe.encode()), tag=HAPROXY, rm=True)
    return HAPROXY

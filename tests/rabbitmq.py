"""A real RabbitMQ in a container, as `tests/broker.py` has a Mosquitto.

The image is `RABBITMQ_IMAGE` (default `rabbitmq:4`). Without an engine these fail; they never skip.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from testcontainers.core.container import DockerContainer

from tests.broker import BrokerContainer, free_ports

READY_S = 120.0
"""An Erlang VM on a busy machine of two cores."""

OPEN = """\
mqtt.listeners.tcp.default = 1883
mqtt.allow_anonymous = true
anonymous_login_user = guest
anonymous_login_pass = guest
loopback_users = none
log.console.level = warning
"""
"""Configuration: anybody may do anything."""


class RabbitMQ(BrokerContainer):
    name = "RabbitMQ"
    ready_s = READY_S


@contextlib.contextmanager
def rabbitmq(config: str = "") -> Iterator[RabbitMQ]:
    """Run one with `config` after `OPEN`."""
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="rabbitmq-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        files = {"rabbitmq.conf": OPEN + config, "enabled_plugins": "[rabbitmq_mqtt].\n"}
        container = DockerContainer(os.environ.get("RABBITMQ_IMAGE", "rabbitmq:4")).with_bind_ports(1883, port)
        for file, content in files.items():
            (folder / file).write_text(content)
            (folder / file).chmod(0o644)
            container.with_volume_mapping(str(folder / file), f"/etc/rabbitmq/{file}", "ro")
        # Its data folder bears the host's name.
        container.with_kwargs(hostname="rabbitmq")
        with container:
            broker = RabbitMQ(container, port)
            broker.wait_ready()
            yield broker

"""Scenario 2: the agent in its image, its memory on the named volume, by the project's own Compose file.

One stack for all of them; each test leaves it as it found it: up, with its target applied.
"""

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.broker import free_ports
from tests.e2e.device import CONVERGE_S, Device, app, service
from tests.e2e.host import TEST_IMAGE, Host
from tests.eventually import eventually

ROOT = Path(__file__).parents[2]
BUILD_S = 240
APPS: dict[str, Any] = {
    "web": {**app(api=service(volumes=["data:/data"]), db=service()), "volumes": {"data": {}}},
}


class Stack:
    """A Compose project of the repository's docker-compose.yml: broker and agent, on names and ports of its own."""

    def __init__(self, host: Host, image: str) -> None:
        word = secrets.token_hex(3)
        (port,) = free_ports(1)
        self.project = f"{host.mark}-{word}"
        self.volume = f"{self.project}-data"
        self.broker_url = f"mqtt://127.0.0.1:{port}"
        self.environment = {
            "DEVICE_AGENT_IMAGE": image,
            "DEVICE_AGENT_VOLUME": self.volume,
            "MQTT_PORT": str(port),
        }
        self._host = host
        self.device: Device

    def named_for(self, device: Device) -> None:
        self.device = device
        self.environment |= {
            "DEVICE_AGENT_FLEET": device.fleet,
            "DEVICE_AGENT_DEVICE_ID": device.id,
            "DEVICE_AGENT_NAME_PREFIX": device.prefix,
        }

    def compose(self, *arguments: str, stdin: bytes = b"") -> bytes:
        done = subprocess.run(
            [ROOT / "scripts" / "compose", "-p", self.project, *arguments],
            input=stdin,
            env={**os.environ, **self.environment},
            capture_output=True,
            check=False,
            timeout=BUILD_S,
        )
        assert done.returncode == 0, done.stderr.decode()[-3000:]
        return done.stdout

    def up(self) -> None:
        """Until the device is online and has converged on what the cloud has published."""
        self.compose("up", "-d", "mosquitto", "agent")
        eventually(lambda: self.device.cloud.down is None, CONVERGE_S, "the cloud is connected")
        self.device.converge()

    def agent(self, *arguments: str, stdin: bytes = b"") -> bytes:
        return self.compose("exec", "-T", "agent", "device-agent", *arguments, stdin=stdin)

    def status(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.agent("status", "--json"))
        return body

    def container(self) -> dict[str, Any]:
        id_ = self.compose("ps", "-q", "agent").decode().strip()
        found = self._host.inspect(id_)
        assert found
        return found

    def helper(self, folder: Path, script: str) -> None:
        """A throw-away container with the volume at /data and a folder at /backup."""
        mounts = ["-v", f"{self.volume}:/data", "-v", f"{folder}:/backup"]
        command = ["docker", "run", "--rm", *mounts, f"{TEST_IMAGE}:1", "sh", "-c", script]
        subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def image(host: Host, mark: str) -> Iterator[str]:
    """Built once, from the Dockerfile."""
    name = f"device-agent-{mark}:test"
    stack = Stack(host, name)
    stack.compose("build", "agent")
    yield name
    # The layers stay where the next build finds them.
    host.api.remove_image(name, noprune=True)


@pytest.fixture(scope="module")
def stack(host: Host, image: str) -> Iterator[Stack]:
    stack = Stack(host, image)
    try:
        stack.compose("up", "-d", "mosquitto")
        with Device(stack.broker_url, host) as device:
            stack.named_for(device)
            stack.compose("up", "-d", "agent")
            device.publish(APPS)
            yield stack
            print(stack.compose("logs", "--tail", "60", "agent").decode())
            stack.compose("stop", "agent")
    finally:
        stack.compose("down", "-v", "--remove-orphans")


def test_the_named_volume_must_be_where_the_database_is(stack: Stack, host: Host) -> None:
    volume = host.api.inspect_volume(stack.volume)
    assert volume["Driver"] == "local"
    mounts = {mount["Destination"]: mount.get("Name") for mount in stack.container()["Mounts"]}
    assert mounts["/app/data"] == stack.volume
    stack.compose("exec", "-T", "agent", "test", "-s", "/app/data/database.sqlite")


def test_the_agents_container_must_have_no_open_port_and_be_healthy(stack: Stack) -> None:
    container = stack.container()
    assert not container["NetworkSettings"]["Ports"]
    # What the engine runs every minute.
    kind, check = container["Config"]["Healthcheck"]["Test"]
    assert kind == "CMD-SHELL"
    stack.compose("exec", "-T", "agent", "sh", "-c", check)
    assert b"alive" in stack.agent("healthcheck")


def test_a_replaced_agent_must_restore_its_target_and_touch_no_application(stack: Stack) -> None:
    device = stack.device
    before, session, agent = device.identities(), device.session, stack.container()["Id"]

    stack.compose("down")
    assert all(container["State"]["Running"] for container in device.containers().values())
    stack.compose("build", "agent")
    # Without a broker first: what is restored is restored from the database.
    stack.compose("up", "-d", "agent")
    status = eventually(lambda: (told := stack.status())["converged"] and told, CONVERGE_S, "restored without a broker")
    assert status["have"]["fleet"]["revision"] == device.cloud.last().version.revision
    stack.up()

    assert device.session > session
    assert stack.container()["Id"] != agent
    assert device.identities() == before
    # And it works on.
    changed = {"web": {**APPS["web"], "services": {**APPS["web"]["services"], "db": service(environment={"A": "1"})}}}
    device.publish(changed)
    after = device.identities()
    assert after["web/api"] == before["web/api"]
    assert after["web/db"] != before["web/db"]
    device.publish(APPS)


def test_down_v_must_forget_and_leave_applications_alone_and_a_backup_bring_it_back(stack: Stack) -> None:
    device = stack.device
    before = device.identities()
    backup = stack.agent("backup", "-")
    assert backup.startswith(b"SQLite format 3\0")

    stack.compose("down", "-v")
    stack.compose("up", "-d", "agent")
    status = eventually(
        lambda: (told := stack.status())["apps"].get("web") and told, CONVERGE_S, "an empty database and what runs"
    )
    assert status["have"] == {"fleet": None, "device": None}
    assert status["converged"] is False
    assert (status["apps"]["web"]["phase"], status["apps"]["web"]["reason"]["code"]) == ("held", "target_unknown")
    assert device.identities() == before

    stack.agent("restore", "-", stdin=backup)

    restored = eventually(lambda: (told := stack.status())["converged"] and told, CONVERGE_S, "it has converged")
    assert restored["have"]["fleet"]["revision"] == device.cloud.last().version.revision
    assert device.identities() == before
    stack.up()
    assert device.identities() == before


def test_a_tar_of_the_volume_must_bring_it_back_as_well(stack: Stack, tmp_path: Path) -> None:
    device = stack.device
    before, revision = device.identities(), device.cloud.last().version.revision
    # While the agent runs.
    stack.helper(tmp_path, "tar czf /backup/data.tar.gz -C /data .")

    stack.compose("down", "-v")
    stack.compose("up", "--no-start", "agent")
    stack.helper(tmp_path, "rm -rf /data/* && tar xzf /backup/data.tar.gz -C /data")
    stack.compose("up", "-d", "agent")

    status = eventually(lambda: (told := stack.status())["converged"] and told, CONVERGE_S, "it has converged")
    assert status["have"]["fleet"]["revision"] == revision
    assert status["store"]["status"] == "ok"
    assert device.identities() == before
    stack.up()
    assert device.identities() == before


def test_the_broker_of_the_compose_file_must_keep_a_target_through_kill_9(stack: Stack) -> None:
    device = stack.device
    before, session = device.identities(), device.session
    stack.compose("kill", "-s", "SIGKILL", "mosquitto")
    stack.compose("up", "-d", "mosquitto")
    eventually(lambda: device.session > session, CONVERGE_S, "the device is online again")
    device.converge()
    assert device.identities() == before

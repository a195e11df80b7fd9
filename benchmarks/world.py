"""The parts of a benchmark: a broker, an agent as a process, the engine, and who sees containers start."""

import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from benchmarks.containers import NotStarted, started

ROOT = Path(__file__).parent.parent
IMAGE = os.environ.get("TEST_IMAGE", "device-agent-test") + ":1"
COMMAND = ["sleep", "1000000"]
MQTT_PORT = 1883
ENGINE = Path("/var/run/docker.sock")


def engine() -> docker.APIClient:
    """Raises `NotStarted`."""
    try:
        return docker.APIClient(f"unix://{ENGINE}", version="auto", timeout=60)
    except docker.errors.DockerException as error:
        raise NotStarted(f"no container engine answers at {ENGINE}: {error}") from error


class Starts:
    """Counts start events of containers with a label, as the engine tells them."""

    def __init__(self, label: str) -> None:
        self._api = engine()
        self._stream = self._api.events(decode=True, filters={"type": "container", "event": "start", "label": label})
        self._times: queue.SimpleQueue[float] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(Exception):
            for _ in self._stream:
                self._times.put(time.monotonic())

    def nth(self, count: int, timeout_s: float = 60) -> float:
        """When the n-th start from now on was heard."""
        return [self._times.get(timeout=timeout_s) for _ in range(count)][-1]

    def close(self) -> None:
        self._stream.close()


class Events:
    """Of containers with a label: when each happened, on the engine's own clock."""

    def __init__(self, label: str) -> None:
        self._api = engine()
        self._stream = self._api.events(decode=True, filters={"type": "container", "label": label})
        self._heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        with contextlib.suppress(Exception):
            for event in self._stream:
                self._heard.put(event)

    def next(self, action: str, timeout_s: float = 60) -> float:
        """Seconds since 1970 of the next of this action; what else is heard before it is passed over."""
        while True:
            event = self._heard.get(timeout=timeout_s)
            if event["Action"] == action:
                return float(event["timeNano"]) / 1e9

    def close(self) -> None:
        self._stream.close()


@dataclass
class Agent:
    """A running agent and the broker's end of it."""

    process: subprocess.Popen[bytes]
    fleet: str
    port: int
    """The broker's."""
    client: mqtt.Client
    states: "queue.SimpleQueue[tuple[float, dict[str, Any]]]" = field(default_factory=queue.SimpleQueue)
    revision: int = 0

    @property
    def label(self) -> str:
        return f"device-agent.device={self.fleet}/bench"

    def publish(self, apps: dict[str, Any], **more: str) -> float:
        """Publish a fleet target, with `more` keys; the time just before."""
        self.revision += 1
        target = {
            "schema": 1,
            "scope": {"fleet": self.fleet, "device": None},
            "epoch": 1,
            "revision": self.revision,
            "release": f"bench-{self.revision}",
            "allow_empty": True,
            "apps": apps,
            **more,
        }
        payload = json.dumps(target).encode()
        at = time.monotonic()
        self.client.publish(f"fleet/v1/{self.fleet}/down/target", payload, qos=1, retain=True)
        return at

    def converged(self, timeout_s: float = 60) -> float:
        """When the retained state said that the newest revision has converged, on the subscriber's clock."""
        until = time.monotonic() + timeout_s
        while True:
            at, state = self.states.get(timeout=max(0.1, until - time.monotonic()))
            have = state["have"]["fleet"]
            if state["converged"] and have and have["revision"] == self.revision:
                return at

    def written(self) -> int:
        """Bytes that the process caused to be written to disk."""
        text = Path(f"/proc/{self.process.pid}/io").read_text(encoding="ascii")
        return int(dict(line.split(": ") for line in text.splitlines())["write_bytes"])

    def pss_mib(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no Pss")

    def wake_ups(self) -> dict[str, int]:
        """How often each of its threads has waited for something until now, and was woken."""
        found = {}
        for status in Path(f"/proc/{self.process.pid}/task").glob("*/status"):
            # A thread that has just ended.
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
                found[status.parent.name] = int(lines["voluntary_ctxt_switches"])
        return found

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def broker() -> Iterator[int]:
    """A Mosquitto in a container; its port on loopback. Raises `NotStarted`."""
    image = os.environ.get("MOSQUITTO_IMAGE", "eclipse-mosquitto:2")
    config = ROOT / "deploy/mosquitto/mosquitto.conf"
    mount = f"{config}:/mosquitto/config/mosquitto.conf:ro"
    container = started("-p", f"127.0.0.1::{MQTT_PORT}", "-v", mount, image)
    try:
        port = engine().port(container, MQTT_PORT)[0]["HostPort"]
        yield int(port)
    finally:
        # With its volumes: the image has some.
        subprocess.run(["docker", "rm", "-f", "-v", container], check=True, capture_output=True)


@contextlib.contextmanager
def agent(port: int, **settings: str) -> Iterator[Agent]:
    """An agent with its own fleet and data, connected; whatever it made is removed at the end."""
    fleet = "bench-" + uuid.uuid4().hex[:8]
    with tempfile.TemporaryDirectory() as folder:
        client = mqtt.Client(CallbackAPIVersion.VERSION2)
        running = Agent(start(fleet, port, Path(folder), settings), fleet, port, client)
        client.on_message = lambda _c, _d, message: running.states.put((time.monotonic(), json.loads(message.payload)))
        try:
            # At each connection: the broker's port may be open before the broker is there to answer.
            client.on_connect = lambda *_: client.subscribe(f"fleet/v1/{fleet}/up/bench/state", qos=1)
            connect(client, port)
            client.loop_start()
            running.states.get(timeout=30)
            # What comes within 2 s of a connection waits for the other scope: that is not what is measured.
            time.sleep(2.5)
            yield running
            running.publish({})
            running.converged()
        finally:
            # After a failure or Ctrl-C too: then nothing is known of the agent, and what it has made is still there.
            running.process.terminate()
            try:
                running.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            client.disconnect()
            client.loop_stop()
            remove_all(running.label)
            shutil.rmtree(f"/dev/shm/{fleet}", ignore_errors=True)


def remove_all(label: str) -> None:
    """What bears it, by the engine: containers with their unnamed volumes, networks, volumes."""
    api, filters = engine(), {"label": [label]}
    for container in api.containers(all=True, filters=filters):
        _remove(api.remove_container, container["Id"], force=True, v=True)
    for network in api.networks(filters=filters):
        _remove(api.remove_network, network["Id"])
    for volume in api.volumes(filters=filters)["Volumes"] or ():
        _remove(api.remove_volume, volume["Name"])


def _remove(remove: Callable[..., None], name: str, **options: bool) -> None:
    try:
        remove(name, **options)
    except docker.errors.NotFound:
        pass  # somebody else was quicker
    except docker.errors.APIError as error:
        # Docker 20.10 can lose count of a network's users. No reason to lose what was measured.
        print(f"{name} stays: {error.explanation}", file=sys.stderr)


@contextlib.contextmanager
def restarted(running: Agent) -> Iterator[dict[str, str]]:
    """While its process does not run: the settings to start another one with. Then it is started again."""
    raw = Path(f"/proc/{running.process.pid}/environ").read_text(encoding="utf-8")
    pairs = (entry.partition("=") for entry in raw.split("\0") if entry.startswith("DEVICE_AGENT_"))
    environment = {name: value for name, _, value in pairs}
    running.process.terminate()
    running.process.wait(timeout=20)
    try:
        yield environment
    finally:
        running.process = process(environment)


def connect(client: mqtt.Client, port: int) -> None:
    """The broker of a moment ago may not listen yet."""
    until = time.monotonic() + 15
    while True:
        try:
            client.connect("127.0.0.1", port)
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def start(fleet: str, port: int, folder: Path, settings: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """`settings` are further ones, without their prefix."""
    return process(
        {
            "DEVICE_AGENT_FLEET": fleet,
            "DEVICE_AGENT_DEVICE_ID": "bench",
            "DEVICE_AGENT_MQTT_URL": f"mqtt://127.0.0.1:{port}",
            "DEVICE_AGENT_DATA_DIR": str(folder / "data"),
            # The heartbeat is beside it: on tmpfs, as in the image.
            "DEVICE_AGENT_CONTROL_SOCKET": f"/dev/shm/{fleet}/control.sock",
            "DEVICE_AGENT_NAME_PREFIX": f"{fleet}-",
            **{f"DEVICE_AGENT_{name}": value for name, value in settings.items()},
        }
    )


def as_in_the_image(settings: Mapping[str, str]) -> dict[str, str]:
    """The environment of an agent: this process's, and what the Dockerfile sets. Its byte code is kept, as it is there.

    Where PYTHONDONTWRITEBYTECODE is set for other reasons, each start would compile the agent anew: 0.15 s.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONNODEBUGRANGES": "1", "MALLOC_ARENA_MAX": "2", **settings}


def process(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    # Its log goes nowhere: what is measured as written is what is on its volume.
    return subprocess.Popen(
        [sys.executable, "-m", "device_agent", "run"],
        env=as_in_the_image(environment),
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        cwd=ROOT,
        # Ctrl-C is for the benchmark, which ends the agent itself.
        start_new_session=True,
    )


def app(count: int, revision: int = 0) -> dict[str, Any]:
    """An app without a gate: what is measured is the work, not the waiting."""
    return {"services": services(count, revision), "x-release": {"healthy_for": "0s"}}


def services(count: int, revision: int = 0) -> dict[str, Any]:
    """So many small services; another revision changes the environment of all."""
    return {
        f"s{number:03}": {"image": IMAGE, "command": COMMAND, "init": True, "environment": {"REVISION": str(revision)}}
        for number in range(count)
    }

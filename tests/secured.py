"""A secured Mosquitto, run on exactly the folder that `cloud-sim provision` makes."""

import contextlib
import os
import socket
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from testcontainers.core.container import DockerContainer

from cloud_sim.authority import Authority
from cloud_sim.provision import ON_DEVICE, Provision
from tests.broker import READY_S, free_ports, password_line
from tests.eventually import eventually

NAMES = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True)
class Secured:
    """`port` is for certificates, `password_port` for passwords; `plain` answers nobody who speaks no TLS."""

    container: DockerContainer
    folder: Path
    fleet: str
    port: int
    password_port: int

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.port}"

    def reload(self) -> None:
        """As an operator does after a renewal: SIGHUP."""
        self.container.get_wrapped_container().kill(signal="SIGHUP")

    def logs(self) -> str:
        return b"".join(self.container.get_logs()).decode(errors="replace")

    def provision(self, *devices: str, **options: Any) -> None:
        Provision(self.folder, self.fleet, datetime.now(UTC), **options).run((), devices)

    def issue(self, device: str, *, days_ago: int, days: int) -> None:
        """A certificate of another time, in place of the device's."""
        authority = Authority.of((self.folder / "ca.key").read_bytes(), (self.folder / "ca.crt").read_bytes())
        home = self.folder / "devices" / device
        made = datetime.now(UTC) - timedelta(days=days_ago)
        certificate = authority.for_client((home / "client.key").read_bytes(), device, made, days)
        (home / "client.crt").write_bytes(certificate)

    def settings(self, device: str) -> dict[str, str]:
        """What is in the device's agent.env, with its folder where it is here, and the port that it has here."""
        lines = (self.folder / "devices" / device / "agent.env").read_text(encoding="utf-8").splitlines()
        read = dict(line.removeprefix("DEVICE_AGENT_").split("=", 1) for line in lines)
        home = str(self.folder / "devices" / device)
        return {name: value.replace(str(ON_DEVICE), home) for name, value in read.items()} | {"MQTT_URL": self.url}

    def cloud_settings(self) -> dict[str, str]:
        lines = (self.folder / "cloud" / "cloud.env").read_text(encoding="utf-8").splitlines()
        return dict(line.split("=", 1) for line in lines) | {"CLOUD_SIM_MQTT_URL": self.url}

    def serial(self) -> int:
        """Of the certificate that the broker shows."""
        context = ssl.create_default_context(cafile=self.folder / "ca.crt")
        with (
            socket.create_connection(("127.0.0.1", self.port), timeout=5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as secure,
        ):
            shown = secure.getpeercert()
        return int(str(shown["serialNumber"]), 16) if shown else 0


@contextlib.contextmanager
def secured(folder: Path, fleet: str, *devices: str, passwords: dict[str, str] | None = None) -> Iterator[Secured]:
    """`passwords` are of users who have no certificate."""
    Provision(folder, fleet, datetime.now(UTC)).run(NAMES, devices)
    (folder / "broker" / "passwords").write_bytes(b"".join(password_line(*each) for each in (passwords or {}).items()))
    if os.geteuid():
        subprocess.run(["sudo", "-n", "chown", "-R", "1883", folder / "broker"], check=True)
    port, password_port = free_ports(2)
    container = (
        DockerContainer(os.environ.get("MOSQUITTO_IMAGE", "eclipse-mosquitto:2"))
        .with_volume_mapping(str(folder / "broker"), "/mosquitto/config", "ro")
        .with_bind_ports(8883, port)
        .with_bind_ports(8884, password_port)
    )
    with container:
        broker = Secured(container, folder, fleet, port, password_port)
        eventually(lambda: _answers(broker), READY_S, "the secured Mosquitto answers")
        yield broker


def _answers(broker: Secured) -> bool:
    try:
        return bool(broker.serial())
    except OSError:
        return False


class Intruder:
    """A client with a rightful identity, a certificate or a password, that tries what it may not do."""

    def __init__(self, broker: Secured, identity: str, *, password: str | None = None, client_id: str = "") -> None:
        self.heard: dict[str, bytes] = {}
        self._answers: dict[int, int] = {}
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        context = ssl.create_default_context(cafile=broker.folder / "ca.crt")
        home = broker.folder / "cloud" if identity == "cloud" else broker.folder / "devices" / identity
        if password is None:
            context.load_cert_chain(home / "client.crt", home / "client.key")
        else:
            self.client.username_pw_set(identity, password)
        self.client.tls_set_context(context)
        self.client.on_message = lambda _client, _data, message: self.heard.update({message.topic: message.payload})
        self.client.on_publish = lambda _client, _data, mid, reason, _properties: self._answers.update(
            {mid: reason.value}
        )
        self._subscribed: list[int] = []
        self.client.on_subscribe = lambda *_: self._subscribed.append(1)
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 300
        port = broker.port if password is None else broker.password_port
        self.client.connect("localhost", port, clean_start=False, properties=properties)
        self.client.loop_start()
        eventually(self.client.is_connected, READY_S, f"{identity} is connected")

    def subscribe(self, topic: str) -> None:
        before = len(self._subscribed)
        self.client.subscribe(topic, qos=1)
        eventually(lambda: len(self._subscribed) > before, READY_S, "SUBACK")

    def may_publish(self, topic: str, payload: bytes = b"{}", *, retain: bool = False) -> bool:
        """What the broker's PUBACK says."""
        info = self.client.publish(topic, payload, qos=1, retain=retain)
        eventually(lambda: info.mid in self._answers, READY_S, f"PUBACK for {topic}")
        return self._answers[info.mid] < 0x80

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        # paho leaves its pair of sockets to the garbage collector, and warnings are errors here.
        self.client._reset_sockets()

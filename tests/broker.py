"""A real Mosquitto in a container, a peer that talks to it, and a cable between it and a device that can be cut.

The image is `MOSQUITTO_IMAGE` (default `eclipse-mosquitto:2`). Without an engine these fail; they never skip.
"""

import base64
import contextlib
import hashlib
import os
import random
import socket
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties

from tests.eventually import eventually

# Read when testcontainers is imported.
os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")

from testcontainers.core.container import DockerContainer

READY_S = 30.0

OPEN = "allow_anonymous true\n"
"""Configuration: anybody may do anything."""

# MQTT 3.1.1, clean session, client id "ready".
_CONNECT = b"\x10\x11\x00\x04MQTT\x04\x02\x00\x3c\x00\x05ready"
_CONNACK = 0x20


class BrokerContainer:
    """A running broker, MQTT without TLS at `port`."""

    name: str
    ready_s = READY_S
    host = "127.0.0.1"

    def __init__(self, container: DockerContainer, port: int) -> None:
        self.container = container
        self.port = port

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    def wait_ready(self) -> None:
        """Until it answers a CONNECT, be it with a refusal."""
        eventually(self._answers, self.ready_s, f"{self.name} answers")

    def stop(self) -> None:
        self._docker().stop(timeout=5)

    def kill(self) -> None:
        """kill -9: nothing is saved that was not saved before."""
        self._docker().kill()
        self._docker().wait()

    def wipe(self) -> None:
        """kill -9, and a start without what it had kept."""
        self.freeze()  # or it would write its file once more
        self._docker().exec_run(["rm", "-f", "/mosquitto/data/mosquitto.db"])
        self.kill()
        self.start()

    def start(self) -> None:
        """After `stop` or `kill`: the same ports and, with persistence, the same data."""
        self._docker().start()
        self.wait_ready()

    def restart(self) -> None:
        self.stop()
        self.start()

    def reload(self) -> None:
        """SIGHUP: as after a change of its certificates."""
        self._docker().kill(signal="SIGHUP")

    def freeze(self) -> None:
        """SIGSTOP: the kernel still acknowledges what arrives, nobody reads it."""
        self._docker().kill(signal="SIGSTOP")

    def thaw(self) -> None:
        self._docker().kill(signal="SIGCONT")

    def logs(self) -> str:
        return b"".join(self.container.get_logs()).decode(errors="replace")

    def _docker(self) -> Any:
        return self.container.get_wrapped_container()

    def _answers(self) -> bool:
        try:
            with socket.create_connection((self.host, self.port), timeout=1) as sock:
                sock.sendall(_CONNECT)
                return sock.recv(1)[:1] == bytes([_CONNACK])
        except OSError:
            return False


class Mosquitto(BrokerContainer):
    """`tls_port` is MQTT over TLS where the configuration has a listener 8883."""

    name = "Mosquitto"

    def __init__(self, container: DockerContainer, port: int, tls_port: int) -> None:
        super().__init__(container, port)
        self.tls_port = tls_port


@contextlib.contextmanager
def mosquitto(
    config: str = OPEN, *, files: Mapping[str, bytes] | None = None, data: Path | None = None
) -> Iterator[Mosquitto]:
    """Run one with `config` after `listener 1883`; `files` lie beside it in /mosquitto/config.

    `data`: a folder for /mosquitto/data. It saves with fsync, in its only thread: a busy disk would make it slow.
    """
    port, tls_port = free_ports(2)
    with tempfile.TemporaryDirectory(prefix="mosquitto-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for file, content in {"mosquitto.conf": f"listener 1883\n{config}".encode(), **(files or {})}.items():
            (folder / file).write_bytes(content)
            (folder / file).chmod(0o644)
        container = (
            DockerContainer(os.environ.get("MOSQUITTO_IMAGE", "eclipse-mosquitto:2"))
            .with_volume_mapping(name, "/mosquitto/config", "ro")
            .with_bind_ports(1883, port)
            .with_bind_ports(8883, tls_port)
        )
        if data:
            data.chmod(0o777)
            container = container.with_volume_mapping(str(data), "/mosquitto/data", "rw")
        with container:
            broker = Mosquitto(container, port, tls_port)
            broker.wait_ready()
            yield broker


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, different ones; below those that the kernel gives to outgoing connections."""
    found: list[int] = []
    with contextlib.ExitStack() as stack:
        while len(found) < count:
            sock = stack.enter_context(socket.socket())
            port = random.randrange(15_000, 32_000)
            with contextlib.suppress(OSError):
                # On all addresses, as the engine will: one may be free on loopback and in use elsewhere.
                sock.bind(("", port))
                found.append(port)
    return found


def password_line(user: str, password: str) -> bytes:
    """A line of Mosquitto's password file (PBKDF2 with SHA-512, 101 rounds)."""
    salt = os.urandom(12)
    hashed = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    return f"{user}:$7$101${base64.b64encode(salt).decode()}${base64.b64encode(hashed).decode()}\n".encode()


@dataclass(frozen=True, slots=True)
class Heard:
    topic: str
    payload: bytes
    retained: bool
    expiry_s: int | None


class Peer:
    """Another client of the broker, MQTT 5: publishes, and collects what it hears."""

    def __init__(
        self, broker: BrokerContainer, *, client_id: str = "", user: str | None = None, password: str | None = None
    ) -> None:
        self.heard: list[Heard] = []
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        if user is not None:
            self.client.username_pw_set(user, password)
        self.client.on_message = self._on_message
        self._subscribed = threading.Event()
        self.client.on_subscribe = lambda *_: self._subscribed.set()
        self.client.connect(broker.host, broker.port)
        self.client.loop_start()
        try:
            eventually(self.client.is_connected, READY_S, "the peer is connected")
        except AssertionError as error:
            error.add_note(broker.logs())
            raise

    def subscribe(self, topic: str) -> None:
        self._subscribed.clear()
        self.client.subscribe(topic, qos=1)
        assert self._subscribed.wait(READY_S), f"no SUBACK for {topic}"

    def subscribe_always(self, topic: str) -> None:
        """Also at each connection from now on."""
        self.client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self.subscribe(topic)

    def publish(
        self, topic: str, payload: bytes, *, retain: bool = False, properties: Properties | None = None
    ) -> None:
        """QoS 1; returns when the broker has it."""
        self.client.publish(topic, payload, qos=1, retain=retain, properties=properties).wait_for_publish(READY_S)

    def on(self, topic: str) -> list[Heard]:
        return [heard for heard in self.heard if heard.topic == topic]

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()
        # paho leaves its pair of sockets to the garbage collector, and warnings are errors here.
        self.client._reset_sockets()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        expiry = getattr(message.properties, "MessageExpiryInterval", None)
        self.heard.append(Heard(message.topic, message.payload, message.retain, expiry))


class Cable:
    """A TCP relay on a port of its own in front of a broker. Unplugged, it refuses; cut, connections just end."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        (self.port,) = free_ports(1)
        self.carried = 0
        """Bytes, both ways."""
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._flows = threading.Event()
        self._flows.set()
        self._listener: socket.socket | None = None

    def plug(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def unplug(self) -> None:
        """Refuse new connections and cut those that are there."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        self.cut()
        self.thaw()

    def freeze(self) -> None:
        """Connections stay, and nothing goes through any more: half-open, as behind a router that lost its table."""
        self._flows.clear()

    def thaw(self) -> None:
        self._flows.set()

    def cut(self) -> None:
        """End all connections, without a word of MQTT. A client may connect again at once."""
        while self._pairs:
            for sock in self._pairs.pop():
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._target, timeout=5)
            except OSError:
                near.close()
                continue
            far.settimeout(None)
            self._pairs.append((near, far))
            threading.Thread(target=self._relay, args=(near, far), daemon=True).start()

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        with near, far:
            back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
            back.start()
            self._carry(near, far)
            back.join()

    def _carry(self, source: socket.socket, drain: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._flows.wait()
                drain.sendall(data)
                self.carried += len(data)
        for sock in (source, drain):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

"""A device to be broken: with a broker of its own behind a wire that can be bad, neighbours that nobody may touch, and
an engine that can be spoken to through a proxy."""

import contextlib
import json
import random
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import docker.errors

from cloud_sim.cloud import Published
from device_agent.adapters.control_socket import NoAgent, ask
from tests.broker import Mosquitto, Peer, mosquitto
from tests.e2e.device import Device, Stranger, app, service, stranger
from tests.e2e.host import Host, OwnEngine
from tests.eventually import eventually
from tests.faults.pki import Certificates
from tests.faults.shop import Shop
from tests.faults.system import FalseClock
from tests.faults.watcher import Watcher, now
from tests.faults.wire import EngineProxy, Wire

KEEPALIVE_S = 5
CANARY = "canary-8f3a91c7"
"""A secret in the target: it must be seen nowhere but in the target and at the engine."""
BROKER = """allow_anonymous true
persistence true
persistence_location /mosquitto/data/
autosave_on_changes true
autosave_interval 1
include_dir /mosquitto/data/more
listener 8883
cafile /mosquitto/data/tls/ca.pem
certfile /mosquitto/data/tls/server.pem
keyfile /mosquitto/data/tls/server.key
require_certificate true
"""
"""Its data folder has its certificates, too, and a folder `more` for settings that a fault brings."""
MOST_RESTARTS = 20
"""Of the agent, by its restart policy, in one run."""


class Bench:
    """One device, for many runs. Its app `web` has `api`, which each release replaces, and `db`, which none does."""

    def __init__(self, host: Host, own_engine: OwnEngine | None = None) -> None:
        self.random = random.Random()
        self.host = host
        self.exits: list[int] = []
        """How the agent has ended by itself in this run."""
        self._logged = 0
        """Characters of the agent's log before this run."""
        self.number = 0
        self.published: Published | None = None
        self.apps: dict[str, Any] = {}
        self.beside: dict[str, Any] = {}
        """Services of a second app, `side`, from the next release on; without any, there is no such app."""
        self.known_gaps: tuple[tuple[int, int], ...] = ()
        """Acks that were lost before this run began, with a broker's data."""
        self.own_engine = own_engine
        self.lossy = False
        """Acks may have been lost for good: with the broker's data, or while the cloud was away."""
        self.data_lost = False
        """The device may have lost what it had on disk; then acks are lost, too."""
        self.began = 0.0
        """When the run began, on the engine's clock."""
        self.messages = 0
        """What the device had said before."""
        self.turn = 1
        """The number of the run within a sweep."""
        self._unheard: Published | None = None
        """What a run before this one has published, when acks could be lost."""
        self._shop: Shop | None = None
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            memory = stack.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm", prefix="mosquitto-"))
            self.broker_data = Path(memory)
            (self.broker_data / "more").mkdir(mode=0o755)
            self.certificates = Certificates(self.broker_data / "tls")
            self.broker: Mosquitto = stack.enter_context(mosquitto(BROKER, data=self.broker_data))
            self.client: Stranger = stranger(self.broker)
            self.wire = Wire(self.broker.host, self.broker.port)
            self.wire.plug()
            stack.callback(self.wire.unplug)
            self.device = stack.enter_context(Device(self.broker, self.host))
            engine = Path(self.host.url.removeprefix("unix://"))
            self.engine = EngineProxy(engine, self.device.folder / "engine.sock", self.random)
            stack.callback(self.engine.close)
            stack.callback(self._end)
            # Strict, but for the network that a fault has not made yet.
            policy = self.device.folder / "policy.toml"
            policy.write_text('external_networks = ["*"]\n', encoding="utf-8")
            self.device.settings |= {
                "POLICY_FILE": str(policy),
                "MQTT_URL": f"mqtt://127.0.0.1:{self.wire.port}",
                "MQTT_KEEPALIVE": str(KEEPALIVE_S),
                "ENGINE_URL": self.engine.url,
            }
            self.witness = stack.enter_context(Witness(self.broker, self.device))
            self.watcher = stack.enter_context(Watcher(self.host, self.device.label, "api"))
            self._foreign = stack.enter_context(_foreign(self.host, self.device.prefix))
            self.device.start()
            self.publish()
            self.converge(60)
            self.kept = self.device.identities()["web/db"]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _end(self) -> None:
        process = self.device.process
        if process and process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(10)
        if process:
            FalseClock.forget(process.pid)

    def begin(self, seed: str, turn: int) -> None:
        """A run of its own."""
        self.random.seed(seed)
        self.turn, self.began, self.messages = turn, now(), len(self.witness.bytes_heard())
        if self.lossy or self.data_lost:
            self._unheard = self.published
        self.lossy = self.data_lost = False
        self.known_gaps = self.device.cloud.gaps(self.device.id)
        self.exits.clear()
        self._logged = len(self.device.log())

    def log(self) -> str:
        """What the agent has logged in this run."""
        return self.device.log()[self._logged :]

    @property
    def acks_expected(self) -> bool:
        """Whether the cloud must have heard all acks of the newest release."""
        return not (self.lossy or self.data_lost) and self.published is not self._unheard

    # What is wanted.

    def publish(self, **services: dict[str, Any]) -> Published:
        """The next release: another environment and, every second time, another image for `api`."""
        self.next_release(**services)
        self.published = self.device.cloud.publish(self.apps)
        return self.published

    def next_release(self, **services: dict[str, Any]) -> None:
        self.number += 1
        api = service(1 + self.number % 2, environment={"RELEASE": str(self.number), "SECRET": CANARY})
        # Who stops a container while its release proves good has it rolled back: here it is tried on.
        gate = {"healthy_for": "100ms", "on_failure": "retry"}
        self.apps = {"web": {**app(**{"api": api, "db": service(), **services}), "x-release": gate}}
        if self.beside:
            self.apps["side"] = {"services": self.beside, "x-release": gate}

    def next_target(self) -> dict[str, Any]:
        """What `publish` would publish next, for a stranger to publish it."""
        version = self.device.cloud.next_version()
        self.next_release()
        scope = {"fleet": self.device.fleet, "device": None}
        return {
            "schema": 1,
            "scope": scope,
            "epoch": version.epoch,
            "revision": version.revision + self.number,
            "apps": self.apps,
        }

    def victims(self) -> list[str]:
        """Ids of the containers of `api`: in the middle of an apply there may be two, or none."""
        found = self.host.containers(self.device.label)
        return [each["Id"] for each in found if each["Config"]["Labels"].get("device-agent.service") == "api"]

    def pulled(self) -> list[str]:
        """What the engine has of what its registry has sold."""
        return self._shop.on(self.host) if self._shop else []

    @property
    def shop(self) -> Shop:
        """A registry of its own, open from its first use on."""
        if self._shop is None:
            self._shop = self._stack.enter_context(Shop(self.own_engine))
            self._stack.callback(self._forget_images)
        return self._shop

    def _forget_images(self) -> None:
        assert self._shop
        self._end()
        self.host.sweep(self.device.label)
        self._shop.remove_from(self.host)

    def of_web(self) -> dict[str, tuple[str, str]]:
        """Id and start time of what runs of the app that faults are about: a random one may be updated beside it."""
        found = {key: self.device.runs(key) for key in ("web/api", "web/db")}
        return {key: (each["Id"], each["State"]["StartedAt"]) for key, each in found.items() if each}

    def failed(self, code: str, within_s: float = 30.0) -> None:
        """Until the device has said that the newest release fails, and why."""
        assert self.published
        revision = self.published.revision
        eventually(
            lambda: self.device.acks(verdict="failed", revision=revision, code=code),
            within_s,
            f"truthful: it says {code}, and not {[ack.get('code') for ack in self.device.acks(revision=revision)]}",
        )

    # Its life.

    @property
    def pid(self) -> int:
        assert self.device.process
        return self.device.process.pid

    @property
    def alive(self) -> bool:
        return self.device.process is not None and self.device.process.poll() is None

    def begun(self) -> bool:
        """Whether the newest release has been accepted, or more."""
        assert self.published
        return bool(self.device.acks(revision=self.published.revision))

    def somewhere(self, within_s: float = 1.5) -> None:
        """Let a random time pass: the moment at which the fault comes."""
        threading.Event().wait(self.random.uniform(0, within_s))

    def kill(self) -> None:
        if self.alive:
            self.device.kill()

    def move_data(self, folder: Path) -> None:
        """The agent's data folder is another one from its next start on; it is stopped."""
        assert self.device.stop() == 0
        shutil.copytree(self.device.data, folder)
        self.device.data = folder
        self.device.settings["DATA_DIR"] = str(folder)

    def restart(self, *program: str, environment: Mapping[str, str] | None = None, **settings: str) -> None:
        """As the engine's restart policy does: at once, waiting for nothing.

        First its disk is looked at: a target that is retained, and arrives again, would hide what was not stored.
        """
        if not self.data_lost:
            self._durable()
        FalseClock.forget(self.pid)
        self.device.launch(*program, environment=environment, **settings)

    def _durable(self) -> None:
        stored = self.device.snapshot()
        assert stored.sound == "ok", f"sane store: {stored.sound}"
        said = max((ack["epoch"], ack["revision"]) for ack in self.device.acks(verdict="accepted", scope="fleet"))
        for kind in (stored.targets, stored.floors):
            assert kind.get("fleet", (0, 0)) >= said, f"durable: {said} was said to be accepted, the disk has {stored}"

    def keep_alive(self) -> None:
        """Start it again when it has ended. Its end is noted."""
        process = self.device.process
        if process is not None and process.poll() is not None:
            self.exits.append(process.returncode)
            assert len(self.exits) <= MOST_RESTARTS, (
                f"it does not stay alive: {self.exits}\n{self.device.log()[-3000:]}"
            )
            self.restart()

    def status(self) -> dict[str, Any] | None:
        """What the agent says to local people; None while nobody answers."""
        with contextlib.suppress(NoAgent, OSError, ValueError):
            answer = ask(Path(self.device.settings["CONTROL_SOCKET"]), "status", {})
            return answer["result"] if answer["status"] == "ok" else None
        return None

    def converge(self, within_s: float) -> float:
        """Seconds until the device and the broker say that the newest release runs."""
        began = time.monotonic()
        eventually(self.has_converged, within_s, f"{self.published} runs and is told")
        return time.monotonic() - began

    def has_converged(self) -> bool:
        self.keep_alive()
        assert self.published
        status = self.status()
        return (
            status is not None
            and bool(status["converged"] and status["connected"] and status["have"]["fleet"])
            and status["have"]["fleet"]["revision"] == self.published.revision
            and self.device.cloud.down is None
            and self.device.has_converged()
            and self.device.session == status["session"]
            and self._engine_agrees(status)
        )

    def _engine_agrees(self, status: Mapping[str, Any]) -> bool:
        """What was meddled with a moment ago may not have been noticed yet."""
        told = {
            service["container"] for app_told in status["apps"].values() for service in app_told["services"].values()
        }
        running = [
            (labels["device-agent.app"], labels["device-agent.service"])
            for container in self.host.containers(self.device.label)
            if container["State"]["Running"]
            and (labels := container["Config"]["Labels"])
            and container["Name"].removeprefix("/") in told
        ]
        wanted = {(app, service) for app, body in self.apps.items() for service in body["services"]}
        return len(running) == len(wanted) and set(running) == wanted

    def local_convergence(self, within_s: float) -> None:
        """As `converge`, without a broker."""

        def done() -> bool:
            self.keep_alive()
            status = self.status()
            return bool(status and status["converged"])

        eventually(done, within_s, "the device says that it has converged")

    def local_or_ended(self, within_s: float) -> None:
        """Until it answers local people, or has ended (which is a way to refuse, too)."""
        eventually(lambda: not self.alive or self.status(), within_s, "live: it answers or ends")

    @staticmethod
    def tolerating_absence(act: Callable[[], object]) -> None:
        """Meddle with what may be gone, or going, at this moment."""
        with contextlib.suppress(docker.errors.APIError):
            act()

    def foreign_now(self) -> Mapping[str, object]:
        return _looked_at(self.host, self._foreign)

    @property
    def foreign(self) -> Mapping[str, object]:
        return self._foreign


class Witness:
    """A stranger at the broker who has heard everything that the device has said."""

    def __init__(self, broker: Mosquitto, device: Device) -> None:
        self._broker = broker
        self._device = device
        self._peer: Peer | None = None

    def __enter__(self) -> Self:
        self._peer = Peer(self._broker, client_id=f"witness-{secrets.token_hex(4)}")
        # Its session ends with a broker that is killed.
        self._peer.subscribe_always(f"fleet/v1/{self._device.fleet}/up/#")
        return self

    def __exit__(self, *_: object) -> None:
        assert self._peer
        self._peer.close()

    def heard(self, *kinds: str) -> list[dict[str, Any]]:
        """In the order in which they were heard."""
        assert self._peer
        topics = {self._device.up(kind) for kind in kinds}
        said = [heard for heard in self._peer.heard if heard.topic in topics and heard.payload and not heard.retained]
        return [json.loads(heard.payload) for heard in said]

    def bytes_heard(self) -> list[bytes]:
        assert self._peer
        return [heard.payload for heard in self._peer.heard]


@contextlib.contextmanager
def _foreign(host: Host, prefix: str) -> Iterator[dict[str, object]]:
    """A container, a network and a volume of somebody else's, of confusable names."""
    name = f"{prefix}web-api-000000"
    container, network, volume = host.run(name), host.make_network(f"{prefix}web_other"), host.make_volume(name)
    try:
        yield _looked_at(host, {"container": container, "network": network, "volume": volume})
    finally:
        host.remove(container)
        host.api.remove_network(network)
        host.api.remove_volume(volume)


def _looked_at(host: Host, known: Mapping[str, object]) -> dict[str, object]:
    container, network, volume = (known[kind] for kind in ("container", "network", "volume"))
    first = container[0] if isinstance(container, tuple) else container
    return {
        "container": host.identity(str(first)),
        "network": host.api.inspect_network(network)["Id"],
        "volume": host.api.inspect_volume(volume)["Name"],
    }

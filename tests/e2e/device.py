"""A device: an agent that is a process of its own, its data folder, its cloud, and what it makes on an engine."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cloud_sim.cloud import Cloud, Published
from device_agent.model.observed import instance_of
from tests.broker import Mosquitto
from tests.e2e.host import TEST_IMAGE, Host
from tests.eventually import eventually

PROGRAM = (sys.executable, "-m", "device_agent")
READY_S = 20.0
CONVERGE_S = 45.0
STOP_S = 10.0
"""What an engine gives a container before it kills it: a stop must not take longer."""

Apps = Mapping[str, Any]


def service(version: int = 1, **keys: Any) -> dict[str, Any]:
    """One that runs until it is told to stop, and then does so at once."""
    return {"image": f"{TEST_IMAGE}:{version}", "init": True, **keys}


def app(**services: dict[str, Any]) -> dict[str, Any]:
    """Its gate is short, so that tests do not wait for what they are not about."""
    return {"services": services, "x-release": {"healthy_for": "100ms"}}


class Stranger:
    """Mosquitto's own command line clients, run in the broker's container: they know nothing of this project."""

    def __init__(self, container: str) -> None:
        self._container = container

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        retain: bool = True,
        content_type: str | None = None,
        properties: tuple[str, ...] = (),
    ) -> None:
        more = [*(["-r"] if retain else []), *properties]
        if content_type:
            more += ["-D", "publish", "content-type", content_type]
        how = ["-s"] if payload else ["-n"]
        self._run(payload, "mosquitto_pub", "-V", "mqttv5", "-q", "1", "-t", topic, *more, *how)

    def ask(self, topic: str, reply_to: str, body: bytes, *more: str) -> dict[str, Any]:
        """`mosquitto_rr`: publish with a Response Topic, and wait for what comes there."""
        how = ["-m", body.decode()] if body else ["-n"]
        said = self._run(
            b"", "mosquitto_rr", "-V", "mqttv5", "-q", "1", "-W", "10", "-t", topic, "-e", reply_to, *how, *more
        )
        answer: dict[str, Any] = json.loads(said)
        return answer

    def retained(self, topic: str) -> dict[str, Any]:
        """What the broker retains on a topic; empty for nothing."""
        said = self._run(b"", "mosquitto_sub", "-t", topic, "-C", "1", "-W", "5", "--retained-only", check=False)
        body: dict[str, Any] = json.loads(said) if said else {}
        return body

    def _run(self, payload: bytes, *command: str, check: bool = True) -> bytes:
        run = ["docker", "exec", "-i", self._container, *command]
        return subprocess.run(run, input=payload, check=check, capture_output=True, timeout=30).stdout


def stranger(broker: Mosquitto) -> Stranger:
    return Stranger(broker.container.get_wrapped_container().id)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a copy of the database says."""

    sound: str
    """SQLite's own check: `ok`."""
    targets: Mapping[str, tuple[int, int]]
    floors: Mapping[str, tuple[int, int]]
    outbox: int


class Device:
    """Not running until `start`. `close` removes everything that it has made, whatever has happened to it."""

    def __init__(
        self, broker: Mosquitto | str, host: Host, *, fleet: str | None = None, id_: str | None = None
    ) -> None:
        word = secrets.token_hex(4)
        self.fleet = fleet or f"{host.mark}-{word}"
        self.id = id_ or f"d-{word}"
        self.prefix = f"{self.fleet}-{self.id}-"
        self.host = host
        self.label = f"device-agent.device={self.fleet}/{self.id}"
        self.broker_url = broker if isinstance(broker, str) else broker.url
        # Short: the path of a Unix socket may have 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="e2e-"))
        self.data = self.folder / "data"
        self.settings: dict[str, str] = {
            "FLEET": self.fleet,
            "DEVICE_ID": self.id,
            "MQTT_URL": self.broker_url,
            "DATA_DIR": str(self.data),
            "CONTROL_SOCKET": str(self.folder / "control.sock"),
            "ENGINE_URL": host.url,
            "NAME_PREFIX": self.prefix,
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.cloud = Cloud(self.broker_url, self.fleet, database=":memory:")

    def __enter__(self) -> Self:
        self.cloud.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        try:
            if self.process and self.process.poll() is None:
                self.process.kill()
                self.process.wait(10)
            # pytest shows it where a test has failed.
            print(f"the last words of the agent {self.fleet}/{self.id}:\n{self.log()[-6000:]}")
            self.cloud.close()
        finally:
            self.host.sweep(self.label)
            shutil.rmtree(self.folder)

    # Topics.

    def up(self, kind: str) -> str:
        return f"fleet/v1/{self.fleet}/up/{self.id}/{kind}"

    @property
    def fleet_target(self) -> str:
        return f"fleet/v1/{self.fleet}/down/target"

    @property
    def own_target(self) -> str:
        return f"fleet/v1/{self.fleet}/down/device/{self.id}/target"

    # The process.

    def environment(self, **settings: str) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DEVICE_AGENT_")}
        ours = {f"DEVICE_AGENT_{name}": value for name, value in {**self.settings, **settings}.items()}
        return {**inherited, **ours}

    def launch(self, *program: str, environment: Mapping[str, str] | None = None, **settings: str) -> None:
        """Start the process, by default the agent, and wait for nothing."""
        assert self.process is None or self.process.poll() is not None, "it runs already"
        with Path(self.folder, "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*(program or PROGRAM), "run"],
                env={**self.environment(**settings), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the tests, which end it themselves.
                start_new_session=True,
            )

    def start(self, **settings: str) -> None:
        """Until the cloud has heard of its birth."""
        before = self.session
        self.launch(**settings)
        self.until(lambda: self.session > before, READY_S, "the agent is online")

    def start_offline(self, **settings: str) -> None:
        """Until it answers local people: there may be no broker."""
        self.launch(**settings)
        self.until(self._listens, READY_S, "the agent listens to local people")

    def _listens(self) -> bool:
        # The file alone says nothing: a killed agent leaves it behind.
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(self.settings["CONTROL_SOCKET"]) == 0

    def until(self, check: Callable[[], Any], timeout: float, what: str) -> Any:
        """`eventually`, but an agent that ends meanwhile is told at once."""

        def alive() -> Any:
            found = check()
            assert found or (self.process and self.process.poll() is None), (
                f"the agent has ended:\n{self.log()[-3000:]}"
            )
            return found

        return eventually(alive, timeout, what)

    def kill(self) -> None:
        assert self.process
        self.process.kill()
        self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM: the exit code. It must not take longer than an engine would wait."""
        assert self.process
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_S)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP, and SIGCONT at the end."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def cli(self, *arguments: str, stdin: bytes = b"", **settings: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*PROGRAM, *arguments],
            input=stdin,
            env=self.environment(**settings),
            check=False,
            capture_output=True,
            timeout=60,
        )

    def status(self) -> dict[str, Any]:
        answer = self.cli("status", "--json")
        assert answer.returncode == 0, answer.stderr
        body: dict[str, Any] = json.loads(answer.stdout)
        return body

    def log(self) -> str:
        file = Path(self.folder, "log")
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""

    # What the cloud knows.

    @property
    def session(self) -> int:
        return next((device.session for device in self.cloud.devices() if device.id == self.id), 0)

    def publish(self, apps: Apps, **more: Any) -> Published:
        """As the fleet's target; until it is applied."""
        published = self.cloud.publish(apps, **more)
        self.converge()
        return published

    def converge(self, timeout: float = CONVERGE_S) -> None:
        self.cloud.wait_converged(timeout, [self.id])

    def has_converged(self) -> bool:
        return self.cloud.shortfalls([self.id])[self.id] is None

    def acks(self, **expected: Any) -> list[dict[str, Any]]:
        """Those heard so far whose keys have these values."""
        bodies = [dict(entry.body) for entry in self.cloud.acks(self.id)]
        return [body for body in bodies if all(body.get(key) == value for key, value in expected.items())]

    def verdicts(self, revision: int) -> list[tuple[str, str | None]]:
        """(verdict, app) of a revision, in the order in which they were heard."""
        return [(str(ack["verdict"]), ack.get("app")) for ack in self.acks(revision=revision)]

    def events(self, name: str) -> list[dict[str, Any]]:
        return [dict(entry.body) for entry in self.cloud.events(self.id) if entry.body["event"] == name]

    # What the engine shows.

    def containers(self) -> dict[str, dict[str, Any]]:
        """By app/service, inspected. Fails when a service has more than one."""
        found: dict[str, dict[str, Any]] = {}
        for container in self.host.containers(self.label):
            labels = container["Config"]["Labels"]
            key = f"{labels['device-agent.app']}/{instance_of(labels)}"
            assert key not in found, f"two containers of {key}: {found[key]['Name']} and {container['Name']}"
            found[key] = container
        return found

    def container(self, key: str) -> dict[str, Any]:
        return self.containers()[key]

    def identities(self) -> dict[str, tuple[str, str]]:
        """By app/service: id and start time. What nobody touched has the same."""
        return {key: (found["Id"], found["State"]["StartedAt"]) for key, found in self.containers().items()}

    def runs(self, key: str) -> dict[str, Any] | None:
        """Its container, if there is one that runs. For `eventually`: meanwhile there may be two."""
        app_name, _, service_name = key.partition("/")
        for container in self.host.containers(self.label):
            labels = container["Config"]["Labels"]
            if (labels["device-agent.app"], labels["device-agent.service"]) == (app_name, service_name) and container[
                "State"
            ]["Running"]:
                return container
        return None

    # What is on disk.

    def snapshot(self) -> Snapshot:
        """Of a copy: the agent has the database for itself."""
        return eventually(self._snapshot, 5, "a copy of the database that was not written meanwhile")

    def _snapshot(self) -> Snapshot | None:
        with tempfile.TemporaryDirectory() as folder:
            for name in ("database.sqlite", "database.sqlite-wal"):
                with contextlib.suppress(FileNotFoundError):
                    shutil.copy(self.data / name, folder)
            try:
                with contextlib.closing(sqlite3.connect(Path(folder, "database.sqlite"))) as database:
                    (sound,) = database.execute("PRAGMA integrity_check").fetchone()
                    (outbox,) = database.execute("SELECT count(*) FROM outbox").fetchone()
                    targets = database.execute("SELECT scope, epoch, revision FROM targets").fetchall()
                    floors = database.execute("SELECT scope, epoch, revision FROM floors").fetchall()
            except sqlite3.DatabaseError:
                return None
        return Snapshot(
            sound,
            {scope: (epoch, revision) for scope, epoch, revision in targets},
            {scope: (epoch, revision) for scope, epoch, revision in floors},
            outbox,
        )

"""A word that stands for every secret there is, and a look at everything that could have said it."""

import base64
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cloud_sim.keys import read_signing_keys
from device_agent.wire import dsse
from tests.broker import free_ports
from tests.e2e.device import CONVERGE_S, Device, app, service
from tests.e2e.host import Host
from tests.e2e.test_secure import cloud_of
from tests.eventually import eventually
from tests.secured import Intruder, Secured, secured

WAIT_S = 30.0
BY_PASSWORD = "pump-3"


@dataclass(frozen=True, slots=True)
class Canary:
    """One word for each place, so that a test says which has sung."""

    mark: str

    def __call__(self, place: str) -> str:
        return f"canary-{self.mark}-{place}"

    def heard_in(self, said: str | bytes) -> list[str]:
        """The places whose word is there, also in base64 as registries want it."""
        text = said.decode(errors="replace") if isinstance(said, bytes) else said
        found = [word for word in text.replace('"', " ").split() if f"canary-{self.mark}" in word]
        encoded = [base64.b64encode(self(place).encode()).decode().rstrip("=") for place in ("registry", "password")]
        return found + [word for word in encoded if word in text]


@pytest.fixture
def canary() -> Canary:
    return Canary(secrets.token_hex(4))


@pytest.fixture
def broker(host: Host, tmp_path: Path, canary: Canary) -> Iterator[Secured]:
    passwords = {BY_PASSWORD: canary("password")}
    with secured(tmp_path / "plant", f"{host.mark}-secret", BY_PASSWORD, passwords=passwords) as broker:
        yield broker


@pytest.fixture
def device(broker: Secured, host: Host, tmp_path: Path, canary: Canary) -> Iterator[Device]:
    """All that an agent can be told in secret, told to it."""
    (tmp_path / "password").write_text(canary("password"))
    auth = {"auth": base64.b64encode(f"{canary('user')}:{canary('registry')}".encode()).decode()}
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry_host(): auth}}))
    device = Device(broker.url, host, fleet=broker.fleet, id_=BY_PASSWORD)
    device.cloud.close()
    device.cloud = cloud_of(broker)
    device.settings |= broker.settings(BY_PASSWORD)
    device.settings |= {
        "MQTT_URL": f"mqtts://localhost:{broker.password_port}",
        "MQTT_USERNAME": BY_PASSWORD,
        "MQTT_PASSWORD_FILE": str(tmp_path / "password"),
        "REGISTRY_AUTH": str(tmp_path / "config.json"),
        "COMMANDS": "all",
        "LOG_LEVEL": "debug",
    }
    with device:
        yield device


def registry_host() -> str:
    """Where nobody listens, the same all the time."""
    if not _PORTS:
        _PORTS.extend(free_ports(1))
    return f"127.0.0.1:{_PORTS[0]}"


_PORTS: list[int] = []


def whole_app(canary: Canary, **more: Any) -> dict[str, Any]:
    contents = {"one": {"content": f"{canary('content')}\n"}}
    return {
        **app(
            api=service(
                environment={"DB_PASSWORD": canary("environment"), "DATABASE_URL": f"x://u:{canary('url')}@h"},
                configs=["one"],
                secrets=["one"],
                **more,
            ),
        ),
        "configs": contents,
        "secrets": {"one": {"content": f"{canary('secret')}\n"}},
    }


def far_app() -> dict[str, Any]:
    """An image whose registry wants to be logged in to, and is not there."""
    return app(other={**service(), "image": f"{registry_host()}/never:1"})


def test_no_secret_must_be_in_what_anybody_is_told(
    device: Device, broker: Secured, tmp_path: Path, canary: Canary
) -> None:
    said: dict[str, str | bytes] = {}
    root = f"fleet/v1/{broker.fleet}"
    with Intruder(broker, "cloud") as listener:
        told: list[tuple[str, bytes]] = []
        listener.client.on_message = lambda _client, _data, message: told.append((message.topic, message.payload))
        for topic in (f"{root}/up/#", f"{root}/reply/#"):
            listener.subscribe(topic)
        device.start()
        good = whole_app(canary)
        device.cloud.publish({"web": good, "far": far_app()})
        device.until(lambda: device.runs("web/api"), CONVERGE_S, "the part that can run runs")
        device.until(lambda: device.acks(verdict="failed", app="far"), CONVERGE_S, "the other part has failed")

        # Refused for what stands just beside a secret.
        for spoilt in (
            whole_app(canary, ports=[canary("environment")], user={"x": canary("environment")}),
            whole_app(canary, mem_limit=1, environment_file=canary("environment")),
            {**good, "secrets": {"one": {"content": [canary("secret")]}}},
        ):
            sent = device.cloud.publish({"web": spoilt})
            device.until(
                lambda sent=sent: device.acks(verdict="rejected", revision=sent.revision), WAIT_S, "it is refused"
            )

        # What people ask, on the device and over the broker.
        document = tmp_path / "target.json"
        changed = {"web": whole_app(canary, labels={"version": "2"}), "far": far_app()}
        document.write_bytes(signed(broker, changed))
        for arguments in (
            ["status"],
            ["status", "--json"],
            ["explain", "web/api", "--json"],
            ["explain", "far/other"],
            ["plan", str(document)],
            ["apply", str(document)],
            ["config", "--json"],
            ["restart", "web/api"],
        ):
            done = device.cli(*arguments)
            assert done.returncode == 0, (arguments, done.stderr)
            said[f"device-agent {' '.join(arguments)}"] = done.stdout + done.stderr
        for verb in ("report", "explain", "plan"):
            args: dict[str, Any] = {"explain": {"app": "web"}, "plan": {"target": document.read_text()}}.get(verb, {})
            request = {"schema": 1, "id": f"q-{verb}", "args": args}
            assert listener.may_publish(f"{root}/down/device/{device.id}/command/{verb}", json.dumps(request).encode())
            eventually(
                lambda verb=verb: any(topic.endswith("/response") and verb.encode() in body for topic, body in told),
                WAIT_S,
                f"{verb} is answered",
            )
        said["cloud-sim publish"] = published(device, broker, tmp_path, good)
        assert device.stop() == 0
        heard = list(told)

    said["log"] = device.log()
    said |= {f"{number} {topic}": body for number, (topic, body) in enumerate(heard)}
    assert any(topic.endswith("/state") for topic, _ in heard)
    assert "with 2 files" in device.log()
    assert canary.heard_in(json.dumps(good))
    assert b"replace" in said[f"device-agent plan {document}"]
    assert {where: found for where, text in said.items() if (found := canary.heard_in(text))} == {}
    keys = [file for file in broker.folder.rglob("*") if file.is_file() and b"PRIVATE" in file.read_bytes()]
    for line in (file.read_text().splitlines()[1] for file in keys):
        assert [where for where, text in said.items() if line in str(text)] == []


def signed(broker: Secured, apps: dict[str, Any]) -> bytes:
    body = {"schema": 1, "scope": {"fleet": broker.fleet}, "epoch": 1, "revision": 500, "apps": apps}
    return dsse.seal(json.dumps(body).encode(), read_signing_keys([broker.folder / "cloud" / "signing.key"]))


def published(device: Device, broker: Secured, tmp_path: Path, good: dict[str, Any]) -> bytes:
    """By the command, that shows what it changes."""
    (tmp_path / "good.json").write_text(json.dumps({"apps": {"web": good, "more": app(api=service())}}))
    database = str(tmp_path / "cloud.sqlite")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cloud_sim",
            "publish",
            str(tmp_path / "good.json"),
            "--no-wait",
            "--database",
            database,
        ],
        env={**device.environment(), **broker.cloud_settings()},
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert Path(database).stat().st_mode & 0o077 == 0
    return done.stdout + done.stderr


def test_nobody_else_must_be_able_to_read_what_is_kept(device: Device, canary: Canary) -> None:
    old = os.umask(0)
    try:
        device.start()
        device.cloud.publish({"web": whole_app(canary)})
        device.until(lambda: device.runs("web/api"), CONVERGE_S, "it runs")
        assert device.cli("backup", str(device.folder / "backup")).returncode == 0
        assert device.stop() == 0
    finally:
        os.umask(old)
    kept = [*device.data.rglob("*"), device.folder / "backup"]
    assert any(file.name == "database.sqlite" for file in kept)
    open_files = [str(file) for file in kept if file.is_file() and file.stat().st_mode & 0o077]
    assert open_files == []
    labels = json.dumps([found["Config"]["Labels"] for found in device.containers().values()])
    assert canary.heard_in(labels) == []

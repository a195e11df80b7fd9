"""What people type on the device: answered by the running agent and, where none runs, from its database."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from device_agent import __version__
from device_agent.adapters.clock import SystemClock
from device_agent.adapters.store import open_store
from tests.broker import Mosquitto
from tests.e2e.device import READY_S, Device, app, service
from tests.e2e.host import Host
from tests.eventually import eventually


@pytest.fixture(scope="module")
def shared(broker: Mosquitto, host: Host) -> Iterator[Device]:
    """For those that change nothing."""
    with Device(broker, host) as device:
        device.start()
        device.publish({"web": app(api=service())}, release="one")
        yield device


def target(device: Device, revision: int, apps: dict[str, Any]) -> bytes:
    scope = {"fleet": device.fleet, "device": device.id}
    body = {"schema": 1, "scope": scope, "epoch": 1, "revision": revision, "release": f"r{revision}", "apps": apps}
    return json.dumps(body).encode()


def version_of(status: dict[str, Any], scope: str) -> int:
    return int(status["have"][scope]["revision"])


def test_a_target_must_be_planned_and_applied_from_a_file(device: Device) -> None:
    device.start()
    web = target(device, 1, {"web": app(api=service())})

    planned = device.cli("plan", "-", "--json", stdin=web)
    assert planned.returncode == 0, planned.stderr
    steps = [step["step"] for step in json.loads(planned.stdout)["apps"]["web"]]
    assert [step.split()[0] for step in steps] == ["create", "create", "start"]
    assert device.identities() == {}

    applied = device.cli("apply", "-", "--json", stdin=web)
    assert json.loads(applied.stdout) == {"verdict": "accepted", "scope": "device", "epoch": 1, "revision": 1}
    device.cloud.wait_for_ack(device.id, verdict="applied", app=None, scope="device", timeout=30)
    assert device.identities().keys() == {"web/api"}
    assert json.loads(device.cli("apply", "-", "--json", stdin=web).stdout)["verdict"] == "duplicate"
    assert device.cli("plan", "-", stdin=web).stdout.decode().strip() == "nothing to do"


def test_status_must_tell_what_runs(shared: Device) -> None:
    status = shared.status()

    assert (status["fleet"], status["device"]) == (shared.fleet, shared.id)
    assert (status["converged"], status["connected"], version_of(status, "fleet")) == (True, True, 1)
    assert status["host"]["memory_mib"] > 0
    api = status["apps"]["web"]["services"]["api"]
    assert (api["status"], f"/{api['container']}") == ("running", shared.container("web/api")["Name"])
    lines = shared.cli("status").stdout.decode().splitlines()
    assert "converged" in lines[0]
    assert "web/api" in lines[1]


def test_a_bad_target_from_a_file_must_be_refused_with_its_pointers(shared: Device) -> None:
    for verb in ("plan", "apply"):
        answer = shared.cli(verb, "-", stdin=target(shared, 1, {"web": app(api=service(build="."))}))
        assert answer.returncode == 1
        assert b"/apps/web/services/api/build" in answer.stderr
        assert b"unsupported" in answer.stderr
    assert shared.status()["have"]["device"] is None


def test_commands_must_be_answered_where_no_agent_runs(device: Device, tmp_path: Path) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    before = device.identities()
    assert device.stop() == 0

    status = device.status()
    assert (status["connected"], status["converged"], version_of(status, "fleet")) == (False, True, 1)
    assert status["apps"]["web"]["services"]["api"]["status"] == "running"
    backup = tmp_path / "backup.sqlite"
    assert device.cli("backup", str(backup)).returncode == 0
    assert backup.stat().st_mode & 0o777 == 0o600
    own = target(device, 1, {"log": app(sink=service())})
    planned = json.loads(device.cli("plan", "-", "--json", stdin=own).stdout)
    assert len(planned["apps"]["log"]) == 3
    applied = json.loads(device.cli("apply", "-", "--json", stdin=own).stdout)
    assert applied["verdict"] == "accepted"
    assert device.identities() == before

    # The backup has one target, the database now two.
    assert version_of(device.status(), "device") == 1
    assert device.cli("restore", str(backup)).returncode == 0
    assert device.status()["have"]["device"] is None
    # The floor has outlived the restore, and what it names is taken again.
    assert device.cli("apply", "-", stdin=target(device, 0, {})).returncode == 1
    assert device.cli("apply", "-", stdin=own).returncode == 0
    device.start()
    device.cloud.wait_for_ack(device.id, verdict="applied", app=None, scope="device", timeout=30)
    assert device.identities().keys() == {"web/api", "log/sink"}
    assert device.identities()["web/api"] == before["web/api"]


def test_a_backup_must_be_made_and_restored_while_the_agent_runs(device: Device, tmp_path: Path) -> None:
    backup = str(tmp_path / "backup.sqlite")
    device.start()
    device.publish({"web": app(api=service(1), db=service())})
    before = device.identities()
    assert device.cli("backup", backup).returncode == 0
    device.publish({"web": app(api=service(2), db=service())})

    assert device.cli("restore", backup).returncode == 0

    # What the backup knows is made true: the older release, and the neighbour that never changed.
    eventually(
        lambda: (found := device.runs("web/api")) and found["Config"]["Image"] == service(1)["image"],
        30,
        "the older release runs again",
    )
    assert device.runs("web/db")["Id"] == before["web/db"][0]
    assert version_of(device.status(), "fleet") == 1
    # The floor has not gone back: what the broker retains is accepted again when the agent comes back to it.
    assert device.snapshot().floors == {"fleet": (1, 2)}
    assert device.stop() == 0
    device.start()
    device.converge()
    assert device.runs("web/api")["Config"]["Image"] == service(2)["image"]
    assert device.identities()["web/db"] == before["web/db"]


def test_what_is_no_backup_must_not_be_restored(shared: Device, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"SQLite format 3\0" + b"\x17" * 5000)
    before = shared.identities()
    answer = shared.cli("restore", str(junk))
    assert answer.returncode == 1
    assert len(answer.stderr.splitlines()) == 1
    assert version_of(shared.status(), "fleet") == 1
    assert shared.identities() == before


def test_healthcheck_must_tell_a_running_agent_from_none(device: Device) -> None:
    assert device.cli("healthcheck").returncode == 1
    device.start()
    assert device.cli("healthcheck").returncode == 0


def test_a_command_at_the_moment_of_the_start_must_not_stop_the_agent(device: Device) -> None:
    # As a command does that finds no agent: it has the data folder to itself, for a moment.
    store = open_store(device.data, SystemClock())
    try:
        device.launch()
        pid = device.process.pid if device.process else 0
        device.until(
            lambda: any(str(device.data) in file.path for file in psutil.Process(pid).open_files()),
            READY_S,
            "the agent has come to the data folder",
        )
    finally:
        store.close()
    device.until(lambda: device.session > 0, READY_S, "the agent is online")


def test_explain_must_tell_the_chain_with_and_without_an_agent(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service())}, release="one")
    text = device.cli("explain", "api").stdout.decode()
    assert text.startswith("web/api: ")
    assert "(release one)" in text

    device.stop()
    told = json.loads(device.cli("explain", "web/api", "--json").stdout)
    assert told["wanted"]["release"] == "one"
    assert told["services"]["api"]["is"]["status"] == "running"
    unknown = device.cli("explain", "nothing")
    assert (unknown.returncode, unknown.stdout) == (1, b"")
    assert "web/api" in unknown.stderr.decode()


def test_version_and_config_must_need_no_agent(device: Device) -> None:
    assert device.cli("version").stdout.decode().strip() == __version__
    table = json.loads(device.cli("config", "--json").stdout)
    assert table["DEVICE_AGENT_FLEET"] == {"value": device.fleet, "source": "environment"}
    assert table["DEVICE_AGENT_TOPIC_ROOT"] == {"value": "fleet/v1", "source": "default"}
    assert not device.data.exists()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"FLEET": "No Such Fleet"}, "DEVICE_AGENT_FLEET"),
        ({"MQTT_URL": "http://broker"}, "MQTT_URL"),
        ({"MQTT_PORT": "1883"}, "DEVICE_AGENT_MQTT_PORT is not a setting"),
        ({"TRUSTED_KEYS": "/nonexistent"}, "TRUSTED_KEYS"),
        ({"REGISTRY_AUTH": "/nonexistent"}, "REGISTRY_AUTH"),
    ],
)
def test_a_bad_setting_must_stop_the_start_with_a_line_that_names_it(
    device: Device, settings: dict[str, str], named: str
) -> None:
    answer = device.cli("run", **settings)
    assert answer.returncode == 2
    (line,) = answer.stderr.decode().splitlines()
    assert named in line

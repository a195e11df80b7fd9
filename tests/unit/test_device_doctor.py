"""`device-agent doctor` on a machine where things are missing: each is told, with what to do, none hides another."""

import json
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from device_agent.adapters.clock import SystemClock
from device_agent.adapters.store import open_store
from device_agent.cli import doctor
from device_agent.cli.commands import app
from device_agent.cli.doctor import clock, examine
from device_agent.cli.finding import Finding, Health
from device_agent.cli.settings import PREFIX, load
from device_agent.model.host import Disk

Put = Callable[..., dict[str, Finding]]


@pytest.fixture
def findings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Put:
    """By check, with these settings; by default no agent runs, and there is neither an engine nor a broker."""
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    (tmp_path / "data").mkdir()

    def look(**values: object) -> dict[str, Finding]:
        settings = {
            "fleet": "plant7",
            "device_id": "d1",
            "mqtt_url": "mqtt://127.0.0.1:1",
            "data_dir": tmp_path / "data",
            "control_socket": tmp_path / "control.sock",
            "engine_url": f"unix://{tmp_path}/engine.sock",
            "disk_reserve": "0",
        }
        for name, value in (settings | values).items():
            monkeypatch.setenv(PREFIX + name.upper(), str(value))
        return {finding.check: finding for finding in examine(load())}

    return look


@pytest.fixture
def running(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """An agent runs and says this of itself."""

    def say(store: str = "ok", *, connected: bool = True) -> None:
        told = {"fleet": "plant7", "device": "d1", "connected": connected, "store": {"status": store}}
        monkeypatch.setattr(doctor, "ask", lambda *_: {"status": "ok", "result": told})

    return say


def statuses(found: dict[str, Finding]) -> dict[str, str]:
    return {check: finding.status for check, finding in found.items()}


def test_what_is_missing_is_told_with_what_to_do(findings: Put) -> None:
    found = findings()
    assert statuses(found) == {
        "agent": "warning",
        "database": "ok",
        "engine": "broken",
        "broker": "broken",
        "disk": "ok",
        "policy": "ok",
        "trusted keys": "ok",
        "registry credentials": "ok",
        "clock": "ok",
    }
    assert all(finding.mend for finding in found.values() if finding.status is not Health.OK)


def test_a_running_agent_is_believed(findings: Put, running: Callable[..., None]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"mqtt://127.0.0.1:{server.getsockname()[1]}"
        running()
        found = findings(mqtt_url=url)
        assert (found["agent"].status, found["broker"].status) == ("ok", "ok")
        running("full", connected=False)
        found = findings(mqtt_url=url)
        assert (found["database"].status, found["broker"].status) == ("broken", "broken")
        running("recovered from the sidecar")
        assert findings()["database"].status == "warning"


def test_a_password_that_travels_unencrypted_is_warned_of(findings: Put) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = findings(mqtt_url=f"mqtt://127.0.0.1:{server.getsockname()[1]}", mqtt_username="d1")
    assert found["broker"].status == "warning"


def test_a_password_file_that_is_not_there_is_told(findings: Put, tmp_path: Path) -> None:
    found = findings(mqtt_username="d1", mqtt_password_file=tmp_path / "none")
    assert "none" in found["broker"].seen


def test_a_data_folder_that_another_process_has_is_told(findings: Put, tmp_path: Path) -> None:
    store = open_store(tmp_path / "data", SystemClock())
    try:
        assert findings()["database"].status == "broken"
    finally:
        store.close()


def test_files_that_cannot_be_used_are_told(findings: Put, tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.write_text("nothing = [that, is")
    found = findings(policy_file=bad, trusted_keys=tmp_path / "keys", registry_auth=bad)
    for check in ("policy", "trusted keys", "registry credentials"):
        assert (found[check].status, found[check].seen[:13]) == ("broken", "DEVICE_AGENT_"), found[check]
    assert found["database"].status == "ok"


def test_a_disk_below_the_reserve_is_told(findings: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.PsutilHost, "disk", lambda _: Disk(total=2**30, free=2**20))
    assert findings(disk_reserve="10%")["disk"].status == "broken"
    monkeypatch.setattr(doctor.PsutilHost, "disk", lambda _: None)
    assert findings()["disk"].status == "warning"


def test_a_clock_behind_what_was_written_is_told() -> None:
    written = datetime(2026, 11, 22, tzinfo=UTC)
    assert clock(written, written).status == "ok"
    assert clock(written - timedelta(minutes=30), written).status == "ok"
    assert clock(datetime(1970, 1, 1, tzinfo=UTC), written).status == "broken"


def test_the_command_ends_with_1_where_something_is_broken(findings: Put, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = findings()
    ended = CliRunner().invoke(app, ["doctor", "--json"])
    assert ended.exit_code == 1
    assert [each["check"] for each in json.loads(ended.stdout)] == list(expected)
    lines = CliRunner().invoke(app, ["doctor"]).stdout.splitlines()
    assert any(line.startswith("broken   engine: ") for line in lines)
    monkeypatch.setattr(
        "device_agent.cli.doctor.examine", lambda _: [Finding("clock", Health.WARNING, "late", "set it")]
    )
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0

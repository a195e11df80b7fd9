"""Signed targets and commands, from `cloud-sim keys generate` to a running container, with the real agent."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cloud_sim.cloud import Cloud
from cloud_sim.keys import generate, read_signing_keys
from tests.broker import Mosquitto, Peer
from tests.e2e.device import CONVERGE_S, Device, Stranger, app, service
from tests.eventually import eventually

WAIT_S = 20.0


@pytest.fixture
def keys(tmp_path: Path) -> Callable[[str], Path]:
    """A new signing key by its name; its public half is trusted from then on."""
    (tmp_path / "trusted").mkdir()

    def make(name: str) -> Path:
        file = tmp_path / f"{name}.key"
        public = generate(file)
        public.rename(tmp_path / "trusted" / public.name)
        return file

    return make


def cloud(device: Device, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`cloud-sim` as a process; within `publish` and `wait` it proves convergence by digest."""
    environment = {"CLOUD_SIM_FLEET": device.fleet, "CLOUD_SIM_DATABASE": str(device.folder / "cloud.sqlite")}
    return subprocess.run(
        [sys.executable, "-m", "cloud_sim", *arguments, "--url", device.broker_url],
        env={**device.environment(), **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def document(folder: Path, version: int) -> str:
    file = folder / "target.json"
    file.write_text(json.dumps({"apps": {"web": app(api=service(version))}, "release": f"v{version}"}))
    return str(file)


def test_what_is_signed_must_be_taken_and_nothing_else_and_keys_must_rotate(
    device: Device, broker: Mosquitto, client: Stranger, keys: Callable[[str], Path], tmp_path: Path
) -> None:
    old = keys("old")
    device.settings["TRUSTED_KEYS"] = str(tmp_path / "trusted")
    device.start()

    done = cloud(device, "publish", document(tmp_path, 1), "--key", str(old))
    assert done.returncode == 0, done.stdout + done.stderr
    assert device.runs("web/api")
    before = device.identities()

    # Unsigned, and signed by a key that the device does not have yet.
    new = tmp_path / "new.key"
    generate(new)
    for arguments in ([], ["--key", str(new)]):
        refused = cloud(device, "publish", document(tmp_path, 2), *arguments)
        assert refused.returncode == 1
        assert "signature" in refused.stderr
    assert device.identities() == before

    # The new key joins the old one while the agent runs, then the old one goes.
    (tmp_path / "new.pem").rename(tmp_path / "trusted" / "new.pem")
    done = cloud(device, "publish", document(tmp_path, 2), "--key", str(old), "--key", str(new))
    assert done.returncode == 0, done.stdout + done.stderr
    assert device.container("web/api")["Config"]["Image"] == service(2)["image"]
    signed_by_both = client.retained(device.fleet_target)
    (tmp_path / "trusted" / "old.pem").unlink()
    assert cloud(device, "publish", document(tmp_path, 1), "--key", str(old)).returncode == 1
    assert cloud(device, "publish", document(tmp_path, 1), "--key", str(new)).returncode == 0
    # Nobody who waits needs a key.
    assert cloud(device, "wait", "--timeout", f"{CONVERGE_S}s").returncode == 0

    # Commands likewise; and one that the broker gives again is answered and not carried out.
    stop = ("stop", {"app": "web"})
    assert device.cloud.command(*stop, device=device.id).code == "signature"
    topic = f"fleet/v1/{device.fleet}/down/device/{device.id}/command/stop"
    with (
        Peer(broker) as peer,
        Cloud(device.broker_url, device.fleet, database=":memory:", keys=read_signing_keys([new])) as signer,
    ):
        peer.subscribe(topic)
        peer.subscribe(device.up("response"))
        assert signer.command(*stop, device=device.id).status == "ok"
        given = eventually(lambda: peer.on(topic), WAIT_S, "the command")[-1].payload
        device.until(lambda: not device.runs("web/api"), CONVERGE_S, "it is stopped")
        assert signer.command("start", {"app": "web"}, device=device.id).status == "ok"
        device.until(lambda: device.runs("web/api"), CONVERGE_S, "it is started")
        client.publish(topic, given, retain=False)
        answer = eventually(lambda: peer.on(device.up("response")), WAIT_S, "an answer")[0].payload
        assert json.loads(answer)["status"] == "ok"
    assert device.runs("web/api")

    # What was good once is old now, wherever it comes from.
    client.publish(device.fleet_target, json.dumps(signed_by_both).encode())
    device.until(lambda: device.acks(code="stale"), WAIT_S, "the replayed target is refused")
    applied = device.cli("apply", "-", stdin=json.dumps(signed_by_both).encode())
    assert applied.returncode == 1
    assert b"stale" in applied.stderr
    assert device.container("web/api")["Config"]["Image"] == service(1)["image"]


def test_a_signed_file_must_be_applied_without_a_broker(
    device: Device, client: Stranger, keys: Callable[[str], Path], tmp_path: Path
) -> None:
    """Carried there on a stick: as the broker retains it, compressed or not."""
    done = cloud(device, "publish", document(tmp_path, 1), "--no-wait", "--key", str(keys("only")))
    assert done.returncode == 0, done.stderr
    envelope = json.dumps(client.retained(device.fleet_target)).encode()
    device.settings |= {"TRUSTED_KEYS": str(tmp_path / "trusted"), "MQTT_URL": "mqtt://127.0.0.1:9"}
    device.start_offline()
    bare = json.dumps({"schema": 1, "scope": {"fleet": device.fleet}, "epoch": 9, "revision": 9, "apps": {}}).encode()
    refused = device.cli("apply", "-", stdin=bare)
    assert refused.returncode == 1
    assert b"signature" in refused.stderr
    accepted = device.cli("apply", "-", stdin=envelope)
    assert accepted.returncode == 0, accepted.stderr
    device.until(lambda: device.runs("web/api"), CONVERGE_S, "it runs")

"""Releases that wait on a real engine, and services that an operator keeps stopped."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.e2e.device import Device, app, service
from tests.eventually import eventually

LOCK = "/run/device-agent/update.lock"


def inside(device: Device, key: str, *command: str) -> None:
    # The one that runs: its replacement may have been created already.
    container = device.runs(key)
    assert container
    subprocess.run(["docker", "exec", container["Id"], *command], check=True, capture_output=True, timeout=30)


def images(device: Device) -> dict[str, str]:
    return {key: found["Config"]["Image"][-2:] for key, found in device.containers().items()}


def phase(device: Device) -> tuple[str, str]:
    told = device.status()["apps"]["web"]
    return told["phase"], (told.get("reason") or {}).get("code", "")


def answer(device: Device, *command: str) -> dict[str, Any]:
    done = device.cli(*command, "--json")
    assert done.returncode == 0, done.stderr
    body: dict[str, Any] = json.loads(done.stdout)
    return body


def running(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service(), db=service())}, release="one")


def test_a_release_must_wait_for_an_update_lock_and_go_on_when_an_operator_unlocks_it(device: Device) -> None:
    running(device)
    inside(device, "web/api", "sh", "-c", f"mkdir -p {LOCK.rpartition('/')[0]}; touch {LOCK}")
    before = device.identities()

    device.cloud.publish({"web": app(api=service(2), db=service(2))}, release="two")
    ack = device.cloud.wait_for_ack(device.id, verdict="held", app="web", timeout=30)

    assert ack.body["cause"] == "lock"
    assert LOCK in ack.body["message"]
    eventually(lambda: phase(device) == ("held", "lock"), 10, "it says that it waits")
    eventually(lambda: device.identities() == before, 10, "what ran runs, and nothing else is there")
    device.kill()
    device.start()
    eventually(lambda: phase(device) == ("held", "lock"), 20, "it asks again after a restart")
    assert device.identities() == before
    assert answer(device, "unlock", "web") == {"app": "web", "cause": "lock"}
    device.converge()
    assert images(device) == {"web/api": ":2", "web/db": ":2"}


def test_a_lock_that_goes_must_let_the_release_go_by_itself(device: Device) -> None:
    running(device)
    path = "/tmp/busy"
    labelled = service(labels={"device-agent.update-lock": path})
    device.publish({"web": app(api=labelled, db=service())}, release="labelled")
    inside(device, "web/api", "touch", path)
    device.cloud.publish({"web": app(api=service(2, labels=labelled["labels"]), db=service())}, release="two")
    device.cloud.wait_for_ack(device.id, verdict="held", app="web", timeout=30)
    inside(device, "web/api", "rm", path)
    device.converge(60)
    assert images(device)["web/api"] == ":2"


def test_a_release_must_wait_for_its_window_and_begin_with_it(device: Device) -> None:
    running(device)
    before = device.identities()
    opens = (datetime.now(UTC) + timedelta(seconds=75)).replace(second=0, microsecond=0)
    window = {"cron": f"{opens.minute} {opens.hour} * * *", "duration": "10m"}
    contents = {"web": {**app(api=service(2), db=service()), "x-maintenance": [window]}}

    published = device.cloud.publish(contents, release="two")
    ack = device.cloud.wait_for_ack(device.id, verdict="held", app="web", timeout=10)

    assert (ack.body["cause"], ack.body["next_try_at"]) == ("window", f"{opens:%Y-%m-%dT%H:%M:%S}.000Z")
    assert device.identities() == before
    mine = {"verdict": "applied", "app": None, "revision": published.revision}
    (done,) = eventually(lambda: device.acks(**mine), 120, "it is applied")
    assert datetime.fromisoformat(done["at"]) >= opens
    assert images(device) == {"web/api": ":2", "web/db": ":1"}


def test_a_device_that_is_held_must_keep_what_runs_and_repair_it(device: Device) -> None:
    running(device)
    device.cloud.publish({}, device=device.id, more={"hold": True})
    device.cloud.wait_for_ack(device.id, verdict="applied", app=None, scope="device", timeout=20)
    before = device.identities()

    device.cloud.publish({"web": app(api=service(2), db=service()), "more": app(one=service())})
    device.cloud.wait_for_ack(device.id, verdict="held", app="more", cause="hold", timeout=20)
    subprocess.run(["docker", "rm", "-f", before["web/api"][0]], check=True, capture_output=True, timeout=30)
    eventually(lambda: device.runs("web/api"), 20, "it is repaired")

    assert device.identities()["web/db"] == before["web/db"]
    eventually(lambda: images(device) == {"web/api": ":1", "web/db": ":1"}, 20, "as it was")
    device.cloud.publish({}, device=device.id)
    device.converge()
    assert images(device) == {"web/api": ":2", "web/db": ":1", "more/one": ":1"}


def test_what_an_operator_stops_must_stay_stopped_across_kill_9_until_it_is_started(device: Device) -> None:
    running(device)
    before = device.identities()

    assert answer(device, "stop", "web/api") == {"app": "web", "services": ["api"]}
    eventually(lambda: not device.runs("web/api"), 20, "it is stopped")
    device.kill()
    device.start()

    eventually(lambda: device.status()["converged"], 20, "it has converged")
    assert device.status()["apps"]["web"]["services"]["api"]["status"] == "stopped"
    assert not device.runs("web/api")
    assert device.identities()["web/db"] == before["web/db"]
    answer(device, "start", "web/api")
    eventually(lambda: device.runs("web/api"), 20, "it runs")
    assert device.container("web/api")["Id"] == before["web/api"][0]
    answer(device, "restart", "web/db")
    eventually(lambda: device.identities()["web/db"] != before["web/db"], 20, "it was restarted")
    assert device.container("web/db")["Id"] == before["web/db"][0]
    eventually(lambda: device.status()["converged"], 20, "it has converged")
    assert device.events("drift") == []


def test_a_service_that_the_target_keeps_stopped_must_be_there_and_not_run(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service(**{"x-state": "stopped"}), db=service())})
    assert device.container("web/api")["State"]["Status"] == "created"
    refused = device.cli("start", "web/api")
    assert refused.returncode == 1
    assert b"kept_stopped" in refused.stderr
    device.publish({"web": app(api=service(), db=service())})
    assert device.runs("web/api")

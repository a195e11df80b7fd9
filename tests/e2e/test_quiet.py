"""In a steady state nothing is written, nothing is said, and nobody can connect."""

import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.broker import Mosquitto, Peer
from tests.e2e.device import Device, app, service
from tests.eventually import eventually

QUIET_S = 20.0


def written(pid: int) -> int:
    return int(psutil.Process(pid).io_counters().write_bytes)


@pytest.fixture
def memory() -> Iterator[Path]:
    """A folder on a tmpfs: the place of the control socket and the heartbeat, as in the Compose file."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


def test_an_idle_agent_must_write_nothing_and_say_nothing(device: Device, broker: Mosquitto, memory: Path) -> None:
    device.settings["CONTROL_SOCKET"] = str(memory / "control.sock")
    device.start()
    device.publish({"web": app(api=service(), db=service(healthcheck={"test": "true", "interval": "1s"}))})
    assert device.process
    pid = device.process.pid
    eventually(lambda: device.status()["outbox"]["rows"] == 0, 10, "the outbox is empty")
    eventually(lambda: device.status()["apps"]["web"]["services"]["db"]["status"] == "healthy", 20, "db is healthy")
    with Peer(broker) as peer:
        peer.subscribe(f"fleet/v1/{device.fleet}/#")
        # The state tells of it at most 2 s later; and the log goes to no disk in the field.
        states = [device.up("state"), device.up("session")]
        eventually(lambda: all(peer.on(topic) for topic in states), 10, "what is retained")
        threading.Event().wait(3)
        log, heard, before = len(device.log()), len(peer.heard), written(pid)

        threading.Event().wait(QUIET_S)

        assert [message.topic for message in peer.heard[heard:]] == []
        assert device.log()[log:] == ""
        assert written(pid) - before == 0
    assert device.status()["converged"] is True


def test_the_agent_must_have_no_listening_port(device: Device) -> None:
    device.start()
    assert device.process
    connections = psutil.Process(device.process.pid).net_connections("inet")
    assert [each for each in connections if each.status == psutil.CONN_LISTEN] == []
    assert [each.raddr.port for each in connections] == [int(device.broker_url.rpartition(":")[2])]
    assert (device.folder / "control.sock").stat().st_mode & 0o777 == 0o600

"""TLS, passwords and the ACLs that the repository ships, from the settings to the running container."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cloud_sim.cloud import Cloud
from tests.broker import Mosquitto, mosquitto, password_line
from tests.certificates import Authority
from tests.e2e.device import Device, app, service
from tests.e2e.host import Host
from tests.eventually import eventually

SHIPPED = Path(__file__).parents[2] / "deploy" / "mosquitto"
DEVICE_ID = "pump-1"


@dataclass(frozen=True, slots=True)
class Secured:
    broker: Mosquitto
    ca_file: Path

    @property
    def url(self) -> str:
        return f"mqtts://localhost:{self.broker.tls_port}"

    def client(self, program: str, user: str, *arguments: str) -> tuple[int, bytes]:
        """One of Mosquitto's own clients, with a user's password, in the broker's container."""
        login = [
            "-h",
            "localhost",
            "-p",
            "8883",
            "--cafile",
            "/mosquitto/config/ca.crt",
            "-u",
            user,
            "-P",
            password(user),
        ]
        done = self.broker.container.get_wrapped_container().exec_run([program, "-V", "mqttv5", *login, *arguments])
        return done.exit_code, done.output


def password(user: str) -> str:
    return f"the password of {user}"


@pytest.fixture
def secured(host: Host, tmp_path: Path) -> Iterator[Secured]:
    authority = Authority()
    certificate, key = authority.issue("localhost", "127.0.0.1")
    files = {
        "acl.conf": (SHIPPED / "acl.conf").read_bytes(),
        "passwords": b"".join(password_line(user, password(user)) for user in ("cloud", DEVICE_ID, "pump-2")),
        "ca.crt": authority.pem,
        "server.crt": certificate,
        "server.key": key,
    }
    ca_file = tmp_path / "ca.crt"
    ca_file.write_bytes(authority.pem)
    with mosquitto((SHIPPED / "secure.conf").read_text(encoding="utf-8"), files=files) as broker:
        yield Secured(broker, ca_file)


def secret(folder: Path, user: str) -> Path:
    file = folder / f"password-{user}"
    file.write_text(password(user) + "\n", encoding="utf-8")
    return file


@pytest.fixture
def device(secured: Secured, host: Host, tmp_path: Path) -> Iterator[Device]:
    device = Device(secured.url, host, id_=DEVICE_ID)
    device.cloud.close()
    device.cloud = Cloud(
        secured.url,
        device.fleet,
        database=":memory:",
        username="cloud",
        password_file=secret(tmp_path, "cloud"),
        ca_file=secured.ca_file,
    )
    device.settings |= {
        "MQTT_CA_FILE": str(secured.ca_file),
        "MQTT_USERNAME": DEVICE_ID,
        "MQTT_PASSWORD_FILE": str(secret(tmp_path, DEVICE_ID)),
    }
    with device:
        yield device


def test_a_device_with_tls_and_a_password_must_be_managed_as_any_other(device: Device) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    assert device.container("web/api")["State"]["Running"]
    assert device.stop() == 0
    assert password(DEVICE_ID) not in device.log()


@pytest.mark.parametrize("user", [DEVICE_ID, "pump-2"])
def test_no_device_must_be_able_to_publish_a_target(device: Device, secured: Secured, user: str) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    for topic in (device.fleet_target, device.own_target):
        secured.client("mosquitto_pub", user, "-q", "1", "-r", "-t", topic, "-n")
    _, said = secured.client("mosquitto_sub", "cloud", "-t", device.fleet_target, "-C", "1", "-W", "2")
    assert b'"revision":1' in said
    assert device.events("target_cleared") == []


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"MQTT_CA_FILE": ""}, "certificate"),
        ({"MQTT_USERNAME": "pump-2"}, "not authori"),
    ],
    ids=["unknown-authority", "wrong-password"],
)
def test_a_broker_that_cannot_be_trusted_or_does_not_trust_must_be_told(
    device: Device, settings: dict[str, str], why: str
) -> None:
    device.start_offline(**settings)
    device.until(lambda: why in device.log().lower(), 20, f"the log says {why}")
    assert device.status()["connected"] is False
    assert device.session == 0
    assert eventually(lambda: device.stop() == 0, 1, "it ends cleanly")

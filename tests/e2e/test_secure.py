"""The secured broker that `cloud-sim provision` makes: certificates, passwords, access lists, renewals."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_sim.cloud import Cloud
from cloud_sim.keys import read_signing_keys
from tests.e2e.device import CONVERGE_S, Device, app, service
from tests.e2e.host import Host
from tests.eventually import eventually
from tests.secured import Intruder, Secured, secured

ONE, TWO, BY_PASSWORD = "pump-1", "pump-2", "pump-3"
PASSWORD = "correct horse battery staple"
TOLD_S = 20.0


@pytest.fixture(scope="module")
def broker(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("secured") / "plant"
    with secured(folder, f"{host.mark}-secure", ONE, TWO, passwords={BY_PASSWORD: PASSWORD}) as broker:
        yield broker


def cloud_of(broker: Secured, *, signs: bool = True) -> Cloud:
    settings = broker.cloud_settings()
    return Cloud(
        broker.url,
        broker.fleet,
        database=":memory:",
        ca_file=Path(settings["CLOUD_SIM_MQTT_CA_FILE"]),
        cert_file=Path(settings["CLOUD_SIM_MQTT_CERT_FILE"]),
        key_file=Path(settings["CLOUD_SIM_MQTT_KEY_FILE"]),
        keys=read_signing_keys([Path(settings["CLOUD_SIM_SIGNING_KEY"])] if signs else []),
    )


@pytest.fixture
def device(broker: Secured, host: Host) -> Iterator[Device]:
    """A new one, with a certificate, and keys to trust: nothing but what is in its folder."""
    device = Device(broker.url, host, fleet=broker.fleet)
    broker.provision(device.id)
    device.cloud.close()
    device.cloud = cloud_of(broker)
    device.settings |= broker.settings(device.id)
    with device:
        yield device


def test_a_device_with_a_certificate_must_be_managed_as_any_other(device: Device) -> None:
    device.start()
    published = device.publish({"web": app(api=service())})
    assert device.container("web/api")["State"]["Running"]
    assert device.acks(verdict="accepted", revision=published.revision)
    assert device.stop() == 0


def test_the_cloud_must_publish_with_what_its_folder_says(device: Device, broker: Secured, tmp_path: Path) -> None:
    device.start()
    target = tmp_path / "target.json"
    target.write_text(json.dumps({"apps": {"web": app(api=service(2))}}))
    done = subprocess.run(
        [sys.executable, "-m", "cloud_sim", "publish", str(target), "--database", str(tmp_path / "db")],
        env={**device.environment(), **broker.cloud_settings()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert device.container("web/api")["Config"]["Image"] == service(2)["image"]


def test_a_device_with_a_password_must_be_managed_as_any_other(broker: Secured, host: Host, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text(PASSWORD + "\n", encoding="utf-8")
    device = Device(broker.url, host, fleet=broker.fleet, id_=BY_PASSWORD)
    device.cloud.close()
    device.cloud = cloud_of(broker)
    device.settings |= {
        "MQTT_URL": f"mqtts://localhost:{broker.password_port}",
        "MQTT_CA_FILE": str(broker.folder / "ca.crt"),
        "MQTT_USERNAME": BY_PASSWORD,
        "MQTT_PASSWORD_FILE": str(secret),
    }
    with device:
        device.start(LOG_LEVEL="debug")
        device.publish({"web": app(api=service())}, device=BY_PASSWORD)
        assert PASSWORD not in device.log()
        assert "unencrypted" not in device.log()


@pytest.mark.parametrize("by", [ONE, BY_PASSWORD])
def test_a_device_must_speak_for_itself_alone(broker: Secured, by: str) -> None:
    root = f"fleet/v1/{broker.fleet}"
    with Intruder(broker, by, password=PASSWORD if by == BY_PASSWORD else None) as intruder:
        for kind in ("session", "state", "ack", "event", "progress", "response", "log/web/api"):
            assert intruder.may_publish(f"{root}/up/{by}/{kind}")
            assert not intruder.may_publish(f"{root}/up/{TWO}/{kind}")
        for topic in (
            f"{root}/down/target",
            f"{root}/down/device/{by}/target",
            f"{root}/down/device/{TWO}/target",
            f"{root}/down/command/restart",
            f"{root}/down/device/{by}/command/restart",
            f"fleet/v1/other/up/{TWO}/state",
            "fleet/v2",
            "$SYS/broker/uptime",
        ):
            assert not intruder.may_publish(topic), topic


def test_a_device_must_not_read_what_is_for_another(broker: Secured) -> None:
    root = f"fleet/v1/{broker.fleet}"
    private = [
        f"{root}/down/device/{TWO}/target",
        f"{root}/down/device/{TWO}/command/logs",
        f"{root}/up/{TWO}/state",
        f"{root}/up/{ONE}/state",
        f"{root}/reply/somebody",
    ]
    public = [f"{root}/down/command/report", f"{root}/down/device/{ONE}/command/report"]
    last = f"{root}/down/device/{ONE}/target"
    with (
        Intruder(broker, ONE) as intruder,
        # The second device's own session, taken over by its client id: nothing of it may come along.
        Intruder(broker, ONE, client_id=f"{broker.fleet}.{TWO}") as thief,
        Intruder(broker, TWO) as rightful,
        Intruder(broker, "cloud") as cloud,
    ):
        for each in (intruder, thief):
            for topic in ("#", f"{root}/down/device/{TWO}/target", f"{root}/up/#", "$SYS/#"):
                each.subscribe(topic)
        rightful.subscribe(f"{root}/down/device/{TWO}/target")
        for topic in private[:2]:
            assert cloud.may_publish(topic)
        assert rightful.may_publish(private[2])
        for topic in (*public, last):
            assert cloud.may_publish(topic)
        for each in (intruder, thief):
            eventually_heard(each, last)
            assert each.heard.keys() - {f"{root}/down/target"} == {*public, last}
        eventually_heard(rightful, private[0])


def eventually_heard(intruder: Intruder, topic: str) -> None:
    eventually(lambda: topic in intruder.heard, TOLD_S, f"{topic} has arrived")


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"MQTT_CA_FILE": ""}, "certificate verify failed"),
        ({"MQTT_URL": "mqtts://{address}"}, "ip address mismatch"),
        ({"MQTT_CERT_FILE": "", "MQTT_KEY_FILE": ""}, "the broker asks for a client certificate"),
        ({"MQTT_URL": "mqtt://{plain}"}, "closed the connection"),
    ],
    ids=["unknown-authority", "another-name", "no-certificate", "no-tls"],
)
def test_a_broker_that_cannot_be_trusted_or_does_not_trust_must_be_told(
    device: Device, broker: Secured, settings: dict[str, str], why: str
) -> None:
    ports = {"address": f"127.0.0.2:{broker.port}", "plain": f"localhost:{broker.port}"}
    if settings.get("MQTT_URL", "").startswith("mqtt://"):
        settings |= {"MQTT_CA_FILE": "", "MQTT_CERT_FILE": "", "MQTT_KEY_FILE": ""}
    device.start_offline(**{name: value.format(**ports) for name, value in settings.items()})
    device.until(lambda: why in device.log().lower(), TOLD_S, f"the log says {why}")
    assert device.status()["connected"] is False
    assert device.session == 0
    assert device.stop() == 0


def test_a_password_that_travels_unencrypted_must_be_warned_of(device: Device, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("secret")
    device.start_offline(
        MQTT_URL="mqtt://127.0.0.1:9",
        MQTT_USERNAME=device.id,
        MQTT_PASSWORD_FILE=str(tmp_path / "password"),
        **dict.fromkeys(("MQTT_CA_FILE", "MQTT_CERT_FILE", "MQTT_KEY_FILE"), ""),
    )
    device.until(lambda: "the password travels unencrypted" in device.log(), TOLD_S, "it is warned of")


def test_commands_must_pass_the_access_lists_and_be_signed(device: Device, broker: Secured) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    before = device.identities()
    with cloud_of(broker, signs=False) as other:
        report = other.command("report", device=device.id)
        assert report.result["apps"]["web"]["services"]["api"]["status"] == "running"
        assert other.command("restart", {"app": "web"}, device=device.id).code == "signature"
    assert device.identities() == before
    assert device.cloud.command("restart", {"app": "web"}, device=device.id).result["services"] == ["api"]
    device.until(lambda: device.identities() != before, CONVERGE_S, "it was restarted")


def test_an_expired_certificate_must_be_told_and_renewed_without_a_restart(device: Device, broker: Secured) -> None:
    broker.issue(device.id, days_ago=20, days=10)
    device.start_offline()
    device.until(lambda: "certificate has expired" in device.log(), TOLD_S, "the log says what is wrong")
    assert device.session == 0
    broker.provision(renew=True)
    device.until(lambda: device.session, 60, "it connects with the new certificate")
    device.publish({"web": app(api=service())})


def test_the_brokers_certificate_must_be_renewed_without_a_restart(device: Device, broker: Secured) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    before, session = broker.serial(), device.session
    broker.provision(renew=True)
    broker.reload()
    device.until(lambda: broker.serial() != before, TOLD_S, "the broker shows its new certificate")
    # Whoever is connected stays so, and whoever connects now trusts it as before.
    assert device.session == session
    assert device.stop() == 0
    device.start()
    device.converge(CONVERGE_S)


def test_a_withdrawn_device_must_be_kept_out_whatever_its_certificate_says(broker: Secured) -> None:
    root = f"fleet/v1/{broker.fleet}"
    broker.provision("stolen")
    access = broker.folder / "broker" / "acl.conf"
    kept = access.read_text(encoding="utf-8")
    with Intruder(broker, "stolen") as stolen, Intruder(broker, "cloud") as cloud:
        assert stolen.may_publish(f"{root}/up/stolen/state")
        try:
            # As docs/security.md says.
            access.write_text(kept + "\nuser stolen\ntopic deny #\n", encoding="utf-8")
            broker.reload()
            eventually(lambda: not stolen.may_publish(f"{root}/up/stolen/state"), TOLD_S, "it may say nothing more")
            stolen.subscribe(f"{root}/down/device/stolen/target")
            assert cloud.may_publish(f"{root}/down/device/stolen/target")
            with Intruder(broker, TWO) as other:
                other.subscribe(f"{root}/down/device/{TWO}/target")
                assert cloud.may_publish(f"{root}/down/device/{TWO}/target")
                eventually_heard(other, f"{root}/down/device/{TWO}/target")
            assert stolen.heard == {}
        finally:
            access.write_text(kept, encoding="utf-8")
            broker.reload()

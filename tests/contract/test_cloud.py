"""The cloud against a real Mosquitto, with devices that are plain MQTT clients."""

import gc
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from typer.testing import CliRunner

from cloud_sim.cli.commands import app
from cloud_sim.clock import monotonic
from cloud_sim.cloud import Cloud, NotConverged
from cloud_sim.connection import Denied, Unreachable
from cloud_sim.roster import LOST_AFTER_S
from device_agent.core.scopes import effective_digest
from device_agent.model.canonical import digest
from device_agent.model.errors import Refused
from device_agent.model.report import Ack, Have
from device_agent.model.target import Version
from tests.broker import Mosquitto, Peer, mosquitto, password_line
from tests.certificates import Authority
from tests.cloud_device import PlainDevice
from tests.eventually import eventually

pytestmark = pytest.mark.broker

WAIT_S = 15.0
APPS = {"web": {"services": {"api": {"image": "api:1"}}}}
CHANGED = {"web": {"services": {"api": {"image": "api:2"}}}}
FLEET_TOPIC = "fleet/v1/plant7/down/target"


@pytest.fixture(scope="module")
def shared() -> Iterator[Mosquitto]:
    with mosquitto() as broker:
        yield broker


@pytest.fixture
def broker(shared: Mosquitto) -> Iterator[Mosquitto]:
    """Shared, and with nothing retained in it."""
    yield shared
    with Peer(shared) as peer:
        peer.subscribe("fleet/#")
        peer.subscribe("end")
        peer.publish("end", b"")
        eventually(lambda: peer.on("end"), WAIT_S, "all that is retained was heard")
        for heard in peer.heard:
            if heard.retained:
                peer.publish(heard.topic, b"", retain=True)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "cloud.sqlite"


def retained(broker: Mosquitto, topic: str = FLEET_TOPIC) -> dict[str, Any]:
    with Peer(broker) as peer:
        peer.subscribe(topic)
        heard = eventually(lambda: peer.on(topic), WAIT_S, f"a retained message on {topic}")
        body: dict[str, Any] = json.loads(heard[0].payload)
        return body


def test_publishes_as_the_protocol_shows(broker: Mosquitto, database: Path) -> None:
    with Cloud(broker.url, "plant7", database=database) as cloud:
        published = cloud.publish(APPS, release="a")
        body = retained(broker)
    assert published.version == Version(1, 1)
    assert published.digest == digest(body)
    assert body.pop("issued_at").endswith("Z")
    assert body == {
        "schema": 1,
        "scope": {"fleet": "plant7", "device": None},
        "epoch": 1,
        "revision": 1,
        "release": "a",
        "expires_at": None,
        "apps": APPS,
    }


def test_a_device_target_has_its_own_topic_and_count(broker: Mosquitto, database: Path) -> None:
    with Cloud(broker.url, "plant7", database=database) as cloud:
        cloud.publish(APPS)
        cloud.publish(APPS)
        published = cloud.publish({"web": None}, device="d1")
        body = retained(broker, "fleet/v1/plant7/down/device/d1/target")
    assert published.version == Version(1, 1)
    assert body["scope"] == {"fleet": "plant7", "device": "d1"}


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_collects_and_proves_convergence(broker: Mosquitto, database: Path, version: Any) -> None:
    speaks = paho.MQTTv5 if version == "5" else paho.MQTTv311
    with (
        Cloud(broker.url, "plant7", database=database, mqtt_version=version) as cloud,
        PlainDevice(broker, "plant7", "d1", version=speaks) as device,
    ):
        published = cloud.publish(APPS, release="a")
        accepted = cloud.wait_for_ack("d1", verdict="accepted", revision=1, timeout=WAIT_S)
        cloud.wait_for_ack("d1", verdict="applied", app=None, after=accepted.id, timeout=WAIT_S)
        cloud.wait_converged(WAIT_S, ["d1"])
        device.event("target_cleared")
        event = cloud.wait_for(lambda: cloud.events("d1"), WAIT_S)[0]
        (known,) = cloud.devices()
    assert accepted.body["digest"] == published.digest
    assert event.body["event"] == "target_cleared"
    assert (known.id, known.releases, known.services) == ("d1", ("a",), (1, 1))
    assert known.state
    assert known.state.effective_digest == effective_digest(APPS)


def test_convergence_counts_the_devices_own_target(broker: Mosquitto, database: Path) -> None:
    with Cloud(broker.url, "plant7", database=database) as cloud, PlainDevice(broker, "plant7", "d1"):
        cloud.publish(APPS)
        cloud.publish({"web": {"x-extends": "fleet", "services": {"api": {"image": "api:3"}}}}, device="d1")
        cloud.wait_converged(WAIT_S, ["d1"])
        assert cloud.devices()[0].state.effective_digest == effective_digest(
            {"web": {"services": {"api": {"image": "api:3"}}}}
        )


def test_says_why_a_device_has_not_converged(broker: Mosquitto, database: Path) -> None:
    with (
        Cloud(broker.url, "plant7", database=database) as cloud,
        PlainDevice(broker, "plant7", "d1", answer="retry"),
    ):
        cloud.publish(APPS)
        cloud.wait_for_ack("d1", verdict="failed", timeout=WAIT_S)
        eventually(lambda: "no image" in str(cloud.shortfalls()["d1"]), WAIT_S, "the reason is known")
        with pytest.raises(NotConverged, match="d1: web/api: there is no image api:9"):
            cloud.wait_converged(0.1)
        with pytest.raises(NotConverged, match=r"d2: offline \(never heard of\)"):
            cloud.wait_converged(0.1, ["d2"])


def test_a_session_ends_cleanly_or_is_lost(broker: Mosquitto, database: Path) -> None:
    with Cloud(broker.url, "plant7", database=database) as cloud:

        def presences() -> dict[str, str]:
            return {device.id: cloud.presence(device) for device in cloud.devices()}

        stopped, lost = PlainDevice(broker, "plant7", "d1"), PlainDevice(broker, "plant7", "d2")
        assert cloud.wait_for(lambda: presences() == {"d1": "online", "d2": "online"}, WAIT_S)
        stopped.stop()
        lost.vanish()
        assert cloud.wait_for(lambda: presences() == {"d1": "offline", "d2": "lost?"}, WAIT_S), presences()
    with Cloud(broker.url, "plant7", database=database) as cloud:
        assert presences() == {"d1": "offline", "d2": "offline"}


@pytest.mark.parametrize("version", [paho.MQTTv5, paho.MQTTv311], ids=["mqtt5", "mqtt311"])
def test_a_device_is_called_offline_30_s_after_its_will(
    broker: Mosquitto, database: Path, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With MQTT 3.1.1 the Will comes at once: a device that only changes its network is back before."""
    passed = 0.0
    monkeypatch.setattr("cloud_sim.cloud.monotonic", lambda: monotonic() + passed)
    with Cloud(broker.url, "plant7", database=database) as cloud:

        def becomes(presence: str) -> bool:
            return cloud.wait_for(lambda: [cloud.presence(each) for each in cloud.devices()] == [presence], WAIT_S)

        first = PlainDevice(broker, "plant7", "d1", version=version)
        assert becomes("online")
        first.vanish()
        assert becomes("lost?")
        again = PlainDevice(broker, "plant7", "d1", session=2, version=version)
        assert becomes("online")
        passed = LOST_AFTER_S
        assert becomes("online")
        passed = 0.0
        again.vanish()
        assert becomes("lost?")
        passed = LOST_AFTER_S
        assert becomes("offline")


def test_a_device_that_numbers_its_sessions_anew_is_heard(broker: Mosquitto, database: Path) -> None:
    before = PlainDevice(broker, "plant7", "d1", session=1000)
    with Cloud(broker.url, "plant7", database=database) as cloud:
        cloud.publish(APPS)
        cloud.wait_converged(WAIT_S, ["d1"])
    before.vanish()
    with Cloud(broker.url, "plant7", database=database) as cloud:
        with pytest.raises(NotConverged, match="offline"):
            cloud.wait_converged(0.1, ["d1"])
        with PlainDevice(broker, "plant7", "d1", session=1):
            cloud.wait_converged(WAIT_S, ["d1"])
        assert cloud.wait_for(lambda: [cloud.presence(each) for each in cloud.devices()] == ["offline"], WAIT_S)


def test_acks_are_kept_once_and_gaps_are_seen(broker: Mosquitto, database: Path) -> None:
    with Cloud(broker.url, "plant7", database=database) as cloud, PlainDevice(broker, "plant7", "d1") as device:
        for seq in (4, 5, 5, 9):
            device.ack(Ack("accepted", "fleet", Version(1, 1)), seq=seq)
        cloud.wait_for_ack("d1", seq=9, timeout=WAIT_S)
        assert [entry.seq for entry in cloud.acks("d1")] == [4, 5, 9]
        assert cloud.gaps("d1") == ((6, 8),)


def test_what_the_broker_lost_is_published_again(database: Path) -> None:
    told: list[str] = []
    with mosquitto() as broker, Cloud(broker.url, "plant7", database=database, tell=told.append) as cloud:
        cloud.publish(APPS)
        cloud.publish(CHANGED)
        cloud.publish({}, device="d1")
        broker.kill()
        assert cloud.wait_for(lambda: cloud.down, WAIT_S)
        with pytest.raises(Unreachable):
            Cloud(broker.url, "plant7", database=":memory:", connect_timeout_s=0.2).open()
        broker.start()
        assert retained(broker)["revision"] == 2
        assert retained(broker, "fleet/v1/plant7/down/device/d1/target")["revision"] == 1
        assert len([text for text in told if "published again" in text]) == 2


def test_what_a_device_has_not_got_is_published_again(
    broker: Mosquitto, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloud_sim.reminding.PATIENCE_S", 0.5)
    monkeypatch.setattr("cloud_sim.republishing.LOOK_S", 0.1)
    told: list[str] = []
    with (
        Cloud(broker.url, "plant7", database=database, tell=told.append) as cloud,
        PlainDevice(broker, "plant7", "d1", answer="silence") as deaf,
        PlainDevice(broker, "plant7", "d2", answer="reject"),
        PlainDevice(broker, "plant7", "d3"),
    ):
        cloud.publish(APPS)
        cloud.wait_converged(WAIT_S, ["d3"])
        cloud.wait_for_ack("d2", verdict="rejected", timeout=WAIT_S)
        deaf.answer = "converge"
        cloud.wait_converged(WAIT_S, ["d1"])
        assert set(told) == {"d1 has not taken the fleet's target 1.1: published again"}


def test_a_device_that_the_broker_retains_nothing_of_is_asked(broker: Mosquitto, database: Path) -> None:
    # On a cluster another node retains it. RabbitMQ keeps it per node.
    with PlainDevice(broker, "plant7", "d1") as device:
        with Cloud(broker.url, "plant7", database=database) as cloud:
            cloud.publish(APPS)
            cloud.wait_converged(WAIT_S)
        with Peer(broker) as peer:
            for topic in (device.topics.session, device.topics.state):
                peer.publish(topic, b"", retain=True)
        state = {
            "have": {"fleet": {"epoch": 1, "revision": 1}},
            "converged": True,
            "apps": {},
            "effective_digest": None,
        }
        head = {"device": "d1", "session": 1, "at": "2026-11-22T10:00:00Z"}
        device.replies["report"] = {"status": "ok", "result": {**head, **state}}
        with Cloud(broker.url, "plant7", database=database) as cloud:
            assert cloud.wait_for(lambda: [cloud.presence(each) for each in cloud.devices()] == ["online"], WAIT_S)
            (known,) = cloud.devices()
        assert known.told["fleet"] == Have(Version(1, 1), None)
        assert device.asked == [("report", {})]


def test_what_the_broker_has_is_not_published_again(broker: Mosquitto, database: Path) -> None:
    with Cloud(broker.url, "plant7", database=database) as cloud:
        cloud.publish(APPS)
    with Peer(broker) as peer:
        peer.subscribe(FLEET_TOPIC)
        peer.subscribe("end")
        told: list[str] = []
        with Cloud(broker.url, "plant7", database=database, tell=told.append) as cloud:
            assert cloud.owns()
            # What this cloud may have published went to the broker before this.
            cloud.publish({}, device="d1")
        peer.publish("end", b"")
        eventually(lambda: peer.on("end"), WAIT_S, "all that came before was heard")
        assert len(peer.on(FLEET_TOPIC)) == 1
        assert told == []


def test_another_clouds_newer_target_stays_and_is_counted_on(broker: Mosquitto, tmp_path: Path) -> None:
    with Cloud(broker.url, "plant7", database=tmp_path / "one.sqlite") as one:
        one.publish(APPS)
        with Cloud(broker.url, "plant7", database=tmp_path / "two.sqlite") as two:
            # It knows of nothing that it published itself: as far as it can tell, its database was lost.
            assert two.publish(CHANGED).version == Version(2, 1)
    with Cloud(broker.url, "plant7", database=tmp_path / "one.sqlite") as one:
        assert one.last().version == Version(2, 1)
        assert not one.owns()
        assert one.publish(APPS).version == Version(2, 2)


def test_a_lost_database_and_broker_are_outnumbered_by_what_devices_have(broker: Mosquitto, tmp_path: Path) -> None:
    with PlainDevice(broker, "plant7", "d1") as device:
        with Cloud(broker.url, "plant7", database=tmp_path / "one.sqlite") as cloud:
            for _ in range(3):
                cloud.publish(APPS)
            cloud.wait_converged(WAIT_S)
        device.client.publish(FLEET_TOPIC, b"", qos=1, retain=True).wait_for_publish(WAIT_S)
        with Cloud(broker.url, "plant7", database=tmp_path / "two.sqlite") as cloud:
            assert cloud.next_version() == Version(2, 1)
            cloud.publish(CHANGED)
            cloud.wait_converged(WAIT_S)


def test_refuses_what_is_no_target_before_it_is_remembered(broker: Mosquitto, database: Path) -> None:
    with Cloud(broker.url, "plant7", database=database) as cloud:
        with pytest.raises(Refused, match="not supported"):
            cloud.publish(APPS, more={"unknown": 1})
        assert cloud.last() is None


def test_a_wrong_password_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong\n")
    config = "allow_anonymous false\npassword_file /mosquitto/config/users\n"
    with mosquitto(config, files={"users": password_line("cloud", "right")}) as broker:
        login = {"username": "cloud", "password_file": tmp_path / "password", "database": ":memory:"}
        with pytest.raises(Denied, match="refused the connection"), Cloud(broker.url, "plant7", **login):
            pass
        (tmp_path / "password").write_text("right\n")
        with Cloud(broker.url, "plant7", **login) as cloud:
            cloud.publish(APPS)


def test_a_large_target_travels_compressed(broker: Mosquitto, database: Path) -> None:
    large = {"web": {"services": {"api": {"image": "api:1", "labels": {str(n): "x" * 50 for n in range(2000)}}}}}
    with Cloud(broker.url, "plant7", database=database) as cloud, PlainDevice(broker, "plant7", "d1"):
        cloud.publish(large)
        cloud.wait_converged(WAIT_S)
        assert cloud.last().apps == large
    with Peer(broker) as peer:
        peer.subscribe(FLEET_TOPIC)
        assert len(eventually(lambda: peer.on(FLEET_TOPIC), WAIT_S, "the target")[0].payload) < 20_000


# paho leaves a socket whose handshake failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_over_tls_with_a_client_certificate(tmp_path: Path) -> None:
    authority = Authority()
    files = {"ca.pem": authority.pem}
    files["server.pem"], files["server.key"] = authority.issue("localhost", "127.0.0.1")
    config = "allow_anonymous true\nlistener 8883\nrequire_certificate true\n" + "".join(
        f"{key} /mosquitto/config/{name}\n"
        for key, name in (("cafile", "ca.pem"), ("certfile", "server.pem"), ("keyfile", "server.key"))
    )
    certificate, key = authority.issue("cloud")
    for name, content in (("ca.pem", authority.pem), ("cloud.pem", certificate), ("cloud.key", key)):
        (tmp_path / name).write_bytes(content)
    with mosquitto(config, files=files) as broker:
        url = f"mqtts://127.0.0.1:{broker.tls_port}"
        own = {"cert_file": tmp_path / "cloud.pem", "key_file": tmp_path / "cloud.key", "database": ":memory:"}
        with Cloud(url, "plant7", ca_file=tmp_path / "ca.pem", **own) as cloud:
            cloud.publish(APPS)
        untrusted = pytest.raises(Unreachable, match=r"its certificate is not trusted: self.signed")
        with untrusted, Cloud(url, "plant7", **own, connect_timeout_s=1.0):
            pass
        gc.collect()


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str


def environment(broker: Mosquitto, database: Path) -> dict[str, str]:
    return {"CLOUD_SIM_FLEET": "plant7", "CLOUD_SIM_DATABASE": str(database), "CLOUD_SIM_MQTT_URL": broker.url}


def run(broker: Mosquitto, database: Path, *arguments: str) -> Ended:
    """`cloud-sim` in this process, its output piped."""
    ended = CliRunner().invoke(app, list(arguments), env=environment(broker, database))
    if ended.exception and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return Ended(ended.exit_code, ended.stdout, ended.stderr)


def program(broker: Mosquitto, database: Path, *arguments: str) -> Ended:
    """`cloud-sim` as a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "cloud_sim", *arguments],
        env={**os.environ, **environment(broker, database)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def compose(tmp_path: Path) -> Path:
    (tmp_path / "shop").mkdir()
    file = tmp_path / "shop" / "compose.yaml"
    file.write_text("services:\n  api:\n    image: ${API:-api:1}\n    environment: {PASSWORD: hunter2}\n")
    return file


def test_publish_follows_a_compose_file_until_all_have_converged(
    broker: Mosquitto, database: Path, compose: Path
) -> None:
    with PlainDevice(broker, "plant7", "d1"), PlainDevice(broker, "plant7", "d2"):
        first = program(broker, database, "publish", str(compose), "--release", "a", "--timeout", "20s")
        assert first.code == 0, first.err
        lines = first.out.splitlines()
        assert lines[:2] == ["+ shop: services api", "published to the fleet: 1.1, release a"]
        assert "d1  converged" in lines
        assert lines[-1] == "2 of 2 online devices converged"
        assert retained(broker)["apps"]["shop"]["services"]["api"]["image"] == "api:1"
        compose.write_text(compose.read_text().replace("hunter2", "hunter3").replace("api:1", "api:2"))
        second = run(broker, database, "publish", str(compose), "--timeout", "20s")
        assert second.code == 0, second.err
        assert '~ shop/services/api/image: "api:1" → "api:2"' in second.out
        assert "~ shop/services/api/environment/PASSWORD: (hidden) → (hidden)" in second.out
        third = run(broker, database, "publish", str(compose), "--timeout", "20s")
        assert (third.code, retained(broker)["revision"]) == (0, 2)
        assert "nothing has changed: the target stays 1.2" in third.out
        assert run(broker, database, "wait", "--converged", "--device", "d1", "--timeout", "10").code == 0
        shown = run(broker, database, "devices").out.splitlines()
        assert [line.split("  ")[:2] for line in shown] == [["d1", "online"], ["d2", "online"]]


def test_publish_keeps_the_other_apps(broker: Mosquitto, database: Path, compose: Path) -> None:
    with Cloud(broker.url, "plant7", database=database) as cloud:
        cloud.publish(APPS)
    assert run(broker, database, "publish", str(compose), "--no-wait").code == 0
    assert set(retained(broker)["apps"]) == {"shop", "web"}
    assert run(broker, database, "publish", "--remove", "web", "--no-wait").code == 0
    assert set(retained(broker)["apps"]) == {"shop"}
    refused = run(broker, database, "publish", "--remove", "shop", "--no-wait")
    assert (refused.code, "--allow-empty" in refused.err) == (2, True)


def test_publish_holds_a_device_until_it_is_told_otherwise(broker: Mosquitto, database: Path, compose: Path) -> None:
    def target() -> dict[str, Any]:
        return retained(broker, "fleet/v1/plant7/down/device/d1/target")

    assert run(broker, database, "publish", "--hold").code == 2
    assert run(broker, database, "publish", "--device", "d1", "--hold").code == 0
    assert (target()["hold"], target()["apps"], target()["revision"]) == (True, {}, 1)
    assert run(broker, database, "publish", "--device", "d1", str(compose)).code == 0
    assert (target()["hold"], set(target()["apps"])) == (True, {"shop"})
    assert run(broker, database, "publish", "--device", "d1", "--hold").code == 0
    assert target()["revision"] == 2
    assert run(broker, database, "publish", "--device", "d1", "--no-hold", "--no-wait").code == 0
    assert ("hold" in target(), set(target()["apps"]), target()["revision"]) == (False, {"shop"}, 3)


def test_publish_fails_when_a_device_refuses(broker: Mosquitto, database: Path, compose: Path) -> None:
    with PlainDevice(broker, "plant7", "d1", answer="reject"), PlainDevice(broker, "plant7", "d2"):
        ended = run(broker, database, "publish", str(compose), "--json", "--timeout", "20s")
    assert ended.code == 1
    told = [json.loads(line) for line in ended.out.splitlines()]
    assert told[0]["type"] == "published"
    assert {(line["device"], line["ack"]["verdict"]) for line in told if line["type"] == "ack"} >= {
        ("d1", "rejected"),
        ("d2", "accepted"),
    }
    assert told[-1]["outcome"] == "failed"
    assert "/apps/web/services/api/build: publish an image" in told[-1]["devices"]["d1"]


def test_publish_gives_up_in_time_and_says_why(broker: Mosquitto, database: Path, compose: Path) -> None:
    nobody = run(broker, database, "publish", str(compose), "--timeout", "0.5s")
    assert nobody.code == 3
    assert "no device of the fleet plant7 is online: the broker keeps the target" in nobody.err
    with PlainDevice(broker, "plant7", "d1", answer="retry"):
        ended = run(broker, database, "publish", str(compose), "--release", "b", "--timeout", "2s")
    assert ended.code == 3
    assert "d1: no_such_image; there is no image api:9" in ended.err


def test_publish_refuses_what_devices_would_refuse(broker: Mosquitto, database: Path, compose: Path) -> None:
    compose.write_text("services: {api: {image: x, imagee: y}}")
    ended = run(broker, database, "publish", str(compose))
    assert ended.code == 2
    assert "imagee" in ended.err
    assert "Traceback" not in ended.err


def test_without_a_broker_there_is_one_line(shared: Mosquitto, database: Path) -> None:
    ended = program(shared, database, "devices", "--url", "mqtt://127.0.0.1:1")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: cannot reach the broker mqtt://127.0.0.1:1: Connection refused.")
    assert len(ended.err.splitlines()) == 1


def test_watch_prints_a_line_for_every_change(broker: Mosquitto, database: Path) -> None:
    watch = subprocess.Popen(
        [sys.executable, "-m", "cloud_sim", "watch", "--json"],
        env={**os.environ, **environment(broker, database)},
        stdout=subprocess.PIPE,
        text=True,
    )
    with watch, Cloud(broker.url, "plant7", database=":memory:") as cloud, PlainDevice(broker, "plant7", "d1"):
        assert watch.stdout
        # Born and reported: one line, or one for each.
        while not (line := json.loads(watch.stdout.readline()))["converged"]:
            assert line["device"] == "d1"
        cloud.publish(APPS, release="a")
        while line["releases"] != ["a"]:
            line = json.loads(watch.stdout.readline())
        assert line["services"] == {"ok": 1, "all": 1}
        watch.send_signal(signal.SIGINT)
        assert watch.wait(WAIT_S) == 0


def test_ids_that_are_none_are_refused(broker: Mosquitto, database: Path, compose: Path) -> None:
    for arguments in (("--device", "Not An Id"), ("--fleet", "Not An Id")):
        ended = run(broker, database, "publish", str(compose), *arguments)
        assert (ended.code, "is not an id" in ended.err, "Traceback" in ended.err) == (2, True, False)

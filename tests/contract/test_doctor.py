"""`cloud-sim doctor` against brokers with settings that break one promise each, and against some that keep them all."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from cloud_sim.cli.commands import app
from cloud_sim.connection import Broker
from cloud_sim.doctor import Doctor
from cloud_sim.promises import PROMISES
from tests.broker import OPEN, BrokerContainer, Mosquitto, Peer, free_ports, mosquitto, password_line
from tests.eventually import eventually
from tests.rabbitmq import RabbitMQ, rabbitmq

pytestmark = pytest.mark.broker

KEEPS = (
    OPEN + "persistence true\npersistence_location /mosquitto/data/\nautosave_on_changes true\nautosave_interval 1\n"
)


def run(broker: BrokerContainer, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", "--url", broker.url, *arguments])


def examine(broker: BrokerContainer, *arguments: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and the findings by probe."""
    result = run(broker, "--json", *arguments)
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [finding["probe"] for finding in found] == list(PROMISES), result.output
    return result.exit_code, {finding["probe"]: finding for finding in found}


def not_ok(findings: Mapping[str, Any]) -> dict[str, str]:
    return {probe: finding["status"] for probe, finding in findings.items() if finding["status"] != "ok"}


def left_behind(broker: BrokerContainer) -> list[str]:
    with Peer(broker) as peer:
        peer.subscribe("fleet/#")
        peer.subscribe("end")
        peer.publish("end", b"")
        eventually(lambda: peer.on("end"), 15, "all that is retained was heard")
        return [heard.topic for heard in peer.heard if heard.retained]


@pytest.fixture(scope="module")
def good() -> Iterator[Mosquitto]:
    with mosquitto(KEEPS) as running:
        yield running


@pytest.fixture(scope="module")
def rabbit() -> Iterator[RabbitMQ]:
    with rabbitmq() as running:
        yield running


def test_a_good_broker(good: Mosquitto) -> None:
    code, findings = examine(good)
    assert (code, not_ok(findings)) == (0, {"retained_after_restart": "unknown"})
    assert left_behind(good) == []


def test_a_good_broker_with_mqtt_3(good: Mosquitto) -> None:
    code, findings = examine(good, "--mqtt-version", "3.1.1")
    unknown = dict.fromkeys(("message_expiry", "will_delay", "retained_after_restart"), "unknown")
    assert (code, not_ok(findings)) == (0, unknown)


def test_rabbitmq_with_mqtt_5(rabbit: RabbitMQ) -> None:
    code, findings = examine(rabbit)
    assert code == 1
    assert not_ok(findings) == {
        "retained_wildcard": "warning",
        "will_delay": "broken",
        "dots": "warning",
        "shared_subscriptions": "warning",
        "retained_after_restart": "unknown",
    }
    assert "DEVICE_AGENT_MQTT_WILL_DELAY=0" in findings["will_delay"]["mend"]
    assert "a/b" in findings["dots"]["seen"]


def test_rabbitmq_with_mqtt_3(rabbit: RabbitMQ) -> None:
    code, findings = examine(rabbit, "--mqtt-version", "3.1.1")
    assert code == 0
    assert "broken" not in not_ok(findings).values()


def test_a_topic_root_with_a_dot_is_broken_on_rabbitmq(rabbit: RabbitMQ) -> None:
    # Only this probe: each of the others waits for an answer that goes elsewhere.
    assert Doctor(Broker.of(rabbit.url), "plant.7")._dots()[0] == "broken"


@pytest.mark.parametrize(
    ("setting", "probe", "status", "seen"),
    [
        ("retain_available false", "retained", "broken", "does not take"),
        ("max_packet_size 20000", "packet_size", "broken", "20000 bytes"),
        ("max_packet_size 200000", "packet_size", "warning", "200000 bytes"),
        ("max_queued_messages 10", "queue_depth", "warning", "of 100 came"),
    ],
)
def test_what_a_setting_breaks(setting: str, probe: str, status: str, seen: str) -> None:
    with mosquitto(f"{OPEN}{setting}\n") as broker:
        code, findings = examine(broker)
    finding = findings[probe]
    assert (finding["status"], seen in finding["seen"]) == (status, True), finding
    assert setting.split(maxsplit=1)[0] in finding["mend"]
    assert finding["breaks"]
    assert code == (1 if "broken" in not_ok(findings).values() else 0)


@pytest.mark.parametrize(
    ("made", "status", "code"),
    [(lambda: mosquitto(KEEPS), "ok", 0), (lambda: mosquitto(OPEN), "broken", 1), (rabbitmq, "ok", 0)],
    ids=["mosquitto", "mosquitto-without-persistence", "rabbitmq"],
)
def test_a_restart_in_two_halves(made: Any, status: str, code: int) -> None:
    # MQTT 3.1.1, with which RabbitMQ breaks nothing else.
    version = ("--mqtt-version", "3.1.1")
    with made() as broker:
        before, findings = examine(broker, "--mark", *version)
        assert (before, findings["retained_after_restart"]["status"]) == (0, "unknown")
        broker.restart()
        after, findings = examine(broker, "--restarted", *version)
        assert (findings["retained_after_restart"]["status"], after) == (status, code)
        assert left_behind(broker) == []


def test_who_is_not_let_in_learns_that() -> None:
    config = "allow_anonymous false\npassword_file /mosquitto/config/passwords\n"
    with mosquitto(config, files={"passwords": password_line("cloud", "secret")}) as broker:
        result = run(broker)
    assert result.exit_code == 3
    assert "Not authorized" in result.output


def test_nobody_is_there() -> None:
    (port,) = free_ports(1)
    result = CliRunner().invoke(app, ["doctor", "--url", f"mqtt://127.0.0.1:{port}"])
    assert result.exit_code == 3
    assert "cannot reach the broker" in result.output


def test_usage(good: Mosquitto) -> None:
    assert run(good, "--mark", "--restarted").exit_code == 2
    assert run(good, "--topic-root", "#").exit_code == 2


def test_for_people_it_is_words(good: Mosquitto) -> None:
    text = run(good).stdout
    assert "ok  retained: a retained message reaches who subscribes later" in text
    assert "say --mark" in text

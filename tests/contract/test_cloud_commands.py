"""Commands from the cloud's side, over a real Mosquitto: what is sent, whose answers are waited for, what is shown."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from paho.mqtt import client as paho
from typer.testing import CliRunner, Result

from cloud_sim.cli.commands import app
from cloud_sim.cloud import Cloud
from cloud_sim.connection import Misconfigured
from device_agent.wire.commands import encode_answer
from device_agent.wire.log import LogLine, encode_log
from tests.broker import Mosquitto, Peer, mosquitto
from tests.cloud_device import AT, PlainDevice
from tests.eventually import eventually

pytestmark = pytest.mark.broker

WAIT_S = 15.0
APPS = {"web": {"services": {"api": {"image": "api:1"}}}}
DONE = {"status": "ok", "result": {"app": "web", "services": ["api"]}}
NO = {"status": "error", "error": {"code": "forbidden", "message": "not allowed here", "errors": []}}


@pytest.fixture
def broker() -> Iterator[Mosquitto]:
    """One of its own, because what a fleet's devices are is retained in it."""
    with mosquitto() as running:
        yield running


def run(broker: Mosquitto, tmp_path: Path, *arguments: str) -> Result:
    where = ["--url", broker.url, "--fleet", "plant7", "--database", str(tmp_path / "cloud.sqlite")]
    return CliRunner().invoke(app, [*arguments, *where], env={"COLUMNS": "200"})


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_command_is_answered(broker: Mosquitto, version: Any) -> None:
    speaks = paho.MQTTv5 if version == "5" else paho.MQTTv311
    with (
        Cloud(broker.url, "plant7", database=":memory:", mqtt_version=version) as cloud,
        PlainDevice(broker, "plant7", "d1", version=speaks) as device,
    ):
        device.replies["stop"] = DONE
        answer = cloud.command("stop", {"app": "web"}, device="d1", timeout=WAIT_S)
        assert (answer.device, answer.status, answer.result) == ("d1", "ok", DONE["result"])
        assert device.asked == [("stop", {"app": "web"})]
        with pytest.raises(TimeoutError, match="d1 has not answered start"):
            cloud.command("start", {"app": "web"}, device="d1", timeout=0.2)
        with pytest.raises(Misconfigured):
            cloud.command("stop", device="D 1")


def test_a_refusal_that_names_no_command_is_told(broker: Mosquitto) -> None:
    told: list[str] = []
    error = {"code": "signature", "message": "0 of 1 signatures by trusted keys", "errors": []}
    with (
        Cloud(broker.url, "plant7", database=":memory:", mqtt_version="3.1.1", tell=told.append) as cloud,
        Peer(broker) as peer,
        cloud.ask("stop", {"app": "web"}, device="d1"),
    ):
        topic = "fleet/v1/plant7/up/d1/response"
        peer.publish(topic, encode_answer("d1", "stop", None, AT, {"status": "error", "error": error}))
        eventually(lambda: told, WAIT_S, "it is told")
    assert told == ["d1 could not read a command (signature): 0 of 1 signatures by trusted keys"]


def test_a_command_is_as_the_protocol_shows(broker: Mosquitto) -> None:
    topic = "fleet/v1/plant7/down/device/d1/command/stop"
    with Peer(broker) as peer, Cloud(broker.url, "plant7", database=":memory:") as cloud:
        peer.subscribe(topic)
        with cloud.ask("stop", {"app": "web"}, device="d1", expires_s=60) as asked:
            heard = eventually(lambda: peer.on(topic), WAIT_S, "the command")[0]
    body = json.loads(heard.payload)
    assert body.pop("expires_at").endswith("Z")
    assert body == {"schema": 1, "id": asked.id, "args": {"app": "web"}}
    assert (heard.retained, heard.expiry_s) == (False, 60)


def test_what_one_device_answers(broker: Mosquitto, tmp_path: Path) -> None:
    with PlainDevice(broker, "plant7", "d1") as device:
        device.replies = {"stop": DONE, "start": NO}
        done = run(broker, tmp_path, "command", "stop", "web/api", "--device", "d1")
        assert (done.exit_code, done.stdout) == (0, "app: web\nservices: api\n")
        refused = run(broker, tmp_path, "command", "start", "web", "--device", "d1", "--json")
        assert refused.exit_code == 1
        (told,) = lines(refused)
        assert (told["type"], told["verb"], told["device"], told["error"]) == ("answer", "start", "d1", NO["error"])
        silent = run(broker, tmp_path, "command", "retry", "web", "--device", "d1", "--timeout", "0.3s")
        assert silent.exit_code == 3
        assert "no answer in time from d1" in silent.stderr
        assert [args for _, args in device.asked] == [{"app": "web", "service": "api"}, {"app": "web"}, {"app": "web"}]


def test_what_all_devices_answer(broker: Mosquitto, tmp_path: Path) -> None:
    with PlainDevice(broker, "plant7", "d4"):
        pass  # it was there, and is offline
    with (
        PlainDevice(broker, "plant7", "d1") as one,
        PlainDevice(broker, "plant7", "d2") as two,
        PlainDevice(broker, "plant7", "d3") as three,
    ):
        one.replies["prune"] = two.replies["prune"] = DONE
        partly = run(broker, tmp_path, "command", "prune", "--all", "--timeout", "2s")
        assert partly.exit_code == 3
        assert partly.stdout == "d1, d2:\n  app: web\n  services: api\n"
        assert "no answer in time from d3" in partly.stderr
        assert "offline, and not asked: d4" in partly.stderr
        three.replies["prune"] = NO
        whole = run(broker, tmp_path, "command", "prune", "--all")
        assert whole.exit_code == 1
        assert whole.stdout.endswith("d3:\n  refused (forbidden): not allowed here\n")
        kinds = [line["type"] for line in lines(run(broker, tmp_path, "command", "prune", "--all", "--json"))]
        assert kinds == ["answer", "answer", "answer", "offline"]


def test_a_dry_run_publishes_nothing_and_says_who_would_do_what(broker: Mosquitto, tmp_path: Path) -> None:
    compose = tmp_path / "compose.yaml"
    compose.write_text("name: web\nservices: {api: {image: 'api:1'}}\n")
    plan = {"status": "ok", "result": {"text": "web:\n  create web-api-1: it does not exist", "blocked": {}}}
    against = {"code": "policy", "message": "1 place", "errors": [{"pointer": "/apps/web", "message": "no"}]}
    with PlainDevice(broker, "plant7", "d1") as one, PlainDevice(broker, "plant7", "d2") as two:
        one.replies["plan"], two.replies["plan"] = plan, {"status": "error", "error": against}
        result = run(broker, tmp_path, "publish", str(compose), "--dry-run")
        assert result.exit_code == 1, result.stderr
        assert result.stdout == (
            "d1:\n  web:\n    create web-api-1: it does not exist\n"
            "d2:\n  refused (policy): 1 place\n    /apps/web: no\n"
        )
        ((verb, args),) = one.asked
        assert verb == "plan"
        target = args["target"]
        assert (target["scope"], target["revision"]) == ({"fleet": "plant7", "device": None}, 1)
        assert target["apps"] == {"web": {"services": {"api": {"image": "api:1"}}}}
        own = run(broker, tmp_path, "publish", str(compose), "--dry-run", "--device", "d1")
        assert (own.exit_code, own.stdout.splitlines()[0]) == (0, "d1:")
    with Cloud(broker.url, "plant7", database=tmp_path / "cloud.sqlite") as cloud:
        assert cloud.last() is None
    with Peer(broker) as peer:
        peer.subscribe("fleet/v1/plant7/down/target")
        peer.subscribe("end")
        peer.publish("end", b"")
        eventually(lambda: peer.on("end"), WAIT_S, "all that is retained was heard")
        assert peer.on("fleet/v1/plant7/down/target") == []


def test_a_plan_of_a_target_document(broker: Mosquitto, tmp_path: Path) -> None:
    file = tmp_path / "target.json"
    file.write_text(json.dumps({"apps": APPS}))
    with PlainDevice(broker, "plant7", "d1") as device:
        device.replies["plan"] = {"status": "ok", "result": {"text": "nothing to do"}}
        assert run(broker, tmp_path, "command", "plan", str(file), "--device", "d1").stdout == "nothing to do\n"
        assert device.asked == [("plan", {"target": {"apps": APPS}})]


def test_a_log_that_is_followed(broker: Mosquitto, tmp_path: Path) -> None:
    with PlainDevice(broker, "plant7", "d1") as device:
        heard: list[str] = []
        with (
            Cloud(broker.url, "plant7", database=":memory:") as cloud,
            cloud.ask("logs", {"app": "web", "service": "api", "follow_s": 5}, device="d1") as asked,
        ):
            eventually(lambda: device.asked, WAIT_S, "the command")
            topic = device.topics.log("web", "api")
            device.client.publish(topic, encode_log("d1", "another", 1, [LogLine("not ours")], 0), qos=0)
            device.client.publish(topic, encode_log("d1", asked.id, 1, [LogLine("one"), LogLine("two")], 0), qos=0)
            asked.wait(["d1"], 1.0, lambda log: heard.extend(line.text for line in log.lines))
        assert heard == ["one", "two"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["dance", "--device", "d1"], "'dance' is no command"),
        (["report"], "--device NAME, or --all"),
        (["report", "--device", "d1", "--all"], "--device NAME, or --all"),
        (["report", "web", "--device", "d1"], "takes no name"),
        (["stop", "--device", "d1"], "Say APP or APP/SERVICE"),
        (["logs", "web", "--device", "d1"], "Say web/SERVICE"),
        (["logs", "web/api", "--all", "--follow", "5s"], "followed on one device"),
        (["plan", "/nowhere.json", "--device", "d1"], "cannot read /nowhere.json"),
    ],
)
def test_what_cannot_be_meant_is_not_sent(tmp_path: Path, arguments: list[str], words: str) -> None:
    result = CliRunner().invoke(app, ["command", *arguments, "--fleet", "f", "--url", "mqtt://localhost:1"])
    assert result.exit_code == 2
    assert words in re.sub(r"\s+", " ", result.stderr)

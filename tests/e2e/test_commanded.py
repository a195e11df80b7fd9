"""Commands over MQTT, end to end: any client may ask, all devices may be asked, and a kill -9 repeats nothing."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.wire.commands import SPREAD_S, spread_s
from tests.broker import Mosquitto, Peer
from tests.e2e.device import READY_S, Device, Stranger, app, service
from tests.eventually import eventually

CUT = (sys.executable, str(Path(__file__).with_name("power_cut.py")))
ANSWER_S = 20.0


def command(device: Device, verb: str) -> str:
    return f"fleet/v1/{device.fleet}/down/device/{device.id}/command/{verb}"


def broadcast(device: Device, verb: str) -> str:
    return f"fleet/v1/{device.fleet}/down/command/{verb}"


def reply(device: Device, client: str = "me") -> str:
    return f"fleet/v1/{device.fleet}/reply/{client}"


def order(device: Device, client: Stranger, verb: str, **body: Any) -> None:
    """Without a Response Topic: the answer comes on the device's own."""
    client.publish(command(device, verb), json.dumps(body).encode(), retain=False)


def code(answer: dict[str, Any]) -> str:
    assert answer["status"] == "error"
    assert answer["error"]["message"]
    return str(answer["error"]["code"])


def cloud_sim(device: Device, tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    where = ["--url", device.broker_url, "--fleet", device.fleet, "--database", str(tmp_path / "cloud.sqlite")]
    return subprocess.run(
        [sys.executable, "-m", "cloud_sim", *arguments, *where], capture_output=True, text=True, check=False, timeout=60
    )


@pytest.fixture(params=["5", "3.1.1"])
def running(request: pytest.FixtureRequest, device: Device) -> Device:
    device.start(MQTT_VERSION=request.param)
    device.publish({"web": app(api=service(), db=service())})
    return device


def test_a_strangers_client_must_be_answered(running: Device, broker: Mosquitto, client: Stranger) -> None:
    with Peer(broker) as peer:
        peer.subscribe(running.up("response"))
        order(running, client, "report", id="one")
        order(running, client, "explain", id="two", args={"app": "web", "service": "api"})
        order(running, client, "stop", id="three", args={"app": "nowhere"})
        order(running, client, "stop", id="four", arg={})
        heard = eventually(
            lambda: found if len(found := peer.on(running.up("response"))) == 4 else None, ANSWER_S, "four answers"
        )
    report, explain, nowhere, malformed = (json.loads(each.payload) for each in heard)
    assert report["result"]["apps"]["web"]["services"]["api"]["status"] == "running"
    assert explain["result"]["text"].startswith("web/api: running")
    assert code(nowhere) == "not_found"
    assert malformed["error"]["errors"][0]["pointer"] == "/arg"
    assert [each.retained for each in heard] == [False] * 4


def test_the_response_topic_and_the_correlation_data_must_be_kept_to(device: Device, client: Stranger) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    answer = client.ask(command(device, "report"), reply(device), b'{"id": "one"}')
    assert (answer["id"], answer["device"], answer["status"]) == ("one", device.id, "ok")
    answer = client.ask(command(device, "report"), reply(device), b"", "-D", "publish", "correlation-data", "mine")
    assert (answer["id"], answer["status"]) == ("mine", "ok")


def test_a_command_answered_elsewhere_must_not_be_carried_out(
    device: Device, broker: Mosquitto, client: Stranger
) -> None:
    device.start()
    device.publish({"web": app(api=service())})
    before = device.identities()
    body = json.dumps({"id": "one", "args": {"app": "web"}}).encode()
    elsewhere = ("-D", "publish", "response-topic", device.fleet_target)
    with Peer(broker) as peer:
        peer.subscribe(device.up("response"))
        client.publish(command(device, "restart"), body, retain=False, properties=elsewhere)
        heard = eventually(lambda: peer.on(device.up("response")), ANSWER_S, "it is refused")
    assert code(json.loads(heard[0].payload)) == "response_topic"
    assert device.identities() == before


def test_all_devices_must_answer_each_at_its_moment(make_device: Callable[..., Device], tmp_path: Path) -> None:
    first = make_device()
    fleet = [first, *(make_device(fleet=first.fleet) for _ in range(2))]
    for device in fleet:
        device.start()
    first.publish({"web": app(api=service())})
    for device in fleet:
        device.converge()
    said = cloud_sim(first, tmp_path, "command", "report", "--all", "--json")
    assert said.returncode == 0, said.stderr
    answers = {line["device"]: line for line in map(json.loads, said.stdout.splitlines())}
    assert answers.keys() == {device.id for device in fleet}
    assert all(answer["result"]["converged"] for answer in answers.values())
    assert all(0 <= spread_s(device.fleet, device.id) < SPREAD_S for device in fleet)
    # A restart of the whole fleet, and then a plan of what is next: who would do what.
    before = {device.id: device.identities()["web/api"] for device in fleet}
    assert cloud_sim(first, tmp_path, "command", "restart", "web", "--all").returncode == 0
    for device in fleet:
        device.until(lambda d=device: d.identities()["web/api"] != before[d.id], READY_S, "it was restarted")
    target = tmp_path / "target.json"
    target.write_text(json.dumps({"apps": {"web": app(api=service(2))}}))
    dry = cloud_sim(first, tmp_path, "publish", str(target), "--dry-run")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    assert dry.stdout.count("image changed") >= 1
    assert all(device.id in dry.stdout for device in fleet)
    assert first.cloud.last().version == (1, 1)


def test_a_log_must_be_read_and_followed(device: Device, tmp_path: Path) -> None:
    device.start()
    says = ["sh", "-c", "echo one; echo two >&2; while :; do echo more; sleep 0.2; done"]
    device.publish({"web": app(api=service(command=says))})
    local = device.cli("logs", "web/api", "--tail", "2000")
    # The engine reads the two streams side by side.
    assert {"one", "two", "more"} == set(local.stdout.decode().splitlines())
    read = cloud_sim(device, tmp_path, "command", "logs", "web/api", "--device", device.id, "--tail", "5")
    assert (read.returncode, read.stdout) == (0, "more\n" * 5), read.stderr
    followed = cloud_sim(
        device, tmp_path, "command", "logs", "web/api", "--device", device.id, "--tail", "0", "--follow", "3s"
    )
    assert followed.returncode == 0, followed.stderr
    assert set(followed.stdout.splitlines()) == {"more"}
    assert 8 <= len(followed.stdout.splitlines()) <= 20


@pytest.mark.parametrize(
    ("cut", "outcomes"),
    [
        ("before transaction.put_command 1", {"ok"}),
        ("after transaction.put_command 1", {"ok"}),
        ("before transport.acknowledge 2", {"ok"}),  # the first is the retained target's
        ("before transaction.put_order 1", {"interrupted"}),
        ("after transaction.put_order 1", {"interrupted"}),
        ("before transaction.put_command 2", {"interrupted"}),
        ("after transaction.put_command 2", {"interrupted"}),
        ("before engine.start 1", {"ok"}),
    ],
)
def test_a_kill_in_the_middle_of_a_command_must_not_repeat_it(
    device: Device, broker: Mosquitto, client: Stranger, cut: str, outcomes: set[str]
) -> None:
    device.start()
    device.publish({"web": app(api=service(), db=service())})
    assert device.stop() == 0
    kept, before = device.identities()["web/db"], device.identities()["web/api"]
    session = device.session
    device.launch(*CUT, environment={"POWER_CUT": cut})
    device.until(lambda: device.session > session, READY_S, "the agent is online")
    process = device.process
    assert process
    with Peer(broker) as peer:
        peer.subscribe(device.up("response"))
        body = {"id": "one", "args": {"app": "web", "service": "api"}}
        order(device, client, "restart", **body)
        eventually(lambda: process.poll() is not None, READY_S, f"the power is cut {cut}")
        device.start()
        # Whoever has heard nothing asks again, under the same id.
        order(device, client, "restart", **body)
        order(device, client, "report", id="mark")

        def answers() -> list[dict[str, Any]]:
            bodies = [json.loads(heard.payload) for heard in peer.on(device.up("response"))]
            return bodies if any(body["id"] == "mark" for body in bodies) else []

        heard = eventually(answers, ANSWER_S, "it is answered")
    said = [each for each in heard if each["id"] == "one"]
    outcome = {"ok" if each["status"] == "ok" else code(each) for each in said}
    assert len(outcome) == 1, said
    assert outcome <= outcomes
    device.converge()
    if outcome == {"ok"}:
        device.until(lambda: device.identities()["web/api"] != before, READY_S, "it was restarted")
    after = device.identities()
    assert after["web/db"] == kept
    # Asked once more, it is the record that answers.
    again = client.ask(command(device, "restart"), reply(device), json.dumps(body).encode())
    assert {"ok" if again["status"] == "ok" else code(again)} == outcome
    device.converge()
    assert device.identities() == after

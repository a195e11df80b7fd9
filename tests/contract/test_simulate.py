"""A simulated fleet against a real Mosquitto, beside the cloud."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from typer.testing import CliRunner

from cloud_sim.cli.commands import app
from cloud_sim.cloud import Cloud
from cloud_sim.connection import Broker
from cloud_sim.simulation.faults import LATENCIES, PULL, Behaviour
from cloud_sim.simulation.fleet import Fleet, Outcome, Storm
from cloud_sim.simulation.processes import Processes
from tests.broker import Mosquitto, Peer, mosquitto, password_line
from tests.eventually import eventually

pytestmark = pytest.mark.broker

DEVICES = 50
WAIT_S = 30.0
APPS = {"web": {"services": {"api": {"image": "api:1"}}, "x-release": {"healthy_for": "0s"}}}
QUICK = Behaviour({**LATENCIES, PULL: 0.1})


@pytest.fixture(scope="module")
def broker() -> Iterator[Mosquitto]:
    with mosquitto() as broker:
        yield broker


@contextmanager
def simulated(broker: Mosquitto, fleet: str, devices: int = DEVICES, **keys: Any) -> Iterator[Fleet]:
    """Running in a thread of its own; looked at from here, and ended here."""
    over = threading.Event()
    address = Broker("127.0.0.1", broker.port, **keys.pop("speaks", {}))
    fleet_ = Fleet(address, fleet, devices, behaviour=QUICK, **keys)

    def live() -> None:
        fleet_.start()
        fleet_.run(over.is_set)
        fleet_.stop()

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield fleet_
    finally:
        over.set()
        thread.join(WAIT_S)
        fleet_.close()


def applied(fleet: Fleet) -> Callable[[], bool]:
    return lambda: fleet.outcome() is Outcome.APPLIED


@pytest.mark.parametrize("version", ["5", "3.1.1"])
def test_a_fleet_takes_a_target_answers_it_and_converges(broker: Mosquitto, version: str):
    name = f"takes-{version[0]}"
    with (
        simulated(broker, name, speaks={"version": version}) as fleet,
        Cloud(f"mqtt://127.0.0.1:{broker.port}", name, database=":memory:") as cloud,
    ):
        eventually(lambda: fleet.connected == DEVICES, WAIT_S, "all are connected")
        assert fleet.outcome() is Outcome.PENDING
        published = cloud.publish(APPS)
        eventually(applied(fleet), WAIT_S, "all have applied it")
        cloud.wait_converged(WAIT_S, [device.id for device in fleet.devices])
        acks = [entry.body for entry in cloud.acks()]
        told = [(ack["verdict"], ack.get("app")) for ack in acks if ack["device"] == "sim-00007"]
        assert told == [("accepted", None), ("applying", "web"), ("applied", "web"), ("applied", None)]
        times = fleet.figures.answers["fleet", published.version].times()
        assert (times["accepted"].count, times["applied"].count) == (DEVICES, DEVICES)
        assert cloud.gaps("sim-00007") == ()


def test_devices_that_lose_their_connection_come_back_as_devices_do(broker: Mosquitto):
    with Peer(broker) as peer:
        peer.subscribe("fleet/v1/storms/up/+/session")
        with simulated(broker, "storms", storms=[Storm(20, 1.0)]) as fleet:
            eventually(lambda: fleet.figures.connections == DEVICES + 20, WAIT_S, "20 have connected a second time")
            assert fleet.figures.dropped == 20
            eventually(lambda: fleet.connected == DEVICES, WAIT_S, "all are connected")
            eventually(lambda: len(peer.heard) >= DEVICES + 20, WAIT_S, "all births are heard")
            births = [json.loads(heard.payload) for heard in peer.heard]
            assert all(birth["online"] for birth in births)
            again = [birth for birth in births if sum(b["device"] == birth["device"] for b in births) == 2]
            assert len({(birth["device"], birth["session"]) for birth in again}) == 40


def test_they_say_farewell(broker: Mosquitto):
    with simulated(broker, "leaves") as fleet:
        eventually(lambda: fleet.connected == DEVICES, WAIT_S, "all are connected")
    assert fleet.network.all_gone
    with Peer(broker) as peer:
        peer.subscribe("fleet/v1/leaves/up/+/session")
        eventually(lambda: len(peer.heard) == DEVICES, WAIT_S, "all sessions are retained")
        farewells = [json.loads(heard.payload) for heard in peer.heard]
        assert {(each["online"], each["reason"]) for each in farewells} == {(False, "stopped")}


def test_a_broker_that_goes_is_waited_for():
    with mosquitto("allow_anonymous true\n") as broker, simulated(broker, "waits", 5) as fleet:
        eventually(lambda: fleet.connected == 5, WAIT_S, "all are connected")
        broker.kill()
        eventually(lambda: fleet.connected == 0, WAIT_S, "all have lost it")
        broker.restart()
        eventually(lambda: fleet.connected == 5, 60, "all are back")


def test_who_is_refused_says_why():
    config = "allow_anonymous false\npassword_file /mosquitto/config/passwords\n"
    files = {"passwords": password_line("fleet", "right")}
    with mosquitto(config, files=files) as broker:
        wrong = {"username": "fleet", "password": "wrong"}
        with simulated(broker, "refused", 3, speaks=wrong) as fleet:
            eventually(fleet.troubles, WAIT_S, "they are refused")
            eventually(lambda: "3 devices" in fleet.troubles()[0], WAIT_S, "all are refused")
            assert "refused the connection: Not authorized" in fleet.troubles()[0]
        assert fleet.figures.connections == 0


def test_the_command_ends_when_all_have_applied(broker: Mosquitto):
    url = f"mqtt://127.0.0.1:{broker.port}"
    with Cloud(url, "command", database=":memory:") as cloud:
        cloud.publish(APPS)
    arguments = ["simulate", "--fleet", "command", "--url", url, "-n", "10", "--latency", "pull=0.1s"]
    result = CliRunner().invoke(app, [*arguments, "--until-applied", "--for", "60s", "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["devices"], report["connected"], report["converged"]) == (10, 10, 10)
    assert report["targets"][0]["answers"]["applied"]["devices"] == 10
    assert report["sent"]["messages"] >= 10 * 6


def test_the_command_ends_with_3_when_time_is_over(broker: Mosquitto):
    url = f"mqtt://127.0.0.1:{broker.port}"
    arguments = ["simulate", "--fleet", "nothing", "--url", url, "-n", "2", "--until-applied", "--for", "1s"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 3
    assert "2 of 2 devices connected" in result.stdout


def test_the_command_says_when_there_is_no_broker():
    result = CliRunner().invoke(app, ["simulate", "--fleet", "none", "--url", "mqtt://127.0.0.1:1", "-n", "2"])
    assert result.exit_code == 1
    assert "cannot reach the broker" in result.stderr


def test_a_fleet_in_two_processes_is_one_fleet(broker: Mosquitto):
    fleet = Processes(2, Broker("127.0.0.1", broker.port), "shared", 6, behaviour=QUICK)
    until = monotonic() + 2 * WAIT_S
    try:
        fleet.start()
        fleet.run(lambda: fleet.connected == 6 or monotonic() > until)
        with Cloud(f"mqtt://127.0.0.1:{broker.port}", "shared", database=":memory:") as cloud:
            published = cloud.publish(APPS)
            fleet.run(lambda: fleet.outcome() is Outcome.APPLIED or monotonic() > until)
            cloud.wait_converged(WAIT_S, [f"sim-{number:05}" for number in range(1, 7)])
        times = fleet.figures.answers["fleet", published.version].times()
        assert (times["accepted"].count, times["applied"].count, fleet.converged) == (6, 6, 6)
        fleet.stop()
    finally:
        fleet.close()

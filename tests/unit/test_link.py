"""What the link owes the broker: its limits, and a fleet that comes back all at once."""

import json

from device_agent.model.memory import OutboxCounts
from device_agent.model.report import Happening
from device_agent.ports import PullProgress
from device_agent.runtime.link import DELETE_AFTER_S, FEW_ROWS, REPLAY_BURST, REPLAY_PER_S
from tests.builders import app, service
from tests.device import REPLY, TOPICS, Device, settled

MANY = {"web": app(**{f"service-{number}": service() for number in range(30)})}


def reconnected(device: Device, **limits: int) -> Device:
    device.broker.disconnect()
    for name, value in limits.items():
        setattr(device.broker, name, value)
    device.broker.connect()
    device.wait(5)
    return device


def test_a_state_that_is_too_large_is_shortened_and_says_so():
    device = settled(MANY)
    whole = device.state()
    assert "shortened" not in whole
    without_services = reconnected(device, maximum_packet_size=1500).state()
    assert without_services["shortened"] == "services"
    assert without_services["apps"]["web"] == {**whole["apps"]["web"], "services": {}}
    assert without_services["effective_digest"] == whole["effective_digest"]
    without_apps = reconnected(device, maximum_packet_size=700).state()
    assert (without_apps["shortened"], without_apps["apps"]) == ("apps", {})
    assert without_apps["converged"] is True
    before = len(device.broker.on(TOPICS.state))
    reconnected(device, maximum_packet_size=200)
    assert len(device.broker.on(TOPICS.state)) == before
    assert "shortened" not in device.ask("status")["result"]
    assert reconnected(device, maximum_packet_size=100_000).state()["apps"] == whole["apps"]


def test_an_event_that_the_broker_does_not_take_is_given_up_and_counted():
    device = settled()
    device.broker.disconnect()
    device.agent.journal.tell(Happening("drift", {"message": "x" * 3000}))
    device.agent.journal.tell(Happening("drift", {"message": "y"}))
    device.settle()
    reconnected(device, maximum_packet_size=2000)
    assert [json.loads(sent.payload)["message"] for sent in device.broker.on(TOPICS.event)] == ["y"]
    assert device.ask("status")["result"]["outbox"] == {"rows": 0, "dropped": 1}
    device.wait(10)
    assert device.store.outbox_counts() == OutboxCounts(rows=0, dropped=1)


def test_progress_that_the_broker_does_not_take_is_left_out():
    device = reconnected(settled(), maximum_packet_size=200)
    device.agent.handle(PullProgress("registry.example/" + "x" * 100, 1, 2))
    device.settle()
    assert not device.broker.on(TOPICS.progress)


def test_no_more_is_on_its_way_than_the_broker_takes():
    for most in (1, 2, 3, 5):
        device = settled()
        device.broker.disconnect()
        for _ in range(20):
            device.agent.journal.tell(Happening("drift"))
        device.settle()
        device.broker.receive_maximum, device.broker.hold_pubacks = most, True
        device.broker.connect()
        device.command("report")
        for _ in range(200):
            device.wait(1)
            assert len(device.broker.unanswered) <= most
            if not device.broker.unanswered:
                break
            device.broker.puback(device.broker.unanswered.pop())
        device.wait(10)
        assert device.agent.link.outbox().rows == 0
        assert device.broker.on(REPLY)
        assert device.state()["seq"] >= 1


def test_what_has_piled_up_is_sent_at_a_pace_that_a_fleet_can_share():
    device = settled()
    device.wait(1)
    device.broker.disconnect()
    for number in range(500):
        device.agent.journal.tell(Happening("drift", {"number": number}))
    device.settle()
    before = len(device.broker.on(TOPICS.event))
    device.broker.connect()
    device.settle()
    assert len(device.broker.on(TOPICS.event)) - before == REPLAY_BURST
    device.wait(5)
    assert 0 <= REPLAY_BURST + 5 * REPLAY_PER_S - (len(device.broker.on(TOPICS.event)) - before) <= 1
    device.wait(30)
    told = [json.loads(sent.payload)["number"] for sent in device.broker.on(TOPICS.event)[before:]]
    assert told == list(range(500))
    assert device.agent.link.outbox().rows == 0
    device.wait(DELETE_AFTER_S)
    assert device.store.outbox_counts().rows == 0


def test_a_few_rows_that_the_broker_has_go_with_what_is_written_next():
    device = settled()
    kept = device.store.outbox_counts().rows
    assert 0 < kept <= FEW_ROWS
    device.wait(60)
    assert (device.store.outbox_counts().rows, device.agent.link.outbox().rows) == (kept, 0)
    device.agent.journal.tell(Happening("drift"))
    device.settle()
    assert device.store.outbox_counts().rows == 1

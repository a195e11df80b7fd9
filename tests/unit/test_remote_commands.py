"""Commands over MQTT: answered whatever they are, carried out at most once, whatever is lost in between."""

import json
from datetime import timedelta
from typing import Any

import pytest

from device_agent.core.commands import MOST_RECORDS
from device_agent.model.errors import Refused
from device_agent.model.target import Json
from device_agent.runtime import commands as handlers
from device_agent.runtime.answers import EXPIRY_S, MOST
from device_agent.wire.commands import EFFECTS, VERBS, spread_s
from tests.builders import IDENTITY, NOW, app, payload, service
from tests.device import REPLY, TOPICS, Device, PowerCut, settled

LATER = (NOW + timedelta(hours=1)).isoformat()


class Counting:
    """A command that changes something: counts how often it was carried out."""

    def __init__(self) -> None:
        self.done: list[Any] = []

    def __call__(self, _agent: Any, args: Any) -> Json:
        self.done.append(dict(args))
        if "fail" in args:
            raise Refused("not_found", "there is none here")
        return {"done": len(self.done), "more": "x" * int(args.get("bytes", 0))}


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setitem(handlers.HANDLERS, "stop", counting)
    return counting


def code(answer: dict[str, Any]) -> str:
    assert answer["status"] == "error"
    assert answer["error"]["message"]
    return answer["error"]["code"]


def codes(device: Device, topic: str = REPLY) -> list[str]:
    return [code(answer) for answer in device.answers(topic)]


# Looking.


def test_a_report_is_the_state_and_is_written_nowhere():
    device = settled()
    before = device.store.rows.copy()
    device.fuse.reset()
    device.command("report")
    (answer,) = device.answers()
    assert {key: answer[key] for key in ("schema", "device", "verb", "id", "status")} == {
        "schema": 1,
        "device": "d1",
        "verb": "report",
        "id": "c1",
        "status": "ok",
    }
    assert answer["result"]["apps"] == device.state()["apps"]
    assert "commit" not in device.fuse.calls
    assert device.store.rows == before
    device.command("report")
    assert len(device.answers()) == 2


def test_an_answer_carries_the_correlation_data_and_expires():
    device = settled()
    device.order(TOPICS.command("report"), b"", correlation=b"\x00\xff")
    (sent,) = device.broker.on(REPLY)
    assert (sent.correlation, sent.qos, sent.retain, sent.expiry_s) == (b"\x00\xff", 1, False, EXPIRY_S)
    assert json.loads(sent.payload)["id"] == "00ff"


def test_without_a_response_topic_the_answer_goes_to_the_devices_own():
    device = settled()
    device.order(TOPICS.command("report"), {"id": "c1"}, reply_to=None)
    assert [answer["id"] for answer in device.answers(TOPICS.response)] == ["c1"]


def test_a_plan_over_mqtt_is_the_local_one():
    device = settled()
    target = payload({"web": app(api=service("api:2"))}, revision=2).decode()
    device.command("plan", target=json.loads(target))
    assert device.answers()[0]["result"] == device.ask("plan", target=target)["result"]
    device.command("explain", app="web")
    assert device.answers()[1]["result"] == device.ask("explain", app="web")["result"]


def test_looking_needs_no_disk():
    device = settled()
    device.store.full = True
    device.command("report")
    assert device.answers()[0]["status"] == "ok"
    assert not device.broker.unacknowledged


def test_an_answer_to_a_broadcast_comes_at_the_devices_own_moment():
    device = settled()
    moment = spread_s(IDENTITY.fleet, IDENTITY.device)
    device.command("report", to_all=True)
    device.wait(moment - 0.1)
    assert device.answers() == []
    device.wait(0.2)
    assert len(device.answers()) == 1


# Refusals.


def test_a_command_to_be_answered_elsewhere_is_not_carried_out(stop):
    device = settled()
    elsewhere = ("fleet/v1/other/reply/x", TOPICS.state, TOPICS.fleet_target, "fleet/v1/plant7/reply/", "x")
    for topic in (*elsewhere, "fleet/v1/plant7/reply/" + 300 * "x"):
        before = device.broker.on(topic)
        device.order(TOPICS.command("stop"), {"id": topic[:99]}, reply_to=topic)
        assert device.broker.on(topic) == before
    assert codes(device, TOPICS.response) == ["response_topic"] * 6
    device.order(TOPICS.command("stop"), b"{", reply_to=TOPICS.state)
    assert codes(device, TOPICS.response)[6:] == ["malformed"]
    assert stop.done == []
    assert not device.broker.unacknowledged


def test_long_correlation_data_are_refused_and_not_kept(stop):
    device = settled()
    body = json.dumps({"id": "one", "args": {"app": "web"}}).encode()
    device.broker.arrive(TOPICS.command("stop"), body, response_topic=REPLY, correlation=300 * b"x")
    device.settle()
    assert codes(device, REPLY) == ["malformed"]
    assert stop.done == []
    assert not device.agent.commands.records


def test_a_refusal_names_the_place_and_what_was_asked(stop):
    device = settled()
    device.order(TOPICS.command("stop"), {"id": "a", "arg": {}}, correlation=b"mine")
    (answer,) = device.answers()
    assert answer["error"]["errors"] == [{"pointer": "/arg", "message": "is not known"}]
    assert (answer["id"], answer["verb"]) == ("mine", "stop")
    device.order(TOPICS.command("stop"), b"{")
    assert device.answers()[1]["id"] is None
    assert stop.done == []


def test_an_expired_command_is_not_carried_out(stop):
    device = settled()
    device.order(TOPICS.command("stop"), {"id": "a", "expires_at": NOW.isoformat()})
    assert codes(device) == ["expired"]
    device.order(TOPICS.command("stop"), {"id": "b", "expires_at": LATER})
    assert len(stop.done) == 1


def test_a_retained_command_is_not_carried_out(stop):
    device = Device()
    device.broker.retained[TOPICS.command("stop")] = b'{"id": "a"}'
    device.boot()
    assert codes(device, TOPICS.response) == ["retained"]
    assert stop.done == []


def test_a_verb_that_is_not_known_here():
    device = settled()
    # The broker may have a subscription of a newer agent.
    device.broker._optional += (TOPICS.command("dance"),)
    device.order(TOPICS.command("dance"), {"id": "a"})
    assert codes(device) == ["unknown"]


def test_a_command_that_the_configuration_does_not_allow_is_not_carried_out(stop):
    device = Device(images=("api:1",), commands=frozenset(("report",))).boot()
    device.command("stop")
    device.command("report", "c2")
    first, second = device.answers()
    assert code(first) == "forbidden"
    assert "DEVICE_AGENT_COMMANDS" in first["error"]["message"]
    assert second["status"] == "ok"
    assert stop.done == []


def test_what_only_local_people_may_ask_is_no_command():
    device = settled()
    for verb in ("apply", "backup", "restore", "status", "version"):
        device.broker._optional += (TOPICS.command(verb),)
        device.command(verb, verb)
    assert codes(device) == ["unknown"] * 5


def test_a_broker_that_lets_no_commands_through_is_no_reason_to_stay_away():
    device = Device(images=("api:1",))
    device.broker.forbidden = frozenset(TOPICS.commands(VERBS))
    device.boot()
    device.publish()
    device.converge()
    assert device.ups() == {"web/api"}


# Once.


def test_a_command_is_on_disk_before_its_puback_and_answered_after(stop):
    device = settled()
    device.fuse.reset()
    device.command("stop", app="web")
    calls = [call for call in device.fuse.calls if call in ("commit", "committed", "puback") or "publish " in call]
    assert calls == ["commit", "committed", "commit", "committed", "puback", "publish cloud-sim.1"]
    assert stop.done == [{"app": "web"}]
    assert device.answers()[0]["result"]["done"] == 1


def test_a_repeated_id_is_answered_from_the_record(stop):
    device = settled()
    device.command("stop", app="web")
    device.command("stop", app="web")
    device.cut_power()
    device.boot()
    device.command("stop", app="web")
    assert len(stop.done) == 1
    first, *others = device.answers()
    # Once by itself: it was answered so shortly before the end that nobody knows whether that was heard.
    assert others == [first] * 3


def test_a_repeated_id_of_another_command_is_a_conflict(stop):
    device = settled()
    device.command("stop", app="web")
    device.command("stop", app="db")
    assert code(device.answers()[1]) == "conflict"
    assert len(stop.done) == 1


def test_a_repeated_id_is_answered_even_when_it_has_expired_meanwhile(stop):
    device = settled()
    body = {"id": "a", "expires_at": (NOW + timedelta(seconds=60)).isoformat()}
    device.order(TOPICS.command("stop"), body)
    device.wait(120)
    device.order(TOPICS.command("stop"), body)
    assert [answer["status"] for answer in device.answers()] == ["ok", "ok"]


def test_a_refusal_is_recorded_too(stop):
    device = settled()
    device.command("stop", fail=1)
    device.command("stop", fail=1)
    assert codes(device) == ["not_found", "not_found"]
    assert len(stop.done) == 1


def test_a_full_disk_refuses_and_remembers_nothing(stop):
    device = settled()
    device.store.full = True
    device.command("stop")
    assert codes(device) == ["disk_full"]
    assert not device.broker.unacknowledged
    device.store.full = False
    device.wait(30)
    device.command("stop")
    assert len(stop.done) == 1


def test_an_answer_waits_until_what_was_done_is_on_disk(stop, monkeypatch):
    device = settled()

    def fills_the_disk(agent: Any, args: Any) -> Json:
        device.store.full = True
        return stop(agent, args)

    monkeypatch.setitem(handlers.HANDLERS, "stop", fills_the_disk)
    device.command("stop")
    assert device.answers() == []
    assert len(device.broker.unacknowledged) == 1
    device.store.full = False
    device.wait(30)
    assert device.answers()[0]["status"] == "ok"
    assert not device.broker.unacknowledged


def test_records_are_bounded(stop):
    device = settled()
    for number in range(MOST_RECORDS + 10):
        device.command("stop", f"c{number}")
    kept = sorted(device.store.rows.commands.values(), key=lambda record: record.number)
    assert [kept[0].id, kept[-1].id, len(kept)] == ["c10", f"c{MOST_RECORDS + 9}", MOST_RECORDS]
    device.wait(25 * 3600)
    device.command("stop", "last")
    assert list(device.store.rows.commands) == ["last"]


def test_a_clock_that_was_set_back_does_not_drop_the_newest(stop):
    device = settled()
    for number in range(MOST_RECORDS):
        device.command("stop", f"c{number}")
    device.clock.time -= timedelta(days=400)
    device.command("stop", "a")
    device.command("stop", "a")
    assert len(stop.done) == MOST_RECORDS + 1


def test_a_large_answer_is_told_once(stop):
    device = settled()
    device.command("stop", bytes=50_000)
    device.command("stop", bytes=50_000)
    first, second = device.answers()
    assert first["status"] == "ok"
    assert code(second) == "too_large"
    assert len(stop.done) == 1


# What is lost in between.


def test_an_answer_that_was_not_sent_is_sent_on_the_next_connection_while_it_is_worth_it(stop):
    for away_s, expected in ((60, 1), (EXPIRY_S + 60, 0)):
        device = settled()
        device.broker.hold_pubacks = True
        device.command("stop")
        device.broker.lose_unanswered()
        device.broker.hold_pubacks = False
        device.broker.disconnect()
        device.wait(away_s)
        device.broker.connect()
        device.settle()
        assert len(device.answers()) == expected


def test_too_many_answers_do_not_pile_up():
    device = settled()
    device.broker.hold_pubacks = True
    for number in range(3 * MOST):
        device.command("report", f"c{number}")
    assert len(device.agent.link.answers.waiting) == MOST
    device.broker.hold_pubacks = False
    device.broker.puback(*device.broker.unanswered)
    device.settle()
    assert device.answers()[-1]["id"] == f"c{3 * MOST - 1}"


def test_an_answer_that_the_broker_does_not_take_is_told_to_be_too_large():
    device = settled()
    device.broker.disconnect()
    device.broker.maximum_packet_size = 500
    device.broker.connect()
    device.settle()
    device.command("report")
    assert codes(device) == ["too_large"]


def test_an_answer_that_cannot_be_told_at_all_is_given_up():
    device = settled()
    device.broker.disconnect()
    device.broker.maximum_packet_size = 500
    device.broker.connect()
    device.settle()
    device.order(TOPICS.command("report"), {}, correlation=b"c" * 256)
    device.command("report", "c2")
    assert [answer["id"] for answer in device.answers()] == ["c2"]
    assert not device.agent.link.answers.waiting


@pytest.mark.parametrize("world_too", [False, True], ids=["the agent", "the machine"])
def test_the_power_is_cut_at_every_call_of_a_command(stop, world_too):
    whole = settled()
    whole.fuse.reset()
    whole.command("stop")
    calls = len(whole.fuse.calls)
    assert calls >= 6
    seen = set()
    for number in range(1, calls + 1):
        stop.done.clear()
        device = settled()
        device.fuse.reset(number)
        with pytest.raises(PowerCut) as cut:
            device.command("stop")
        where = f"call {number}: {cut.value}"
        begun = device.store.rows.commands
        assert not stop.done or begun, f"{where}: carried out, and not on disk"
        pubacked = any(message.topic == TOPICS.command("stop") for message in device.pubacked())
        assert begun or not pubacked, f"{where}: acknowledged, and not on disk"
        device.cut_power(world_too=world_too)
        device.boot()
        # Whoever asked sends it once more when he has heard nothing.
        if not device.answers():
            device.command("stop")
        device.converge()
        assert len(stop.done) <= 1, where
        said = device.answers()
        assert said, f"{where}: nobody was answered"
        outcome = "ok" if said[-1]["status"] == "ok" else code(said[-1])
        assert outcome in ("ok", "interrupted"), where
        assert outcome == "interrupted" or stop.done, where
        assert len({json.dumps(answer["status"]) for answer in said}) == 1, f"{where}: {said}"
        seen.add(outcome)
        assert not device.broker.unacknowledged, where
    assert seen == {"ok", "interrupted"}


def test_every_effect_is_recorded():
    device = settled()
    known = [verb for verb in EFFECTS if verb in handlers.HANDLERS]
    for verb in known:
        device.order(TOPICS.command(verb), {"id": verb, "args": {"no such": "argument"}})
    assert set(device.store.rows.commands) == set(known) - {"purge"}


def test_a_command_that_comes_before_the_first_look_waits_for_it():
    device = settled()
    device.cut_power()
    waiting = json.dumps({"id": "c1", "args": {"app": "web"}}).encode()
    device.broker.arrive(TOPICS.command("restart"), waiting, response_topic=REPLY)
    # As an agent does that finds its broker before its engine has answered.
    device.boot(connect=False)
    device.agent.reconciler.observed, observed = None, device.agent.reconciler.observed
    device.broker.connect()
    device.agent.handle(device.inbox.get_nowait())
    device.agent.handle(device.inbox.get_nowait())
    device.agent.tick()
    assert device.answers() == []
    assert len(device.broker.unacknowledged) >= 1
    device.agent.reconciler.observed = observed
    device.settle()
    assert device.answers()[0]["status"] == "ok"
    assert TOPICS.command("restart") not in {message.topic for message in device.broker.unacknowledged.values()}

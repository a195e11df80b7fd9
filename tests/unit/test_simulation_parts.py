import json
import resource
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from cloud_sim.cli.commands import app
from cloud_sim.connection import Misconfigured
from cloud_sim.simulation.faults import CRASH, FAILURES, PULL, Behaviour, Dice, EveryImage
from cloud_sim.simulation.figures import RECEIVED, Figures, resident_mib, together
from cloud_sim.simulation.network import make_room
from cloud_sim.simulation.processes import part_of, shares
from cloud_sim.simulation.store import OUTBOX_ROWS, MemoryStore
from cloud_sim.simulation.timers import Timers
from device_agent.model.errors import EngineError
from device_agent.model.report import Ack, Have, State
from device_agent.model.target import Version
from device_agent.wire.messages import Head, encode_ack, encode_state
from tests.builders import NOW, payload
from tests.device import TOPICS, Hands


def test_timers_run_what_is_due_in_order():
    clock, ran = Hands(), []
    timers = Timers(clock.monotonic)
    for delay, name in ((2, "late"), (1, "first"), (1, "second"), (5, "not yet")):
        timers.after(delay, lambda name=name: ran.append(name))
    clock.pass_(3)
    timers.run(1)
    assert (ran, len(timers), timers.next_due()) == (["first", "second", "late"], 1, clock.monotonic() + 2)


def test_timers_stop_when_their_time_is_over():
    clock, ran = Hands(), []
    timers = Timers(clock.monotonic)
    for name in ("first", "second"):
        timers.after(0, lambda name=name: (ran.append(name), clock.pass_(1)))
    timers.run(0.5)
    assert ran == ["first"]


def test_a_job_for_now_that_a_job_adds_waits_for_the_next_call():
    clock, ran = Hands(), []
    timers = Timers(clock.monotonic)

    def again() -> None:
        ran.append(1)
        clock.pass_(0.001)
        timers.after(0, again)

    timers.after(0, again)
    timers.run(1)
    assert ran == [1]


def test_the_outbox_of_a_simulated_device_is_bounded():
    store = MemoryStore(NOW)
    with store.transaction() as rows:
        for _ in range(OUTBOX_ROWS + 5):
            rows.queue("ack", lambda seq: b"%d" % seq)
    first = store.outbox(0, 1)[0]
    assert (store.outbox_counts().rows, store.outbox_counts().dropped) == (OUTBOX_ROWS, 5)
    assert first.seq == int(NOW.timestamp()) + 6
    assert [row.seq for row in store.outbox(first.seq, 2)] == [first.seq + 1, first.seq + 2]
    store.unqueue(first.seq)
    assert store.outbox_counts().rows == OUTBOX_ROWS - 1


def test_session_numbers_are_above_those_of_an_earlier_device_of_that_name():
    store = MemoryStore(NOW)
    first = store.reserve_sessions(64)
    assert first > int(NOW.timestamp()) - 1
    assert store.reserve_sessions(64) == first + 64


def test_chance_is_the_same_again_for_the_same_seed():
    def outcomes(seed: int, device: str = "d1") -> list[float | None]:
        dice = Dice(Behaviour(failures={**FAILURES, CRASH: 0.5}, seed=seed), device)
        return [dice.crashes_after_s() for _ in range(50)]

    assert outcomes(1) == outcomes(1) != outcomes(2)
    assert outcomes(1) != outcomes(1, "d2")
    assert {chance is None for chance in outcomes(1)} == {True, False}


def test_chance_is_the_same_for_a_device_however_others_and_other_calls_come_between():
    behaviour = Behaviour(failures={**FAILURES, CRASH: 0.5}, seed=5)
    alone, among = Dice(behaviour, "d1"), Dice(behaviour, "d1")
    expected = [alone.crashes_after_s() for _ in range(20)]
    found = []
    for _ in range(20):
        among.takes_s(PULL)
        found.append(among.crashes_after_s())
    assert found == expected
    assert 1 <= min(among.takes_s(PULL) for _ in range(50)) < max(among.takes_s(PULL) for _ in range(50)) < 3


def test_what_is_never_to_fail_never_does():
    dice = Dice(Behaviour(), "d1")
    for _ in range(100):
        dice.before_call(PULL, ("api:1",))
    with pytest.raises(EngineError, match="simulated"):
        Dice(Behaviour(failures={**FAILURES, PULL: 1.0}), "d1").before_call(PULL, ("api:1",))


def test_the_registry_has_every_image():
    registry = EveryImage()
    assert "docker.io/library/api:1" in registry
    assert registry["docker.io/library/api:1"] == registry["docker.io/library/api:1"]
    assert registry["docker.io/library/api:1"] != registry["docker.io/library/api:2"]


def ack(verdict: str, **keys: object) -> bytes:
    return encode_ack(Ack(verdict, "fleet", Version(1, 1), **keys), Head("d1", 1, 1, NOW))


def test_answers_are_timed_by_what_was_answered():
    figures = Figures()
    figures.published("fleet", Version(1, 1), 0.0)
    figures.received("d1", TOPICS.fleet_target, payload())
    figures.confirmed("d1", TOPICS.ack, ack("accepted"))
    figures.confirmed("d1", TOPICS.ack, ack("applying", app="web"))
    figures.confirmed("d1", TOPICS.ack, ack("failed", app="web", code="no_such_image"))
    figures.confirmed("d1", TOPICS.state, b"{}")
    times = figures.answers["fleet", Version(1, 1)].times()
    assert times.keys() == {RECEIVED, "accepted"}
    assert 0 < times[RECEIVED].last < times["accepted"].first
    assert figures.failures == {"failed no_such_image": 1}


def test_without_a_publication_it_counts_from_the_first_receipt():
    figures = Figures()
    for number in range(3):
        figures.received(f"d{number}", TOPICS.fleet_target, payload())
    times = figures.answers["fleet", Version(1, 1)].times()[RECEIVED]
    assert (times.count, times.first) == (3, 0.0)
    assert times.median <= times.last


def test_only_the_newest_targets_are_timed():
    figures = Figures()
    for revision in range(1, 40):
        figures.received("d1", TOPICS.fleet_target, payload(revision=revision))
    assert list(figures.answers) == [("fleet", Version(1, revision)) for revision in range(32, 40)]


def test_junk_is_counted_and_not_timed():
    figures = Figures()
    for junk in (b"", b"{", json.dumps({"schema": 2}).encode()):
        figures.received("d1", TOPICS.fleet_target, junk)
    assert (figures.messages_in, figures.answers) == (3, {})


def test_a_device_counts_once_for_a_target_and_an_answer_however_often_it_reconnects():
    figures = Figures()
    for _ in range(3):
        for device in ("d1", "d2"):
            figures.received(device, TOPICS.fleet_target, payload())
            figures.confirmed(device, TOPICS.ack, ack("accepted"))
    answers = figures.answers["fleet", Version(1, 1)]
    assert {what: times.count for what, times in answers.times().items()} == {RECEIVED: 2, "accepted": 2}
    assert figures.messages_in == 6
    assert figures.told().answers["fleet", Version(1, 1)].times() == answers.times()


def test_who_has_converged_is_known_from_the_states_of_those_that_have_a_target():
    figures, told = Figures(), State({}, None, True, None, {})
    figures.confirmed("d1", TOPICS.state, encode_state(told, Head("d1", 1, 1, NOW)))
    assert not figures.converged
    told = replace(told, have={"fleet": Have(Version(1, 1), "sha256:0")})
    figures.confirmed("d1", TOPICS.state, encode_state(told, Head("d1", 1, 2, NOW)))
    assert figures.converged == {"d1"}
    figures.confirmed("d1", TOPICS.state, b'{"converged":false}')
    assert not figures.converged


def test_a_state_that_the_broker_does_not_have_proves_nothing():
    figures = Figures()
    figures.sent(TOPICS.state, b'{"converged":true}')
    assert (figures.messages_out, figures.converged) == (1, set())
    figures.confirmed("d1", TOPICS.state, b'{"converged":true}')
    assert figures.converged == {"d1"}


def test_what_the_parts_of_a_fleet_tell_is_told_as_one():
    first, second = Figures(), Figures()
    for figures in (second, first):
        figures.received("d1", TOPICS.fleet_target, payload())
        figures.confirmed("d1", TOPICS.ack, ack("failed", app="web", code="no_such_image"))
    first.sent(TOPICS.state, b'{"converged":true}')
    first.confirmed("d1", TOPICS.state, b'{"converged":true}')
    whole = together((first.told(), second.told()))
    assert (whole.messages_in, whole.messages_out, len(first.converged)) == (2, 1, 1)
    assert whole.failures == {"failed no_such_image": 2}
    times = whole.answers["fleet", Version(1, 1)].times()[RECEIVED]
    assert (times.count, times.first) == (2, 0.0)


@pytest.mark.parametrize(("devices", "count"), [(5000, 2), (7, 3), (3, 3), (1, 1)])
def test_every_device_and_every_break_of_a_storm_belongs_to_one_share(devices: int, count: int):
    parts = shares(devices, count)
    assert [number for first, size in parts for number in range(first, first + size)] == list(range(1, devices + 1))
    for storm in (0, 1, devices):
        assert sum(part_of(storm, first, size, devices) for first, size in parts) == storm
    assert all(part_of(devices, first, size, devices) == size for first, size in parts)


def test_memory_of_a_process():
    assert resident_mib() > 1
    assert resident_mib(2**22 + 1) is None


def test_more_devices_than_files_are_refused_with_what_to_do():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with pytest.raises(Misconfigured, match=f"simulate at most {hard - 64} here"):
        make_room(hard)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--fail", "pull"], "NAME=VALUE"),
        (["--fail", "pul=0.5"], "one of pull, start, crash"),
        (["--fail", "pull=2"], "from 0 to 1"),
        (["--latency", "pull=soon"], "not a duration"),
        (["--storm", "500"], "500@30s"),
        (["--storm", "many@3s"], "500@30s"),
        (["--for", "0s"], "takes a while"),
        (["--storm", "2@3s"], "there are 1 devices"),
        (["--storm", "0@3s"], "there are 1 devices"),
        (["--storm", "1@0s"], "write a later time"),
        (["--storm", "1@2s", "--for", "1s"], "over by then"),
        (["--storm", "1@2s", "--for", "2s"], "over by then"),
        (["--fail", "crash=0.1,crash=0.9"], "crash twice"),
        (["--broker-pid", "-1"], "equal to 1"),
        (["--broker-pid", str(2**22 + 1)], "no such process"),
    ],
)
def test_options_that_cannot_be_meant(arguments: list[str], said: str):
    result = CliRunner().invoke(app, ["simulate", "--fleet", "plant7", "--devices", "1", *arguments])
    assert result.exit_code == 2
    assert said in result.output

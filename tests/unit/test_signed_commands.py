"""Commands to a device with trusted keys: a broker can delay them, and not make, change, swap or repeat one."""

import json
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from device_agent.adapters.store import open_store
from device_agent.core import commands as module
from device_agent.core.commands import SKEW
from device_agent.model.command import LONGEST, Command, Signed
from device_agent.runtime import commands as handlers
from device_agent.wire.commands import EFFECTS, VERBS, encode_command
from device_agent.wire.dsse import COMMAND, TARGET, load_trusted_keys, seal
from tests.builders import NOW, app, payload, service
from tests.device import REPLY, TOPICS, Device, PowerCut
from tests.signing import ALICE, BOB, MALLORY, trust
from tests.unit.test_remote_commands import Counting

MINUTE = timedelta(minutes=1)
FEW = 5


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> Counting:
    counting = Counting()
    monkeypatch.setitem(handlers.HANDLERS, "stop", counting)
    return counting


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return trust(tmp_path / "keys", alice=ALICE)


@pytest.fixture
def device(folder: Path) -> Device:
    return asking(folder)


def asking(folder: Path, threshold: int = 1, **options: Any) -> Device:
    device = Device(images=("api:1",), trusted=partial(load_trusted_keys, folder, threshold), **options).boot()
    device.bring(seal(payload({"web": app(api=service("api:1"))}), [ALICE, BOB]))
    device.converge()
    return device


def body(
    verb: str = "stop",
    id_: str = "c1",
    *,
    fleet: str = "plant7",
    device: str | None = "d1",
    at: datetime = NOW,
    lasts: timedelta = MINUTE,
    **args: Any,
) -> bytes:
    return encode_command(Command(id_, args, at + lasts, Signed(verb, fleet, device, at)))


def signed(*keys: Ed25519PrivateKey, **said: Any) -> bytes:
    return seal(body(**said), keys or (ALICE,), COMMAND)


def give(device: Device, raw: bytes, verb: str = "stop", *, to_all: bool = False) -> None:
    device.order(TOPICS.broadcast(verb) if to_all else TOPICS.command(verb), raw)
    if to_all:
        device.wait(5)


def codes(device: Device, topic: str = REPLY) -> list[str]:
    """What was answered, in order: `ok`, `running`, or why it was refused."""
    answers = device.answers(topic)
    return [answer["error"]["code"] if answer["status"] == "error" else answer["status"] for answer in answers]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device remembers so many commands."""
    monkeypatch.setattr(module, "MOST_RECORDS", FEW)


# What is taken.


def test_every_verb_is_taken_signed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = {verb: Counting() for verb in EFFECTS if verb != "purge"}
    for verb, counting in counted.items():
        monkeypatch.setitem(handlers.HANDLERS, verb, counting)
    device = asking(folder)
    for verb in VERBS:
        device.order(TOPICS.command(verb), signed(verb=verb, id_=verb, at=device.clock.now()))
    assert {verb: len(counting.done) for verb, counting in counted.items()} == dict.fromkeys(counted, 1)
    said = {answer["id"]: answer for answer in device.answers()}
    assert said["report"]["status"] == "ok"
    # What deletes data has to be allowed by name, whoever signs it.
    assert said["purge"]["error"]["code"] == "forbidden"
    assert {answer["error"]["code"] for answer in said.values() if answer["status"] == "error"} == {
        "forbidden",
        "malformed",  # `plan`, `explain` and `logs` miss their arguments
    }


def test_unsigned_only_what_changes_nothing_and_tells_nothing_new(device: Device) -> None:
    for verb in VERBS:
        device.command(verb, verb, app="web")
    refused = {answer["id"] for answer in device.answers() if answer.get("error", {}).get("code") == "signature"}
    assert refused == set(VERBS) - {"report", "plan", "explain"}
    assert "explain, plan, report" in device.answers()[-1]["error"]["message"]
    assert device.store.rows.commands == {}
    assert not device.broker.unacknowledged


def test_the_settings_say_what_is_taken_at_all_and_what_unsigned(folder: Path, stop: Counting) -> None:
    device = asking(folder, commands=frozenset(("stop", "report")), unsigned=frozenset(("stop", "start")))
    device.command("stop", "a")
    device.command("start", "b")
    device.command("report", "c")
    for verb in ("stop", "start", "report"):
        device.order(TOPICS.command(verb), signed(verb=verb, id_=f"signed {verb}", at=device.clock.now()))
    said = {answer["id"]: answer.get("error", {}).get("code") for answer in device.answers()}
    assert said == {
        "a": None,
        "b": "forbidden",
        "c": "signature",
        "signed stop": None,
        "signed start": "forbidden",
        "signed report": None,
    }
    assert len(stop.done) == 2


def test_a_broadcast_is_signed_for_every_device(device: Device, stop: Counting) -> None:
    give(device, signed(device=None, at=device.clock.now(), app="web"), to_all=True)
    assert stop.done == [{"app": "web"}]


def test_so_many_different_keys_must_have_signed(folder: Path, stop: Counting) -> None:
    trust(folder, alice=ALICE, bob=BOB)
    device = asking(folder, threshold=2)
    for keys in ((ALICE,), (ALICE, ALICE), (ALICE, MALLORY)):
        give(device, signed(*keys, at=device.clock.now()))
    give(device, signed(ALICE, BOB, at=device.clock.now()))
    assert codes(device) == ["signature"] * 3 + ["ok"]
    assert len(stop.done) == 1


def test_keys_are_rotated_while_the_agent_runs(device: Device, folder: Path, stop: Counting) -> None:
    trust(folder, bob=BOB)
    give(device, signed(ALICE, at=device.clock.now()))
    give(device, signed(BOB, id_="c2", at=device.clock.now()))
    assert codes(device) == ["signature", "ok"]
    shutil.rmtree(folder)
    give(device, signed(BOB, id_="c3", at=device.clock.now()))
    assert "no signature can be checked" in device.answers()[-1]["error"]["message"]
    device.command("report", "c4")
    assert codes(device)[-1] == "ok"
    assert len(stop.done) == 1


def test_without_trusted_keys_an_envelope_is_opened_as_it_is(stop: Counting) -> None:
    device = Device(images=("api:1",)).boot()
    give(device, signed(MALLORY))
    give(device, seal(body(id_="c2"), [], COMMAND))
    assert len(stop.done) == 2
    give(device, signed(verb="start", id_="c3"))
    assert codes(device) == ["ok", "ok", "scope"]


# What a broker can do to them.


def bent(raw: bytes, old: bytes, new: bytes) -> bytes:
    """An envelope with other contents, and its old signatures."""
    envelope, inside = json.loads(raw), body()
    assert old in inside
    envelope["payload"] = json.loads(seal(inside.replace(old, new), [], COMMAND))["payload"]
    return json.dumps(envelope).encode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"verb":"stop"', b'"verb":"purge"'),
        (b'"device":"d1"', b'"device":null'),
        (b'"id":"c1"', b'"id":"c2"'),
        (b'"args":{}', b'"args":{"app":"web"}'),
        (b'"issued_at":"2026', b'"issued_at":"2027'),
        (b'"expires_at":"2026', b'"expires_at":"2027'),
        (b"}", b"} "),
    ],
)
def test_what_was_changed_is_refused(device: Device, stop: Counting, old: bytes, new: bytes) -> None:
    give(device, bent(signed(), old, new))
    assert codes(device) == ["signature"]
    assert stop.done == []
    assert device.store.rows.commands == {}
    assert not device.broker.unacknowledged


@pytest.mark.parametrize(
    "raw",
    [
        seal(body(), [ALICE], TARGET).replace(TARGET.encode(), COMMAND.encode()),
        signed(MALLORY),
        seal(body(), [], COMMAND),
        seal(b"{{{", [MALLORY], COMMAND),
    ],
    ids=["signed as a target", "a stranger's", "nobody's", "a stranger's nonsense"],
)
def test_what_is_not_well_signed_is_refused(device: Device, stop: Counting, raw: bytes) -> None:
    device.order(TOPICS.command("stop"), raw, correlation=b"mine")
    (answer,) = device.answers()
    assert (answer["id"], answer["error"]["code"]) == ("mine", "signature")
    assert stop.done == []


def test_a_signed_target_is_no_command_and_a_signed_command_no_target(device: Device, stop: Counting) -> None:
    give(device, seal(payload({}, revision=2, allow_empty=True), [ALICE]))
    assert codes(device) == ["malformed"]
    device.bring(signed())
    assert device.acks()[-1]["code"] == "malformed"
    assert stop.done == []
    assert device.ups() == {"web/api"}


@pytest.mark.parametrize(
    ("said", "verb", "to_all"),
    [
        ({"verb": "start"}, "stop", False),
        ({"device": "d2"}, "stop", False),
        ({"device": None}, "stop", False),
        ({"device": "d1"}, "stop", True),
        ({"fleet": "plant8"}, "stop", False),
        ({"fleet": "plant8", "device": None}, "stop", True),
    ],
)
def test_what_was_signed_for_another_topic_is_refused(
    device: Device, stop: Counting, said: Any, verb: str, to_all: bool
) -> None:
    give(device, signed(at=device.clock.now(), **said), verb, to_all=to_all)
    assert codes(device) == ["scope"]
    assert stop.done == []


def test_its_answer_goes_where_devices_answer_and_nowhere_else(device: Device, stop: Counting) -> None:
    device.order(TOPICS.command("stop"), signed(at=device.clock.now()), reply_to=TOPICS.state)
    assert codes(device, TOPICS.response) == ["response_topic"]
    # A broker may send it elsewhere within the fleet: it is carried out, once.
    device.order(TOPICS.command("stop"), signed(at=device.clock.now()), reply_to=f"{REPLY}x")
    assert len(stop.done) == len(device.answers(f"{REPLY}x")) == 1


def restart(device: Device) -> None:
    device.cut_power()
    device.boot()


def test_one_that_is_given_again_is_answered_and_not_carried_out(device: Device, stop: Counting) -> None:
    raw = signed(at=device.clock.now(), lasts=LONGEST)
    for _ in range(3):
        give(device, raw)
        restart(device)
    assert len(stop.done) == 1
    assert set(codes(device)) == {"ok"}


def test_a_repeated_id_that_was_signed_anew_is_another_command(device: Device, stop: Counting) -> None:
    """Else it could be given again when the first one's record has gone."""
    give(device, signed(at=device.clock.now()))
    give(device, signed(at=device.clock.now(), lasts=LONGEST))
    give(device, b'{"id": "c1"}')
    assert codes(device) == ["ok", "conflict", "signature"]
    assert len(stop.done) == 1


def test_after_its_expiry_it_is_refused(device: Device, stop: Counting) -> None:
    raw = signed(at=device.clock.now())
    device.wait(60)
    give(device, raw)
    assert codes(device) == ["expired"]
    assert stop.done == []


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("back", [timedelta(seconds=30), timedelta(days=365 * 50)], ids=["a little", "1976"])
def test_a_forgotten_one_does_not_come_again_with_a_clock_that_is_set_back(
    device: Device, stop: Counting, back: timedelta
) -> None:
    """The record of the first goes when there are too many; then the clock says that it has not expired."""
    first = device.clock.now()
    raw = signed(id_="first", at=first)
    give(device, raw)
    device.clock.time += timedelta(hours=1)
    for number in range(FEW):
        give(device, signed(id_=f"c{number}", at=device.clock.now()))
    assert "first" not in device.store.rows.commands
    device.clock.time = first + timedelta(seconds=10) - back
    restart(device)
    before = len(stop.done)
    give(device, raw)
    assert codes(device)[-1] in ("expired", "clock")
    assert len(stop.done) == before == FEW + 1


def test_a_clock_that_is_behind_takes_nothing_that_is_signed(device: Device, stop: Counting) -> None:
    """1970 after a power cut: what expired long ago looks as if it had not."""
    raw = signed(at=device.clock.now())
    device.clock.time = datetime.fromtimestamp(60, device.clock.time.tzinfo)
    give(device, raw)
    assert codes(device) == ["clock"]
    device.command("report", "c2")
    assert codes(device)[-1] == "ok"
    assert stop.done == []


def test_clocks_may_differ_a_little(device: Device, stop: Counting) -> None:
    ahead = device.clock.now() + SKEW
    give(device, signed(at=ahead))
    # And what somebody with a slower clock signs is taken after it, however soon it expires.
    give(device, signed(id_="c2", at=device.clock.now(), lasts=timedelta(seconds=15)))
    assert len(stop.done) == 2


@pytest.mark.usefixtures("few")
def test_what_has_not_expired_is_not_forgotten_for_another(device: Device, stop: Counting) -> None:
    for number in range(FEW):
        give(device, signed(id_=f"c{number}", at=device.clock.now(), lasts=LONGEST))
    give(device, signed(id_="one more", at=device.clock.now()))
    assert codes(device)[-1] == "busy"
    # Time alone does not help, as a clock can be set back; a command that was signed later does.
    device.clock.time += LONGEST
    give(device, signed(id_="tomorrow", at=device.clock.now() - SKEW, lasts=LONGEST))
    assert codes(device)[-1] == "busy"
    give(device, signed(id_="then", at=device.clock.now() + SKEW))
    assert codes(device)[-1] == "ok"
    assert "c0" not in device.store.rows.commands
    assert len(stop.done) == FEW + 1
    assert not device.broker.unacknowledged


@pytest.mark.usefixtures("few")
def test_an_unsigned_one_makes_room(folder: Path, stop: Counting) -> None:
    device = asking(folder, unsigned=frozenset(("stop",)))
    device.command("stop", "bare")
    for number in range(FEW):
        give(device, signed(id_=f"c{number}", at=device.clock.now(), lasts=LONGEST))
    assert "bare" not in device.store.rows.commands
    device.command("stop", "bare")
    assert codes(device)[-1] == "busy"


def test_a_replayed_question_is_answered_until_it_expires(device: Device) -> None:
    raw = signed(verb="report", at=device.clock.now())
    for _ in range(2):
        give(device, raw, "report")
    device.wait(60)
    give(device, raw, "report")
    assert codes(device) == ["ok", "ok", "expired"]


# On disk.


@pytest.fixture
def on_disk(folder: Path, tmp_path: Path) -> Iterator[Callable[[], Device]]:
    """A device over the real store; called again, it is the same one after a power cut."""
    device = Device(images=("api:1",), trusted=partial(load_trusted_keys, folder, 1))

    def boot() -> Device:
        device.cut_power()
        device.store.close()
        device.store = open_store(tmp_path / "data", device.clock)
        return device.boot()

    (tmp_path / "data").mkdir()
    yield boot
    device.store.close()


def test_it_is_remembered_on_disk_until_it_expires(on_disk: Callable[[], Device], stop: Counting) -> None:
    device = on_disk()
    raw = signed(at=device.clock.now(), lasts=LONGEST)
    give(device, raw)
    device.clock.time += LONGEST - MINUTE
    device = on_disk()
    give(device, signed(id_="c2", at=device.clock.now()))
    device = on_disk()
    give(device, raw)
    assert len(stop.done) == 2
    kept = {record.id: record.expires_at for record in device.agent.commands.records.values()}
    assert kept == {"c1": NOW + LONGEST, "c2": NOW + LONGEST}


@pytest.mark.parametrize("world_too", [False, True], ids=["the agent", "the machine"])
def test_the_power_is_cut_at_every_call_of_a_signed_command(folder: Path, stop: Counting, world_too: bool) -> None:
    whole = asking(folder)
    raw = signed(at=whole.clock.now())
    whole.fuse.reset()
    give(whole, raw)
    calls = len(whole.fuse.calls)
    assert calls >= 6
    for number in range(1, calls + 1):
        stop.done.clear()
        device = asking(folder)
        device.fuse.reset(number)
        with pytest.raises(PowerCut) as cut:
            give(device, raw)
        device.cut_power(world_too=world_too)
        device.boot()
        give(device, raw)
        device.converge()
        where = f"call {number}: {cut.value}"
        assert len(stop.done) <= 1, where
        assert codes(device)[-1] in ("ok", "interrupted"), where

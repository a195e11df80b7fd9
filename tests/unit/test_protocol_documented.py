"""docs/protocol.md as somebody reads it who writes another cloud: every example is what is really sent and taken."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from device_agent.core.scopes import effective_digest
from device_agent.model.canonical import digest
from device_agent.model.errors import Refused
from device_agent.model.target import Version
from device_agent.model.validate import validate_apps
from device_agent.wire import commands, uplink
from device_agent.wire.dsse import COMMAND, TARGET, keyid, load_trusted_keys, open_envelope, seal
from device_agent.wire.target import read_target
from tests.signing import ALICE, MALLORY, public_pem, trusted

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
GOLDEN = ROOT / "tests" / "golden"
TIMES = ("at", "since", "started_at", "next_try_at", "expires_at")


def examples() -> list[dict[str, Any]]:
    """Each JSON object of the page, with a time where it says `…` for one."""
    found: list[dict[str, Any]] = []
    for block in re.findall(r"```json\n(.*?)```", PROTOCOL, re.DOTALL):
        rest = block.strip()
        while rest:
            value, end = json.JSONDecoder(object_hook=filled).raw_decode(rest)
            found.append(value)
            rest = rest[end:].strip()
    return found


def filled(value: dict[str, Any]) -> dict[str, Any]:
    return {key: "2026-11-22T10:00:01.120Z" if key in TIMES and inner == "…" else inner for key, inner in value.items()}


def kind(example: dict[str, Any]) -> str:
    for name, key in (
        ("target", "apps" if "scope" in example else ""),
        ("signed command", "verb" if "args" in example else ""),
        ("envelope", "payload"),
        ("ack", "verdict"),
        ("event", "event"),
        ("session", "online"),
        ("state", "converged"),
        ("log", "lines"),
        ("progress", "done"),
        ("answer", "verb"),
        ("command", "args"),
    ):
        if key in example:
            return name
    raise AssertionError(f"nobody knows what this is: {example}")


EXAMPLES = examples()
DECODERS: dict[str, Callable[[bytes], Any]] = {
    "target": lambda raw: validate_apps(read_target(raw).apps),
    "ack": uplink.decode_ack,
    "event": uplink.decode_event,
    "session": uplink.decode_session,
    "state": uplink.decode_state,
    "answer": commands.decode_answer,
    "command": commands.read_command,
}


def test_every_message_is_shown() -> None:
    assert {kind(example) for example in EXAMPLES} >= DECODERS.keys() | {"envelope", "event", "log", "progress"}


@pytest.mark.parametrize("example", EXAMPLES, ids=kind)
def test_an_example_is_read_as_what_it_is(example: dict[str, Any]) -> None:
    if decode := DECODERS.get(kind(example)):
        decode(json.dumps(example).encode())
        with pytest.raises(Refused):
            decode(json.dumps(example)[:-1].encode())


def shape(value: Any, where: str = "") -> set[str]:
    """The pointers of all keys, with `*` for what has names of the user's and for items."""
    if isinstance(value, list):
        return {inner for item in value for inner in shape(item, f"{where}/*")}
    if not isinstance(value, dict):
        return set()
    named = where.rpartition("/")[2] in ("apps", "services")
    return {
        found
        for key, inner in value.items()
        for here in (f"{where}/{'*' if named else key}",)
        for found in ({here} | shape(inner, here))
    }


@pytest.mark.parametrize(
    ("what", "files"),
    [
        ("state", ["state.json"]),
        ("session", ["session-birth.json", "session-will.json", "session-farewell.json"]),
        ("ack", ["ack-rejected.json"]),
        ("event", ["event.json"]),
        ("progress", ["progress.json"]),
        ("log", ["commands/log.json"]),
        ("answer", ["commands/answer-ok.json", "commands/answer-error.json"]),
        ("command", ["commands/command.json"]),
        ("signed command", ["commands/command-signed.json"]),
        ("target", ["targets/target.json"]),
        ("envelope", ["targets/signed.json", "commands/envelope.json"]),
    ],
)
def test_an_example_has_the_keys_that_are_really_sent(what: str, files: list[str]) -> None:
    sent = [shape(json.loads((GOLDEN / file).read_text(encoding="utf-8"))) for file in files]
    shown = [shape(example) for example in EXAMPLES if kind(example) == what]
    for each in shown:
        assert any(each <= real for real in sent), [sorted(each - real) for real in sent]
    for real in sent:
        top = {key for key in real if key.count("/") == 1}
        assert any(top - {"/engine"} <= each for each in shown), sorted(top)


def test_the_digests_that_it_names_are_those_of_its_target() -> None:
    (target,) = (example for example in EXAMPLES if kind(example) == "target")
    assert target == json.loads((GOLDEN / "targets" / "target.json").read_text(encoding="utf-8"))
    assert f"`digest` is `{digest(target)}`" in PROTOCOL
    assert f"`effective_digest` `{effective_digest(target['apps'])}`" in PROTOCOL


def test_its_signed_target_is_what_this_signs_and_opens() -> None:
    raw = (GOLDEN / "targets" / "target.json").read_bytes()
    envelope = json.loads((GOLDEN / "targets" / "signed.json").read_text(encoding="utf-8"))
    assert (GOLDEN / "targets" / "signing.pem").read_bytes() == public_pem(ALICE)
    assert json.loads(seal(raw, [ALICE])) == envelope
    assert open_envelope(envelope, load_trusted_keys(GOLDEN / "targets"), TARGET) == raw
    assert read_target(json.dumps(envelope).encode(), trusted=trusted(ALICE)).version == Version(1, 42)
    with pytest.raises(Refused):
        open_envelope(envelope, trusted(MALLORY), TARGET)
    (shown,) = (example for example in EXAMPLES if example.get("payloadType") == TARGET)
    assert shown["payloadType"] == envelope["payloadType"]
    assert [each["keyid"] for each in shown["signatures"]] == [keyid(ALICE.public_key())]
    for short, whole in (
        (shown["payload"], envelope["payload"]),
        (shown["signatures"][0]["sig"], envelope["signatures"][0]["sig"]),
    ):
        assert whole.startswith(short.removesuffix("…"))


def test_its_signed_command_is_what_this_signs_and_reads() -> None:
    (shown,) = (example for example in EXAMPLES if example.get("payloadType") == COMMAND)
    (inside,) = (example for example in EXAMPLES if kind(example) == "signed command")
    raw = json.dumps(inside, separators=(",", ":")).encode()
    assert json.loads(seal(raw, [ALICE], COMMAND)) == shown
    command = commands.read_command(json.dumps(shown).encode(), trusted=lambda: trusted(ALICE))
    assert command.signed
    assert (command.id, command.signed.verb, command.signed.device) == ("cloud-7f3a", "stop", "d1")
    with pytest.raises(Refused):
        commands.read_command(json.dumps(shown).encode(), trusted=lambda: trusted(MALLORY))


def test_every_event_that_is_sent_is_in_its_table() -> None:
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "device_agent").rglob("*.py"))
    sent = set(re.findall(r'Happening\(\s*"(\w+)"', sources))
    assert len(sent) > 5
    assert {name for name in sent if f"`{name}`" not in PROTOCOL} == set()

"""Commands and answers on the wire: read strictly, written as the documentation shows them."""

import contextlib
import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from device_agent.model.command import Command, Signed
from device_agent.model.errors import Problem, Refused
from device_agent.model.log import LogLine
from device_agent.wire.commands import (
    ALLOWED,
    EFFECTS,
    READS,
    SPREAD_S,
    UNSIGNED,
    VERBS,
    Answer,
    correlation_id,
    decode_answer,
    encode_answer,
    encode_command,
    read_command,
    spread_s,
    verbs_of,
)
from device_agent.wire.dsse import COMMAND, TARGET, open_envelope, seal
from device_agent.wire.log import LogMessage, decode_log, encode_log
from tests.signing import ALICE, BOB, MALLORY, trusted

GOLDEN = Path(__file__).parents[1] / "golden" / "commands"
AT = datetime(2026, 11, 22, 10, 0, 1, 120_000, tzinfo=UTC)
STOP = Command("cloud-7f3a", {"app": "web", "service": "api"}, AT + timedelta(seconds=60))
SIGNED = Command(STOP.id, STOP.args, STOP.expires_at, Signed("stop", "plant7", "d1", AT))
DONE = {"status": "ok", "result": {"app": "web", "services": ["api"]}}
REFUSED = {
    "status": "error",
    "error": {
        "code": "malformed",
        "message": "/expires_at must be a time with its zone",
        "errors": [{"pointer": "/expires_at", "message": "must be a time with its zone"}],
    },
}


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("command", encode_command(STOP)),
        ("command-signed", encode_command(SIGNED)),
        ("envelope", seal(encode_command(SIGNED), [ALICE], COMMAND)),
        ("answer-ok", encode_answer("d1", "stop", "cloud-7f3a", AT, DONE)),
        ("log", encode_log("d1", "cloud-7f3a", 1, [LogLine("ready", at="2026-11-22T10:00:01.120000000Z")], 0)),
        ("answer-error", encode_answer("d1", "stop", None, AT, REFUSED)),
    ],
)
def test_a_message_is_as_its_golden_file(name, body):
    golden = json.loads((GOLDEN / f"{name}.json").read_bytes())
    assert json.loads(body) == golden
    assert list(json.loads(body)) == list(golden)


def test_a_command_is_read_back():
    assert read_command(encode_command(STOP)) == STOP
    assert read_command(encode_command(Command("a", {}))) == Command("a", {})


def envelope(change: dict[str, Any] | None = None, *keys: Ed25519PrivateKey, without: str = "") -> bytes:
    """A signed command, changed before it is signed."""
    body = json.loads(encode_command(SIGNED)) | (change or {})
    body.pop(without, None)
    return seal(json.dumps(body).encode(), keys or (ALICE,), COMMAND)


def test_a_signed_command_is_read_back():
    assert read_command(envelope(), trusted=lambda: trusted(ALICE)) == SIGNED
    assert read_command(gzip.compress(envelope()), trusted=lambda: trusted(ALICE)) == SIGNED
    everybody = {"scope": {"fleet": "plant7", "device": None}}
    for said in (everybody, {"scope": {"fleet": "plant7"}}):
        assert read_command(envelope(said)).signed == Signed("stop", "plant7", None, AT)
    # Where no keys are trusted it is opened as it is.
    assert read_command(envelope()) == read_command(seal(encode_command(SIGNED), [], COMMAND)) == SIGNED


def test_keys_are_read_for_an_envelope_alone():
    def unreadable():
        raise Refused("signature", "no signature can be checked")

    assert read_command(encode_command(STOP), trusted=unreadable) == STOP
    with pytest.raises(Refused, match="no signature can be checked"):
        read_command(envelope(), trusted=unreadable)


def test_the_correlation_data_are_not_signed_and_stand_for_nothing():
    with pytest.raises(Refused, match="/id is missing"):
        read_command(envelope(without="id"), None, b"mine")


@pytest.mark.parametrize("key", ["schema", "verb", "scope", "id", "issued_at", "expires_at"])
def test_what_a_signed_command_must_say(key):
    with pytest.raises(Refused) as refused:
        read_command(envelope(without=key))
    assert (refused.value.code, refused.value.problems[0].pointer) == ("malformed", f"/{key}")


@pytest.mark.parametrize(
    ("change", "code", "pointer"),
    [
        ({"schema": 2}, "schema", "/schema"),
        ({"schema": True}, "schema", "/schema"),
        ({"verbs": ["stop"]}, "malformed", "/verbs"),
        ({"verb": "Stop!"}, "malformed", "/verb"),
        ({"scope": None}, "malformed", "/scope"),
        ({"scope": {}}, "malformed", "/scope/fleet"),
        ({"scope": {"fleet": "Plant 7"}}, "malformed", "/scope/fleet"),
        ({"scope": {"fleet": "plant7", "device": ""}}, "malformed", "/scope/device"),
        ({"scope": {"fleet": "plant7", "app": "web"}}, "malformed", "/scope"),
        ({"issued_at": "2026-11-22T10:00:00"}, "malformed", "/issued_at"),
        ({"expires_at": "2026-11-22T10:00:01.120Z"}, "malformed", "/expires_at"),
        ({"expires_at": "2026-11-23T10:00:01.121Z"}, "malformed", "/expires_at"),
        ({"expires_at": "9999-12-31T23:59:59.999-23:59"}, "malformed", "/expires_at"),
    ],
)
def test_what_is_no_signed_command_is_refused_with_its_place(change, code, pointer):
    with pytest.raises(Refused) as refused:
        read_command(envelope(change))
    assert (refused.value.code, [problem.pointer for problem in refused.value.problems]) == (code, [pointer])


def test_it_is_good_for_a_day_at_most():
    assert read_command(envelope({"expires_at": "2026-11-23T10:00:01.120Z"})).expires_at == AT + timedelta(hours=24)


def test_nobody_reads_what_is_not_well_signed():
    for raw in (envelope({}, MALLORY), seal(b"{{{", [MALLORY], COMMAND), seal(encode_command(SIGNED), [], COMMAND)):
        with pytest.raises(Refused) as refused:
            read_command(raw, trusted=lambda: trusted(ALICE, BOB))
        assert refused.value.code == "signature"
    with pytest.raises(Refused, match="1 of 2 signatures"):
        read_command(envelope(), trusted=lambda: trusted(ALICE, BOB, threshold=2))
    both = envelope({}, ALICE, BOB)
    assert read_command(both, trusted=lambda: trusted(ALICE, BOB, threshold=2)) == SIGNED


def test_a_signed_target_is_no_command_and_a_signed_command_no_target():
    body = encode_command(SIGNED)
    target, command = (json.loads(seal(body, [ALICE], what)) for what in (TARGET, COMMAND))
    keys = trusted(ALICE)
    for document, payload_type, code in (
        (target, COMMAND, "malformed"),
        (command, TARGET, "malformed"),
        ({**target, "payloadType": COMMAND}, COMMAND, "signature"),
        ({**command, "payloadType": TARGET}, TARGET, "signature"),
    ):
        with pytest.raises(Refused) as refused:
            open_envelope(document, keys, payload_type)
        assert refused.value.code == code


def test_a_refusal_is_short_however_much_is_wrong():
    for raw in (json.dumps({f"{'k' * 500}{n}": 1 for n in range(5000)}).encode(), envelope({"x" * 9000: 1})):
        with pytest.raises(Refused) as refused:
            read_command(raw)
        assert len(refused.value.message) < 2000
        assert len(refused.value.problems) <= 20


def test_an_answer_is_read_back():
    assert decode_answer(encode_answer("d1", "stop", "a", AT, DONE)) == Answer("d1", "a", "ok", DONE["result"])
    problem = Problem("/expires_at", "must be a time with its zone")
    expected = Answer("d1", None, "error", None, "malformed", REFUSED["error"]["message"], (problem,))
    assert decode_answer(encode_answer("d1", "stop", None, AT, REFUSED)) == expected


def test_log_lines_are_read_back():
    lines = (LogLine("one", "stderr", "2026-11-22T10:00:01Z", "web-api-1"), LogLine("two"))
    assert decode_log(encode_log("d1", "a", 7, lines, 3)) == LogMessage("d1", "a", 7, lines, 3)
    for raw in (b"[]", b"{}", b'{"device": "d1", "id": "a", "seq": 1, "lines": [1]}'):
        with pytest.raises(Refused):
            decode_log(raw)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"device": "d1"}', b'{"device": "d1", "status": 1}'])
def test_what_is_no_answer_is_refused(raw):
    with pytest.raises(Refused):
        decode_answer(raw)


@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ("{", "malformed", None),
        ("[]", "malformed", ""),
        ('{"id": "a", "id": "b"}', "malformed", None),
        ('{"id": "a", "arg": {}}', "malformed", "/arg"),
        ('{"id": "a", "schema": 2}', "schema", "/schema"),
        ('{"id": "a", "schema": true}', "schema", "/schema"),
        ('{"args": {}}', "malformed", "/id"),
        ('{"id": ""}', "malformed", "/id"),
        ('{"id": "a\\nb"}', "malformed", "/id"),
        ('{"id": 7}', "malformed", "/id"),
        (f'{{"id": "{"x" * 129}"}}', "malformed", "/id"),
        ('{"id": "a", "args": []}', "malformed", "/args"),
        ('{"id": "a", "expires_at": "tomorrow"}', "malformed", "/expires_at"),
        ('{"id": "a", "expires_at": "2026-11-22T10:00:00"}', "malformed", "/expires_at"),
    ],
)
def test_what_is_no_command_is_refused_with_its_place(body, code, pointer):
    with pytest.raises(Refused) as refused:
        read_command(body.encode())
    assert refused.value.code == code
    assert [problem.pointer for problem in refused.value.problems] == ([] if pointer is None else [pointer])


def test_correlation_data_stand_for_an_id():
    assert read_command(b"", None, b"abc") == Command("abc", {})
    assert read_command(b'{"args": {"app": "web"}}', None, b"\x00\xff") == Command("00ff", {"app": "web"})
    assert read_command(b'{"id": "mine"}', None, b"other").id == "mine"
    with pytest.raises(Refused):
        read_command(b"", None, b"")


@given(st.binary(max_size=300))
def test_whatever_correlation_data_are_they_make_an_id_or_none(data):
    made = correlation_id(data)
    assert (made is None) == (data == b"")
    if made is not None:
        assert read_command(json.dumps({"id": made}).encode()).id == made


@given(st.binary(max_size=100))
def test_whatever_the_bytes_are_the_answer_is_a_command_or_a_refusal(raw):
    with contextlib.suppress(Refused):
        read_command(raw, None, b"x")


def test_the_same_request_is_told_from_another():
    one = Command("a", {"app": "web", "service": "api"})
    assert one.request("stop") == Command("b", {"service": "api", "app": "web"}).request("stop")
    assert one.request("stop") != one.request("start")
    assert one.request("stop") != Command("a", {"app": "web"}).request("stop")
    # Signed anew it is a new one: the old one may still come, and its id is remembered for the old one's time.
    late = replace(SIGNED, expires_at=AT + timedelta(seconds=61))
    assert len({each.request("stop") for each in (STOP, SIGNED, late)}) == 3


def test_what_is_allowed_where_nothing_is_said():
    assert set(VERBS) - {"purge"} == ALLOWED
    assert {"report", "plan", "explain"} == UNSIGNED


def test_what_is_allowed_by_name():
    assert verbs_of("report, purge") == {"report", "purge"}
    assert verbs_of("all") == set(VERBS)
    assert verbs_of("none") == set()
    for wrong in ("dance", "report,,stop", "all,stop", "", "none,report"):
        with pytest.raises(ValueError, match="is not a command"):
            verbs_of(wrong)


def test_every_verb_is_one_that_looks_or_one_that_does():
    assert not set(READS) & set(EFFECTS)
    assert len(set(VERBS)) == len(VERBS)


def test_answers_to_a_broadcast_are_spread_evenly_and_always_in_the_same_way():
    waits = [spread_s("plant7", f"d{number}") for number in range(1000)]
    assert all(0 <= wait < SPREAD_S for wait in waits)
    assert waits == [spread_s("plant7", f"d{number}") for number in range(1000)]
    for part in range(5):
        assert 120 < sum(part <= wait < part + 1 for wait in waits) < 280
    assert spread_s("plant7", "d1") == pytest.approx(2.6208, abs=0.0001)


def test_the_documentation_shows_what_is_sent():
    """Each golden message is on the page, word for word."""
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    section = page[page.index("## Commands") :]
    for file in sorted(GOLDEN.glob("*.json")):
        assert file.read_text(encoding="utf-8").strip() in section, file.name

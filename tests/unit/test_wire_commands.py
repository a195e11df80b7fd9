"""Commands and answers on the wire: read strictly, written as the documentation shows them."""

import contextlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.model.errors import Problem, Refused
from device_agent.model.log import LogLine
from device_agent.wire.commands import (
    EFFECTS,
    READS,
    SPREAD_S,
    VERBS,
    Answer,
    Command,
    allowed_verbs,
    correlation_id,
    decode_answer,
    encode_answer,
    encode_command,
    read_command,
    spread_s,
)
from device_agent.wire.log import LogMessage, decode_log, encode_log

GOLDEN = Path(__file__).parents[1] / "golden" / "commands"
AT = datetime(2026, 11, 22, 10, 0, 1, 120_000, tzinfo=UTC)
STOP = Command("cloud-7f3a", {"app": "web", "service": "api"}, AT + timedelta(seconds=60))
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


def test_what_is_allowed_where_nothing_is_said():
    assert allowed_verbs(None, trusted_keys=False) == set(VERBS) - {"purge"}
    assert allowed_verbs(None, trusted_keys=True) == {"report", "plan", "explain"}


def test_what_is_allowed_by_name():
    for signed in (False, True):
        assert allowed_verbs("report, purge", trusted_keys=signed) == {"report", "purge"}
        assert allowed_verbs("all", trusted_keys=signed) == set(VERBS)
        assert allowed_verbs("none", trusted_keys=signed) == set()
    for wrong in ("dance", "report,,stop", "all,stop", "", "none,report"):
        with pytest.raises(ValueError, match="is not a command"):
            allowed_verbs(wrong, trusted_keys=False)


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

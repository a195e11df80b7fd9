"""Each message has a golden file: what it says must not change by accident, because clouds read it."""

import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from device_agent import __version__
from device_agent.model.errors import Problem, Refused
from device_agent.model.memory import OutboxCounts
from device_agent.model.report import Ack, AppReport, Happening, Have, Reason, ServiceReport, State
from device_agent.model.target import Version
from device_agent.wire.messages import (
    Head,
    encode_ack,
    encode_birth,
    encode_event,
    encode_farewell,
    encode_progress,
    encode_state,
    encode_will,
    time_text,
)
from device_agent.wire.uplink import (
    SessionMessage,
    StateMessage,
    decode_ack,
    decode_event,
    decode_session,
    decode_state,
)

GOLDEN = Path(__file__).parents[1] / "golden"
AT = datetime(2026, 11, 22, 10, 0, 1, 120_000, tzinfo=UTC)
HEAD = Head("d1", 7, 1041, AT)
DIGEST = "sha256:" + "ab" * 32
HAVE = Have(Version(1, 42), DIGEST)
HOST = {"cpu_percent": 10, "memory_mib": 800, "disk_free_mib": 10240, "temperature_c": None, "uptime_s": 86400}

STATE = State(
    have={"fleet": HAVE, "device": None},
    effective_digest=DIGEST,
    converged=False,
    since=AT,
    apps={
        "web": AppReport(
            release="2026.11.22-a",
            revision=Version(1, 42),
            phase="pulling",
            previous="2026.11.20-b",
            warnings=(Problem("/apps/web/x-other", "unknown, ignored"),),
            services={
                "api": ServiceReport(
                    status="pulling",
                    container="web-api-3f2a91",
                    image="registry.example/api:2",
                    image_id="sha256:12",
                    started_at="2026-11-22T09:00:00Z",
                    reason=Reason("registry_unreachable", "no route to registry.example", 3, AT + timedelta(minutes=1)),
                ),
                "migrate": ServiceReport(status="completed", restarts=2, exit_code=0, health="none"),
            },
            reason=Reason("network_in_use", "the network has endpoints"),
        ),
    },
    orphan_volumes=("web_old",),
    outbox_rows=3,
    outbox_dropped=1,
    store="recovered from the sidecar",
    engine="away",
)
NOTHING = State({"fleet": None, "device": None}, None, converged=True, since=None, apps={})
REJECTED = Ack(
    verdict="rejected",
    scope="fleet",
    version=Version(1, 42),
    digest=DIGEST,
    release="2026.11.22-a",
    code="unsupported",
    message="1 place is not supported",
    errors=(Problem("/apps/web/services/api/build", "build on the device is not supported: publish an image"),),
    current=Have(Version(1, 41), DIGEST),
)
FAILED = Ack(
    verdict="failed",
    scope="device",
    version=Version(1, 42),
    digest=DIGEST,
    app="web",
    service="api",
    code="image_missing",
    message="there is no registry.example/api:2",
    warnings=(Problem("/x-note", "unknown, ignored"),),
    attempt=3,
    next_try_at=AT + timedelta(minutes=1),
    cause="pull",
)
FORK = {
    "scope": "fleet",
    "epoch": 1,
    "revision": 42,
    "digest": DIGEST,
    "message": "1.42 was accepted before with another content",
}
EVENT = Happening("target_fork", {**FORK, "seq": "not mine to set", "device": "d9"})

MESSAGES = {
    "session-birth": encode_birth("d1", 7, AT, {"fleet": HAVE, "device": None}, OutboxCounts(3, 1)),
    "session-will": encode_will("d1", 7),
    "session-farewell": encode_farewell("d1", 7, AT),
    "state": encode_state(STATE, HEAD, host=HOST),
    "state-empty": encode_state(NOTHING, HEAD),
    "ack-rejected": encode_ack(REJECTED, HEAD),
    "ack-failed": encode_ack(FAILED, HEAD),
    "ack-malformed": encode_ack(Ack("rejected", "fleet", code="malformed", message="not JSON"), HEAD),
    "event": encode_event(EVENT, HEAD),
    "progress": encode_progress("registry.example/api:2", 10, 40, "d1", AT),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_is_as_its_golden_file(name: str) -> None:
    golden = (GOLDEN / f"{name}.json").read_text().replace("VERSION", __version__)
    assert json.loads(MESSAGES[name]) == json.loads(golden)
    # The order is for people who read it with mosquitto_sub.
    assert list(json.loads(MESSAGES[name])) == list(json.loads(golden))


def test_every_golden_file_is_looked_at() -> None:
    assert {file.stem for file in GOLDEN.glob("*.json")} == set(MESSAGES)


def test_messages_are_compact_utf_8() -> None:
    raw = encode_event(Happening("drift", {"message": "größer"}), HEAD)
    assert "größer".encode() in raw
    assert b" " not in raw


def test_text_that_is_not_unicode_is_made_so() -> None:
    raw = encode_ack(Ack("failed", "fleet", message="log: \ud800\udcff"), HEAD)
    assert decode_ack(raw).ack.message == "log: ??"


def test_times_are_utc_with_milliseconds() -> None:
    assert time_text(AT) == "2026-11-22T10:00:01.120Z"
    assert time_text(AT.replace(microsecond=0)) == "2026-11-22T10:00:01.000Z"
    assert time_text(AT.astimezone(timezone(timedelta(hours=5)))) == "2026-11-22T10:00:01.120Z"


def test_what_is_encoded_is_decoded() -> None:
    assert decode_state(MESSAGES["state"]) == StateMessage(HEAD, __version__, STATE, HOST)
    assert decode_ack(MESSAGES["ack-rejected"]).ack == REJECTED
    assert decode_ack(MESSAGES["ack-failed"]).ack == FAILED
    assert decode_ack(MESSAGES["ack-failed"]).head == HEAD
    assert decode_event(MESSAGES["event"]).event == Happening("target_fork", FORK)
    birth = SessionMessage("d1", 7, True, None, AT, __version__, {"fleet": HAVE, "device": None})
    assert decode_session(MESSAGES["session-birth"]) == birth
    assert decode_session(MESSAGES["session-will"]) == SessionMessage("d1", 7, False, "lost")
    assert decode_session(MESSAGES["session-farewell"]) == SessionMessage("d1", 7, False, "stopped", AT)


def test_unknown_keys_are_ignored_and_absent_ones_have_defaults() -> None:
    least = {"schema": 9, "device": "d1", "session": 1, "seq": 2, "at": "2026-11-22T10:00:00Z", "converged": True}
    assert decode_state(json.dumps({**least, "new": [1]}).encode()).state == NOTHING


DECODERS = {"state": decode_state, "ack": decode_ack, "event": decode_event, "session": decode_session}


@pytest.mark.parametrize(
    ("kind", "place", "value"),
    [
        ("state", ["device"], None),
        ("state", ["session"], "7"),
        ("state", ["session"], True),
        ("state", ["seq"], 1.5),
        ("state", ["at"], "yesterday"),
        ("state", ["at"], "2026-11-22T10:00:00"),
        ("state", ["converged"], 1),
        ("state", ["have"], []),
        ("state", ["have", "fleet"], 1),
        ("state", ["have", "fleet", "epoch"], None),
        ("state", ["apps"], []),
        ("state", ["apps", "web"], None),
        ("state", ["apps", "web", "phase"], 1),
        ("state", ["apps", "web", "revision"], [1]),
        ("state", ["apps", "web", "revision"], [1, "2"]),
        ("state", ["apps", "web", "warnings"], [1]),
        ("state", ["apps", "web", "services", "api"], "x"),
        ("state", ["apps", "web", "services", "api", "status"], None),
        ("state", ["apps", "web", "services", "api", "reason"], "x"),
        ("state", ["apps", "web", "services", "api", "reason", "code"], None),
        ("state", ["orphans", "volumes"], [1]),
        ("ack-rejected", ["verdict"], None),
        ("ack-rejected", ["errors"], {"pointer": ""}),
        ("ack-rejected", ["errors"], [{"pointer": "/a"}]),
        ("event", ["event"], 1),
        ("session-birth", ["online"], "yes"),
        ("session-birth", ["have", "fleet", "revision"], -0.5),
    ],
)
def test_a_wrong_value_is_malformed_and_its_place_is_named(kind: str, place: list[str], value: Any) -> None:
    body = json.loads(MESSAGES[kind])
    inner = body
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    with pytest.raises(Refused) as refused:
        DECODERS[kind.partition("-")[0]](json.dumps(body).encode())
    assert refused.value.code == "malformed"
    assert refused.value.problems[0].pointer.startswith("/" + "/".join(place))


@pytest.mark.parametrize("raw", [b"", b"[]", b"1", b"null", b"{}", b'{"device": "d1", "device": "d2"}'])
def test_what_is_no_message_is_malformed(raw: bytes) -> None:
    for decode in DECODERS.values():
        with pytest.raises(Refused) as refused:
            decode(raw)
        assert refused.value.code == "malformed"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-10, 10) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_change_of_a_message_is_read_or_refused(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(MESSAGES.keys() - {"progress"})))
    body = json.loads(MESSAGES[name])
    inner, steps = body, data.draw(st.integers(0, 4))
    for _ in range(steps):
        children = [child for child in inner.values() if isinstance(child, dict) and child]
        if children:
            inner = data.draw(st.sampled_from(children))
    inner[data.draw(st.sampled_from(sorted(inner)))] = data.draw(JSON)
    for decode in DECODERS.values():
        try:
            decode(json.dumps(body).encode())
        except Refused as refused:
            assert refused.code == "malformed"  # noqa: PT017

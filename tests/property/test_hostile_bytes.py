"""Whatever the bytes are, every decoder answers with its own error: bytes at random, JSON at random, and messages that
were good once."""

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud_sim.connection import Arrived
from cloud_sim.database import Database
from cloud_sim.hearing import Hearing
from device_agent.adapters.control_socket import ControlSocket
from device_agent.core.intake import want
from device_agent.core.policy import Policy
from device_agent.model.errors import Refused
from device_agent.model.validate import validate_apps
from device_agent.wire import commands, dsse, payload, uplink
from device_agent.wire.target import check_keys, glimpse, ignored_keys, open_target, read_version
from device_agent.wire.topics import ACK, EVENT, SESSION, STATE
from tests.builders import NAMING, app, document, service
from tests.device import online
from tests.signing import ALICE, trusted

GOLDEN = Path(__file__).parents[1] / "golden"
CODES = {"too_large", "malformed", "signature", "schema", "scope", "invalid", "unsupported", "cycle", "policy"}

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["\ud800", "", "\0", "a" * 300, "${X}", "2026-11-22T10:00:00Z", "-1", "1.5g", "../..", "~/x"])
)
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)
GOOD: list[Any] = [
    *(json.loads(file.read_text(encoding="utf-8")) for file in sorted(GOLDEN.rglob("*.json"))),
    document(),
    document({"web": app({"volumes": {"v": {}}, "x-release": {"healthy_for": "1s"}}, api=service(ports=["8080:80"]))}),
    json.loads(dsse.seal(json.dumps(document()).encode(), [ALICE])),
    {"id": "1", "args": {"app": "web"}, "expires_at": "2026-11-22T10:00:00Z"},
    json.loads(dsse.seal((GOLDEN / "commands" / "command-signed.json").read_bytes(), [ALICE], dsse.COMMAND)),
]


@st.composite
def spoilt(draw: st.DrawFn) -> Any:
    """A good message, of which a few places anywhere in it are now something else, gone, or new."""
    value = json.loads(json.dumps(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(1, 3))):
        holder: Any = value
        for _depth in range(draw(st.integers(0, 6))):
            below = list(holder.values()) if isinstance(holder, dict) else holder
            inner = [item for item in below if isinstance(item, dict | list) and item]
            if not inner:
                break
            holder = draw(st.sampled_from(inner))
        if isinstance(holder, list):
            holder[draw(st.integers(0, len(holder) - 1))] = draw(anything)
        else:
            key = draw(st.sampled_from(sorted(holder)) | st.text(max_size=6)) if holder else draw(st.text(max_size=6))
            if draw(st.booleans()) or key not in holder:
                holder[key] = draw(anything)
            else:
                del holder[key]
    return value


def as_bytes(value: Any) -> bytes:
    return json.dumps(value).encode()


@st.composite
def bent(draw: st.DrawFn) -> bytes:
    """The bytes of a good message, with some changed, left out or put in."""
    raw = bytearray(as_bytes(draw(st.sampled_from(GOOD))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(raw)


messages = st.binary(max_size=200) | bent() | spoilt().map(as_bytes) | anything.map(as_bytes)


def refuses(decode: Callable[..., Any], *arguments: Any) -> None:
    """Nothing but its own error comes out."""
    try:
        decode(*arguments)
    except Refused as refused:
        assert refused.code in CODES  # noqa: PT017 - a value is as right
        assert len(refused.message) < 2000  # noqa: PT017


def whole_way(raw: bytes, keys: dsse.TrustedKeys | None) -> None:
    body: Any = None
    try:
        body = open_target(raw, trusted=keys)
        target = read_version(body, raw=raw)
        check_keys(body)
        ignored_keys(body)
        want({target.scope: target}, NAMING, Policy())
    finally:
        glimpse(body)


@given(messages)
@settings(max_examples=400, deadline=None)
def test_targets(raw: bytes) -> None:
    for keys in (None, trusted(ALICE)):
        refuses(whole_way, raw, keys)


def read_signed(raw: bytes) -> None:
    commands.read_command(raw, None, b"c1", trusted=lambda: trusted(ALICE))


@pytest.mark.parametrize(
    "decode",
    [
        read_signed,
        uplink.decode_session,
        uplink.decode_state,
        uplink.decode_ack,
        uplink.decode_event,
        commands.read_command,
        commands.decode_answer,
        payload.read,
    ],
    ids=lambda decode: decode.__name__,
)
@given(raw=messages)
@settings(max_examples=150, deadline=None)
def test_every_other_decoder(decode: Callable[[bytes], Any], raw: bytes) -> None:
    refuses(decode, raw)


@given(spoilt() | bent())
@settings(max_examples=150, deadline=None)
def test_what_somebody_with_a_key_signs(inside: Any) -> None:
    """Nobody reads it before its signature is found good; whatever is in it then, it is refused like any other."""
    raw = inside if isinstance(inside, bytes) else as_bytes(inside)
    refuses(read_signed, dsse.seal(raw, [ALICE], dsse.COMMAND))


@given(spoilt() | anything)
@settings(max_examples=200, deadline=None)
def test_envelopes(value: Any) -> None:
    for keys in (None, trusted(ALICE)):
        refuses(dsse.open_envelope, value, keys, dsse.TARGET)


@given(st.dictionaries(st.text(max_size=6), spoilt() | anything, max_size=3))
@settings(max_examples=200, deadline=None)
def test_apps(apps: dict[str, Any]) -> None:
    refuses(validate_apps, apps)


@given(messages, st.sampled_from([SESSION, STATE, ACK, EVENT]))
@settings(max_examples=200, deadline=None)
def test_a_cloud_hears_what_devices_say(raw: bytes, kind: str) -> None:
    database = Database(":memory:", "x")
    hearing = Hearing(database, lambda _told: None)
    hearing.hear("d1", kind, Arrived("t", raw))
    hearing.devices()
    database.close()


@pytest.mark.parametrize("verb", ["status", "plan", "explain", "apply", "restore", "version", "restart", "logs", "\0"])
def test_the_control_sockets_questions(verb: str) -> None:
    device = online()

    @given(st.dictionaries(st.sampled_from(["target", "app", "service", "content"]) | st.text(max_size=5), anything))
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.differing_executors])
    def ask(args: dict[str, Any]) -> None:
        answer = device.ask(verb, **args)
        assert answer["status"] in ("ok", "error")
        json.dumps(answer)

    ask()


@given(st.lists(st.binary(max_size=60) | spoilt().map(as_bytes), max_size=4))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_control_sockets_bytes(tmp_path_factory: pytest.TempPathFactory, lines: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    asked: list[str] = []

    def answer(verb: str, _args: object, reply: Callable[[Any], None]) -> None:
        asked.append(verb)
        reply({"status": "ok", "result": None})

    control = ControlSocket(path, answer)
    control.start()
    try:
        for line in lines:
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(5)
                client.connect(str(path))
                client.sendall(line.replace(b"\n", b" ") + b"\n")
                said = b""
                while chunk := client.recv(4096):
                    said += chunk
            assert json.loads(said)["status"] in ("ok", "error")
    finally:
        control.close()

"""Commands and their answers ⇄ bytes, and which verbs there are.

The device reads a command strictly: a typing mistake in it must not be half a command. A cloud reads an answer
tolerantly, as all that comes up.
"""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from device_agent.model.command import LONGEST, Command, Signed
from device_agent.model.errors import Problem, Refused
from device_agent.model.target import DEVICE, FLEET, Json
from device_agent.wire import dsse, payload
from device_agent.wire.dsse import TrustedKeys
from device_agent.wire.fields import Fields
from device_agent.wire.messages import SCHEMA, encode, time_text
from device_agent.wire.topics import ID, VERB

LOGS, REPORT = "logs", "report"
READS = (REPORT, "plan", "explain", LOGS)
"""Verbs that change nothing: they are not recorded, and one that comes again is simply run again."""
EFFECTS = ("restart", "stop", "start", "purge", "unlock", "retry", "prune")
"""Verbs that change something: each id is carried out once."""
VERBS = (*READS, *EFFECTS)

ALL, NONE = "all", "none"
ALLOWED = frozenset(VERBS) - {"purge"}
"""What may come over MQTT where nothing is said: all but what deletes data, which has to be named."""
UNSIGNED = frozenset((REPORT, "plan", "explain"))
"""Of it, what a broker that is not trusted may ask: it learns no more than the state and the targets tell it anyway."""

SPREAD_S = 5.0
"""Answers to a broadcast come within this time, each device's at a moment of its own."""

OK, ERROR, RUNNING = "ok", "error", "running"
_LONGEST_ID = 128
_MOST_UNKNOWN, _SHOWN = 20, 80
"""Unknown keys that a refusal names, and characters of each."""
_KEYS = frozenset(("schema", "id", "args", "expires_at"))
_SIGNED_KEYS = _KEYS | {"verb", "scope", "issued_at"}


def verbs_of(setting: str) -> frozenset[str]:
    """`all`, `none`, or names of verbs with commas between. Raises ValueError."""
    words = frozenset(word.strip() for word in setting.split(","))
    if words in ({ALL}, {NONE}):
        return frozenset(VERBS) if words == {ALL} else frozenset()
    for word in sorted(words):
        if word not in VERBS:
            raise ValueError(f"{word!r} is not a command: {', '.join(VERBS)}, or {ALL} or {NONE} alone")
    return words


def spread_s(fleet: str, device: str) -> float:
    """How long a device waits with its answer to a broadcast: the same each time, and different for each device."""
    number = int.from_bytes(hashlib.sha256(f"{fleet}/{device}".encode()).digest()[:4], "big")
    return SPREAD_S * number / 2**32


def correlation_id(correlation: bytes | None) -> str | None:
    """The id that Correlation Data stand for: their text, or where they are none, their bytes in hexadecimal."""
    if not correlation:
        return None
    try:
        text = correlation.decode()
    except UnicodeDecodeError:
        text = correlation.hex()
    return text if _is_id(text) else correlation.hex()[:_LONGEST_ID]


def _is_id(text: str) -> bool:
    return 0 < len(text) <= _LONGEST_ID and text.isprintable()


def no_keys() -> TrustedKeys | None:
    """Signatures are not asked for."""
    return None


def read_command(
    raw: bytes,
    content_type: str | None = None,
    correlation: bytes | None = None,
    limits: payload.Limits = payload.DEFAULT_LIMITS,
    trusted: Callable[[], TrustedKeys | None] = no_keys,
) -> Command:
    """Without a payload there are no args. `trusted` is called for an envelope only; it may raise `Refused`, too.

    Raises `Refused`: `too_large`, `signature`, `schema`, or `malformed` with every place.
    """
    body = payload.read(raw, content_type, limits) if raw else {}
    if dsse.is_envelope(body):
        return _read_signed(payload.parse(dsse.open_envelope(body, trusted(), dsse.COMMAND)))
    fields = _fields(body, _KEYS)
    id_ = fields.maybe_text("id")
    if id_ is None:
        id_ = correlation_id(correlation)
    if id_ is None:
        raise fields.wrong("id", "is missing, and so are Correlation Data")
    return Command(_checked(id_, fields), _args(fields), fields.maybe_time("expires_at"))


def _read_signed(body: Json) -> Command:
    """Everything is inside: of what is outside, the topic and the Correlation Data, nothing is signed."""
    fields = _fields(body, _SIGNED_KEYS)
    fields.whole("schema")
    scope = fields.inner("scope")
    if scope is None:
        raise fields.wrong("scope", "is missing")
    if not scope.value.keys() <= {FLEET, DEVICE}:
        raise fields.wrong("scope", "must be a fleet and a device")
    fleet, device = _named(scope, FLEET), None if scope.value.get(DEVICE) is None else _named(scope, DEVICE)
    signed = Signed(_named(fields, "verb", VERB), fleet, device, fields.time("issued_at"))
    expires_at = fields.time("expires_at")
    if not timedelta(0) < expires_at - signed.issued_at <= LONGEST:
        raise fields.wrong(
            "expires_at", f"must be after issued_at, and by {LONGEST.total_seconds() / 3600:g} h at most"
        )
    return Command(_checked(fields.text("id"), fields), _args(fields), expires_at, signed)


def _fields(body: Json, known: frozenset[str]) -> Fields:
    if not isinstance(body, dict):
        raise Refused("malformed", "a command is an object", (Problem("", "must be an object"),))
    unknown = tuple(Problem(f"/{key[:_SHOWN]}", "is not known") for key in sorted(body.keys() - known)[:_MOST_UNKNOWN])
    if unknown:
        raise Refused("malformed", f"unknown: {', '.join(problem.pointer for problem in unknown)}", unknown)
    schema = body.get("schema", SCHEMA)
    if schema != SCHEMA or isinstance(schema, bool):
        raise Refused("schema", f"the schema is not {SCHEMA}", (Problem("/schema", f"must be {SCHEMA}"),))
    return Fields(body)


def _named(fields: Fields, key: str, pattern: re.Pattern[str] = ID) -> str:
    name = fields.text(key)
    if not pattern.fullmatch(name):
        raise fields.wrong(key, f"must be {pattern.pattern}")
    return name


def _checked(id_: str, fields: Fields) -> str:
    if not _is_id(id_):
        raise fields.wrong("id", f"must be 1 to {_LONGEST_ID} printable characters")
    return id_


def _args(fields: Fields) -> Mapping[str, Json]:
    args = fields.inner("args")
    return args.value if args else {}


def encode_command(command: Command) -> bytes:
    """The body: what is sent, or what goes into the envelope (`dsse.seal` with `dsse.COMMAND`)."""
    body: dict[str, Json] = {"schema": SCHEMA}
    if command.signed is not None:
        signed = command.signed
        body |= {"verb": signed.verb, "scope": {FLEET: signed.fleet, DEVICE: signed.device}}
    body |= {"id": command.id, "args": dict(command.args)}
    if command.signed is not None:
        body["issued_at"] = time_text(command.signed.issued_at)
    if command.expires_at is not None:
        body["expires_at"] = time_text(command.expires_at)
    return encode(body)


def encode_answer(device: str, verb: str, id_: str | None, at: datetime, answer: Mapping[str, Json]) -> bytes:
    """`answer` is `{"status", "result"}` or `{"status", "error"}`. An id is null where none could be read."""
    return encode({"schema": SCHEMA, "device": device, "verb": verb, "id": id_, "at": time_text(at), **answer})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a device answered. `result` where the status is `ok` or `running`; else `code`, `message` and `errors`."""

    device: str
    id: str | None
    status: str
    result: Json = None
    code: str | None = None
    message: str | None = None
    errors: tuple[Problem, ...] = ()


def decode_answer(raw: bytes) -> Answer:
    """Raises `Refused` (`malformed`)."""
    body = payload.read(raw)
    if not isinstance(body, dict):
        raise Refused("malformed", "not an object")
    fields = Fields(body)
    error = fields.inner("error")
    return Answer(
        device=fields.text("device"),
        id=fields.maybe_text("id"),
        status=fields.text("status"),
        result=body.get("result"),
        code=error.maybe_text("code") if error else None,
        message=error.maybe_text("message") if error else None,
        errors=tuple(Problem(e.text("pointer"), e.text("message")) for e in error.items("errors")) if error else (),
    )

"""Commands and their answers ⇄ bytes, and which verbs there are.

The device reads a command strictly: a typing mistake in it must not be half a command. A cloud reads an answer
tolerantly, as all that comes up.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from device_agent.model.canonical import digest
from device_agent.model.errors import Problem, Refused
from device_agent.model.target import Json
from device_agent.wire import payload
from device_agent.wire.fields import Fields
from device_agent.wire.messages import SCHEMA, encode, time_text

LOGS, REPORT = "logs", "report"
READS = (REPORT, "plan", "explain", LOGS)
"""Verbs that change nothing: they are not recorded, and one that comes again is simply run again."""
EFFECTS = ("restart", "stop", "start", "purge", "unlock", "retry", "prune")
"""Verbs that change something: each id is carried out once."""
VERBS = (*READS, *EFFECTS)

ALL, NONE = "all", "none"
_BY_NAME = frozenset(("purge",))
"""Never allowed but by name: it deletes data."""
_FROM_ANYBODY = frozenset((REPORT, "plan", "explain"))
"""What a broker that is not trusted may ask: it learns no more than the state and the targets tell it anyway."""

SPREAD_S = 5.0
"""Answers to a broadcast come within this time, each device's at a moment of its own."""

OK, ERROR, RUNNING = "ok", "error", "running"
_LONGEST_ID = 128
_KEYS = frozenset(("schema", "id", "args", "expires_at"))


@dataclass(frozen=True, slots=True)
class Command:
    """`id` makes it idempotent: the asker's, or made of the Correlation Data."""

    id: str
    args: Mapping[str, Json]
    expires_at: datetime | None = None

    def request(self, verb: str) -> str:
        """Tells two commands apart that have the same id."""
        return digest({"verb": verb, "args": dict(self.args)})


def allowed_verbs(setting: str | None, *, trusted_keys: bool) -> frozenset[str]:
    """The verbs that may come over MQTT: `all`, `none`, or names with commas between. Raises ValueError.

    None: all that delete no data; with trusted keys, where the broker is not trusted and commands are not signed, only
    what changes nothing and tells nothing that the state does not tell.
    """
    if setting is None:
        return _FROM_ANYBODY if trusted_keys else frozenset(VERBS) - _BY_NAME
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


def read_command(
    raw: bytes,
    content_type: str | None = None,
    correlation: bytes | None = None,
    limits: payload.Limits = payload.DEFAULT_LIMITS,
) -> Command:
    """Raises `Refused`: `too_large`, `schema`, or `malformed` with every place. Without a payload there are no args."""
    body = payload.read(raw, content_type, limits) if raw else {}
    if not isinstance(body, dict):
        raise Refused("malformed", "a command is an object", (Problem("", "must be an object"),))
    unknown = tuple(Problem(f"/{key}", "is not known") for key in sorted(body.keys() - _KEYS))
    if unknown:
        raise Refused("malformed", f"unknown: {', '.join(problem.pointer for problem in unknown)}", unknown)
    if body.get("schema", SCHEMA) != SCHEMA:
        raise Refused("schema", f"the schema is not {SCHEMA}", (Problem("/schema", f"must be {SCHEMA}"),))
    fields = Fields(body)
    id_ = fields.maybe_text("id")
    if id_ is None:
        id_ = correlation_id(correlation)
    if id_ is None:
        raise fields.wrong("id", "is missing, and so are Correlation Data")
    if not _is_id(id_):
        raise fields.wrong("id", f"must be 1 to {_LONGEST_ID} printable characters")
    args = fields.inner("args")
    return Command(id_, args.value if args else {}, fields.maybe_time("expires_at"))


def encode_command(command: Command) -> bytes:
    body: dict[str, Json] = {"schema": SCHEMA, "id": command.id, "args": dict(command.args)}
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

"""What a device told → models, for the cloud's side. Tolerant: unknown keys are ignored, absent ones have defaults.

Bytes that cannot be such a message raise `Refused` (`malformed`, with the place), never anything else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from device_agent.model.errors import Problem, Refused
from device_agent.model.report import Ack, AppReport, Happening, Have, Reason, ServiceReport, State
from device_agent.model.target import SCOPES, Json, Version
from device_agent.wire import payload
from device_agent.wire.fields import Fields
from device_agent.wire.messages import Head

_HEAD = frozenset(("schema", "device", "session", "seq", "at", "event"))


@dataclass(frozen=True, slots=True)
class SessionMessage:
    """A birth (`online`) or a death. A Will has no `at`; only a birth has the rest."""

    device: str
    session: int
    online: bool
    reason: str | None = None
    at: datetime | None = None
    agent: str | None = None
    have: Mapping[str, Have | None] | None = None


@dataclass(frozen=True, slots=True)
class StateMessage:
    head: Head
    agent: str | None
    state: State
    host: Mapping[str, Json] | None = None


@dataclass(frozen=True, slots=True)
class AckMessage:
    head: Head
    ack: Ack


@dataclass(frozen=True, slots=True)
class EventMessage:
    head: Head
    event: Happening


def decode_session(raw: bytes) -> SessionMessage:
    body = _read(raw)
    have = body.inner("have")
    return SessionMessage(
        device=body.text("device"),
        session=body.whole("session"),
        online=body.flag("online"),
        reason=body.maybe_text("reason"),
        at=body.maybe_time("at"),
        agent=body.maybe_text("agent"),
        have=_haves(have) if have else None,
    )


def decode_state(raw: bytes) -> StateMessage:
    body = _read(raw)
    outbox, orphans = body.inner("outbox"), body.inner("orphans")
    host = body.inner("host")
    return StateMessage(
        head=_head(body),
        agent=body.maybe_text("agent"),
        state=State(
            have=_haves(body.inner("have")),
            effective_digest=body.maybe_text("effective_digest"),
            converged=body.flag("converged"),
            since=body.maybe_time("since"),
            apps={name: _app(app) for name, app in body.inners("apps")},
            orphan_volumes=orphans.texts("volumes") if orphans else (),
            outbox_rows=(outbox.maybe_whole("rows") if outbox else None) or 0,
            outbox_dropped=(outbox.maybe_whole("dropped") if outbox else None) or 0,
            store=_status(body, "store"),
            engine=_status(body, "engine"),
            shortened=body.maybe_text("shortened"),
        ),
        host=host.value if host else None,
    )


def decode_ack(raw: bytes) -> AckMessage:
    body = _read(raw)
    epoch, revision = body.maybe_whole("epoch"), body.maybe_whole("revision")
    current = body.inner("have")
    return AckMessage(
        head=_head(body),
        ack=Ack(
            verdict=body.text("verdict"),
            scope=body.text("scope"),
            version=None if epoch is None or revision is None else Version(epoch, revision),
            digest=body.maybe_text("digest"),
            release=body.maybe_text("release"),
            app=body.maybe_text("app"),
            service=body.maybe_text("service"),
            code=body.maybe_text("code"),
            message=body.maybe_text("message"),
            errors=_problems(body, "errors"),
            warnings=_problems(body, "warnings"),
            attempt=body.maybe_whole("attempt"),
            next_try_at=body.maybe_time("next_try_at"),
            cause=body.maybe_text("cause"),
            current=_have(current) if current else None,
        ),
    )


def decode_event(raw: bytes) -> EventMessage:
    body = _read(raw)
    own = {key: value for key, value in body.value.items() if key not in _HEAD}
    return EventMessage(_head(body), Happening(body.text("event"), own))


def _read(raw: bytes) -> Fields:
    body = payload.read(raw)
    if not isinstance(body, dict):
        raise Refused("malformed", "not an object")
    return Fields(body)


def _head(body: Fields) -> Head:
    return Head(body.text("device"), body.whole("session"), body.whole("seq"), body.time("at"))


def _haves(body: Fields | None) -> dict[str, Have | None]:
    inner = {scope: body.inner(scope) if body else None for scope in SCOPES}
    return {scope: _have(have) if have else None for scope, have in inner.items()}


def _have(body: Fields) -> Have:
    return Have(Version(body.whole("epoch"), body.whole("revision")), body.maybe_text("digest"))


def _status(body: Fields, key: str) -> str:
    inner = body.inner(key)
    return inner.text("status") if inner else "ok"


def _app(body: Fields) -> AppReport:
    revision = body.value.get("revision")
    if revision is not None:
        if not isinstance(revision, list) or len(revision) != len(Version._fields):
            raise body.wrong("revision", "must be [epoch, revision]")
        pair = Fields(dict(zip(Version._fields, revision, strict=True)), f"{body.pointer}/revision")
        revision = Version(pair.whole("epoch"), pair.whole("revision"))
    return AppReport(
        release=body.maybe_text("release"),
        revision=revision,
        phase=body.text("phase"),
        services={name: _service(service) for name, service in body.inners("services")},
        previous=body.maybe_text("previous"),
        warnings=_problems(body, "warnings"),
        reason=_reason(body),
    )


def _service(body: Fields) -> ServiceReport:
    return ServiceReport(
        status=body.text("status"),
        container=body.maybe_text("container"),
        image=body.maybe_text("image"),
        image_id=body.maybe_text("image_id"),
        started_at=body.maybe_text("started_at"),
        restarts=body.maybe_whole("restarts") or 0,
        exit_code=body.maybe_whole("exit_code"),
        health=body.maybe_text("health"),
        reason=_reason(body),
    )


def _reason(body: Fields) -> Reason | None:
    inner = body.inner("reason")
    if inner is None:
        return None
    return Reason(
        code=inner.text("code"),
        message=inner.text("message"),
        attempt=inner.maybe_whole("attempt"),
        next_try_at=inner.maybe_time("next_try_at"),
    )


def _problems(body: Fields, key: str) -> tuple[Problem, ...]:
    return tuple(Problem(item.text("pointer"), item.text("message")) for item in body.items(key))

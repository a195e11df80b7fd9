"""What a device tells → bytes, exactly as the protocol shows it.

Numbering and time (`Head`) are added here, so that two equal states are one message. Acks and events leave out the
keys that do not apply; a state always has all of them, as null where there is nothing to say, because it is the whole
truth and not a change. Nothing here fails: text that is not Unicode (a log's tail) is made so.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from device_agent import __version__
from device_agent.model.errors import Problem
from device_agent.model.host import HostFigures
from device_agent.model.memory import OutboxCounts
from device_agent.model.report import Ack, AppReport, Happening, Have, Reason, ServiceReport, State
from device_agent.model.target import SCOPES, Json

SCHEMA = 1

LOST, STOPPED = "lost", "stopped"


@dataclass(frozen=True, slots=True)
class Head:
    """Whose message it is, in which session, and its number: a state's own, or the outbox's for acks and events."""

    device: str
    session: int
    seq: int
    at: datetime


def encode_state(state: State, head: Head, *, host: Mapping[str, Json] | None = None) -> bytes:
    """The retained `state`. `host` are the host's figures, left out where there are none yet."""
    body = _head(head) | state_body(state)
    if host is not None:
        body["host"] = dict(host)
    return encode(body)


def state_body(state: State) -> dict[str, Json]:
    """A state without its head: what is published and what the CLI shows are the same."""
    body: dict[str, Json] = {
        "agent": __version__,
        "have": {scope: _have(state.have.get(scope)) for scope in SCOPES},
        "effective_digest": state.effective_digest,
        "converged": state.converged,
        "since": state.since and time_text(state.since),
        "apps": {name: _app(app) for name, app in state.apps.items()},
        "orphans": {"volumes": list(state.orphan_volumes)},
        "outbox": {"rows": state.outbox_rows, "dropped": state.outbox_dropped},
        "store": {"status": state.store},
    }
    if state.engine != "ok":
        body["engine"] = {"status": state.engine}
    if state.shortened:
        body["shortened"] = state.shortened
    return body


def host_body(figures: HostFigures) -> dict[str, Json]:
    """The host's figures as a state tells them."""
    return {
        "cpu_percent": figures.cpu_percent,
        "memory_mib": figures.memory_mib,
        "disk_free_mib": figures.disk_free_mib,
        "temperature_c": figures.temperature_c,
        "uptime_s": figures.uptime_s,
    }


def encode_ack(ack: Ack, head: Head) -> bytes:
    return encode(
        _head(head)
        | _present(
            {
                "scope": ack.scope,
                "epoch": ack.version and ack.version.epoch,
                "revision": ack.version and ack.version.revision,
                "digest": ack.digest,
                "release": ack.release,
                "app": ack.app,
                "service": ack.service,
                "verdict": ack.verdict,
                "code": ack.code,
                "message": ack.message,
                "errors": _problems(ack.errors) or None,
                "warnings": _problems(ack.warnings) or None,
                "attempt": ack.attempt,
                "next_try_at": ack.next_try_at and time_text(ack.next_try_at),
                "cause": ack.cause,
                "from": ack.from_ and dict(ack.from_),
                "to": ack.to and dict(ack.to),
                "have": _have(ack.current),
            }
        )
    )


def encode_event(event: Happening, head: Head) -> bytes:
    """An ack's head, the event's name, and its own fields; none of them can replace a key of the head."""
    return encode({**_head(head), "event": event.name, **{k: v for k, v in event.fields.items() if k not in _RESERVED}})


def encode_birth(
    device: str, session: int, at: datetime, have: Mapping[str, Have | None], outbox: OutboxCounts
) -> bytes:
    return encode(
        _session(device, session, online=True)
        | {
            "at": time_text(at),
            "agent": __version__,
            "have": {scope: _have(have.get(scope)) for scope in SCOPES},
            "outbox": {"rows": outbox.rows, "dropped": outbox.dropped},
        }
    )


def encode_will(device: str, session: int) -> bytes:
    """What the broker says when the connection breaks. It is fixed at CONNECT: it has no number and no time."""
    return encode(_session(device, session, online=False) | {"reason": LOST})


def encode_farewell(device: str, session: int, at: datetime) -> bytes:
    return encode(_session(device, session, online=False) | {"reason": STOPPED, "at": time_text(at)})


def encode_progress(image: str, done: int, total: int, device: str, at: datetime) -> bytes:
    """Bytes of an image that have arrived, of those known so far."""
    return encode(
        {"schema": SCHEMA, "device": device, "at": time_text(at), "image": image, "done": done, "total": total}
    )


def time_text(at: datetime) -> str:
    """ISO 8601, UTC, milliseconds, `Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


_RESERVED = frozenset(("schema", "device", "session", "seq", "at", "event"))


def _head(head: Head) -> dict[str, Json]:
    return {
        "schema": SCHEMA,
        "device": head.device,
        "session": head.session,
        "seq": head.seq,
        "at": time_text(head.at),
    }


def _session(device: str, session: int, *, online: bool) -> dict[str, Json]:
    return {"schema": SCHEMA, "device": device, "online": online, "session": session}


def _app(app: AppReport) -> dict[str, Json]:
    body: dict[str, Json] = {
        "release": app.release,
        "revision": app.revision and list(app.revision),
        "phase": app.phase,
        "previous": app.previous,
        "warnings": _problems(app.warnings),
        "services": {name: service_body(service) for name, service in app.services.items()},
    }
    if app.reason is not None:
        body["reason"] = reason_body(app.reason)
    return body


def service_body(service: ServiceReport) -> dict[str, Json]:
    """A service as a state tells it."""
    return {
        "status": service.status,
        "container": service.container,
        "image": service.image,
        "image_id": service.image_id,
        "started_at": service.started_at,
        "restarts": service.restarts,
        "exit_code": service.exit_code,
        "health": service.health,
        "reason": service.reason and reason_body(service.reason),
    }


def reason_body(reason: Reason) -> dict[str, Json]:
    """Why something is not as the target says."""
    return _present(
        {
            "code": reason.code,
            "message": reason.message,
            "attempt": reason.attempt,
            "next_try_at": reason.next_try_at and time_text(reason.next_try_at),
        }
    )


def _have(have: Have | None) -> dict[str, Json] | None:
    if have is None:
        return None
    return {"epoch": have.version.epoch, "revision": have.version.revision, "digest": have.digest}


def _problems(problems: tuple[Problem, ...]) -> list[Json]:
    return [{"pointer": problem.pointer, "message": problem.message} for problem in problems]


def _present(body: dict[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in body.items() if value is not None}


def encode(body: dict[str, Json]) -> bytes:
    """A body as it travels."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")

"""Rows of the database and the frozen data they stand for.

Bodies of targets are stored compressed: the raw bytes exactly as they arrived, with their sha-256, and beside them the
apps as they were parsed, so that what was accepted once is read again without a parser, a key or a limit of today.
"""

import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Connection, Row, Table, delete, func, select
from sqlalchemy.dialects.sqlite import Insert, insert

from device_agent.adapters.store_schema import (
    apps,
    attempts,
    bad_releases,
    commands,
    counters,
    floors,
    orders,
    outbox,
    pulled_images,
    seal,
    target_bodies,
    targets,
)
from device_agent.adapters.store_target import Written, header, rebuilt, written
from device_agent.model.memory import (
    AcceptedTarget,
    AppRecord,
    Attempt,
    BadRelease,
    CommandRecord,
    Floor,
    Memory,
    Message,
    Order,
    PulledImage,
)
from device_agent.model.target import Json, Version


def put(connection: Connection, table: Table, row: Mapping[str, object]) -> None:
    """Insert or replace; an identical row is left alone, so that nothing is written."""
    # A lone surrogate, from a name or a log line that was no UTF-8, cannot be stored: it is shown as an escape.
    content = {
        name: value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value
        for name, value in row.items()
    }
    content["seal"] = seal(table, content)
    connection.execute(_upsert(table), content)


@cache
def _upsert(table: Table) -> Insert:
    statement = insert(table)
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns),
        set_={column.name: statement.excluded[column.name] for column in table.columns if not column.primary_key},
        where=table.c.seal != statement.excluded.seal,
    )


def drop(connection: Connection, table: Table, **key: object) -> int:
    """How many rows there were."""
    conditions = [table.c[name] == value for name, value in key.items()]
    return connection.execute(delete(table).where(*conditions)).rowcount


def put_target(connection: Connection, accepted: AcceptedTarget) -> None:
    target = accepted.target
    joined = select(targets.c.digest, target_bodies.c.raw_sha256).join_from(targets, target_bodies)
    stored = connection.execute(joined.where(targets.c.scope == target.scope)).one_or_none()
    put(
        connection,
        targets,
        {
            "scope": target.scope,
            "epoch": target.version.epoch,
            "revision": target.version.revision,
            "digest": target.digest,
            "header": header(target),
            "accepted_at": accepted.accepted_at.isoformat(),
            "awaited": json.dumps(sorted(accepted.awaited)),
            "ended": accepted.ended,
        },
    )
    digest = hashlib.sha256(target.raw).digest()
    if stored is not None and tuple(stored) == (target.digest, digest):
        return  # not compressed and sent to SQLite again for each step of its progress
    content = written(target)
    row = {"scope": target.scope, "raw": content.raw, "raw_sha256": digest, "apps": content.apps}
    put(connection, target_bodies, row)


def put_floor(connection: Connection, scope: str, floor: Floor) -> None:
    epoch, revision = floor.version
    put(connection, floors, {"scope": scope, "epoch": epoch, "revision": revision, "digest": floor.digest})


def put_app(connection: Connection, record: AppRecord) -> None:
    row = {
        "app": record.app,
        "digest": record.digest,
        "specs": json.dumps(dict(record.specs), sort_keys=True),
        "release": record.release,
        "previous": record.previous,
        "revision": record.revision,
        "document": None if record.document is None else packed(record.document),
        "previous_images": json.dumps(record.previous_images),
    }
    put(connection, apps, row)


def put_bad(connection: Connection, bad: BadRelease) -> None:
    put(connection, bad_releases, asdict(bad))


def put_pulled(connection: Connection, pulled: PulledImage) -> None:
    row = asdict(pulled) | {
        "pulled_at": pulled.pulled_at.isoformat(),
        "revisions": json.dumps(sorted(pulled.revisions)),
    }
    put(connection, pulled_images, row)


def packed(document: Json) -> bytes:
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode())


def put_attempt(connection: Connection, attempt: Attempt) -> None:
    row = {
        "app": attempt.app,
        "subject": attempt.subject,
        "spec": attempt.spec,
        "tries": attempt.count,
        "code": attempt.code,
        "message": attempt.message,
        "next_at": attempt.next_at.isoformat(),
    }
    put(connection, attempts, row)


def put_command(connection: Connection, record: CommandRecord) -> None:
    times = {
        "received_at": record.received_at.isoformat(),
        "issued_at": record.issued_at and record.issued_at.isoformat(),
        "expires_at": record.expires_at and record.expires_at.isoformat(),
    }
    put(connection, commands, {**asdict(record), **times})


def put_order(connection: Connection, order: Order) -> None:
    put(connection, orders, asdict(order))


def put_counter(connection: Connection, name: str, value: int) -> None:
    put(connection, counters, {"name": name, "value": value})


def messages(connection: Connection, after: int, limit: int) -> tuple[Message, ...]:
    rows = select(outbox).where(outbox.c.seq > after).order_by(outbox.c.seq).limit(limit)
    return tuple(Message(row.seq, row.kind, row.body, terminal=row.terminal) for row in connection.execute(rows))


def memory(connection: Connection) -> Memory:
    """Everything but the outbox. Raises `ValueError` where a row is not as it was written."""
    counts = counter_values(connection)
    return Memory(
        targets=_targets(connection),
        floors={row.scope: Floor(Version(row.epoch, row.revision), row.digest) for row in _sealed(connection, floors)},
        apps={
            row.app: AppRecord(
                row.app,
                row.digest,
                json.loads(row.specs),
                row.release,
                row.previous,
                row.revision,
                None if row.document is None else json.loads(zlib.decompress(row.document)),
                tuple(json.loads(row.previous_images)),
            )
            for row in _sealed(connection, apps)
        },
        bad={
            row.app: BadRelease(row.app, row.digest, row.revision, row.release, row.code, row.message)
            for row in _sealed(connection, bad_releases)
        },
        attempts=tuple(
            Attempt(
                row.app,
                row.subject,
                row.spec,
                row.tries,
                row.code,
                row.message,
                datetime.fromisoformat(row.next_at),
            )
            for row in _sealed(connection, attempts)
        ),
        commands=tuple(
            CommandRecord(
                row.id,
                row.number,
                row.verb,
                row.request,
                datetime.fromisoformat(row.received_at),
                row.reply_to,
                row.correlation,
                row.answer,
                row.issued_at and datetime.fromisoformat(row.issued_at),
                row.expires_at and datetime.fromisoformat(row.expires_at),
            )
            for row in sorted(_sealed(connection, commands), key=lambda row: int(row.number))
        ),
        orders=tuple(Order(row.app, row.service, row.verb, row.content) for row in _sealed(connection, orders)),
        pulled=tuple(
            PulledImage(
                row.image,
                row.image_id,
                row.own,
                datetime.fromisoformat(row.pulled_at),
                row.platform,
                frozenset(json.loads(row.revisions)),
            )
            for row in _sealed(connection, pulled_images)
        ),
        outbox_dropped=counts["dropped"],
    )


def counter_values(connection: Connection) -> dict[str, int]:
    """`seq`, `session`, `dropped`: all of them, or `ValueError`."""
    values = {row.name: int(row.value) for row in _sealed(connection, counters)}
    if not {"seq", "session", "dropped"} <= values.keys():
        raise ValueError("a counter is missing")
    return values


def outbox_size(connection: Connection) -> tuple[int, int]:
    """Rows, and bytes of bodies."""
    rows, size = connection.execute(select(func.count(), func.total(func.length(outbox.c.body)))).one()
    return int(rows), int(size)


def check_outbox(connection: Connection) -> None:
    """Raises `ValueError` where a row is not as it was written."""
    for _ in _sealed(connection, outbox):
        pass


def _targets(connection: Connection) -> dict[str, AcceptedTarget]:
    bodies = {row.scope: row for row in _sealed(connection, target_bodies)}
    found: dict[str, AcceptedTarget] = {}
    for row in _sealed(connection, targets):
        body = bodies.pop(row.scope, None)
        if body is None:
            raise ValueError(f"the {row.scope} target has no body")
        content = Written(row.header, body.raw, body.apps)
        target = rebuilt(row.scope, Version(row.epoch, row.revision), row.digest, content)
        if hashlib.sha256(target.raw).digest() != body.raw_sha256:
            raise ValueError(f"the {row.scope} target's bytes are not those that were accepted")
        awaited = frozenset(json.loads(row.awaited))
        found[row.scope] = AcceptedTarget(target, datetime.fromisoformat(row.accepted_at), awaited, row.ended)
    return found


def _sealed(connection: Connection, table: Table) -> Iterator[Row[Any]]:
    for row in connection.execute(select(table).order_by(*table.primary_key.columns)):
        if seal(table, row._asdict()) != row.seal:
            raise ValueError(f"a row of {table.name} is damaged")
        yield row

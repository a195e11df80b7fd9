"""The outbox: acks and events in the order of their numbers, within bounds.

When it is full the oldest events go first, then acks that end nothing, terminal acks last. What has waited for a week
goes too, whenever something is queued (never by a timer: idle means no write). Every drop is counted. A row's number
is used up even when the row itself is what has to go: the cloud sees the gap.

Waiting is counted in running time: seconds that an agent has run on this database, which a clock that jumps, or that
nobody has set yet, does not change.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Select, case, delete, func, select

from device_agent.adapters.store_rows import put
from device_agent.adapters.store_schema import outbox
from device_agent.model.memory import Message

_SIZES = select(outbox.c.seq, func.length(outbox.c.body))


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bytes are those of the bodies."""

    rows: int = 10_000
    size: int = 4 * 1024 * 1024
    age_s: int = 7 * 24 * 3600


@dataclass(slots=True)
class Fill:
    """What is in it; kept in memory beside the table, as counting would read all of it."""

    rows: int
    size: int


def add(connection: Connection, fill: Fill, bounds: Bounds, message: Message, now: int) -> int:
    """Add a row, and drop what is too much: the number of rows dropped. `now` is the running time in seconds."""
    row = {
        "seq": message.seq,
        "kind": message.kind,
        "terminal": message.terminal,
        "queued_at": now,
        "body": message.body,
    }
    put(connection, outbox, row)
    fill.rows += 1
    fill.size += len(message.body)
    dropped = 0
    old = outbox.c.queued_at <= now - bounds.age_s
    # The row at the head first: mostly it is young, and then the table is not read.
    if connection.execute(select(old).order_by(outbox.c.seq).limit(1)).scalar_one():
        dropped += _drop(connection, fill, _sizes(connection, _SIZES.where(old)))
    if fill.rows > bounds.rows or fill.size > bounds.size:
        dropped += _drop(connection, fill, _surplus(connection, fill, bounds))
    return dropped


def running_time(connection: Connection) -> int:
    """At which the newest row was queued."""
    return int(connection.execute(select(func.coalesce(func.max(outbox.c.queued_at), 0))).scalar_one())


def remove(connection: Connection, fill: Fill, seq: int) -> int:
    """The number of rows removed: 0, when it is not there."""
    return _drop(connection, fill, _sizes(connection, _SIZES.where(outbox.c.seq == seq)))


def _surplus(connection: Connection, fill: Fill, bounds: Bounds) -> list[tuple[int, int]]:
    # A little more than must go: choosing reads the whole table, and a device that is offline for long queues at a
    # full outbox for days.
    rows, size = bounds.rows - bounds.rows // 64, bounds.size - bounds.size // 64
    worth = case((outbox.c.kind == "event", 0), (outbox.c.terminal, 2), else_=1)
    chosen: list[tuple[int, int]] = []
    left_rows, left_size = fill.rows, fill.size
    for seq, length in _sizes(connection, _SIZES.order_by(worth, outbox.c.seq)):
        if left_rows <= rows and left_size <= size:
            break
        chosen.append((seq, length))
        left_rows -= 1
        left_size -= length
    return chosen


def _sizes(connection: Connection, statement: Select[Any]) -> list[tuple[int, int]]:
    return [(seq, size) for seq, size in connection.execute(statement)]


def _drop(connection: Connection, fill: Fill, rows: list[tuple[int, int]]) -> int:
    for seq, length in rows:
        connection.execute(delete(outbox).where(outbox.c.seq == seq))
        fill.rows -= 1
        fill.size -= length
    return len(rows)

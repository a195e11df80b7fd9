"""The cloud's own truth: an SQLite file with the targets it owns, and what devices have said.

Targets are kept by broker, root and fleet, so that a cloud which looks at a second broker never pushes the first
one's targets there. One file may be open in several processes at once (a `watch` while something is published):
therefore the plain rollback journal, short transactions, and no cache of what another process can change.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import RLock

from cloud_sim.connection import Misconfigured
from device_agent.model.target import Json

JOURNAL_ROWS = 100_000
"""Acks and events that are kept, of all devices together: the oldest go first."""
PRUNE_EVERY = 100
"""So many more may come before they do."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS target (
    place TEXT NOT NULL, device TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (place, device)
) STRICT;
CREATE TABLE IF NOT EXISTS heard (
    place TEXT NOT NULL, device TEXT NOT NULL, kind TEXT NOT NULL, at TEXT NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (place, device, kind)
) STRICT;
CREATE TABLE IF NOT EXISTS journal (
    id INTEGER PRIMARY KEY AUTOINCREMENT, place TEXT NOT NULL, device TEXT NOT NULL, seq INTEGER NOT NULL,
    kind TEXT NOT NULL, at TEXT NOT NULL, body BLOB NOT NULL, UNIQUE (place, device, seq, body)
) STRICT;
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An ack or an event of a device. `id` is the order in which this cloud heard of them."""

    id: int
    device: str
    seq: int
    kind: str
    """`ack` or `event`."""
    at: str
    """When this cloud heard it."""
    body: Mapping[str, Json]


class Database:
    """Safe to use from several threads. `place` is the broker, root and fleet in one word."""

    def __init__(self, file: Path | str, place: str) -> None:
        """Create or open it; `:memory:` keeps nothing. Raises `Misconfigured` when that cannot be done."""
        self._place = place
        self._lock = RLock()
        self._entered = PRUNE_EVERY
        try:
            if file != ":memory:":
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                # Targets hold what applications may know, and nobody else: SQLite would leave the mode to the umask.
                Path(file).touch(mode=0o600)
            self._connection = sqlite3.connect(file, timeout=15, isolation_level=None, check_same_thread=False)
            self._connection.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise Misconfigured(f"cannot open the database {file}: {error}") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Everything within is on disk when the block has been left, or nothing is."""
        with self._lock:
            if self._connection.in_transaction:
                yield
                return
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def owned(self) -> dict[str | None, bytes]:
        """The targets as they were published last: by device, the fleet's under None."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT device, body FROM target WHERE place = ?", (self._place,)
            ).fetchall()
        return {device or None: body for device, body in rows}

    def own(self, device: str | None, body: bytes) -> None:
        self._execute("INSERT OR REPLACE INTO target VALUES (?, ?, ?)", (self._place, device or "", body))

    def hear(self, device: str, kind: str, at: str, body: bytes) -> None:
        """Keep the last state or session of a device."""
        self._execute("INSERT OR REPLACE INTO heard VALUES (?, ?, ?, ?, ?)", (self._place, device, kind, at, body))

    def heard(self, kind: str) -> dict[str, tuple[str, bytes]]:
        """Device → when and what it said last."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT device, at, body FROM heard WHERE place = ? AND kind = ?", (self._place, kind)
            ).fetchall()
        return {device: (at, body) for device, at, body in rows}

    def enter(self, device: str, seq: int, kind: str, at: str, body: bytes) -> bool:
        """Add an ack or event, unless it is there: False then.

        The body counts too, because a device that lost its database numbers anew; a message sent again has the same.
        """
        added = self._execute(
            "INSERT OR IGNORE INTO journal (place, device, seq, kind, at, body) VALUES (?, ?, ?, ?, ?, ?)",
            (self._place, device, seq, kind, at, body),
        )
        self._entered += added
        if self._entered >= PRUNE_EVERY:
            self._entered = 0
            self._execute("DELETE FROM journal WHERE id <= (SELECT max(id) FROM journal) - ?", (JOURNAL_ROWS,))
        return bool(added)

    def journal(self, *, after: int = 0, device: str | None = None, kind: str | None = None) -> tuple[Entry, ...]:
        """What was entered after the entry `after`, in that order."""
        query = "SELECT id, device, seq, kind, at, body FROM journal WHERE place = ? AND id > ?"
        values: list[str | int] = [self._place, after]
        for column, value in (("device", device), ("kind", kind)):
            if value is not None:
                query += f" AND {column} = ?"
                values.append(value)
        with self._lock:
            rows = self._connection.execute(query + " ORDER BY id", values).fetchall()
        return tuple(Entry(row[0], row[1], row[2], row[3], row[4], json.loads(row[5])) for row in rows)

    def last_entry(self) -> int:
        """The id of the newest entry, 0 when there is none."""
        with self._lock:
            return int(self._connection.execute("SELECT coalesce(max(id), 0) FROM journal").fetchone()[0])

    def gaps(self, device: str) -> tuple[tuple[int, int], ...]:
        """Numbers between the first and the last entry of a device that never arrived: (first, last) of each gap."""
        with self._lock:
            rows = self._connection.execute(
                "SELECT before + 1, seq - 1 FROM (SELECT seq, lag(seq) OVER (ORDER BY seq) AS before FROM"
                " (SELECT DISTINCT seq FROM journal WHERE place = ? AND device = ?))"
                " WHERE seq > before + 1 ORDER BY seq",
                (self._place, device),
            ).fetchall()
        return tuple((first, last) for first, last in rows)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _execute(self, statement: str, values: tuple[str | int | bytes, ...]) -> int:
        with self.transaction():
            return self._connection.execute(statement, values).rowcount

"""The store on the data volume: `database.sqlite` and three small files beside it.

Order of a commit: the database first, then `floor.json`. What a floor says has been accepted, so the file must not
run ahead of a commit that a full disk or a power cut may still undo; cut off in between, the next start finds the
database ahead and writes the file then. The one window left is a power cut in just that moment *and* the loss of the
database before the next start. Both are on disk when the `with` block of `transaction` has been left, so before the
broker gets its PUBACK. A full disk that refuses only the file does not undo the accepted target: it is written later.

A floor can be higher than the stored target (a lost database, a restored backup): a target that equals the floor,
with the same digest, is then no duplicate but the missing one, and the caller accepts it.

Numbers (`seq`, `session`) come from counters that never go back, not from the rows; those of a fresh database begin
above everything the files beside it tell, and above the clock's seconds. Session numbers are reserved in blocks, one
commit for many connections; what a block has left at a restart is skipped. Those of a full disk are in the file
`session`; the database is above them again with the next block that it takes.

One thread at a time owns it; it may be another one than opened it. After `StoreBroken` every call raises it: after a
failed fsync the kernel may have thrown away what the next one would report as written.
"""

import fcntl
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from threading import Event

from sqlalchemy import Connection, delete
from sqlalchemy.exc import SQLAlchemyError

from device_agent.adapters import sidecar, store_backup, store_outbox, store_rows, store_session
from device_agent.adapters.sidecar import FLOOR, LAST_GOOD, Kept, higher
from device_agent.adapters.store_database import StoreLocked, disconnect, failed, working
from device_agent.adapters.store_outbox import Bounds, Fill
from device_agent.adapters.store_recovery import DATABASE, SUFFIXES, open_database
from device_agent.adapters.store_schema import apps, attempts, bad_releases, orders, target_bodies, targets
from device_agent.adapters.store_session import SESSION
from device_agent.adapters.store_transaction import Rows, Standing
from device_agent.model.errors import Refused, StoreBroken, StoreFull
from device_agent.model.memory import Floor, Memory, Message, OutboxCounts
from device_agent.model.target import Target, Version
from device_agent.ports import Clock, Transaction

__all__ = ["Bounds", "SqliteStore", "StoreLocked", "open_store"]

LOCK = "lock"
MAX_NUMBER = 2**53
LOCK_WAIT_S = 1.0
"""An agent that is being replaced may need a moment to end."""
OWN_FILES = frozenset({LOCK, FLOOR, LAST_GOOD, SESSION, *(DATABASE + suffix for suffix in SUFFIXES)})
DEFAULT_BOUNDS = Bounds()


def open_store(directory: Path, clock: Clock, bounds: Bounds = DEFAULT_BOUNDS) -> "SqliteStore":
    """Open, and recover where that is needed. Raises `StoreLocked`, `StoreFull`, `StoreBroken`."""
    return SqliteStore(directory, clock, bounds)


class SqliteStore:
    """`ports.Store`."""

    def __init__(self, directory: Path, clock: Clock, bounds: Bounds) -> None:
        self._directory = directory
        self._clock = clock
        self._bounds = bounds
        self._broken: str | None = None
        self._closed = False
        self._lock = _lock(directory)
        try:
            opened = open_database(directory, clock)
        except BaseException:
            os.close(self._lock)
            raise
        self._connection = opened.connection
        self._recovered = opened.recovered
        self._spare_session = opened.session
        self._floors_kept = opened.floor_file.floors
        self._good_kept = _gist(opened.good_file.targets, opened.good_file.floors)
        try:
            with self._reading() as connection:
                self._standing = Standing(
                    dict(store_rows.memory(connection).floors),
                    store_rows.counter_values(connection),
                    Fill(*store_rows.outbox_size(connection)),
                    store_outbox.running_time(connection) - clock.monotonic(),
                )
            self._keep_floors()
        except BaseException:
            self.close()
            raise

    def load(self) -> Memory:
        with self._reading() as connection:
            return replace(store_rows.memory(connection), recovered=self._recovered)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        with self._committed():
            rows = Rows(self._connection, self._standing, self._bounds, self._clock, self._work)
            yield rows
            rows.end()
        self._keep_floors()

    def raise_floor(self, scope: str, floor: Floor) -> None:
        floors = higher(self._standing.floors, {scope: floor})
        # No cloud could ever publish above a number that JSON does not carry: such a label is no floor but a fault.
        if floors == self._standing.floors or max(floor.version) > MAX_NUMBER:
            return
        with self._committed(), self._work():
            store_rows.put_floor(self._connection, scope, floor)
            self._standing.floors = floors
        self._keep_floors()

    def remember_good(self, targets: tuple[Target, ...]) -> None:
        gist = _gist(targets, self._standing.floors)
        if gist == self._good_kept:
            return
        with self._work():
            try:
                sidecar.write(self._directory / LAST_GOOD, self._kept(targets))
            except OSError as error:
                raise failed(error, self._directory / LAST_GOOD) from error
        self._good_kept = gist

    def outbox(self, after: int, limit: int) -> tuple[Message, ...]:
        with self._reading() as connection:
            return store_rows.messages(connection, after, limit)

    def outbox_counts(self) -> OutboxCounts:
        return OutboxCounts(self._standing.fill.rows, self._standing.counters["dropped"])

    def last_session(self) -> int:
        return max(self._standing.counters["session"], self._spare_session)

    def reserve_sessions(self, count: int, above: int = 0) -> int:
        first = max(self.last_session(), above) + 1
        last = first + count - 1
        try:
            with self._committed(), self._work():
                self._standing.counters["session"] = last
                store_rows.put_counter(self._connection, "session", last)
        except StoreFull:
            with self._work():
                store_session.write(self._directory, last)
            # Not the counter's: `floor.json` would tell of it, and the next start take it for that of a lost commit.
            self._spare_session = last
        return first

    def backup(self, file: Path) -> None:
        """Also raises `Refused` (`invalid`) where `file` cannot be written."""
        self._refuse_own(file)
        with self._work():
            store_backup.write(self._connection, file)

    def restore(self, file: Path) -> Memory:
        """The outbox and the commands stay: they have happened here, and a backup's were told long ago.

        So does what was pulled: it tells which images of this engine may be removed, and the backup may be another's.
        """
        self._refuse_own(file)
        with self._work():
            found, counters = store_backup.read(file, self._directory)
            # What was good is not what the backup wants: a power cut after the commit must not bring it back.
            (self._directory / LAST_GOOD).unlink(missing_ok=True)
            sidecar.sync_folder(self._directory)
            self._good_kept = _gist((), {})
        with self._committed(), self._work():
            self._replace_contents(found, counters)
        self._recovered = None
        self._keep_floors()
        with suppress(StoreFull):  # it is restored; the file is written with the next target that is applied
            self.remember_good(tuple(one.target for one in found.targets.values() if one.ended == "applied"))
        return self.load()

    def close(self) -> None:
        """Close it; a second time is no error."""
        if not self._closed:
            self._closed = True
            self._broken = self._broken or "the store is closed"
            disconnect(self._connection)
            os.close(self._lock)

    @contextmanager
    def _work(self) -> Iterator[None]:
        """Around our own calls of SQLite and of the file system, never around the caller's code."""
        if self._broken:
            raise StoreBroken(self._broken)
        try:
            with working():
                yield
        except StoreBroken as error:
            self._broken = str(error)
            raise

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        with self._work():
            if self._connection.in_transaction():
                yield self._connection
            else:
                with self._connection.begin():
                    yield self._connection

    @contextmanager
    def _committed(self) -> Iterator[None]:
        """All or nothing: the rows, and what is kept in memory beside them."""
        if self._connection.in_transaction():
            raise RuntimeError("a transaction is under way")
        before = self._standing.copy()
        with self._work():
            root = self._connection.begin()
        try:
            yield
            with self._work():
                root.commit()
        except BaseException:
            self._standing = before
            try:
                root.rollback()
            except (SQLAlchemyError, sqlite3.Error) as error:
                self._broken = f"a transaction could not be undone: {error}"
            raise

    def _keep_floors(self) -> None:
        if self._standing.floors == self._floors_kept:
            return
        path = self._directory / FLOOR
        with self._work():
            try:
                sidecar.write(path, self._kept(()))
            except OSError as error:
                problem = failed(error, path)
                if isinstance(problem, StoreFull):
                    return  # committed is committed; the file follows with the next commit
                raise problem from error
        self._floors_kept = dict(self._standing.floors)

    def _kept(self, targets: tuple[Target, ...]) -> Kept:
        counters = self._standing.counters
        return Kept(dict(self._standing.floors), counters["seq"], counters["session"], targets)

    def _replace_contents(self, found: Memory, counters: Mapping[str, int]) -> None:
        for table in (target_bodies, targets, apps, bad_releases, attempts, orders):
            self._connection.execute(delete(table))
        for accepted in found.targets.values():
            store_rows.put_target(self._connection, accepted)
        for record in found.apps.values():
            store_rows.put_app(self._connection, record)
        for bad in found.bad.values():
            store_rows.put_bad(self._connection, bad)
        for attempt in found.attempts:
            store_rows.put_attempt(self._connection, attempt)
        for order in found.orders:
            store_rows.put_order(self._connection, order)
        self._standing.floors = higher(self._standing.floors, found.floors)
        for scope, floor in self._standing.floors.items():
            store_rows.put_floor(self._connection, scope, floor)
        for name in ("seq", "session"):
            self._standing.counters[name] = max(self._standing.counters[name], counters[name])
            store_rows.put_counter(self._connection, name, self._standing.counters[name])

    def _refuse_own(self, file: Path) -> None:
        if file.name in OWN_FILES and file.resolve().parent == self._directory.resolve():
            raise Refused("invalid", f"{file} is one of the agent's own files")


_Gist = tuple[frozenset[tuple[str, Version, str]], Mapping[str, Floor]]


def _gist(targets: tuple[Target, ...], floors: Mapping[str, Floor]) -> _Gist:
    """What tells two contents of `last-good.json` apart, without keeping the targets in memory."""
    return frozenset((target.scope, target.version, target.digest) for target in targets), dict(floors)


def _lock(directory: Path) -> int:
    """Hold the folder until the process ends, through everything that recovery does to the files in it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise failed(error, directory) from error
    pause = Event()
    for _ in range(int(LOCK_WAIT_S / 0.05)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pause.wait(0.05)
        else:
            return descriptor
    os.close(descriptor)
    raise StoreLocked(f"another agent is running on the data folder {directory}")

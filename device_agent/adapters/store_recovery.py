"""From whatever lies in the data folder to a sound database.

The ladder: check everything; what fails is set aside (never deleted: the newest two sets stay, and a newer agent's
database always); a fresh database takes the place; what `floor.json` and `last-good.json` know is laid into it. With
neither, memory is empty, and the caller leaves alone what runs.

The last step is taken at every start, whatever the database is like: in a sound history it is never behind the files
(they are written after the commit), so it writes nothing. A database that *is* behind was lost, or lost its newest
commits, which SQLite's own checks cannot see; and a start that is cut off between two steps is taken up by the next.
"""

import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from device_agent.adapters import sidecar, store_rows, store_schema, store_session
from device_agent.adapters.sidecar import FLOOR, LAST_GOOD, Kept, higher
from device_agent.adapters.store_database import Damaged, connect, disconnect, failed, opening, raw
from device_agent.model.errors import StoreBroken
from device_agent.model.memory import AcceptedTarget
from device_agent.ports import Clock

DATABASE = "database.sqlite"
SUFFIXES = ("", "-wal", "-shm", "-journal")
KEEP_SETS = 2
MARGIN = 1_000_000
"""Far more numbers than are given out between two writes of a file beside the database."""


@dataclass(frozen=True, slots=True)
class Opened:
    connection: Connection
    floor_file: Kept
    good_file: Kept
    recovered: str | None
    session: int
    """The highest number beside the database; 0: it never had to be written there."""
    schema: int | None
    """Its version as it was found; None: it is a fresh one."""


def open_database(directory: Path, clock: Clock) -> Opened:
    """The whole ladder. Raises `StoreLocked`, `StoreFull`, `StoreBroken`."""
    words: list[str] = []
    # Before the database, so that there is none without it.
    session = store_session.read(directory)
    floor_file = _read(directory / FLOOR, words)
    good_file = _read(directory / LAST_GOOD, words)
    kept = Kept(
        higher(floor_file.floors, good_file.floors),
        max(floor_file.seq, good_file.seq),
        max(floor_file.session, good_file.session),
        good_file.targets,
    )
    path = directory / DATABASE
    try:
        connection, schema = _sound(path, kept, clock, words)
        try:
            with opening(path):
                _lay_in(connection, kept, clock, words)
        except BaseException:
            disconnect(connection)
            raise
    except Damaged as damage:  # a fresh one, and still not as it was written: there is no next rung
        raise StoreBroken(f"{path}: {damage}") from damage
    return Opened(connection, floor_file, good_file, "; ".join(words) or None, session, schema)


def check(connection: Connection) -> None:
    """SQLite's own checks. Raises `ValueError`."""
    verdict = connection.exec_driver_sql("PRAGMA integrity_check(1)").scalar_one()
    if verdict != "ok":
        raise ValueError(str(verdict))
    if connection.exec_driver_sql("PRAGMA foreign_key_check").first() is not None:
        raise ValueError("a row refers to one that is not there")


def prepare(connection: Connection) -> int | None:
    """Check a database and migrate an older one. Returns the version of the schema it had; None: it is empty.

    Raises `ValueError`, `Damaged` (`newer`).
    """
    with connection.begin():
        check(connection)
        version = store_schema.version(connection)
    if version is None:
        return None
    schema, min_reader = version
    if schema > store_schema.SCHEMA_VERSION and min_reader > store_schema.SCHEMA_VERSION:
        raise Damaged(
            f"it is of a newer agent (schema {schema}, this one reads {store_schema.SCHEMA_VERSION})", "newer"
        )
    if schema < store_schema.SCHEMA_VERSION:
        _migrate(connection)
    with connection.begin():
        store_rows.memory(connection)
        store_rows.check_outbox(connection)
    return schema


def _sound(path: Path, kept: Kept, clock: Clock, words: list[str]) -> tuple[Connection, int | None]:
    """The schema's version is that of a database there was and is used."""
    lost = _lost(path)
    if lost:
        words.append(f"the database was lost, its log is kept as {_set_aside(path, 'corrupt', clock)}-wal")
    try:
        connection, schema = _checked(path, kept, clock)
    except Damaged as damage:
        words.append(f"the database was set aside as {_set_aside(path, damage.label, clock)}: {damage}")
        return _checked(path, kept, clock)
    if schema is None and kept and not lost:
        words.append("the database was missing or empty")
    return connection, schema


def _checked(path: Path, kept: Kept, clock: Clock) -> tuple[Connection, int | None]:
    with opening(path):
        connection = connect(path)
        try:
            schema = prepare(connection)
            if schema is None:
                with connection.begin():
                    store_schema.create(connection)
                    store_rows.put_counter(connection, "seq", _beyond(kept.seq, clock))
                    store_rows.put_counter(connection, "session", _beyond(kept.session, clock))
                    store_rows.put_counter(connection, "dropped", 0)
                    for scope, floor in kept.floors.items():
                        store_rows.put_floor(connection, scope, floor)
                sidecar.sync_folder(path.parent)
        except BaseException:
            disconnect(connection)
            raise
    return connection, schema


def _migrate(connection: Connection) -> None:
    from device_agent.adapters.migrations import upgrade  # noqa: PLC0415 - Alembic only where it is needed

    # A batch migration drops and renames tables, which would cascade. The pragma does nothing inside a transaction.
    raw(connection).execute("PRAGMA foreign_keys = OFF")
    try:
        with connection.begin():
            upgrade(connection)
            check(connection)
    except (SQLAlchemyError, sqlite3.Error, OSError):
        raise
    except Exception as error:  # whatever a revision stumbles over in the data: this one, too, goes on without
        raise Damaged(f"it cannot be migrated: {error!r}", "unmigrated") from error
    raw(connection).execute("PRAGMA foreign_keys = ON")


def _lay_in(connection: Connection, kept: Kept, clock: Clock, words: list[str]) -> None:
    with connection.begin():
        stored = store_rows.memory(connection)
        counters = store_rows.counter_values(connection)
        marks = {"seq": kept.seq, "session": kept.session}
        behind = any(counters[name] < mark for name, mark in marks.items())
        for scope, floor in higher(stored.floors, kept.floors).items():
            if floor != stored.floors.get(scope):
                behind = True
                store_rows.put_floor(connection, scope, floor)
        if behind:
            words.append("the database had lost commits")
            for name, mark in marks.items():  # one lost commit may have been that of any number
                store_rows.put_counter(connection, name, max(counters[name], _beyond(mark, clock)))
        for target in kept.targets:
            mine = stored.targets.get(target.scope)
            if mine is None or mine.target.version < target.version:
                words.append(f"the {target.scope} target {target.version} is from {LAST_GOOD}")
                store_rows.put_target(connection, AcceptedTarget(target, clock.now(), ended="applied"))


def _beyond(mark: int, clock: Clock) -> int:
    # The clock's seconds are above every number given out before, even where no file tells: a device does not say
    # more than one thing a second over the years. They fit into the 2^53 that JSON carries.
    return max(mark + MARGIN if mark else 0, int(clock.now().timestamp()), 0)


def _read(path: Path, words: list[str]) -> Kept:
    try:
        return sidecar.read(path) or Kept()
    except ValueError as error:
        aside = path.with_name(path.name + ".corrupt")
        words.append(f"{path.name} was unreadable, it is kept as {aside.name} ({error})")
        try:
            path.replace(aside)
        except OSError as problem:
            raise failed(problem, path) from problem
    except OSError as error:
        words.append(f"{path.name} cannot be read: {error.strerror}")
    return Kept()


def _lost(path: Path) -> bool:
    """A log without its database: SQLite would delete it."""
    log = path.with_name(path.name + "-wal")
    # A single byte counts as empty for SQLite, which once had to write one.
    return _size(path) <= 1 and bool(_size(log))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _set_aside(path: Path, label: str, clock: Clock) -> str:
    base = f"{path.name}.{label}.{clock.now():%Y%m%dT%H%M%SZ}"
    name, count = base, 1
    while any(path.with_name(name + suffix).exists() for suffix in SUFFIXES):
        name, count = f"{base}.{count}", count + 1
    try:
        # The database first: a log left behind is noticed by the next start, a database without its newest commits
        # would pass for sound. `NAME` and `NAME-wal` belong together for SQLite, so the set can be opened for a look.
        for suffix in SUFFIXES:
            with suppress(FileNotFoundError):
                path.with_name(path.name + suffix).rename(path.with_name(name + suffix))
        _forget_old_sets(path, name)
        sidecar.sync_folder(path.parent)
    except OSError as error:
        raise failed(error, path) from error
    return name


def _forget_old_sets(path: Path, newest: str) -> None:
    prefix = f"{path.name}.corrupt."
    sets: set[str] = set()
    for file in path.parent.glob(prefix + "*"):
        name = file.name
        for suffix in SUFFIXES[1:]:
            name = name.removesuffix(suffix)
        sets.add(name)
    # The newest by its role, not by its name: the clock of a device may have been in 1970.
    old = sorted(sets - {newest}, reverse=True)[KEEP_SETS - 1 :]
    for name in old:
        for suffix in SUFFIXES:
            path.with_name(name + suffix).unlink(missing_ok=True)

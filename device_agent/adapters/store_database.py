"""One SQLite connection, set up for flash and power cuts, and its errors in our words.

WAL with `synchronous=FULL` is the mode that is durable at one fsync a commit and writes the least. The exclusive
locking mode needs no `-shm` file, so that a full disk can still be read at boot. There is never a second connection
to the same file: SQLite before 3.51.3 can damage a WAL that two of them write.
"""

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from sqlalchemy import Connection, QueuePool, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from device_agent.model.errors import StoreBroken, StoreFull

PRAGMAS = (
    # Small pages: a commit of few rows writes few bytes. Only a database that is still empty takes it.
    "page_size = 1024",
    "locking_mode = EXCLUSIVE",
    "journal_mode = WAL",
    "synchronous = FULL",
    # Rarely, because a checkpoint is the one moment in which a disk that lies about syncing can lose a database.
    "wal_autocheckpoint = 4000",
    "journal_size_limit = 4194304",
    "foreign_keys = ON",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    # Debian's SQLite overwrites what is deleted by zeros: on flash that only wears.
    "secure_delete = OFF",
    "cache_size = -512",
    "mmap_size = 0",
)
BUSY_S = 1.0
"""How long an open waits for a process that has not quite ended, or a shell that looks at the file."""

_UNREADABLE = ("SQLITE_IOERR_READ", "SQLITE_IOERR_CORRUPTFS", "SQLITE_IOERR_DATA")
_OUTSIDE = tuple(
    f"SQLITE_{name}" for name in ("IOERR", "CANTOPEN", "PERM", "READONLY", "AUTH", "NOLFS", "PROTOCOL", "INTERRUPT")
)


class StoreLocked(Exception):  # noqa: N818 - a state of the world, as in `model.errors`
    """Another process has the data folder."""


class Damaged(Exception):  # noqa: N818
    """What is there cannot be used as it is. `label` names the files when they are set aside."""

    def __init__(self, message: str, label: str = "corrupt") -> None:
        super().__init__(message)
        self.label = label


def connect(path: Path) -> Connection:
    """Open or create `path`, for this process alone. Close it by `disconnect`."""
    _create_private(path)
    engine = create_engine(
        "sqlite://",
        creator=partial(_open, path),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # The write lock at once; and DDL inside the transaction, which Python's own way of beginning leaves out.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    try:
        return engine.connect()
    except BaseException:
        engine.dispose()
        raise


def disconnect(connection: Connection) -> None:
    """Close it, whatever state it is in."""
    raw(connection).rollback()
    connection.close()
    connection.engine.dispose()


def raw(connection: Connection) -> sqlite3.Connection:
    """The sqlite3 connection beneath."""
    driver: object = connection.connection.dbapi_connection
    if not isinstance(driver, sqlite3.Connection):
        raise StoreBroken("the database is closed")
    return driver


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Errors while a database is opened and checked: `Damaged`, `StoreLocked`, `StoreFull`, `StoreBroken`."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        name, text = _described(error)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
            raise StoreLocked(f"{path} is in use by another process") from error
        if name == "SQLITE_FULL":
            raise StoreFull(f"{path}: {text}") from error
        if name.startswith(_OUTSIDE) and not name.startswith(_UNREADABLE):
            raise StoreBroken(f"{path}: {text} ({name})") from error
        raise Damaged(text) from error
    except OSError as error:
        raise failed(error, path) from error
    except (ValueError, TypeError) as error:  # UnicodeDecodeError too: a damaged text column
        raise Damaged(str(error)) from error


@contextmanager
def working() -> Iterator[None]:
    """Errors of a database in use: `StoreFull`, and anything else ends the process (`StoreBroken`)."""
    try:
        yield
    except (SQLAlchemyError, sqlite3.Error) as error:
        name, text = _described(error)
        if name == "SQLITE_FULL":
            raise StoreFull(text) from error
        raise StoreBroken(f"{text} ({name})") from error
    except UnicodeDecodeError as error:
        raise StoreBroken(f"damaged text: {error}") from error


def failed(error: OSError, path: Path) -> StoreFull | StoreBroken:
    """A system call's error in our words."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreFull(f"{path}: {error.strerror}")
    return StoreBroken(f"{path}: {error.strerror or error}")


def _described(error: Exception) -> tuple[str, str]:
    cause = error.orig if isinstance(error, DBAPIError) else error
    return getattr(cause, "sqlite_errorname", type(cause).__name__), str(cause)


def _create_private(path: Path) -> None:
    # Before SQLite does, which would leave the mode to the umask. An existing file is never opened here: closing it
    # would drop the locks that SQLite holds on it in this process.
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return
    os.close(descriptor)


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        answers = {pragma: connection.execute(f"PRAGMA {pragma}").fetchone() for pragma in PRAGMAS}
    except BaseException:
        connection.close()
        raise
    if answers["journal_mode = WAL"] != ("wal",):
        connection.close()
        raise StoreBroken(f"{path}: this file system cannot hold a database with a write-ahead log")
    return connection

"""Backups: one file that holds the whole database, taken while the agent runs, and read back.

A file that cannot be written or is no sound backup is an answer to whoever asked (`Refused`, code `invalid`), never a
fault of the store. Of a backup nothing is believed before all of it has been checked, on a copy, migrated if need be.
"""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from sqlalchemy import Connection

from device_agent.adapters import store_rows
from device_agent.adapters.sidecar import sync_folder
from device_agent.adapters.store_database import Damaged, connect, disconnect, failed, opening, raw
from device_agent.adapters.store_recovery import SUFFIXES, prepare
from device_agent.model.errors import Refused, StoreBroken
from device_agent.model.memory import Memory

COPY = "restore.tmp"


def write(connection: Connection, file: Path) -> None:
    """Write the backup: all of it or nothing, on disk when this returns, readable by the owner alone."""
    aside = file.with_name(file.name + ".tmp")
    try:
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        with closing(sqlite3.connect(aside, isolation_level=None)) as copy:
            raw(connection).backup(copy)
            # A single file: with the mode of the original, opening it would need and leave others beside it.
            copy.execute("PRAGMA locking_mode = EXCLUSIVE")
            copy.execute("PRAGMA journal_mode = DELETE")
        descriptor = os.open(aside, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        aside.replace(file)
        sync_folder(file.parent)
    except (OSError, sqlite3.Error) as error:
        _remove_set(aside)
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise Refused("invalid", f"cannot write the backup {file}: {reason}") from error


def read(file: Path, directory: Path) -> tuple[Memory, dict[str, int]]:
    """What a backup holds, and its counters. Raises `Refused`; `StoreFull` when there is no space for the copy."""
    copy = directory / COPY
    _remove_set(copy)
    try:
        _take(file, copy)
        with opening(copy):
            connection = connect(copy)
            try:
                if prepare(connection) is None:
                    raise Damaged("it is empty")
                with connection.begin():
                    return store_rows.memory(connection), store_rows.counter_values(connection)
            finally:
                disconnect(connection)
    except (Damaged, StoreBroken) as error:
        raise Refused("invalid", f"{file} is no sound backup: {error}") from error
    finally:
        _remove_set(copy)


def _take(file: Path, copy: Path) -> None:
    # With its log, where the file is a database copied by hand and not a backup.
    for suffix in SUFFIXES[:2]:
        try:
            source = file.with_name(file.name + suffix).open("rb")
        except FileNotFoundError:
            if suffix:
                return
            raise Refused("invalid", f"there is no file {file}") from None
        except OSError as error:
            raise Refused("invalid", f"cannot read {file}: {error.strerror}") from error
        with source:
            try:
                descriptor = os.open(copy.with_name(copy.name + suffix), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                with os.fdopen(descriptor, "wb") as sink:
                    shutil.copyfileobj(source, sink)
            except OSError as error:
                raise failed(error, copy) from error


def _remove_set(path: Path) -> None:
    for suffix in SUFFIXES:
        try:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        except OSError as error:
            raise failed(error, path) from error

"""What a start would make of the data folder, done on a copy: whoever asks changes nothing.

Of a folder that an agent has, no file but the lock is opened, and that is held for no longer than the question takes.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from device_agent.adapters import store_schema
from device_agent.adapters.sidecar import FLOOR, LAST_GOOD
from device_agent.adapters.store import LOCK
from device_agent.adapters.store_database import StoreLocked, disconnect, failed
from device_agent.adapters.store_recovery import DATABASE, SUFFIXES, open_database
from device_agent.adapters.store_session import SESSION
from device_agent.ports import Clock

# With its log: what was not yet checkpointed is in there alone.
_COPIED = (*(DATABASE + suffix for suffix in SUFFIXES), FLOOR, LAST_GOOD, SESSION)
_BLOCK = 4096


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What a start has made of the copy.

    `fresh`: there is no database to go on with. `migrates`: it is of an older agent.
    `recovered` is what the start tells of its recovery; None: nothing has to be recovered.
    `unwritable`: what has to be written and cannot be, so that it would not get as far there; None: nothing.
    """

    copy: Path
    fresh: bool
    migrates: bool
    recovered: str | None
    unwritable: Path | None
    needs: int
    """Bytes that it wrote more than there were."""
    free: int
    """Bytes that are free where it would write them. With fewer than it needs it ends (`StoreFull`)."""

    @property
    def finds_room(self) -> bool:
        return self.needs <= self.free


@contextmanager
def rehearsed(directory: Path, clock: Clock) -> Iterator[Rehearsed]:
    """The copy is there for as long as the block, and whoever asks may open it.

    Raises `StoreLocked` where an agent runs, `StoreBroken` and `OSError` where the folder cannot be read.
    `StoreFull`: there is no room for the copy.
    """
    _refuse_held(directory)
    with TemporaryDirectory() as place:
        copy = Path(place)
        for name in _COPIED:
            _copy(directory / name, copy / name)
        _refuse_held(directory)  # begun meanwhile: what was copied is from before and after
        copied = _taken(copy)
        opened = open_database(copy, clock)
        needs = _taken(copy) - copied  # before it is closed: as long as it is used it has a log, too
        disconnect(opened.connection)
        schema = opened.schema
        there = _existing(directory)
        yield Rehearsed(
            copy,
            fresh=schema is None,
            migrates=schema is not None and schema < store_schema.SCHEMA_VERSION,
            recovered=opened.recovered,
            unwritable=None if os.access(there, os.W_OK) else there,
            needs=needs,
            free=shutil.disk_usage(there).free,
        )


def _refuse_held(directory: Path) -> None:
    try:
        descriptor = os.open(directory / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StoreLocked(f"an agent is running on the data folder {directory}") from None
    finally:
        os.close(descriptor)


def _existing(directory: Path) -> Path:
    """A start makes the folder where there is none, and files in it."""
    place = directory
    while not place.exists():
        place = place.parent
    return place


def _taken(directory: Path) -> int:
    """In blocks as most file systems have them: those of the copy's may be others."""
    return sum(-(-file.stat().st_size // _BLOCK) * _BLOCK for file in directory.iterdir())


def _copy(file: Path, copy: Path) -> None:
    try:
        source = file.open("rb")
    except FileNotFoundError:
        return
    with source:
        try:
            with copy.open("wb") as sink:
                shutil.copyfileobj(source, sink)
        except OSError as error:
            raise failed(error, copy) from error

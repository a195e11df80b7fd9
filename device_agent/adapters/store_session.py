"""The session number of a full disk: a file of one line that is overwritten where it lies, which takes no room.

Without it each boot on a full disk would begin at the number of the one before. The line is within one sector: after
a power cut it is the old one or the new one.

    0000001795548974 1a2b3c4d
"""

import os
import re
import zlib
from pathlib import Path

from device_agent.adapters import sidecar
from device_agent.adapters.store_database import failed
from device_agent.model.errors import StoreFull

SESSION = "session"
_LINE = re.compile(rb"([0-9]{16}) ([0-9a-f]{8})\n")


def read(directory: Path) -> int:
    """The highest number written so far. Where there is no sound line, 0; it is made then, if the disk has room.

    Raises `StoreBroken`.
    """
    path = directory / SESSION
    try:
        return _number(path.read_bytes())
    except (OSError, ValueError):
        # Not told: what is lost with it are numbers of boots on a full disk, and the next block leaves room for some.
        try:
            sidecar.replace(path, _line(0))
        except OSError as error:
            problem = failed(error, path)
            if not isinstance(problem, StoreFull):
                raise problem from error
    return 0


def write(directory: Path, number: int) -> None:
    """On disk when this returns. Raises `StoreFull` where there was never room to make the file, and `StoreBroken`."""
    path = directory / SESSION
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, _line(number), 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
    except FileNotFoundError as error:
        raise StoreFull(f"{path}: there is no such file to write over") from error
    except OSError as error:
        raise failed(error, path) from error


def _line(number: int) -> bytes:
    digits = b"%016d" % number
    return b"%s %08x\n" % (digits, zlib.crc32(digits))


def _number(content: bytes) -> int:
    found = _LINE.fullmatch(content)
    if found is None or content != _line(int(found[1])):
        raise ValueError("not as it was written")
    return int(found[1])

"""Files that are made once and never written over: keys, certificates, passwords."""

import os
from pathlib import Path

from cloud_sim.connection import Misconfigured

PRIVATE, PUBLIC = 0o600, 0o644


def write_new(file: Path, content: bytes, mode: int) -> None:
    """On disk when this returns, never readable for anybody whom `mode` does not name.

    Raises `Misconfigured` when it is there already: what others trust or rely on is not replaced by chance.
    """
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise Misconfigured(f"{file} is there already, and is not written over") from error
    except OSError as error:
        raise Misconfigured(f"cannot write {file}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as out:
        os.fchmod(descriptor, mode)
        out.write(content)
        out.flush()
        os.fsync(descriptor)

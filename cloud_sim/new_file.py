"""Files that others trust: each is whole or not there, and never readable for more than it is meant to be."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from cloud_sim.connection import Misconfigured

PRIVATE, PUBLIC = 0o600, 0o644


def write_new(file: Path, content: bytes, mode: int) -> None:
    """Raises `Misconfigured` when it cannot be written or is there already: a key is not replaced by chance."""
    try:
        with _beside(file, content, mode) as partial:
            os.link(partial, file)
    except FileExistsError as error:
        raise Misconfigured(f"{file} is there already, and is not written over") from error
    except OSError as error:
        raise Misconfigured(f"cannot write {file}: {error.strerror}") from error


def write_over(file: Path, content: bytes, mode: int) -> None:
    """In place of what is there: whoever reads it gets the one or the other. Raises `Misconfigured`."""
    try:
        with _beside(file, content, mode) as partial:
            partial.replace(file)
    except OSError as error:
        raise Misconfigured(f"cannot write {file}: {error.strerror}") from error


@contextlib.contextmanager
def _beside(file: Path, content: bytes, mode: int) -> Iterator[Path]:
    """The content on disk under another name in the same folder, gone when the block is left."""
    partial = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as out:
            os.fchmod(descriptor, mode)
            out.write(content)
            out.flush()
            os.fsync(descriptor)
        yield partial
    finally:
        partial.unlink(missing_ok=True)

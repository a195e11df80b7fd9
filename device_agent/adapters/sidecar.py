"""Small checksummed files beside the database: what must outlive it.

`floor.json` has the highest versions ever accepted, `last-good.json` the targets that have been applied; both have the
high-water marks of `seq` and `session`. A file is replaced whole (written aside, fsync, rename, fsync of the folder):
after a power cut it is the old one or the new one.

    {"sha256": "<of the canonical body>", "body": {"format": 1, "floors": {"fleet": [1, 42, "sha256:…"]},
     "seq": 1041, "session": 7, "targets": [{…, "raw": "<base64 of zlib>"}]}}
"""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from device_agent.adapters.store_target import Written, rebuilt, written
from device_agent.model.memory import Floor
from device_agent.model.target import Json, Target, Version

FLOOR = "floor.json"
LAST_GOOD = "last-good.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """The contents of one file."""

    floors: Mapping[str, Floor] = field(default_factory=dict)
    seq: int = 0
    session: int = 0
    targets: tuple[Target, ...] = ()

    def __bool__(self) -> bool:
        return self != Kept()


def higher(first: Mapping[str, Floor], *others: Mapping[str, Floor]) -> dict[str, Floor]:
    """The higher floor of each scope. Of equal ones the first that has a digest."""
    result = dict(first)
    for floors in others:
        for scope, floor in floors.items():
            mine = result.get(scope)
            if mine is None or floor.version > mine.version or (floor.version == mine.version and mine.digest is None):
                result[scope] = floor
    return result


def write(path: Path, kept: Kept) -> None:
    """Replace the file. Raises `OSError`; then the old one is still there."""
    body: Json = {
        "format": 1,
        "floors": {scope: [*floor.version, floor.digest] for scope, floor in kept.floors.items()},
        "seq": kept.seq,
        "session": kept.session,
        "targets": [_packed(target) for target in kept.targets],
    }
    text = json.dumps({"sha256": _checksum(body), "body": body}, separators=(",", ":"))
    replace(path, text.encode() + b"\n")


def read(path: Path) -> Kept | None:
    """None when there is no such file. Raises `ValueError` when it is not as it was written, `OSError` otherwise."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        document = json.loads(content)
        body = document["body"]
        if document["sha256"] != _checksum(body):
            raise ValueError("the checksum is wrong")
        return Kept(
            {
                scope: Floor(Version(int(epoch), int(revision)), digest)
                for scope, (epoch, revision, digest) in body["floors"].items()
            },
            int(body["seq"]),
            int(body["session"]),
            tuple(_unpacked(target) for target in body["targets"]),
        )
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


def replace(path: Path, content: bytes) -> None:
    """All of it or none of it, on disk when this returns, readable by the owner alone."""
    aside = path.with_name(path.name + ".tmp")
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)  # on a full disk the half file would keep the space that others need
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Names (created, renamed, removed) on disk."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checksum(body: Json) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _packed(target: Target) -> Json:
    content = written(target)
    return {
        "scope": target.scope,
        "version": list(target.version),
        "digest": target.digest,
        "header": content.header,
        "raw": base64.b64encode(content.raw).decode(),
        "apps": base64.b64encode(content.apps).decode(),
    }


def _unpacked(packed: Json) -> Target:
    epoch, revision = packed["version"]
    raw, apps = base64.b64decode(packed["raw"]), base64.b64decode(packed["apps"])
    return rebuilt(
        packed["scope"], Version(int(epoch), int(revision)), packed["digest"], Written(packed["header"], raw, apps)
    )

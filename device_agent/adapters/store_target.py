"""A target as three pieces that can be written down: its header as JSON, its raw bytes and its apps compressed.

A field that a later agent adds to the header has a default there: what was stored before is read with it, and what an
older agent does not know it leaves out.
"""

import json
import zlib
from dataclasses import dataclass, fields

from device_agent.model.target import Target, Version

_OWN = frozenset({"scope", "version", "digest", "apps", "raw"})
_HEADER = tuple(field.name for field in fields(Target) if field.name not in _OWN)


@dataclass(frozen=True, slots=True)
class Written:
    """`header` is JSON, `raw` and `apps` are zlib streams."""

    header: str
    raw: bytes
    apps: bytes


def written(target: Target) -> Written:
    apps = json.dumps(dict(target.apps), separators=(",", ":")).encode()
    return Written(header(target), zlib.compress(target.raw), zlib.compress(apps))


def header(target: Target) -> str:
    """`Written.header` alone."""
    return json.dumps({name: getattr(target, name) for name in _HEADER}, separators=(",", ":"))


def rebuilt(scope: str, version: Version, digest: str, content: Written) -> Target:
    """Raises `ValueError` where the pieces are damaged."""
    try:
        known = json.loads(content.header)
        return Target(
            scope=scope,
            version=version,
            digest=digest,
            apps=json.loads(zlib.decompress(content.apps)),
            raw=zlib.decompress(content.raw),
            **{name: known[name] for name in _HEADER if name in known},
        )
    except (zlib.error, TypeError) as error:
        raise ValueError(f"the {scope} target {version}: {error}") from error

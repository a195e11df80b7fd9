"""Where on the host the agent's own files are, as far as `/proc/self/mountinfo` tells (proc(5)).

In a container a mount's root is the place in its file system on the host: `…/volumes/NAME/_data` for a volume, the path
itself for a bind mount of the host's first file system. What is on another one is known only by its volume's name.
"""

import posixpath
import re
from collections.abc import Iterable
from pathlib import Path

MOUNTINFO = Path("/proc/self/mountinfo")

_VOLUME = re.compile(r"/volumes/([^/]+)/_data(?:/|$)")
_ESCAPED = re.compile(r"\\([0-7]{3})")


def read_mountinfo() -> str:
    """Empty where there is none."""
    try:
        return MOUNTINFO.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def own_places(files: Iterable[Path], mountinfo: str) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the volumes that these are on, and their paths: as they are seen here, and on the host."""
    mounts = [_mount(line) for line in mountinfo.splitlines()]
    here = {str(path) for file in files for path in (file.absolute(), file.resolve())}
    there = {_on_host(path, mounts) for path in here}
    volumes = frozenset(found.group(1) for path in there if (found := _VOLUME.search(path)))
    return volumes, frozenset(here | there)


def _mount(line: str) -> tuple[str, str]:
    """(root, mount point)."""
    root, point = line.split(" ")[3:5]
    return _plain(root), _plain(point)


def _plain(text: str) -> str:
    return _ESCAPED.sub(lambda escaped: chr(int(escaped.group(1), 8)), text)


def _on_host(path: str, mounts: list[tuple[str, str]]) -> str:
    """The last mount on the nearest point is the one that is seen."""
    root, point = "/", "/"
    for mount, at in mounts:
        if len(at) >= len(point) and f"{path}/".startswith(at.rstrip("/") + "/"):
            root, point = mount, at
    return posixpath.normpath(f"{root}/{path[len(point.rstrip('/')) :]}")

"""Configs and secrets on the engine: in a volume, out of which each file is mounted read-only. Pure.

A file is a mount of its own, so that it may be in any folder and hides nothing else there. Engines before API 1.45
cannot mount a part of a volume; all of them can bind a path of their host, and tell where there a volume is. Such a
bind alone would not keep anybody from removing the volume, so it is mounted as a whole, too, in a place of its own: at
the top, because it could not be made below another mount that is read-only.
"""

import io
import tarfile
from collections.abc import Iterable, Iterator

from device_agent.adapters.docker_mounts import Body
from device_agent.model.compose import File, Mount
from device_agent.model.compose_files import HELD_AT
from device_agent.model.observed import LABEL_FILLS, LABEL_SPEC
from device_agent.model.steps import Create, Fill

_FOLDER = "files"
"""In the volume, root's alone: neither here nor on the host does anybody else come by its name to what is in it."""


def holder_body(fill: Fill) -> Body:
    """The container through which a volume is filled. It has the labels of its service, but is of no spec."""
    labels = {name: value for name, value in fill.volume.labels.items() if name != LABEL_SPEC}
    volume = {"Type": "volume", "Source": fill.volume.name, "Target": HELD_AT, "VolumeOptions": {"NoCopy": True}}
    return {
        "Image": fill.image,
        "Entrypoint": ["/never-started"],
        "Labels": {**labels, LABEL_FILLS: fill.volume.name},
        "HostConfig": {"NetworkMode": "none", "Mounts": [volume]},
    }


def archive(files: Iterable[File]) -> bytes:
    """A tar of the files, numbered, for the volume's root."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        folder = tarfile.TarInfo(_FOLDER)
        folder.type, folder.mode = tarfile.DIRTYPE, 0o700
        tar.addfile(folder)
        for number, file in enumerate(files):
            content = file.content.encode()
            header = tarfile.TarInfo(f"{_FOLDER}/{number}")
            header.size, header.mode, header.uid, header.gid = len(content), file.mode, file.uid, file.gid
            tar.addfile(header, io.BytesIO(content))
    return written.getvalue()


def file_mounts(create: Create, source: str) -> Iterator[Mount]:
    """`source`: the path on the engine's host at which it has the volume."""
    if not create.files:
        return
    yield Mount(type="volume", source=create.files, target=HELD_AT, read_only=True, nocopy=True)
    for number, file in enumerate(create.service.files):
        path = f"{source}/{_FOLDER}/{number}"
        yield Mount(type="bind", source=path, target=file.target, read_only=True, create_host_path=False)

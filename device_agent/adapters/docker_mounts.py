"""From a container's mounts to the engine's JSON. Pure.

A named or anonymous volume is a mount (it takes every option); a bind mount whose host path is to be made when it is
missing is a bind, because that is what makes the path on every engine.
"""

from typing import Any

from device_agent.model.compose import Mount

Body = dict[str, Any]

_CREATE_HOST_PATH, _READ_ONLY_BELOW, _SUBPATH = (1, 42), (1, 44), (1, 45)


def given(body: Body, **values: object) -> None:
    """Only what is given: what is left out is the engine's or the image's to choose."""
    body.update({key: value for key, value in values.items() if value is not None})


def mounts(wanted: tuple[Mount, ...], api: tuple[int, int]) -> Body:
    """The keys of `HostConfig` for an engine that speaks version `api`."""
    binds = [_bind(mount) for mount in wanted if _as_bind(mount)]
    others = [_mount(mount, api) for mount in wanted if not _as_bind(mount)]
    return {"Binds": binds or None, "Mounts": others or None}


def too_old(wanted: tuple[Mount, ...], api: tuple[int, int]) -> str:
    """What an engine that speaks `api` would leave out unasked although the container may not be without it."""
    for mount in wanted:
        if mount.subpath and api < _SUBPATH:
            return f"this engine mounts only whole volumes, not the subpath {mount.subpath} (it takes API 1.45)"
        if mount.recursive == "readonly" and api < _READ_ONLY_BELOW:
            return f"this engine cannot make what is mounted below {mount.source} read-only (it takes API 1.44)"
    return ""


def _as_bind(mount: Mount) -> bool:
    """A bind makes the host path, and a bind alone can relabel. A colon cannot be written in one: that is a mount."""
    wanted = (mount.create_host_path or mount.selinux is not None) and mount.recursive is None
    return mount.type == "bind" and wanted and ":" not in f"{mount.source}{mount.target}"


def _bind(mount: Mount) -> str:
    options = ("ro" if mount.read_only else "rw", mount.selinux, mount.propagation)
    return f"{mount.source}:{mount.target}:{','.join(option for option in options if option)}"


_RECURSIVE: dict[str, Body] = {
    "disabled": {"NonRecursive": True},
    "writable": {"ReadOnlyNonRecursive": True},
    "readonly": {"ReadOnlyForceRecursive": True},
}
"""Before API 1.44 mounts below a read-only one are writable whatever is asked."""


def _mount(mount: Mount, api: tuple[int, int]) -> Body:
    body: Body = {"Type": mount.type, "Target": mount.target}
    given(body, Source=mount.source, ReadOnly=mount.read_only or None)
    options: Body = {}
    match mount.type:
        case "volume":
            given(options, NoCopy=mount.nocopy or None, Subpath=mount.subpath, Labels=dict(mount.labels) or None)
            given(body, VolumeOptions=options or None)
        case "bind":
            create = mount.create_host_path and api >= _CREATE_HOST_PATH
            given(options, Propagation=mount.propagation, CreateMountpoint=create or None)
            if mount.recursive == "disabled" or (mount.recursive and api >= _READ_ONLY_BELOW):
                options |= _RECURSIVE[mount.recursive]
            given(body, BindOptions=options or None)
        case "tmpfs":
            given(options, SizeBytes=mount.tmpfs_size, Mode=mount.tmpfs_mode)
            given(body, TmpfsOptions=options or None)
    return body

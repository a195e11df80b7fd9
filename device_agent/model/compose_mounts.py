"""What is mounted in a container: `volumes`, and `volumes_from` other services."""

import posixpath
from collections.abc import Mapping
from typing import Any

from device_agent.model import compose_forms as forms
from device_agent.model import compose_units as units
from device_agent.model.compose import Mount, VolumesFrom
from device_agent.model.compose_addresses import NOT_OF_THE_APP
from device_agent.model.compose_lists import NO_USE, labels
from device_agent.model.compose_units import NotSupported, NotValid
from device_agent.model.place import Place, Reader, by, read, read_object
from device_agent.model.target import Json

_ENABLED = "enabled"
_NO_IMAGES = "an image cannot be mounted: mount a volume that a service of that image fills"


def _subpath(value: Json) -> str:
    path = posixpath.normpath(units.text(value))
    if path.startswith(("/", "..")):
        raise NotValid("expected a path inside the volume, such as app/data")
    return path


_MOUNT: Mapping[str, Reader] = {
    "type": by(forms.mount_type),
    "source": by(units.text),
    "target": by(forms.mount_point),
    "read_only": by(units.boolean),
    "bind": lambda place: read_object(place, _MOUNT_BIND),
    "volume": lambda place: read_object(place, _MOUNT_VOLUME),
    "tmpfs": lambda place: read_object(place, _MOUNT_TMPFS),
}
_MOUNT_BIND: Mapping[str, Reader] = {
    "propagation": by(units.one_of(*forms.PROPAGATIONS)),
    "create_host_path": by(units.boolean),
    "selinux": by(units.one_of("z", "Z")),
    "recursive": by(units.one_of(_ENABLED, "disabled", "writable", "readonly")),
}
_MOUNT_VOLUME: Mapping[str, Reader] = {"nocopy": by(units.boolean), "subpath": by(_subpath), "labels": labels}
_MOUNT_TMPFS: Mapping[str, Reader] = {"size": by(units.limit), "mode": by(units.file_mode)}


def _mount(place: Place) -> Mount:
    if not isinstance(place.value, dict):
        return forms.mount(place.value)
    fields = read_object(
        place, _MOUNT, required=("type", "target"), refused={"image": _NO_IMAGES}, ignored={"consistency": NO_USE}
    )
    kind = fields["type"]
    for other in {"bind", "volume", "tmpfs"} - {kind}:
        if fields.pop(other, None):
            raise NotValid(f"does not go with type {kind}", other)
    details = fields.pop(kind, {})
    match kind:
        case "tmpfs":
            details = {f"tmpfs_{key}": value for key, value in details.items()}
            if "source" in fields:
                raise NotValid("a tmpfs has no source", "source")
        case "bind":
            _check_bind(fields, details)
        case "volume":
            if "source" in fields and details.get("labels"):
                raise NotValid("goes with an anonymous volume: a named one has its labels where it is declared", kind)
            if "source" not in fields and "subpath" in details:
                raise NotValid("goes with a named volume: an anonymous one is empty at first", kind, "subpath")
    return Mount(**fields, **details)


def _check_bind(fields: dict[str, Any], details: dict[str, Any]) -> None:
    if "source" not in fields:
        raise NotValid("is required for type bind", "source")
    try:
        fields["source"] = forms.host_path(fields["source"])
    except NotValid as error:
        raise NotValid(error.message, "source") from None
    recursive = details.pop("recursive", _ENABLED)
    if recursive == _ENABLED:
        return
    if details.get("selinux"):
        raise NotValid("excludes `recursive`: the engine takes only one of them", "bind", "selinux")
    if recursive == "readonly" and not fields.get("read_only"):
        raise NotValid("readonly goes with `read_only: true`", "bind", "recursive")
    details["recursive"] = recursive


def volumes(place: Place) -> tuple[Mount, ...]:
    """The mounts, in their order. Each has its own mount point, and a named volume is declared by the app."""
    found: list[Mount] = []
    taken: set[str] = set()
    for item in place.items():
        long = isinstance(item.value, dict)
        for mount in read(item, _mount):
            if mount.target in taken:
                item.invalid(f"something else is mounted on `{mount.target}` already", *(["target"] if long else []))
            if mount.type == "volume" and mount.source is not None and mount.source not in place.names.volumes:
                item.invalid(f"the app declares no volume `{mount.source}`", *(["source"] if long else []))
            taken.add(mount.target)
            found.append(mount)
    return tuple(found)


def _source(place: Place) -> VolumesFrom:
    written = units.text(place.value)
    if written.startswith("container:"):
        raise NotSupported(NOT_OF_THE_APP)
    if written not in ("service:ro", "service:rw"):  # which a service may be called
        written = written.removeprefix("service:")
    service, colon, mode = written.partition(":")
    if colon and mode not in ("ro", "rw"):
        raise NotValid("expected SERVICE, SERVICE:ro or SERVICE:rw")
    if service not in place.names.services:
        raise NotValid(f"the app has no service `{service}`")
    return VolumesFrom(service=service, read_only=mode == "ro")


def volumes_from(place: Place) -> tuple[VolumesFrom, ...]:
    """`SERVICE[:ro|rw]` each; Compose itself may write `service:` before it."""
    return tuple(dict.fromkeys(found for item in place.items() for found in read(item, _source)))

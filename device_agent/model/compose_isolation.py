"""What of the host a container may use and see: devices, capabilities, namespaces, security, kernel settings."""

import json
import re
from collections.abc import Mapping

from device_agent.model import compose_forms as forms
from device_agent.model import compose_units as units
from device_agent.model.compose import Device, DeviceRequest, Ulimit
from device_agent.model.compose_addresses import NOT_OF_THE_APP
from device_agent.model.compose_lists import options, pairs, strings
from device_agent.model.compose_networking import of_service
from device_agent.model.compose_units import NotSupported, NotValid
from device_agent.model.place import Place, Reader, by, list_of, map_of, read, read_object
from device_agent.model.target import Json

# ------------------------------------------------------------------------------------------------- devices

_DEVICE: Mapping[str, Reader] = {
    "source": by(forms.device_source),
    "target": by(forms.container_path),
    "permissions": by(forms.device_permissions),
}


def _device(place: Place) -> Device:
    if not isinstance(place.value, dict):
        return forms.device(place.value)
    fields = read_object(place, _DEVICE, required=("source",))
    return Device(**{"target": fields["source"], **fields})


def _devices(place: Place) -> tuple[Device, ...]:
    found: list[Device] = []
    for item in place.items():
        found.extend(read(item, _device))
    return tuple(found)


def _device_rule(value: Json) -> str:
    if not re.fullmatch(r"[acb] (?:[0-9]+|\*):(?:[0-9]+|\*) [rwm]{1,3}", units.text(value)):
        raise NotValid("expected TYPE MAJOR:MINOR PERMISSIONS, such as `c 1:3 mr` or `a 7:* rmw`")
    return str(value)


def _device_rules(place: Place) -> tuple[str, ...]:
    rules: tuple[str, ...] = list_of(_device_rule)(place)
    return tuple(dict.fromkeys(rules))


ALL = -1


def _device_count(value: Json) -> int:
    return ALL if value == "all" else units.integer(value, lowest=-1, highest=2**31 - 1)


_REQUEST: Mapping[str, Reader] = {
    "capabilities": strings,
    "driver": by(units.text),
    "count": by(_device_count),
    "device_ids": strings,
    "options": pairs(null=""),
}


def _request(place: Place, required: tuple[str, ...] = ()) -> DeviceRequest:
    fields = read_object(place, _REQUEST, required=required)
    if "count" in fields and fields.get("device_ids"):
        raise NotValid("excludes `device_ids`: either how many, or which", "count")
    if not fields.get("device_ids"):
        fields.setdefault("count", ALL)
    return DeviceRequest(**{"capabilities": (), **fields})


def device_requests(place: Place) -> tuple[DeviceRequest, ...]:
    """`deploy.resources.reservations.devices`."""
    found: list[DeviceRequest] = []
    for item in place.items():
        found.extend(read(item, lambda one: _request(one, required=("capabilities",))))
    return tuple(found)


def _gpus(place: Place) -> tuple[DeviceRequest, ...]:
    """`all`, or a list of requests: every one of them is for the capability `gpu`."""
    if isinstance(place.value, str):
        units.one_of("all")(place.value)
        return (DeviceRequest(capabilities=("gpu",), count=ALL),)
    found: list[DeviceRequest] = []
    for item in place.items():
        for request in read(item, _request):
            wanted = tuple(dict.fromkeys((*request.capabilities, "gpu")))
            found.append(request.model_copy(update={"capabilities": wanted}))
    return tuple(found)


# ---------------------------------------------------------------------------------- namespaces and security


def _namespace(*words: str) -> Reader:
    """One of these words, or `service:NAME`: that of another service's container."""

    def reader(place: Place) -> str | None:
        mode = units.text(place.value)
        if mode.startswith("container:"):
            raise NotSupported(NOT_OF_THE_APP)
        if mode.startswith("service:") and mode != "service:":
            return of_service(place, mode)
        if mode not in words:
            raise NotValid(f"must be one of: {', '.join(words)}, service:NAME")
        return mode

    return reader


_TRUE = ("1", "t", "T", "TRUE", "true", "True")
_FALSE = ("0", "f", "F", "FALSE", "false", "False")


def security_opt(value: Json) -> str:
    """`NAME=VALUE` of `NAME=VALUE` or `NAME:VALUE`; a seccomp profile is its content."""
    written = "no-new-privileges=true" if value == "no-new-privileges" else units.text(value)
    parts = re.fullmatch(r"([a-z-]+)[=:](.+)", written, re.DOTALL)
    if parts is None:
        raise NotValid("expected NAME=VALUE, such as no-new-privileges=true")
    name, setting = parts.groups()
    match name:
        case "no-new-privileges" if setting in _TRUE + _FALSE:
            setting = "true" if setting in _TRUE else "false"
        case "seccomp" if setting not in ("unconfined", "builtin"):
            setting = _seccomp(setting)
        case "systempaths" if setting != "unconfined":
            raise NotValid("systempaths can only be unconfined")
        case "apparmor" | "label" | "seccomp" | "systempaths":
            pass
        case "no-new-privileges":
            raise NotValid("no-new-privileges is true or false")
        case _:
            raise NotValid("must be one of: apparmor, label, no-new-privileges, seccomp, systempaths")
    return f"{name}={setting}"


def _seccomp(setting: str) -> str:
    try:
        profile = json.loads(setting)
    except (ValueError, RecursionError):
        profile = None
    if not isinstance(profile, dict):
        raise NotSupported("a file with a seccomp profile is not on the device: write the profile itself here, as JSON")
    return json.dumps(profile, separators=(",", ":"), sort_keys=True)


def _security_opts(place: Place) -> tuple[str, ...]:
    found: tuple[str, ...] = list_of(security_opt)(place)
    return tuple(dict.fromkeys(found))


# ----------------------------------------------------------------------------------------- kernel settings


def _ulimit_value(value: Json) -> int:
    return units.integer(value, lowest=-1)


def _ulimit(place: Place) -> Ulimit:
    if not re.fullmatch(r"[a-z]+", str(place.key)):
        raise NotValid("the name of a limit has only lower-case letters, such as nofile")
    if isinstance(place.value, dict):
        reader = by(_ulimit_value)
        limit = Ulimit(**read_object(place, {"soft": reader, "hard": reader}, required=("soft", "hard")))
    else:
        limit = Ulimit(soft=_ulimit_value(place.value), hard=_ulimit_value(place.value))
    if limit.hard != -1 and (limit.soft > limit.hard or limit.soft == -1):
        raise NotValid("the soft limit is above the hard one")
    return limit


def _group(value: Json) -> str:
    """A group's name, or its number."""
    return units.text(value) if isinstance(value, str) else str(units.integer(value, highest=2**32 - 1))


def _capabilities(place: Place) -> tuple[str, ...]:
    return tuple(sorted(set(list_of(forms.capability)(place))))


ISOLATION: Mapping[str, Reader] = {
    "group_add": lambda place: tuple(sorted(set(list_of(_group)(place)))),
    "cap_add": _capabilities,
    "cap_drop": _capabilities,
    "privileged": by(units.boolean),
    "read_only": by(units.boolean),
    "devices": _devices,
    "device_cgroup_rules": _device_rules,
    "gpus": _gpus,
    "runtime": by(units.text),
    "security_opt": _security_opts,
    "userns_mode": by(units.one_of("host")),
    "pid": lambda place: None if place.value is None else _namespace("host")(place),
    "ipc": _namespace("host", "none", "private", "shareable"),
    "uts": by(units.one_of("host")),
    "cgroup": by(units.one_of("host", "private")),
    "cgroup_parent": by(units.text),
    "sysctls": pairs(null=""),
    "ulimits": map_of(_ulimit),
    "storage_opt": options(str, int, float),
}

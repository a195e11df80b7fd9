"""From the raw JSON of a service to its canonical model.

A table says for each of Compose's keys how it is read; what is in no table is refused by name, never dropped. A name
of something else of the app is looked up where it is used, so that its pointer is exact.
"""

from collections.abc import Mapping
from typing import Any

from device_agent.model import compose_files as files
from device_agent.model import compose_forms as forms
from device_agent.model import compose_isolation as isolation
from device_agent.model import compose_limits as limits
from device_agent.model import compose_mounts as mounts
from device_agent.model import compose_networking as networking
from device_agent.model import compose_pulling as pulling
from device_agent.model import compose_scale as scale
from device_agent.model import compose_units as units
from device_agent.model.compose import Dependency, Healthcheck, Logging, Service, Update
from device_agent.model.compose_lists import (
    NO_USE,
    WHEN_PUBLISHING,
    container_labels,
    options,
    pairs,
    string_or_list,
    strings,
)
from device_agent.model.compose_units import NotValid
from device_agent.model.observed import LABEL_UPDATE_LOCK
from device_agent.model.place import Place, Reader, by, list_of, read, read_fields, read_object


def _command(place: Place) -> tuple[str, ...] | None:
    if place.value is None or isinstance(place.value, str):
        return None if place.value is None else forms.words(place.value)
    return list_of(units.string)(place)  # type: ignore[no-any-return]


_DEPENDENCY: Mapping[str, Reader] = {
    "condition": by(units.one_of("service_started", "service_healthy", "service_completed_successfully")),
    "required": by(units.strict_boolean),
    "restart": by(units.boolean),
}


def _dependency(place: Place) -> Dependency:
    return Dependency(**read_object(place, _DEPENDENCY, required=("condition",)))


def _depends_on(place: Place) -> dict[str, Dependency]:
    found: dict[str, Dependency] = {}
    if isinstance(place.value, list):
        found = dict.fromkeys(strings(place), Dependency())
        places: dict[str, str | int] = {name: index for index, name in enumerate(place.value) if isinstance(name, str)}
    else:
        for member in place.members():
            for dependency in read(member, _dependency):
                found[str(member.key)] = dependency
        places = {name: name for name in place.value}
    for name, where in places.items():
        if name in place.names.services:
            continue
        if name in found and not found[name].required:
            place.warn(f"the app has no service `{name}`: not waited for", where)
            del found[name]
        else:
            place.invalid(f"the app has no service `{name}`", where)
    return found


_HEALTHCHECK: Mapping[str, Reader] = {
    "test": by(forms.health_test),
    "disable": by(units.boolean),
    "interval": by(units.health_duration),
    "timeout": by(units.health_duration),
    "start_period": by(units.health_duration),
    "start_interval": by(units.health_duration),
    "retries": by(lambda value: units.integer(value, highest=2**31 - 1) or None),
}


def _healthcheck(place: Place) -> Healthcheck | None:
    """None where nothing differs from the image's; without a check nothing but that counts."""
    fields = read_object(place, _HEALTHCHECK)
    disabled = fields.pop("disable", False)
    if disabled and fields.get("test") not in (None, ("NONE",)):
        raise NotValid("a check that is disabled has no test", "test")
    if disabled or fields.get("test") == ("NONE",):
        return Healthcheck(test=("NONE",))
    return Healthcheck(**fields) if any(value is not None for value in fields.values()) else None


_LOGGING: Mapping[str, Reader] = {"driver": by(units.text), "options": options(str, int, float, type(None))}


def _logging(place: Place) -> Logging | None:
    return Logging(**read_object(place, _LOGGING)) if place.value != {} else None


_UPDATE: Mapping[str, Reader] = {
    "strategy": by(units.one_of("recreate", "start-first", "stop-first", "delete-first")),
    "force": by(units.strict_boolean),
}


def update(place: Place) -> Update:
    """How a container is replaced; on an app it is the default of its services."""
    return Update(**read_object(place, _UPDATE))


_SERVICE: Mapping[str, Reader] = {
    **isolation.ISOLATION,
    **limits.LIMITS,
    **networking.NETWORKING,
    **pulling.PULLING,
    "image": by(forms.image),
    "platform": by(forms.platform),
    "container_name": by(forms.container_name),
    "x-update": update,
    "x-state": by(units.one_of("running", "stopped")),
    "command": _command,
    "entrypoint": _command,
    "environment": pairs(null=None),
    "working_dir": by(forms.container_path),
    "user": by(units.text),
    "labels": container_labels,
    "annotations": pairs(null=""),
    "init": by(units.boolean),
    "tty": by(units.boolean),
    "stdin_open": by(units.boolean),
    "restart": by(forms.restart),
    "stop_signal": by(forms.signal),
    "stop_grace_period": by(units.duration),
    "volumes": mounts.volumes,
    "volumes_from": mounts.volumes_from,
    "tmpfs": string_or_list(forms.tmpfs),
    "configs": files.files(files.CONFIGS),
    "secrets": files.files(files.SECRETS),
    "depends_on": _depends_on,
    "healthcheck": _healthcheck,
    "logging": _logging,
    "deploy": limits.deploy,
}
_SERVICE_IGNORED = {"attach": NO_USE, "develop": NO_USE}
_OF_WINDOWS = "is for Windows containers"
_NO_REAL_TIME = "real-time shares are not given: `cpus` and `cpu_shares` are what a container gets of the CPU"
_NO_HOOKS = "nothing is run in a container but its own command: do it there, or in a service that this one depends on"
_SERVICE_REFUSED = {
    **dict.fromkeys(("cpu_count", "cpu_percent"), f"{_OF_WINDOWS}: limit it with `cpus`"),
    **dict.fromkeys(("cpu_rt_period", "cpu_rt_runtime"), _NO_REAL_TIME),
    "credential_spec": f"{_OF_WINDOWS}: give credentials as `secrets`",
    "isolation": f"{_OF_WINDOWS}: how a container is kept apart is the `runtime`'s to say",
    "models": "no models are run here: run a service that serves one, and give its address in `environment`",
    **dict.fromkeys(("post_start", "pre_stop"), _NO_HOOKS),
    "provider": "nothing but containers is run here: name an `image`",
    "use_api_socket": "mount the engine's socket under `volumes`, where the device's policy allows it (engine_socket)",
    "external_links": "a container that is not of the app is reached by its name, on an `external` network of both",
    "build": "build on the device is not supported: publish an image",
    **{key: f"`{key}` {WHEN_PUBLISHING}" for key in ("env_file", "label_file", "extends", "profiles")},
}


def _check_lock(place: Place, fields: Mapping[str, Any]) -> None:
    path = fields.get("labels", {}).get(LABEL_UPDATE_LOCK)
    if path is None:
        return
    if not path.startswith("/"):
        place.invalid(f"{LABEL_UPDATE_LOCK} is the path of a file in the container: it starts with /", "labels")
    mounts = (mount.target for mount in fields.get("volumes", ()) if mount.type == "tmpfs")
    for target in (*mounts, *(entry.partition(":")[0] for entry in fields.get("tmpfs", ()))):
        if path.startswith(target.rstrip("/") + "/"):
            place.invalid(f"{LABEL_UPDATE_LOCK} is on a tmpfs, into which the engine cannot look: {target}", "labels")


def service(place: Place) -> Service:
    """A service as far as it could be read: what is wrong is in the notes, and has its default here."""
    fields = read_fields(place, _SERVICE, refused=_SERVICE_REFUSED, ignored=_SERVICE_IGNORED)
    if "x-update" in fields:
        fields["update"] = fields.pop("x-update")
    if "x-state" in fields:
        fields["state"] = fields.pop("x-state")
    if "image" not in place.value:
        place.invalid("is required", "image")
    _check_lock(place, fields)
    limits.settle(place, fields)
    pulling.settle(place, fields)
    files.settle(fields)
    networking.check(place, fields)
    scale.check(place, fields)
    mounted = {mount.target for mount in fields.get("volumes", ())}
    for entry in fields.get("tmpfs", ()):
        if entry.partition(":")[0] in mounted:
            place.invalid(f"something else is mounted on `{entry.partition(':')[0]}` already", "tmpfs")
    return Service(**{"image": "", **fields})

"""From the raw JSON of a service, a network or a volume to its canonical model.

A table says for each of Compose's keys how it is read; what is in no table is refused by name, never dropped. A name
of something else of the app is looked up where it is used, so that its pointer is exact.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from device_agent.model import compose_forms as forms
from device_agent.model.compose import (
    Dependency,
    Device,
    Healthcheck,
    IpamConfig,
    IpamPool,
    Logging,
    Mount,
    NetworkDefinition,
    Port,
    Service,
    ServiceNetwork,
    Ulimit,
    VolumeDefinition,
)
from device_agent.model.compose_forms import NotSupported, NotValid, kind
from device_agent.model.observed import LABEL
from device_agent.model.place import (
    UNSUPPORTED,
    Noted,
    Place,
    Reader,
    by,
    list_of,
    map_of,
    read,
    read_fields,
    read_object,
)
from device_agent.model.target import Json

WHEN_PUBLISHING = "is resolved when publishing: cloud-sim publish does it"
NO_USE = "has no use on a device: ignored"

# ------------------------------------------------------------------------------------- what many keys share


def strings(place: Place) -> tuple[str, ...]:
    """A list of different strings."""
    values: tuple[str, ...] = list_of(forms.text)(place)
    forms.unique(values)
    return values


def string_or_list(parse: Callable[[Json], Any]) -> Reader:
    return lambda place: (parse(place.value),) if isinstance(place.value, str) else list_of(parse)(place)


def pairs(null: str | None, list_separator: str = "=") -> Reader:
    """Compose's list-or-map of strings; `null` stands for a key without a value (None: that is wrong)."""

    def value_of(value: Json) -> str:
        if value is not None:
            return forms.scalar_text(value)
        if null is None:
            raise NotValid(f"has no value: a variable of the publisher's environment {WHEN_PUBLISHING}")
        return null

    def named(key: str, value: Json) -> str:
        if not key or "=" in key or "\0" in key:
            raise NotValid("a name is not empty and has no `=` in it")
        return value_of(value)

    def reader(place: Place) -> dict[str, str]:
        found: dict[str, str] = {}
        if isinstance(place.value, list):
            entries = []
            for index, entry in enumerate(place.value):
                if isinstance(entry, str):
                    key, separator, value = entry.partition(list_separator)
                    entries.append((index, key, value if separator else None))
                else:
                    place.invalid(f"expected a string NAME=VALUE, not {kind(entry)}", index)
            if len(entries) == len(place.value):
                forms.unique(place.value)
        elif isinstance(place.value, dict):
            entries = [(key, key, value) for key, value in place.value.items()]
        else:
            raise NotValid(f"expected an object or a list, not {kind(place.value)}")
        for where, key, value in entries:
            try:
                found[key] = named(key, value)
            except NotValid as error:
                place.note(error, where)
        return found

    return reader


def options(*scalars: type) -> Reader:
    """A map of options for a driver, their values as strings."""

    def parse(value: Json) -> str:
        if type(value) not in scalars:
            quote = ": put it in quotes" if isinstance(value, bool) else ""
            raise NotValid(f"expected a string or a number, not {kind(value)}{quote}")
        return "" if value is None else forms.scalar_text(value)

    return map_of(by(parse))


def labels(place: Place) -> dict[str, str]:
    """Labels; those of the agent itself are not a target's to set."""
    found: dict[str, str] = pairs(null="")(place)
    for name in found:
        if name.startswith(LABEL):
            where: str | int = name
            if isinstance(place.value, list):
                where = next(i for i, entry in enumerate(place.value) if str(entry).partition("=")[0] == name)
            place.invalid(f"labels that start with `{LABEL}` are the agent's own", where)
    return found


# --------------------------------------------------------------------------------------- the keys of a service


def _command(place: Place) -> tuple[str, ...] | None:
    if place.value is None or isinstance(place.value, str):
        return None if place.value is None else forms.words(place.value)
    return list_of(forms.string)(place)  # type: ignore[no-any-return]


_PORT: Mapping[str, Reader] = {
    "target": by(lambda value: forms.integer(value, lowest=1, highest=forms.LARGEST_PORT)),
    "published": by(forms.published_port),
    "protocol": by(forms.protocol),
    "host_ip": by(forms.ip_address),
    "mode": by(forms.one_of("host", "ingress")),
    "name": by(forms.string),
    "app_protocol": by(forms.string),
}
_PORT_FOR_SWARM = ("mode", "name", "app_protocol")


def _port(place: Place) -> list[Port]:
    if not isinstance(place.value, dict):
        found = forms.ports(place.value, place.notes.ports_left)
        place.notes.ports_left -= len(found)
        return found
    fields = read_object(place, _PORT, required=("target",))
    return [Port(**{key: value for key, value in fields.items() if key not in _PORT_FOR_SWARM})]


def _ports(place: Place) -> tuple[Port, ...]:
    """Each port once. Their order means nothing to the engine, so they are sorted."""
    found: list[Port] = []
    for item in place.items():
        read(item, _port, found.extend)
    return tuple(
        sorted(set(found), key=lambda port: (port.target, port.protocol, port.host_ip or "", port.published or ""))
    )


_SERVICE_NETWORK: Mapping[str, Reader] = {
    "aliases": lambda place: tuple(sorted(strings(place))),
    "ipv4_address": by(forms.ip_version(4)),
    "ipv6_address": by(forms.ip_version(6)),
    "priority": by(forms.number),
}
_SERVICE_NETWORK_REFUSED = dict.fromkeys(
    ("mac_address", "interface_name", "link_local_ips", "driver_opts", "gw_priority"), UNSUPPORTED
)


def _networks(place: Place) -> dict[str, ServiceNetwork]:
    found: dict[str, ServiceNetwork] = {}
    if isinstance(place.value, list):
        names = strings(place)
        found = {name: ServiceNetwork() for name in names}
        places: dict[str, str | int] = {name: index for index, name in enumerate(place.value) if isinstance(name, str)}
    else:
        for member in place.members():
            name = str(member.key)
            if member.value is None:
                found[name] = ServiceNetwork()
            else:
                read(
                    member,
                    lambda at: ServiceNetwork(**read_object(at, _SERVICE_NETWORK, refused=_SERVICE_NETWORK_REFUSED)),
                    lambda network, name=name: found.__setitem__(name, network),
                )
        places = {name: name for name in place.value}
    for name, where in places.items():
        if name != "default" and name not in place.names.networks:
            place.invalid(f"the app declares no network `{name}`", where)
    return found


def _network_mode(place: Place) -> str:
    mode = forms.network_mode(place.value)
    _, _, service = mode.partition(":")
    if service and service not in place.names.services:
        raise NotValid(f"the app has no service `{service}`")
    return mode


_MOUNT: Mapping[str, Reader] = {
    "type": by(forms.mount_type),
    "source": by(forms.text),
    "target": by(forms.mount_point),
    "read_only": by(forms.boolean),
    "bind": lambda place: read_object(place, _MOUNT_BIND, refused={"recursive": UNSUPPORTED}),
    "volume": lambda place: read_object(
        place, _MOUNT_VOLUME, refused=dict.fromkeys(("subpath", "labels"), UNSUPPORTED)
    ),
    "tmpfs": lambda place: read_object(place, _MOUNT_TMPFS),
}
_MOUNT_BIND: Mapping[str, Reader] = {
    "propagation": by(forms.one_of(*forms.PROPAGATIONS)),
    "create_host_path": by(forms.boolean),
    "selinux": by(forms.one_of("z", "Z")),
}
_MOUNT_VOLUME: Mapping[str, Reader] = {"nocopy": by(forms.boolean)}
_MOUNT_TMPFS: Mapping[str, Reader] = {"size": by(forms.limit), "mode": by(forms.file_mode)}


def _mount(place: Place) -> Mount:
    if not isinstance(place.value, dict):
        return forms.mount(place.value)
    fields = read_object(
        place, _MOUNT, required=("type", "target"), refused={"image": UNSUPPORTED}, ignored={"consistency": NO_USE}
    )
    kind_of_mount = fields["type"]
    for other in {"bind", "volume", "tmpfs"} - {kind_of_mount}:
        if fields.pop(other, None):
            raise NotValid(f"does not go with type {kind_of_mount}", other)
    details = fields.pop(kind_of_mount, {})
    if kind_of_mount == "tmpfs":
        details = {f"tmpfs_{key}": value for key, value in details.items()}
        if "source" in fields:
            raise NotValid("a tmpfs has no source", "source")
    elif kind_of_mount == "bind":
        if "source" not in fields:
            raise NotValid("is required for type bind", "source")
        try:
            fields["source"] = forms.host_path(fields["source"])
        except NotValid as error:
            raise NotValid(error.message, "source") from None
    return Mount(**fields, **details)


def _volumes(place: Place) -> tuple[Mount, ...]:
    """The mounts, in their order. Each has its own mount point, and a named volume is declared by the app."""
    found: list[Mount] = []
    taken: set[str] = set()
    for item in place.items():
        short = not isinstance(item.value, dict)

        def accept(mount: Mount, item: Place = item, short: bool = short) -> None:  # noqa: FBT001
            if mount.target in taken:
                item.invalid(f"something else is mounted on `{mount.target}` already", *(() if short else ("target",)))
            if mount.type == "volume" and mount.source is not None and mount.source not in place.names.volumes:
                item.invalid(f"the app declares no volume `{mount.source}`", *(() if short else ("source",)))
            taken.add(mount.target)
            found.append(mount)

        read(item, _mount, accept)
    return tuple(found)


_DEPENDENCY: Mapping[str, Reader] = {
    "condition": by(forms.one_of("service_started", "service_healthy", "service_completed_successfully")),
    "required": by(forms.strict_boolean),
    "restart": by(forms.boolean),
}


def _dependency(place: Place) -> Dependency:
    fields = read_object(place, _DEPENDENCY, required=("condition",))
    shares_network = place.parent and place.parent.parent and place.parent.parent.value.get("network_mode")
    # Compose writes `restart: true` itself for a shared network, where it says nothing new: the one cannot go on
    # in the network of the other's old container.
    if fields.pop("restart", False) and shares_network != f"service:{place.key}":
        raise NotSupported(UNSUPPORTED, "restart")
    return Dependency(**fields)


def _depends_on(place: Place) -> dict[str, Dependency]:
    found: dict[str, Dependency] = {}
    if isinstance(place.value, list):
        found = {name: Dependency() for name in strings(place)}
        places: dict[str, str | int] = {name: index for index, name in enumerate(place.value) if isinstance(name, str)}
    else:
        for member in place.members():
            read(member, _dependency, lambda value, name=str(member.key): found.__setitem__(name, value))
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
    "disable": by(forms.boolean),
    "interval": by(forms.health_duration),
    "timeout": by(forms.health_duration),
    "start_period": by(forms.health_duration),
    "start_interval": by(forms.health_duration),
    "retries": by(lambda value: forms.integer(value, highest=2**31 - 1) or None),
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
        read(item, _device, found.append)
    return tuple(found)


def _extra_hosts(place: Place) -> tuple[str, ...]:
    """`HOST:IP`, sorted by host; the addresses of one host in their order."""
    hosts: dict[str, list[str]] = {}
    if isinstance(place.value, list):
        for item in place.items():
            read(item, by(forms.extra_host), lambda pair: hosts.setdefault(pair[0], []).extend(pair[1]))
    else:
        one_or_more = string_or_list(forms.host_address)
        for member in place.members():
            if not str(member.key) or set(str(member.key)) & set(":="):
                member.invalid("a host's name is not empty and has no `:` or `=` in it")
            read(member, one_or_more, lambda found, key=str(member.key): hosts.__setitem__(key, list(found)))
    return tuple(f"{host}:{address}" for host in sorted(hosts) for address in dict.fromkeys(hosts[host]))


def _ulimit_value(value: Json) -> int:
    return forms.integer(value, lowest=-1)


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


_LOGGING: Mapping[str, Reader] = {"driver": by(forms.text), "options": options(str, int, float, type(None))}


def _logging(place: Place) -> Logging | None:
    return Logging(**read_object(place, _LOGGING)) if place.value != {} else None


def _deploy(place: Place) -> None:
    if place.value is not None:
        read_fields(place, {}, refused=_DEPLOY_REFUSED, ignored=_DEPLOY_IGNORED)


_DEPLOY_IGNORED = dict.fromkeys(
    ("mode", "placement", "update_config", "rollback_config", "endpoint_mode", "labels"), NO_USE
)
_DEPLOY_REFUSED = dict.fromkeys(("replicas", "resources", "restart_policy"), UNSUPPORTED)

_SERVICE: Mapping[str, Reader] = {
    "image": by(forms.image),
    "command": _command,
    "entrypoint": _command,
    "environment": pairs(null=None),
    "working_dir": by(forms.container_path),
    "user": by(forms.text),
    "hostname": by(forms.text),
    "labels": labels,
    "init": by(forms.boolean),
    "restart": by(forms.restart),
    "stop_signal": by(forms.signal),
    "stop_grace_period": by(forms.duration),
    "ports": _ports,
    "networks": _networks,
    "network_mode": _network_mode,
    "volumes": _volumes,
    "tmpfs": string_or_list(forms.tmpfs),
    "depends_on": _depends_on,
    "healthcheck": _healthcheck,
    "cpus": by(forms.cpus),
    "mem_limit": by(forms.limit),
    "shm_size": by(forms.limit),
    "cap_add": lambda place: tuple(sorted(set(list_of(forms.capability)(place)))),
    "cap_drop": lambda place: tuple(sorted(set(list_of(forms.capability)(place)))),
    "privileged": by(forms.boolean),
    "read_only": by(forms.boolean),
    "devices": _devices,
    "extra_hosts": _extra_hosts,
    "dns": string_or_list(forms.ip_address),
    "sysctls": pairs(null=""),
    "ulimits": map_of(_ulimit),
    "logging": _logging,
    "deploy": _deploy,
}
_SERVICE_IGNORED = {"attach": NO_USE, "develop": NO_USE}
_SERVICE_REFUSED = {
    **dict.fromkeys(
        (
            *("annotations", "blkio_config", "cgroup", "cgroup_parent", "configs", "container_name", "cpu_count"),
            *("cpu_percent", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime", "cpu_shares", "cpuset"),
            *("credential_spec", "device_cgroup_rules", "dns_opt", "dns_search", "domainname", "expose"),
            *("external_links", "gpus", "group_add", "ipc", "isolation", "links", "mac_address", "mem_reservation"),
            *("mem_swappiness", "memswap_limit", "models", "oom_kill_disable", "oom_score_adj", "pid", "pids_limit"),
            *("platform", "post_start", "pre_stop", "provider", "pull_policy", "pull_refresh_after", "runtime"),
            *("scale", "secrets", "security_opt", "stdin_open", "storage_opt", "tty", "use_api_socket"),
            *("userns_mode", "uts", "volumes_from"),
        ),
        UNSUPPORTED,
    ),
    "build": "build on the device is not supported: publish an image",
    **{key: f"`{key}` {WHEN_PUBLISHING}" for key in ("env_file", "label_file", "extends", "profiles")},
}

_NOT_WITH_ANOTHERS_NETWORK = ("ports", "hostname", "dns", "extra_hosts")
"""What the engine refuses for a container in the network of another: it belongs to that other one."""


def service(place: Place) -> Service:
    """A service as far as it could be read: what is wrong is in the notes, and has its default here."""
    fields = read_fields(place, _SERVICE, refused=_SERVICE_REFUSED, ignored=_SERVICE_IGNORED)
    fields.pop("deploy", None)
    if "image" not in place.value:
        place.invalid("is required", "image")
    mode = fields.get("network_mode")
    if mode and fields.get("networks"):
        place.invalid("excludes `networks`", "network_mode")
    if mode == "host" and fields.get("ports"):
        place.invalid("excludes `network_mode: host`: the container's ports are the host's", "ports")
    if mode and mode.startswith("service:"):
        for key in _NOT_WITH_ANOTHERS_NETWORK:
            if fields.get(key):
                place.invalid(f"excludes `network_mode: {mode}`: it goes with that service", key)
    mounted = {mount.target for mount in fields.get("volumes", ())}
    for entry in fields.get("tmpfs", ()):
        if entry.partition(":")[0] in mounted:
            place.invalid(f"something else is mounted on `{entry.partition(':')[0]}` already", "tmpfs")
    return Service(**{"image": "", **fields})


# ------------------------------------------------------------------------------ the networks and volumes of an app


def _external(place: Place) -> bool | str:
    """Whether it is made elsewhere; a string is the name by the deprecated form `external: {name: …}`."""
    if not isinstance(place.value, dict):
        return forms.boolean(place.value)
    fields = read_object(place, {"name": by(forms.text)})
    place.warn("deprecated: `external: true` and `name` say it now")
    return str(fields["name"]) if "name" in fields else True


def _definition(place: Place, readers: Mapping[str, Reader], refused: Mapping[str, str]) -> dict[str, Any]:
    """The fields of a network or a volume. An external one has nothing but a name, by default its key."""
    if place.value is None:
        return {}
    fields = read_object(place, readers, refused=refused)
    external = fields.get("external", False)
    if not external:
        return fields
    before = place.notes.problems()
    if isinstance(external, str) and "name" in fields:
        place.invalid("excludes `name`: only one of them can name it", "external")
    for key in fields.keys() - {"external", "name"}:
        place.invalid("excludes `external`: what is made elsewhere is taken as it is", key)
    if place.notes.problems() > before:
        raise Noted
    name = external if isinstance(external, str) else fields.get("name", str(place.key))
    return {"external": True, "name": name}


_IPAM_POOL: Mapping[str, Reader] = {
    "subnet": by(forms.subnet),
    "ip_range": by(forms.subnet),
    "gateway": by(forms.ip_address),
    "aux_addresses": map_of(by(forms.ip_address)),
}


def _ipam_pools(place: Place) -> tuple[IpamPool, ...]:
    found: list[IpamPool] = []
    for item in place.items():
        read(item, lambda at: IpamPool(**read_object(at, _IPAM_POOL)), found.append)
    return tuple(found)


_IPAM: Mapping[str, Reader] = {
    "driver": by(forms.text),
    "config": _ipam_pools,
    "options": map_of(by(forms.string)),
}


def _ipam(place: Place) -> IpamConfig | None:
    config = IpamConfig(**read_object(place, _IPAM))
    return config if config != IpamConfig() else None


_DEFINITION: Mapping[str, Reader] = {
    "driver": by(forms.text),
    "driver_opts": options(str, int, float),
    "labels": labels,
    "external": _external,
}
_NETWORK: Mapping[str, Reader] = {
    **_DEFINITION,
    "name": by(forms.text),
    "ipam": _ipam,
    "internal": by(forms.boolean),
    "attachable": by(forms.boolean),
    "enable_ipv6": by(forms.boolean),
}
_VOLUME: Mapping[str, Reader] = {**_DEFINITION, "name": by(forms.engine_name)}
_PREDEFINED_NETWORKS = ("bridge", "host", "none")


def network(place: Place) -> NetworkDefinition:
    definition = NetworkDefinition(**_definition(place, _NETWORK, refused={"enable_ipv4": UNSUPPORTED}))
    if definition.name in _PREDEFINED_NETWORKS and not definition.external:
        raise NotValid("is a network of the engine itself: it can only be external", "name")
    return definition


def volume(place: Place) -> VolumeDefinition:
    return VolumeDefinition(**_definition(place, _VOLUME, refused={}))

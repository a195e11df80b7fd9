"""What a target may ask for, as the device's owner says in the policy file. Strict by default.

Refused unless allowed: privileged, the host's network and other namespaces, added capabilities, devices and GPUs,
security options (but `no-new-privileges`, which only takes away), another parent cgroup, another runtime and what tells
a runtime what to do (annotations), log drivers that send elsewhere, bind mounts (also those that a volume's driver
options hide), the host's interfaces, drivers that are plugins, networks and volumes that somebody else has made, and
the engine's socket, which is root on the host, only by its own name. Open unless restricted: registries and tags, and
what all apps together may use of memory and CPU.

What a target leaves out is the engine's to choose, and allowed.
"""

import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import islice

from device_agent.model.compose import App, Logging, NetworkDefinition, Service, VolumeDefinition
from device_agent.model.errors import MOST_PROBLEMS, Problem
from device_agent.model.image import normalise
from device_agent.model.target import Json

ENGINE_SOCKETS = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
)
AGENT_VOLUME = "device-agent-data"
ANY = "*"
_OF_NO_PATH = ("tmpfs", "nfs", "nfs4", "cifs", "smb3")
"""File systems that a local volume can have without showing anything of the host."""
_OF_A_DISK = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "vfat", "exfat", "iso9660", "squashfs")
"""Those that show what is on the device named, and nothing else."""
_HARMLESS_OPTION = "no-new-privileges=true"
_LOG_DRIVERS = ("json-file", "local", "journald", "none")
"""Those that keep the log on this device."""
_LOG_OPTIONS = frozenset(
    ("compress", "env", "env-regex", "labels", "labels-regex", "max-buffer-size", "max-file", "max-size", "mode", "tag")
)
"""Their options: what else is said to the engine's default driver may be an address."""
_NETWORK_DRIVERS = ("bridge", "macvlan", "ipvlan")
"""Without a parent, the latter two lead nowhere."""
_IPAM_DRIVERS = ("default", "null")
_INTERFACES = ("parent", "com.docker.network.bridge.name")
"""Options that put a network on an interface of the host."""
_CPU = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Own:
    """Where the agent itself is. Who writes there says what was accepted, and that is not judged again."""

    volumes: frozenset[str] = frozenset((AGENT_VOLUME,))
    paths: frozenset[str] = frozenset()
    """On the host: folders and files."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The defaults are the strict policy. `*` in a list allows everything of its kind."""

    privileged: bool = False
    host_network: bool = False
    host_pid: bool = False
    host_ipc: bool = False
    host_uts: bool = False
    host_userns: bool = False
    host_cgroup: bool = False
    cap_add: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """Host paths."""
    device_cgroup_rules: tuple[str, ...] = ()
    gpus: bool = False
    runtime: tuple[str, ...] = ()
    annotations: tuple[str, ...] = ()
    """Names. `runc` itself takes properties of systemd from them, `DeviceAllow` among these."""
    security_opt: tuple[str, ...] = ()
    """`NAME=VALUE`, or a name for all its values."""
    cgroup_parent: tuple[str, ...] = ()
    log_drivers: tuple[str, ...] = _LOG_DRIVERS
    """With all their options."""
    network_drivers: tuple[str, ...] = ()
    """Beside `bridge`, `macvlan` and `ipvlan`; also those that give a network its addresses."""
    network_parents: tuple[str, ...] = ()
    """Interfaces of the host that networks may be on: parents of macvlan and ipvlan, and bridges by name."""
    external_networks: tuple[str, ...] = ()
    volume_drivers: tuple[str, ...] = ()
    """Beside `local`."""
    external_volumes: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    """Host paths; each allows itself and what is below it."""
    engine_socket: bool = False
    registries: tuple[str, ...] = (ANY,)
    digests_only: bool = False
    memory_max: int | None = None
    """Bytes, of all containers of all apps together; each service must then have a limit."""
    cpus_max: int | None = None
    """Billionths of a CPU, likewise."""
    own: Own = Own()
    """No rule, but a fact: the agent's own takes `engine_socket`."""


RULES: Mapping[str, object] = {rule.name: rule.default for rule in fields(Policy) if rule.name != "own"}
"""Rule → its default: what the owner can say."""
Pointer = Callable[..., str]
"""Where the first of these keys that the document has stands: for what can be written in two places."""


def offences(policy: Policy, apps: Mapping[str, App], documents: Mapping[str, Json]) -> tuple[Problem, ...]:
    """Fields that the policy forbids, by pointer, up to `MOST_PROBLEMS`. `documents`: the apps as they were written."""
    return tuple(islice(_offences(policy, apps, documents), MOST_PROBLEMS))


def _offences(policy: Policy, apps: Mapping[str, App], documents: Mapping[str, Json]) -> Iterator[Problem]:
    services: list[tuple[Pointer, Service]] = []
    for name, app in apps.items():
        for key, service in app.services.items():
            at = f"/apps/{name}/services/{key}"
            services.append((_pointer(at, documents[name]["services"][key]), service))
            yield from _of_service(policy, at, services[-1][0], service)
        for key, network in app.networks.items():
            yield from _of_network(policy, f"/apps/{name}/networks/{key}", network)
        for key, volume in app.volumes.items():
            yield from _of_volume(policy, f"/apps/{name}/volumes/{key}", volume)
    yield from _of_sums(policy, services)


def _pointer(at: str, document: Json) -> Pointer:
    def pointer(*ways: str) -> str:
        for way in ways:
            value = document
            for word in way.split("/"):
                value = value.get(word) if isinstance(value, dict) else None
            if value is not None:
                return f"{at}/{way}"
        return f"{at}/{ways[0]}"

    return pointer


def _of_service(policy: Policy, at: str, pointer: Pointer, service: Service) -> Iterator[Problem]:
    if service.privileged and not policy.privileged:
        yield Problem(f"{at}/privileged", "this device's policy does not allow privileged containers")
    yield from _of_namespaces(policy, at, service)
    yield from _of_security(policy, at, service)
    yield from _of_logging(policy, f"{at}/logging", service.logging or Logging())
    for key, asked, allowed, what in (
        ("cap_add", service.cap_add, policy.cap_add, "the capability"),
        ("devices", [device.source for device in service.devices], policy.devices, "the device"),
        ("device_cgroup_rules", service.device_cgroup_rules, policy.device_cgroup_rules, "the rule"),
        ("cgroup_parent", [service.cgroup_parent or ""], ("", *policy.cgroup_parent), "the parent cgroup"),
        ("runtime", [service.runtime or ""], ("", *policy.runtime), "the runtime"),
        ("annotations", service.annotations, policy.annotations, "the annotation"),
    ):
        for value in asked:
            if not _listed(value, allowed):
                yield Problem(f"{at}/{key}", f"this device's policy does not allow {what} {value}")
    if service.device_requests and not policy.gpus:
        where = pointer("gpus", "deploy/resources/reservations/devices")
        yield Problem(where, "this device's policy does not allow GPUs and the like (gpus)")
    for index, mount in enumerate(service.volumes):
        if mount.type == "bind" and mount.source:
            yield from _of_bind(policy, f"{at}/volumes/{index}", mount.source)
    yield from _of_image(policy, at, normalise(service.image))


def _of_namespaces(policy: Policy, at: str, service: Service) -> Iterator[Problem]:
    for key, mode, allowed, what in (
        ("network_mode", service.network_mode, policy.host_network, "network"),
        ("pid", service.pid, policy.host_pid, "processes (host_pid)"),
        ("ipc", service.ipc, policy.host_ipc, "shared memory (host_ipc)"),
        ("uts", service.uts, policy.host_uts, "name (host_uts)"),
        ("userns_mode", service.userns_mode, policy.host_userns, "users (host_userns)"),
        ("cgroup", service.cgroup, policy.host_cgroup, "cgroups (host_cgroup)"),
    ):
        if mode == "host" and not allowed:
            yield Problem(f"{at}/{key}", f"this device's policy does not allow the host's {what}")


def _of_security(policy: Policy, at: str, service: Service) -> Iterator[Problem]:
    for option in service.security_opt:
        name = option.partition("=")[0]
        if option != _HARMLESS_OPTION and not (_listed(option, policy.security_opt) or name in policy.security_opt):
            yield Problem(f"{at}/security_opt", f"this device's policy does not allow the security option {name}")


def _of_logging(policy: Policy, at: str, logging: Logging) -> Iterator[Problem]:
    if logging.driver:
        if not _listed(logging.driver, policy.log_drivers):
            message = f"this device's policy does not allow the log driver {logging.driver} (log_drivers)"
            yield Problem(f"{at}/driver", message)
    elif ANY not in policy.log_drivers:
        for option in sorted(logging.options.keys() - _LOG_OPTIONS):
            message = f"this device's policy does not allow {option} for the engine's own log driver: name the driver"
            yield Problem(f"{at}/options", message)


def _of_image(policy: Policy, at: str, image: str) -> Iterator[Problem]:
    if not _listed(image.partition("/")[0], policy.registries):
        yield Problem(f"{at}/image", f"this device's policy does not allow the registry {image.partition('/')[0]}")
    if policy.digests_only and "@" not in image:
        yield Problem(f"{at}/image", "this device's policy allows only images named by digest (name@sha256:…)")


def _of_sums(policy: Policy, services: list[tuple[Pointer, Service]]) -> Iterator[Problem]:
    for most, rule, used, words, ways in (
        (policy.memory_max, "memory_max", _memory, _as_memory, ("mem_limit", "deploy/resources/limits/memory")),
        (policy.cpus_max, "cpus_max", _cpus, _as_cpus, ("cpus", "cpu_quota", "deploy/resources/limits/cpus")),
    ):
        if most is None:
            continue
        total = sum((used(service) or 0) * service.scale for _, service in services)
        for pointer, service in services:
            if used(service) is None:
                message = f"is required: this device's policy allows {words(most)} in all ({rule})"
                yield Problem(pointer(*ways), message)
            elif total > most:
                message = f"the limits add up to {words(total)}, this device's policy allows {words(most)} ({rule})"
                yield Problem(pointer(*ways), message)


def _memory(service: Service) -> int | None:
    return service.mem_limit


def _cpus(service: Service) -> int | None:
    return service.cpus_at_most


def _as_memory(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB of memory"


def _as_cpus(billionths: int) -> str:
    return f"{billionths / _CPU:g} CPUs"


def _of_network(policy: Policy, at: str, network: NetworkDefinition) -> Iterator[Problem]:
    if network.external and network.name == "host":
        if not policy.host_network:
            yield Problem(at, "this device's policy does not allow the host's network")
    elif network.external and not _listed(network.name or "", policy.external_networks):
        yield Problem(at, f"this device's policy does not allow the network {network.name} (external_networks)")
    if network.driver and not _listed(network.driver, (*_NETWORK_DRIVERS, *policy.network_drivers)):
        message = f"this device's policy does not allow the network driver {network.driver} (network_drivers)"
        yield Problem(f"{at}/driver", message)
    addresses = network.ipam and network.ipam.driver
    if addresses and not _listed(addresses, (*_IPAM_DRIVERS, *policy.network_drivers)):
        message = f"this device's policy does not allow the IPAM driver {addresses} (network_drivers)"
        yield Problem(f"{at}/ipam/driver", message)
    for option, interface in network.driver_opts.items():
        if option.lower() in _INTERFACES and interface and not _listed(interface, policy.network_parents):
            message = f"this device's policy does not allow the host's interface {interface} (network_parents)"
            yield Problem(f"{at}/driver_opts/{option}", message)


def _of_bind(policy: Policy, at: str, source: str) -> Iterable[Problem]:
    # What is relative is so to the folder that the engine runs in, which is the root.
    path = posixpath.normpath("/" + source.lstrip("/"))
    if any(socket == path or _within(socket, path) for socket in ENGINE_SOCKETS):
        if not policy.engine_socket:
            yield Problem(
                at, f"{source} gives control of the engine: this device's policy does not allow it (engine_socket)"
            )
        if path in ENGINE_SOCKETS:
            return
    elif not policy.engine_socket and any(
        own == path or _within(own, path) or _within(path, own) for own in policy.own.paths
    ):
        message = f"{source} gives control of the agent: this device's policy does not allow it (engine_socket)"
        yield Problem(at, message)
    if not any(allowed in (ANY, path) or _within(path, allowed) for allowed in policy.binds):
        yield Problem(at, f"this device's policy does not allow to mount the host path {source}")


def _within(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _of_volume(policy: Policy, at: str, volume: VolumeDefinition) -> Iterable[Problem]:
    """A local volume whose options mount something of the host is a bind mount by another name."""
    if volume.external and volume.name in policy.own.volumes:
        if not policy.engine_socket:
            message = (
                f"{volume.name} gives control of the agent: this device's policy does not allow it (engine_socket)"
            )
            yield Problem(at, message)
    elif volume.external and not _listed(volume.name or "", policy.external_volumes):
        yield Problem(at, f"this device's policy does not allow the volume {volume.name} (external_volumes)")
    if volume.driver and not _listed(volume.driver, ("local", *policy.volume_drivers)):
        message = f"this device's policy does not allow the volume driver {volume.driver} (volume_drivers)"
        yield Problem(f"{at}/driver", message)
    # Docker takes these in lower case only; who else takes them is not asked.
    said = {option.lower(): value for option, value in volume.driver_opts.items()}
    kind, device = said.get("type", ""), said.get("device", "")
    options, local = said.get("o", "").split(","), volume.driver in (None, "local")
    if "bind" in options or "rbind" in options:
        yield from _of_bind(policy, f"{at}/driver_opts", device)
    elif kind in _OF_NO_PATH:
        return
    elif device.startswith("/") and (kind in _OF_A_DISK or not local):
        yield from _of_bind(policy, f"{at}/driver_opts", device)
    elif local and (kind or device) and ANY not in policy.binds:
        # `overlay` shows any folder of the host, `proc` and `sysfs` its kernel's settings.
        message = f"this device's policy does not allow to mount a file system `{kind}` of the host"
        yield Problem(f"{at}/driver_opts", message)


def _listed(value: str, allowed: tuple[str, ...]) -> bool:
    return ANY in allowed or value in allowed

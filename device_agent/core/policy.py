"""What a target may ask for, as the device's owner says in the policy file. Strict by default.

Refused unless allowed: privileged, the host's network, added capabilities, devices, bind mounts (also those that a
volume's driver options hide), and the engine's socket, which is root on the host, only by its own name. Open unless
restricted: registries and tags.
"""

import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from device_agent.model.compose import App, Service, VolumeDefinition
from device_agent.model.errors import Problem
from device_agent.model.image import normalise

ENGINE_SOCKETS = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
)
ANY = "*"


@dataclass(frozen=True, slots=True)
class Policy:
    """The defaults are the strict policy. `*` in a list allows everything of its kind."""

    privileged: bool = False
    host_network: bool = False
    cap_add: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    """Host paths."""
    binds: tuple[str, ...] = ()
    """Host paths; each allows itself and what is below it."""
    engine_socket: bool = False
    registries: tuple[str, ...] = (ANY,)
    digests_only: bool = False


def offences(policy: Policy, apps: Mapping[str, App]) -> tuple[Problem, ...]:
    """Every field that the policy forbids, by pointer."""
    found: list[Problem] = []
    for name, app in apps.items():
        for key, service in app.services.items():
            found += _of_service(policy, f"/apps/{name}/services/{key}", service)
        for key, volume in app.volumes.items():
            path = _hidden_bind(volume)
            if path is not None:
                found += _of_bind(policy, f"/apps/{name}/volumes/{key}/driver_opts", path)
    return tuple(found)


def _of_service(policy: Policy, at: str, service: Service) -> Iterable[Problem]:  # noqa: C901 - a list of rules
    if service.privileged and not policy.privileged:
        yield Problem(f"{at}/privileged", "this device's policy does not allow privileged containers")
    if service.network_mode == "host" and not policy.host_network:
        yield Problem(f"{at}/network_mode", "this device's policy does not allow the host's network")
    for capability in service.cap_add:
        if not _listed(capability.removeprefix("CAP_"), policy.cap_add):
            yield Problem(f"{at}/cap_add", f"this device's policy does not allow the capability {capability}")
    for device in service.devices:
        if not _listed(device.source, policy.devices):
            yield Problem(f"{at}/devices", f"this device's policy does not allow the device {device.source}")
    for index, mount in enumerate(service.volumes):
        if mount.type == "bind" and mount.source:
            yield from _of_bind(policy, f"{at}/volumes/{index}", mount.source)
    image = normalise(service.image)
    if not _listed(image.partition("/")[0], policy.registries):
        yield Problem(f"{at}/image", f"this device's policy does not allow the registry {image.partition('/')[0]}")
    if policy.digests_only and "@" not in image:
        yield Problem(f"{at}/image", "this device's policy allows only images named by digest (name@sha256:…)")


def _of_bind(policy: Policy, at: str, source: str) -> Iterable[Problem]:
    path = posixpath.normpath(source)
    if any(socket == path or _within(socket, path) for socket in ENGINE_SOCKETS):
        if not policy.engine_socket:
            yield Problem(
                at, f"{source} gives control of the engine: this device's policy does not allow it (engine_socket)"
            )
        if path in ENGINE_SOCKETS:
            return
    if not any(allowed in (ANY, path) or _within(path, allowed) for allowed in policy.binds):
        yield Problem(at, f"this device's policy does not allow to mount the host path {source}")


def _within(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _hidden_bind(volume: VolumeDefinition) -> str | None:
    """A local volume whose options mount a host path is a bind mount by another name."""
    device = volume.driver_opts.get("device", "")
    return device if device.startswith("/") else None


def _listed(value: str, allowed: tuple[str, ...]) -> bool:
    return ANY in allowed or value in allowed

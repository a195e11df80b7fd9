"""What the services of an app have of each other: namespaces, mounts and names. Who has it depends on the other.

`volumes_from` is taken as written, not as it came out on the engine: a service has the mounts that the other declares.
So nothing is made anew when the other's container is, but an anonymous volume, which is one container's own, cannot be
had that way.
"""

from collections.abc import Iterator, Mapping

from device_agent.model.compose import Dependency, Mount, Service
from device_agent.model.compose_files import beside
from device_agent.model.compose_units import NotSupported, NotValid
from device_agent.model.dependencies import in_dependency_order
from device_agent.model.place import Place

SERVICE_MODE = "service:"
_SHARING = {"network_mode": "network", "pid": "processes", "ipc": "shared memory"}
_SHAREABLE = ("shareable", "host")


def shares(service: Service) -> dict[str, str]:
    """Services whose namespaces it joins, sorted → what of theirs, in words."""
    found: dict[str, list[str]] = {}
    for key, other in _joined(service):
        found.setdefault(other, []).append(_SHARING[key])
    return {other: " and ".join(found[other]) for other in sorted(found)}


def mounts(services: Mapping[str, Service]) -> Iterator[tuple[str, tuple[Mount, ...]]]:
    """Each service's mounts: those of `volumes_from`, and its own, which outweigh them. A tmpfs is never another's."""
    found: dict[str, tuple[Mount, ...]] = {}
    sources = {name: [source.service for source in one.volumes_from] for name, one in services.items()}
    for name in in_dependency_order(sources):
        service = services[name]
        at: dict[str, Mount] = {}
        for source in service.volumes_from:
            for mount in found.get(source.service, ()):
                if mount.type != "tmpfs":
                    at[mount.target] = mount.model_copy(update={"read_only": True}) if source.read_only else mount
        for entry in service.tmpfs:
            at.pop(entry.partition(":")[0], None)
        found[name] = tuple((at | {mount.target: mount for mount in service.volumes}).values())
        yield name, found[name]


def needs(service: Service) -> Iterator[tuple[str, str]]:
    """What it has of others: the key that says so, and the other."""
    yield from _joined(service)
    yield from (("volumes_from", source.service) for source in service.volumes_from)
    yield from (("links", other) for other in service.links.values())


def settle(place: Place, services: Mapping[str, Service]) -> dict[str, Service]:
    """The services with the dependencies that this implies. What cannot be had of another is noted."""
    for name, service in services.items():
        for key, other in _joined(service):
            if other in services:
                for problem in _cannot_join(key, services[other], other):
                    place.invalid(problem, "services", name, key)
        _warn_of_links(place, name, services)
    _check_mounts(place, services)
    return {name: _with_needs(service) for name, service in services.items()}


def _joined(service: Service) -> Iterator[tuple[str, str]]:
    for key in _SHARING:
        mode: str = getattr(service, key) or ""
        if mode.startswith(SERVICE_MODE):
            yield key, mode.removeprefix(SERVICE_MODE)


def _cannot_join(key: str, other: Service, name: str) -> Iterator[str]:
    if other.scale == 0:
        yield f"`{name}` has no container whose {_SHARING[key]} it could share: its scale is 0"
    if key == "ipc" and not (other.ipc in _SHAREABLE or (other.ipc or "").startswith(SERVICE_MODE)):
        yield f"`{name}` keeps its shared memory to itself: give it `ipc: shareable`"


def _warn_of_links(place: Place, name: str, services: Mapping[str, Service]) -> None:
    service = services[name]
    for alias, other in service.links.items():
        if other in services and not service.networks.keys() & services[other].networks.keys():
            place.warn(f"`{alias}` leads nowhere: they have no network in common", "services", name, "links")


def _check_mounts(place: Place, services: Mapping[str, Service]) -> None:
    for name, found in mounts(services):
        service = services[name]
        own = {mount.target for mount in service.volumes}
        copied = [mount for mount in found if mount.target not in own]
        if len(copied) > place.notes.mounts_left:
            place.invalid("too many mounts for one target", "services", name, "volumes_from")
            return
        place.notes.mounts_left -= len(copied)
        for mount in copied:
            if mount.source is None:
                message = f"an anonymous volume, the one on `{mount.target}`, is one container's own: give it a name"
                place.note(NotSupported(message), "services", name, "volumes_from")
            for file in service.files:
                for problem in beside(file, [(mount.target, mount.read_only)]):
                    place.note(NotValid(problem), "services", name, "volumes_from")


def _with_needs(service: Service) -> Service:
    # As Compose has it: with all but the mounts of another, what knows the other is restarted once that is replaced.
    known = {other for key, other in needs(service) if key != "volumes_from"}
    others = {other for _, other in needs(service) if other not in service.depends_on}
    implied = {other: Dependency(restart=other in known) for other in sorted(others)}
    return service.model_copy(update={"depends_on": {**service.depends_on, **implied}}) if implied else service

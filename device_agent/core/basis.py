"""What a spec hash covers: everything of a service that its container depends on, and nothing else."""

import hashlib

from device_agent.model.canonical import canonical
from device_agent.model.compose import File, Mount, Service
from device_agent.model.observed import number_of
from device_agent.model.steps import Endpoint

_NOT_OF_THE_CONTAINER = {
    "image",
    "container_name",
    "platform",
    "pull_policy",
    "pull_refresh_after",
    "depends_on",
    "networks",
    "network_mode",
    "links",
    "volumes",
    "volumes_from",
    "files",
    "scale",
    "update",
    "state",
}


def basis(name: str, service: Service, endpoints: tuple[Endpoint, ...], mounts: tuple[Mount, ...]) -> bytes:
    """Canonical JSON of it, but for what only the engine knows. What is not given is not in it, and changes no hash."""
    return canonical(
        {
            "service": service.model_dump(mode="json", exclude_defaults=True, exclude=_NOT_OF_THE_CONTAINER),
            "networks": [
                {"name": e.network, "aliases": list(e.aliases), "ipv4": e.ipv4_address, "ipv6": e.ipv6_address}
                | ({"mac": e.mac_address} if e.mac_address else {})
                | ({"links": [list(link) for link in e.links]} if e.links else {})
                for e in endpoints
            ],
            "mounts": [mount.model_dump(mode="json", exclude_defaults=True) for mount in mounts],
            "network_mode": service.network_mode or "",
        }
        | ({"files": [_file(file) for file in service.files]} if service.files else {})
        | ({"number": number_of(name)} if number_of(name) else {})
    )


def _file(file: File) -> dict[str, object]:
    """A file by what is in it, without what is in it."""
    content = hashlib.sha256(file.content.encode()).hexdigest()
    return {"target": file.target, "content": content, "uid": file.uid, "gid": file.gid, "mode": file.mode}

"""From the raw JSON of an app's network or volume to its canonical model."""

from collections.abc import Mapping
from typing import Any

from device_agent.model import compose_addresses as addresses
from device_agent.model import compose_forms as forms
from device_agent.model import compose_units as units
from device_agent.model.compose import IpamConfig, IpamPool, NetworkDefinition, VolumeDefinition
from device_agent.model.compose_lists import labels, options
from device_agent.model.compose_units import NotValid
from device_agent.model.place import Noted, Place, Reader, by, map_of, read, read_object


def _external(place: Place) -> bool | str:
    """Whether it is made elsewhere; a string is the name by the deprecated form `external: {name: …}`."""
    if not isinstance(place.value, dict):
        return units.boolean(place.value)
    fields = read_object(place, {"name": by(units.text)})
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
    "subnet": by(addresses.subnet),
    "ip_range": by(addresses.subnet),
    "gateway": by(addresses.ip_address),
    "aux_addresses": map_of(by(addresses.ip_address)),
}


def _ipam_pool(place: Place) -> dict[str, Any]:
    return read_object(place, _IPAM_POOL)


def _ipam_pools(place: Place) -> tuple[IpamPool, ...]:
    found: list[IpamPool] = []
    for item in place.items():
        found += (IpamPool(**fields) for fields in read(item, _ipam_pool))
    return tuple(found)


_IPAM: Mapping[str, Reader] = {
    "driver": by(units.text),
    "config": _ipam_pools,
    "options": map_of(by(units.string)),
}


def _ipam(place: Place) -> IpamConfig | None:
    config = IpamConfig(**read_object(place, _IPAM))
    return config if config != IpamConfig() else None


_DEFINITION: Mapping[str, Reader] = {
    "driver": by(units.text),
    "driver_opts": options(str, int, float),
    "labels": labels,
    "external": _external,
}
_NETWORK: Mapping[str, Reader] = {
    **_DEFINITION,
    "name": by(units.text),
    "ipam": _ipam,
    "internal": by(units.boolean),
    "attachable": by(units.boolean),
    "enable_ipv6": by(units.boolean),
}
_VOLUME: Mapping[str, Reader] = {**_DEFINITION, "name": by(forms.engine_name)}
_NETWORK_REFUSED = {"enable_ipv4": "a network has IPv4 addresses, and IPv6 ones beside them by `enable_ipv6`"}
_PREDEFINED_NETWORKS = ("bridge", "host", "none")


def network(place: Place) -> NetworkDefinition:
    definition = NetworkDefinition(**_definition(place, _NETWORK, refused=_NETWORK_REFUSED))
    if definition.name in _PREDEFINED_NETWORKS and not definition.external:
        raise NotValid("is a network of the engine itself: it can only be external", "name")
    return definition


def volume(place: Place) -> VolumeDefinition:
    return VolumeDefinition(**_definition(place, _VOLUME, refused={}))

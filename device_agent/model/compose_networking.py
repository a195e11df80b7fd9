"""How a service is reached and what it reaches: its ports, networks, network mode and extra hosts."""

from collections.abc import Mapping
from typing import Any

from device_agent.model import compose_forms as forms
from device_agent.model import compose_units as units
from device_agent.model.compose import Port, ServiceNetwork
from device_agent.model.compose_lists import string_or_list, strings
from device_agent.model.compose_units import NotValid
from device_agent.model.place import UNSUPPORTED, Place, Reader, by, read, read_object

_PORT: Mapping[str, Reader] = {
    "target": by(lambda value: units.integer(value, lowest=1, highest=forms.LARGEST_PORT)),
    "published": by(forms.published_port),
    "protocol": by(forms.protocol),
    "host_ip": by(forms.ip_address),
    "mode": by(units.one_of("host", "ingress")),
    "name": by(units.string),
    "app_protocol": by(units.string),
}
_PORT_FOR_SWARM = ("mode", "name", "app_protocol")


def _port(place: Place) -> list[Port]:
    if not isinstance(place.value, dict):
        found = forms.ports(place.value, place.notes.ports_left)
        place.notes.ports_left -= len(found)
        return found
    fields = read_object(place, _PORT, required=("target",))
    return [Port(**{key: value for key, value in fields.items() if key not in _PORT_FOR_SWARM})]


def ports(place: Place) -> tuple[Port, ...]:
    """Each port once. Their order means nothing to the engine, so they are sorted."""
    found: list[Port] = []
    for item in place.items():
        for some in read(item, _port):
            found += some
    return tuple(
        sorted(set(found), key=lambda port: (port.target, port.protocol, port.host_ip or "", port.published or ""))
    )


_SERVICE_NETWORK: Mapping[str, Reader] = {
    "aliases": lambda place: tuple(sorted(strings(place))),
    "ipv4_address": by(forms.ip_version(4)),
    "ipv6_address": by(forms.ip_version(6)),
    "priority": by(units.number),
}
_SERVICE_NETWORK_REFUSED = dict.fromkeys(
    ("mac_address", "interface_name", "link_local_ips", "driver_opts", "gw_priority"), UNSUPPORTED
)


def _service_network(place: Place) -> dict[str, Any]:
    return read_object(place, _SERVICE_NETWORK, refused=_SERVICE_NETWORK_REFUSED)


def networks(place: Place) -> dict[str, ServiceNetwork]:
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
                for fields in read(member, _service_network):
                    found[name] = ServiceNetwork(**fields)
        places = {name: name for name in place.value}
    for name, where in places.items():
        if name != "default" and name not in place.names.networks:
            place.invalid(f"the app declares no network `{name}`", where)
    return found


def network_mode(place: Place) -> str:
    mode = forms.network_mode(place.value)
    _, _, service = mode.partition(":")
    if service and service not in place.names.services:
        raise NotValid(f"the app has no service `{service}`")
    return mode


def extra_hosts(place: Place) -> tuple[str, ...]:
    """`HOST:IP`, sorted by host; the addresses of one host in their order."""
    hosts: dict[str, list[str]] = {}
    if isinstance(place.value, list):
        for item in place.items():
            for host, addresses in read(item, by(forms.extra_host)):
                hosts.setdefault(host, []).extend(addresses)
    else:
        one_or_more = string_or_list(forms.host_address)
        for member in place.members():
            if not str(member.key) or set(str(member.key)) & set(":="):
                member.invalid("a host's name is not empty and has no `:` or `=` in it")
            for addresses in read(member, one_or_more):
                hosts[str(member.key)] = list(addresses)
    return tuple(f"{host}:{address}" for host in sorted(hosts) for address in dict.fromkeys(hosts[host]))

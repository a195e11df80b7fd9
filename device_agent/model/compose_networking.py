"""How a service is reached and what it reaches: its ports, networks, network mode and extra hosts."""

from collections.abc import Mapping
from typing import Any

from device_agent.model import compose_addresses as addresses
from device_agent.model import compose_units as units
from device_agent.model.compose import Port, ServiceNetwork
from device_agent.model.compose_lists import string_or_list, strings
from device_agent.model.compose_units import NotValid
from device_agent.model.place import Place, Reader, by, read, read_object

_PORT: Mapping[str, Reader] = {
    "target": by(lambda value: units.integer(value, lowest=1, highest=addresses.LARGEST_PORT)),
    "published": by(addresses.published_port),
    "protocol": by(addresses.protocol),
    "host_ip": by(addresses.ip_address),
    "mode": by(units.one_of("host", "ingress")),
    "name": by(units.string),
    "app_protocol": by(units.string),
}
_PORT_FOR_SWARM = ("mode", "name", "app_protocol")


def _port(place: Place) -> list[Port]:
    if not isinstance(place.value, dict):
        found = addresses.ports(place.value, place.notes.ports_left)
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


def expose(place: Place) -> tuple[str, ...]:
    """Each port once, `PORT/PROTOCOL`, sorted."""
    found: set[str] = set()
    for item in place.items():
        for some in read(item, by(lambda value: addresses.exposed(value, place.notes.ports_left))):
            place.notes.ports_left -= len(some)
            found |= set(some)
    return tuple(sorted(found, key=lambda port: (int(port.partition("/")[0]), port)))


_SERVICE_NETWORK: Mapping[str, Reader] = {
    "aliases": lambda place: tuple(sorted(strings(place))),
    "ipv4_address": by(addresses.ip_version(4)),
    "ipv6_address": by(addresses.ip_version(6)),
    "mac_address": by(addresses.mac_address),
    "priority": by(units.number),
}
_SERVICE_NETWORK_REFUSED = {
    "interface_name": "the engine names the interface: tell one by its network's subnet, or by a fixed `mac_address`",
    "link_local_ips": "link-local addresses are not given: `ipv4_address` and `ipv6_address` are",
    "driver_opts": "options of a driver are given to the network itself, where it is declared",
    "gw_priority": "the default route leads through the first network: order them with `priority`",
}


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
    return of_service(place, addresses.network_mode(place.value))


def of_service(place: Place, mode: str) -> str:
    """A mode that may be `service:NAME`: the app has that service."""
    _, _, service = mode.partition(":")
    if service and service not in place.names.services:
        raise NotValid(f"the app has no service `{service}`")
    return mode


def links(place: Place) -> dict[str, str]:
    """Name → service, of `SERVICE[:NAME]` each. By its own name a service is found without a link."""
    found: dict[str, str] = {}
    for index, link in enumerate(strings(place)):
        service, colon, name = link.partition(":")
        if service not in place.names.services:
            place.invalid(f"the app has no service `{service}`", index)
        elif (colon and not name) or ":" in name:
            place.invalid("expected SERVICE or SERVICE:NAME", index)
        else:
            found[name or service] = service
    return found


def extra_hosts(place: Place) -> tuple[str, ...]:
    """`HOST:IP`, sorted by host; the addresses of one host in their order."""
    hosts: dict[str, list[str]] = {}
    if isinstance(place.value, list):
        for item in place.items():
            for host, found in read(item, by(addresses.extra_host)):
                hosts.setdefault(host, []).extend(found)
    else:
        one_or_more = string_or_list(addresses.host_address)
        for member in place.members():
            if not str(member.key) or set(str(member.key)) & set(":="):
                member.invalid("a host's name is not empty and has no `:` or `=` in it")
            for found in read(member, one_or_more):
                hosts[str(member.key)] = list(found)
    return tuple(f"{host}:{address}" for host in sorted(hosts) for address in dict.fromkeys(hosts[host]))


NETWORKING: Mapping[str, Reader] = {
    "hostname": by(units.text),
    "domainname": by(units.text),
    "mac_address": by(addresses.mac_address),
    "ports": ports,
    "expose": expose,
    "networks": networks,
    "network_mode": network_mode,
    "links": links,
    "extra_hosts": extra_hosts,
    "dns": string_or_list(addresses.ip_address),
    "dns_opt": strings,
    "dns_search": string_or_list(units.text),
}
_NOT_WITH_ANOTHERS_NETWORK = ("ports", "expose", "hostname", "dns", "extra_hosts")
"""What the engine refuses for a container in the network of another: it belongs to that other one."""


def check(place: Place, fields: Mapping[str, Any]) -> None:
    """What does not go together."""
    _check_mode(place, fields)
    for key in ("hostname", "domainname"):
        if fields.get("uts") == "host" and fields.get(key):
            place.invalid("excludes `uts: host`: the container's name is the host's", key)
    networks: Mapping[str, ServiceNetwork] = fields.get("networks", {})
    first = next(iter(in_order(networks)), None)
    if first and fields.get("mac_address") and networks[first].mac_address not in (None, fields["mac_address"]):
        place.invalid(f"says something else than the network `{first}`, which is the first", "mac_address")


def _check_mode(place: Place, fields: Mapping[str, Any]) -> None:
    mode: str | None = fields.get("network_mode")
    if mode and fields.get("networks"):
        place.invalid("excludes `networks`", "network_mode")
    if mode and fields.get("links"):
        place.invalid(f"excludes `network_mode: {mode}`: names are found on the app's own networks", "links")
    if mode == "host" and fields.get("ports"):
        place.invalid("excludes `network_mode: host`: the container's ports are the host's", "ports")
    if mode and mode.startswith("service:"):
        for key in _NOT_WITH_ANOTHERS_NETWORK:
            if fields.get(key):
                place.invalid(f"excludes `network_mode: {mode}`: it goes with that service", key)
    if mode not in (None, "bridge") and fields.get("mac_address"):
        place.invalid(
            f"excludes `network_mode: {mode}`: the container has no network interface of its own", "mac_address"
        )


def in_order(networks: Mapping[str, ServiceNetwork]) -> list[str]:
    """As Compose connects: in the order of priority, the highest first, then by name. The first gives the route."""
    return sorted(networks, key=lambda key: (-networks[key].priority, key))

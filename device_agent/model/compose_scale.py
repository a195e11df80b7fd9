"""`scale`: more than one container of a service, and what they cannot have in common."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from device_agent.model.compose import Port, Service, ServiceNetwork
from device_agent.model.place import Place

_OF_ONE = ("ipv4_address", "ipv6_address", "mac_address")


def check(place: Place, fields: Mapping[str, Any]) -> None:
    """Refuses what only one container can have."""
    scale: int = fields.get("scale", 1)
    more = max(scale - 1, 0)
    if more > place.notes.containers_left:
        place.invalid("too many containers for one target", *_written(place))
    elif more:
        place.notes.containers_left -= more
        _check_shared(place, fields, scale)


def _check_shared(place: Place, fields: Mapping[str, Any], scale: int) -> None:
    for port in too_narrow(fields.get("ports", ()), scale):
        place.invalid(
            f"{scale} containers cannot share the host port {port.published}: publish a range of at least {scale} ports"
            " to choose from, or none",
            "ports",
        )
    if fields.get("container_name"):
        place.invalid(f"{scale} containers cannot share a name", "container_name")
    if fields.get("mac_address"):
        place.invalid(f"{scale} containers cannot share a fixed address", "mac_address")
    networks: Mapping[str, ServiceNetwork] = fields.get("networks", {})
    for name, network in networks.items():
        for key in _OF_ONE:
            if getattr(network, key):
                place.invalid(f"{scale} containers cannot share a fixed address", "networks", name, key)


def too_narrow(ports: Iterable[Port], containers: int) -> Iterator[Port]:
    """The ports whose host ports are fewer than the containers that need one each."""
    for port in ports:
        first, _, last = (port.published or "").partition("-")
        if first and int(last or first) - int(first) + 1 < containers:
            yield port


def has_fixed_address(service: Service) -> bool:
    """Whether its container has an address that no other can have at the same time."""
    fixed = (getattr(network, key) for network in service.networks.values() for key in _OF_ONE)
    return service.mac_address is not None or any(fixed)


def _written(place: Place) -> tuple[str, ...]:
    return ("scale",) if "scale" in place.value else ("deploy", "replicas")

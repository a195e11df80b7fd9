"""Compose's addresses and ports: one value of a document in, its canonical value out. Pure, as in `compose_forms`."""

import ipaddress
import re
from collections.abc import Callable

from device_agent.model.compose import Port
from device_agent.model.compose_units import NotSupported, NotValid, integer, one_of, string, text
from device_agent.model.target import Json

LARGEST_PORT = 65535
NOT_OF_THE_APP = "a container that is not of the app is never touched: make it a service of the app, and name that"


def mac_address(value: Json) -> str:
    """Six octets, in lower case with colons."""
    digits = re.sub("[:.-]", "", text(value)).lower()
    pairs = [digits[index : index + 2] for index in range(0, 12, 2)]
    spellings = (":".join(pairs), "-".join(pairs), ".".join(digits[index : index + 4] for index in (0, 4, 8)))
    if not re.fullmatch("[0-9a-f]{12}", digits) or str(value).lower() not in spellings:
        raise NotValid("expected a MAC address such as 02:42:ac:11:00:02")
    return spellings[0]


def ip_address(value: Json) -> str:
    """An IPv4 or IPv6 address, brackets allowed, in its shortest spelling."""
    written = text(value)
    if written.startswith("[") and written.endswith("]"):
        written = written[1:-1]
    try:
        return str(ipaddress.ip_address(written))
    except ValueError:
        raise NotValid("expected an IP address") from None


def ip_version(version: int) -> Callable[[Json], str]:
    def parse(value: Json) -> str:
        address = ip_address(value)
        if ipaddress.ip_address(address).version != version:
            raise NotValid(f"expected an IPv{version} address")
        return address

    return parse


def subnet(value: Json) -> str:
    """A subnet in CIDR form."""
    try:
        return str(ipaddress.ip_network(text(value), strict=False))
    except ValueError:
        raise NotValid("expected a subnet such as 172.28.0.0/16") from None


def _port_range(written: str) -> tuple[int, int]:
    first, _, last = written.partition("-")
    if not re.fullmatch(r"[0-9]{1,5}(?:-[0-9]{1,5})?", written):
        raise NotValid("expected a port or a range such as 3000-3005")
    low, high = int(first), int(last or first)
    if low > high or high > LARGEST_PORT:
        raise NotValid(f"a range of ports goes up, and to {LARGEST_PORT} at most")
    return low, high


def published_port(value: Json) -> str | None:
    """A host port or a range to choose from; none, or 0, is any free one."""
    if value == "":
        return None
    low, high = _port_range(value if isinstance(value, str) else str(integer(value, highest=LARGEST_PORT)))
    if low == high:
        return str(low) if low else None
    return f"{low}-{high}"


def protocol(value: Json) -> str:
    return one_of("tcp", "udp", "sctp")(string(value).lower())


def ports(value: Json, most: int) -> list[Port]:
    """The short form `[[IP:]HOST:]CONTAINER[/PROTOCOL]`, ranges expanded; at most `most` of them.

    A range of host ports for one container port is one port with a range to choose from.
    """
    written = value if isinstance(value, str) else str(integer(value, highest=LARGEST_PORT))
    left, _, container = written.rpartition(":")
    address, _, host = left.rpartition(":")
    container, _, proto = container.partition("/")
    host_ip = ip_address(address) if address else None
    transport = protocol(proto or "tcp")
    first, last = _port_range(container)
    if first == 0:
        raise NotValid(f"a container's port is from 1 to {LARGEST_PORT}")
    if last - first >= most:
        raise NotValid("too many ports for one target")
    if not host:
        published: list[str | None] = [None] * (last - first + 1)
    else:
        low, high = _port_range(host)
        if first == last:
            published = [published_port(host)]
        elif high - low == last - first:
            published = [str(port) if port else None for port in range(low, high + 1)]
        else:
            raise NotValid("the ranges of host and container ports differ in length")
    return [
        Port(target=first + index, published=on_host, protocol=transport, host_ip=host_ip)  # type: ignore[arg-type]
        for index, on_host in enumerate(published)
    ]


def exposed(value: Json, most: int) -> list[str]:
    """`PORT[-PORT][/PROTOCOL]`: each port with its protocol; at most `most` of them."""
    written = value if isinstance(value, str) else str(integer(value, highest=LARGEST_PORT))
    container, slash, proto = written.partition("/")
    first, last = _port_range(container)
    if first == 0:
        raise NotValid(f"a container's port is from 1 to {LARGEST_PORT}")
    if last - first >= most:
        raise NotValid("too many ports for one target")
    transport = protocol(proto if slash else "tcp")
    return [f"{port}/{transport}" for port in range(first, last + 1)]


def network_mode(value: Json) -> str:
    """`bridge`, `host`, `none` or `service:NAME`."""
    mode = text(value)
    if mode.startswith("container:"):
        raise NotSupported(NOT_OF_THE_APP)
    if mode in ("bridge", "host", "none") or (mode.startswith("service:") and mode != "service:"):
        return mode
    raise NotValid("must be one of: bridge, host, none, service:NAME; a network is named under `networks`")


def host_address(value: Json) -> str:
    """An address for a line of `/etc/hosts`, or `host-gateway`."""
    return "host-gateway" if value == "host-gateway" else ip_address(value)


def extra_host(value: Json) -> tuple[str, list[str]]:
    """The short form `HOST=IP` or `HOST:IP`, several addresses separated by commas: the host and its addresses."""
    written = text(value)
    host, separator, addresses = written.partition("=" if "=" in written else ":")
    if not separator or not host or ":" in host:
        raise NotValid("expected HOST:IP or HOST=IP")
    return host, [host_address(address) for address in addresses.split(",")]

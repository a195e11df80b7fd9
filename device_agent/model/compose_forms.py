"""Compose's units and short forms: one JSON value in, its canonical value out.

Pure functions. Each raises `NotValid` with a sentence for the operator (`NotSupported` where Compose would take the
value and this agent does not). Rules and units are the Compose Specification's; where it leaves a form to the engine,
they are those of the engine's own command line. A string may stand for a number or a boolean only where the
specification's schema lets it.

A `$` has no meaning here: variables were resolved when the target was published, so `$HOME` and `$$` are passed on
as they are.
"""

import ipaddress
import posixpath
import re
import shlex
from collections.abc import Callable, Collection
from decimal import Decimal

from device_agent.model.compose import Device, Mount, Port, Restart
from device_agent.model.target import Json

LARGEST = 2**53 - 1
"""The largest integer that canonical JSON (RFC 8785) can say; as nanoseconds, 104 days."""
LARGEST_PORT = 65535
VARIABLE_HINT = "variables are resolved when publishing: cloud-sim publish does it"


class NotValid(ValueError):  # noqa: N818 - completed to a sentence by its message
    """A value that is wrong; `more` leads from the value that was given to the part that is wrong."""

    def __init__(self, message: str, *more: str | int) -> None:
        super().__init__(message)
        self.message = message
        self.more = more


class NotSupported(NotValid):
    """A value that Compose knows and this version of the agent does not."""


def kind(value: Json) -> str:
    """The JSON type in words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"


# ------------------------------------------------------------------------------------------------- scalars


def string(value: Json) -> str:
    """A string, perhaps empty."""
    if not isinstance(value, str):
        quote = ": put it in quotes" if isinstance(value, bool | int | float) else ""
        raise NotValid(f"expected a string, not {kind(value)}{quote}")
    if "\0" in value:
        raise NotValid("a NUL character cannot be passed to a process")
    return value


def text(value: Json) -> str:
    """A string that is not empty."""
    if string(value) == "":
        raise NotValid("must not be empty")
    return str(value)


def scalar_text(value: Json) -> str:
    """The string that Compose makes of a string, a number or a boolean: 1 → `1`, 1.0 → `1`, 1.5 → `1.5`, true → `true`."""
    match value:
        case str():
            return string(value)
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            # Compose prints numbers as Go does: without an exponent below 1e21, otherwise like Python.
            if abs(value) < 1e21:  # noqa: PLR2004
                plain = format(Decimal(repr(value)), "f") if "e+" in repr(value) else repr(value)
                return plain.removesuffix(".0")
            return repr(value)
        case _:
            raise NotValid(f"expected a string, a number or a boolean, not {kind(value)}")


_BOOLEANS = {
    **dict.fromkeys(("true", "yes", "on", "y"), True),
    **dict.fromkeys(("false", "no", "off", "n"), False),
}


def boolean(value: Json) -> bool:
    """A boolean, or a string that YAML 1.1 reads as one: Compose casts those after it has put variables in."""
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    raise NotValid(f"expected true or false, not {kind(value)}")


def strict_boolean(value: Json) -> bool:
    if not isinstance(value, bool):
        raise NotValid(f"expected true or false, not {kind(value)}")
    return value


def integer(value: Json, lowest: int = 0, highest: int = LARGEST) -> int:
    """A whole number, or a string of digits."""
    number: int | None = None
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,19}", value):
        number = int(value)
    elif isinstance(value, float) and value.is_integer():
        number = int(value)  # 80.0 is the same number as 80 in canonical JSON
    elif isinstance(value, int) and not isinstance(value, bool):
        number = value
    if number is None:
        raise NotValid("expected a whole number" + ("" if isinstance(value, str | float) else f", not {kind(value)}"))
    if not lowest <= number <= highest:
        raise NotValid(f"must be from {lowest} to {highest}")
    return number


def number(value: Json) -> int:
    """A whole number that may not be written as a string; either sign."""
    if isinstance(value, str):
        raise NotValid("expected a number, not a string")
    return integer(value, lowest=-LARGEST)


def one_of(*words: str) -> Callable[[Json], str]:
    """Exactly one of these words."""

    def parse(value: Json) -> str:
        if value not in words:
            raise NotValid(f"must be one of: {', '.join(words)}")
        return str(value)

    return parse


# --------------------------------------------------------------------------------------------------- units

_BYTES = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+) ?(?:([kmgtp])(?:i?b)?|b)?", re.IGNORECASE | re.ASCII)
_LONGEST_NUMBER = 64


def size(value: Json) -> int:
    """Bytes, from a number or a string such as `64m`, `1.5g`, `2 GiB`; every prefix is binary, fractions are cut off."""
    if isinstance(value, str):
        match = _BYTES.fullmatch(value) if len(value) <= _LONGEST_NUMBER else None
        if match is None:
            raise NotValid("expected a size in bytes, such as 67108864, 64m or 1.5g")
        exponent = " kmgtp".index(match[2].lower()) if match[2] else 0
        exact = Decimal(match[1]) * 1024**exponent
        if exact > LARGEST:
            raise NotValid(f"must be at most {LARGEST} bytes")
        return int(exact)
    return integer(value)


def limit(value: Json) -> int | None:
    """Like `size`; 0 is the engine's word for no limit of its own."""
    return size(value) or None


_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # U+00B5, the micro sign
    "μs": 10**3,  # noqa: RUF001 - U+03BC, the Greek letter, stands for it too
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
    "d": 24 * 3600 * 10**9,
    "w": 7 * 24 * 3600 * 10**9,
}
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h|d|w)")  # noqa: RUF001


def duration(value: Json) -> int:
    """Nanoseconds, from a string such as `1m30s`, `1h5m30s20ms`, `1.5s` or `0`. A bare number has no unit, and is wrong."""
    wrong = NotValid("expected a duration with units, such as 30s, 1m30s or 1h5m30s20ms")
    if not isinstance(value, str) or not value or len(value) > _LONGEST_NUMBER:
        raise wrong
    if value == "0":
        return 0
    total, end = Decimal(0), 0
    while end < len(value):
        part = _DURATION_PART.match(value, end)
        if part is None:
            raise wrong
        total += Decimal(part[1]) * _NANOSECONDS[part[2]]
        end = part.end()
    if total > LARGEST:
        raise NotValid("must be at most 104 days")
    return int(total)


def health_duration(value: Json) -> int | None:
    """A duration of a healthcheck: 0 is the engine's word for the image's, less than a millisecond it refuses."""
    nanoseconds = duration(value)
    if 0 < nanoseconds < _NANOSECONDS["ms"]:
        raise NotValid("must be at least 1ms")
    return nanoseconds or None


_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+", re.ASCII)


def cpus(value: Json) -> int | None:
    """Billionths of a CPU, from a number or a string such as `0.5`; 0 is no limit."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise NotValid(f"expected a number of CPUs, not {kind(value)}")
    written = value if isinstance(value, str) else format(Decimal(repr(value)), "f")
    if len(written) > _LONGEST_NUMBER or not _DECIMAL.fullmatch(written):
        raise NotValid("expected a number of CPUs, such as 0.5 or 2")
    billionths = int(Decimal(written) * 10**9)
    if billionths > LARGEST:
        raise NotValid("must be at most nine million CPUs")
    return billionths or None


def file_mode(value: Json) -> int:
    """Permission bits: a string is octal (`"1777"`), a number is taken as it is (JSON has no octal: 1777 octal is 1023)."""
    highest = 0o7777
    if isinstance(value, str):
        if not re.fullmatch(r"(?:0o?)?[0-7]{1,4}", value):
            raise NotValid('expected permission bits in octal, such as "1777"')
        return int(value.removeprefix("0o"), 8)
    return integer(value, highest=highest)


# ------------------------------------------------------------------------------------------ names and paths

APP_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
KEY_NAME = re.compile(r"[a-zA-Z0-9._-]+")
_ENGINE_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def engine_name(value: Json) -> str:
    """A name that an object can have on the engine."""
    if not _ENGINE_NAME.fullmatch(text(value)):
        raise NotValid("must start with a letter or a digit and contain only letters, digits, `_`, `.` and `-`")
    return str(value)


_COMPONENT = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_HOST = r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
_REFERENCE = re.compile(
    rf"(?:{_HOST}(?::[0-9]+)?/)?{_COMPONENT}(?:/{_COMPONENT})*(?::[a-zA-Z0-9_][a-zA-Z0-9_.-]{{0,127}})?(?:@sha256:[0-9a-f]{{64}})?"
)
_LONGEST_REFERENCE = 512


def image(value: Json) -> str:
    """An image reference by the distribution project's grammar, or an image id."""
    reference = text(value)
    if len(reference) <= _LONGEST_REFERENCE and _REFERENCE.fullmatch(reference):
        return reference
    raise NotValid("not an image reference" + (f": {VARIABLE_HINT}" if "$" in reference else ""))


def container_path(value: Json) -> str:
    """An absolute path, without a trailing slash and doubled or dotted parts."""
    path = text(value)
    if not path.startswith("/"):
        raise NotValid("expected an absolute path in the container")
    return posixpath.normpath("/" + path.lstrip("/"))


def mount_point(value: Json) -> str:
    """Where something is mounted in the container: an absolute path, not `/`."""
    path = container_path(value)
    if path == "/":
        raise NotValid("nothing can be mounted on `/`")
    return path


def host_path(value: Json) -> str:
    """An absolute path on the host; what is relative to a Compose file has no meaning on a device."""
    path = text(value)
    if not path.startswith("/"):
        raise NotValid("expected an absolute path on the host: cloud-sim publish resolves relative ones and `~`")
    return posixpath.normpath("/" + path.lstrip("/"))


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


def capability(value: Json) -> str:
    """A Linux capability without its prefix: `CAP_NET_ADMIN`, `net_admin` → `NET_ADMIN`."""
    name = text(value).upper().removeprefix("CAP_")
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name):
        raise NotValid("expected a capability such as NET_ADMIN")
    return name


def signal(value: Json) -> str:
    if not re.fullmatch(r"(?:SIG)?[A-Z][A-Z0-9]*(?:[+-][0-9]{1,2})?|[0-9]{1,2}", text(value)):
        raise NotValid("expected a signal such as SIGTERM")
    return str(value)


# --------------------------------------------------------------------------------------------- short forms


def words(value: Json) -> tuple[str, ...]:
    """A command written as one string, split as a shell would, without running one."""
    try:
        return tuple(shlex.split(string(value)))
    except ValueError as error:
        if isinstance(error, NotValid):
            raise
        raise NotValid(f"cannot be split into words: {str(error).lower()}") from None


def restart(value: Json) -> Restart:
    """`no`, `always`, `unless-stopped`, `on-failure` or `on-failure:N`."""
    if value is False:
        raise NotValid('expected a string: write "no" in quotes, a bare no is a boolean in YAML')
    policy, colon, retries = string(value).partition(":")
    match policy:
        case "on-failure":
            return Restart(policy=policy, max_retries=integer(retries, highest=2**31 - 1) if colon else 0)
        case "no" | "always" | "unless-stopped" if not colon:
            return Restart(policy=policy)
        case _:
            raise NotValid('must be one of: "no", always, unless-stopped, on-failure, on-failure:N')


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


def network_mode(value: Json) -> str:
    """`bridge`, `host`, `none` or `service:NAME`."""
    mode = text(value)
    if mode.startswith("container:"):
        raise NotSupported("a container that is not of the app is not supported by this version of device-agent")
    if mode in ("bridge", "host", "none") or (mode.startswith("service:") and mode != "service:"):
        return mode
    raise NotValid("must be one of: bridge, host, none, service:NAME; a network is named under `networks`")


PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
_NO_EFFECT_ON_LINUX = ("cached", "delegated", "consistent")


def _mount_options(written: str, *, bind: bool) -> dict[str, Json]:
    fields: dict[str, Json] = {}
    for option in written.split(","):
        match option:
            case "rw" | "ro":
                fields["read_only"] = option == "ro"
            case "z" | "Z" if bind:
                fields["selinux"] = option
            case "nocopy" if not bind:
                fields["nocopy"] = True
            case _ if bind and option in PROPAGATIONS:
                fields["propagation"] = option
            case "z" | "Z":
                pass  # a volume is labelled by the engine itself
            case _ if option in _NO_EFFECT_ON_LINUX:
                pass
            case _:
                raise NotValid(f"`{option}` is not an option of a {'bind mount' if bind else 'volume'}")
    return fields


def mount(value: Json) -> Mount:
    """The short form `[SOURCE:]TARGET[:OPTIONS]`: a named volume, a path on the host, or an anonymous volume."""
    parts = text(value).split(":")
    if "" in parts:
        raise NotValid("an empty part between colons")
    if len(parts) == 1:
        return Mount(type="volume", target=mount_point(parts[0]))
    source, target = parts[:2]
    if len(source) == 1 and source.isalpha():
        raise NotValid("one letter before a colon is a drive to Compose: use the long form for a volume of that name")
    if len(parts) > 3:  # noqa: PLR2004
        raise NotValid("too many colons: use the long form")
    bind = source[0] in "./~\\"
    options = _mount_options(parts[2], bind=bind) if len(parts) > 2 else {}  # noqa: PLR2004
    target = mount_point(target)
    if bind:
        return Mount(type="bind", source=host_path(source), target=target, **options)
    return Mount(type="volume", source=source, target=target, **options)


def mount_type(value: Json) -> str:
    if value in ("npipe", "cluster", "image"):
        raise NotSupported(f"mounts of type {value} are not supported by this version of device-agent")
    return one_of("volume", "bind", "tmpfs")(value)


def tmpfs(value: Json) -> str:
    """`PATH[:OPTIONS]`; the options are the kernel's."""
    path, colon, options = text(value).partition(":")
    return mount_point(path) + colon + options


def device_permissions(value: Json) -> str:
    letters = text(value)
    if not set(letters) <= set("rwm"):
        raise NotValid("permissions are letters of `rwm`: read, write, mknod")
    return "".join(letter for letter in "rwm" if letter in letters)


def device_source(value: Json) -> str:
    path = text(value)
    if "=" in path and not path.startswith("/"):
        raise NotSupported("CDI devices are not supported by this version of device-agent")
    return host_path(path)


def device(value: Json) -> Device:
    """The short form `HOST[:CONTAINER[:PERMISSIONS]]`."""
    parts = text(value).split(":")
    if len(parts) > 3:  # noqa: PLR2004
        raise NotValid("too many colons: use the long form")
    source = device_source(parts[0])
    return Device(
        source=source,
        target=container_path(parts[1]) if len(parts) > 1 else source,
        permissions=device_permissions(parts[2]) if len(parts) > 2 else "rwm",  # noqa: PLR2004
    )


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


def health_test(value: Json) -> tuple[str, ...] | None:
    """As the engine takes it; an empty list is the image's."""
    if isinstance(value, str):
        return ("CMD-SHELL", text(value))
    if not isinstance(value, list):
        raise NotValid(f"expected a string or a list, not {kind(value)}")
    if not value:
        return None
    for index, word in enumerate(value):
        if not isinstance(word, str):
            raise NotValid(f"expected a string, not {kind(word)}", index)
    if value[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise NotValid("the first item must be one of: NONE, CMD, CMD-SHELL", 0)
    if (value[0] == "NONE") != (len(value) == 1):
        raise NotValid("NONE stands alone, CMD and CMD-SHELL are followed by what to run")
    return tuple(value)


def unique(names: Collection[str]) -> None:
    """Compose refuses a list that says the same twice."""
    if len(set(names)) != len(names):
        seen: set[str] = set()
        for index, name in enumerate(names):
            if name in seen:
                raise NotValid(f"`{name}` is in the list twice", index)
            seen.add(name)

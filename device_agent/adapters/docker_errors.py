"""The engine's failures, sorted once: a code that is stable, whose fault it is, and a sentence for an operator.

Two tables, tried from the top: what the engine's message says outweighs the HTTP status. Sources: what Docker 20.10 was
seen to say, the sources of Docker 28 and of the distribution project's registry, and what users report of engines that
keep their images in containerd. The engine's own words follow the sentence, cut to 512 characters; they name objects,
never an environment or a credential of ours.
"""

import json
import re
from dataclasses import dataclass

from device_agent.model.errors import EngineError, Kind

LIMIT = 512

_TEMPORARY, _OUTSIDE, _TARGET = Kind.TEMPORARY, Kind.OUTSIDE, Kind.TARGET


@dataclass(frozen=True, slots=True)
class _Sort:
    code: str
    kind: Kind
    text: str
    pattern: str
    """Compiled by the first failure: all of them together take a start 5 ms."""

    def fits(self, message: str) -> bool:
        return re.search(self.pattern, message, re.IGNORECASE | re.DOTALL) is not None


def _sort(code: str, kind: Kind, text: str, *patterns: str) -> _Sort:
    return _Sort(code, kind, text, "|".join(patterns))


_DISK_FULL = _sort("disk_full", _OUTSIDE, "the disk is full", "no space left on device", "disk quota exceeded")

_WRONG_PLATFORM = _sort(
    "wrong_platform",
    _TARGET,
    "the image does not exist for this processor",
    "no matching manifest",
    "no match for platform in manifest",
    "does not match the (specified|detected) platform",
    "does not provide the specified platform",
)

_BY_MESSAGE: tuple[_Sort, ...] = (
    _DISK_FULL,
    _sort(
        "port_in_use",
        _OUTSIDE,
        "a host port is taken by something else",
        "port is already allocated",
        "bind: address already in use",
        "failed to bind host port",
        "address already in use.*tcp",
        "ports are not available",
        "all ports are allocated",
    ),
    _sort(
        "address_missing",
        _OUTSIDE,
        "the host has no such address to publish on",
        "cannot assign requested address",
    ),
    _sort("address_in_use", _OUTSIDE, "the fixed address is taken on that network", "address already in use"),
    _sort(
        "subnet_in_use",
        _OUTSIDE,
        "the subnet overlaps with another network, or no free one is left",
        "pool overlaps",
        "could not find an available.*address pool",
        "no available network",
        "cannot create network .* conflicts",
    ),
    _sort(
        "bad_config",
        _TARGET,
        "the address is outside the network's subnets",
        "invalid address .* belong",
        "no configured subnet",
        "user specified ip",
    ),
    _sort(
        "name_in_use",
        _TEMPORARY,
        "the name is taken",
        "container name .* is already in use",
        "network with name .* already exists",
        "volume named .* already exists",
    ),
    _sort(
        "start_left_behind",
        _OUTSIDE,
        "the engine was killed in the middle of an earlier start of this container",
        "task [0-9a-f]{64}: already exists",
    ),
    _sort(
        "removal_in_progress",
        _TEMPORARY,
        "the engine is still removing the container",
        "removal of container .* already in progress",
        "marked for removal",
    ),
    _sort(
        "image_in_use",
        _OUTSIDE,
        "a container, or another image, uses the image",
        "conflict: unable to (remove|delete)",
        "image is in use by",
    ),
    _sort("volume_missing", _TEMPORARY, "the volume does not exist", "no such volume"),
    _sort("volume_in_use", _OUTSIDE, "a container has the volume", "volume is in use", "volume is being used"),
    _sort("network_in_use", _TEMPORARY, "containers are still attached to the network", "has active endpoints"),
    _sort("network_ambiguous", _OUTSIDE, "several networks have this name", "network .* is ambiguous"),
    _sort(
        "network_missing",
        _TEMPORARY,
        "the network does not exist",
        r"network \S+ not found",
        "could not find .*network",
    ),
    _sort(
        "dependency_not_running",
        _TEMPORARY,
        "the container whose namespace is to be shared does not run",
        "cannot join network of a non running",
        "container [0-9a-f]{64} is not running",
    ),
    _sort("exec_format", _TARGET, "the program is built for another processor, or is no program", "exec format error"),
    _sort(
        "device_missing",
        _OUTSIDE,
        "a device is missing on the host",
        "error gathering device information",
        "could not select device driver",
        "unresolvable cdi",
        "not a device node",
    ),
    _sort(
        "bad_config",
        _TARGET,
        "it cannot be mounted there: the image has a file for a folder, a folder for a file, or takes nothing there",
        # Its source is a tmpfs, a volume, or in one a file that the agent has made (`docker_files`): it is known what
        # they are, and that they are there.
        r'mounting "(tmpfs|[^"]*/_data(/files/[0-9]+)?)" to rootfs.*(not a directory|read-only file system)',
        r'mounting "tmpfs" to rootfs at "/(proc|sys)/',
        r"^source \S+ is not directory",
        "cannot be mounted because it is inside /proc",
    ),
    _sort(
        "mount_failed",
        _OUTSIDE,
        "a mount failed",
        "bind source path does not exist",
        "error mounting",
        "error while mounting volume",
        "failed to mount",
        "error while creating mount source",
        "is not a shared or slave mount",
    ),
    _sort(
        "bad_command",
        _TARGET,
        "the command, or the user it is to run as, is not in the image or may not be run",
        "executable file not found",
        r'exec: ".*": (stat|permission denied|is a directory)',
        "unable to find (user|group)",
        "no command specified",
    ),
    _WRONG_PLATFORM,
    _sort("no_such_image", _TARGET, "the image does not exist", "no such image"),
    _sort(
        "bad_config",
        _TARGET,
        "the engine's storage driver does not take this `storage_opt`",
        "^unknown option",
        "storage-opt is (supported only|not supported)",
    ),
    _sort(
        "bad_config",
        _TARGET,
        "the other container keeps its shared memory to itself: give it `ipc: shareable`",
        "non-shareable ipc",
    ),
    _sort(
        "plugin_missing",
        _OUTSIDE,
        "the engine has no such driver or runtime",
        'plugin ".*" not found',
        "unknown runtime",
        "unknown or invalid runtime",
    ),
    _sort("no_such_container", _TEMPORARY, "the container is gone", "no such container", r"endpoint \S+ not found"),
    _sort(
        "start_failed",
        _TARGET,
        "the container cannot be started as the target asks",
        "oci runtime",
        "failed to create (shim|task)",
        "runc create failed",
    ),
)

_OF_REGISTRY: tuple[_Sort, ...] = (
    _DISK_FULL,
    _sort(
        "registry_limited",
        _OUTSIDE,
        "the registry limits the number of pulls",
        "toomanyrequests",
        "too many requests",
        "rate limit",
        "error parsing http 429",
    ),
    _sort(
        "registry_auth",
        _OUTSIDE,
        "the registry wants credentials, or other ones",
        "unauthorized",
        "pull access denied",
        r"\bdenied:",
        "access to the resource is denied",
        r"\b403 forbidden",
        "error parsing http 403",
        "authentication required",
        "no basic auth credentials",
        "access forbidden",
        "incorrect username or password",
    ),
    _WRONG_PLATFORM,
    _sort(
        "no_such_image",
        _TARGET,
        "the image does not exist",
        "failed to resolve reference .*: not found$",
        "manifest (for .* )?(unknown|not found)",
        "name unknown",
        "repository .* not found",
        "error parsing http 404",
    ),
    _sort(
        "registry_unreachable",
        _TEMPORARY,
        "the registry cannot be reached",
        "dial tcp",
        "no such host",
        "server misbehaving",
        "i/o timeout",
        r"client\.timeout",
        "tls handshake",
        "tls:",
        "x509",
        "gave http response",
        "connection (refused|reset)",
        "context deadline exceeded",
        "request canceled",
        r"\beof\b",
        "network is unreachable",
        "no route to host",
        "proxyconnect",
        "received unexpected http status",
        "bad gateway",
        "service unavailable",
        "gateway time",
        r"unexpected status .*: 5\d\d",
    ),
)
"""Tried before the others for a pull: what it says comes from another machine."""

_BY_STATUS: dict[int, tuple[str, Kind, str]] = {
    400: ("bad_config", _TARGET, "the engine refuses this configuration"),
    403: ("forbidden", _OUTSIDE, "the engine does not allow it"),
    404: ("not_found", _TEMPORARY, "something it needs is not there"),
    409: ("conflict", _TEMPORARY, "the engine is busy with this object"),
}


def sorted_error(status: int, message: str, *, pulling: bool = False) -> EngineError:
    """The error for an HTTP status (200 for one that came in-band) and the engine's message."""
    message = message.strip()
    for sort in (*_OF_REGISTRY, *_BY_MESSAGE) if pulling else _BY_MESSAGE:
        if sort.fits(message):
            return EngineError(sort.code, _sentence(sort.text, message), sort.kind)
    code, kind, text = _BY_STATUS.get(status, ("engine_error", _TEMPORARY, "the engine failed"))
    return EngineError(code, _sentence(text, message), kind)


def timed_out(what: str, seconds: float) -> EngineError:
    """One call that took too long, while the engine answers others."""
    return EngineError("timeout", f"the engine took longer than {seconds:g} s: {what}", Kind.TEMPORARY)


def message_of(body: bytes) -> str:
    """The words in an error's body: JSON with `message` (Docker, Podman), or plain text from something in between."""
    try:
        document = json.loads(body)
    except ValueError:
        return body.decode(errors="replace")
    return str(document.get("message", "")) if isinstance(document, dict) else str(document)


def _sentence(text: str, message: str) -> str:
    if len(message) > LIMIT:
        message = message[: LIMIT - 1] + "…"
    return f"{text}: {message}" if message else text
